//! The contract suite on redb over a disk in memory, and over a file.
#![expect(clippy::unwrap_used, reason = "a fixture that cannot be set up has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use engine_redb::{CutSwitch, Loss, MemDisk, RedbEngine, RedbOptions};
use engine_traits::conformance::{KvFixture, Support};
use engine_traits::{Cf, Result};
use tempfile::TempDir;

fn options() -> RedbOptions {
    RedbOptions::default().with_cache_bytes(4 << 20)
}

/// Flips a bit of every place where `value` is stored.
fn flip_value(bytes: &mut [u8], value: &[u8]) -> Support {
    let places: Vec<usize> = bytes
        .windows(value.len().max(1))
        .enumerate()
        .filter_map(|(at, window)| (window == value).then_some(at))
        .collect();
    for at in &places {
        bytes[*at] ^= 1;
    }
    if places.is_empty() {
        Support::Unsupported("the value is not in the file")
    } else {
        Support::Done
    }
}

/// On a disk in memory.
struct OnDisk {
    disk: MemDisk,
    options: RedbOptions,
}

impl OnDisk {
    fn new(options: RedbOptions) -> Self {
        Self { disk: MemDisk::new(), options }
    }
}

impl KvFixture for OnDisk {
    type Engine = RedbEngine;

    fn open(&mut self) -> Result<RedbEngine> {
        RedbEngine::open_with_backend(self.disk.backend(), &self.options)
    }

    fn power_cut(&mut self, engine: RedbEngine, keep: usize) -> Support {
        // Unsynced writes of redb rest in its own memory, so what survives is the same
        // prefix for most seeds; torn ones must come to the same.
        self.disk.cut(match keep {
            0 => Loss::Everything,
            _ => Loss::Suffix { seed: keep as u64 },
        });
        drop(engine);
        Support::Done
    }

    fn cut_before(&mut self, operation: u64) -> Support {
        self.disk.cut_after(
            operation,
            match operation % 4 {
                0 => Loss::Everything,
                1 => Loss::Suffix { seed: operation },
                _ => Loss::Scattered { seed: operation },
            },
        );
        Support::Done
    }

    fn damage(&mut self, _cf: Cf, _key: &[u8], value: &[u8]) -> Support {
        let mut bytes = self.disk.bytes();
        let done = flip_value(&mut bytes, value);
        self.disk = MemDisk::with_bytes(bytes);
        done
    }

    fn model_seeds(&self) -> u64 {
        10
    }
}

/// In a file.
struct InFile {
    _dir: TempDir,
    path: PathBuf,
    switch: Option<CutSwitch>,
}

impl InFile {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { path: dir.path().join("engine.redb"), _dir: dir, switch: None }
    }
}

impl KvFixture for InFile {
    type Engine = RedbEngine;

    fn open(&mut self) -> Result<RedbEngine> {
        let (engine, switch) = RedbEngine::open_with_cut(&self.path, &options())?;
        self.switch = Some(switch);
        Ok(engine)
    }

    fn power_cut(&mut self, engine: RedbEngine, keep: usize) -> Support {
        let Some(switch) = &self.switch else { return Support::Unsupported("not open") };
        switch.cut(Loss::Scattered { seed: keep as u64 });
        drop(engine);
        Support::Done
    }

    fn move_to(&mut self, folder: &Path) -> Support {
        self.path = folder.join("engine.redb");
        Support::Done
    }

    fn damage(&mut self, _cf: Cf, _key: &[u8], value: &[u8]) -> Support {
        let mut bytes = fs::read(&self.path).unwrap();
        let done = flip_value(&mut bytes, value);
        fs::write(&self.path, bytes).unwrap();
        done
    }

    fn model_seeds(&self) -> u64 {
        4
    }

    fn kills(&self) -> u64 {
        60
    }
}

mod disk {
    engine_traits::kv_conformance!(super::OnDisk::new(super::options()));
}

/// So little room in memory that buffered writes spill to the disk before they are synced.
mod spilling {
    engine_traits::kv_conformance!(super::OnDisk::new(super::options().with_cache_bytes(64 << 10)));
}

mod file {
    engine_traits::kv_conformance!(super::InFile::new());
}

mod log_on_disk {
    use engine_traits::conformance::KvLogFixture;
    engine_traits::raft_log_conformance!(KvLogFixture::new(super::OnDisk::new(super::options())));
}

mod log_in_file {
    use engine_traits::conformance::KvLogFixture;
    engine_traits::raft_log_conformance!(KvLogFixture::new(super::InFile::new()));
}
