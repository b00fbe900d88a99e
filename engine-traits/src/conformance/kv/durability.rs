//! Cases about what is left after a stop, a power cut, or damage.

use bytes::Bytes;
use raftstore_proto::Cf;

use super::super::case::{Failure, Verdict, ensure, same};
use super::super::fixture::KvFixture;
use super::model::{Model, carry_out};
use super::{keys, put, put_letters, scan, supported, write};
use crate::Direction::{Backward, Forward};
use crate::Durability::{Buffered, Synced};
use crate::mem::Op;
use crate::{KvEngine, Range, Reader, WriteBatch};

const CF: Cf = Cf::Default;

/// Cuts the power keeping no unsynced write, and opens again.
fn cut<F: KvFixture>(fixture: &mut F, engine: F::Engine) -> Result<F::Engine, Failure> {
    supported(fixture.power_cut(engine, 0))?;
    Ok(fixture.open()?)
}

fn stop<F: KvFixture>(fixture: &mut F, engine: F::Engine) -> Result<F::Engine, Failure> {
    supported(fixture.stop(engine))?;
    Ok(fixture.open()?)
}

fn text(what: &str, got: &str, want: &str) -> Verdict {
    same(what, &got, &want)
}

/// An orderly stop keeps everything synced, in all families.
pub(super) fn stop_keeps_synced_writes<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    let mut fixture = make();
    let mut engine = fixture.open()?;
    let mut want = String::new();
    for round in ["a", "b", "c"] {
        want.push_str(round);
        write(&engine, Synced, |batch| {
            for cf in Cf::ALL {
                batch.put(cf, round.as_bytes(), cf.name().as_bytes());
            }
        })?;
        engine = stop(&mut fixture, engine)?;
        for cf in Cf::ALL {
            text(cf.name(), &keys(&engine, cf, Range::ALL, Forward)?, &want)?;
            text(
                "backward",
                &keys(&engine, cf, Range::ALL, Backward)?,
                &want.chars().rev().collect::<String>(),
            )?;
        }
    }
    Ok(())
}

/// What an orderly stop leaves of unsynced writes is a prefix.
pub(super) fn stop_keeps_a_prefix_of_unsynced_writes<F: KvFixture>(
    make: &dyn Fn() -> F,
) -> Verdict {
    let mut fixture = make();
    let engine = fixture.open()?;
    for letter in ["a", "b", "c", "d"] {
        put_letters(&engine, CF, letter)?;
    }
    let engine = stop(&mut fixture, engine)?;
    let left = keys(&engine, CF, Range::ALL, Forward)?;
    ensure!("abcd".starts_with(&left), "{left:?} is left of a, b, c, d");
    Ok(())
}

/// A synced write is there after a power cut.
pub(super) fn synced_write_survives_a_power_cut<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    let mut fixture = make();
    let mut engine = fixture.open()?;
    for round in 0..4_u8 {
        for cf in Cf::ALL {
            write(&engine, Synced, |batch| batch.put(cf, b"k", &[round]))?;
        }
        engine = cut(&mut fixture, engine)?;
        for cf in Cf::ALL {
            let want = Some(Bytes::copy_from_slice(&[round]));
            same(cf.name(), &engine.get(cf, b"k")?, &want)?;
        }
    }
    Ok(())
}

/// Buffered writes are there after a `sync` and a power cut.
pub(super) fn sync_makes_buffered_writes_durable<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    let mut fixture = make();
    let engine = fixture.open()?;
    for letter in ["a", "b", "c"] {
        put_letters(&engine, CF, letter)?;
    }
    engine.sync()?;
    let engine = cut(&mut fixture, engine)?;
    text("rows", &keys(&engine, CF, Range::ALL, Forward)?, "abc")
}

/// A synced write makes all writes before it durable, in whatever family.
pub(super) fn synced_write_takes_earlier_ones_along<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    let mut fixture = make();
    let engine = fixture.open()?;
    put_letters(&engine, CF, "a")?;
    put_letters(&engine, Cf::Lock, "b")?;
    write(&engine, Buffered, |batch| batch.delete(CF, b"x"))?;
    write(&engine, Synced, |batch| batch.put(Cf::Write, b"c", b"C"))?;
    let engine = cut(&mut fixture, engine)?;
    text("default", &keys(&engine, CF, Range::ALL, Forward)?, "a")?;
    text("lock", &keys(&engine, Cf::Lock, Range::ALL, Forward)?, "b")?;
    text("write", &keys(&engine, Cf::Write, Range::ALL, Forward)?, "c")
}

