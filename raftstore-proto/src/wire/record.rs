//! Records on disk: a protobuf message and a CRC32C that binds it to its place.
//!
//! *Shape*: the message, then four big-endian bytes of CRC32C over one byte for the kind of
//! record, the region's id (big-endian u64; 0 for the store's own record) and the message. So a
//! record neither decodes when damaged, nor when it is read as another kind or for another
//! region. Messages are kvproto's, with fields of our own from number 1000 on.
//!
//! Nothing but what the encoder wrote decodes: there is no recovery of half a record, and a
//! number that stands for nothing known is an error, never a default.

use bytes::Bytes;
use protobuf::{CodedOutputStream, Message};

use crate::{
    ApplyState, ClusterId, DecodeError, Entry, HardState, LocalState, PeerId, RegionId,
    RegionPhase, RegionState, StoreId, StoreIdent, Truncated,
    pb::raft_serverpb::{self, PeerState},
    wire::{
        codec::malformed,
        parse,
        region::{refuse_unknown, region_from_pb, region_to_pb},
    },
};

const CHECKSUM_LEN: usize = 4;

/// What a record is of. The numbers are part of what is on disk.
#[derive(Clone, Copy)]
enum Kind {
    StoreIdent = 1,
    LocalState = 2,
    ApplyState = 3,
    RegionState = 4,
    Entry = 5,
}

impl Kind {
    const fn what(self) -> &'static str {
        match self {
            Self::StoreIdent => "store identity",
            Self::LocalState => "raft state",
            Self::ApplyState => "apply state",
            Self::RegionState => "region state",
            Self::Entry => "log entry",
        }
    }

    fn checksum(self, region: u64, message: &[u8]) -> [u8; CHECKSUM_LEN] {
        let mut head = [0; 9];
        head[0] = self as u8;
        head[1..].copy_from_slice(&region.to_be_bytes());
        crc32c::crc32c_append(crc32c::crc32c(&head), message).to_be_bytes()
    }

    /// The message with its checksum, in one allocation.
    fn seal(self, region: u64, message: &impl Message) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.compute_size() as usize + CHECKSUM_LEN);
        let mut stream = CodedOutputStream::vec(&mut out);
        message
            .write_to_with_cached_sizes(&mut stream)
            .and_then(|()| stream.flush())
            .expect("writing to memory does not fail");
        let checksum = self.checksum(region, &out);
        out.extend_from_slice(&checksum);
        out
    }

    /// Where the message ends, if the checksum fits.
    fn open(self, region: u64, record: &[u8]) -> Result<usize, DecodeError> {
        match record.split_last_chunk::<CHECKSUM_LEN>() {
            Some((message, checksum)) if *checksum == self.checksum(region, message) => {
                Ok(message.len())
            }
            _ => Err(DecodeError::Checksum { what: self.what() }),
        }
    }

    fn unseal<M: Message>(self, region: u64, record: &[u8]) -> Result<M, DecodeError> {
        let end = self.open(region, record)?;
        parse(self.what(), &Bytes::copy_from_slice(&record[..end]))
    }
}

/// The record of who a store is.
#[must_use]
pub fn encode_store_ident(ident: &StoreIdent) -> Vec<u8> {
    let mut out = raft_serverpb::StoreIdent::new();
    out.cluster_id = ident.cluster.get();
    out.store_id = ident.store.get();
    Kind::StoreIdent.seal(0, &out)
}

/// Reads the record of who a store is.
///
/// # Errors
/// [`DecodeError::Checksum`] on damage, [`DecodeError::ZeroId`].
pub fn decode_store_ident(record: &[u8]) -> Result<StoreIdent, DecodeError> {
    let ident: raft_serverpb::StoreIdent = Kind::StoreIdent.unseal(0, record)?;
    Ok(StoreIdent {
        cluster: ClusterId::try_from(ident.cluster_id)?,
        store: StoreId::try_from(ident.store_id)?,
    })
}

/// The record of a replica's raft log, with the incarnation it belongs to (W2).
#[must_use]
pub fn encode_local_state(region: RegionId, state: &LocalState) -> Vec<u8> {
    let mut out = raft_serverpb::RaftLocalState::new();
    let hard_state = out.mut_hard_state();
    hard_state.term = state.hard_state.term;
    hard_state.vote = state.hard_state.vote;
    hard_state.commit = state.hard_state.commit;
    out.last_index = state.last_index;
    out.peer_id = state.peer.get();
    Kind::LocalState.seal(region.get(), &out)
}

