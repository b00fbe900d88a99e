//! Cases about what is left of logs after a stop, a power cut, or damage.

use raftstore_proto::RegionId;

use super::super::case::{Failure, Verdict, ensure, same};
use super::super::fixture::RaftLogFixture;
use super::log_model::{Change, Model, carry_out};
use super::{ONE, THREE, TWO, append, entries, entry, entry_with, read, state, supported, write};
use crate::Durability::{Buffered, Synced};
use crate::{Error, RaftEngine, RaftLogBatch};

/// Cuts the power keeping no unsynced write, and opens again.
fn cut<F: RaftLogFixture>(fixture: &mut F, engine: F::Engine) -> Result<F::Engine, Failure> {
    supported(fixture.power_cut(engine, 0))?;
    Ok(fixture.open()?)
}

fn stop<F: RaftLogFixture>(fixture: &mut F, engine: F::Engine) -> Result<F::Engine, Failure> {
    supported(fixture.stop(engine))?;
    Ok(fixture.open()?)
}

/// An orderly stop keeps entries and states that were synced.
pub(super) fn stop_keeps_synced_logs<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    let mut fixture = make();
    let mut engine = fixture.open()?;
    for round in 1..4 {
        for region in [ONE, TWO] {
            write(&engine, Synced, |batch| {
                batch.append(region, &entries(10 * round, 10 * round + 10, 1));
                batch.put_raft_state(region, &state(round));
            })?;
        }
        engine = stop(&mut fixture, engine)?;
        for region in [ONE, TWO] {
            let want = entries(10, 10 * round + 10, 1);
            same("entries", &read(&engine, region, 10, 99)?, &want)?;
            same("state", &engine.raft_state(region)?, &Some(state(round)))?;
        }
        same("regions", &engine.regions()?, &vec![ONE, TWO])?;
    }
    Ok(())
}

/// A reopened engine knows its logs' ends: it refuses holes and replaces suffixes.
pub(super) fn reopened_log_knows_its_bounds<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    let mut fixture = make();
    let engine = fixture.open()?;
    write(&engine, Synced, |batch| batch.append(ONE, &entries(5, 40, 1)))?;
    let engine = stop(&mut fixture, engine)?;
    let hole = write(&engine, Buffered, |batch| batch.append(ONE, &entries(41, 43, 2)));
    ensure!(matches!(hole, Err(Error::InvalidBatch { .. })), "a hole gave {hole:?}");
    append(&engine, ONE, &entries(8, 10, 2))?;
    same("replaced", &read(&engine, ONE, 8, 99)?, &entries(8, 10, 2))?;
    same("above", &engine.entry(ONE, 39)?, &None)?;
    write(&engine, Synced, |batch| batch.truncate_prefix(ONE, 7))?;
    let engine = stop(&mut fixture, engine)?;
    same("below", &engine.entry(ONE, 6)?, &None)?;
    same("first", &engine.entry(ONE, 7)?, &Some(entry(7, 1)))
}

/// A synced append is there after a power cut, in all regions of its batch.
pub(super) fn synced_append_survives_a_power_cut<F: RaftLogFixture>(
    make: &dyn Fn() -> F,
) -> Verdict {
    let mut fixture = make();
    let mut engine = fixture.open()?;
    for index in 1..5 {
        write(&engine, Synced, |batch| {
            for region in [ONE, TWO, THREE] {
                batch.append(region, &[entry(index, 1)]);
                batch.put_raft_state(region, &state(index));
            }
        })?;
        engine = cut(&mut fixture, engine)?;
        for region in [ONE, TWO, THREE] {
            same("entries", &read(&engine, region, 1, 9)?, &entries(1, index + 1, 1))?;
            same("state", &engine.raft_state(region)?, &Some(state(index)))?;
        }
    }
    Ok(())
}

/// A `sync`, a synced write and an empty synced batch each make earlier writes durable.
pub(super) fn every_sync_takes_earlier_appends_along<F: RaftLogFixture>(
    make: &dyn Fn() -> F,
) -> Verdict {
    for way in ["sync", "synced write"] {
        let mut fixture = make();
        let engine = fixture.open()?;
        append(&engine, ONE, &entries(1, 4, 1))?;
        write(&engine, Buffered, |batch| batch.put_raft_state(TWO, &state(1)))?;
        if way == "sync" {
            engine.sync()?;
        } else {
            write(&engine, Synced, |batch| batch.append(THREE, &entries(1, 2, 1)))?;
        }
        let engine = cut(&mut fixture, engine)?;
        same(way, &read(&engine, ONE, 1, 9)?, &entries(1, 4, 1))?;
        same(way, &engine.raft_state(TWO)?, &Some(state(1)))?;
    }
    Ok(())
}

