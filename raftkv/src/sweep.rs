//! Decides when the files of a store are compared with what was written to them: a small
//! slice every second, so that damage nobody reads is found in days and not after years.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use engine_redb::RedbEngine;
use engine_traits::Error;
use parking_lot::Mutex;

/// Pause between two slices.
const PAUSE: Duration = Duration::from_secs(1);

/// A file that can be compared slice by slice.
pub(crate) trait Sweep: Send + 'static {
    /// Which one, for people.
    fn name(&self) -> &'static str;

    /// Compares the next `budget_pages` pages, from the start again after the last. Gives how
    /// many it was.
    ///
    /// # Errors
    /// `Corrupt` for a damaged page; the next slice begins behind it.
    fn slice(&mut self, budget_pages: u64) -> Result<u64, Error>;
}

/// A file of redb.
pub(crate) struct RedbFile {
    pub(crate) name: &'static str,
    pub(crate) engine: RedbEngine,
}

impl Sweep for RedbFile {
    fn name(&self) -> &'static str {
        self.name
    }

    fn slice(&mut self, budget_pages: u64) -> Result<u64, Error> {
        self.engine.sweep(budget_pages).map(|progress| progress.slice_pages)
    }
}

#[derive(Debug, Default)]
struct Found {
    pages: AtomicU64,
    damaged: AtomicU64,
    /// The first damage, in words.
    first: Mutex<Option<String>>,
}

impl Found {
    /// Compares a slice. Gives whether the file is worth another.
    fn slice(&self, file: &mut dyn Sweep, budget_pages: u64) -> bool {
        match file.slice(budget_pages) {
            Ok(pages) => {
                self.pages.fetch_add(pages, Ordering::Relaxed);
                true
            }
            Err(error) => {
                let goes_on = matches!(error, Error::Corrupt { .. });
                self.damaged.fetch_add(1, Ordering::Relaxed);
                self.first.lock().get_or_insert_with(|| format!("{}: {error}", file.name()));
                goes_on
            }
        }
    }
}

/// Nothing is ever sent; the end of its channel ends the thread.
enum Never {}

/// The thread that sweeps the files of one store. Its end is that of this value.
pub(crate) struct Sweeper {
    found: Arc<Found>,
    thread: Option<(Sender<Never>, JoinHandle<()>)>,
}

impl Sweeper {
    /// Compares `pages_per_second` pages of each file; none if that is 0.
    pub(crate) fn start(files: Vec<Box<dyn Sweep>>, pages_per_second: u64) -> Self {
        let found = Arc::new(Found::default());
        let thread = (pages_per_second > 0 && !files.is_empty()).then(|| {
            let (sender, stop) = crossbeam_channel::bounded(0);
            let shared = Arc::clone(&found);
            let body = move || sweep(files, pages_per_second, &shared, &stop);
            (sender, thread::spawn(body))
        });
        Self { found, thread }
    }

    /// Pages compared so far.
    pub(crate) fn pages(&self) -> u64 {
        self.found.pages.load(Ordering::Relaxed)
    }

    /// Pages that were not what was written.
    pub(crate) fn damaged(&self) -> u64 {
        self.found.damaged.load(Ordering::Relaxed)
    }

    /// The first damage found.
    pub(crate) fn first_damage(&self) -> Option<String> {
        self.found.first.lock().clone()
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.thread.take() {
            drop(sender);
            // A panic in it has been printed; the files themselves are not its business.
            let _ = thread.join();
        }
    }
}

fn sweep(mut files: Vec<Box<dyn Sweep>>, budget: u64, found: &Found, stop: &Receiver<Never>) {
    loop {
        files.retain_mut(|file| found.slice(file.as_mut(), budget));
        match stop.recv_timeout(PAUSE) {
            Err(RecvTimeoutError::Timeout) if !files.is_empty() => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            Ok(never) => match never {},
        }
    }
}

#[cfg(test)]
mod tests {
    use engine_traits::mem::{MemEngine, MemRaftLog};
    use raftstore_core::Config;

