//! Three stores in one process: PD gives the region a replica on each, and one of them stops.

use std::{error::Error, sync::Arc, time::Duration};

use engine_traits::mem::{MemEngine, MemRaftLog};
use pd_client::mock::{MockPd, PdConfig};
use raftstore_core::Config;
use raftstore_core::runtime::{Node, NodeOptions, client::Client, client::LocalStores};
use raftstore_proto::{ClusterId, PeerRole::Voter, Region};
use transport_traits::{ChannelConfig, ChannelHub};

const CLUSTER: ClusterId = ClusterId::new(1).unwrap();

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let pd = Arc::new(MockPd::new(CLUSTER, PdConfig::default()));
    let hub = ChannelHub::new(ChannelConfig::default())?;
    let stores = LocalStores::new(pd.clone());
    let mut nodes = Vec::new();
    for address in ["store-1", "store-2", "store-3"] {
        let (kv, log) = (MemEngine::new(), MemRaftLog::new());
        let mut options = NodeOptions::new(CLUSTER, address, kv, log, pd.clone(), hub.connect());
        options.config = Config::in_process();
        let node = Node::start(options)?;
        stores.add(&node.handle());
        nodes.push(node);
    }
    let mut client = Client::new(stores, Duration::from_secs(60));
    let votes = |region: &Region| region.peers.iter().filter(|peer| peer.role == Voter).count();
    while !pd.with_core(|core, _| core.regions().all(|known| votes(&known.region) == 3)) {
        client.put("greeting", "hello")?;
    }
    // Two of three are a majority still.
    nodes.remove(0).stop()?;
    client.put("greeting", "hello again")?;
    assert_eq!(client.get("greeting")?.as_deref(), Some(&b"hello again"[..]));
    nodes.into_iter().try_for_each(|node| node.stop().map_err(Into::into))
}
