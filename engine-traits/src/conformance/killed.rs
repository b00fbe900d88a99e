//! A child process that writes until it is killed, again and again, in one place.
//!
//! The child is the test itself, started once more by its name with a folder in its environment.
//! It opens what the last one left, looks whether that is a prefix of all writes, tells how many
//! there are, and goes on writing, telling of each synced write. The parent kills it at moments
//! that differ, and compares what was found with what had been synced.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::case::{Failure, Verdict, ensure};
use super::patient::start;
use super::random::Random;

/// The folder a child writes in.
const FOLDER: &str = "RAFTSTORE_CONFORMANCE_FOLDER";
/// The first words of a child.
const OPENING: &str = "opening";

thread_local! {
    /// The full name of the test that runs on this thread.
    static TEST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Remembers which test runs, so that it can be started once more.
pub(crate) fn set_test(path: &str) {
    // The first part is the crate's name, which is no part of a test's.
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    TEST.with(|test| *test.borrow_mut() = Some(name.to_owned()));
}

/// What the child of a case does.
pub(crate) trait Life {
    /// The number of writes found, after checking that they are a prefix.
    fn found(&self) -> Result<u64, Failure>;

    /// Makes write `number`, counted from 1, and tells whether it is durable.
    fn write(&self, number: u64) -> Result<bool, Failure>;
}

/// Starts and kills `kills` children; in a child, writes until it is killed. `open` gives the
/// engine that lives in a folder.
pub(crate) fn killed<L: Life>(
    kills: u64,
    open: impl FnOnce(&Path) -> Result<L, Failure>,
) -> Verdict {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let ended = child(|| open(Path::new(&folder)));
        return ended.map_or_else(|failure| tell_failure(&failure), Ok);
    }
    let folder = tempfile::tempdir().map_err(broken)?;
    // Whether the fixture can be killed at all is told by opening it.
    drop(open(folder.path())?);
    let Some(test) = TEST.with(|test| test.borrow().clone()) else {
        return Err(Failure::Skipped("only a test of its own can be started once more and killed"));
    };
    let mut random = Random::new(kills);
    let mut promised = 0;
    for kill in 0..kills {
        let mut life = Running::start(&test, folder.path().into())?;
        let found = life.found()?;
        ensure!(found >= promised, "kill {kill}: {found} writes left, {promised} were synced");
        promised = found;
        for _ in 0..random.below(4) {
            promised = promised.max(life.synced()?);
        }
        promised = promised.max(life.kill()?);
    }
    let found = Running::start(&test, folder.path().into())?.found()?;
    ensure!(found >= promised, "at the end: {found} writes left, {promised} were synced");
    ensure!(found > kills / 2, "{found} writes between {kills} kills");
    Ok(())
}

fn broken(error: std::io::Error) -> Failure {
    Failure::Failed(format!("the run cannot be set up: {error}"))
}

fn child<L: Life>(open: impl FnOnce() -> Result<L, Failure>) -> Verdict {
    tell(OPENING)?;
    let life = open()?;
    let found = life.found()?;
    tell(&format!("found {found}"))?;
    for number in found + 1.. {
        if life.write(number)? {
            tell(&format!("synced {number}"))?;
        }
    }
    Ok(())
}

/// Lines begin anew: the harness writes to the same stream.
fn tell(line: &str) -> Verdict {
    let mut stdout = std::io::stdout();
    write!(stdout, "\n{line}\n").and_then(|()| stdout.flush()).map_err(broken)
}

/// A child that fails tells how, and fails like every test.
fn tell_failure(failure: &Failure) -> Verdict {
    let message = match failure {
        Failure::Skipped(reason) => (*reason).to_owned(),
        Failure::Failed(message) => message.replace('\n', " "),
    };
    tell(&format!("failed {message}"))?;
    Err(Failure::Failed(message))
}

/// A child, which does not outlive this value.
struct Running {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(test: &str, folder: OsString) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(broken)?;
        let mut command = Command::new(program);
        let command = command
            .args([test, "--exact", "--nocapture"])
            .env(FOLDER, folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        start(command, |process| {
            let mut process = process.map_err(broken)?;
            let stdout = process.stdout.take();
            let stdout =
                stdout.ok_or_else(|| Failure::Failed("the child has no output".to_owned()))?;
            let mut life = Self { process, lines: BufReader::new(stdout) };
            life.hear(OPENING)?;
            Ok(life)
        })
    }

    /// Waits for a line.
    fn hear(&mut self, wanted: &str) -> Verdict {
        let mut line = String::new();
        while line.trim_end() != wanted {
            line.clear();
            if self.lines.read_line(&mut line).map_err(broken)? == 0 {
                return Err(Failure::Failed("the child ended before it spoke".to_owned()));
            }
        }
        Ok(())
    }

    /// The number in the next line that begins with `word`; `None` at the end of all lines.
    fn number(&mut self, word: &str) -> Result<Option<u64>, Failure> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.lines.read_line(&mut line).map_err(broken)? == 0 {
                return Ok(None);
            }
            let Some(whole) = line.strip_suffix('\n') else { continue };
            if let Some(message) = whole.strip_prefix("failed ") {
                return Err(Failure::Failed(message.to_owned()));
            }
            let number = whole.strip_prefix(word).and_then(|rest| rest.trim().parse().ok());
            if number.is_some() {
                return Ok(number);
            }
        }
    }

    fn found(&mut self) -> Result<u64, Failure> {
        let found = self.number("found ")?;
        found.ok_or_else(|| Failure::Failed("the child ended before it was killed".to_owned()))
    }

    fn synced(&mut self) -> Result<u64, Failure> {
        let synced = self.number("synced ")?;
        synced.ok_or_else(|| Failure::Failed("the child ended before it was killed".to_owned()))
    }

    /// Kills the child; gives the last synced write that it told of, or 0.
    fn kill(mut self) -> Result<u64, Failure> {
        self.process.kill().map_err(broken)?;
        let mut last = 0;
        while let Some(number) = self.number("synced ")? {
            last = number;
        }
        Ok(last)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A process that has ended cannot be killed; that is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
