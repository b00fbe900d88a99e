//! Broken data engines: thin wrappers around the reference engine.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use engine_traits::conformance::{KvFixture, Support, run_kv};
use engine_traits::mem::{Leaves, MemBatch, MemEngine, MemSnapshot, Op};
use engine_traits::{
    Cf, Cursor, Direction, Durability, EngineStats, KvEngine, Range, Reader, Result, Snapshot,
    WriteBatch,
};

/// What is wrong with the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// Deleting a range takes its end too.
    DeleteRangeTakesItsEnd,
    /// Deleting a range leaves its start.
    DeleteRangeLeavesItsStart,
    /// Range deletions of a batch run before everything else of it.
    DeleteRangeRunsFirst,
    /// Range deletions of a batch run after everything else of it.
    DeleteRangeRunsLast,
    /// Operations of a batch run in reverse.
    BatchRunsBackwards,
    /// Two families share their keys.
    FamiliesAreMixedUp,
    /// A snapshot reads the live engine.
    SnapshotSeesLaterWrites,
    /// A snapshot's gets are of its moment, its cursors are not.
    SnapshotCursorSeesLaterWrites,
    /// A snapshot fixes its moment per family, when the family is first read.
    SnapshotFixesFamiliesLate,
    /// A backward walk forgets its last row.
    BackwardWalkMissesTheLast,
    /// A walk does not stop at its end.
    WalkLeaksBeyondTheEnd,
    /// A seek leaves the range.
    SeekIsNotClamped,
    /// A seek to a key between two rows lands on the wrong side of it.
    BackwardSeekLandsAbove,
    /// A seek does not wake a cursor that has ended.
    SeekLeavesCursorEnded,
    /// A cursor that has ended starts again.
    EndedCursorStartsAgain,
    /// A reversed range panics, as that of many maps does.
    ReversedRangePanics,
    /// A cursor of the engine looks at the live rows at each step.
    CursorSeesManyMoments,
    /// `get` of an empty value is `None`.
    EmptyValueIsNone,
    /// `get` of what cannot be read is `None`.
    GetSwallowsErrors,
    /// A walk ends at what cannot be read.
    WalkSwallowsErrors,
    /// `sync` does nothing.
    SyncIsForgotten,
    /// A synced write is a buffered one.
    SyncedWriteIsBuffered,
    /// An empty synced batch is skipped.
    EmptySyncedBatchIsSkipped,
    /// A synced write makes itself durable, but not what was written before.
    SyncedWriteLeavesEarlierOnes,
    /// A power cut keeps part of a batch.
    BatchIsTorn,
    /// A power cut loses a write and keeps a later one.
    MiddleWriteIsLost,
    /// A size is that of the whole family, whatever the range.
    SizeIgnoresTheRange,
    /// A size is never more than the limit.
    SizeStopsBelowTheLimit,
    /// Ingestion forgets its last row.
    IngestionForgetsTheLast,
    /// Ingestion replaces what is there, as if it were older.
    IngestionIsOverwrittenByTheOld,
    /// Compaction empties its range.
    CompactionEmptiesTheRange,
    /// Syncs are counted once.
    SyncsAreCountedOnce,
    /// A power cut keeps what it should, but loses it at the next one.
    SurvivorsAreNotDurable,
}

/// A batch, and whether it is durable.
type Written = (Vec<Op>, bool);

#[derive(Clone)]
struct Broken {
    bug: Bug,
    inner: MemEngine,
    /// The batches since the engine was opened, and whether they are durable.
    written: Arc<Mutex<Vec<Written>>>,
}

fn replay(engine: &MemEngine, ops: &[Op], durability: Durability) -> Result<()> {
    let mut batch = engine.write_batch();
    for op in ops {
        match op {
            Op::Put(cf, key, value) => batch.put(*cf, key, value),
            Op::Delete(cf, key) => batch.delete(*cf, key),
            Op::DeleteRange(cf, start, end) => batch.delete_range(*cf, Range::new(start, end)),
        }
    }
    engine.write(batch, durability)
}

fn family(op: &Op) -> Cf {
    match op {
        Op::Put(cf, ..) | Op::Delete(cf, _) | Op::DeleteRange(cf, ..) => *cf,
    }
}

fn is_range(op: &Op) -> bool {
    matches!(op, Op::DeleteRange(..))
}

