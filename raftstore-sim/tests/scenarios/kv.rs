//! Group KV: commands and their validation.

use std::time::Duration;

use bytes::Bytes;
use engine_traits::{Durability, KvEngine, RaftEngine, RaftLogBatch, WriteBatch};
use raft_proto::eraftpb;
use raftstore_core::{
    Dropped,
    debug::{DebugAccess, DebugEngine, DebugError},
    keys,
};
use raftstore_proto::{
    ApplyState, Body, Cf, Command, Entry, EntryFlags, Epoch, HardState, LocalState, Operation,
    Peer, PeerId, RaftMessage, Region, RegionError, RegionId, RegionPhase, RegionState,
    ResponseBody, StatusCommand, StatusResponse, StoreId, Truncated, guard::Limits, wire::record,
};
use raftstore_sim::{
    cluster::{Cluster, header, put},
    queue::SECOND,
};
use transport_traits::{SnapDirection, SnapKey, SnapStore};

use crate::{for_seeds, plan_with, scenario_plan};

#[test]
fn kv_01_put_overwrite_read_back() {
    for_seeds(|_| {
        let mut cluster = Cluster::of(1);
        for round in ["a", "b"] {
            for number in 0..200 {
                let (key, value) = (format!("k{number}"), format!("{round}{number}"));
                cluster.must_put(&key, &value);
                assert_eq!(cluster.get(&key), Some(value));
            }
        }
    });
}

#[test]
fn kv_02_multi_key_command_is_all_or_nothing() {
    for_seeds(|_| {
        // Two regions, cut at "b", as if one had been split there.
        let mut plan = scenario_plan(3, 3);
        plan.regions = 2;
        let mut cluster = Cluster::started(plan);
        let both = Body::Operations(vec![put("a1", "old"), put("a2", "old")]);
        assert!(cluster.on_leader(1, &both, false).is_ok());
        let outside = Body::Operations(vec![put("a1", "new"), put("b3", "new")]);
        let refused = cluster.on_leader(1, &outside, false);
        assert!(matches!(refused, Err(RegionError::KeyNotInRegion { .. })), "{refused:?}");
        assert_eq!(cluster.get("a1").as_deref(), Some("old"));
        assert_eq!(cluster.get("b3"), None);
    });
}

#[test]
fn kv_03_entry_over_the_limit_never_enters_the_log() {
    for_seeds(|_| {
        let plan = plan_with(1, 1, |config| config.raft_entry_max_size = 1024);
        let mut cluster = Cluster::started(plan);
        let before = cluster.peer_status(1, 1).expect("running").last_index;
        let large = Body::Operations(vec![put("k", &"v".repeat(1024))]);
        match cluster.on_leader(1, &large, false) {
            Err(RegionError::EntryTooLarge { region, size_bytes, max_bytes }) => {
                assert_eq!((region.get(), max_bytes), (1, 1024));
                assert!(size_bytes > 1024);
            }
            other => panic!("{other:?}"),
        }
        // The largest that fits: what the envelope takes is found by asking.
        let fits = (900..1024).rev().find(|size| {
            let body = Body::Operations(vec![put("k", &"v".repeat(*size))]);
            cluster.on_leader(1, &body, false).is_ok()
        });
        assert!(fits.is_some());
        assert_eq!(cluster.peer_status(1, 1).expect("running").last_index, before + 1);
    });
}

#[test]
fn kv_06_delete_hides_a_key_at_once() {
    for_seeds(|_| {
        let mut cluster = Cluster::of(1);
        for number in 0..100 {
            cluster.must_put(&format!("k{number}"), "v");
        }
        for number in 0..100 {
            let key = format!("k{number}");
            cluster.must_delete(&key);
            assert_eq!(cluster.get(&key), None);
            cluster.must_delete(&key);
        }
    });
}

#[test]
fn kv_06_delete_range_hides_its_keys_and_no_others() {
    for_seeds(|_| {
        let mut cluster = Cluster::three();
        for key in ["a", "b", "c", "d"] {
            cluster.must_put(key, "v");
        }
        let range = Operation::DeleteRange {
            cf: Cf::Default,
            start_key: Bytes::from_static(b"b"),
            end_key: Bytes::from_static(b"d"),
        };
        assert!(cluster.on_leader(1, &Body::Operations(vec![range]), false).is_ok());
        let left: Vec<bool> =
            ["a", "b", "c", "d"].iter().map(|key| cluster.get(key).is_some()).collect();
        assert_eq!(left, [true, false, false, true]);
    });
}

