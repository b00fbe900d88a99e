//! Group SNAP: region snapshots.

use bytes::Bytes;
use engine_traits::Reader;
use raftstore_core::keys;
use raftstore_proto::{Body, Cf, MessageKind, Operation};
use raftstore_sim::{
    cluster::Cluster,
    disk::Crash,
    network::{Action, Match},
    queue::SECOND,
    world::CutPoint,
};
use transport_traits::{SnapDirection, SnapStore};

use crate::{eager_gc, for_seeds, plan_with};

fn in_write(cluster: &Cluster, store: u64, key: &str) -> Option<Bytes> {
    let key = keys::data_key(key.as_bytes());
    cluster.nodes[&store].disk.kv.get(Cf::Write, &key).expect("readable")
}

fn put_in_write(cluster: &mut Cluster, key: &str, value: Option<&str>) {
    let key = Bytes::from(key.to_owned());
    let operation = match value {
        Some(value) => Operation::Put { cf: Cf::Write, key, value: Bytes::from(value.to_owned()) },
        None => Operation::Delete { cf: Cf::Write, key },
    };
    assert!(cluster.on_leader(1, &Body::Operations(vec![operation]), false).is_ok());
}

/// Writes until the log of region 1 was cut past `index` on store `on`.
fn write_until_cut(cluster: &mut Cluster, on: u64, index: u64) {
    for round in 0..200 {
        cluster.must_put(&format!("fill{}", round % 10), &format!("v{round}"));
        let cut =
            cluster.peer_status(on, 1).is_some_and(|peer| peer.applied.truncated.index > index);
        if cut {
            return;
        }
        cluster.pass(SECOND / 5);
    }
    panic!("the log was never cut");
}

#[test]
fn snap_01_snapshot_replaces_every_column_family() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(3, 3, eager_gc));
        cluster.lead(1, 2);
        put_in_write(&mut cluster, "k1", Some("v1"));
        put_in_write(&mut cluster, "k2", Some("v2"));
        cluster.wait("store 1 to have k2", |world| {
            let key = keys::data_key(b"k2");
            world.nodes[&1].disk.kv.get(Cf::Write, &key).expect("readable").is_some()
        });
        cluster.isolate(1);
        put_in_write(&mut cluster, "k2", None);
        let last = cluster.peer_status(1, 1).expect("running").last_index;
        write_until_cut(&mut cluster, 2, last);
        cluster.mend();
        cluster.wait("store 1 to have the snapshot", |world| {
            let key = keys::data_key(b"k2");
            world.nodes[&1].disk.kv.get(Cf::Write, &key).expect("readable").is_none()
                && world.peer_status(1, 1).is_some_and(|peer| peer.applied.truncated.index > last)
        });
        cluster.wait("the installed data", |world| {
            let key = keys::data_key(b"k1");
            let found = world.nodes[&1].disk.kv.get(Cf::Write, &key).expect("readable");
            found.as_deref() == Some(b"v1".as_slice())
        });
        cluster.power_loss(1);
        cluster.start(1);
        cluster.must_put("k3", "v3");
        cluster.must_eq(1, "k3", "v3");
        assert!(in_write(&cluster, 1, "k1").is_some());
        assert!(in_write(&cluster, 1, "k2").is_none());
    });
}

#[test]
fn snap_03_a_damaged_snapshot_is_not_installed_and_another_comes() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(3, 1, eager_gc));
        for number in 0..50 {
            cluster.must_put(&format!("k{number}"), "v");
        }
        // The first snapshot to arrive is held back, damaged on the sender's disk, and let go.
        let hold = cluster
            .filter(Match { kinds: vec![MessageKind::Snapshot], ..Match::default() }, Action::Hold);
        cluster.must_add_learner(1, 2, 202);
        cluster.wait("a snapshot on its way", |world| world.network.taken(hold) > 0);
        let snaps = cluster.nodes[&1].disk.snaps.clone();
        let built = snaps.list().expect("readable");
        let (direction, key, size) = built[0];
        assert_eq!(direction, SnapDirection::Generated);
        let middle = usize::try_from(size / 2).expect("small");
        assert!(snaps.corrupt(direction, key, middle, 0x40));
        cluster.release(hold);
        cluster.must_eq(2, "k49", "v");
        cluster.must_eq(2, "k0", "v");
    });
}

