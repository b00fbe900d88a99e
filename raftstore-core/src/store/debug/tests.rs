//! What is shown is what is stored, on both kinds of engine, while a store is open and behind
//! it.

use engine_redb::{MemDisk, RedbEngine, RedbOptions, open_raft_log_with_backend};
use engine_traits::{
    Durability, RaftLogBatch, WriteBatch,
    mem::{MemEngine, MemRaftLog},
};
use raft::eraftpb;
use raftstore_proto::{EntryFlags, Epoch, HardState, Peer, PeerId, Region, StoreId, Truncated};

use super::*;
use crate::store::bootstrap::put_new_region;

const R1: RegionId = RegionId::must(1);
const R7: RegionId = RegionId::must(7);
const R8: RegionId = RegionId::must(8);
const R9: RegionId = RegionId::must(9);

fn region(id: RegionId, start: &'static str, end: &'static str) -> Region {
    Region {
        id,
        start_key: start.into(),
        end_key: end.into(),
        epoch: Epoch { conf_ver: 1, version: 1 },
        peers: vec![Peer::voter(PeerId::must(70), StoreId::must(1))],
    }
}

fn local_state() -> LocalState {
    let hard_state = HardState { term: 6, vote: 70, commit: 9 };
    LocalState { peer: PeerId::must(70), hard_state, last_index: 10 }
}

fn apply_state() -> ApplyState {
    ApplyState { applied: 9, applied_term: 6, truncated: Truncated { index: 5, term: 5 } }
}

fn entry() -> Entry {
    let context = Entry::context_for(R7, 6, 6, EntryFlags::default(), b"payload");
    let data = Bytes::from_static(b"payload");
    Entry::from_raft(eraftpb::Entry {
        index: 6,
        term: 6,
        data,
        context: context.into(),
        ..eraftpb::Entry::default()
    })
}

/// Region 7 has everything, 8 is a tombstone, 9 a vote alone.
fn fill<K: KvEngine, R: RaftEngine>(kv: &K, raft: &R) {
    let mut batch = kv.write_batch();
    let state = RegionState { phase: RegionPhase::Normal, region: region(R7, "b", "m") };
    batch.put(Cf::Raft, &keys::region_state_key(R7), &record::encode_region_state(R7, &state));
    let applied = record::encode_apply_state(R7, &apply_state());
    batch.put(Cf::Raft, &keys::apply_state_key(R7), &applied);
    let gone = RegionState { phase: RegionPhase::Tombstone, region: region(R8, "m", "z") };
    batch.put(Cf::Raft, &keys::region_state_key(R8), &record::encode_region_state(R8, &gone));
    for (cf, key, value) in [
        (Cf::Default, "a", "not of the region"),
        (Cf::Default, "b", "12345"),
        (Cf::Default, "l", "1234567"),
        (Cf::Default, "m", "not of the region"),
        (Cf::Lock, "c", "123"),
    ] {
        batch.put(cf, &keys::data_key(key.as_bytes()), value.as_bytes());
    }
    kv.write(batch, Durability::Synced).unwrap();
    let mut logs = raft.log_batch();
    logs.put_raft_state(R7, &local_state());
    logs.append(R7, &[entry()]);
    logs.put_raft_state(R9, &local_state());
    raft.write(logs, Durability::Synced).unwrap();
}

fn shows_what_is_stored<K: KvEngine, R: RaftEngine>(debug: &DebugAccess<K, R>) {
    let get = |engine, cf: &str, key: &[u8]| debug.get(engine, cf, key);
    assert_eq!(get(DebugEngine::Kv, "default", b"zb").unwrap(), "12345");
    assert_eq!(get(DebugEngine::Kv, "lock", b"zc").unwrap(), "123");
    let raw = get(DebugEngine::Kv, "raft", &keys::apply_state_key(R7)).unwrap();
    assert_eq!(raw, record::encode_apply_state(R7, &apply_state()));
    let state_key = [&[1, 2][..], &7_u64.to_be_bytes(), &[2]].concat();
    let entry_key = [&[1, 2][..], &7_u64.to_be_bytes(), &[1], &6_u64.to_be_bytes()].concat();
    let raw = get(DebugEngine::Raft, "default", &state_key).unwrap();
    assert_eq!(raw, record::encode_local_state(R7, &local_state()));
    let raw = get(DebugEngine::Raft, "default", &entry_key).unwrap();
    assert_eq!(raw, record::encode_entry(R7, &entry()));
    assert_eq!(debug.entry(R7, 6).unwrap(), entry());

    let info = debug.region(R7).unwrap();
    assert_eq!(info.raft_state, Some(local_state()));
    assert_eq!(info.apply_state, Some(apply_state()));
    assert_eq!(info.region_state.unwrap().region, region(R7, "b", "m"));
    assert_eq!(info.quarantined, None);
    let vote = debug.region(R9).unwrap();
    assert_eq!((vote.raft_state, vote.apply_state), (Some(local_state()), None));
    assert_eq!(vote.region_state, None);

    let sizes = debug.region_sizes(R7).unwrap();
    assert_eq!(sizes, [(Cf::Default, 12), (Cf::Lock, 3), (Cf::Write, 0)]);

    let listed = debug.regions().unwrap();
    let shown: Vec<_> = listed
        .iter()
        .map(|it| (it.region, it.phase.clone().map(std::result::Result::unwrap), it.has_log))
        .collect();
    assert_eq!(
        shown,
        [
            (R7, Some(RegionPhase::Normal), true),
            (R8, Some(RegionPhase::Tombstone), false),
            (R9, None, true),
        ]
    );
    debug.compact(Cf::Default, b"", b"").unwrap();
    debug.compact(Cf::Write, b"za", b"").unwrap();
}

