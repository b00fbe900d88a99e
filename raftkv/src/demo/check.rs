//! Checking: every acknowledged key read back through the cluster, and the replicas' contents
//! compared with each other.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use engine_traits::{DATA_CFS, Direction, KvEngine, Range, Reader as _};
use raftstore_core::keys;

use super::{DemoError, PATIENCE, progress_bar, say, shown};
use crate::{
    client::{Client, Request, Ticket},
    cluster::{Cluster, ClusterError},
    machine::Machine,
    manifest::Manifest,
    report::ReadBack,
};

/// Findings told one by one; the rest is counted.
const TOLD: u64 = 5;

/// Reads every key ever acknowledged, under the lease or asking a quorum, and counts those
/// whose value is not one that may be there.
pub(super) fn read_back<M: Machine>(
    cluster: &Cluster<M>,
    manifest: &mut Manifest,
    in_flight: usize,
    read_quorum: bool,
    doing: &'static str,
) -> Result<ReadBack, DemoError> {
    let mut read = ReadBack::default();
    let begun = Instant::now();
    let bar = progress_bar(doing, manifest.acknowledged_len());
    let mut client = Client::new(cluster, PATIENCE);
    let mut sent: BTreeMap<Ticket, (Bytes, crate::manifest::Expected)> = BTreeMap::new();
    let mut settled = Vec::new();
    let mut keys = manifest.acknowledged();
    loop {
        while client.in_flight() < in_flight {
            let Some((key, expected)) = keys.next() else { break };
            let ticket = read.keys;
            read.keys += 1;
            sent.insert(ticket, (key.clone(), expected.clone()));
            client.submit(ticket, Request::Get { key: key.clone(), read_quorum });
        }
        if client.in_flight() == 0 {
            break;
        }
        let Some(done) = client.next(Duration::from_millis(500)) else { continue };
        let Some((key, expected)) = sent.remove(&done.ticket) else { continue };
        let value =
            done.result.map_err(|source| DemoError::Request { doing, key: key.clone(), source })?;
        if !expected.allows(value.as_deref()) {
            read.missing += 1;
            if read.missing <= TOLD {
                let found = if value.is_some() { "another value" } else { "nothing" };
                say(&format!("{doing}: {} was acknowledged, but {found} is there", shown(&key)));
            }
        } else if expected.is_uncertain() {
            settled.push((key, value));
        }
        bar.inc(1);
    }
    drop(keys);
    bar.finish_and_clear();
    for (key, value) in settled {
        manifest.settle(&key, value.as_deref());
    }
    read.time = begun.elapsed();
    Ok(read)
}

/// What a replica holds, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content {
    rows: u64,
    crc: u32,
}

fn content<K: KvEngine>(kv: &K) -> engine_traits::Result<Content> {
    let snapshot = kv.snapshot()?;
    let mut content = Content { rows: 0, crc: 0 };
    for cf in DATA_CFS {
        let all = Range::new(&keys::DATA_MIN, &keys::DATA_MAX);
        let mut cursor = snapshot.cursor(cf, all, Direction::Forward)?;
        while let Some((key, value)) = cursor.next()? {
            content.rows += 1;
            for part in [&key.len().to_be_bytes(), key, value] {
                content.crc = crc32c::crc32c_append(content.crc, part);
            }
        }
    }
    Ok(content)
}

/// Whether all replicas come to hold the same. The last entries may be on their way still,
/// so they get some time.
pub(super) fn replicas_are_equal<M: Machine>(
    cluster: &Cluster<M>,
    patience: Duration,
) -> Result<bool, DemoError> {
    let mut contents = Vec::new();
    let mut failed = None;
    let waited = cluster.wait("equality of the replicas", patience, || {
        contents.clear();
        for (number, kv) in cluster.replicas() {
            match content(&kv) {
                Ok(found) => contents.push((number, found)),
                Err(source) => {
                    failed = Some(DemoError::Compare { number, source });
                    return true;
                }
            }
        }
        contents.windows(2).all(|pair| pair[0].1 == pair[1].1)
    });
    if let Some(error) = failed {
        return Err(error);
    }
    match waited {
        Ok(()) => Ok(!contents.is_empty()),
        Err(ClusterError::Late { .. }) => {
            for (number, Content { rows, crc }) in contents {
                say(&format!("store {number} holds {rows} rows with checksum {crc:08x}"));
            }
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}
