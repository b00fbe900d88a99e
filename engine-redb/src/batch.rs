//! A batch: operations recorded in one flat buffer, replayed in the order added.

use engine_traits::{Cf, Range, WriteBatch};

use crate::record;

/// What an operation does. Two numbers follow in the buffer's index: the lengths of its parts.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// First part: key. Second: value and checksum.
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

/// One recorded operation, as the engine replays it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation<'a> {
    /// Store `stored`, which is a value with its checksum.
    Put { key: &'a [u8], stored: &'a [u8] },
    /// Remove one key.
    Delete { key: &'a [u8] },
    /// Remove a range that is not empty.
    DeleteRange { range: Range<'a> },
}

/// Changes that one redb transaction makes.
///
/// Checksums are computed when a value is put, so that damage to the batch's own memory
/// before the write is noticed too.
#[derive(Clone, Debug, Default)]
pub struct RedbWriteBatch {
    heads: Vec<Head>,
    /// The parts of all operations, one after another.
    bytes: Vec<u8>,
}

impl RedbWriteBatch {
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
                Kind::Put => Operation::Put { key: first, stored: second },
                Kind::Delete => Operation::Delete { key: first },
                Kind::DeleteRange => Operation::DeleteRange { range: Range::new(first, second) },
            };
            (head.cf, operation)
        })
    }
}

impl WriteBatch for RedbWriteBatch {
    fn put(&mut self, cf: Cf, key: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.reserve(key.len() + value.len() + record::SUM_LEN);
        self.record(Kind::Put, cf, key, value);
        let sum = record::sum_joined(cf, key, &self.bytes[start..]);
        self.bytes.extend_from_slice(&sum.to_le_bytes());
        if let Some(head) = self.heads.last_mut() {
            head.second_len += record::SUM_LEN;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_come_back_in_the_order_added() {
        let mut batch = RedbWriteBatch::default();
        batch.put(Cf::Default, b"a", b"1");
        batch.delete_range(Cf::Lock, Range::new(b"b", b""));
        batch.delete_range(Cf::Lock, Range::new(b"c", b"c"));
        batch.delete(Cf::Write, b"");
        batch.put(Cf::Raft, b"", b"");
        let seen: Vec<String> = batch
            .operations()
            .map(|(cf, operation)| format!("{} {operation:?}", cf.name()))
            .collect();
        assert_eq!(seen.len(), 4, "an empty range is no operation");
        assert_eq!(batch.len(), 4);
        assert!(seen[0].starts_with("default Put { key: [97], stored: [49,"), "{}", seen[0]);
        assert!(seen[1].starts_with("lock DeleteRange"), "{}", seen[1]);
        assert_eq!(seen[2], "write Delete { key: [] }");
        assert!(seen[3].starts_with("raft Put { key: []"), "{}", seen[3]);
    }
}
