//! One run of one seed: a phase with faults in which nothing wrong may happen, then a
//! phase without in which everything must come right.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use raftstore_core::{Dropped, PeerPhase};
use raftstore_proto::{Epoch, PeerRole, Region};

use crate::{
    counters::Counters,
    disk::Disk,
    invariants::{Violation, all_rows, logical_content},
    oracle::Outcome as CallOutcome,
    plan::Plan,
    queue::{MILLI, Nanos, SECOND},
    transcript::Transcript,
    world::World,
};

/// How long the cluster has to elect its first leaders.
const SETTLE: Nanos = 2 * SECOND;
/// How long it has to serve every region again once nothing breaks any more.
const SERVE_WITHIN: Nanos = 40 * SECOND;
/// How long it has to make all replicas equal.
const CONVERGE_WITHIN: Nanos = 90 * SECOND;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The first violation and when it was seen.
    pub violation: Option<(Nanos, Violation)>,
    /// Hash of everything that happened.
    pub hash: u64,
    /// Events recorded.
    pub lines: u64,
    /// Steps taken.
    pub steps: u64,
    /// Simulated time.
    pub simulated: Nanos,
    /// How often rare things happened.
    pub counters: Counters,
    /// The timeline, if it was kept.
    pub timeline: Vec<String>,
}

/// Runs `plan`. Panics of the core are violations like all others.
#[must_use]
pub fn run(plan: Plan, transcript: Transcript) -> Outcome {
    run_on(plan, transcript, |_| Disk::default())
}

/// Runs `plan` with stores on the disks that `disk_of` gives for their numbers.
#[must_use]
pub fn run_on(plan: Plan, transcript: Transcript, mut disk_of: impl FnMut(u64) -> Disk) -> Outcome {
    let seed = plan.seed;
    let mut world = World::new(plan, transcript);
    for (store, node) in &mut world.nodes {
        node.disk = disk_of(*store);
    }
    let ended = catching(|| phases(&mut world));
    if let Err(message) = ended {
        world.fail(Violation::new("nothing panics", message));
    }
    world.harvest_all();
    Outcome {
        seed,
        violation: world.violation.clone(),
        hash: world.transcript.hash(),
        lines: world.transcript.len(),
        steps: world.steps(),
        simulated: world.now,
        counters: world.counters.clone(),
        timeline: world.transcript.take_lines(),
    }
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `body`; a panic comes back as its message.
fn catching(body: impl FnOnce()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
        let place = PANIC.with(|panic| panic.borrow_mut().take());
        place.unwrap_or_else(|| {
            payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "a panic without words".to_owned())
        })
    })
}

/// Keeps panics of runs off the terminal; their place and words become part of the
/// violation. For programs that run many seeds.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        PANIC.with(|panic| *panic.borrow_mut() = Some(info.to_string()));
    }));
}

fn phases(world: &mut World) {
    world.seed_cluster();
    world.start_all();
    world.run_until(SETTLE);
    world.start_clients();
    world.start_faults();
    let end = world.now + world.plan.safety;
    world.run_until(end);
    if world.violation().is_some() {
        return;
    }
    world.heal();
    serve(world);
    world.stop_clients();
    world.pd.core.set_config(pd_client::mock::PdConfig::manual());
    drain(world);
    converge(world);
    if world.violation().is_some() {
        return;
    }
    world.read_everything();
    let end = world.now + 10 * SECOND;
    world.run_until(end);
    judge(world);
}

/// Every region must take a write, those that come meanwhile too.
fn serve(world: &mut World) {
    let mut served = BTreeSet::new();
    let deadline = world.now + SERVE_WITHIN;
    while world.violation().is_none() {
        let left: Vec<Region> = world
            .regions()
            .into_values()
            .filter(|region| !served.contains(&region.id.get()))
            .collect();
        if left.is_empty() && !served.is_empty() {
            return;
        }
        if world.now >= deadline {
            let detail: Vec<String> =
                left.iter().map(|region| describe(world, region.id.get())).collect();
            let detail = detail.join("; ");
            return world.fail(Violation::new("serves once faults have ended", detail));
        }
        let probes = world.probe(left.iter());
        let end = world.now + 5 * SECOND;
        world.run_until(end);
        for (region, id) in probes {
            // A region that was split meanwhile has to show once more what it can do.
            let holds = world.newest_region(region).is_some_and(|region| region.contains(&id.0));
            if holds && matches!(world.history.outcome(&id), Some(CallOutcome::Done(_))) {
                served.insert(region);
            }
        }
    }
}

/// Lets open calls end.
fn drain(world: &mut World) {
    let end = world.now + 5 * SECOND;
    world.run_until(end);
}

/// All replicas must become equal. Not all regions at one moment: stores go on comparing
/// their replicas, for which one log or the other always grows.
fn converge(world: &mut World) {
    let deadline = world.now + CONVERGE_WITHIN;
    let mut equal = BTreeMap::new();
    while world.violation().is_none() {
        let Some(difference) = difference(world, &mut equal) else { return };
        if world.now >= deadline {
            return world.fail(Violation::new("replicas become equal", difference));
        }
        let end = world.now + 500 * MILLI;
        world.run_until(end);
    }
}

