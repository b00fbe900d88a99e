//! What an embedder may choose when it opens a redb engine.

/// Settings of a [`RedbEngine`](crate::RedbEngine).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedbOptions {
    /// Memory for pages read and for pages not yet written, in bytes.
    ///
    /// Half of it at most holds pages of `Buffered` writes; beyond that they go to the file
    /// early, which costs time but no safety.
    pub cache_bytes: usize,
}

impl RedbOptions {
    /// Enough for the upper tree levels of some ten million rows; redb's own 1 GiB would let
    /// three stores in one process fill a small machine.
    pub const DEFAULT_CACHE_BYTES: usize = 64 << 20;

    /// The defaults with another cache size, in bytes.
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }
}

impl Default for RedbOptions {
    fn default() -> Self {
        Self { cache_bytes: Self::DEFAULT_CACHE_BYTES }
    }
}