fn refuses_what_is_not_there<K: KvEngine, R: RaftEngine>(debug: &DebugAccess<K, R>) {
    let not_found = |error: DebugError| {
        assert!(matches!(error, DebugError::NotFound { .. }), "{error}");
    };
    not_found(debug.get(DebugEngine::Kv, "default", b"zx").unwrap_err());
    not_found(debug.get(DebugEngine::Kv, "write", b"zb").unwrap_err());
    not_found(debug.entry(R7, 7).unwrap_err());
    not_found(debug.entry(R8, 6).unwrap_err());
    not_found(debug.region(R1).unwrap_err());
    not_found(debug.region_sizes(R1).unwrap_err());
    not_found(debug.region_sizes(R8).unwrap_err());
    let missing = [&[1, 2][..], &7_u64.to_be_bytes(), &[1], &9_u64.to_be_bytes()].concat();
    not_found(debug.get(DebugEngine::Raft, "default", &missing).unwrap_err());

    let invalid = |error: DebugError| {
        assert!(matches!(error, DebugError::InvalidArgument { .. }), "{error}");
    };
    for cf in ["", "Default", "no such family"] {
        invalid(debug.get(DebugEngine::Kv, cf, b"zb").unwrap_err());
    }
    let state_key = [&[1, 2][..], &7_u64.to_be_bytes(), &[2]].concat();
    for cf in ["lock", "write", "raft", ""] {
        invalid(debug.get(DebugEngine::Raft, cf, &state_key).unwrap_err());
    }
    // H64: what is not wholly a log's key is none.
    let zero = [&[1, 2][..], &0_u64.to_be_bytes(), &[2]].concat();
    for key in [&b""[..], b"zb", &state_key[..10], &[&state_key[..], &[0]].concat(), &zero] {
        invalid(debug.get(DebugEngine::Raft, "default", key).unwrap_err());
    }
    invalid(debug.region_size(R7, &[Cf::Default, Cf::Raft]).unwrap_err());
    invalid(debug.compact(Cf::Default, b"zb", b"za").unwrap_err());
    invalid(debug.compact(Cf::Default, b"zb", b"zb").unwrap_err());
}

#[test]
fn memory_engines_show_what_they_hold() {
    let (kv, raft) = (MemEngine::new(), MemRaftLog::new());
    fill(&kv, &raft);
    let debug = DebugAccess::new(kv, raft);
    shows_what_is_stored(&debug);
    refuses_what_is_not_there(&debug);
}

/// The engines of a store that is closed are opened for nothing but the look.
#[test]
fn redb_engines_show_what_they_hold_open_and_opened_again() {
    let (data, log) = (MemDisk::new(), MemDisk::new());
    let options = RedbOptions::default();
    for is_first in [true, false] {
        let kv = RedbEngine::open_with_backend(data.backend(), &options).unwrap();
        let raft = open_raft_log_with_backend(log.backend(), &options).unwrap();
        if is_first {
            fill(&kv, &raft);
        }
        let debug = DebugAccess::new(kv, raft);
        shows_what_is_stored(&debug);
        refuses_what_is_not_there(&debug);
    }
}

/// One damaged record hides no other.
#[test]
fn damage_is_named_and_hides_nothing_else() {
    let (kv, raft) = (MemEngine::new(), MemRaftLog::new());
    fill(&kv, &raft);
    let mut batch = kv.write_batch();
    let mut torn = record::encode_apply_state(R7, &apply_state());
    torn[0] ^= 1;
    batch.put(Cf::Raft, &keys::apply_state_key(R7), &torn);
    batch.put(Cf::Raft, &keys::region_state_key(R8), b"not a record");
    batch.put(Cf::Raft, &keys::quarantine_key(R8), b"seen before");
    kv.write(batch, Durability::Buffered).unwrap();
    let debug = DebugAccess::new(kv, raft);
    let error = debug.region(R7).unwrap_err();
    assert_eq!(
        error.to_string(),
        "apply state of region 7 is corrupt: apply state fails its checksum"
    );
    assert!(matches!(error, DebugError::Corrupt { .. }));
    assert_eq!(debug.raft_state(R7).unwrap(), Some(local_state()));
    assert!(debug.region_state(R7).unwrap().is_some());
    let listed = debug.regions().unwrap();
    assert_eq!(listed[1].region, R8);
    let why = listed[1].phase.clone().unwrap().unwrap_err();
    assert_eq!(why, "region state fails its checksum");
    assert_eq!(listed[1].quarantined.as_deref(), Some("seen before"));
    assert_eq!(debug.quarantined(R8).unwrap().as_deref(), Some("seen before"));
}

/// A new region as bootstrap and splits make it is shown whole.
#[test]
fn a_new_region_is_shown_whole() {
    let (kv, raft) = (MemEngine::new(), MemRaftLog::new());
    let mut batch = kv.write_batch();
    put_new_region(&region(R1, "", ""), &mut batch);
    kv.write(batch, Durability::Buffered).unwrap();
    let info = DebugAccess::new(kv, raft).region(R1).unwrap();
    assert_eq!(info.apply_state, Some(keys::initial_apply_state()));
    assert_eq!(info.region_state.unwrap().phase, RegionPhase::Normal);
    assert_eq!(info.raft_state, None);
}