impl Broken {
    fn mangle(&self, ops: &[Op]) -> Vec<Op> {
        let mut ops = ops.to_vec();
        match self.bug {
            Bug::BatchRunsBackwards => ops.reverse(),
            Bug::DeleteRangeRunsFirst => ops.sort_by_key(|op| !is_range(op)),
            Bug::DeleteRangeRunsLast => ops.sort_by_key(is_range),
            _ => {}
        }
        for op in &mut ops {
            match (self.bug, op) {
                (Bug::DeleteRangeTakesItsEnd, Op::DeleteRange(_, start, end)) => {
                    let takes = !end.is_empty() && start < end;
                    let beyond = if takes { &b"\0"[..] } else { b"" };
                    *end = [end, beyond].concat().into();
                }
                (Bug::DeleteRangeLeavesItsStart, Op::DeleteRange(_, start, _)) => {
                    *start = [start, &b"\0"[..]].concat().into();
                }
                (
                    Bug::FamiliesAreMixedUp,
                    Op::Put(cf, ..) | Op::Delete(cf, _) | Op::DeleteRange(cf, ..),
                ) => *cf = mixed_up(*cf),
                _ => {}
            }
        }
        ops
    }
}

fn mixed_up(cf: Cf) -> Cf {
    if cf == Cf::Write { Cf::Lock } else { cf }
}

/// `get` and `cursor` of both readers.
fn broken_get(bug: Bug, reader: &impl Reader, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
    let cf = if bug == Bug::FamiliesAreMixedUp { mixed_up(cf) } else { cf };
    match (bug, reader.get(cf, key)) {
        (Bug::GetSwallowsErrors, Err(_)) => Ok(None),
        (Bug::EmptyValueIsNone, Ok(value)) => Ok(value.filter(|value| !value.is_empty())),
        (_, other) => other,
    }
}

fn broken_cursor<'a>(
    bug: Bug,
    reader: &'a dyn Reader,
    cf: Cf,
    range: Range<'_>,
    direction: Direction,
) -> Result<Box<dyn Cursor + 'a>> {
    let cf = if bug == Bug::FamiliesAreMixedUp { mixed_up(cf) } else { cf };
    if bug == Bug::ReversedRangePanics {
        assert!(range.end.is_empty() || range.start <= range.end, "range start above range end");
    }
    let range = match bug {
        Bug::WalkLeaksBeyondTheEnd => Range::new(range.start, b""),
        _ => range,
    };
    Ok(Box::new(BrokenCursor {
        bug,
        reader,
        cf,
        start: range.start.to_vec(),
        end: range.end.to_vec(),
        direction,
        inner: reader.cursor(cf, range, direction)?,
        ahead: VecDeque::new(),
        ended: false,
        last: None,
    }))
}

struct BrokenCursor<'a> {
    bug: Bug,
    reader: &'a dyn Reader,
    cf: Cf,
    start: Vec<u8>,
    end: Vec<u8>,
    direction: Direction,
    inner: Box<dyn Cursor + 'a>,
    ahead: VecDeque<(Vec<u8>, Vec<u8>)>,
    ended: bool,
    last: Option<(Vec<u8>, Vec<u8>)>,
}

impl BrokenCursor<'_> {
    fn pull(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let row = match self.inner.next() {
            Err(_) if self.bug == Bug::WalkSwallowsErrors => None,
            other => other?,
        };
        Ok(row.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }

    fn step(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        match self.bug {
            Bug::CursorSeesManyMoments => {
                if let Some((last, _)) = self.last.clone() {
                    let range = Range::new(&self.start, &self.end);
                    self.inner = self.reader.cursor(self.cf, range, self.direction)?;
                    self.inner.seek(&last)?;
                    let row = self.pull()?;
                    if row.as_ref().is_some_and(|(key, _)| *key != last) {
                        return Ok(row);
                    }
                }
                self.pull()
            }
            Bug::BackwardWalkMissesTheLast if self.direction == Direction::Backward => {
                while self.ahead.len() < 2 {
                    match self.pull()? {
                        Some(row) => self.ahead.push_back(row),
                        None => break,
                    }
                }
                let row = self.ahead.pop_front();
                Ok(row.filter(|_| !self.ahead.is_empty()))
            }
            _ => self.pull(),
        }
    }
}

