//! The outage: the store that leads most regions loses its power in the middle of the load,
//! stays away for a while, comes back and catches up.

use std::{thread, time::Duration};

use crossbeam_channel::Receiver;

use super::{
    DemoError, Mark, PATIENCE, QUIET,
    load::{Outage, Phase},
    say,
};
use crate::{
    cluster::{Cluster, ClusterError},
    machine::Machine,
    regions::RegionMap,
};

/// How long the store that was cut stays away.
const AWAY: Duration = Duration::from_secs(3);

/// Patience with PD's spreading of leaders before the cut. Without an end to it a slow
/// machine would see no outage.
const SPREAD_PATIENCE: Duration = Duration::from_secs(10);

/// What there is to tell of an outage.
pub(super) struct Cut {
    /// The regions right before the cut.
    pub(super) regions: RegionMap,
    /// The cut.
    pub(super) cut: Mark,
    /// When the store had caught up.
    pub(super) back: Mark,
}

/// Ends the wait for the outage also where there is none, or its thread has failed.
struct Release<'a>(&'a Outage);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.enter(Phase::After);
    }
}

/// Waits for the signal, and for regions to be spread; cuts the power of the store that
/// leads most of them, and brings it back after a while. Gives nothing if the load ended
/// before the signal.
pub(super) fn cut_and_restart<M: Machine>(
    cluster: &Cluster<M>,
    replicas: usize,
    outage: &Outage,
    signal: &Receiver<()>,
    mark: impl Fn() -> Mark,
) -> Result<Option<Cut>, DemoError> {
    let release = Release(outage);
    if signal.recv().is_err() {
        return Ok(None);
    }
    match cluster.wait_for_rest(replicas, QUIET / 2, SPREAD_PATIENCE) {
        Ok(_) | Err(ClusterError::Late { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let regions = cluster.wait_for_replicas(replicas, PATIENCE)?;
    let Some(number) = regions.busiest() else { return Ok(None) };
    say(&format!(
        "cutting the power of store {number}, which leads {} of {} regions",
        regions.led_by(number),
        regions.regions().len()
    ));
    let cut = mark();
    outage.enter(Phase::Outage);
    cluster.cut(number);
    // The end of the load is no reason to come back earlier.
    thread::sleep(AWAY);
    cluster.restart(number)?;
    cluster.wait_for_caught_up(number, PATIENCE)?;
    drop(release);
    Ok(Some(Cut { regions, cut, back: mark() }))
}
