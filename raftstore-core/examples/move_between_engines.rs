//! A region moves from a store on redb to a store on RocksDB while it is written.

use std::{error::Error, sync::Arc, time::Duration};

use engine_redb::{RedbEngine, RedbOptions};
use engine_rocks::{RocksEngine, RocksOptions};
use engine_traits::{KvEngine, RaftEngine};
use pd_client::{
    StoreLifecycle,
    mock::{MockPd, PdConfig},
};
use raftstore_core::{
    Config,
    runtime::{Node, NodeOptions, client::Client, client::LocalStores},
};
use raftstore_proto::ClusterId;
use transport_traits::{ChannelConfig, ChannelHub};

const CLUSTER: ClusterId = ClusterId::new(1).unwrap();

fn start<K: KvEngine>(
    address: &str,
    (kv, log): (K, impl RaftEngine),
    pd: &Arc<MockPd>,
    hub: &ChannelHub,
) -> Result<Node<K>, Box<dyn Error>> {
    let mut options = NodeOptions::new(CLUSTER, address, kv, log, pd.clone(), hub.connect());
    options.config = Config::in_process();
    Ok(Node::start(options)?)
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let pd = Arc::new(MockPd::new(CLUSTER, PdConfig { max_replicas: 1, ..PdConfig::default() }));
    let hub = ChannelHub::new(ChannelConfig::default())?;
    let stores = LocalStores::new(pd.clone());

    let redb = RedbEngine::open(at("redb"), &RedbOptions::default())?;
    let redb_log = engine_redb::open_raft_log(at("redb-log"), &RedbOptions::default())?;
    let old = start("store-1", (redb, redb_log), &pd, &hub)?;
    stores.add(&old.handle());
    let mut client = Client::new(stores.clone(), Duration::from_secs(60));
    client.put("written/first", "on redb")?;

    let rocks = RocksEngine::open(at("rocks"), &RocksOptions::default())?;
    let rocks_log = engine_rocks::open_raft_log(at("rocks-log"), &RocksOptions::default())?;
    let new = start("store-2", (rocks, rocks_log), &pd, &hub)?;
    stores.add(&new.handle());

    // PD empties a store that shall leave: a learner on the other store, a region snapshot
    // in the format that no engine owns, promotion, transfer, removal.
    pd.with_core(|core, _| core.set_lifecycle(old.store(), StoreLifecycle::Offline))?;
    let mut written: u64 = 0;
    let is_on_old = || {
        pd.with_core(|core, _| {
            core.regions().any(|known| known.region.peer_on(old.store()).is_some())
        })
    };
    while is_on_old() {
        client.put(format!("written/{written}"), "meanwhile")?;
        written += 1;
    }
    stores.remove(old.store());
    old.stop()?;

    assert_eq!(client.get("written/first")?.as_deref(), Some(&b"on redb"[..]));
    for number in 0..written {
        let value = client.get(format!("written/{number}"))?;
        assert_eq!(value.as_deref(), Some(&b"meanwhile"[..]), "write {number}");
    }
    new.stop()?;
    Ok(())
}
