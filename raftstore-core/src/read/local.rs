//! Reads beside the store thread, under the lease (D11).

use std::sync::Arc;

use engine_traits::KvEngine;
use raftstore_proto::{Body, Command, Epoch, Header, Operation, Region, Response};

use crate::{MonoTime, command::execute_reads, view::Views};

/// Serves reads under the lease from any thread.
#[derive(Clone, Debug)]
pub struct LocalReader<K> {
    views: Arc<Views>,
    kv: K,
}

impl<K: KvEngine> LocalReader<K> {
    /// A reader over one store's views and engine.
    pub const fn new(views: Arc<Views>, kv: K) -> Self {
        Self { views, kv }
    }

    /// Serves `command`, or gives `None` if it has to go through the store: it is no read,
    /// asks for a quorum, or the lease does not allow it now. `clock` is read after the
    /// engine snapshot was taken (H41).
    ///
    /// # Errors
    /// If the engine cannot be read; the store must be stopped.
    pub fn read(
        &self,
        command: &Command,
        clock: impl FnOnce() -> MonoTime,
    ) -> Result<Option<Response>, engine_traits::Error> {
        let Body::Operations(operations) = &command.body else {
            return Ok(None);
        };
        if command.header.read_quorum || !operations.iter().all(Operation::is_read) {
            return Ok(None);
        }
        let Some(view) = self.views.get(command.header.region) else {
            return Ok(None);
        };
        let Some(before) = view.state() else {
            return Ok(None);
        };
        if !accepts(&command.header, &before.region, before.term, before.peer.id) {
            return Ok(None);
        }
        let snapshot = self.kv.snapshot()?;
        let now = clock();
        let still = view
            .state()
            .is_some_and(|after| after.generation == before.generation && now < after.lease_until);
        if !still {
            return Ok(None);
        }
        execute_reads(&snapshot, &before.region, operations, before.term).map(Some)
    }
}

/// Whether the header fits so well that the store would accept it too.
fn accepts(header: &Header, region: &Region, term: u64, peer: raftstore_proto::PeerId) -> bool {
    header.peer.id == peer
        && region.peer_on(header.peer.store).is_some_and(|here| here.id == peer)
        && (header.term == 0 || term <= header.term + 1)
        && header.epoch.is_some_and(|Epoch { version, .. }| version == region.epoch.version)
}