/// An empty synced batch makes all writes before it durable.
pub(super) fn empty_synced_batch_is_a_sync<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    let mut fixture = make();
    let engine = fixture.open()?;
    put_letters(&engine, CF, "a")?;
    put_letters(&engine, CF, "b")?;
    write(&engine, Synced, |_| {})?;
    let engine = cut(&mut fixture, engine)?;
    text("rows", &keys(&engine, CF, Range::ALL, Forward)?, "ab")
}

/// A sync with nothing to do is no error, and a second one neither.
pub(super) fn idle_sync_is_no_error<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    let mut fixture = make();
    let engine = fixture.open()?;
    engine.sync()?;
    put_letters(&engine, CF, "a")?;
    engine.sync()?;
    engine.sync()?;
    let engine = stop(&mut fixture, engine)?;
    text("rows", &keys(&engine, CF, Range::ALL, Forward)?, "a")
}

/// Synced deletions are still done after a power cut.
pub(super) fn synced_deletions_survive_a_power_cut<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    let mut fixture = make();
    let engine = fixture.open()?;
    put_letters(&engine, CF, "abcdef")?;
    engine.sync()?;
    write(&engine, Synced, |batch| {
        batch.delete(CF, b"a");
        batch.delete_range(CF, Range::new(b"c", b"e"));
    })?;
    let engine = cut(&mut fixture, engine)?;
    text("rows", &keys(&engine, CF, Range::ALL, Forward)?, "bef")
}

/// Ingested rows are there after a `sync` and a power cut.
pub(super) fn synced_ingestion_survives_a_power_cut<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    let mut fixture = make();
    let engine = fixture.open()?;
    let rows = ["a", "b", "c"].map(|key| (Bytes::from(key), Bytes::from("v")));
    engine.ingest(CF, &mut rows.into_iter())?;
    engine.sync()?;
    let engine = cut(&mut fixture, engine)?;
    text("rows", &keys(&engine, CF, Range::ALL, Forward)?, "abc")
}

/// An engine that lost power takes and keeps writes as before.
pub(super) fn engine_works_on_after_a_power_cut<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    let mut fixture = make();
    let mut engine = fixture.open()?;
    let mut want = String::new();
    for letter in ["a", "b", "c", "d"] {
        want.push_str(letter);
        write(&engine, Synced, |batch| batch.put(CF, letter.as_bytes(), b""))?;
        put(&engine, Cf::Lock, b"lost", letter.as_bytes())?;
        engine = cut(&mut fixture, engine)?;
        text("rows", &keys(&engine, CF, Range::ALL, Forward)?, &want)?;
    }
    Ok(())
}

/// The writes of the scripted runs. Each leaves a state of its own, changes every family,
/// and most replace or remove what others wrote.
fn script() -> Vec<Vec<Op>> {
    (0..10_u8)
        .map(|number| {
            let value = Bytes::from(format!("write {number}"));
            let mut ops = Vec::new();
            if number % 4 == 3 {
                ops.push(Op::DeleteRange(CF, Bytes::from("k2"), Bytes::from("k7")));
            }
            for cf in Cf::ALL {
                ops.push(Op::Put(cf, Bytes::from("shared"), value.clone()));
                ops.push(Op::Put(cf, Bytes::from(format!("k{number}")), value.clone()));
            }
            if number % 3 == 2 {
                ops.push(Op::Delete(Cf::Lock, Bytes::from(format!("k{}", number - 1))));
            }
            ops
        })
        .collect()
}

