//! Decides what happens next: a queue ordered by time, then by the order of scheduling.

use std::{cmp::Reverse, collections::BinaryHeap};

/// A moment or a span of simulated time, in nanoseconds.
pub type Nanos = u64;

/// One microsecond.
pub const MICRO: Nanos = 1_000;
/// One millisecond.
pub const MILLI: Nanos = 1_000_000;
/// One second.
pub const SECOND: Nanos = 1_000_000_000;

/// Things to happen, the earliest first; of one moment, the first scheduled first.
///
/// The heap orders small keys; the things themselves, which are large, stay where they are.
#[derive(Debug)]
pub struct Queue<T> {
    /// Time, order of scheduling, place in `things`.
    heap: BinaryHeap<Reverse<(Nanos, u64, usize)>>,
    things: Vec<Option<T>>,
    free: Vec<usize>,
    next_sequence: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), things: Vec::new(), free: Vec::new(), next_sequence: 0 }
    }
}

impl<T> Queue<T> {
    /// Adds something that happens at `at`.
    pub fn schedule(&mut self, at: Nanos, what: T) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let place = if let Some(place) = self.free.pop() {
            self.things[place] = Some(what);
            place
        } else {
            self.things.push(Some(what));
            self.things.len() - 1
        };
        self.heap.push(Reverse((at, sequence, place)));
    }

    /// When the next thing happens.
    #[must_use]
    pub fn next_at(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes the next thing and its time.
    pub fn pop(&mut self) -> Option<(Nanos, T)> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        self.things[place].take().map(|what| (at, what))
    }

    /// How many things wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earliest_first_and_ties_in_order_of_scheduling() {
        let mut queue = Queue::default();
        queue.schedule(5, "b");
        queue.schedule(3, "a");
        queue.schedule(5, "c");
        assert_eq!(queue.next_at(), Some(3));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [(3, "a"), (5, "b"), (5, "c")]);
        assert!(queue.is_empty());
    }
}
