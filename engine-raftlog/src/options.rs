//! What an embedder may choose when it opens a log.

use engine_traits::{Error, Result};

use crate::error::NAME;

/// Settings of a [`RaftLog`](crate::RaftLog). Any of them may change from one open to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RaftLogOptions {
    /// A file is followed by the next once it has this many bytes. Space comes back in whole
    /// files, and opening reads one file more than once.
    ///
    /// From 4 KiB to 256 MiB, by default 64 MiB.
    pub file_bytes: u64,

    /// Files of this many bytes together are let grow before old ones are emptied.
    ///
    /// At least twice `file_bytes`, by default 1 GiB. Far below what the logs of all regions
    /// are allowed to hold, entries are moved over and over.
    pub purge_bytes: u64,

    /// Entries of a batch are compressed (LZ4) if they have this many bytes together; `None`
    /// never.
    ///
    /// By default `None`: payloads often come compressed, and a synced write waits for the disk
    /// and not for its width.
    pub compress_above_bytes: Option<u32>,

    /// Memory for the index of entries, in bytes: 40 for each entry stored. Above it
    /// `regions_pinning_space` names the regions with the longest logs, to have them cut. It
    /// refuses nothing.
    ///
    /// By default 256 MiB.
    pub index_bytes: u64,

    /// Threads that read files when the log is opened.
    ///
    /// From 1 to 64, by default 2.
    pub recovery_threads: usize,
}

impl Default for RaftLogOptions {
    fn default() -> Self {
        Self {
            file_bytes: 64 << 20,
            purge_bytes: 1 << 30,
            compress_above_bytes: None,
            index_bytes: 256 << 20,
            recovery_threads: 2,
        }
    }
}

impl RaftLogOptions {
    /// These with another size of files, in bytes.
    #[must_use]
    pub const fn with_file_bytes(mut self, bytes: u64) -> Self {
        self.file_bytes = bytes;
        self
    }

    /// These with another size at which old files are emptied, in bytes.
    #[must_use]
    pub const fn with_purge_bytes(mut self, bytes: u64) -> Self {
        self.purge_bytes = bytes;
        self
    }

    /// These with another size above which a batch is compressed, in bytes.
    #[must_use]
    pub const fn with_compress_above_bytes(mut self, bytes: Option<u32>) -> Self {
        self.compress_above_bytes = bytes;
        self
    }

    /// These with another size for the index, in bytes.
    #[must_use]
    pub const fn with_index_bytes(mut self, bytes: u64) -> Self {
        self.index_bytes = bytes;
        self
    }

    /// These with another number of threads for opening.
    #[must_use]
    pub const fn with_recovery_threads(mut self, threads: usize) -> Self {
        self.recovery_threads = threads;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |detail: String| {
            Err(Error::Backend { engine: NAME, op: "checking the options", source: detail.into() })
        };
        if !(4 << 10..=256 << 20).contains(&self.file_bytes) {
            return refuse(format!("file_bytes = {} is not in 4 KiB..=256 MiB", self.file_bytes));
        }
        if self.purge_bytes < 2 * self.file_bytes {
            return refuse(format!(
                "purge_bytes = {} is less than twice file_bytes = {}",
                self.purge_bytes, self.file_bytes
            ));
        }
        if self.compress_above_bytes == Some(0) {
            return refuse("compress_above_bytes = 0: say None to compress nothing".to_owned());
        }
        if !(1..=64).contains(&self.recovery_threads) {
            return refuse(format!(
                "recovery_threads = {} is not in 1..=64",
                self.recovery_threads
            ));
        }
        Ok(())
    }
}