impl Cursor for BrokenCursor<'_> {
    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        if self.bug == Bug::SeekLeavesCursorEnded && self.ended {
            return Ok(None);
        }
        let row = self.step()?;
        if row.is_none() {
            self.ended = true;
            if self.bug == Bug::EndedCursorStartsAgain {
                self.inner.seek(match self.direction {
                    Direction::Forward => &self.start,
                    Direction::Backward => &self.end,
                })?;
            }
            return Ok(None);
        }
        self.last = row;
        Ok(self.last.as_ref().map(|(key, value)| (&key[..], &value[..])))
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.ahead.clear();
        self.last = None;
        let range = Range::new(&self.start, &self.end);
        if self.bug == Bug::SeekIsNotClamped && !range.contains(key) {
            self.inner = self.reader.cursor(self.cf, Range::ALL, self.direction)?;
        }
        if self.bug == Bug::BackwardSeekLandsAbove && self.direction == Direction::Backward {
            let mut above =
                self.reader.cursor(self.cf, Range::new(key, &self.end), Direction::Forward)?;
            if let Some((above, _)) = above.next()? {
                return self.inner.seek(above);
            }
        }
        self.inner.seek(key)
    }
}

struct BrokenSnapshot {
    bug: Bug,
    live: Broken,
    moment: MemSnapshot,
    /// One per family, for those that were read.
    late: [std::sync::OnceLock<MemSnapshot>; Cf::ALL.len()],
}

impl BrokenSnapshot {
    fn reader(&self, cf: Cf) -> Result<&MemSnapshot> {
        if self.bug != Bug::SnapshotFixesFamiliesLate {
            return Ok(&self.moment);
        }
        let late = self.live.inner.snapshot()?;
        Ok(self.late[cf.index()].get_or_init(|| late))
    }
}

impl Reader for BrokenSnapshot {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        match self.bug {
            Bug::SnapshotSeesLaterWrites => self.live.get(cf, key),
            bug => broken_get(bug, self.reader(cf)?, cf, key),
        }
    }

    fn cursor<'a>(
        &'a self,
        cf: Cf,
        range: Range<'_>,
        direction: Direction,
    ) -> Result<Box<dyn Cursor + 'a>> {
        match self.bug {
            Bug::SnapshotSeesLaterWrites | Bug::SnapshotCursorSeesLaterWrites => {
                self.live.cursor(cf, range, direction)
            }
            bug => broken_cursor(bug, self.reader(cf)?, cf, range, direction),
        }
    }
}

impl Snapshot for BrokenSnapshot {}

impl Reader for Broken {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        broken_get(self.bug, &self.inner, cf, key)
    }

    fn cursor<'a>(
        &'a self,
        cf: Cf,
        range: Range<'_>,
        direction: Direction,
    ) -> Result<Box<dyn Cursor + 'a>> {
        broken_cursor(self.bug, &self.inner, cf, range, direction)
    }
}

impl KvEngine for Broken {
    type Snapshot = BrokenSnapshot;
    type WriteBatch = MemBatch;

    fn name(&self) -> &'static str {
        "broken"
    }

    fn snapshot(&self) -> Result<BrokenSnapshot> {
        Ok(BrokenSnapshot {
            bug: self.bug,
            live: self.clone(),
            moment: self.inner.snapshot()?,
            late: Default::default(),
        })
    }

    fn write_batch(&self) -> MemBatch {
        MemBatch::default()
    }

    fn write(&self, batch: MemBatch, durability: Durability) -> Result<()> {
        let durability = match self.bug {
            Bug::SyncedWriteIsBuffered => Durability::Buffered,
            Bug::EmptySyncedBatchIsSkipped if batch.is_empty() => Durability::Buffered,
            _ => durability,
        };
        let ops = self.mangle(batch.ops());
        let synced = durability == Durability::Synced;
        {
            let mut written = self.written.lock().unwrap();
            if synced && self.bug != Bug::SyncedWriteLeavesEarlierOnes {
                written.iter_mut().for_each(|(_, durable)| *durable = true);
            }
            written.push((ops.clone(), synced));
        }
        if self.bug == Bug::BatchIsTorn {
            for cf in Cf::ALL {
                let part: Vec<Op> = ops.iter().filter(|op| family(op) == cf).cloned().collect();
                replay(&self.inner, &part, Durability::Buffered)?;
            }
            return replay(&self.inner, &[], durability);
        }
        replay(&self.inner, &ops, durability)
    }

    fn approximate_size(&self, cf: Cf, range: Range<'_>, limit: u64) -> Result<u64> {
        match self.bug {
            Bug::SizeIgnoresTheRange => self.inner.approximate_size(cf, Range::ALL, limit),
            Bug::SizeStopsBelowTheLimit => {
                Ok(self.inner.approximate_size(cf, range, limit)?.min(limit - 1))
            }
            _ => self.inner.approximate_size(cf, range, limit),
        }
    }

    fn ingest(&self, cf: Cf, rows: &mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<()> {
        let mut rows: Vec<_> = rows.collect();
        if self.bug == Bug::IngestionForgetsTheLast {
            rows.pop();
        }
        let mut batch = self.write_batch();
        for (key, value) in rows {
            batch.put(cf, &key, &value);
        }
        self.write(batch, Durability::Buffered)?;
        if self.bug == Bug::IngestionIsOverwrittenByTheOld {
            // A tombstone of an earlier write lies above what was ingested.
            let mut old = self.write_batch();
            old.delete(cf, b"a003");
            self.write(old, Durability::Buffered)?;
        }
        Ok(())
    }

    fn compact(&self, cf: Cf, range: Range<'_>) -> Result<()> {
        if self.bug == Bug::CompactionEmptiesTheRange {
            let mut batch = self.write_batch();
            batch.delete_range(cf, range);
            self.write(batch, Durability::Buffered)?;
        }
        Ok(())
    }

    fn stats(&self) -> EngineStats {
        let stats = self.inner.stats();
        match self.bug {
            Bug::SyncsAreCountedOnce => EngineStats { syncs: stats.syncs.min(1), ..stats },
            _ => stats,
        }
    }

    fn sync(&self) -> Result<()> {
        if self.bug == Bug::SyncIsForgotten {
            return Ok(());
        }
        self.written.lock().unwrap().iter_mut().for_each(|(_, durable)| *durable = true);
        self.inner.sync()
    }
}