/// An empty synced batch makes all writes before it durable.
pub(super) fn empty_synced_log_batch_is_a_sync<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    let mut fixture = make();
    let engine = fixture.open()?;
    append(&engine, ONE, &entries(1, 4, 1))?;
    write(&engine, Synced, |_| {})?;
    let engine = cut(&mut fixture, engine)?;
    same("entries", &read(&engine, ONE, 1, 9)?, &entries(1, 4, 1))
}

/// Synced replacements, truncations and clears are still done after a power cut.
pub(super) fn synced_removals_survive_a_power_cut<F: RaftLogFixture>(
    make: &dyn Fn() -> F,
) -> Verdict {
    let mut fixture = make();
    let engine = fixture.open()?;
    for region in [ONE, TWO, THREE] {
        append(&engine, region, &entries(1, 30, 1))?;
    }
    engine.sync()?;
    write(&engine, Synced, |batch| {
        batch.append(ONE, &entries(4, 6, 2));
        batch.truncate_prefix(TWO, 20);
        batch.clear_region(THREE);
    })?;
    let engine = cut(&mut fixture, engine)?;
    same("replaced", &read(&engine, ONE, 4, 99)?, &entries(4, 6, 2))?;
    same("above", &engine.entry(ONE, 29)?, &None)?;
    same("truncated", &engine.entry(TWO, 19)?, &None)?;
    same("kept", &read(&engine, TWO, 20, 99)?, &entries(20, 30, 1))?;
    same("regions", &engine.regions()?, &vec![ONE, TWO])
}

/// The writes of the scripted runs; each leaves a state of its own.
fn script() -> Vec<Vec<Change>> {
    let mark = |number: u64| Change::PutRaftState(THREE, state(number));
    vec![
        vec![Change::Append(ONE, entries(1, 5, 1)), mark(1)],
        vec![Change::Append(TWO, entries(1, 3, 1)), mark(2)],
        vec![Change::Append(ONE, entries(5, 30, 1)), Change::PutRaftState(ONE, state(9)), mark(3)],
        vec![Change::Append(ONE, entries(3, 6, 2)), Change::Append(TWO, entries(3, 4, 2)), mark(4)],
        vec![Change::TruncatePrefix(ONE, 4), mark(5)],
        vec![Change::Clear(TWO), Change::Append(TWO, entries(9, 12, 3)), mark(6)],
        vec![Change::Append(ONE, entries(6, 8, 3)), Change::TruncatePrefix(TWO, 11), mark(7)],
        vec![Change::Clear(ONE), mark(8)],
    ]
}

/// A power cut after any number of writes, one of them synced or none, leaves the state
/// after some number of them, and not less than the synced one (W5).
pub(super) fn power_cut_leaves_a_prefix_of_log_writes<F: RaftLogFixture>(
    make: &dyn Fn() -> F,
) -> Verdict {
    let script = script();
    for count in 0..=script.len() {
        for synced in 0..=count {
            let keep = (count - synced) / 2;
            let mut fixture = make();
            let engine = fixture.open()?;
            let mut states = vec![Model::default()];
            for (number, changes) in script.iter().take(count).enumerate() {
                let durability = if number + 1 == synced { Synced } else { Buffered };
                carry_out(&engine, changes, durability)?;
                let mut state = states[number].clone();
                state.apply(changes);
                states.push(state);
            }
            supported(fixture.power_cut(engine, keep))?;
            let left = Model::read(&fixture.open()?)?;
            let prefix = states.iter().position(|state| *state == left);
            ensure!(
                prefix.is_some_and(|prefix| prefix >= synced),
                "{count} writes, {synced} synced: {prefix:?} are left: {left:?}"
            );
        }
    }
    Ok(())
}