    use super::*;
    use crate::{
        cluster::{Cluster, ClusterError},
        machine::{Disks, Machine, MachineError, MemMachine},
    };

    /// A file whose slices end as told, one after the other; then it is whole.
    struct Told(Vec<Result<u64, Error>>);

    impl Sweep for Told {
        fn name(&self) -> &'static str {
            "told.redb"
        }

        fn slice(&mut self, budget_pages: u64) -> Result<u64, Error> {
            if self.0.is_empty() { Ok(budget_pages) } else { self.0.remove(0) }
        }
    }

    fn damage(page: u64) -> Error {
        let (place, detail) = (format!("page {page}"), "torn".to_owned());
        Error::Corrupt { engine: "test", place, detail }
    }

    #[test]
    fn damage_is_counted_and_the_first_is_kept() {
        let found = Found::default();
        let mut file = Told(vec![Ok(3), Err(damage(7)), Ok(2), Err(damage(9))]);
        assert!((0..5).all(|_| found.slice(&mut file, 10)), "damage is no reason to stop looking");
        assert_eq!(found.pages.load(Ordering::Relaxed), 15);
        assert_eq!(found.damaged.load(Ordering::Relaxed), 2);
        let first = found.first.lock().clone().unwrap();
        assert!(first.contains("told.redb") && first.contains("page 7"), "{first}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_left() {
        let found = Found::default();
        let refused = Error::Format {
            engine: "test",
            path: "told.redb".to_owned(),
            detail: "gone".to_owned(),
        };
        assert!(!found.slice(&mut Told(vec![Err(refused)]), 10));
        assert_eq!(found.damaged.load(Ordering::Relaxed), 1);
    }

    /// A store in memory beside a file that is damaged.
    #[derive(Default)]
    struct Damaged(MemMachine);

    impl Machine for Damaged {
        type Kv = MemEngine;
        type Log = MemRaftLog;

        fn power_on(&mut self) -> Result<Disks<MemEngine, MemRaftLog>, MachineError> {
            let files: Vec<Box<dyn Sweep>> = vec![Box::new(Told(vec![Err(damage(7))]))];
            Ok(Disks { files, ..self.0.power_on()? })
        }

        fn cut_power(&mut self) {
            self.0.cut_power();
        }
    }

    #[test]
    fn damage_ends_what_is_awaited_of_the_cluster() {
        let machines = vec![Damaged::default()];
        let cluster = Cluster::start(machines, 1, 1, Config::default(), 10).unwrap();
        let never = cluster.wait("nothing", Duration::from_secs(60), || false).unwrap_err();
        assert!(matches!(never, ClusterError::Damaged { number: 1, .. }), "{never}");
        assert!(never.to_string().contains("store 1: told.redb"), "{never}");
        assert_eq!(cluster.counts().damaged_pages, 1);
        cluster.stop().unwrap();
        // With the sweep turned off nobody looks.
        let machines = vec![Damaged::default()];
        let cluster = Cluster::start(machines, 1, 1, Config::default(), 0).unwrap();
        cluster.check().unwrap();
        assert_eq!(cluster.counts().damaged_pages, 0);
        cluster.stop().unwrap();
    }

    #[test]
    fn zero_pages_a_second_is_off() {
        let sweeper = Sweeper::start(vec![Box::new(Told(vec![Err(damage(1))]))], 0);
        assert!(sweeper.thread.is_none());
        drop(sweeper);
        assert!(Sweeper::start(Vec::new(), 10).thread.is_none());
    }

    #[test]
    fn the_end_of_a_sweeper_is_that_of_its_files() {
        let file = Arc::new(());
        struct Held(#[expect(dead_code, reason = "it is there to be dropped")] Arc<()>);
        impl Sweep for Held {
            fn name(&self) -> &'static str {
                "held.redb"
            }
            fn slice(&mut self, budget_pages: u64) -> Result<u64, Error> {
                Ok(budget_pages)
            }
        }
        let sweeper = Sweeper::start(vec![Box::new(Held(Arc::clone(&file)))], 10);
        drop(sweeper);
        assert_eq!(Arc::strong_count(&file), 1, "the file is open still");
    }
}
