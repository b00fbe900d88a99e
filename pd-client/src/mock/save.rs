//! What PD must not forget, as bytes: for a server that keeps it on disk.
//!
//! *Shape*: eight bytes that say what it is and in which version, then records. A record is
//! its length (four bytes, big endian), a byte for its kind, its body, and four bytes of
//! CRC32C over its number in the file, its kind and its body. So a record neither decodes
//! when damaged, nor in another's place. The last one says how many there are: bytes that
//! end early are refused too.
//!
//! Not in it is what comes back by itself: orders are made anew, leaders report health,
//! flows and themselves. Times are not either, since clocks begin anew: a store that was
//! known counts as heard of when PD starts.

use bytes::{Buf, BufMut, Bytes};
use raftstore_proto::{ClusterId, DecodeError, Epoch, PeerId, Region, RegionId, StoreId, wire};

use crate::{StoreInfo, StoreLifecycle};

const MAGIC: &[u8; 8] = b"rs-pd\0\0\x01";
const CHECKSUM_LEN: usize = 4;

/// Why bytes are not what a PD has saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Nothing of PD's, or of a version this one does not know.
    #[error("these bytes are no state of PD, or a later version's")]
    Unknown,
    /// They end too early.
    #[error("the state of PD ends within record {record}")]
    Truncated {
        /// Which record, from 0 on.
        record: u32,
    },
    /// They are damaged.
    #[error("record {record} of the state of PD does not fit its checksum")]
    Checksum {
        /// Which record, from 0 on.
        record: u32,
    },
    /// They are whole, but say what cannot be.
    #[error("record {record} of the state of PD makes no sense: {why}")]
    Malformed {
        /// Which record, from 0 on.
        record: u32,
        /// What is wrong.
        why: &'static str,
    },
    /// A region in them cannot be read.
    #[error("record {record} of the state of PD")]
    Region {
        /// Which record, from 0 on.
        record: u32,
        /// What is wrong.
        #[source]
        source: DecodeError,
    },
    /// They do not fit together.
    #[error("the state of PD contradicts itself")]
    Contradiction(#[source] crate::Error),
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    Cluster {
        cluster: ClusterId,
        /// No id below was ever given to anybody else than is on record.
        next_id: u64,
        is_bootstrapped: bool,
    },
    Store(StoreInfo),
    Region {
        region: Region,
        term: u64,
        leader: Option<PeerId>,
        approximate_size: u64,
    },
    /// A region of which only this is known.
    PushedOut {
        region: RegionId,
        epoch: Epoch,
        term: u64,
    },
    /// The last one.
    End {
        /// How many there are, without this one.
        records: u32,
    },
}

/// Writes records.
pub(super) struct Writer {
    out: Vec<u8>,
    records: u32,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self { out: MAGIC.to_vec(), records: 0 }
    }

    pub(super) fn put(&mut self, saved: &Saved) {
        let mut record = Vec::new();
        write(saved, &mut record);
        let checksum = checksum(self.records, &record);
        let len = u32::try_from(record.len()).expect("a record is far smaller than 4 GiB");
        self.out.put_u32(len);
        self.out.append(&mut record);
        self.out.put_u32(checksum);
        self.records += 1;
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let records = self.records;
        self.put(&Saved::End { records });
        self.out
    }
}

fn checksum(number: u32, record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_be_bytes()), record)
}