/// Reads the record of a replica's raft log.
///
/// # Errors
/// [`DecodeError::Checksum`] on damage or if it is another region's; [`DecodeError::ZeroId`],
/// [`DecodeError::Missing`].
pub fn decode_local_state(region: RegionId, record: &[u8]) -> Result<LocalState, DecodeError> {
    let state: raft_serverpb::RaftLocalState = Kind::LocalState.unseal(region.get(), record)?;
    let hard_state =
        state.hard_state.as_ref().ok_or(DecodeError::Missing { what: "hard state" })?;
    Ok(LocalState {
        peer: PeerId::try_from(state.peer_id)?,
        hard_state: HardState {
            term: hard_state.term,
            vote: hard_state.vote,
            commit: hard_state.commit,
        },
        last_index: state.last_index,
    })
}

/// The record of how far a region's data has come.
#[must_use]
pub fn encode_apply_state(region: RegionId, state: &ApplyState) -> Vec<u8> {
    let mut out = raft_serverpb::RaftApplyState::new();
    out.applied_index = state.applied;
    out.applied_term = state.applied_term;
    let truncated = out.mut_truncated_state();
    truncated.index = state.truncated.index;
    truncated.term = state.truncated.term;
    Kind::ApplyState.seal(region.get(), &out)
}

/// Reads the record of how far a region's data has come.
///
/// # Errors
/// [`DecodeError::Checksum`] on damage or if it is another region's; [`DecodeError::Missing`].
pub fn decode_apply_state(region: RegionId, record: &[u8]) -> Result<ApplyState, DecodeError> {
    let state: raft_serverpb::RaftApplyState = Kind::ApplyState.unseal(region.get(), record)?;
    let truncated =
        state.truncated_state.as_ref().ok_or(DecodeError::Missing { what: "truncated state" })?;
    Ok(ApplyState {
        applied: state.applied_index,
        applied_term: state.applied_term,
        truncated: Truncated { index: truncated.index, term: truncated.term },
    })
}

/// The record of a region's life. `region` is the one whose place it takes, which is the one
/// in `state`.
#[must_use]
pub fn encode_region_state(region: RegionId, state: &RegionState) -> Vec<u8> {
    debug_assert_eq!(region, state.region.id, "a region's record stands in its own place");
    let mut out = raft_serverpb::RegionLocalState::new();
    out.state = match state.phase {
        RegionPhase::Normal => PeerState::Normal,
        RegionPhase::Applying => PeerState::Applying,
        RegionPhase::Tombstone => PeerState::Tombstone,
        RegionPhase::Merging => PeerState::Merging,
        RegionPhase::Quarantined => PeerState::Quarantined,
    };
    out.set_region(region_to_pb(&state.region));
    Kind::RegionState.seal(region.get(), &out)
}

/// Reads the record of a region's life.
///
/// # Errors
/// [`DecodeError::Checksum`] on damage or if it is another region's;
/// [`DecodeError::UnknownValue`] for a phase or role that a later version wrote;
/// [`DecodeError::ZeroId`], [`DecodeError::Missing`]; [`DecodeError::Malformed`], also if there is
/// the state of a merge that the phase does not tell of.
pub fn decode_region_state(region: RegionId, record: &[u8]) -> Result<RegionState, DecodeError> {
    let mut state: raft_serverpb::RegionLocalState =
        Kind::RegionState.unseal(region.get(), record)?;
    refuse_unknown(&state.unknown_fields, 1, "region phase")?;
    let phase = match state.state {
        PeerState::Normal => RegionPhase::Normal,
        PeerState::Applying => RegionPhase::Applying,
        PeerState::Tombstone => RegionPhase::Tombstone,
        PeerState::Merging => RegionPhase::Merging,
        PeerState::Quarantined => RegionPhase::Quarantined,
    };
    let may_merge = matches!(phase, RegionPhase::Merging | RegionPhase::Tombstone);
    if state.merge_state.is_some() && !may_merge {
        return Err(malformed(Kind::RegionState.what(), "it merges, and its phase says otherwise"));
    }
    let inner = state.region.take().ok_or(DecodeError::Missing { what: "region of a state" })?;
    let inner = region_from_pb(inner)?;
    if inner.id != region {
        return Err(malformed(Kind::RegionState.what(), "it is about another region"));
    }
    Ok(RegionState { phase, region: inner })
}

/// The record of a log entry. Index and term are in the message, so the checksum covers them
/// for raft's own empty entries too (W14).
#[must_use]
pub fn encode_entry(region: RegionId, entry: &Entry) -> Vec<u8> {
    Kind::Entry.seal(region.get(), entry.as_raft())
}

/// Reads the record of a log entry. Payload and context are slices of `record`.
///
/// That the entry is the one its place in the log calls for is the caller's to check: the
/// record says which index and term it was written for, not where it was found.
///
/// # Errors
/// [`DecodeError::Checksum`] on damage or if it is another region's;
/// [`DecodeError::Malformed`] for a type of entry that a later version wrote.
pub fn decode_entry(region: RegionId, record: Bytes) -> Result<Entry, DecodeError> {
    let end = Kind::Entry.open(region.get(), &record)?;
    parse(Kind::Entry.what(), &record.slice(..end)).map(Entry::from_raft)
}
