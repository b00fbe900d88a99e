//! Regions: which keys are where, and how regions part.

use std::collections::BTreeSet;

use bytes::Bytes;
use raftstore_proto::{Peer, PeerId, Region, RegionId};

use super::{
    PdFixture,
    case::{Verdict, ensure, refused, same},
    world::{World, ask, heartbeat, wait},
};
use crate::{Error, RegionRoute};

pub(super) fn a_region_is_found_by_any_key_and_by_its_id(fixture: &dyn PdFixture) -> Verdict {
    let mut world = World::enter(fixture)?;
    let store = world.store()?;
    let region = world.with_peer(Peer::learner(PeerId::must(world.id()?), store.id));
    let leader = world.leader;
    let expected = Some(world.report(&region, leader)?);
    let other = fixture.client();
    same("by its id", &ask(other.region_by_id(region.id))?, &expected)?;
    let first = region.start_key.clone();
    same("by its first key", &ask(other.region_by_key(first.clone()))?, &expected)?;
    let within = Bytes::from([&first[..], &[0]].concat());
    if region.contains(&within) {
        same("by a key within", &ask(other.region_by_key(within))?, &expected)?;
    }
    // As it was, for the next case.
    let mut back = world.region.clone();
    back.epoch.conf_ver = region.epoch.conf_ver + 1;
    world.report(&back, leader).map(drop)
}

pub(super) fn what_nobody_reported_is_not_found(fixture: &dyn PdFixture) -> Verdict {
    let world = World::enter(fixture)?;
    let id = RegionId::must(world.id()?);
    same("a region nobody knows", &ask(world.pd.region_by_id(id))?, &None)?;
    same("what is done to it", &ask(world.pd.operator_status(id))?, &None)
}

/// Neither an older term nor an older epoch, whichever part of it, takes the place of what is
/// known. Reports are read in the order they were sent: that an old one was read shows in
/// the next one, on the other part.
pub(super) fn older_reports_change_nothing(fixture: &dyn PdFixture) -> Verdict {
    let mut world = World::enter(fixture)?;
    let old_term = world.next_term();
    let [left, right] = split(&mut world)?;
    let mut marker = right.region;
    let leader = left.leader.unwrap_or(world.leader);
    let marker_leader = right.leader.unwrap_or(world.leader);
    let mut other_members = world.region.clone();
    other_members.epoch.conf_ver += 1;
    let older = [
        (heartbeat(world.region.clone(), leader, world.next_term()), "an old range"),
        (heartbeat(other_members, leader, world.next_term()), "an old range with new members"),
        (heartbeat(left.region.clone(), leader, old_term), "an old term"),
    ];
    for (report, what) in older {
        // Whether it is refused at once or on the stream is the client's way.
        let outcome = wait(world.pd.region_heartbeat(report))?;
        ensure!(!matches!(outcome, Err(Error::Unavailable { .. })), "{what}: {outcome:?}");
        marker.epoch.conf_ver += 1;
        world.report(&marker, marker_leader)?;
        same(what, &ask(world.pd.region_by_id(left.region.id))?, &Some(left.clone()))?;
    }
    Ok(())
}

pub(super) fn split_ids_are_new_and_fit_the_region(fixture: &dyn PdFixture) -> Verdict {
    let mut world = World::enter(fixture)?;
    let (region, leader) = (world.region.clone(), world.leader);
    world.report(&region, leader)?;
    let mut seen = BTreeSet::new();
    for count in [1, 3] {
        let ids = ask(world.pd.ask_split(region.clone(), count))?;
        same("new regions", &ids.len(), &count)?;
        for (id, peers) in ids {
            same("new peers", &peers.len(), &region.peers.len())?;
            let all = peers.into_iter().map(PeerId::get).chain([id.get()]);
            for id in all {
                ensure!(seen.insert(id), "id {id} was given out twice");
            }
        }
    }
    ensure!(seen.insert(world.id()?), "an id of a split was given out again");
    refused("no new regions", wait(world.pd.ask_split(region.clone(), 0))?)?;
    let mut newer = region.clone();
    newer.epoch.version += 1;
    newer.epoch.conf_ver += 1;
    world.report(&newer, leader)?;
    refused("an old epoch", wait(world.pd.ask_split(region, 1))?).map(drop)
}