#[test]
fn snap_08_snapshot_and_the_append_behind_it() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(4, 3, eager_gc));
        cluster.lead(1, 1);
        cluster.must_put("k0", "v0");
        cluster.must_add(1, 4, 404);
        cluster.must_eq(4, "k0", "v0");
        cluster.must_remove(1, 4);
        cluster.wait_gone(1, 4);
        let hold = cluster.filter(
            Match { kinds: vec![MessageKind::Snapshot], to: Some(4), ..Match::default() },
            Action::Hold,
        );
        cluster.must_add(1, 4, 405);
        cluster.wait("a snapshot on its way", |world| world.network.taken(hold) > 0);
        cluster.must_put("k1", "v1");
        cluster.release(hold);
        cluster.must_put("k2", "v2");
        cluster.must_eq(4, "k1", "v1");
        cluster.must_eq(4, "k2", "v2");
    });
}

#[test]
fn snap_09_large_snapshot_first_one_delivered_late_and_twice() {
    for_seeds(|_| {
        let mut cluster = Cluster::started(plan_with(5, 1, |config| {
            eager_gc(config);
            config.snap_apply_batch_size = 4096;
            config.snapshot_chunk_bytes = 4096;
        }));
        for number in 0..64 {
            cluster.must_put(&format!("k{number:03}"), &"v".repeat(16 << 10));
        }
        cluster.must_add_learner(1, 2, 202);
        cluster.wait("store 2 to be complete", |world| {
            world.peer_status(2, 1).is_some_and(|peer| peer.applied.applied > 60)
        });
        let hold = cluster.filter(
            Match { kinds: vec![MessageKind::Snapshot], to: Some(3), ..Match::default() },
            Action::Hold,
        );
        cluster.must_add_learner(1, 3, 203);
        cluster.wait("a snapshot on its way", |world| world.network.taken(hold) > 0);
        let old = cluster.network.take_held(hold);
        cluster.release(hold);
        // The sender gives up on the first and makes another, which arrives; then the first
        // comes, twice.
        let (region, to) = (raftstore_proto::RegionId::must(1), raftstore_proto::PeerId::must(203));
        cluster.report_snapshot_failed(1, region, to);
        cluster.must_put("late", "v");
        cluster.must_eq(3, "late", "v");
        for _ in 0..2 {
            for envelope in &old {
                cluster.deliver(envelope.clone());
            }
            cluster.pass(2 * SECOND);
        }
        cluster.must_put("later", "v");
        for store in [2, 3] {
            cluster.must_eq(store, "later", "v");
            cluster.must_eq(store, "k063", &"v".repeat(16 << 10));
        }
    });
}

#[test]
fn snapshot_installation_survives_a_crash_at_every_slice() {
    for_seeds(|_| {
        for crash in [Crash::Kill, Crash::PowerLoss] {
            let mut cluster = Cluster::started(plan_with(3, 1, |config| {
                eager_gc(config);
                config.snap_apply_batch_size = 1;
                config.snapshot_chunk_bytes = 4096;
            }));
            for number in 0..40 {
                cluster.must_put(&format!("k{number}"), &"v".repeat(1000));
            }
            cluster.must_add_learner(1, 2, 202);
            for _ in 0..6 {
                cluster.cut_at(2, CutPoint::AfterRegionSlice, crash);
                cluster.pass(3 * SECOND);
            }
            cluster.must_eq(2, "k39", &"v".repeat(1000));
        }
    });
}