struct BrokenFixture {
    bug: Bug,
    inner: MemEngine,
    /// What the first of two power cuts must not keep for the second.
    shaky: Vec<Vec<Op>>,
    kept: Vec<Written>,
}

impl BrokenFixture {
    fn new(bug: Bug) -> Self {
        Self { bug, inner: MemEngine::new(), shaky: Vec::new(), kept: Vec::new() }
    }

    /// Makes an engine of the given batches, all of them durable.
    fn rebuild(&mut self, batches: &[Written]) {
        self.inner = MemEngine::new();
        for (ops, _) in batches {
            replay(&self.inner, ops, Durability::Synced).unwrap();
        }
        self.kept = batches.to_vec();
    }
}

impl KvFixture for BrokenFixture {
    type Engine = Broken;

    fn open(&mut self) -> Result<Broken> {
        self.inner = self.inner.reopen();
        for ops in std::mem::take(&mut self.shaky) {
            replay(&self.inner, &ops, Durability::Buffered)?;
        }
        let written = Arc::new(Mutex::new(self.kept.clone()));
        Ok(Broken { bug: self.bug, inner: self.inner.clone(), written })
    }

    fn power_cut(&mut self, engine: Broken, keep: usize) -> Support {
        let written = engine.written.lock().unwrap().clone();
        let durable = written.iter().rposition(|(_, durable)| *durable).map_or(0, |at| at + 1);
        match self.bug {
            Bug::MiddleWriteIsLost => {
                let mut left = written[..written.len().min(durable + keep)].to_vec();
                if left.len() >= durable + 2 {
                    left.remove(durable);
                }
                self.rebuild(&left);
            }
            Bug::SyncedWriteLeavesEarlierOnes => {
                let left: Vec<_> = written.into_iter().filter(|(_, durable)| *durable).collect();
                self.rebuild(&left);
            }
            Bug::SurvivorsAreNotDurable => {
                engine.inner.crash(0);
                let unsynced = written[durable..].iter().take(keep);
                self.shaky = unsynced.map(|(ops, _)| ops.clone()).collect();
            }
            _ => engine.inner.crash(keep),
        }
        Support::Done
    }

    fn cut_before(&mut self, operation: u64) -> Support {
        self.inner.faults().fail_write(operation + 1, Leaves::Nothing);
        Support::Done
    }

