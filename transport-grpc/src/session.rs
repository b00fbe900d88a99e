//! One store's time on a transport: from the moment it is connected until its sender goes or
//! the transport is closed.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, RwLock};
use raftstore_proto::{PeerId, RegionId, StoreId};
use tokio::sync::{Notify, watch};
use transport_traits::{Inbox, SnapStore, SnapshotStatus};

use crate::{
    counters::{Counters, Refusal},
    lane::Peer,
    queue::Lost,
    snapshot::Receives,
};

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Running,
    /// Takes nothing more; what has been taken may leave.
    Draining,
    Over,
}

/// Which stream of another store's: one of each name at a time.
type StreamName = (StoreId, u16, &'static str);

/// A store on the transport.
pub(crate) struct Session {
    pub(crate) store: StoreId,
    pub(crate) snaps: Arc<dyn SnapStore>,
    pub(crate) counters: Arc<Counters>,
    /// `None` once the session is over. Calls hold the lock for reading, so that whoever has
    /// taken the inbox out knows that it is not being called any more.
    inbox: RwLock<Option<Arc<dyn Inbox>>>,
    is_closed: AtomicBool,
    phase: watch::Sender<Phase>,
    pub(crate) peers: RwLock<BTreeMap<StoreId, Arc<Peer>>>,
    /// Streams of other stores.
    inbound: Mutex<BTreeMap<StreamName, Arc<Notify>>>,
    /// Snapshots of other stores.
    pub(crate) receives: Receives,
    /// Transfers of snapshots that have not been reported on.
    transfers: Mutex<Transfers>,
    tasks: Mutex<usize>,
    task_ended: Condvar,
}

#[derive(Default)]
struct Transfers {
    next: u64,
    open: BTreeMap<u64, (RegionId, PeerId)>,
}

impl Session {
    pub(crate) fn new(
        store: StoreId,
        inbox: Arc<dyn Inbox>,
        snaps: Arc<dyn SnapStore>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            store,
            snaps,
            counters,
            inbox: RwLock::new(Some(inbox)),
            is_closed: AtomicBool::new(false),
            phase: watch::Sender::new(Phase::Running),
            peers: RwLock::default(),
            inbound: Mutex::default(),
            receives: Receives::default(),
            transfers: Mutex::default(),
            tasks: Mutex::new(0),
            task_ended: Condvar::new(),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Calls the inbox; `None` if the session is over. A panic there is the store's own
    /// affair: it must not end what tells it of later messages.
    pub(crate) fn with_inbox<T>(&self, call: impl FnOnce(&dyn Inbox) -> T) -> Option<T> {
        let inbox = self.inbox.read();
        let inbox = inbox.as_deref()?;
        let outcome = catch_unwind(AssertUnwindSafe(|| call(inbox)));
        if outcome.is_err() {
            // The panic hook has told of it.
            self.counters.inbox_panics.add(1);
        }
        outcome.ok()
    }

    pub(crate) fn report_lost(&self, lost: Lost) {
        for (region, to) in lost {
            self.with_inbox(|inbox| inbox.unreachable(region, to));
        }
    }

    /// Waits until the session begins to end.
    pub(crate) async fn ending(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits until the session is over.
    pub(crate) async fn over(&self) {
        self.reached(Phase::Over).await;
    }

    async fn reached(&self, phase: Phase) {
        // The sender is ours, so there is nothing else to hear.
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    /// Runs a task that [`Session::close`] waits for.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        runtime: &tokio::runtime::Handle,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        *self.tasks.lock() += 1;
        let guard = TaskGuard(Arc::clone(self));
        runtime.spawn(async move {
            let _guard = guard;
            task.await;
        });
    }

    /// Notes a transfer, which is to be reported on exactly once, unless there are `max`
    /// already.
    pub(crate) fn begin_transfer(
        self: &Arc<Self>,
        region: RegionId,
        to: PeerId,
        max: usize,
    ) -> Option<Report> {
        let mut transfers = self.transfers.lock();
        if transfers.open.len() >= max {
            return None;
        }
        transfers.next += 1;
        let number = transfers.next;
        transfers.open.insert(number, (region, to));
        Some(Report { session: Arc::clone(self), number })
    }

    fn report_transfer(&self, number: u64, status: SnapshotStatus) {
        let known = self.transfers.lock().open.remove(&number);
        let Some((region, to)) = known else { return };
        match status {
            SnapshotStatus::Finished => self.counters.snapshots_sent.add(1),
            SnapshotStatus::Failed => self.counters.snapshots_send_failed.add(1),
        }
        self.with_inbox(|inbox| inbox.snapshot_status(region, to, status));
    }

    /// Enters a stream of another store. An older one of the same name is ended: its
    /// connection has died without our having noticed.
    pub(crate) fn enter(
        self: &Arc<Self>,
        from: StoreId,
        connection: u16,
        kind: &'static str,
        streams_max: usize,
    ) -> Result<Inbound, Refusal> {
        let name = (from, connection, kind);
        let replaced = Arc::new(Notify::new());
        let mut inbound = self.inbound.lock();
        if inbound.len() >= streams_max && !inbound.contains_key(&name) {
            return Err(Refusal::TooManyStreams);
        }
        if let Some(older) = inbound.insert(name, Arc::clone(&replaced)) {
            self.counters.replaced_streams.add(1);
            // It may not have begun to wait: the notice is kept for it.
            older.notify_one();
        }
        drop(inbound);
        self.counters.accepted_streams.add(1);
        Ok(Inbound { session: Arc::clone(self), name, replaced })
    }

    /// Ends the session: nothing more is taken, what has been taken has `drain` to leave,
    /// every transfer is reported on. The inbox is not called after this returns.
    pub(crate) fn close(&self, drain: Duration) {
        self.is_closed.store(true, Ordering::Release);
        self.phase.send_modify(|phase| *phase = (*phase).max(Phase::Draining));
        let deadline = Instant::now() + drain;
        {
            let mut tasks = self.tasks.lock();
            while *tasks > 0 && !self.task_ended.wait_until(&mut tasks, deadline).timed_out() {}
        }
        self.phase.send_modify(|phase| *phase = Phase::Over);
        let unreported: Vec<u64> = self.transfers.lock().open.keys().copied().collect();
        for number in unreported {
            self.report_transfer(number, SnapshotStatus::Failed);
        }
        let inbox = self.inbox.write().take();
        drop(inbox);
        self.peers.write().clear();
        self.receives.clear();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("store", &self.store)
            .field("phase", &*self.phase.borrow())
            .finish_non_exhaustive()
    }
}

struct TaskGuard(Arc<Session>);

impl Drop for TaskGuard {
    fn drop(&mut self) {
        *self.0.tasks.lock() -= 1;
        self.0.task_ended.notify_all();
    }
}

/// A transfer that has not been reported on. Dropped, it reports a failure.
#[derive(Debug)]
pub(crate) struct Report {
    session: Arc<Session>,
    number: u64,
}

impl Report {
    pub(crate) fn finished(self) {
        self.session.report_transfer(self.number, SnapshotStatus::Finished);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.session.report_transfer(self.number, SnapshotStatus::Failed);
    }
}

/// A stream of another store that is being received.
pub(crate) struct Inbound {
    pub(crate) session: Arc<Session>,
    name: StreamName,
    replaced: Arc<Notify>,
}

impl Inbound {
    /// Waits until the same store opens the same stream anew.
    pub(crate) async fn replaced(&self) {
        self.replaced.notified().await;
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        let mut inbound = self.session.inbound.lock();
        if inbound.get(&self.name).is_some_and(|entered| Arc::ptr_eq(entered, &self.replaced)) {
            inbound.remove(&self.name);
        }
    }
}
