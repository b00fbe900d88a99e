//! All changes under way, what they add up to on each store, and those that have ended.

use std::collections::{BTreeMap, VecDeque};

use raftstore_proto::{RegionId, StoreId};

use super::operator::{Operator, OperatorReason};
use crate::{OperatorState, OrderAction};

/// No single region weighs more in sums than this, so that sums do not overflow.
const WEIGHT_MAX: u64 = 1 << 46;

/// What operators add to a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) regions: i64,
    pub(super) leaders: i64,
    /// Bytes that come, and bytes that go: what is reported of a store's space may contain
    /// either already.
    pub(super) bytes_in: i64,
    pub(super) bytes_out: i64,
    pub(super) hot_written: i64,
    pub(super) hot_led: i64,
    /// Operators for balance that touch the store.
    pub(super) moves: usize,
    /// Operators for repair that touch the store.
    pub(super) repairs: usize,
    /// Replicas that are being filled here.
    pub(super) receiving: u64,
    /// Replicas that are being filled from here.
    pub(super) sending: u64,
}

fn signed(weight: u64, sign: i64) -> i64 {
    sign * i64::try_from(weight.min(WEIGHT_MAX)).unwrap_or(i64::MAX)
}

impl Tally {
    pub(super) fn add_replica(&mut self, sign: i64, bytes: u64, hot: u64) {
        self.regions += sign;
        let side = if sign > 0 { &mut self.bytes_in } else { &mut self.bytes_out };
        *side += signed(bytes, 1);
        self.hot_written += signed(hot, sign);
    }

    pub(super) fn add_leader(&mut self, sign: i64, hot: u64) {
        self.leaders += sign;
        self.hot_led += signed(hot, sign);
    }

    pub(super) const fn add_operator(&mut self, is_repair: bool) {
        if is_repair {
            self.repairs += 1;
        } else {
            self.moves += 1;
        }
    }

    const fn add(&mut self, other: &Self) {
        self.regions += other.regions;
        self.leaders += other.leaders;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.hot_written += other.hot_written;
        self.hot_led += other.hot_led;
        self.moves += other.moves;
        self.repairs += other.repairs;
        self.receiving += other.receiving;
        self.sending += other.sending;
    }

    const fn subtract(&mut self, other: &Self) {
        self.regions -= other.regions;
        self.leaders -= other.leaders;
        self.bytes_in -= other.bytes_in;
        self.bytes_out -= other.bytes_out;
        self.hot_written -= other.hot_written;
        self.hot_led -= other.hot_led;
        self.moves -= other.moves;
        self.repairs -= other.repairs;
        self.receiving -= other.receiving;
        self.sending -= other.sending;
    }
}

/// An operator that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorRecord {
    /// The region.
    pub region: RegionId,
    /// Why it was made.
    pub reason: OperatorReason,
    /// How it ended.
    pub state: OperatorState,
    /// When it was made, in ms.
    pub started_ms: u64,
    /// When it ended, in ms.
    pub ended_ms: u64,
    /// What was ordered, repetitions left out.
    pub orders: Vec<OrderAction>,
}

#[derive(Clone, Debug)]
struct Running {
    operator: Operator,
    /// What it has added to `tallies`.
    tallies: Vec<(StoreId, Tally)>,
}

/// At most one operator for each region.
#[derive(Clone, Debug, Default)]
pub(super) struct Operators {
    running: BTreeMap<RegionId, Running>,
    /// Invariant: the sum over `running`.
    tallies: BTreeMap<StoreId, Tally>,
    /// Oldest first.
    ended: VecDeque<OperatorRecord>,
}

impl Operators {
    pub(super) fn get(&self, region: RegionId) -> Option<&Operator> {
        self.running.get(&region).map(|running| &running.operator)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Operator> {
        self.running.values().map(|running| &running.operator)
    }

    pub(super) fn tally(&self, store: StoreId) -> Tally {
        self.tallies.get(&store).copied().unwrap_or_default()
    }

    pub(super) fn ended(&self) -> impl DoubleEndedIterator<Item = &OperatorRecord> {
        self.ended.iter()
    }

    /// Enters an operator. Its region has none.
    pub(super) fn enter(&mut self, operator: Operator) {
        let tallies = operator.tallies();
        for (store, tally) in &tallies {
            self.tallies.entry(*store).or_default().add(tally);
        }
        let region = operator.region;
        let older = self.running.insert(region, Running { operator, tallies });
        debug_assert!(older.is_none(), "region {region} had an operator already");
    }

    /// Takes an operator out, so that what it adds does not count.
    pub(super) fn take(&mut self, region: RegionId) -> Option<Operator> {
        let running = self.running.remove(&region)?;
        for (store, tally) in &running.tallies {
            let sum = self.tallies.entry(*store).or_default();
            sum.subtract(tally);
            if *sum == Tally::default() {
                self.tallies.remove(store);
            }
        }
        Some(running.operator)
    }

    /// Remembers how an operator that was taken out has ended.
    pub(super) fn remember(
        &mut self,
        now_ms: u64,
        operator: Operator,
        state: OperatorState,
        history_max: usize,
    ) {
        self.ended.push_back(OperatorRecord {
            region: operator.region,
            reason: operator.reason,
            state,
            started_ms: operator.started_ms,
            ended_ms: now_ms,
            orders: operator.orders,
        });
        let surplus = self.ended.len().saturating_sub(history_max);
        self.ended.drain(..surplus);
    }
}
