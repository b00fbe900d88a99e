//! PD's state behind a server: nothing is said that a crash could take back.
//!
//! Whoever changes something holds the state alone until the change is on disk, as far as it
//! has to be; whoever asks waits for that. Most reports change nothing that has to be.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use raftstore_proto::ClusterId;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};
use tonic::Status;

use super::{ServeError, disk::Disk, promises::Promises, tso::Timestamp};
use crate::mock::{PdConfig, PdCore};

const STATE: &str = "state";
const PROMISES: &str = "promises";

/// PD itself.
pub(super) struct Pd {
    pub(super) core: PdCore,
    /// Whether the last attempt to save it failed, so that what it promised since may be
    /// nowhere.
    is_lost: bool,
    /// Whether something changed that is saved only now and then.
    is_dirty: bool,
}

/// All that a server's calls share.
pub(super) struct State {
    pub(super) cluster: ClusterId,
    disk: Arc<Disk>,
    started: Instant,
    pd: Arc<RwLock<Pd>>,
    promises: Arc<tokio::sync::Mutex<Promises>>,
}

impl State {
    /// Goes on where the last life in `dir` ended, or begins.
    pub(super) fn open(
        dir: &Path,
        cluster: Option<ClusterId>,
        config: PdConfig,
    ) -> Result<Self, ServeError> {
        let damaged = |file, why: String| ServeError::Damaged { path: dir.join(file), why };
        let disk = Disk::open(dir).map_err(|source| {
            if source.kind() == io::ErrorKind::WouldBlock {
                ServeError::Locked(dir.to_path_buf())
            } else {
                ServeError::Disk { path: dir.to_path_buf(), source }
            }
        })?;
        let failed = |source| ServeError::Disk { path: dir.to_path_buf(), source };
        let (promises, saved) =
            (disk.read(PROMISES).map_err(failed)?, disk.read(STATE).map_err(failed)?);
        let mut promises = match promises {
            Some(bytes) => {
                Promises::decode(&bytes).map_err(|why| damaged(PROMISES, why.to_owned()))?
            }
            None if saved.is_some() => return Err(damaged(PROMISES, "it is missing".to_owned())),
            None => Promises::new(cluster.unwrap_or_else(random_cluster)),
        };
        let mut config = config;
        if let Some(count) = promises.max_replicas {
            config.max_replicas = count as usize;
        }
        let mut core = match saved {
            Some(bytes) => PdCore::load(0, &bytes, config)
                .map_err(|error| damaged(STATE, super::in_full(&error)))?,
            None if promises.has_state => {
                return Err(damaged(STATE, "it is missing".to_owned()));
            }
            None => PdCore::new(promises.cluster, config),
        };
        if core.cluster_id() != promises.cluster {
            return Err(damaged(PROMISES, "it belongs to another cluster".to_owned()));
        }
        if let Some(ours) = cluster.filter(|ours| *ours != core.cluster_id()) {
            return Err(ServeError::WrongCluster { ours, theirs: core.cluster_id() });
        }
        // A directory becomes a cluster's in three steps; after a crash between them it is
        // begun again, since nobody was told anything.
        if !promises.has_state {
            disk.write(PROMISES, &promises.encode()).map_err(failed)?;
        }
        disk.write(STATE, &core.save()).map_err(failed)?;
        if !promises.has_state {
            promises.has_state = true;
            disk.write(PROMISES, &promises.encode()).map_err(failed)?;
        }
        Ok(Self {
            cluster: core.cluster_id(),
            disk: Arc::new(disk),
            started: Instant::now(),
            pd: Arc::new(RwLock::new(Pd { core, is_lost: false, is_dirty: false })),
            promises: Arc::new(tokio::sync::Mutex::new(promises)),
        })
    }

    /// PD's time: since this life began.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Asks PD something that changes nothing.
    pub(super) async fn ask<T>(&self, question: impl FnOnce(&PdCore) -> T) -> T {
        question(&self.pd.read().await.core)
    }

    /// Changes PD; gives what came of it once it is on disk, if it has to be.
    pub(super) async fn change<T>(
        &self,
        change: impl FnOnce(&mut PdCore, u64) -> T,
    ) -> Result<T, Status> {
        let mut pd = Arc::clone(&self.pd).write_owned().await;
        let outcome = change(&mut pd.core, self.now_ms());
        pd.is_dirty = true;
        if pd.is_lost || pd.core.is_unsaved() {
            self.save(pd).await?;
        }
        Ok(outcome)
    }

    /// Saves what need not be on disk before an answer, if there is any.
    pub(super) async fn save_now_and_then(&self) -> Result<(), Status> {
        let pd = Arc::clone(&self.pd).write_owned().await;
        if pd.is_lost || pd.is_dirty { self.save(pd).await } else { Ok(()) }
    }

    /// Writes the state. Goes on although nobody waits for it any more, and nobody else
    /// sees the state before it has ended.
    async fn save(&self, mut pd: OwnedRwLockWriteGuard<Pd>) -> Result<(), Status> {
        let disk = Arc::clone(&self.disk);
        // Until the opposite is proven: whoever waits may go away at any moment.
        pd.is_lost = true;
        let written = tokio::task::spawn_blocking(move || {
            let bytes = pd.core.save();
            let outcome = disk.write(STATE, &bytes);
            pd.is_lost = outcome.is_err();
            pd.is_dirty &= pd.is_lost;
            outcome
        });
        settled(written.await)
    }

    /// Changes the promises; they take effect once they are on disk.
    pub(super) async fn promise<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Promises) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let mut promises = Arc::clone(&self.promises).lock_owned().await;
        let disk = Arc::clone(&self.disk);
        let written = tokio::task::spawn_blocking(move || {
            let mut next = promises.clone();
            let outcome = change(&mut next);
            if next != *promises {
                disk.write(PROMISES, &next.encode())?;
                *promises = next;
            }
            Ok(outcome)
        });
        settled(written.await)
    }

    pub(super) async fn safe_point(&self) -> u64 {
        self.promises.lock().await.safe_point
    }

    /// The last of `count` new timestamps.
    pub(super) async fn timestamps(&self, count: u32) -> Result<Timestamp, Status> {
        loop {
            let now_ms = wall_ms();
            if let Some(last) = self.promises.lock().await.tso.take(now_ms, count) {
                return Ok(last);
            }
            self.promise(move |next| next.tso.extend(now_ms, count)).await?;
        }
    }
}

/// What became of a write that another thread made.
fn settled<T>(outcome: Result<io::Result<T>, tokio::task::JoinError>) -> Result<T, Status> {
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            tracing::error!(%error, "PD's state cannot be written");
            Err(Status::unavailable(format!("PD's state cannot be written: {error}")))
        }
        Err(_) => Err(Status::unavailable("PD is stopping")),
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What the clock on the wall says, in ms of the Unix epoch; it may go back.
fn wall_ms() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

/// The same in seconds.
pub(super) fn wall_s() -> i64 {
    i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX)
}

/// An id that no other cluster is likely to have.
fn random_cluster() -> ClusterId {
    use std::hash::{BuildHasher as _, RandomState};
    let number = RandomState::new().hash_one(since_epoch());
    ClusterId::must((number >> 1).max(1))
}
