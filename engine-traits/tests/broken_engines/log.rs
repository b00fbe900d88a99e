//! Broken log engines: thin wrappers around the reference log.

use engine_traits::conformance::{RaftLogFixture, Support, run_raft_log};
use engine_traits::mem::{Leaves, LogOp, MemLogBatch, MemRaftLog};
use engine_traits::{Durability, Error, LogStats, RaftEngine, RaftLogBatch, Result};
use raftstore_proto::{Entry, LocalState, RegionId};

/// What is wrong with the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// An append inside the log leaves what lies above its last entry.
    AppendKeepsTheOldSuffix,
    /// A batch with a hole is accepted, and what it says is forgotten.
    HolesAreAccepted,
    /// A batch with a hole is refused, after half of it was written.
    RefusedBatchIsHalfWritten,
    /// A batch is refused for a hole although it clears the region first.
    ClearIsNotSeenByAppend,
    /// `entries` pays no heed to its limit.
    LimitIsIgnored,
    /// `entries` gives nothing if the first entry is over the limit.
    FirstEntryIsHeldBack,
    /// `entries` goes one too far.
    HighIsInclusive,
    /// `entries` throws away what the output held.
    OutputIsCleared,
    /// `entries` steps over missing entries at its start.
    MissingStartIsSkipped,
    /// A truncation takes one entry too many.
    TruncationTakesOneMore,
    /// A truncation takes one entry too few.
    TruncationLeavesOne,
    /// Clearing a region leaves its state.
    ClearLeavesTheState,
    /// The state is another region's.
    StateIsOfAnotherRegion,
    /// `regions` forgets those without entries.
    RegionsNeedEntries,
    /// `regions` is in no order.
    RegionsAreUnsorted,
    /// A batch's clears run after everything else.
    ClearRunsLast,
    /// What cannot be read is absent.
    DamageIsAbsence,
    /// `sync` does nothing.
    SyncIsForgotten,
    /// A synced write is a buffered one.
    SyncedWriteIsBuffered,
    /// An empty synced batch is skipped.
    EmptySyncedBatchIsSkipped,
    /// A power cut keeps part of a batch.
    BatchIsTorn,
    /// Regions are said to pin space that have gone.
    PinningRegionsAreGone,
    /// Syncs are counted once.
    SyncsAreCountedOnce,
}

#[derive(Clone)]
struct Broken {
    bug: Bug,
    inner: MemRaftLog,
}

fn replay(engine: &MemRaftLog, ops: &[LogOp], durability: Durability) -> Result<()> {
    let mut batch = engine.log_batch();
    for op in ops {
        match op {
            LogOp::Append(region, entries) => batch.append(*region, entries),
            LogOp::TruncatePrefix(region, index) => batch.truncate_prefix(*region, *index),
            LogOp::PutRaftState(region, state) => batch.put_raft_state(*region, state),
            LogOp::ClearRegion(region) => batch.clear_region(*region),
        }
    }
    engine.write(batch, durability)
}

impl Broken {
    fn mangle(&self, ops: &[LogOp]) -> Result<Vec<LogOp>> {
        let mut mangled = Vec::new();
        for op in ops {
            let op = op.clone();
            match (self.bug, &op) {
                (Bug::AppendKeepsTheOldSuffix, LogOp::Append(region, entries)) => {
                    let above = entries.last().map_or(0, |entry| entry.index() + 1);
                    let mut suffix = Vec::new();
                    self.inner.entries(*region, above, u64::MAX, u64::MAX, &mut suffix)?;
                    let region = *region;
                    mangled.extend([op, LogOp::Append(region, suffix)]);
                }
                (Bug::TruncationTakesOneMore, LogOp::TruncatePrefix(region, index)) => {
                    mangled.push(LogOp::TruncatePrefix(*region, index.saturating_add(1)));
                }
                (Bug::TruncationLeavesOne, LogOp::TruncatePrefix(region, index)) => {
                    mangled.push(LogOp::TruncatePrefix(*region, index.saturating_sub(1)));
                }
                (Bug::ClearLeavesTheState, LogOp::ClearRegion(region)) => {
                    let state = self.inner.raft_state(*region)?;
                    let region = *region;
                    mangled.push(op);
                    mangled.extend(state.map(|state| LogOp::PutRaftState(region, state)));
                }
                _ => mangled.push(op),
            }
        }
        if self.bug == Bug::ClearRunsLast {
            mangled.sort_by_key(|op| matches!(op, LogOp::ClearRegion(_)));
        }
        Ok(mangled)
    }