/// Why the replicas are not equal yet. Regions that were found equal, in the epoch that they
/// are in, stay so: nobody writes to them any more.
fn difference(world: &World, equal: &mut BTreeMap<u64, Epoch>) -> Option<String> {
    let regions = world.regions();
    if let Some(gap) = gap(regions.values()) {
        return Some(gap);
    }
    let mut first = None;
    for (id, region) in &regions {
        if equal.get(id) == Some(&region.epoch) {
            continue;
        }
        match region_difference(world, *id) {
            None => {
                equal.insert(*id, region.epoch);
            }
            Some(difference) => first = first.or(Some(difference)),
        }
    }
    first.or_else(|| world.nodes.keys().find_map(|store| strays(world, *store)))
}

/// Where the regions do not follow upon each other without gap and overlap.
fn gap<'a>(regions: impl Iterator<Item = &'a Region>) -> Option<String> {
    let mut regions: Vec<&Region> = regions.collect();
    regions.sort_unstable_by(|a, b| a.start_key.cmp(&b.start_key));
    let (first, last) = (regions.first()?, regions.last()?);
    if !first.start_key.is_empty() || !last.end_key.is_empty() {
        return Some(format!("regions do not reach from end to end: {first:?} to {last:?}"));
    }
    let mut pairs = regions.windows(2);
    let pair = pairs.find(|pair| pair[0].end_key != pair[1].start_key)?;
    Some(format!("regions do not follow upon each other: {:?} and {:?}", pair[0], pair[1]))
}

/// Data on a store that belongs to none of its regions.
fn strays(world: &World, store: u64) -> Option<String> {
    let regions = world.registered(store);
    let rows = all_rows(&world.nodes.get(&store)?.disk.kv).ok()?;
    let (family, key) =
        rows.into_iter().find(|(_, key)| !regions.iter().any(|region| region.contains(key)))?;
    Some(format!("store {store} holds key {} in {family:?} for nobody", key.escape_ascii()))
}

fn region_difference(world: &World, region: u64) -> Option<String> {
    let Some(store) = world.leader_store(region) else {
        return Some(format!("no leader: {}", describe(world, region)));
    };
    let leader = world.peer_status(store, region)?;
    if leader.region.is_joint() {
        // R40: leaders end it by themselves.
        return Some(format!("a joint configuration is not left: {}", describe(world, region)));
    }
    for node in world.nodes.values() {
        let status = world.peer_status(node.id, region);
        match (leader.region.peers.iter().find(|peer| peer.store.get() == node.id), status) {
            (None, None) => {}
            (None, Some(stray)) => {
                return Some(format!(
                    "region {region}: store {} still has peer {}, {:?} at applied {}",
                    node.id, stray.peer.id, stray.phase, stray.applied.applied
                ));
            }
            (Some(_), None) => {
                return Some(format!("region {region}: store {} has no peer", node.id));
            }
            (Some(_), Some(replica)) => {
                let same = replica.phase == PeerPhase::Normal
                    && replica.applied.applied == leader.applied.applied
                    && replica.applied.applied_term == leader.applied.applied_term
                    && leader.applied.applied == leader.last_index
                    && same_region(&replica.region, &leader.region);
                if !same {
                    return Some(describe(world, region));
                }
            }
        }
    }
    content_difference(world, region, &leader.region)
}

fn content_difference(world: &World, region: u64, shape: &Region) -> Option<String> {
    let mut contents = shape.peers.iter().filter_map(|peer| {
        let node = world.nodes.get(&peer.store.get())?;
        Some((node.id, logical_content(&node.disk.kv, shape).ok()?))
    });
    let (first, content) = contents.next()?;
    contents
        .find(|(_, other)| *other != content)
        .map(|(store, _)| format!("region {region}: stores {first} and {store} hold other data"))
}

fn same_region(a: &Region, b: &Region) -> bool {
    let members = |region: &Region| -> BTreeSet<(u64, u64, PeerRole)> {
        region.peers.iter().map(|peer| (peer.id.get(), peer.store.get(), peer.role)).collect()
    };
    a.epoch == b.epoch
        && a.start_key == b.start_key
        && a.end_key == b.end_key
        && members(a) == members(b)
}

/// One line per replica of a region.
fn describe(world: &World, region: u64) -> String {
    let replicas: Vec<String> = world
        .nodes
        .keys()
        .filter_map(|store| {
            let status = world.peer_status(*store, region)?;
            Some(format!(
                "s{store} p{} {:?}{} t{} applied {} commit {} last {} members {:?}",
                status.peer.id,
                status.phase,
                if status.is_leader { " leads" } else { "" },
                status.term,
                status.applied.applied,
                status.committed,
                status.last_index,
                status.region.peers.iter().map(|peer| peer.id.get()).collect::<Vec<_>>()
            ))
        })
        .collect();
    format!("region {region}: {}", replicas.join(", "))
}

/// What can only be judged at the end.
fn judge(world: &mut World) {
    if world.violation().is_some() {
        return;
    }
    let before = world.now.saturating_sub(8 * SECOND);
    if let Err(fault) = world.answers.require_all(before) {
        world.fail(Violation::new("every answer exactly once", fault.to_string()));
    }
    if let Err(fault) = world.history.check() {
        world.fail(Violation::new("linearizable per key", fault.to_string()));
    }
    let stores: Vec<u64> = world.nodes.keys().copied().collect();
    for store in stores {
        let lanes = world.metrics(store);
        let forged: u64 = lanes.iter().filter_map(|lane| lane.dropped.get(&Dropped::Forged)).sum();
        if forged > 0 {
            let detail = format!("store {store} has refused {forged}");
            world.fail(Violation::new("what stores say is never taken for made up", detail));
        }
    }
}
