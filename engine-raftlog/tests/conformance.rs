//! The contract suite: with what is lost in a power cut chosen in three ways, and with files so
//! small that logs are moved and removed all the time.
#![expect(clippy::unwrap_used, reason = "a fixture that cannot be set up has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use engine_raftlog::{LogSwitch, Loss, RaftLog, RaftLogOptions};
use engine_traits::Result;
use engine_traits::conformance::{RaftLogFixture, Support};
use raftstore_proto::RegionId;
use tempfile::TempDir;

struct InFolder {
    _dir: TempDir,
    path: PathBuf,
    options: RaftLogOptions,
    loss: fn(u64) -> Loss,
    switch: Option<LogSwitch>,
}

impl InFolder {
    fn new(options: RaftLogOptions, loss: fn(u64) -> Loss) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { path: dir.path().join("log"), _dir: dir, options, loss, switch: None }
    }
}

impl RaftLogFixture for InFolder {
    type Engine = RaftLog;

    fn open(&mut self) -> Result<RaftLog> {
        let (log, switch) = RaftLog::open_with_switch(&self.path, &self.options)?;
        self.switch = Some(switch);
        Ok(log)
    }

    fn power_cut(&mut self, engine: RaftLog, keep: usize) -> Support {
        let Some(switch) = &self.switch else { return Support::Unsupported("not open") };
        switch.cut((self.loss)(keep as u64));
        drop(engine);
        Support::Done
    }

    fn cut_before(&mut self, operation: u64) -> Support {
        let Some(switch) = &self.switch else { return Support::Unsupported("not open") };
        switch.cut_before(operation);
        Support::Done
    }

    fn move_to(&mut self, folder: &Path) -> Support {
        self.path = folder.join("log");
        Support::Done
    }

    fn damage(&mut self, _region: RegionId, index: Option<u64>, payload: &[u8]) -> Support {
        let needle = match index {
            Some(_) => payload.to_vec(),
            // Key and length of the state's record.
            None => vec![1, b's'],
        };
        let mut found = false;
        for file in fs::read_dir(&self.path).unwrap() {
            let path = file.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            let places: Vec<usize> = bytes
                .windows(needle.len())
                .enumerate()
                .filter_map(|(at, window)| (window == needle).then_some(at))
                .collect();
            for at in &places {
                bytes[*at + needle.len() - 1] ^= 1;
            }
            found |= !places.is_empty();
            fs::write(&path, bytes).unwrap();
        }
        if found { Support::Done } else { Support::Unsupported("the record is not in a file") }
    }

    fn model_seeds(&self) -> u64 {
        12
    }

    /// In each of three ways.
    fn cuts(&self) -> u64 {
        170
    }

    fn kills(&self) -> u64 {
        40
    }
}

mod nothing_survives {
    use super::{InFolder, Loss, RaftLogOptions};
    engine_traits::raft_log_conformance!(InFolder::new(RaftLogOptions::default(), |_| {
        Loss::Everything
    }));
}

mod sectors_survive {
    use super::{InFolder, Loss, RaftLogOptions};
    engine_traits::raft_log_conformance!(InFolder::new(
        RaftLogOptions::default().with_compress_above_bytes(Some(64)),
        |seed| Loss::Scattered { seed }
    ));
}

mod small_files {
    use super::{InFolder, Loss, RaftLogOptions};
    engine_traits::raft_log_conformance!(InFolder::new(
        RaftLogOptions::default().with_file_bytes(4 << 10).with_purge_bytes(12 << 10),
        |seed| Loss::Suffix { seed }
    ));
}
