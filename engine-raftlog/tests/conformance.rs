//! The contract suite: with what is lost in a power cut chosen in three ways, and with files so
//! small that logs are moved and removed all the time.
#![expect(clippy::unwrap_used, reason = "a fixture that cannot be set up has failed")]

use std::fs;

use engine_raftlog::{LogSwitch, Loss, RaftLog, RaftLogOptions};
use engine_traits::Result;
use engine_traits::conformance::{RaftLogFixture, Support};
use raftstore_proto::RegionId;
use tempfile::TempDir;

struct InFolder {
    dir: TempDir,
    options: RaftLogOptions,
    loss: fn(u64) -> Loss,
    switch: Option<LogSwitch>,
}

impl InFolder {
    fn new(options: RaftLogOptions, loss: fn(u64) -> Loss) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), options, loss, switch: None }
    }
}

impl RaftLogFixture for InFolder {
    type Engine = RaftLog;

    fn open(&mut self) -> Result<RaftLog> {
        let (log, switch) = RaftLog::open_with_switch(self.dir.path().join("log"), &self.options)?;
        self.switch = Some(switch);
        Ok(log)
    }

    fn power_cut(&mut self, engine: RaftLog, keep: usize) -> Support {
        let Some(switch) = &self.switch else { return Support::Unsupported("not open") };
        switch.cut((self.loss)(keep as u64));
        drop(engine);
        Support::Done
    }

    fn damage(&mut self, _region: RegionId, index: Option<u64>, payload: &[u8]) -> Support {
        let needle = match index {
            Some(_) => payload.to_vec(),
            // Key and length of the state's record.
            None => vec![1, b's'],
        };
        let mut found = false;
        for file in fs::read_dir(self.dir.path().join("log")).unwrap() {
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