#[test]
fn kv_08_command_for_another_store_is_refused() {
    for_seeds(|_| {
        let mut cluster = Cluster::of(1);
        let region = cluster.region(1);
        let last = cluster.peer_status(1, 1).expect("running").last_index;
        let mut peer = region.peers[0];
        peer.store = StoreId::must(2);
        let body = Body::Operations(vec![put("k", "v")]);
        let answer = cluster.call(1, Command { header: header(&region, peer), body: body.clone() });
        let error = answer.expect("answered").body;
        assert!(matches!(error, Err(RegionError::StoreNotMatch { .. })), "{error:?}");
        let mut peer = region.peers[0];
        peer.id = PeerId::must(999);
        let answer = cluster.call(1, Command { header: header(&region, peer), body });
        let error = answer.expect("answered").body;
        assert!(matches!(error, Err(RegionError::PeerNotMatch { .. })), "{error:?}");
        assert_eq!(cluster.peer_status(1, 1).expect("running").last_index, last);
    });
}

#[test]
fn kv_11_status_and_detail_work_on_any_replica() {
    for_seeds(|_| {
        let mut cluster = Cluster::of(5);
        let region = cluster.region(1);
        for store in 1..=5 {
            let peer = *region.peer_on(StoreId::must(store)).expect("a member");
            let ask =
                |question| Command { header: header(&region, peer), body: Body::Status(question) };
            let leader =
                cluster.call(store, ask(StatusCommand::RegionLeader)).expect("answered").body;
            match leader {
                Ok(ResponseBody::Status(StatusResponse::RegionLeader(Some(leader)))) => {
                    assert_eq!(leader.store.get(), 1);
                }
                other => panic!("{other:?}"),
            }
            let detail =
                cluster.call(store, ask(StatusCommand::RegionDetail)).expect("answered").body;
            match detail {
                Ok(ResponseBody::Status(StatusResponse::RegionDetail(detail, Some(leader)))) => {
                    assert!(detail.start_key.is_empty() && detail.end_key.is_empty());
                    assert_eq!(detail.peers.len(), 5);
                    assert_eq!((detail.epoch.conf_ver, detail.epoch.version), (1, 1));
                    assert_eq!(leader.store.get(), 1);
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

/// Messages that say little or nothing, each as the bytes that would come, in which fields
/// that hold nothing are not there.
fn empty_messages(to: u64) -> Vec<RaftMessage> {
    let default = RaftMessage::decode(Bytes::new(), &Limits::default());
    let mut all = vec![default.expect("no bytes are a message without content")];
    let peer = |store: u64| Peer::voter(PeerId::must(100 + store), StoreId::must(store));
    let peers = (peer(3 - to), peer(to));
    for kind in 0..19 {
        let msg_type = protobuf::ProtobufEnum::from_i32(kind).unwrap_or_default();
        let raft = eraftpb::Message { msg_type, ..eraftpb::Message::default() };
        // A region that is here, and one that is not.
        for region in [1, 999].map(RegionId::must) {
            let epoch = Epoch::default();
            all.push(RaftMessage::new(region, peers.0, peers.1, epoch, raft.clone()));
        }
        let mut nobody = RaftMessage::default();
        *nobody.raft_mut() = raft;
        all.push(nobody);
    }
    all.push(RaftMessage::tombstone(RegionId::must(1), peers.0, peers.1, Epoch::default()));
    all
}

#[test]
fn kv_10_empty_or_default_wire_messages_are_ignored_safely() {
    for_seeds(|_| {
        let mut cluster = Cluster::three();
        cluster.must_put("k", "before");
        let before = cluster.peer_status(1, 1).expect("running");
        for store in [1, 2] {
            for message in empty_messages(store) {
                let bytes = Bytes::from(message.encode());
                let decoded = RaftMessage::decode(bytes, &Limits::default());
                assert_eq!(decoded.as_ref(), Ok(&message));
                cluster.receive(store, message, None);
            }
        }
        // A snapshot that belongs to such a message rests here, under a name of nobody's.
        let key = SnapKey { region: RegionId::must(999), term: 0, index: 0 };
        let snaps = cluster.nodes[&1].disk.snaps.clone();
        let mut writer = snaps.create(SnapDirection::Received, key).expect("there is room");
        writer.write(&RaftMessage::default().encode()).expect("there is room");
        let size_bytes = writer.finish().expect("there is room");
        cluster.receive(1, RaftMessage::default(), Some((key, size_bytes)));
        cluster.pass(2 * SECOND);
        let dropped: u64 =
            cluster.metrics(1).iter().filter_map(|lane| lane.dropped.get(&Dropped::BadIds)).sum();
        assert!(dropped >= 20, "{dropped} messages without ids were counted");
        assert!(cluster.nodes[&1].is_up());
        assert!(cluster.peer_status(1, 999).is_none(), "nothing was created");
        let after = cluster.peer_status(1, 1).expect("running");
        assert_eq!((&after.region, after.peer), (&before.region, before.peer));
        cluster.must_put("k", "after");
        assert_eq!(cluster.get("k").as_deref(), Some("after"));
    });
}

/// Whoever knows the key alone is led to the right region, before and after, and whoever
/// knows the region as it was is told of both.
#[test]
fn kv_12_split_by_key_through_the_router() {
    for_seeds(|_| {
        let mut cluster = Cluster::of(1);
        for key in ["a", "b", "c"] {
            cluster.must_put(key, "1");
        }
        let whole = cluster.region(1);
        let parts = cluster.must_split(1, &["b"]);
        let [left, right] = parts.as_slice() else { panic!("{parts:?}") };
        assert_eq!((&left.end_key[..], &right.start_key[..]), (&b"b"[..], &b"b"[..]));
        assert_eq!((&left.start_key, &right.end_key), (&whole.start_key, &whole.end_key));
        for (key, part) in [("a", left), ("b", right), ("c", right), ("", left), ("z", right)] {
            assert_eq!(cluster.region_of(key), part.id.get(), "{key}");
            cluster.wait_leader(part.id.get());
            cluster.must_put(key, "2");
            assert_eq!(cluster.get(key).as_deref(), Some("2"));
        }
        let body = Body::Operations(vec![put("a", "3")]);
        let old = Command { header: header(&whole, whole.peers[0]), body };
        match cluster.call(1, old).expect("answered").body {
            Err(RegionError::EpochNotMatch { current }) => {
                let mut told: Vec<u64> = current.iter().map(|region| region.id.get()).collect();
                told.sort_unstable();
                let mut both = [left.id.get(), right.id.get()];
                both.sort_unstable();
                assert_eq!(told, both);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(cluster.get("a").as_deref(), Some("2"));
    });
}

const UNUSED: RegionId = RegionId::must(999);

/// Records of a region that this store never had.
struct Chosen {
    raft: LocalState,
    apply: ApplyState,
    state: RegionState,
    entry: Entry,
}

impl Chosen {
    fn new() -> Self {
        let peer = Peer::voter(PeerId::must(998), StoreId::must(1));
        let region = Region {
            id: UNUSED,
            start_key: "x".into(),
            end_key: "y".into(),
            epoch: Epoch { conf_ver: 3, version: 7 },
            peers: vec![peer],
        };
        let data = b"chosen";
        let context = Entry::context_for(UNUSED, 8, 6, EntryFlags::default(), data);
        let mut entry = eraftpb::Entry { index: 8, term: 6, ..eraftpb::Entry::default() };
        (entry.data, entry.context) = (Bytes::from_static(data), context.into());
        Self {
            raft: LocalState {
                peer: peer.id,
                hard_state: HardState { term: 6, vote: 998, commit: 8 },
                last_index: 8,
            },
            apply: ApplyState {
                applied: 8,
                applied_term: 6,
                truncated: Truncated { index: 7, term: 6 },
            },
            state: RegionState { phase: RegionPhase::Normal, region },
            entry: Entry::from_raft(entry),
        }
    }

    fn write<K: KvEngine, R: RaftEngine>(&self, kv: &K, raft: &R) {
        let mut batch = kv.write_batch();
        let state = record::encode_region_state(UNUSED, &self.state);
        batch.put(Cf::Raft, &keys::region_state_key(UNUSED), &state);
        let apply = record::encode_apply_state(UNUSED, &self.apply);
        batch.put(Cf::Raft, &keys::apply_state_key(UNUSED), &apply);
        batch.put(Cf::Default, &keys::data_key(b"x1"), b"12345");
        batch.put(Cf::Lock, &keys::data_key(b"x2"), b"12");
        kv.write(batch, Durability::Synced).expect("the engine can be written");
        let mut log = raft.log_batch();
        log.append(UNUSED, std::slice::from_ref(&self.entry));
        log.put_raft_state(UNUSED, &self.raft);
        raft.write(log, Durability::Synced).expect("the engine can be written");
    }
}

#[test]
fn kv_13_debug_service_reads_what_is_on_disk() {
    for_seeds(|_| {
        let mut cluster = Cluster::of(1);
        cluster.must_put("k", "value");
        let chosen = Chosen::new();
        let disk = &cluster.nodes[&1].disk;
        let (kv, raft) = (disk.kv.clone(), disk.log.clone());
        chosen.write(&kv, &raft);
        let debug = DebugAccess::new(kv, raft);
        let shown = debug.region(UNUSED).expect("it is there");
        assert_eq!(shown.raft_state, Some(chosen.raft));
        assert_eq!(shown.apply_state, Some(chosen.apply));
        assert_eq!(shown.region_state.as_ref(), Some(&chosen.state));
        assert_eq!(debug.entry(UNUSED, 8).expect("it is there"), chosen.entry);
        let sizes = debug.region_sizes(UNUSED).expect("it has a range");
        assert_eq!(sizes, [(Cf::Default, 5), (Cf::Lock, 2), (Cf::Write, 0)]);
        let value = debug.get(DebugEngine::Kv, "default", &keys::data_key(b"k"));
        assert_eq!(value.expect("it is there"), "value");
        let listed: Vec<u64> =
            debug.regions().expect("readable").iter().map(|it| it.region.get()).collect();
        assert_eq!(listed, [1, UNUSED.get()]);
        // What this store has of the region it serves, while it serves it.
        cluster.pass(SECOND);
        let served = debug.region(RegionId::must(1)).expect("it is there");
        let status = cluster.peer_status(1, 1).expect("running");
        assert_eq!(served.apply_state.map(|state| state.applied), Some(status.applied.applied));
        assert_eq!(served.region_state.map(|state| state.region), Some(status.region));
        let unknown = RegionId::must(12_345);
        for error in [
            debug.region(unknown).map(drop),
            debug.entry(unknown, 8).map(drop),
            debug.entry(UNUSED, 9).map(drop),
            debug.region_sizes(unknown).map(drop),
            debug.get(DebugEngine::Kv, "default", &keys::data_key(b"none")).map(drop),
        ] {
            assert!(matches!(error, Err(DebugError::NotFound { .. })), "{error:?}");
        }
    });
}

#[test]
fn kv_14_many_deletes_trigger_a_range_compaction() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(1, 1, |config| {
            config.region_compact_check_interval = Duration::from_millis(200);
            config.region_compact_delete_keys_count = 5;
        }));
        let delete = |cluster: &mut Cluster, cf: Cf, number: usize| {
            let key = Bytes::from(format!("k{number}"));
            let body = Body::Operations(vec![
                Operation::Put { cf, key: key.clone(), value: Bytes::from_static(b"value") },
                Operation::Delete { cf, key },
            ]);
            assert!(cluster.on_leader(1, &body, false).is_ok());
        };
        for number in 0..4 {
            let cf = if number % 2 == 0 { Cf::Default } else { Cf::Write };
            delete(&mut cluster, cf, number);
        }
        cluster.pass(2 * SECOND);
        assert_eq!(cluster.nodes[&1].compactions, [], "below the threshold");
        for number in 4..8 {
            let cf = if number % 2 == 0 { Cf::Default } else { Cf::Write };
            delete(&mut cluster, cf, number);
        }
        cluster.wait("a compaction", |world| !world.nodes[&1].compactions.is_empty());
        let (start, end) = keys::region_data_range(&cluster.region(1));
        let range = Some((start.clone(), end.clone()));
        let expected = [(Cf::Default, range.clone()), (Cf::Write, range)];
        assert_eq!(cluster.nodes[&1].compactions[..2], expected);
        for cf in [Cf::Default, Cf::Write] {
            let range = engine_traits::Range::new(&start, &end);
            let kv = &cluster.nodes[&1].disk.kv;
            assert_eq!(kv.approximate_size(cf, range, u64::MAX).expect("readable"), 0);
        }
        let done = cluster.nodes[&1].compactions.len();
        cluster.pass(5 * SECOND);
        assert_eq!(cluster.nodes[&1].compactions.len(), done, "once is enough");
    });
}

#[test]
fn kv_15_lock_family_is_compacted_only_past_its_byte_threshold() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(1, 1, |config| {
            config.lock_cf_compact_interval = Duration::from_millis(500);
            config.lock_cf_compact_bytes_threshold = 100;
        }));
        // As much as key and value take with the prefix of data keys.
        let write = |cluster: &mut Cluster, bytes: usize| {
            let value = Bytes::from(vec![b'v'; bytes - 2]);
            let put = Operation::Put { cf: Cf::Lock, key: Bytes::from_static(b"k"), value };
            assert!(cluster.on_leader(1, &Body::Operations(vec![put]), false).is_ok());
            cluster.pass(3 * SECOND);
        };
        write(&mut cluster, 40);
        assert_eq!(cluster.nodes[&1].compactions, []);
        write(&mut cluster, 40);
        assert_eq!(cluster.nodes[&1].compactions, [], "80 bytes are not past 100");
        write(&mut cluster, 50);
        assert_eq!(cluster.nodes[&1].compactions, [(Cf::Lock, None)]);
        // The count begins anew.
        write(&mut cluster, 100);
        assert_eq!(cluster.nodes[&1].compactions.len(), 1);
        write(&mut cluster, 1_000);
        assert_eq!(cluster.nodes[&1].compactions.len(), 2);
    });
}
