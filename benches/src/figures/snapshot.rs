//! A region moves as a snapshot from one store to another of the same process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use engine_traits::Cf;
use pd_client::OrderAction;
use raftstore_core::{Config, runtime::FileSnapStore};
use raftstore_proto::{
    Body, ChangeKind, Command, Header, Operation, Peer, PeerChange, PeerId, StoreId,
};
use transport_traits::{BoxError, SnapStore};

use super::store::{Engines, config};
use crate::{
    KvFactory, LogFactory, Numbers,
    cluster::{Cluster, row_of_regions},
    key, temporary_folder,
};

const PATIENCE: Duration = Duration::from_secs(300);

/// Where the log of a region begins that was there from the start.
const FIRST: u64 = 5;

/// Bytes of a row's value.
const ROW: u64 = 4 << 10;

/// Bytes per second of data that a region snapshot brings to a new replica, from the order to
/// the moment when the replica has applied all of it. Build, copy and install are in it; the
/// pieces rest in files on the way.
///
/// # Errors
/// If an engine fails or a store does not start.
pub fn snapshot<K: KvFactory, L: LogFactory>(bytes: u64) -> Result<f64, BoxError> {
    let made = Engines::<K, L>::make(2)?;
    let files = temporary_folder();
    let mut regions = row_of_regions(1, 1, key);
    regions[0].epoch.conf_ver = 1;
    let region = regions[0].clone();
    let settings = Config {
        pd_heartbeat_tick_interval: Duration::from_millis(100),
        split_region_check_tick_interval: Duration::ZERO,
        raft_log_gc_tick_interval: Duration::from_millis(100),
        raft_log_gc_size_limit: 1 << 20,
        raft_log_gc_count_limit: 16,
        ..config()
    };
    let snaps = |store: StoreId| -> Result<Option<Arc<dyn SnapStore>>, BoxError> {
        let folder = files.path().join(store.get().to_string());
        Ok(Some(Arc::new(FileSnapStore::open(folder, bytes * 4)?)))
    };
    let cluster = Cluster::start_with(&settings, made.engines, &regions, snaps)?;
    fill(&cluster, &region, bytes)?;
    // A log that begins later than the region makes it a snapshot instead of a replay.
    let until = Instant::now() + PATIENCE;
    while truncated(&cluster).is_none_or(|upto| upto <= FIRST) {
        if Instant::now() > until {
            return Err("the log was never cut".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let begun = Instant::now();
    let new = Peer::learner(PeerId::must(1_000), StoreId::must(2));
    let change = PeerChange { kind: ChangeKind::AddLearner, peer: new };
    cluster.pd().force_order(region.id, OrderAction::ChangePeer(change))?;
    let upto = applied(&cluster, 0).ok_or("the leader is gone")?;
    while applied(&cluster, 1).is_none_or(|applied| applied < upto) {
        if begun.elapsed() > PATIENCE {
            return Err("the new replica never had its data".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let seconds = begun.elapsed().as_secs_f64();
    let installed = cluster.metrics().snapshots_installed;
    cluster.stop();
    drop((made.folders, files));
    if installed == 0 {
        return Err("the log was replayed: nothing was measured".into());
    }
    Ok(bytes as f64 / seconds)
}

fn truncated<K: engine_traits::KvEngine>(cluster: &Cluster<K>) -> Option<u64> {
    let peers = cluster.handles[0].peers(PATIENCE);
    peers.first().map(|peer| peer.applied.truncated.index)
}

fn applied<K: engine_traits::KvEngine>(cluster: &Cluster<K>, place: usize) -> Option<u64> {
    let peers = cluster.handles[place].peers(PATIENCE);
    peers.first().filter(|peer| peer.region.is_initialized()).map(|peer| peer.applied.applied)
}

/// Writes so many bytes in rows of 4 KiB, sixty-four at once.
fn fill<K: engine_traits::KvEngine>(
    cluster: &Cluster<K>,
    region: &raftstore_proto::Region,
    bytes: u64,
) -> Result<(), BoxError> {
    const AT_ONCE: u64 = 64;
    const IN_FLIGHT: usize = 8;
    let mut numbers = Numbers::new(1);
    let value_bytes = usize::try_from(ROW)?;
    let block = numbers.bytes(value_bytes * 64);
    let header = Header {
        region: region.id,
        peer: region.peers[0],
        epoch: Some(region.epoch),
        term: 0,
        read_quorum: false,
        replica_read: false,
    };
    let until = Instant::now() + PATIENCE;
    let mut replies = std::collections::VecDeque::new();
    for first in (0..bytes / ROW).step_by(usize::try_from(AT_ONCE)?) {
        let operations = (first..first + AT_ONCE)
            .map(|number| {
                let at = usize::try_from(numbers.draw() % (value_bytes as u64 * 63))?;
                let value = block.slice(at..at + value_bytes);
                Ok(Operation::Put { cf: Cf::Default, key: key(number), value })
            })
            .collect::<Result<Vec<_>, BoxError>>()?;
        let command = Command { header: header.clone(), body: Body::Operations(operations) };
        replies.push_back((command.clone(), cluster.handles[0].command(command)));
        while replies.len() > IN_FLIGHT || (first + AT_ONCE >= bytes / ROW && !replies.is_empty()) {
            let Some((command, reply)) = replies.pop_front() else { break };
            if let Err(error) = reply.wait().body {
                if Instant::now() > until {
                    return Err(format!("the region cannot be filled: {error}").into());
                }
                // No leader yet, or too much at once.
                std::thread::sleep(Duration::from_millis(10));
                replies.push_back((command.clone(), cluster.handles[0].command(command)));
            }
        }
    }
    Ok(())
}
