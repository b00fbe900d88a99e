//! Space comes back, and what was removed stays so, also after files were moved and opened again.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like the tests")]

use engine_raftlog::{Loss, RaftLog, RaftLogOptions};
use engine_traits::{Durability, RaftEngine, RaftLogBatch};
use raft_proto::eraftpb;
use raftstore_proto::{Entry, RegionId};

fn options() -> RaftLogOptions {
    RaftLogOptions::default().with_file_bytes(8 << 10).with_purge_bytes(64 << 10)
}

fn entry(index: u64, term: u64) -> Entry {
    let data = vec![b'x'; 200].into();
    Entry::from_raft(eraftpb::Entry { index, term, data, ..Default::default() })
}

fn entries(low: u64, high: u64, term: u64) -> Vec<Entry> {
    (low..high).map(|index| entry(index, term)).collect()
}

fn write(log: &RaftLog, fill: impl FnOnce(&mut <RaftLog as RaftEngine>::LogBatch)) {
    let mut batch = log.log_batch();
    fill(&mut batch);
    log.write(batch, Durability::Buffered).unwrap();
}

#[test]
fn a_log_that_is_cut_gives_its_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let log = RaftLog::open(dir.path().join("log"), &options()).unwrap();
    let (busy, quiet) = (RegionId::must(1), RegionId::must(2));
    write(&log, |batch| batch.append(quiet, &entries(1, 5, 1)));
    for index in 1..3_000 {
        write(&log, |batch| {
            batch.append(busy, &[entry(index, 1)]);
            batch.truncate_prefix(busy, index.saturating_sub(10));
        });
        if index % 100 == 0 {
            log.purge().unwrap();
        }
    }
    let used = log.stats().used_bytes;
    assert!(used < 200 << 10, "{used} bytes of {} written", log.stats().written_bytes);
    let mut out = Vec::new();
    log.entries(quiet, 1, 9, u64::MAX, &mut out).unwrap();
    assert_eq!(out, entries(1, 5, 1));
}

#[test]
fn what_a_buffered_write_replaces_goes_with_it_or_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (log, switch) = RaftLog::open_with_switch(&path, &options()).unwrap();
    let (old, new) = (RegionId::must(1), RegionId::must(2));
    for index in 1..1_000 {
        write(&log, |batch| batch.append(old, &[entry(index, 1)]));
    }
    log.sync().unwrap();
    write(&log, |batch| batch.append(new, &entries(1, 5, 1)));
    write(&log, |batch| batch.clear_region(old));
    // Nothing refers to the files of the old region any more, but for what a power cut loses.
    log.purge().unwrap();
    switch.cut(Loss::Everything);
    drop((log, switch));

    let log = RaftLog::open(&path, &options()).unwrap();
    let kept = (1..1_000).filter(|index| log.entry(old, *index).unwrap().is_some()).count();
    let made = log.entry(new, 1).unwrap().is_some();
    assert!(kept == 999 || (kept == 0 && made), "{kept} entries, and the write before: {made}");
}

#[test]
fn a_log_that_is_not_cut_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let log = RaftLog::open(dir.path().join("log"), &options()).unwrap();
    let (busy, idle) = (RegionId::must(1), RegionId::must(2));
    write(&log, |batch| batch.append(idle, &entries(1, 100, 1)));
    // Not so many files that the log moves the entries after having named them often enough.
    for index in 1..300 {
        write(&log, |batch| {
            batch.append(busy, &[entry(index, 1)]);
            batch.truncate_prefix(busy, index.saturating_sub(10));
        });
    }
    log.purge().unwrap();
    assert_eq!(log.regions_pinning_space(), [idle]);
    write(&log, |batch| batch.truncate_prefix(idle, 100));
    log.purge().unwrap();
    assert_eq!(log.regions_pinning_space(), []);
}

#[test]
fn long_logs_are_named_when_the_index_is_over_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let options = options().with_index_bytes(4_000);
    let log = RaftLog::open(dir.path().join("log"), &options).unwrap();
    let (long, short) = (RegionId::must(1), RegionId::must(2));
    write(&log, |batch| batch.append(short, &entries(1, 20, 1)));
    write(&log, |batch| batch.append(long, &entries(1, 80, 1)));
    assert_eq!(log.regions_pinning_space(), []);
    write(&log, |batch| batch.append(long, &entries(80, 90, 1)));
    assert_eq!(log.regions_pinning_space(), [long, short]);
    write(&log, |batch| batch.clear_region(short));
    assert_eq!(log.regions_pinning_space(), []);
}

#[test]
fn what_was_removed_stays_removed_over_purges_and_opens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (cut, before, cleared, busy) =
        (RegionId::must(1), RegionId::must(2), RegionId::must(3), RegionId::must(4));
    let log = RaftLog::open(&path, &options()).unwrap();
    for region in [cut, before, cleared] {
        write(&log, |batch| batch.append(region, &entries(10, 30, 1)));
    }
    // Moves those entries to other files.
    let mut next = 1;
    let mut churn = |log: &RaftLog| {
        for _ in 0..1_500 {
            write(log, |batch| {
                batch.append(busy, &[entry(next, 1)]);
                batch.truncate_prefix(busy, next.saturating_sub(5));
            });
            next += 1;
            if next % 50 == 0 {
                log.purge().unwrap();
            }
        }
    };
    churn(&log);
    write(&log, |batch| {
        batch.truncate_prefix(cut, 25);
        batch.append(before, &entries(4, 6, 2));
        batch.clear_region(cleared);
    });
    // The files with the removals go, those with the moved entries stay.
    churn(&log);
    log.close().unwrap();
    for _ in 0..3 {
        let log = RaftLog::open(&path, &options()).unwrap();
        let read = |region| {
            let mut out = Vec::new();
            (1..40).for_each(|index| out.extend(log.entry(region, index).unwrap()));
            out
        };
        assert_eq!(read(cut), entries(25, 30, 1));
        assert_eq!(read(before), entries(4, 6, 2));
        assert_eq!(read(cleared), []);
        assert_eq!(log.regions().unwrap(), [cut, before, busy]);
        log.close().unwrap();
    }
    let log = RaftLog::open(&path, &options()).unwrap();
    write(&log, |batch| batch.append(before, &entries(6, 8, 2)));
    write(&log, |batch| batch.append(cut, &entries(27, 28, 3)));
    write(&log, |batch| batch.append(cleared, &entries(50, 52, 3)));
    assert_eq!(log.entry(cut, 28).unwrap(), None);
}