/// A batch over many regions is whole or absent after a power cut.
pub(super) fn power_cut_never_tears_a_log_batch<F: RaftLogFixture>(
    make: &dyn Fn() -> F,
) -> Verdict {
    for keep in 0..4 {
        let mut fixture = make();
        let engine = fixture.open()?;
        for index in 1..5 {
            write(&engine, Buffered, |batch| {
                for region in 1..20 {
                    batch.append(RegionId::must(region), &[entry(index, 1)]);
                }
            })?;
        }
        supported(fixture.power_cut(engine, keep))?;
        let engine = fixture.open()?;
        let first = read(&engine, ONE, 1, 9)?;
        for region in 1..20 {
            let got = read(&engine, RegionId::must(region), 1, 9)?;
            same("another region after the cut", &got, &first)?;
        }
    }
    Ok(())
}

/// A log that lost power takes and keeps appends as before, from where it now ends.
pub(super) fn log_works_on_after_a_power_cut<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    let mut fixture = make();
    let mut engine = fixture.open()?;
    for index in 1..5 {
        write(&engine, Synced, |batch| batch.append(ONE, &[entry(index, 1)]))?;
        append(&engine, ONE, &entries(index + 1, index + 4, 2))?;
        supported(fixture.power_cut(engine, 0))?;
        engine = fixture.open()?;
        let kept = read(&engine, ONE, 1, 99)?;
        same("kept", &kept[..kept.len().min(usize_of(index))].to_vec(), &entries(1, index + 1, 1))?;
        append(&engine, ONE, &entries(index + 1, index + 2, 3))?;
        same("appended", &engine.entry(ONE, index + 1)?, &Some(entry(index + 1, 3)))?;
    }
    Ok(())
}

fn usize_of(index: u64) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// A damaged entry is an error of its region's log, or unharmed: never a wrong entry, never
/// an absent one, and other entries stay readable one by one.
pub(super) fn damaged_entry_is_an_error<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    let mut fixture = make();
    let engine = fixture.open()?;
    let payload = |index: u64| format!("a payload of its own: {index:08}");
    let stored: Vec<_> =
        (1..101).map(|index| entry_with(index, 1, payload(index).as_bytes())).collect();
    write(&engine, Synced, |batch| {
        batch.append(ONE, &stored);
        batch.append(TWO, &entries(1, 50, 1));
    })?;
    supported(fixture.stop(engine))?;
    supported(fixture.damage(ONE, Some(42), payload(42).as_bytes()))?;
    let Ok(engine) = fixture.open() else {
        return Ok(());
    };
    for want in &stored {
        match engine.entry(ONE, want.index()) {
            Ok(got) => same("entry after damage", &got.as_ref(), &Some(want))?,
            Err(Error::CorruptLog { region: ONE, .. }) => {}
            Err(other) => ensure!(false, "damage in a log gave {other:?}"),
        }
    }
    for (low, high) in [(1, 101), (40, 45), (42, 43)] {
        let mut out = Vec::new();
        let read = engine.entries(ONE, low, high, u64::MAX, &mut out);
        let right = out.iter().zip(&stored[usize_of(low) - 1..]).all(|(got, want)| got == want);
        ensure!(right, "a run over damage gave a wrong entry");
        if read.is_ok() {
            same("entries of a run over damage", &out.len(), &usize_of(high - low))?;
        }
    }
    Ok(())
}

/// A damaged raft state is an error of its region's log, or unharmed, and no other region's.
pub(super) fn damaged_raft_state_is_an_error<F: RaftLogFixture>(make: &dyn Fn() -> F) -> Verdict {
    let mut fixture = make();
    let engine = fixture.open()?;
    write(&engine, Synced, |batch| {
        batch.put_raft_state(ONE, &state(1));
        batch.put_raft_state(TWO, &state(2));
    })?;
    supported(fixture.stop(engine))?;
    supported(fixture.damage(ONE, None, b""))?;
    let Ok(engine) = fixture.open() else {
        return Ok(());
    };
    match engine.raft_state(ONE) {
        Ok(got) => same("state after damage", &got, &Some(state(1)))?,
        Err(Error::CorruptLog { region: ONE, .. }) => {}
        Err(other) => ensure!(false, "damage to a state gave {other:?}"),
    }
    same("the other region", &engine.raft_state(TWO)?, &Some(state(2)))
}
