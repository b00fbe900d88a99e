//! Conditional writes. One that took effect is a write, and whatever came of it, it tells
//! what the key held: a read.

use bytes::Bytes;
use raftstore_proto::{Cf, CompareAndSwap};

use super::{Call, Kind, What, table_of, value_bytes, value_of};
use crate::{
    counters::Sometimes,
    invariants::Violation,
    oracle::{Action, Outcome},
    world::World,
};

impl World {
    /// Writes, be it on a condition or not.
    pub(super) fn begin_put_or_swap(&mut self, key: Bytes, padding: usize) {
        if self.clients.rng.chance(200) {
            self.begin_swap(key, padding);
        } else {
            self.begin_write(key, padding);
        }
    }

    /// Writes if the key holds what was last sent for it. What it held is recorded as a read.
    fn begin_swap(&mut self, key: Bytes, padding: usize) {
        let value = (table_of(&key) << 40) | (self.clients.next_call + 1);
        let new = value_bytes(value, padding);
        let expected = self.clients.sent.insert(key.clone(), new.clone());
        let swap = CompareAndSwap { cf: Cf::Default, key: key.clone(), expected, new: Some(new) };
        let recorded = [(key.clone(), Action::Write(value)), (key, Action::Read(0))];
        self.begin(Kind::Write, What::Swap(Box::new(swap)), &recorded);
    }

    pub(super) fn finish_swap(&mut self, call: &Call, swapped: bool, previous: Option<&Bytes>) {
        let is_as_expected = match &call.what {
            What::Swap(swap) => swap.expected.as_ref() == previous,
            _ => !swapped,
        };
        if swapped != is_as_expected {
            return self.fail(Violation::new(
                "a condition decides",
                format!("{:?} found {previous:?} and says {swapped}", call.what),
            ));
        }
        self.counters.hit(if swapped { Sometimes::Swaps } else { Sometimes::SwapsMissed });
        if let [write, read] = call.recorded.as_slice() {
            let outcome = if swapped { Outcome::Done(self.now) } else { Outcome::Refused };
            self.history.end(write, outcome);
            self.history.end_read(read, value_of(previous), self.now);
        }
    }
}
