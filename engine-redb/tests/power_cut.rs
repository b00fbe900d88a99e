//! A power cut at every point of a scripted run, with all kinds of loss: nothing synced is
//! lost, and what is left is a prefix of the writes (contract 3, W5).
#![expect(clippy::unwrap_used, reason = "a run that cannot be set up has failed")]

use std::collections::BTreeMap;

use engine_redb::{Loss, MemDisk, RedbEngine, RedbOptions};
use engine_traits::{Cf, Direction, Durability, KvEngine, Range, Reader, Result, WriteBatch};

type Rows = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

fn options() -> RedbOptions {
    // Small enough that buffered writes spill to the disk before they are synced.
    RedbOptions::default().with_cache_bytes(64 << 10)
}

fn rows(engine: &RedbEngine) -> Rows {
    let mut rows = Rows::new();
    for cf in Cf::ALL {
        let mut cursor = engine.cursor(cf, Range::ALL, Direction::Forward).unwrap();
        while let Some((key, value)) = cursor.next().unwrap() {
            rows.insert((cf.index(), key.to_vec()), value.to_vec());
        }
    }
    rows
}

/// Write number `step` of the script, on the engine and on the model.
fn step(engine: &RedbEngine, model: &mut Rows, step: u32) -> Result<Durability> {
    let mut batch = engine.write_batch();
    for at in 0..8_u32 {
        let number = step * 7 + at * 13;
        let cf = Cf::ALL[(number % 4) as usize];
        let key = (number % 97).to_be_bytes();
        if number.is_multiple_of(5) {
            batch.delete(cf, &key);
            model.remove(&(cf.index(), key.to_vec()));
        } else {
            let value = format!("{step} {at} ").repeat(40).into_bytes();
            batch.put(cf, &key, &value);
            model.insert((cf.index(), key.to_vec()), value);
        }
    }
    if step.is_multiple_of(11) {
        let (start, end) = (10_u32.to_be_bytes(), 40_u32.to_be_bytes());
        batch.delete_range(Cf::Write, Range::new(&start, &end));
        model.retain(|(cf, key), _| {
            *cf != Cf::Write.index() || !Range::new(&start, &end).contains(key)
        });
    }
    let durability = if step % 4 == 3 { Durability::Synced } else { Durability::Buffered };
    engine.write(batch, durability)?;
    Ok(durability)
}

/// Runs the script on `disk` until it is cut; gives the states after each write, the number
/// of states when the last sync returned, and whether the cut came.
fn run(disk: &MemDisk, steps: u32) -> (Vec<Rows>, usize, bool) {
    let mut model = Rows::new();
    let mut states = vec![model.clone()];
    let mut synced = 0;
    let Ok(engine) = RedbEngine::open_with_backend(disk.backend(), &options()) else {
        return (states, synced, true);
    };
    for number in 0..steps {
        let result = step(&engine, &mut model, number);
        states.push(model.clone());
        match result {
            Ok(Durability::Synced) => synced = states.len() - 1,
            Ok(Durability::Buffered) => {}
            // The write under way when the power went may have become durable.
            Err(_) => return (states, synced, true),
        }
    }
    (states, synced, false)
}

fn check(disk: &MemDisk, states: &[Rows], synced: usize, at: &str) {
    let opened = RedbEngine::open_with_backend(disk.backend(), &options());
    assert!(opened.is_ok(), "{at}: does not open again: {:?}", opened.err());
    let engine = opened.unwrap();
    let found = rows(&engine);
    let kept = states[synced..].iter().position(|state| *state == found);
    assert!(kept.is_some(), "{at}: no prefix at or after the last synced write");
    // What was recovered can be written to and closed as usual.
    let mut batch = engine.write_batch();
    batch.put(Cf::Default, b"after", b"recovery");
    engine.write(batch, Durability::Synced).unwrap();
    engine.close().unwrap();
    let engine = RedbEngine::open_with_backend(disk.backend(), &options()).unwrap();
    assert_eq!(engine.get(Cf::Default, b"after").unwrap().as_deref(), Some(&b"recovery"[..]));
}

#[test]
fn a_cut_at_every_operation_keeps_a_prefix() {
    const STEPS: u32 = 24;
    let whole = MemDisk::new();
    let (_, _, cut) = run(&whole, STEPS);
    assert!(!cut);
    let operations = whole.operations();
    assert!(operations > 100, "{operations} operations are too few to mean something");
    for operation in 0..operations {
        for loss in [
            Loss::Everything,
            Loss::Suffix { seed: operation },
            Loss::Scattered { seed: operation },
            Loss::Scattered { seed: operation ^ 0xffff },
        ] {
            let disk = MemDisk::new();
            disk.cut_after(operation, loss);
            let (states, synced, _) = run(&disk, STEPS);
            check(&disk, &states, synced, &format!("operation {operation}, {loss:?}"));
        }
    }
}

#[test]
fn an_empty_sync_makes_earlier_buffered_writes_durable() {
    for by_write in [false, true] {
        let disk = MemDisk::new();
        let engine = RedbEngine::open_with_backend(disk.backend(), &options()).unwrap();
        let mut batch = engine.write_batch();
        batch.put(Cf::Lock, b"key", b"value");
        engine.write(batch, Durability::Buffered).unwrap();
        let before = engine.stats().syncs;
        if by_write {
            engine.write(engine.write_batch(), Durability::Synced).unwrap();
        } else {
            engine.sync().unwrap();
        }
        assert_eq!(engine.stats().syncs, before + 1);
        disk.cut(Loss::Everything);
        assert!(engine.sync().is_err(), "nothing works after the cut");
        drop(engine);
        let engine = RedbEngine::open_with_backend(disk.backend(), &options()).unwrap();
        assert_eq!(engine.get(Cf::Lock, b"key").unwrap().as_deref(), Some(&b"value"[..]));
    }
}

#[test]
fn buffered_writes_do_not_survive_a_cut_that_loses_everything() {
    let disk = MemDisk::new();
    let engine = RedbEngine::open_with_backend(disk.backend(), &options()).unwrap();
    let mut batch = engine.write_batch();
    batch.put(Cf::Lock, b"key", b"value");
    engine.write(batch, Durability::Buffered).unwrap();
    assert_eq!(engine.get(Cf::Lock, b"key").unwrap().as_deref(), Some(&b"value"[..]));
    disk.cut(Loss::Everything);
    let next = RedbEngine::open_with_backend(disk.backend(), &options()).unwrap();
    drop(engine);
    assert_eq!(next.get(Cf::Lock, b"key").unwrap(), None);
}