/// Runs the first `count` writes of the script, `synced_at` as a synced one, cuts the power
/// and gives after how many writes the state left behind was, and how many were durable.
fn cut_script<F: KvFixture>(
    make: &dyn Fn() -> F,
    count: usize,
    synced_at: Option<usize>,
    keep: usize,
) -> Result<(Option<usize>, Model), Failure> {
    let mut fixture = make();
    let engine = fixture.open()?;
    let mut states = vec![Model::default()];
    for (number, ops) in script().iter().take(count).enumerate() {
        let durability = if synced_at == Some(number) { Synced } else { Buffered };
        carry_out(&engine, ops, durability)?;
        let mut state = states[number].clone();
        state.apply(ops);
        states.push(state);
    }
    supported(fixture.power_cut(engine, keep))?;
    let engine = fixture.open()?;
    let left = Model::read(&engine)?;
    Ok((states.iter().position(|state| *state == left), left))
}

/// A power cut after any number of buffered writes leaves the state after some of them.
pub(super) fn power_cut_leaves_a_prefix<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    for count in 0..=script().len() {
        for keep in [0, 1, count / 2, count] {
            let (prefix, left) = cut_script(make, count, None, keep)?;
            ensure!(prefix.is_some(), "{count} writes, keep {keep}: {left:?} is no prefix");
        }
    }
    Ok(())
}

/// A power cut never leaves less than the last synced write.
pub(super) fn power_cut_keeps_everything_synced<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    let count = script().len();
    for synced_at in 0..count {
        for keep in [0, 2] {
            let (prefix, left) = cut_script(make, count, Some(synced_at), keep)?;
            ensure!(
                prefix.is_some_and(|prefix| prefix > synced_at),
                "write {synced_at} of {count} was synced, and {prefix:?} writes are left: {left:?}"
            );
        }
    }
    Ok(())
}

/// A batch over all families is whole or absent after a power cut.
pub(super) fn power_cut_never_tears_a_batch<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    for keep in 0..4 {
        let mut fixture = make();
        let engine = fixture.open()?;
        for number in 0..4_u8 {
            write(&engine, Buffered, |batch| {
                for cf in Cf::ALL {
                    batch.put(cf, b"k", &[number]);
                }
            })?;
        }
        supported(fixture.power_cut(engine, keep))?;
        let engine = fixture.open()?;
        let first = engine.get(Cf::Default, b"k")?;
        for cf in Cf::ALL {
            same("another family after the cut", &engine.get(cf, b"k")?, &first)?;
        }
    }
    Ok(())
}

/// What a power cut left is durable: a second cut takes nothing of it.
pub(super) fn second_power_cut_takes_nothing<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    let mut fixture = make();
    let engine = fixture.open()?;
    for letter in ["a", "b", "c", "d"] {
        put_letters(&engine, CF, letter)?;
    }
    supported(fixture.power_cut(engine, 2))?;
    let engine = fixture.open()?;
    let left = Model::read(&engine)?;
    let engine = cut(&mut fixture, engine)?;
    same("after the second cut", &Model::read(&engine)?, &left)
}

/// Damage to stored bytes is an error or goes unnoticed because the value is unharmed: it is
/// never a wrong value, nor a missing row in a get or a walk.
pub(super) fn damage_is_never_a_wrong_value<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    let mut fixture = make();
    let engine = fixture.open()?;
    let value = |number: u32| Bytes::from(format!("a value of its own: {number:08}"));
    let key = |number: u32| format!("key {number:04}");
    write(&engine, Synced, |batch| {
        for number in 0..200 {
            batch.put(CF, key(number).as_bytes(), &value(number));
        }
    })?;
    supported(fixture.stop(engine))?;
    supported(fixture.damage(CF, key(77).as_bytes(), &value(77)))?;
    let Ok(engine) = fixture.open() else {
        return Ok(());
    };
    for number in 0..200 {
        if let Ok(got) = engine.get(CF, key(number).as_bytes()) {
            same("value after damage", &got, &Some(value(number)))?;
        }
    }
    for direction in [Forward, Backward] {
        if let Ok(rows) = scan(&engine, CF, Range::ALL, direction) {
            same("rows of a walk over damage", &rows.len(), &200)?;
            let right = rows.iter().all(|(row, got)| {
                (0..200).any(|number| key(number).as_bytes() == row && value(number) == got)
            });
            ensure!(right, "a walk over damage gave a wrong value");
        }
    }
    Ok(())
}
