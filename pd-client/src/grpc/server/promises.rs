//! What a server has promised beside what is PD's own: timestamps, safe points, replicas.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};
use raftstore_proto::ClusterId;

use super::tso::Tso;

const MAGIC: &[u8; 8] = b"rs-pdpr\x01";
const CHECKSUM_LEN: usize = 4;
/// Services that may hold the safe point back.
const SERVICES_MAX: usize = 1024;
/// Bytes of a service's name.
const NAME_MAX: usize = 256;
/// The service that garbage collection itself is: it is never absent, and never expires.
const COLLECTOR: &[u8] = b"gc_worker";

/// A service that needs what is newer than a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// Seconds of the Unix epoch.
    pub(super) expires_s: i64,
    pub(super) safe_point: u64,
}

/// All of it. Changed in a copy, which takes the place of the original once it is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Promises {
    pub(super) cluster: ClusterId,
    pub(super) tso: Tso,
    /// What is older may be collected.
    pub(super) safe_point: u64,
    holders: BTreeMap<Bytes, Holder>,
    /// Voters each region shall have, if anybody said.
    pub(super) max_replicas: Option<u32>,
    /// Whether PD's state was written beside this: it must be there then.
    pub(super) has_state: bool,
}

impl Promises {
    pub(super) const fn new(cluster: ClusterId) -> Self {
        Self {
            cluster,
            tso: Tso::after(0),
            safe_point: 0,
            holders: BTreeMap::new(),
            max_replicas: None,
            has_state: false,
        }
    }

    /// Raises the safe point; it never goes back. Gives what it is now.
    pub(super) fn raise_safe_point(&mut self, safe_point: u64) -> u64 {
        self.safe_point = self.safe_point.max(safe_point);
        self.safe_point
    }

