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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use engine_traits::{Cf, Durability, WriteBatch, mem::MemEngine};
    use raftstore_proto::{OperationResponse, Peer, PeerId, RegionId, ResponseBody, StoreId};

    use super::*;
    use crate::{
        keys,
        view::{View, ViewState},
    };

    const R1: RegionId = RegionId::must(1);

    fn region() -> Region {
        Region {
            id: R1,
            start_key: Bytes::new(),
            end_key: Bytes::new(),
            epoch: Epoch { conf_ver: 1, version: 1 },
            peers: vec![Peer::voter(PeerId::must(7), StoreId::must(1))],
        }
    }

    fn state(generation: u64) -> ViewState {
        ViewState {
            generation,
            region: Arc::new(region()),
            peer: region().peers[0],
            term: 6,
            lease_until: MonoTime::from_millis(100),
        }
    }

    fn get(key: &'static str) -> Command {
        let header = Header {
            region: R1,
            peer: region().peers[0],
            epoch: Some(region().epoch),
            term: 6,
            read_quorum: false,
        };
        let key = Bytes::from_static(key.as_bytes());
        Command { header, body: Body::Operations(vec![Operation::Get { cf: Cf::Default, key }]) }
    }

    fn put(kv: &MemEngine, key: &str, value: &str) {
        let mut batch = kv.write_batch();
        batch.put(Cf::Default, &keys::data_key(key.as_bytes()), value.as_bytes());
        kv.write(batch, Durability::Buffered).unwrap();
    }

    fn setup() -> (MemEngine, Arc<View>, LocalReader<MemEngine>) {
        let (kv, views) = (MemEngine::default(), Arc::<Views>::default());
        put(&kv, "k", "v1");
        let view = views.open(R1);
        view.publish(state(1));
        let reader = LocalReader::new(views, kv.clone());
        (kv, view, reader)
    }

    fn value(response: Option<Response>) -> Option<Option<Bytes>> {
        match response?.body {
            Ok(ResponseBody::Operations(answers)) => match answers.as_slice() {
                [OperationResponse::Get(value)] => Some(value.clone()),
                other => panic!("not one value: {other:?}"),
            },
            other => panic!("not an answer: {other:?}"),
        }
    }

    #[test]
    fn a_covered_read_is_served_up_to_the_bound_and_not_at_it() {
        let (_, _, reader) = setup();
        let read = |millis| reader.read(&get("k"), || MonoTime::from_millis(millis)).unwrap();
        assert_eq!(value(read(99)), Some(Some(Bytes::from_static(b"v1"))));
        assert_eq!(value(read(100)), None);
    }

    /// H41: the snapshot comes first, the view is looked at after it. Whatever happens
    /// between the two makes the read go through the store.
    #[test]
    fn h41_a_view_that_changes_behind_the_snapshot_voids_the_read() {
        let (kv, view, reader) = setup();
        let withdrawn = reader.read(&get("k"), || {
            view.withdraw();
            MonoTime::ZERO
        });
        assert_eq!(value(withdrawn.unwrap()), None);
        view.publish(state(2));
        let replaced = reader.read(&get("k"), || {
            view.publish(state(3));
            MonoTime::ZERO
        });
        assert_eq!(value(replaced.unwrap()), None);
        // What is written behind the snapshot is not seen, and need not be.
        let beside = reader.read(&get("k"), || {
            put(&kv, "k", "v2");
            MonoTime::ZERO
        });
        assert_eq!(value(beside.unwrap()), Some(Some(Bytes::from_static(b"v1"))));
    }

    /// READ-16: a view belongs to one peer; its successor opens another one.
    #[test]
    fn a_successor_voids_the_view_of_its_predecessor() {
        let (_, old, reader) = setup();
        let new = reader.views.open(R1);
        assert!(old.state().is_none());
        assert_eq!(value(reader.read(&get("k"), || MonoTime::ZERO).unwrap()), None);
        new.publish(ViewState { peer: Peer::voter(PeerId::must(8), StoreId::must(1)), ..state(1) });
        assert_eq!(value(reader.read(&get("k"), || MonoTime::ZERO).unwrap()), None);
    }

    #[test]
    fn writes_quorum_reads_and_other_epochs_go_through_the_store() {
        let (_, _, reader) = setup();
        let refused = |change: fn(&mut Command)| {
            let mut command = get("k");
            change(&mut command);
            value(reader.read(&command, || MonoTime::ZERO).unwrap()).is_none()
        };
        assert!(refused(|c| c.header.read_quorum = true));
        assert!(refused(|c| c.header.epoch = None));
        assert!(refused(|c| c.header.epoch = Some(Epoch { conf_ver: 1, version: 2 })));
        assert!(refused(|c| c.header.term = 4));
        assert!(refused(|c| c.header.region = RegionId::must(2)));
        assert!(refused(|c| {
            c.body = Body::Operations(vec![Operation::Delete {
                cf: Cf::Default,
                key: Bytes::from_static(b"k"),
            }]);
        }));
    }
}
