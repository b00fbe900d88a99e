//! openraft on the same work: three nodes in one process that call each other, writes from many
//! clients to the leader. Its log is in memory, or in RocksDB too with one synced batch for
//! each append; its state machine is a map in memory.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io::Cursor,
    ops::RangeBounds,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use openraft::{
    BasicNode, Config, Entry, EntryPayload, LogId, OptionalSend, Raft, RaftLogReader, RaftNetwork,
    RaftNetworkFactory, RaftSnapshotBuilder, SnapshotMeta, SnapshotPolicy, StorageError,
    StorageIOError, StoredMembership, Vote,
    error::{InstallSnapshotError, RPCError, RaftError, RemoteError},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest,
        InstallSnapshotResponse, VoteRequest, VoteResponse,
    },
    storage::{LogFlushed, LogState, RaftLogStorage, RaftStateMachine, Snapshot},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use transport_traits::BoxError;

use super::store::{STORES, StoreFigures, StoreWork};
use crate::{
    VALUE_BYTES,
    percentiles::Percentiles,
    process::{memory_kib, written_bytes},
    temporary_folder,
};

/// One write.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Put {
    key: u64,
    value: String,
}

mod types {
    // The macro names it.
    use std::io::Cursor;

    openraft::declare_raft_types!(pub(super) Types: D = super::Put, R = ());
}
use types::Types;

type Id = u64;
type Fault = StorageError<Id>;

/// Where an append becomes durable.
trait Disk: Send + Sync + 'static {
    /// Writes rows as one, synced.
    fn write(&self, rows: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), BoxError>;
}

/// Nowhere.
struct NoDisk;

impl Disk for NoDisk {
    fn write(&self, _: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), BoxError> {
        Ok(())
    }
}

#[cfg(feature = "rocksdb")]
struct RocksDisk(rocksdb::DB);

#[cfg(feature = "rocksdb")]
impl Disk for RocksDisk {
    fn write(&self, rows: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), BoxError> {
        let mut batch = rocksdb::WriteBatch::default();
        rows.iter().for_each(|(key, value)| batch.put(key, value));
        let mut options = rocksdb::WriteOptions::default();
        options.set_sync(true);
        Ok(self.0.write_opt(batch, &options)?)
    }
}

#[derive(Default)]
struct Held {
    entries: BTreeMap<u64, Entry<Types>>,
    purged: Option<LogId<Id>>,
    vote: Option<Vote<Id>>,
}

#[derive(Clone)]
struct Log {
    held: Arc<Mutex<Held>>,
    disk: Arc<dyn Disk>,
    is_durable: bool,
    syncs: Arc<AtomicU64>,
}

