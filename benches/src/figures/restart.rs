//! How soon a store that was stopped serves again.

use std::time::{Duration, Instant};

use transport_traits::BoxError;

use super::store::{Engines, config};
use crate::{
    KvFactory, LogFactory, Numbers, VALUE_BYTES,
    cluster::{Cluster, row_of_regions},
    key,
    load::Load,
};

/// Seconds from opening the engines of a lone store with so many regions and so many rows of
/// data until it leads all its regions, after it was stopped in good order.
///
/// # Errors
/// If an engine fails or the store does not start.
pub fn restart<K: KvFactory, L: LogFactory>(regions: u64, rows: u64) -> Result<f64, BoxError> {
    const CLIENTS: u64 = 512;
    let made = Engines::<K, L>::make(1)?;
    let row = row_of_regions(regions, 1, |number| key(number * rows / regions));
    let cluster = Cluster::start(&config(), made.engines, &row)?;
    let keys = (0..CLIENTS).map(|client| key(client % rows)).collect();
    let value = Numbers::new(1).bytes(VALUE_BYTES);
    let mut load = Load::new(cluster.handles.clone(), &row, keys, value);
    let (mut next, mut done) = (CLIENTS, 0);
    load.run_with(Instant::now() + Duration::from_secs(300), |_, row| {
        *row = key(next % rows);
        next += 1;
        done += 1;
        done >= rows
    });
    drop(load);
    cluster.stop();
    let begun = Instant::now();
    let folder = made.folders[0].path();
    let engines = vec![(K::open(folder)?, L::open(folder)?)];
    let cluster = Cluster::start_again(&config(), engines, &row)?;
    while cluster.led() < regions {
        if begun.elapsed() > Duration::from_secs(300) {
            return Err("the store never led its regions again".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let seconds = begun.elapsed().as_secs_f64();
    cluster.stop();
    Ok(seconds)
}
