//! Reads beside the store thread, under the lease (D11).

use std::sync::Arc;

use engine_traits::KvEngine;
use raftstore_proto::{Body, Command, Epoch, Header, Operation, Region, Response};

use super::RegionSnapshot;
use crate::{
    MonoTime,
    command::execute_reads,
    view::{View, ViewState, Views},
};

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
        if !operations.iter().all(Operation::is_read) {
            return Ok(None);
        }
        let Some((moment, state)) = self.moment(&command.header, clock)? else {
            return Ok(None);
        };
        execute_reads(&moment, &state.region, operations, state.term).map(Some)
    }

    /// The region that `header` names as of now, or `None` if a read of it has to go
    /// through the store. `clock` is read after the engine snapshot was taken (H41).
    ///
    /// # Errors
    /// If the engine cannot be read; the store must be stopped.
    pub fn snapshot(
        &self,
        header: &Header,
        clock: impl FnOnce() -> MonoTime,
    ) -> Result<Option<RegionSnapshot<K::Snapshot>>, engine_traits::Error> {
        let moment = self.moment(header, clock)?;
        Ok(moment.map(|(moment, state)| RegionSnapshot::new(Arc::new(moment), state.region)))
    }

    /// Several regions as of one moment, in the order of `headers`; `None` for those of
    /// which a read has to go through the store.
    ///
    /// # Errors
    /// As [`LocalReader::snapshot`].
    pub fn snapshots(
        &self,
        headers: &[Header],
        clock: impl FnOnce() -> MonoTime,
    ) -> Result<Vec<Option<RegionSnapshot<K::Snapshot>>>, engine_traits::Error> {
        let seen: Vec<_> = headers.iter().map(|header| self.look(header)).collect();
        if seen.iter().all(Option::is_none) {
            return Ok(seen.iter().map(|_| None).collect());
        }
        let moment = Arc::new(self.kv.snapshot()?);
        let now = clock();
        let regions = seen.into_iter().map(|seen| {
            let state = seen.filter(|seen| seen.still_holds(now))?.before;
            Some(RegionSnapshot::new(Arc::clone(&moment), state.region))
        });
        Ok(regions.collect())
    }

    /// An engine snapshot during whose taking this store was allowed to read the region.
    fn moment(
        &self,
        header: &Header,
        clock: impl FnOnce() -> MonoTime,
    ) -> Result<Option<(K::Snapshot, ViewState)>, engine_traits::Error> {
        let Some(seen) = self.look(header) else {
            return Ok(None);
        };
        let moment = self.kv.snapshot()?;
        Ok(seen.still_holds(clock()).then_some((moment, seen.before)))
    }

    /// The view of the region, if the header fits it. Proves nothing before the second look.
    fn look(&self, header: &Header) -> Option<Seen> {
        if header.read_quorum {
            return None;
        }
        let view = self.views.get(header.region)?;
        let before = view.state()?;
        accepts(header, &before.region, before.term, before.peer.id)
            .then_some(Seen { view, before })
    }
}

/// A view before the engine snapshot was taken.
struct Seen {
    view: Arc<View>,
    before: ViewState,
}

impl Seen {
    /// Whether nothing but the lease's bound has changed since, and the lease covers `now`.
    fn still_holds(&self, now: MonoTime) -> bool {
        self.view.state().is_some_and(|after| {
            after.generation == self.before.generation && now < after.lease_until
        })
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
    use crate::keys;

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
            replica_read: false,
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

    /// H40: while the data lacks what is committed, nobody reads beside the store.
    #[test]
    fn h40_a_view_that_is_behind_serves_nobody() {
        let (_, view, reader) = setup();
        let read = || value(reader.read(&get("k"), || MonoTime::ZERO).unwrap());
        view.set_behind(true);
        assert_eq!(read(), None);
        view.set_behind(false);
        assert_eq!(read(), Some(Some(Bytes::from_static(b"v1"))));
        // A commit that comes between the two looks voids the read as well.
        let late = reader.read(&get("k"), || {
            view.set_behind(true);
            MonoTime::ZERO
        });
        assert_eq!(value(late.unwrap()), None);
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

    /// H41 for snapshots: the same two looks, for each region of a batch.
    #[test]
    fn h41_snapshots_are_given_only_for_regions_whose_view_still_holds() {
        let (kv, view, reader) = setup();
        let header = get("k").header;
        let at = |millis| MonoTime::from_millis(millis);
        let shot = reader.snapshot(&header, || at(99)).unwrap().expect("under the lease");
        put(&kv, "k", "v2");
        assert_eq!(shot.get(Cf::Default, b"k").unwrap().unwrap(), "v1");
        assert!(reader.snapshot(&header, || at(100)).unwrap().is_none());
        let quorum = Header { read_quorum: true, ..header.clone() };
        assert!(reader.snapshot(&quorum, || at(0)).unwrap().is_none());

        let other = reader.views.open(RegionId::must(2));
        other.publish(ViewState {
            region: Arc::new(Region { id: RegionId::must(2), ..region() }),
            ..state(1)
        });
        let there = Header { region: RegionId::must(2), ..header.clone() };
        let batch = [quorum, header, there];
        let given = |shots: Vec<Option<_>>| shots.iter().map(Option::is_some).collect::<Vec<_>>();
        let both = reader.snapshots(&batch, || at(99)).unwrap();
        assert_eq!(given(both), [false, true, true]);
        let one = reader.snapshots(&batch, || {
            view.withdraw();
            at(99)
        });
        assert_eq!(given(one.unwrap()), [false, false, true]);
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
