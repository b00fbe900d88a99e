//! Where a region is cut, by size and by the middle.

use engine_traits::{Durability, WriteBatch, mem::MemEngine};
use raftstore_proto::{Epoch, Peer, PeerId, StoreId};

use super::*;

const LIMITS: SizeAndKeys =
    SizeAndKeys { max_bytes: 1_000, split_bytes: 400, max_keys: 100, split_keys: 40 };

fn region(start: &'static str, end: &'static str) -> Region {
    Region {
        id: RegionId::must(1),
        start_key: Bytes::from(start),
        end_key: Bytes::from(end),
        epoch: Epoch { conf_ver: 1, version: 3 },
        peers: vec![Peer::voter(PeerId::must(1), StoreId::must(1))],
    }
}

/// Rows of 40 bytes each, key included, under `k000`, `k001`, ...
fn filled(rows: usize, cf: Cf) -> MemEngine {
    let kv = MemEngine::default();
    let mut batch = kv.write_batch();
    for row in 0..rows {
        let key = keys::data_key(format!("k{row:03}").as_bytes());
        batch.put(cf, &key, &[7; 35]);
    }
    kv.write(batch, Durability::Buffered).expect("the engine does not fail");
    kv
}

fn look(
    kv: MemEngine,
    policy: impl SplitPolicy,
    region: Region,
    goal: CheckGoal,
) -> (u64, Vec<String>) {
    let mut worker = CheckWorker::new(kv, Arc::new(policy));
    worker.push(Task::CheckSplit { region, incarnation: 5, goal });
    let mut done = Vec::new();
    while !worker.is_idle() {
        done.extend(worker.step().expect("the engine does not fail").done);
    }
    match done.as_slice() {
        [TaskDone::SplitChecked { incarnation: 5, version: 3, size_bytes, keys, .. }] => {
            let text = |key: &Bytes| String::from_utf8(key.to_vec()).expect("keys are text");
            (*size_bytes, keys.iter().map(text).collect())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_region_below_the_limit_is_left_alone() {
    let (size, keys) = look(filled(24, Cf::Default), LIMITS, region("", ""), CheckGoal::Auto);
    assert_eq!((size, keys), (960, vec![]));
}

#[test]
fn parts_have_the_split_size_and_a_small_rest_stays_with_its_neighbour() {
    let (size, keys) = look(filled(25, Cf::Default), LIMITS, region("", ""), CheckGoal::Auto);
    assert_eq!((size, keys), (1_000, vec!["k010".to_owned()]));
    let (_, keys) = look(filled(45, Cf::Default), LIMITS, region("", ""), CheckGoal::Auto);
    assert_eq!(keys, ["k010", "k020", "k030"]);
    // The same over another family, and over two lanes of rows in turn.
    let (_, keys) = look(filled(25, Cf::Write), LIMITS, region("", ""), CheckGoal::Auto);
    assert_eq!(keys, ["k010"]);
    let (size, keys) = look(filled(90, Cf::Lock), LIMITS, region("", ""), CheckGoal::Auto);
    assert_eq!((size, keys), (0, vec![]), "locks do not count");
}

#[test]
fn rows_of_two_families_are_merged_in_key_order() {
    let kv = filled(13, Cf::Default);
    let mut batch = kv.write_batch();
    for row in 0..13 {
        batch.put(Cf::Write, &keys::data_key(format!("k{row:03}").as_bytes()), &[1; 35]);
    }
    kv.write(batch, Durability::Buffered).expect("the engine does not fail");
    let (size, keys) = look(kv, LIMITS, region("", ""), CheckGoal::Auto);
    assert_eq!((size, keys), (1_040, vec!["k005".to_owned()]));
}

#[test]
fn only_the_regions_own_rows_count() {
    let (size, keys) =
        look(filled(60, Cf::Default), LIMITS, region("k010", "k036"), CheckGoal::Auto);
    assert_eq!((size, keys), (1_040, vec!["k020".to_owned()]));
}

#[test]
fn many_small_keys_are_too_many() {
    let limits = SizeAndKeys { max_keys: 20, split_keys: 8, ..LIMITS };
    let (_, keys) = look(filled(20, Cf::Default), limits, region("", ""), CheckGoal::Auto);
    assert_eq!(keys, ["k008"]);
}

/// H69: one row larger than a part is a part of its own, never an empty one.
#[test]
fn h69_a_huge_row_makes_no_empty_part() {
    let kv = MemEngine::default();
    let mut batch = kv.write_batch();
    for key in ["a", "b", "c"] {
        batch.put(Cf::Default, &keys::data_key(key.as_bytes()), &[0; 900]);
    }
    kv.write(batch, Durability::Buffered).expect("the engine does not fail");
    let (_, keys) = look(kv, LIMITS, region("a", ""), CheckGoal::Auto);
    assert_eq!(keys, ["b", "c"]);
}

#[test]
fn the_middle_is_found_by_bytes() {
    let (_, keys) = look(filled(20, Cf::Default), LIMITS, region("", ""), CheckGoal::Half);
    assert_eq!(keys, ["k010"]);
    let (_, keys) = look(filled(1, Cf::Default), LIMITS, region("", ""), CheckGoal::Half);
    assert_eq!(keys, ["k000"]);
    let (_, keys) = look(filled(1, Cf::Default), LIMITS, region("k000", ""), CheckGoal::Half);
    assert_eq!(keys, Vec::<String>::new(), "a region of one row has no middle");
}

#[test]
fn splitting_can_be_switched_off() {
    let (size, keys) = look(filled(90, Cf::Default), NeverSplit, region("", ""), CheckGoal::Auto);
    assert_eq!((size, keys), (3_600, vec![]));
}

#[test]
fn slices_do_not_change_what_is_found() {
    let rows = SLICE_ROWS + 10;
    let kv = MemEngine::default();
    let mut batch = kv.write_batch();
    for row in 0..rows {
        batch.put(Cf::Default, &keys::data_key(format!("{row:06}").as_bytes()), b"ten bytes.");
    }
    kv.write(batch, Durability::Buffered).expect("the engine does not fail");
    let limits = SizeAndKeys {
        max_bytes: u64::MAX,
        split_bytes: u64::MAX / 2,
        max_keys: rows as u64,
        split_keys: SLICE_ROWS as u64,
    };
    let (_, keys) = look(kv, limits, region("", ""), CheckGoal::Auto);
    assert_eq!(keys, [format!("{SLICE_ROWS:06}")]);
}

/// A region that is one long row has nowhere to be cut; one of several is cut between them.
#[test]
fn whole_rows_are_kept_whole() {
    use crate::observe::encode_bytes;
    let rows = |handles: u64| {
        let kv = MemEngine::default();
        let mut batch = kv.write_batch();
        for (handle, column) in (0..handles).flat_map(|handle| (0..30_u8).map(move |c| (handle, c)))
        {
            let row = [&b"t"[..], &[0; 8], b"_r", &handle.to_be_bytes(), &[column]].concat();
            batch.put(Cf::Default, &keys::data_key(&encode_bytes(&row)), &[7; 10]);
        }
        kv.write(batch, Durability::Buffered).expect("the engine does not fail");
        kv
    };
    let cuts = |kv, policy: Arc<dyn SplitPolicy>| {
        let mut worker = CheckWorker::new(kv, policy);
        let goal = CheckGoal::Auto;
        worker.push(Task::CheckSplit { region: region("", ""), incarnation: 5, goal });
        let mut done = Vec::new();
        while !worker.is_idle() {
            done.extend(worker.step().expect("the engine does not fail").done);
        }
        match done.remove(0) {
            TaskDone::SplitChecked { keys, .. } => keys,
            other => panic!("{other:?}"),
        }
    };
    assert!(!cuts(rows(1), Arc::new(LIMITS)).is_empty(), "without it the row is cut");
    let first_row = Bytes::from(encode_bytes(&[&b"t"[..], &[0; 8], b"_r", &[0; 8]].concat()));
    let alone = cuts(rows(1), Arc::new(WholeRows(LIMITS)));
    assert_eq!(alone, std::slice::from_ref(&first_row), "before its first key nothing is lost");
    let mut started = region("", "");
    started.start_key = first_row;
    let mut checker = WholeRows(LIMITS).checker(&started, 10_000).expect("it is large");
    let columns = (0..30_u8)
        .map(|column| encode_bytes(&[&b"t"[..], &[0; 8], b"_r", &[0; 8], &[column]].concat()));
    columns.for_each(|key| assert!(!checker.row(&key, 100)));
    assert_eq!(checker.keys(), Vec::<Bytes>::new());
    let both = cuts(rows(2), Arc::new(WholeRows(LIMITS)));
    let second = [&b"t"[..], &[0; 8], b"_r", &1_u64.to_be_bytes()].concat();
    assert!(both.contains(&Bytes::from(encode_bytes(&second))), "{both:?}");
}
