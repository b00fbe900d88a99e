//! One moment of the engine: a RocksDB snapshot beside the database that it needs.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use engine_traits::{Cf, Cursor, Direction, Range, Reader, Result, Snapshot};
use rocksdb::{DB, SnapshotWithThreadMode};

use crate::cursor::{RocksCursor, bounded};
use crate::engine::family;
use crate::error::during;

/// One moment of a [`RocksEngine`](crate::RocksEngine). Keeps the database open.
pub struct RocksSnapshot {
    /// Borrows from `db`. Fields are dropped in their order, so this goes first.
    /// Invariant: nothing that borrows from it is handed out for longer than `&self`.
    snapshot: SnapshotWithThreadMode<'static, DB>,
    db: Arc<DB>,
}

impl RocksSnapshot {
    #[expect(
        unsafe_code,
        reason = "a snapshot that owns a share of its database borrows from itself"
    )]
    pub(crate) fn new(db: Arc<DB>) -> Self {
        // SAFETY: the database lives on the heap behind the `Arc`, so moving this value does
        // not move it, and the share held in `db` keeps it alive until after `snapshot` is
        // dropped. Nobody gets a mutable reference to it: an `Arc` gives shared ones only, and
        // `Arc::get_mut` fails while this share exists. The extended lifetime stays in this
        // private field; what is made from it borrows from `&self`.
        let borrowed: &'static DB = unsafe { &*Arc::as_ptr(&db) };
        Self { snapshot: borrowed.snapshot(), db }
    }
}

impl fmt::Debug for RocksSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksSnapshot").finish_non_exhaustive()
    }
}

impl Reader for RocksSnapshot {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        let family = family(&self.db, cf)?;
        let found = self.snapshot.get_pinned_cf(family, key).map_err(during("get"))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn cursor<'a>(
        &'a self,
        cf: Cf,
        range: Range<'_>,
        direction: Direction,
    ) -> Result<Box<dyn Cursor + 'a>> {
        let family = family(&self.db, cf)?;
        let rows =
            (!range.is_empty()).then(|| self.snapshot.raw_iterator_cf_opt(family, bounded(range)));
        Ok(Box::new(RocksCursor::new(rows, range, direction)))
    }
}

impl Snapshot for RocksSnapshot {}