fn write(saved: &Saved, out: &mut Vec<u8>) {
    match saved {
        Saved::Cluster { cluster, next_id, is_bootstrapped } => {
            out.put_u8(1);
            out.put_u64(cluster.get());
            out.put_u64(*next_id);
            out.put_u8(u8::from(*is_bootstrapped));
        }
        Saved::Store(info) => {
            out.put_u8(2);
            out.put_u64(info.id.get());
            out.put_u8(match info.lifecycle {
                StoreLifecycle::Up => 0,
                StoreLifecycle::Offline => 1,
                StoreLifecycle::Tombstone => 2,
            });
            put_text(out, &info.address);
            for (key, value) in &info.labels {
                put_text(out, key);
                put_text(out, value);
            }
        }
        Saved::Region { region, term, leader, approximate_size } => {
            out.put_u8(3);
            out.put_u64(*term);
            out.put_u64(leader.map_or(0, PeerId::get));
            out.put_u64(*approximate_size);
            out.extend_from_slice(&wire::encode_region(region));
        }
        Saved::PushedOut { region, epoch, term } => {
            out.put_u8(4);
            for number in [region.get(), epoch.conf_ver, epoch.version, *term] {
                out.put_u64(number);
            }
        }
        Saved::End { records } => {
            out.put_u8(5);
            out.put_u32(*records);
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u32(u32::try_from(text.len()).expect("an address or label is small"));
    out.extend_from_slice(text.as_bytes());
}

/// Reads all records; the last one is checked and left out.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Saved>, LoadError> {
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else { return Err(LoadError::Unknown) };
    let mut all = Vec::new();
    loop {
        let record = u32::try_from(all.len()).map_err(|_| LoadError::Unknown)?;
        let body = next(&mut rest, record)?;
        match parse(body, record)? {
            Saved::End { records } if records == record && rest.is_empty() => return Ok(all),
            Saved::End { .. } => {
                return Err(LoadError::Malformed { record, why: "records are missing" });
            }
            saved => all.push(saved),
        }
    }
}

/// The next record's kind and body.
fn next<'a>(rest: &mut &'a [u8], record: u32) -> Result<&'a [u8], LoadError> {
    let truncated = LoadError::Truncated { record };
    let Ok(len) = rest.try_get_u32() else { return Err(truncated) };
    let Some((body, after)) = rest.split_at_checked(len as usize) else { return Err(truncated) };
    let Some((found, after)) = after.split_at_checked(CHECKSUM_LEN) else { return Err(truncated) };
    if found != checksum(record, body).to_be_bytes() {
        return Err(LoadError::Checksum { record });
    }
    *rest = after;
    Ok(body)
}

fn parse(mut body: &[u8], record: u32) -> Result<Saved, LoadError> {
    let malformed = |why| LoadError::Malformed { record, why };
    let body = &mut body;
    let kind = body.try_get_u8().map_err(|_| malformed("it is empty"))?;
    let saved = match kind {
        1 => {
            let cluster = ClusterId::new(number(body, record)?);
            let next_id = number(body, record)?;
            let is_bootstrapped = body.try_get_u8().map_err(|_| malformed("it is too short"))?;
            Saved::Cluster {
                cluster: cluster.ok_or_else(|| malformed("the cluster id is 0"))?,
                next_id,
                is_bootstrapped: is_bootstrapped != 0,
            }
        }
        2 => Saved::Store(store(body, record)?),
        3 => {
            let (term, leader) = (number(body, record)?, number(body, record)?);
            let approximate_size = number(body, record)?;
            let region = wire::decode_region(&Bytes::copy_from_slice(body))
                .map_err(|source| LoadError::Region { record, source })?;
            *body = &[];
            Saved::Region { region, term, leader: PeerId::new(leader), approximate_size }
        }
        4 => {
            let region = RegionId::new(number(body, record)?);
            let (conf_ver, version) = (number(body, record)?, number(body, record)?);
            Saved::PushedOut {
                region: region.ok_or_else(|| malformed("the region id is 0"))?,
                epoch: Epoch { conf_ver, version },
                term: number(body, record)?,
            }
        }
        5 => Saved::End { records: body.try_get_u32().map_err(|_| malformed("it is too short"))? },
        _ => return Err(malformed("its kind is unknown")),
    };
    if body.is_empty() { Ok(saved) } else { Err(malformed("it is too long")) }
}

fn store(body: &mut &[u8], record: u32) -> Result<StoreInfo, LoadError> {
    let malformed = |why| LoadError::Malformed { record, why };
    let id = StoreId::new(number(body, record)?).ok_or_else(|| malformed("the store id is 0"))?;
    let lifecycle = match body.try_get_u8() {
        Ok(0) => StoreLifecycle::Up,
        Ok(1) => StoreLifecycle::Offline,
        Ok(2) => StoreLifecycle::Tombstone,
        _ => return Err(malformed("what became of the store is unknown")),
    };
    let address = text(body, record)?;
    let mut labels = Vec::new();
    while !body.is_empty() {
        labels.push((text(body, record)?, text(body, record)?));
    }
    Ok(StoreInfo { id, address, labels, lifecycle })
}

fn number(body: &mut &[u8], record: u32) -> Result<u64, LoadError> {
    body.try_get_u64().map_err(|_| LoadError::Malformed { record, why: "it is too short" })
}

fn text(body: &mut &[u8], record: u32) -> Result<String, LoadError> {
    let malformed = |why| LoadError::Malformed { record, why };
    let len = body.try_get_u32().map_err(|_| malformed("it is too short"))?;
    let (text, rest) =
        body.split_at_checked(len as usize).ok_or_else(|| malformed("a text is too long"))?;
    *body = rest;
    String::from_utf8(text.to_vec()).map_err(|_| malformed("a text is no UTF-8"))
}
