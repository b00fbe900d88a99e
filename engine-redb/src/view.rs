//! One moment of the engine: a redb read transaction with its tables held open.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use engine_traits::{Cf, Cursor, Direction, Range, Reader, Result, Snapshot};
use redb::{Database, ReadOnlyTable, ReadableDatabase, TableDefinition};

use crate::contain::contain;
use crate::cursor::RedbCursor;
use crate::engine::RedbEngine;
use crate::error::during;
use crate::record;

/// A table of a family, open for reading.
pub(crate) type ReadTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The table that holds a family.
pub(crate) const fn table(cf: Cf) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(cf.name())
}

/// Tables of one read transaction. Each holds the transaction open.
pub(crate) struct View {
    /// Indexed by [`Cf::index`].
    tables: [ReadTable; 4],
}

impl View {
    /// The latest committed state.
    pub(crate) fn open(db: &Database) -> Result<Self> {
        let transaction = db.begin_read().map_err(during("opening a snapshot"))?;
        let open = |cf| transaction.open_table(table(cf)).map_err(during("opening a table"));
        let [first, second, third, fourth] = Cf::ALL;
        Ok(Self { tables: [open(first)?, open(second)?, open(third)?, open(fourth)?] })
    }

    pub(crate) fn table(&self, cf: Cf) -> &ReadTable {
        &self.tables[cf.index()]
    }

    pub(crate) fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        contain("get", || {
            let found = self.table(cf).get(key).map_err(during("get"))?;
            let Some(found) = found else { return Ok(None) };
            record::open_copy(cf, key, found.value()).map(Some)
        })
    }
}

/// One moment of a [`RedbEngine`].
///
/// While it lives, redb cannot reuse the pages it sees: a snapshot held for long makes the
/// file grow. It also keeps the file open.
#[derive(Clone)]
pub struct RedbSnapshot {
    view: Arc<View>,
    /// Dropped after the view, whose transaction needs the open file.
    _engine: RedbEngine,
}

impl RedbSnapshot {
    pub(crate) const fn new(view: Arc<View>, engine: RedbEngine) -> Self {
        Self { view, _engine: engine }
    }
}

impl fmt::Debug for RedbSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbSnapshot").finish_non_exhaustive()
    }
}

impl Reader for RedbSnapshot {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        self.view.get(cf, key)
    }

    fn cursor<'a>(
        &'a self,
        cf: Cf,
        range: Range<'_>,
        direction: Direction,
    ) -> Result<Box<dyn Cursor + 'a>> {
        Ok(Box::new(RedbCursor::open(Arc::clone(&self.view), cf, range, direction)?))
    }
}

impl Snapshot for RedbSnapshot {}