    fn absent<T>(&self, read: Result<Option<T>>) -> Result<Option<T>> {
        match read {
            Err(Error::CorruptLog { .. }) if self.bug == Bug::DamageIsAbsence => Ok(None),
            other => other,
        }
    }

    fn hidden_hole(&self, ops: &[LogOp]) -> bool {
        self.bug == Bug::ClearIsNotSeenByAppend
            && ops.windows(2).any(|pair| {
                matches!(pair, [LogOp::ClearRegion(cleared), LogOp::Append(region, _)]
                    if cleared == region)
            })
    }
}

impl RaftEngine for Broken {
    type LogBatch = MemLogBatch;

    fn name(&self) -> &'static str {
        "broken-log"
    }

    fn raft_state(&self, region: RegionId) -> Result<Option<LocalState>> {
        let region = match (self.bug, self.inner.regions()?.first()) {
            (Bug::StateIsOfAnotherRegion, Some(first)) => *first,
            _ => region,
        };
        self.absent(self.inner.raft_state(region))
    }

    fn entry(&self, region: RegionId, index: u64) -> Result<Option<Entry>> {
        self.absent(self.inner.entry(region, index))
    }

    fn entries(
        &self,
        region: RegionId,
        mut low: u64,
        mut high: u64,
        mut max_bytes: u64,
        out: &mut Vec<Entry>,
    ) -> Result<usize> {
        match self.bug {
            Bug::LimitIsIgnored => max_bytes = u64::MAX,
            Bug::HighIsInclusive => high = high.saturating_add(1),
            Bug::OutputIsCleared => out.clear(),
            Bug::FirstEntryIsHeldBack => {
                let first = self.inner.entry(region, low)?;
                if first.is_some_and(|entry| entry.payload_len() as u64 > max_bytes) {
                    return Ok(0);
                }
            }
            Bug::MissingStartIsSkipped => {
                while low < high && self.inner.entry(region, low)?.is_none() {
                    low += 1;
                }
            }
            _ => {}
        }
        self.inner.entries(region, low, high, max_bytes, out)
    }

    fn regions(&self) -> Result<Vec<RegionId>> {
        let mut regions = self.inner.regions()?;
        match self.bug {
            Bug::RegionsAreUnsorted => regions.reverse(),
            Bug::RegionsNeedEntries => {
                let has_entry = |region: &RegionId| {
                    (0..200).any(|index| matches!(self.inner.entry(*region, index), Ok(Some(_))))
                };
                regions.retain(has_entry);
            }
            _ => {}
        }
        Ok(regions)
    }

    fn log_batch(&self) -> MemLogBatch {
        MemLogBatch::default()
    }

    fn write(&self, batch: MemLogBatch, durability: Durability) -> Result<()> {
        let durability = match self.bug {
            Bug::SyncedWriteIsBuffered => Durability::Buffered,
            Bug::EmptySyncedBatchIsSkipped if batch.is_empty() => Durability::Buffered,
            _ => durability,
        };
        if self.hidden_hole(batch.ops()) {
            let detail = "an append after a clear".to_owned();
            return Err(Error::InvalidBatch { engine: self.name(), detail });
        }
        let ops = self.mangle(batch.ops())?;
        match self.bug {
            Bug::BatchIsTorn | Bug::RefusedBatchIsHalfWritten => {
                for op in &ops {
                    replay(&self.inner, std::slice::from_ref(op), Durability::Buffered)?;
                }
                replay(&self.inner, &[], durability)
            }
            Bug::HolesAreAccepted => match replay(&self.inner, &ops, durability) {
                Err(Error::InvalidBatch { .. }) => Ok(()),
                other => other,
            },
            _ => replay(&self.inner, &ops, durability),
        }
    }

    fn regions_pinning_space(&self) -> Vec<RegionId> {
        match self.bug {
            Bug::PinningRegionsAreGone => vec![RegionId::must(77)],
            _ => self.inner.regions_pinning_space(),
        }
    }

    fn stats(&self) -> LogStats {
        let stats = self.inner.stats();
        match self.bug {
            Bug::SyncsAreCountedOnce => LogStats { syncs: stats.syncs.min(1), ..stats },
            _ => stats,
        }
    }

    fn sync(&self) -> Result<()> {
        if self.bug == Bug::SyncIsForgotten { Ok(()) } else { self.inner.sync() }
    }
}

