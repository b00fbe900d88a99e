//! The work of a raft log on raft-engine itself.

use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};
use raft_proto::eraftpb;
use transport_traits::BoxError;

use super::{Case, Run, Values, log::KEPT};
use crate::{entry, temporary_folder};
use raftstore_proto::RegionId;

/// How long the record beside an entry is: what a peer's state takes.
const STATE_BYTES: usize = 48;

#[derive(Debug)]
struct Entries;

impl MessageExt for Entries {
    type Entry = eraftpb::Entry;

    fn index(entry: &eraftpb::Entry) -> u64 {
        entry.index
    }
}

/// Appends, named as those of logs.
#[must_use]
pub fn raw_log_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, synced) in [("synced", true), ("buffered", false)] {
        for regions in [1, 16, 256, 4096] {
            let name = format!("append/{kind}/{regions}");
            cases.push(Case::new(name, regions, move || appends(regions, synced)));
        }
    }
    cases
}

fn appends(regions: u64, synced: bool) -> Result<Run, BoxError> {
    let folder = temporary_folder();
    let chosen = engine_raftlog::RaftLogOptions::default();
    let config = Config {
        dir: folder.path().join("log").display().to_string(),
        batch_compression_threshold: ReadableSize(0),
        target_file_size: ReadableSize(chosen.file_bytes),
        purge_threshold: ReadableSize(chosen.purge_bytes),
        enable_log_recycle: false,
        ..Config::default()
    };
    let engine = Engine::open(config)?;
    let (mut index, mut values) = (0, Values::new());
    Ok(Box::new(move || {
        let _kept = &folder;
        index += 1;
        let mut batch = LogBatch::with_capacity(usize::try_from(regions)?);
        for region in 1..=regions {
            // The same bytes that the layer above stores, made the same way.
            let made = entry(RegionId::must(region), index, values.next());
            batch.add_entries::<Entries>(region, &[made.into_raft()])?;
            batch.put(region, b"state".to_vec(), vec![7; STATE_BYTES])?;
        }
        engine.write(&mut batch, synced)?;
        if index % KEPT == 0 {
            for region in 1..=regions {
                engine.compact_to(region, index - KEPT / 2);
            }
            engine.purge_expired_files()?;
        }
        Ok(())
    }))
}
