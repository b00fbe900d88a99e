//! One store on redb: a value is written and read.

use std::{error::Error, sync::Arc, time::Duration};

use engine_redb::{RedbEngine, RedbOptions, open_raft_log};
use pd_client::mock::{MockPd, PdConfig};
use raftstore_core::runtime::{Node, NodeOptions, client::Client, client::LocalStores};
use raftstore_proto::ClusterId;
use transport_traits::{ChannelConfig, ChannelHub};

const CLUSTER: ClusterId = ClusterId::new(1).unwrap();

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let kv = RedbEngine::open(folder.path().join("data"), &RedbOptions::default())?;
    let log = open_raft_log(folder.path().join("log"), &RedbOptions::default())?;

    let pd = Arc::new(MockPd::new(CLUSTER, PdConfig { max_replicas: 1, ..PdConfig::default() }));
    let hub = ChannelHub::new(ChannelConfig::default())?;
    let options = NodeOptions::new(CLUSTER, "store-1", kv, log, pd.clone(), hub.connect());
    let node = Node::start(options)?;

    let stores = LocalStores::new(pd);
    stores.add(&node.handle());
    let mut client = Client::new(stores, Duration::from_secs(60));
    client.put("greeting", "hello, world")?;
    assert_eq!(client.get("greeting")?.as_deref(), Some(&b"hello, world"[..]));

    node.stop()?;
    Ok(())
}
