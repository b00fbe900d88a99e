//! The channel transport keeps the contract of all transports.

use std::sync::Arc;

use raftstore_proto::StoreId;
use transport_traits::{
    ChannelConfig, ChannelHub, ChannelTransport, Inbox, SnapStore, conformance::Fixture,
    transport_conformance,
};

struct ChannelFixture(ChannelHub);

impl ChannelFixture {
    fn new() -> Self {
        Self(ChannelHub::new(ChannelConfig::default()).expect("threads can be had"))
    }
}

impl Fixture for ChannelFixture {
    type Transport = ChannelTransport;

    const MAY_LOSE_ANSWERS: bool = false;

    fn start(
        &mut self,
        store: StoreId,
        inbox: Arc<dyn Inbox>,
        snaps: Arc<dyn SnapStore>,
    ) -> ChannelTransport {
        self.0.register(store, inbox, snaps).expect("the hub is open")
    }

    fn stop(&mut self, store: StoreId) {
        self.0.unregister(store);
    }

    fn close(&mut self) {
        self.0.close();
    }
}

transport_conformance!(ChannelFixture::new());
