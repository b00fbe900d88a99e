//! What an embedder may choose when it opens a database.

use engine_traits::{Error, Result};
use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options};

use crate::error::NAME;

/// Settings of a [`RocksEngine`](crate::RocksEngine). Any of them may change from one open to the
/// next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RocksOptions {
    /// Memory for blocks read, in bytes, shared by all families.
    ///
    /// By default 64 MiB.
    pub cache_bytes: usize,

    /// Memory for rows not yet in files, in bytes per family. A full one goes to a file.
    ///
    /// At least 64 KiB, by default 32 MiB.
    pub write_buffer_bytes: usize,

    /// Threads for flushes and compactions.
    ///
    /// From 1 to 64, by default 2.
    pub background_jobs: u16,

    /// Bits per key of the filters that spare lookups of absent keys; 0 for none.
    ///
    /// At most 64, by default 10, with which one lookup in a hundred is not spared.
    pub filter_bits: u8,

    /// Whether blocks are compressed (LZ4).
    ///
    /// By default they are.
    pub compressed: bool,

    /// Whether writes go to a write-ahead log first.
    ///
    /// Without it nothing is written twice, buffered writes cost no I/O of their own, and a sync
    /// writes the rows of all families to files, as one: right for a store's data, which is
    /// written again from the raft log and synced only before that is cut. A synced *write* is
    /// dear then, so not for raft logs.
    ///
    /// By default there is one.
    pub write_ahead_log: bool,

    /// Any other options of RocksDB, in its own words: `name=value;name=value`, as
    /// `rocksdb::Options::get_options_from_string` takes them. Nested ones go in braces, for
    /// instance `block_based_table_factory={block_size=8192}`, which leaves what is not named in
    /// them as it was. They come after everything above; what the contract of an engine rests on
    /// (how the log is recovered, flushes of all families as one) is set after them.
    ///
    /// By default empty.
    pub native: String,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            write_buffer_bytes: 32 << 20,
            background_jobs: 2,
            filter_bits: 10,
            compressed: true,
            write_ahead_log: true,
            native: String::new(),
        }
    }
}

impl RocksOptions {
    /// These with another size of the cache, in bytes.
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// These with another size of write buffers, in bytes per family.
    #[must_use]
    pub fn with_write_buffer_bytes(mut self, bytes: usize) -> Self {
        self.write_buffer_bytes = bytes;
        self
    }

    /// These with another number of background threads.
    #[must_use]
    pub fn with_background_jobs(mut self, jobs: u16) -> Self {
        self.background_jobs = jobs;
        self
    }

    /// These with other filters, in bits per key.
    #[must_use]
    pub fn with_filter_bits(mut self, bits: u8) -> Self {
        self.filter_bits = bits;
        self
    }

    /// These with blocks compressed or not.
    #[must_use]
    pub fn with_compressed(mut self, compressed: bool) -> Self {
        self.compressed = compressed;
        self
    }

    /// These with a write-ahead log or without.
    #[must_use]
    pub fn with_write_ahead_log(mut self, log: bool) -> Self {
        self.write_ahead_log = log;
        self
    }

    /// These with options of RocksDB in its own words.
    #[must_use]
    pub fn with_native(mut self, native: impl Into<String>) -> Self {
        self.native = native.into();
        self
    }

    fn refuse(detail: String) -> Error {
        Error::Backend { engine: NAME, op: "checking the options", source: detail.into() }
    }

    fn check(&self) -> Result<()> {
        if self.write_buffer_bytes < 64 << 10 {
            let bytes = self.write_buffer_bytes;
            return Err(Self::refuse(format!("write_buffer_bytes = {bytes} is below 64 KiB")));
        }
        if !(1..=64).contains(&self.background_jobs) {
            let jobs = self.background_jobs;
            return Err(Self::refuse(format!("background_jobs = {jobs} is not in 1..=64")));
        }
        if self.filter_bits > 64 {
            return Err(Self::refuse(format!("filter_bits = {} is above 64", self.filter_bits)));
        }
        Ok(())
    }

    /// These in RocksDB's form, for the database and for each family alike.
    pub(crate) fn to_native(&self) -> Result<Options> {
        self.check()?;
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(self.cache_bytes));
        if self.filter_bits > 0 {
            blocks.set_bloom_filter(f64::from(self.filter_bits), false);
        }
        let mut options = Options::default();
        options.set_block_based_table_factory(&blocks);
        options.set_write_buffer_size(self.write_buffer_bytes);
        options.set_max_background_jobs(i32::from(self.background_jobs));
        options.set_compression_type(match self.compressed {
            true => DBCompressionType::Lz4,
            false => DBCompressionType::None,
        });
        // Logs that are closed and synced are named, so that one that is missing is noticed.
        let native = format!("track_and_verify_wals_in_manifest=true;{}", self.native);
        let mut options = options
            .get_options_from_string(native)
            .map_err(|error| Self::refuse(format!("native = \"{}\": {error}", self.native)))?;
        options.create_missing_column_families(true);
        // A torn last record was never acknowledged. Damage before it is damage: the mode that
        // RocksDB has by default would drop all that follows it without a word.
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_atomic_flush(!self.write_ahead_log);
        Ok(options)
    }
}
