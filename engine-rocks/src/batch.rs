//! A batch: operations recorded in one flat buffer, given to RocksDB when it is written.
//!
//! RocksDB's own batch would do, but for a range without an end: where it ends is known only
//! when the batch is written.

use engine_traits::{Cf, Range, WriteBatch};

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// First part: key. Second: value.
    Put,
    /// First part: key.
    Delete,
    /// First part: start. Second: end.
    DeleteRange,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    kind: Kind,
    cf: Cf,
    first_len: usize,
    second_len: usize,
}

/// One recorded operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation<'a> {
    Put {
        key: &'a [u8],
        value: &'a [u8],
    },
    Delete {
        key: &'a [u8],
    },
    /// A range that is not empty.
    DeleteRange {
        range: Range<'a>,
    },
}

/// Changes that one RocksDB write makes.
#[derive(Clone, Debug, Default)]
pub struct RocksWriteBatch {
    heads: Vec<Head>,
    /// The parts of all operations, one after another.
    bytes: Vec<u8>,
}

impl RocksWriteBatch {
    fn record(&mut self, kind: Kind, cf: Cf, first: &[u8], second: &[u8]) {
        self.bytes.extend_from_slice(first);
        self.bytes.extend_from_slice(second);
        self.heads.push(Head { kind, cf, first_len: first.len(), second_len: second.len() });
    }

    /// The operations in the order added.
    pub(crate) fn operations(&self) -> impl Iterator<Item = (Cf, Operation<'_>)> {
        let mut rest = self.bytes.as_slice();
        self.heads.iter().map(move |head| {
            let (first, tail) = rest.split_at(head.first_len);
            let (second, tail) = tail.split_at(head.second_len);
            rest = tail;
            let operation = match head.kind {
                Kind::Put => Operation::Put { key: first, value: second },
                Kind::Delete => Operation::Delete { key: first },
                Kind::DeleteRange => Operation::DeleteRange { range: Range::new(first, second) },
            };
            (head.cf, operation)
        })
    }
}

impl WriteBatch for RocksWriteBatch {
    fn put(&mut self, cf: Cf, key: &[u8], value: &[u8]) {
        self.record(Kind::Put, cf, key, value);
    }

    fn delete(&mut self, cf: Cf, key: &[u8]) {
        self.record(Kind::Delete, cf, key, b"");
    }

    fn delete_range(&mut self, cf: Cf, range: Range<'_>) {
        if !range.is_empty() {
            self.record(Kind::DeleteRange, cf, range.start, range.end);
        }
    }

    fn len(&self) -> usize {
        self.heads.len()
    }

    fn size_bytes(&self) -> usize {
        self.bytes.len()
    }
}
