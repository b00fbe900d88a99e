//! Checking: every acknowledged key read back through the cluster.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{DemoError, PATIENCE, progress_bar, say, shown};
use crate::{cluster::Cluster, machine::Machine, manifest::Manifest, report::ReadBack};
use raftstore_core::runtime::client::{Client, Request, Ticket};

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
