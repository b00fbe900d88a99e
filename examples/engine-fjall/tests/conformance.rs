//! The contract suite on fjall: the one fixture and the two lines that an engine's crate writes.
#![expect(clippy::unwrap_used, reason = "a fixture that cannot be set up has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use engine_fjall::FjallEngine;
use engine_traits::conformance::{KvFixture, KvLogFixture, Support};
use engine_traits::{Cf, Result};
use tempfile::TempDir;

struct InFolder {
    folder: PathBuf,
    left: PathBuf,
    _dir: TempDir,
}

impl InFolder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { folder: dir.path().join("engine"), left: dir.path().join("left"), _dir: dir }
    }
}

impl KvFixture for InFolder {
    type Engine = FjallEngine;

    fn open(&mut self) -> Result<FjallEngine> {
        FjallEngine::open(&self.folder)
    }

    /// What the system has of the files while the engine is open: all that is synced, and of the
    /// rest what fjall has handed on so far.
    fn power_cut(&mut self, engine: FjallEngine, _keep: usize) -> Support {
        copy(&self.folder, &self.left);
        drop(engine);
        fs::remove_dir_all(&self.folder).unwrap();
        fs::rename(&self.left, &self.folder).unwrap();
        Support::Done
    }

    fn move_to(&mut self, folder: &Path) -> Support {
        self.folder = folder.join("engine");
        Support::Done
    }

    fn damage(&mut self, _cf: Cf, _key: &[u8], value: &[u8]) -> Support {
        let mut found = false;
        each_file(&self.folder, &mut |path| {
            let mut bytes = fs::read(path).unwrap();
            let place = bytes.windows(value.len().max(1)).position(|window| window == value);
            if let Some(at) = place {
                bytes[at] ^= 1;
                fs::write(path, bytes).unwrap();
                found = true;
            }
        });
        if found { Support::Done } else { Support::Unsupported("the value is not in a file") }
    }

    fn model_seeds(&self) -> u64 {
        4
    }

    /// With the processes that are killed, more than 500 in both suites.
    fn cuts(&self) -> u64 {
        160
    }

    fn kills(&self) -> u64 {
        100
    }
}

fn each_file(folder: &Path, work: &mut dyn FnMut(&Path)) {
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            each_file(&path, work);
        } else {
            work(&path);
        }
    }
}

/// Copies a folder that is written to: a file that goes meanwhile was no longer needed.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let path = item.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            // New journals are mostly room ahead, which need not be written.
            let Ok(bytes) = fs::read(&path) else { continue };
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            fs::write(&to, &bytes[..end]).unwrap();
            fs::File::options().write(true).open(to).unwrap().set_len(bytes.len() as u64).unwrap();
        }
    }
}

mod kv {
    engine_traits::kv_conformance!(super::InFolder::new());
}

mod raft_log {
    engine_traits::raft_log_conformance!(super::KvLogFixture::new(super::InFolder::new()));
}

mod clusters {
    use super::{InFolder, KvLogFixture};
    raftstore_sim::cluster_conformance!(InFolder::new(), KvLogFixture::new(InFolder::new()), 0..2);
}