impl Log {
    fn write(&self, rows: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), Fault> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let failed = |error: BoxError| {
            StorageIOError::write_logs(&std::io::Error::other(error.to_string())).into()
        };
        self.disk.write(rows).map_err(failed)
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(value).map_err(|error| StorageIOError::write_logs(&error).into())
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<B: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: B,
    ) -> Result<Vec<Entry<Types>>, Fault> {
        Ok(self.held.lock().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, Fault> {
        let held = self.held.lock();
        let last = held.entries.last_key_value().map(|(_, entry)| entry.log_id);
        Ok(LogState { last_purged_log_id: held.purged, last_log_id: last.or(held.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<Id>) -> Result<(), Fault> {
        if self.is_durable {
            self.write(vec![(b"vote".to_vec(), encode(vote)?)])?;
        }
        self.held.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<Id>>, Fault> {
        Ok(self.held.lock().vote)
    }

    async fn append<I>(&mut self, entries: I, done: LogFlushed<Types>) -> Result<(), Fault>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry<Types>> = entries.into_iter().collect();
        if self.is_durable {
            let row = |entry: &Entry<Types>| {
                Ok((entry.log_id.index.to_be_bytes().to_vec(), encode(entry)?))
            };
            self.write(entries.iter().map(row).collect::<Result<_, Fault>>()?)?;
        }
        let numbered = entries.into_iter().map(|entry| (entry.log_id.index, entry));
        self.held.lock().entries.extend(numbered);
        done.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId<Id>) -> Result<(), Fault> {
        self.held.lock().entries.split_off(&from.index);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId<Id>) -> Result<(), Fault> {
        let mut held = self.held.lock();
        held.purged = Some(upto);
        held.entries = held.entries.split_off(&(upto.index + 1));
        Ok(())
    }
}

/// The state machine.
#[derive(Clone, Default)]
struct Machine {
    rows: Arc<Mutex<BTreeMap<u64, String>>>,
    applied: Option<LogId<Id>>,
    members: StoredMembership<Id, BasicNode>,
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, Fault> {
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.members.clone(),
            snapshot_id: format!("{:?}", self.applied),
        };
        // Nobody falls behind far enough to need one.
        Ok(Snapshot { meta, snapshot: Box::default() })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<Id>>, StoredMembership<Id, BasicNode>), Fault> {
        Ok((self.applied, self.members.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, Fault>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut rows = self.rows.lock();
        let mut answers = Vec::new();
        for entry in entries {
            self.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Normal(put) => drop(rows.insert(put.key, put.value)),
                EntryPayload::Membership(members) => {
                    self.members = StoredMembership::new(Some(entry.log_id), members);
                }
                EntryPayload::Blank => {}
            }
            answers.push(());
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, Fault> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<Id, BasicNode>,
        _: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), Fault> {
        self.applied = meta.last_log_id;
        self.members = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, Fault> {
        Ok(None)
    }
}

/// All nodes; each is there before the first call.
type Nodes = Arc<OnceLock<BTreeMap<Id, Raft<Types>>>>;

#[derive(Clone)]
struct Calls {
    nodes: Nodes,
    target: Id,
}

impl Calls {
    fn peer<E: std::error::Error>(&self) -> Result<Raft<Types>, RPCError<Id, BasicNode, E>> {
        let missing = || {
            let cause = std::io::Error::other("the node is not there yet");
            RPCError::Unreachable(openraft::error::Unreachable::new(&cause))
        };
        self.nodes.get().and_then(|nodes| nodes.get(&self.target)).cloned().ok_or_else(missing)
    }
}

impl RaftNetworkFactory<Types> for Calls {
    type Network = Self;

    async fn new_client(&mut self, target: Id, _: &BasicNode) -> Self {
        Self { nodes: Arc::clone(&self.nodes), target }
    }
}

type CallResult<T, E = openraft::error::Infallible> =
    Result<T, RPCError<Id, BasicNode, RaftError<Id, E>>>;

impl RaftNetwork<Types> for Calls {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> CallResult<AppendEntriesResponse<Id>> {
        let remote = |error| RPCError::RemoteError(RemoteError::new(self.target, error));
        self.peer()?.append_entries(request).await.map_err(remote)
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> CallResult<InstallSnapshotResponse<Id>, InstallSnapshotError> {
        let remote = |error| RPCError::RemoteError(RemoteError::new(self.target, error));
        self.peer()?.install_snapshot(request).await.map_err(remote)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Id>,
        _: RPCOption,
    ) -> CallResult<VoteResponse<Id>> {
        let remote = |error| RPCError::RemoteError(RemoteError::new(self.target, error));
        self.peer()?.vote(request).await.map_err(remote)
    }
}

/// With its log in memory.
///
/// # Errors
/// If it fails.
pub fn openraft_memory(work: StoreWork) -> Result<StoreFigures, BoxError> {
    run(work, false, &|_| Ok(Arc::new(NoDisk)))
}

/// With its log in RocksDB.
///
/// # Errors
/// If it fails, or RocksDB is not built in.
pub fn openraft_rocks(work: StoreWork) -> Result<StoreFigures, BoxError> {
    #[cfg(feature = "rocksdb")]
    {
        let folder = temporary_folder();
        run(work, true, &|id| {
            let path = folder.path().join(id.to_string());
            Ok(Arc::new(RocksDisk(rocksdb::DB::open_default(path)?)))
        })
    }
    #[cfg(not(feature = "rocksdb"))]
    {
        let _ = (work, temporary_folder);
        Err("built without the feature `rocksdb`".into())
    }
}

type MakeDisk<'a> = &'a dyn Fn(Id) -> Result<Arc<dyn Disk>, BoxError>;

fn run(work: StoreWork, is_durable: bool, disk: MakeDisk<'_>) -> Result<StoreFigures, BoxError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(load(work, is_durable, disk))
}

async fn load(
    work: StoreWork,
    is_durable: bool,
    disk: MakeDisk<'_>,
) -> Result<StoreFigures, BoxError> {
    let config = Config {
        heartbeat_interval: 200,
        election_timeout_min: 1_000,
        election_timeout_max: 2_000,
        // Its log is kept whole: nobody has to be brought up by a snapshot.
        snapshot_policy: SnapshotPolicy::Never,
        ..Config::default()
    };
    let config = Arc::new(config.validate()?);
    let calls = Calls { nodes: Nodes::default(), target: 0 };
    let syncs = Arc::new(AtomicU64::new(0));
    let mut nodes = BTreeMap::new();
    for id in 1..=STORES {
        let log =
            Log { held: Arc::default(), disk: disk(id)?, is_durable, syncs: Arc::clone(&syncs) };
        let node = Raft::new(id, Arc::clone(&config), calls.clone(), log, Machine::default());
        nodes.insert(id, node.await?);
    }
    let members: BTreeMap<Id, BasicNode> =
        nodes.keys().map(|id| (*id, BasicNode::default())).collect();
    let _ = calls.nodes.set(nodes.clone());
    nodes[&1].initialize(members).await?;
    let leader = loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if let Some(leader) = nodes[&1].current_leader().await {
            break nodes[&leader].clone();
        }
    };
    let is_over = Arc::new(AtomicBool::new(false));
    let (written, synced) = (written_bytes()?, syncs.load(Ordering::Relaxed));
    let begun = Instant::now();
    let clients: Vec<_> = (0..work.clients as u64)
        .map(|client| {
            let (leader, is_over) = (leader.clone(), Arc::clone(&is_over));
            tokio::spawn(async move {
                let value = "v".repeat(VALUE_BYTES);
                let (mut latency, mut turn) = (Percentiles::default(), 0);
                while !is_over.load(Ordering::Relaxed) {
                    let sent = Instant::now();
                    let put = Put { key: client * 1_000 + turn % 1_000, value: value.clone() };
                    leader.client_write(put).await.map_err(|error| error.to_string())?;
                    latency.add(sent.elapsed());
                    turn += 1;
                }
                Ok::<_, String>(latency)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(work.seconds)).await;
    is_over.store(true, Ordering::Relaxed);
    let mut latency = Percentiles::default();
    for client in clients {
        latency.append(client.await??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let count = latency.count().max(1) as f64;
    for node in nodes.values() {
        node.shutdown().await?;
    }
    let acknowledged = count * (VALUE_BYTES + 8) as f64 * STORES as f64;
    Ok(StoreFigures {
        writes: count / seconds,
        log_syncs: (syncs.load(Ordering::Relaxed) - synced) as f64 / count,
        kv_syncs: 0.0,
        amplification: (written_bytes()? - written) as f64 / acknowledged,
        memory_kib: memory_kib()?,
        latency,
    })
}
