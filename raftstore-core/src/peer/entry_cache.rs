//! The tail of one region's log in memory: staged entries, pinned until they are durable,
//! and as many of the newest durable ones as fit.

use std::collections::VecDeque;

use raftstore_proto::Entry;

/// Entries of at most this size are copied when they are cached, so that a small entry
/// does not pin the large buffer it was received in.
const COPY_BELOW_BYTES: usize = 4 << 10;

/// Below this many entries an emptyish buffer gives memory back.
const SHRINK_BELOW: usize = 64;

/// A contiguous run of entries that ends at the log's last index, or nothing.
#[derive(Debug, Default)]
pub(crate) struct EntryCache {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl EntryCache {
    /// Index of the oldest entry held.
    pub(crate) fn first_index(&self) -> Option<u64> {
        self.entries.front().map(Entry::index)
    }

    /// Index of the newest entry held.
    pub(crate) fn last_index(&self) -> Option<u64> {
        self.entries.back().map(Entry::index)
    }

    /// The entry at `index`, if held.
    pub(crate) fn get(&self, index: u64) -> Option<&Entry> {
        let first = self.first_index()?;
        let offset = usize::try_from(index.checked_sub(first)?).ok()?;
        self.entries.get(offset)
    }

    /// Adds entries, dropping what they overwrite.
    ///
    /// # Panics
    /// If they would leave a hole.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first_new) = entries.first().map(Entry::index) else {
            return;
        };
        if let Some(first) = self.first_index() {
            if first_new <= first {
                self.clear();
            } else {
                let last = self.last_index().expect("the cache is not empty");
                assert!(first_new <= last + 1, "hole in the cache between {last} and {first_new}");
                while self.last_index().is_some_and(|last| last >= first_new) {
                    let dropped = self.entries.pop_back().expect("just seen");
                    self.bytes -= dropped.payload_len();
                }
            }
        }
        for entry in entries {
            self.bytes += entry.payload_len();
            self.entries.push_back(unpinned(entry));
        }
    }

    /// Gives up the oldest entries until at most `count` are held, but none above `durable`.
    pub(crate) fn trim(&mut self, count: usize, durable: u64) {
        while self.entries.len() > count && self.first_index().is_some_and(|i| i <= durable) {
            let dropped = self.entries.pop_front().expect("longer than count");
            self.bytes -= dropped.payload_len();
        }
        self.shrink();
    }

    /// Gives up the entries strictly below `index`, but none above `durable`.
    pub(crate) fn compact(&mut self, index: u64, durable: u64) {
        while self.first_index().is_some_and(|first| first < index && first <= durable) {
            let dropped = self.entries.pop_front().expect("it has a first");
            self.bytes -= dropped.payload_len();
        }
        self.shrink();
    }

    /// Gives up everything.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
        self.shrink();
    }

    fn shrink(&mut self) {
        if self.entries.len() < SHRINK_BELOW && self.entries.capacity() > 4 * SHRINK_BELOW {
            self.entries.shrink_to(SHRINK_BELOW);
        }
        if self.entries.is_empty() {
            self.entries.shrink_to_fit();
        }
    }
}

/// The same entry in memory of its own if it is small.
fn unpinned(entry: &Entry) -> Entry {
    if entry.data().is_empty() || entry.data().len() >= COPY_BELOW_BYTES {
        return entry.clone();
    }
    let mut raft = entry.as_raft().clone();
    raft.data = bytes::Bytes::copy_from_slice(entry.data());
    raft.context = bytes::Bytes::copy_from_slice(&raft.context);
    Entry::from_raft(raft)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft::eraftpb;

    use super::*;

    fn entries(range: std::ops::Range<u64>, term: u64) -> Vec<Entry> {
        range
            .map(|index| {
                let data = vec![0; 10].into();
                Entry::from_raft(eraftpb::Entry { index, term, data, ..Default::default() })
            })
            .collect()
    }

    #[test]
    fn an_overlapping_append_replaces_the_tail() {
        let mut cache = EntryCache::default();
        cache.append(&entries(5..10, 1));
        cache.append(&entries(7..9, 2));
        assert_eq!((cache.first_index(), cache.last_index()), (Some(5), Some(8)));
        assert_eq!(cache.get(6).map(Entry::term), Some(1));
        assert_eq!(cache.get(7).map(Entry::term), Some(2));
        assert_eq!(cache.get(9), None);
        assert_eq!(cache.bytes, 40);
    }

    /// A small entry pins nothing, and is the same in every part; a large one is not copied.
    #[test]
    fn small_entries_are_copied_whole() {
        for (length, is_copied) in [(10, true), (COPY_BELOW_BYTES, false)] {
            let received = Bytes::from(vec![7; length + 5]);
            let entry = Entry::from_raft(eraftpb::Entry {
                entry_type: eraftpb::EntryType::EntryConfChange,
                index: 3,
                term: 2,
                data: received.slice(..length),
                context: received.slice(length..),
                ..eraftpb::Entry::default()
            });
            let mut cache = EntryCache::default();
            cache.append(std::slice::from_ref(&entry));
            let kept = cache.get(3).expect("it was put there");
            assert_eq!(kept.as_raft(), entry.as_raft());
            assert_ne!(kept.data().as_ptr() == entry.data().as_ptr(), is_copied);
        }
    }

    #[test]
    fn an_append_at_or_below_the_first_replaces_all() {
        let mut cache = EntryCache::default();
        cache.append(&entries(5..10, 1));
        cache.append(&entries(3..5, 2));
        assert_eq!((cache.first_index(), cache.last_index()), (Some(3), Some(4)));
    }

    #[test]
    #[should_panic(expected = "hole in the cache")]
    fn a_hole_is_a_bug() {
        let mut cache = EntryCache::default();
        cache.append(&entries(5..10, 1));
        cache.append(&entries(11..12, 1));
    }

    /// H65: compaction drops strictly below the index, and down to nothing.
    #[test]
    fn compaction_is_exact_and_spares_what_is_not_durable() {
        let mut cache = EntryCache::default();
        cache.append(&entries(5..10, 1));
        cache.compact(7, 100);
        assert_eq!(cache.first_index(), Some(7));
        cache.compact(10, 8);
        assert_eq!(cache.first_index(), Some(9));
        cache.compact(10, 9);
        assert_eq!((cache.first_index(), cache.bytes), (None, 0));
    }

    #[test]
    fn trimming_spares_staged_entries() {
        let mut cache = EntryCache::default();
        cache.append(&entries(1..11, 1));
        cache.trim(3, 5);
        assert_eq!(cache.first_index(), Some(6));
        cache.trim(3, 10);
        assert_eq!(cache.first_index(), Some(8));
    }
}