    fn damage(&mut self, cf: Cf, key: &[u8], _value: &[u8]) -> Support {
        self.inner.damage(cf, key);
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
    let report = run_kv(|| BrokenFixture::new(Bug::None));
    assert!(report.passed(), "{report}");
    assert_eq!(report.skipped(), ["killed_process_leaves_a_prefix"]);
}

macro_rules! caught {
    ($($name:ident: $bug:ident by $case:literal;)*) => {
        $(
            #[test]
            fn $name() {
                let report = run_kv(|| BrokenFixture::new(Bug::$bug));
                assert!(report.failed().contains(&$case), "not noticed by {}:\n{report}", $case);
            }
        )*
    };
}

caught! {
    delete_range_takes_its_end: DeleteRangeTakesItsEnd by "delete_range_is_half_open";
    delete_range_leaves_its_start: DeleteRangeLeavesItsStart by "delete_range_is_half_open";
    delete_range_runs_first: DeleteRangeRunsFirst by "delete_range_covers_earlier_puts";
    delete_range_runs_last: DeleteRangeRunsLast by "delete_range_spares_later_puts";
    batch_runs_backwards: BatchRunsBackwards by "put_and_delete_keep_their_order";
    families_are_mixed_up: FamiliesAreMixedUp by "families_are_separate";
    snapshot_sees_later_writes: SnapshotSeesLaterWrites by "snapshot_hides_later_writes";
    snapshot_cursor_sees_later_writes:
        SnapshotCursorSeesLaterWrites by "snapshot_cursor_hides_later_writes";
    snapshot_fixes_families_late:
        SnapshotFixesFamiliesLate by "snapshot_is_one_moment_of_all_families";
    backward_walk_misses_the_last: BackwardWalkMissesTheLast by "backward_walk_is_descending";
    walk_leaks_beyond_the_end: WalkLeaksBeyondTheEnd by "range_end_is_exclusive";
    seek_is_not_clamped: SeekIsNotClamped by "seek_below_the_range_is_clamped";
    backward_seek_lands_above: BackwardSeekLandsAbove by "seek_backward_lands_at_or_before";
    seek_leaves_cursor_ended: SeekLeavesCursorEnded by "seek_revives_an_ended_cursor";
    ended_cursor_starts_again: EndedCursorStartsAgain by "ended_cursor_stays_ended";
    reversed_range_panics: ReversedRangePanics by "empty_or_reversed_range_has_no_rows";
    cursor_sees_many_moments: CursorSeesManyMoments by "engine_cursor_sees_one_moment";
    empty_value_is_none: EmptyValueIsNone by "empty_value_is_a_value";
    get_swallows_errors: GetSwallowsErrors by "damage_is_never_a_wrong_value";
    walk_swallows_errors: WalkSwallowsErrors by "damage_is_never_a_wrong_value";
    sync_is_forgotten: SyncIsForgotten by "sync_makes_buffered_writes_durable";
    synced_write_is_buffered: SyncedWriteIsBuffered by "synced_write_survives_a_power_cut";
    empty_synced_batch_is_skipped: EmptySyncedBatchIsSkipped by "empty_synced_batch_is_a_sync";
    synced_write_leaves_earlier_ones:
        SyncedWriteLeavesEarlierOnes by "synced_write_takes_earlier_ones_along";
    batch_is_torn: BatchIsTorn by "power_cut_never_tears_a_batch";
    middle_write_is_lost: MiddleWriteIsLost by "power_cut_leaves_a_prefix";
    size_ignores_the_range: SizeIgnoresTheRange by "approximate_size_knows_its_range";
    size_stops_below_the_limit:
        SizeStopsBelowTheLimit by "approximate_size_is_of_the_right_order";
    ingestion_forgets_the_last: IngestionForgetsTheLast by "ingested_rows_are_readable";
    ingestion_is_overwritten_by_the_old:
        IngestionIsOverwrittenByTheOld by "ingestion_comes_to_the_same_as_writes";
    compaction_empties_the_range: CompactionEmptiesTheRange by "compaction_keeps_the_data";
    syncs_are_counted_once: SyncsAreCountedOnce by "stats_count_what_they_name";
    batch_is_torn_within: BatchIsTorn by "every_device_operation_keeps_a_prefix";
    middle_write_is_lost_between: MiddleWriteIsLost by "every_write_boundary_keeps_a_prefix";
    survivors_are_not_durable: SurvivorsAreNotDurable by "second_power_cut_takes_nothing";
}

/// A failing random run names its seed and the fewest steps that fail.
#[test]
fn failing_random_run_is_shortened() {
    let report = run_kv(|| BrokenFixture::new(Bug::DeleteRangeTakesItsEnd));
    let case = report.cases.iter().find(|case| case.name == "random_writes_agree_with_a_map");
    let text = format!("{:?}", case.unwrap().outcome);
    assert!(text.contains("seed ") && text.contains(" steps: "), "{text}");
    let steps = text.split("seed ").nth(1).unwrap().split(", ").nth(1).unwrap();
    let steps: u64 = steps.split(' ').next().unwrap().parse().unwrap();
    assert!(steps < 60, "{text}");
}
