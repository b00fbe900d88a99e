//! Group KV: commands and their validation.

use bytes::Bytes;
use raftstore_proto::{
    Body, Cf, Command, Operation, PeerId, RegionError, ResponseBody, StatusCommand, StatusResponse,
    StoreId,
};
use raftstore_sim::cluster::{Cluster, header, put};

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