/// Cuts the region of the empty key in two at a key near its start.
fn split(world: &mut World) -> Verdict<[RegionRoute; 2]> {
    let whole = world.region.clone();
    let leader = world.leader;
    world.report(&whole, leader)?;
    // Between the first key and the end of the region, whatever that is.
    let cut = match whole.end_key.split_last() {
        None => Bytes::from_static(b"m"),
        Some((last, head)) => Bytes::from([head, &[last.saturating_sub(1), 0xff]].concat()),
    };
    ensure!(whole.contains(&cut) && cut > whole.start_key, "no key to cut {whole:?} at");
    let ids = ask(world.pd.ask_split(whole.clone(), 1))?;
    let mut left = whole.clone();
    left.epoch.version += 1;
    let mut right = left.clone();
    left.end_key = cut.clone();
    right.start_key = cut;
    // The left part keeps its id here.
    let (id, peers) = &ids[0];
    right.id = *id;
    for (peer, id) in right.peers.iter_mut().zip(peers) {
        peer.id = *id;
    }
    ask(world.pd.report_split(vec![left.clone(), right.clone()]))?;
    let led_by = |region: &Region| region.peer_on(leader.store).copied().unwrap_or(leader);
    let (left_leader, right_leader) = (led_by(&left), led_by(&right));
    let right = world.report(&right, right_leader)?;
    let left = world.report(&left, left_leader)?;
    Ok([left, right])
}

pub(super) fn a_split_is_seen_once_its_parts_report(fixture: &dyn PdFixture) -> Verdict {
    let mut world = World::enter(fixture)?;
    let [left, right] = split(&mut world)?;
    let pd = fixture.client();
    let cut = right.region.start_key.clone();
    same("the left part", &ask(pd.region_by_key(Bytes::new()))?, &Some(left.clone()))?;
    same("the right part", &ask(pd.region_by_key(cut))?, &Some(right.clone()))?;
    // What the whole was is older than both.
    let whole = heartbeat(world.region.clone(), world.leader, world.next_term());
    let _ = wait(pd.region_heartbeat(whole))?;
    let leader = right.leader.unwrap_or(world.leader);
    let mut right = right.region;
    right.epoch.conf_ver += 1;
    world.report(&right, leader)?;
    same("the left part", &ask(pd.region_by_key(Bytes::new()))?, &Some(left))
}

pub(super) fn scans_are_bounded_by_keys_and_count(fixture: &dyn PdFixture) -> Verdict {
    let mut world = World::enter(fixture)?;
    let [left, right] = split(&mut world)?;
    let pd = fixture.client();
    let (none, cut) = (Bytes::new(), right.region.start_key.clone());
    let all = ask(pd.scan_regions(none.clone(), none.clone(), 1000))?;
    ensure!(all.starts_with(&[left.clone(), right.clone()]), "the whole is {all:?}");
    for pair in all.windows(2) {
        same("neighbours", &pair[1].region.start_key, &pair[0].region.end_key)?;
    }
    let both = [left.clone(), right.clone()];
    let after = right.region.end_key.clone();
    let cases: [(&str, &Bytes, &Bytes, usize, &[RegionRoute]); 5] = [
        ("one", &none, &none, 1, &both[..1]),
        ("from a first key", &cut, &none, 1, &both[1..]),
        ("up to a first key", &none, &cut, 9, &both[..1]),
        ("up to a last key", &none, &after, 2, &both[..]),
        ("nothing", &none, &none, 0, &[]),
    ];
    for (what, start, end, limit, expected) in cases {
        let found = ask(pd.scan_regions(start.clone(), end.clone(), limit))?;
        same(what, &found.as_slice(), &expected)?;
    }
    Ok(())
}
