//! Cuts the power of an open log, and lets its device fail, on command.

use std::fmt;
use std::sync::Arc;

use crate::engine::Core;

/// What a disk writes at once or not at all.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// What a power cut leaves of the bytes since the last sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing.
    Everything,
    /// A prefix of them, drawn from the seed.
    Suffix {
        /// Picks the prefix.
        seed: u64,
    },
    /// Any of their sectors, drawn from the seed; zeros in the place of the others.
    Scattered {
        /// Picks the sectors.
        seed: u64,
    },
}

/// A small generator (splitmix64) for choices that a seed must replay.
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`, which is not 0.
    pub(crate) const fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word ^ (word >> 31)) % limit
    }
}

/// Acts on one open log. Clones act on the same one.
#[derive(Clone)]
pub struct LogSwitch {
    pub(crate) core: Arc<Core>,
}

impl fmt::Debug for LogSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogSwitch").field("cut", &self.is_cut()).finish_non_exhaustive()
    }
}

impl LogSwitch {
    /// Loses what was not synced, as `loss` says, and releases the folder. Every later call on the
    /// log's handles fails. Does nothing the second time, or after a close.
    pub fn cut(&self, loss: Loss) {
        self.core.cut(loss);
    }

    /// Whether the power was cut, or a write failed.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.core.disk.is_dead()
    }

    /// Syncs of the device so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.core.disk.syncs()
    }

    /// Lets the power go by itself before the `operation`-th change or sync of the files from now,
    /// counted from 0: that one does not happen, and no write succeeds from then on. What is lost
    /// is decided by [`LogSwitch::cut`], which is to follow.
    pub fn cut_before(&self, operation: u64) {
        self.core.disk.cut_before(operation);
    }

    /// Lets writes fail, as on a full device, that would bring the files beyond `bytes`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.core.disk.set_capacity(bytes);
    }

    /// Lets every sync fail.
    pub fn set_failing_syncs(&self, failing: bool) {
        self.core.disk.set_failing_syncs(failing);
    }
}
