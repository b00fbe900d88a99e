//! Log entries: raft's own form behind accessors, with a checksum made once at proposal.

use bytes::Bytes;
use raft_proto::eraftpb;

use crate::{DecodeError, RegionId};

/// What an entry carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A command, or nothing (a new leader's first entry).
    Normal,
    /// One change of membership.
    ConfChange,
    /// Several changes of membership.
    ConfChangeV2,
}

/// What the store must know of an entry without decoding it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryFlags {
    /// It cuts the region.
    pub split: bool,
    /// It changes the membership.
    pub conf_change: bool,
    /// What it does depends on the data it finds.
    pub conditional: bool,
}

impl EntryFlags {
    /// None of them.
    pub const NONE: Self = Self { split: false, conf_change: false, conditional: false };
}

const FLAG_SPLIT: u8 = 1;
const FLAG_CONF_CHANGE: u8 = 2;
const FLAG_CONDITIONAL: u8 = 4;

/// Length of the context of an entry of ours: one flag byte and a CRC32C.
pub const ENTRY_CONTEXT_LEN: usize = 5;

/// An entry of a region's raft log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry(eraftpb::Entry);

impl Entry {
    /// Its position in the log.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.0.index
    }

    /// The term in which it was proposed.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.0.term
    }

    /// The payload. Shares its allocation with whatever it was decoded from.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.0.data
    }

    /// What it carries.
    #[must_use]
    pub fn kind(&self) -> EntryKind {
        match self.0.entry_type {
            eraftpb::EntryType::EntryNormal => EntryKind::Normal,
            eraftpb::EntryType::EntryConfChange => EntryKind::ConfChange,
            eraftpb::EntryType::EntryConfChangeV2 => EntryKind::ConfChangeV2,
        }
    }

    /// Bytes of payload and context.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.0.data.len() + self.0.context.len()
    }

    /// The flags its proposer set. None for raft's own entries.
    #[must_use]
    pub fn flags(&self) -> EntryFlags {
        let bits = self.0.context.first().copied().unwrap_or(0);
        EntryFlags {
            split: bits & FLAG_SPLIT != 0,
            conf_change: bits & FLAG_CONF_CHANGE != 0,
            conditional: bits & FLAG_CONDITIONAL != 0,
        }
    }

    /// Makes the context of an entry that will stand at (`index`, `term`) of `region`.
    ///
    /// *Shape*: one flag byte, then the CRC32C over region, index, term (big-endian u64
    /// each), the flag byte and `data`, big-endian.
    #[must_use]
    pub fn context_for(
        region: RegionId,
        index: u64,
        term: u64,
        flags: EntryFlags,
        data: &[u8],
    ) -> Vec<u8> {
        let mut bits = 0;
        if flags.split {
            bits |= FLAG_SPLIT;
        }
        if flags.conf_change {
            bits |= FLAG_CONF_CHANGE;
        }
        if flags.conditional {
            bits |= FLAG_CONDITIONAL;
        }
        let crc = checksum(region, index, term, bits, data);
        let mut context = Vec::with_capacity(ENTRY_CONTEXT_LEN);
        context.push(bits);
        context.extend_from_slice(&crc.to_be_bytes());
        context
    }

    /// Checks the entry against the checksum its proposer made, and its kind against the
    /// flag that says whether it changes the membership.
    ///
    /// raft's own entries (a new leader's first, the end of a joint change, a refused
    /// membership change) have neither payload nor context; what is stored of them is
    /// covered by the log record's checksum.
    ///
    /// # Errors
    /// [`DecodeError::Checksum`] if the bytes are not what was proposed.
    pub fn verify(&self, region: RegionId) -> Result<(), DecodeError> {
        let context = &self.0.context;
        if context.is_empty() && self.0.data.is_empty() {
            return Ok(());
        }
        let damaged = DecodeError::Checksum { what: "log entry" };
        let Some((bits, crc)) = context.split_first() else {
            return Err(damaged);
        };
        let Ok(crc) = <[u8; 4]>::try_from(crc) else {
            return Err(damaged);
        };
        let conf_change = self.kind() != EntryKind::Normal;
        if conf_change == self.flags().conf_change
            && checksum(region, self.0.index, self.0.term, *bits, &self.0.data)
                == u32::from_be_bytes(crc)
        {
            Ok(())
        } else {
            Err(damaged)
        }
    }

    /// Wraps raft's form.
    #[must_use]
    pub const fn from_raft(entry: eraftpb::Entry) -> Self {
        Self(entry)
    }

    /// Raft's form.
    #[must_use]
    pub fn into_raft(self) -> eraftpb::Entry {
        self.0
    }

    /// Raft's form, borrowed.
    #[must_use]
    pub const fn as_raft(&self) -> &eraftpb::Entry {
        &self.0
    }
}