struct BrokenFixture {
    bug: Bug,
    inner: MemRaftLog,
}

impl BrokenFixture {
    fn new(bug: Bug) -> Self {
        Self { bug, inner: MemRaftLog::new() }
    }
}

impl RaftLogFixture for BrokenFixture {
    type Engine = Broken;

    fn open(&mut self) -> Result<Broken> {
        self.inner = self.inner.reopen();
        Ok(Broken { bug: self.bug, inner: self.inner.clone() })
    }

    fn power_cut(&mut self, engine: Broken, keep: usize) -> Support {
        engine.inner.crash(keep);
        Support::Done
    }

    fn cut_before(&mut self, operation: u64) -> Support {
        self.inner.faults().fail_write(operation + 1, Leaves::Nothing);
        Support::Done
    }

    fn damage(&mut self, region: RegionId, index: Option<u64>, _payload: &[u8]) -> Support {
        match index {
            Some(index) => self.inner.damage_entry(region, index),
            None => self.inner.damage_raft_state(region),
        };
        Support::Done
    }

    fn model_seeds(&self) -> u64 {
        3
    }

    fn cuts(&self) -> u64 {
        60
    }
}

#[test]
fn wrapper_without_a_bug_passes() {
    let report = run_raft_log(|| BrokenFixture::new(Bug::None));
    assert!(report.passed(), "{report}");
    assert_eq!(report.skipped(), ["killed_process_leaves_a_log_prefix"]);
}

macro_rules! caught {
    ($($name:ident: $bug:ident by $case:literal;)*) => {
        $(
            #[test]
            fn $name() {
                let report = run_raft_log(|| BrokenFixture::new(Bug::$bug));
                assert!(report.failed().contains(&$case), "not noticed by {}:\n{report}", $case);
            }
        )*
    };
}

caught! {
    append_keeps_the_old_suffix: AppendKeepsTheOldSuffix by "append_replaces_the_suffix";
    holes_are_accepted: HolesAreAccepted by "append_that_leaves_a_hole_is_refused";
    refused_batch_is_half_written: RefusedBatchIsHalfWritten by "refused_batch_leaves_nothing";
    clear_is_not_seen_by_append:
        ClearIsNotSeenByAppend by "append_to_an_emptied_log_starts_anywhere";
    limit_is_ignored: LimitIsIgnored by "entries_keep_the_limit";
    first_entry_is_held_back: FirstEntryIsHeldBack by "first_entry_is_always_given";
    high_is_inclusive: HighIsInclusive by "entries_are_half_open";
    output_is_cleared: OutputIsCleared by "entries_are_added_to_the_output";
    missing_start_is_skipped: MissingStartIsSkipped by "entries_stop_where_the_log_does";
    truncation_takes_one_more: TruncationTakesOneMore by "truncation_removes_what_is_below";
    truncation_leaves_one: TruncationLeavesOne by "truncation_removes_what_is_below";
    clear_leaves_the_state: ClearLeavesTheState by "cleared_region_is_forgotten";
    state_is_of_another_region: StateIsOfAnotherRegion by "raft_state_is_read_back";
    regions_need_entries: RegionsNeedEntries by "regions_are_listed_ascending";
    regions_are_unsorted: RegionsAreUnsorted by "regions_are_listed_ascending";
    clear_runs_last: ClearRunsLast by "log_batch_keeps_its_order";
    damage_is_absence: DamageIsAbsence by "damaged_entry_is_an_error";
    sync_is_forgotten: SyncIsForgotten by "every_sync_takes_earlier_appends_along";
    synced_write_is_buffered: SyncedWriteIsBuffered by "synced_append_survives_a_power_cut";
    empty_synced_batch_is_skipped:
        EmptySyncedBatchIsSkipped by "empty_synced_log_batch_is_a_sync";
    batch_is_torn: BatchIsTorn by "power_cut_never_tears_a_log_batch";
    batch_is_torn_within: BatchIsTorn by "every_device_operation_keeps_a_log_prefix";
    pinning_regions_are_gone: PinningRegionsAreGone by "pinning_regions_are_stored";
    syncs_are_counted_once: SyncsAreCountedOnce by "log_stats_count_what_they_name";
}
