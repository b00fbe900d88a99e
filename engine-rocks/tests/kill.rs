//! A child process is killed with SIGKILL while it writes, again and again, on one database, with
//! a write-ahead log and without.
#![expect(clippy::unwrap_used, reason = "a run that cannot be set up has failed")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use engine_rocks::{RocksEngine, RocksOptions};
use engine_traits::{Cf, Direction, Durability, KvEngine, Range, Reader, WriteBatch};

const WITH_LOG: &str = "killed_while_writing_with_log";
const WITHOUT_LOG: &str = "killed_while_writing_without_log";
const FOLDER: &str = "ENGINE_ROCKS_KILL_FOLDER";
const KILLS: u64 = 8;

/// Buffers so small that kills also meet flushes and compactions.
fn options(name: &str) -> RocksOptions {
    let options = RocksOptions::default().with_write_buffer_bytes(64 << 10);
    options.with_write_ahead_log(name == WITH_LOG)
}

fn value(number: u64) -> Vec<u8> {
    format!("value of {number} ").repeat(usize::try_from(number % 40).unwrap()).into_bytes()
}

/// The number of writes found, after checking that they are a prefix.
fn recovered(engine: &RocksEngine) -> u64 {
    let count = engine.get(Cf::Lock, b"count").unwrap();
    let count = count.map_or(0, |bytes| u64::from_be_bytes(bytes.as_ref().try_into().unwrap()));
    let mut cursor = engine.cursor(Cf::Default, Range::ALL, Direction::Forward).unwrap();
    for number in 0..count {
        let (key, stored) = cursor.next().unwrap().unwrap();
        assert_eq!(key, number.to_be_bytes());
        assert_eq!(stored, value(number), "write {number}");
    }
    assert!(cursor.next().unwrap().is_none(), "a write after {count} that is not counted");
    count
}

/// Writes until it is killed, and says after each synced write how many there are.
fn write_for_ever(name: &str, path: &Path) {
    let engine = RocksEngine::open(path, &options(name)).unwrap();
    let mut stdout = std::io::stdout();
    for number in recovered(&engine).. {
        let mut batch = engine.write_batch();
        batch.put(Cf::Default, &number.to_be_bytes(), &value(number));
        batch.put(Cf::Lock, b"count", &(number + 1).to_be_bytes());
        let synced = number.is_multiple_of(5);
        let durability = if synced { Durability::Synced } else { Durability::Buffered };
        engine.write(batch, durability).unwrap();
        if synced {
            writeln!(stdout, "\nsynced {}", number + 1).unwrap();
            stdout.flush().unwrap();
        }
    }
}

#[test]
fn killed_while_writing_with_log() {
    killed(WITH_LOG);
}

#[test]
fn killed_while_writing_without_log() {
    killed(WITHOUT_LOG);
}

fn killed(name: &str) {
    if let Some(path) = std::env::var_os(FOLDER) {
        return write_for_ever(name, Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let mut promised = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(FOLDER, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Different numbers of synced writes, so that the kill meets different moments.
        let mut left = 1 + kill % 7;
        while left > 0 {
            let line = lines.next().unwrap().unwrap();
            if let Some(count) = line.strip_prefix("synced ") {
                promised = count.parse().unwrap();
                left -= 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let engine = RocksEngine::open(&path, &options(name)).unwrap();
        let found = recovered(&engine);
        assert!(found >= promised, "kill {kill}: {found} writes left of {promised} synced ones");
        engine.close().unwrap();
    }
    assert!(promised > KILLS);
}