    /// Lets a service hold the safe point back for `ttl_s`, or no longer if that is not
    /// positive. What is older than what all others need cannot be held any more, and the
    /// wish is passed over. Gives who needs the oldest.
    pub(super) fn hold(
        &mut self,
        now_s: i64,
        service: &Bytes,
        ttl_s: i64,
        safe_point: u64,
    ) -> Result<(Bytes, Holder), &'static str> {
        let is_collector = service == COLLECTOR;
        if service.is_empty() || service.len() > NAME_MAX {
            return Err("a service's name is 1 to 256 bytes");
        }
        if is_collector && ttl_s != i64::MAX {
            return Err("the safe point of gc_worker does not expire");
        }
        self.holders.retain(|_, holder| holder.expires_s > now_s);
        let collector = Bytes::from_static(COLLECTOR);
        self.holders.entry(collector).or_insert(Holder { expires_s: i64::MAX, safe_point: 0 });
        let oldest = self.oldest().map_or(0, |(_, holder)| holder.safe_point);
        if ttl_s <= 0 {
            self.holders.remove(service);
        } else if safe_point >= oldest {
            if self.holders.len() >= SERVICES_MAX && !self.holders.contains_key(service) {
                return Err("too many services hold the safe point");
            }
            let expires_s = now_s.saturating_add(ttl_s);
            self.holders.insert(service.clone(), Holder { expires_s, safe_point });
        }
        self.oldest().ok_or("nobody holds the safe point")
    }

    fn oldest(&self) -> Option<(Bytes, Holder)> {
        let (service, holder) = self.holders.iter().min_by_key(|(_, it)| it.safe_point)?;
        Some((service.clone(), *holder))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.put_u64(self.cluster.get());
        out.put_u64(self.tso.limit_ms());
        out.put_u64(self.safe_point);
        out.put_u32(self.max_replicas.unwrap_or(0));
        out.put_u8(self.has_state.into());
        for (service, holder) in &self.holders {
            out.put_u32(u32::try_from(service.len()).expect("names are short"));
            out.extend_from_slice(service);
            out.put_i64(holder.expires_s);
            out.put_u64(holder.safe_point);
        }
        let checksum = crc32c::crc32c(&out);
        out.put_u32(checksum);
        out
    }

    /// What [`Promises::encode`] gave, or why it is not.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let Some((body, found)) = bytes.split_last_chunk::<CHECKSUM_LEN>() else {
            return Err("it is too short");
        };
        let Some(mut rest) = body.strip_prefix(MAGIC) else {
            return Err("it is no such file, or a later version's");
        };
        if *found != crc32c::crc32c(body).to_be_bytes() {
            return Err("it does not fit its checksum");
        }
        Self::parse(&mut rest).ok_or("it makes no sense")
    }

    fn parse(rest: &mut &[u8]) -> Option<Self> {
        let mut promises = Self::new(ClusterId::new(rest.try_get_u64().ok()?)?);
        promises.tso = Tso::after(rest.try_get_u64().ok()?);
        promises.safe_point = rest.try_get_u64().ok()?;
        promises.max_replicas = Some(rest.try_get_u32().ok()?).filter(|count| *count != 0);
        promises.has_state = rest.try_get_u8().ok()? != 0;
        while !rest.is_empty() {
            let len = rest.try_get_u32().ok()?;
            let (service, after) = rest.split_at_checked(len as usize)?;
            *rest = after;
            let expires_s = rest.try_get_i64().ok()?;
            let holder = Holder { expires_s, safe_point: rest.try_get_u64().ok()? };
            promises.holders.insert(Bytes::copy_from_slice(service), holder);
        }
        Some(promises)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId::must(7);

    fn name(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn the_oldest_need_counts_until_it_expires() {
        let mut promises = Promises::new(CLUSTER);
        let mut hold = |now_s, service, ttl_s, safe_point| {
            let (service, holder) = promises.hold(now_s, &name(service), ttl_s, safe_point)?;
            Ok::<_, &str>((String::from_utf8(service.to_vec()).unwrap(), holder.safe_point))
        };
        let oldest = |service: &str, safe_point| Ok((service.to_owned(), safe_point));
        assert_eq!(hold(10, "gc_worker", i64::MAX, 50), oldest("gc_worker", 50));
        assert_eq!(hold(10, "backup", 5, 60), oldest("gc_worker", 50));
        assert_eq!(hold(11, "gc_worker", i64::MAX, 90), oldest("backup", 60));
        assert_eq!(hold(11, "late", 5, 59), oldest("backup", 60), "59 is gone already");
        assert_eq!(hold(15, "other", 5, 95), oldest("gc_worker", 90), "backup has expired");
        assert_eq!(hold(15, "other", 0, 0), oldest("gc_worker", 90));
        assert!(hold(15, "gc_worker", 9, 99).is_err());
        assert!(hold(15, "", 9, 99).is_err());
    }

    #[test]
    fn the_safe_point_does_not_go_back() {
        let mut promises = Promises::new(CLUSTER);
        assert_eq!(promises.raise_safe_point(9), 9);
        assert_eq!(promises.raise_safe_point(4), 9);
    }

    #[test]
    fn all_of_it_comes_back_and_nothing_damaged_does() {
        let mut promises = Promises::new(CLUSTER);
        promises.tso.extend(123_456, 5);
        promises.raise_safe_point(17);
        promises.max_replicas = Some(5);
        promises.hold(1, &name("backup"), 9, 20).unwrap();
        let bytes = promises.encode();
        let back = Promises::decode(&bytes).unwrap();
        assert_eq!(back.encode(), bytes);
        assert_eq!(back.tso, Tso::after(promises.tso.limit_ms()));
        assert_eq!((back.safe_point, back.max_replicas), (17, Some(5)));
        assert_eq!(back.holders, promises.holders);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Promises::decode(&damaged).is_err(), "byte {at}");
            assert!(Promises::decode(&bytes[..at]).is_err(), "{at} bytes");
        }
    }
}
