//! Reads under the lease beside the store thread, against the engine's own.

use std::{
    hint::black_box,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use engine_traits::{Cf, Reader as _};
use raftstore_core::runtime::NodeHandle;
use raftstore_proto::{Body, Command, Header, Operation, OperationResponse, Region, ResponseBody};
use transport_traits::BoxError;

use super::{
    engines::median,
    store::{Engines, STORES, config},
};
use crate::{
    KvFactory, LogFactory, Numbers, VALUE_BYTES,
    cluster::{Cluster, row_of_regions},
    key,
    load::Load,
};

/// Rows that are read.
const ROWS: u64 = 100_000;

/// Reads per second by lease and of the engine itself, each with so many threads.
///
/// # Errors
/// If an engine fails or a store does not start.
pub fn lease_reads<K: KvFactory, L: LogFactory>(
    threads: usize,
    slice: Duration,
    rounds: usize,
) -> Result<(f64, f64), BoxError> {
    let made = Engines::<K, L>::make(STORES)?;
    let engines: Vec<K::Engine> = made.engines.iter().map(|(kv, _)| kv.clone()).collect();
    let regions = row_of_regions(1, STORES, key);
    let cluster = Cluster::start(&config(), made.engines, &regions)?;
    let (region, leader) = fill(&cluster.handles, &regions);
    let handle = cluster.handles[leader].clone();
    let engine = engines[leader].clone();
    let header = Header {
        region: region.id,
        peer: region.peers[leader],
        epoch: Some(region.epoch),
        term: 0,
        read_quorum: false,
        replica_read: false,
    };
    let by_lease = |number: u64| -> Result<(), BoxError> {
        let get = Operation::Get { cf: Cf::Default, key: key(number) };
        let command = Command { header: header.clone(), body: Body::Operations(vec![get]) };
        match handle.command(command).wait().body? {
            ResponseBody::Operations(answers) => match &answers[..] {
                [OperationResponse::Get(Some(value))] if value.len() == VALUE_BYTES => Ok(()),
                other => Err(format!("row {number}: {other:?}").into()),
            },
            other => Err(format!("row {number}: {other:?}").into()),
        }
    };
    let by_engine = |number: u64| -> Result<(), BoxError> {
        let stored = raftstore_core::keys::data_key(&key(number));
        let value = black_box(engine.get(Cf::Default, &stored)?);
        value.map(drop).ok_or_else(|| format!("row {number} is not in the engine").into())
    };
    let (mut lease, mut raw) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (one, other) = (rate(threads, slice, &by_lease)?, rate(threads, slice, &by_engine)?);
        if round > 0 {
            lease.push(one);
            raw.push(other);
        }
    }
    cluster.stop();
    drop(made.folders);
    Ok((median(lease).unwrap_or_default(), median(raw).unwrap_or_default()))
}

/// Writes the rows, and gives the region and the place of its leader among the stores.
fn fill<K: engine_traits::KvEngine>(
    handles: &[NodeHandle<K>],
    regions: &[Region],
) -> (Region, usize) {
    const CLIENTS: u64 = 256;
    let value = Numbers::new(1).bytes(VALUE_BYTES);
    let keys = (0..CLIENTS).map(key).collect();
    let mut load = Load::new(handles.to_vec(), regions, keys, value);
    let (mut next, mut done) = (CLIENTS, 0);
    load.run_with(Instant::now() + Duration::from_secs(300), |_, row| {
        *row = key(next % ROWS);
        next += 1;
        done += 1;
        done >= ROWS + CLIENTS
    });
    let (region, leader) = load.route(&key(0));
    let place = region.peers.iter().position(|peer| peer.id == leader.id);
    (region, place.unwrap_or_default())
}

fn rate(
    threads: usize,
    slice: Duration,
    read: &(impl Fn(u64) -> Result<(), BoxError> + Sync),
) -> Result<f64, BoxError> {
    let over = AtomicBool::new(false);
    let ready = Barrier::new(threads + 1);
    let (over, ready) = (&over, &ready);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..threads as u64)
            .map(|thread| {
                scope.spawn(move || -> Result<u64, BoxError> {
                    let mut numbers = Numbers::new(thread);
                    ready.wait();
                    let mut count = 0;
                    while !over.load(Ordering::Relaxed) {
                        read(numbers.draw() % ROWS)?;
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        ready.wait();
        let begun = Instant::now();
        thread::sleep(slice);
        over.store(true, Ordering::Relaxed);
        let seconds = begun.elapsed().as_secs_f64();
        let mut reads = 0;
        for reader in readers {
            reads += reader.join().map_err(|_| "a reader has panicked")??;
        }
        Ok(reads as f64 / seconds)
    })
}