fn checksum(region: RegionId, index: u64, term: u64, bits: u8, data: &[u8]) -> u32 {
    let mut head = [0; 25];
    head[..8].copy_from_slice(&region.get().to_be_bytes());
    head[8..16].copy_from_slice(&index.to_be_bytes());
    head[16..24].copy_from_slice(&term.to_be_bytes());
    head[24] = bits;
    crc32c::crc32c_append(crc32c::crc32c(&head), data)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGION: RegionId = RegionId::must(7);

    fn entry(flags: EntryFlags, kind: eraftpb::EntryType) -> Entry {
        let mut inner = eraftpb::Entry::new();
        inner.entry_type = kind;
        inner.index = 11;
        inner.term = 3;
        inner.data = Bytes::from_static(b"payload");
        inner.context = Entry::context_for(REGION, 11, 3, flags, b"payload").into();
        Entry(inner)
    }

    fn normal() -> Entry {
        entry(EntryFlags { split: true, ..EntryFlags::NONE }, eraftpb::EntryType::EntryNormal)
    }

    #[test]
    fn intact_entries_pass() {
        assert_eq!(normal().verify(REGION), Ok(()));
        let flags = EntryFlags { conf_change: true, ..EntryFlags::NONE };
        for kind in [eraftpb::EntryType::EntryConfChange, eraftpb::EntryType::EntryConfChangeV2] {
            assert_eq!(entry(flags, kind).verify(REGION), Ok(()));
            assert_eq!(entry(flags, kind).flags(), flags);
        }
    }

    #[test]
    fn rafts_empty_entries_pass() {
        assert_eq!(Entry::default().verify(REGION), Ok(()));
    }

    #[test]
    fn context_is_a_flag_byte_and_a_checksum() {
        let context = normal().0.context;
        assert_eq!(context.len(), ENTRY_CONTEXT_LEN);
        assert_eq!(context[0], 1);
        let mut covered = Vec::new();
        for number in [7_u64, 11, 3] {
            covered.extend_from_slice(&number.to_be_bytes());
        }
        covered.push(1);
        covered.extend_from_slice(b"payload");
        assert_eq!(context[1..], crc32c::crc32c(&covered).to_be_bytes());
    }

    #[test]
    fn every_damage_is_seen() {
        let damages: [fn(&mut eraftpb::Entry); 9] = [
            |entry| entry.index += 1,
            |entry| entry.term += 1,
            |entry| entry.data = Bytes::from_static(b"Payload"),
            |entry| entry.data = Bytes::new(),
            |entry| entry.context = Bytes::new(),
            |entry| entry.context = entry.context.slice(..4),
            |entry| entry.context = [&[0], &entry.context[1..]].concat().into(),
            |entry| entry.entry_type = eraftpb::EntryType::EntryConfChange,
            |entry| entry.context = [&entry.context[..], &[0]].concat().into(),
        ];
        for (at, damage) in damages.into_iter().enumerate() {
            let mut damaged = normal();
            damage(&mut damaged.0);
            assert!(damaged.verify(REGION).is_err(), "damage {at}");
        }
        assert!(normal().verify(RegionId::must(8)).is_err());
    }
}
