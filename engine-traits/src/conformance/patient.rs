//! Opening in a process that also starts children.
//!
//! A child has copies of all open files of its parent from when it is made until it runs its own
//! program, and with them their locks. An engine that was closed meanwhile by another test of this
//! process is then in use for a moment. A system may let the parent go on before it closes the
//! copies, so only a child that has spoken is known to have none.

use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use raftstore_proto::{Cf, RegionId};

use super::fixture::{KvFixture, RaftLogFixture, Support};
use crate::{Error, Result};

/// Held until a child that is made has spoken.
static STARTING: RwLock<()> = RwLock::new(());
static STARTED: AtomicU64 = AtomicU64::new(0);

/// Starts a child; `hear` waits for its first words.
pub(crate) fn start<T>(command: &mut Command, hear: impl FnOnce(std::io::Result<Child>) -> T) -> T {
    let _starting = STARTING.write();
    STARTED.fetch_add(1, Ordering::SeqCst);
    hear(command.spawn())
}

/// A fixture that opens again what was in use while a child was made.
pub(crate) struct Patient<F>(pub(crate) F);

fn patiently<T>(mut open: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        // One that is being made now is through when the lock can be had.
        let quiet = STARTING.try_read().is_some();
        let before = STARTED.load(Ordering::SeqCst);
        match open() {
            Err(Error::Locked { .. }) if !quiet || STARTED.load(Ordering::SeqCst) > before => {
                drop(STARTING.read());
            }
            other => return other,
        }
    }
}

impl<F: KvFixture> KvFixture for Patient<F> {
    type Engine = F::Engine;

    fn open(&mut self) -> Result<F::Engine> {
        patiently(|| self.0.open())
    }

    fn stop(&mut self, engine: F::Engine) -> Support {
        self.0.stop(engine)
    }

    fn power_cut(&mut self, engine: F::Engine, keep: usize) -> Support {
        self.0.power_cut(engine, keep)
    }

    fn cut_before(&mut self, operation: u64) -> Support {
        self.0.cut_before(operation)
    }

    fn move_to(&mut self, folder: &Path) -> Support {
        self.0.move_to(folder)
    }

    fn damage(&mut self, cf: Cf, key: &[u8], value: &[u8]) -> Support {
        self.0.damage(cf, key, value)
    }

    fn model_seeds(&self) -> u64 {
        self.0.model_seeds()
    }

    fn cuts(&self) -> u64 {
        self.0.cuts()
    }

    fn kills(&self) -> u64 {
        self.0.kills()
    }
}

impl<F: RaftLogFixture> RaftLogFixture for Patient<F> {
    type Engine = F::Engine;

    fn open(&mut self) -> Result<F::Engine> {
        patiently(|| self.0.open())
    }

    fn stop(&mut self, engine: F::Engine) -> Support {
        self.0.stop(engine)
    }

    fn power_cut(&mut self, engine: F::Engine, keep: usize) -> Support {
        self.0.power_cut(engine, keep)
    }

    fn cut_before(&mut self, operation: u64) -> Support {
        self.0.cut_before(operation)
    }

    fn move_to(&mut self, folder: &Path) -> Support {
        self.0.move_to(folder)
    }

    fn damage(&mut self, region: RegionId, index: Option<u64>, payload: &[u8]) -> Support {
        self.0.damage(region, index, payload)
    }

    fn model_seeds(&self) -> u64 {
        self.0.model_seeds()
    }

    fn cuts(&self) -> u64 {
        self.0.cuts()
    }

    fn kills(&self) -> u64 {
        self.0.kills()
    }
}
