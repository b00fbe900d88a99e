//! A child process is killed with SIGKILL while it writes, again and again, on one log.
#![expect(clippy::unwrap_used, reason = "a run that cannot be set up has failed")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use engine_raftlog::{RaftLog, RaftLogOptions};
use engine_traits::{Durability, RaftEngine, RaftLogBatch};
use raft_proto::eraftpb;
use raftstore_proto::{Entry, HardState, LocalState, PeerId, RegionId};

const NAME: &str = "killed_while_writing";
const FOLDER: &str = "ENGINE_RAFTLOG_KILL_FOLDER";
const KILLS: u64 = 24;
const REGIONS: u64 = 3;
/// Entries kept per region.
const KEPT: u64 = 20;

/// Files so small that the kill also meets files being made and removed.
fn options() -> RaftLogOptions {
    RaftLogOptions::default().with_file_bytes(16 << 10).with_purge_bytes(64 << 10)
}

fn entry(region: RegionId, index: u64) -> Entry {
    let data = format!("{region} {index} ").repeat(usize::try_from(index % 40).unwrap());
    Entry::from_raft(eraftpb::Entry { index, term: 1, data: data.into(), ..Default::default() })
}

fn regions() -> impl Iterator<Item = RegionId> {
    (1..=REGIONS).map(RegionId::must)
}

/// The number of writes found, after checking that they are a prefix.
fn recovered(log: &RaftLog) -> u64 {
    let states = regions().map(|region| log.raft_state(region).unwrap());
    let lasts: Vec<u64> = states.map(|state| state.map_or(0, |state| state.last_index)).collect();
    assert!(lasts.iter().all(|last| *last == lasts[0]), "a batch was torn: {lasts:?}");
    let last = lasts[0];
    for region in regions() {
        let low = last.saturating_sub(KEPT).max(1);
        let mut out = Vec::new();
        log.entries(region, low, last + 1, u64::MAX, &mut out).unwrap();
        let want: Vec<_> = (low..=last).map(|index| entry(region, index)).collect();
        assert!(last == 0 || out == want, "region {region} after {last} writes");
        assert_eq!(log.entry(region, last + 1).unwrap(), None);
    }
    last
}

/// Writes until it is killed, and says after each synced write how many there are.
fn write_for_ever(path: &Path) {
    let log = RaftLog::open(path, &options()).unwrap();
    let mut stdout = std::io::stdout();
    for index in recovered(&log) + 1.. {
        let mut batch = log.log_batch();
        for region in regions() {
            batch.append(region, &[entry(region, index)]);
            let hard_state = HardState { term: 1, vote: 1, commit: index };
            let peer = PeerId::must(1);
            batch.put_raft_state(region, &LocalState { peer, hard_state, last_index: index });
            batch.truncate_prefix(region, index.saturating_sub(KEPT));
        }
        let synced = index.is_multiple_of(5);
        let durability = if synced { Durability::Synced } else { Durability::Buffered };
        log.write(batch, durability).unwrap();
        if synced {
            writeln!(stdout, "\nsynced {index}").unwrap();
            stdout.flush().unwrap();
        }
    }
}

#[test]
fn killed_while_writing() {
    if let Some(path) = std::env::var_os(FOLDER) {
        return write_for_ever(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut promised = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(FOLDER, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Different numbers of synced writes, so that the kill meets different moments.
        let mut left = 1 + 3 * (kill % 7);
        while left > 0 {
            let line = lines.next().unwrap().unwrap();
            if let Some(count) = line.strip_prefix("synced ") {
                promised = count.parse().unwrap();
                left -= 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let log = RaftLog::open(&path, &options()).unwrap();
        let found = recovered(&log);
        assert!(found >= promised, "kill {kill}: {found} writes left of {promised} synced ones");
        log.close().unwrap();
    }
    assert!(promised > KILLS);
}
