//! Region snapshots and their cursors against a model, on the engine in memory and on redb.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot read has failed")]

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use engine_redb::{MemDisk, RedbEngine, RedbOptions};
use engine_traits::{
    Cf, DATA_CFS, Direction, Durability, KvEngine, Range, WriteBatch,
    mem::{Faults, MemEngine},
};
use proptest::{collection::vec, prelude::*};
use raftstore_core::{
    keys,
    read::{ReadError, RegionCursor, RegionSnapshot},
};
use raftstore_proto::{Epoch, Peer, PeerId, Region, RegionError, RegionId, StoreId};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn region(start: &[u8], end: &[u8]) -> Region {
    Region {
        id: RegionId::must(1),
        start_key: Bytes::copy_from_slice(start),
        end_key: Bytes::copy_from_slice(end),
        epoch: Epoch { conf_ver: 1, version: 1 },
        peers: vec![Peer::voter(PeerId::must(7), StoreId::must(1))],
    }
}

fn redb() -> RedbEngine {
    let options = RedbOptions::default().with_cache_bytes(1 << 20);
    RedbEngine::open_with_backend(MemDisk::new().backend(), &options).unwrap()
}

/// Stores the rows, each family's values marked with its name, and records of the store on
/// both sides of all data.
fn load<K: KvEngine>(kv: &K, rows: &Rows) {
    let mut batch = kv.write_batch();
    batch.put(Cf::Default, &keys::STORE_IDENT, b"identity");
    batch.put(Cf::Raft, &keys::region_state_key(RegionId::must(1)), b"state");
    batch.put(Cf::Default, &keys::DATA_MAX, b"behind all data");
    for cf in DATA_CFS {
        for (key, value) in rows {
            batch.put(cf, &keys::data_key(key), &marked(cf, value));
        }
    }
    kv.write(batch, Durability::Buffered).unwrap();
}

fn marked(cf: Cf, value: &[u8]) -> Vec<u8> {
    [cf.name().as_bytes(), value].concat()
}

fn shot<K: KvEngine>(kv: &K, region: Region) -> RegionSnapshot<K::Snapshot> {
    RegionSnapshot::new(Arc::new(kv.snapshot().unwrap()), Arc::new(region))
}

fn rows_of(keys: &[&str]) -> Rows {
    keys.iter().map(|key| (key.as_bytes().to_vec(), format!("v-{key}").into_bytes())).collect()
}

/// Runs `test` on both engines, filled with `keys`.
fn on_both(keys: &[&str], test: impl Fn(&dyn Fn(Region) -> RegionSnapshot)) {
    let (mem, redb, rows) = (MemEngine::default(), redb(), rows_of(keys));
    load(&mem, &rows);
    load(&redb, &rows);
    test(&|region| shot(&mem, region).erase());
    test(&|region| shot(&redb, region).erase());
}

fn refused<T: std::fmt::Debug>(result: Result<T, ReadError>) -> RegionError {
    match result {
        Err(ReadError::Refused(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}

fn is_outside<T: std::fmt::Debug>(result: Result<T, ReadError>, key: &str) -> bool {
    match refused(result) {
        RegionError::KeyNotInRegion { key: found, region } => {
            found == key.as_bytes() && region.id.get() == 1
        }
        other => panic!("{other}"),
    }
}

fn at(cursor: &RegionCursor<'_>) -> Option<String> {
    assert_eq!(cursor.is_valid(), cursor.key().is_some());
    cursor.key().map(|key| {
        let value = cursor.value().expect("a key has a value");
        assert_eq!(value, marked(Cf::Default, format!("v-{}", text(key)).as_bytes()));
        text(key)
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn get_is_for_keys_of_the_region_and_families_of_clients() {
    on_both(&["a", "b", "c", "d"], |shot| {
        let middle = shot(region(b"b", b"d"));
        assert_eq!(middle.get(Cf::Lock, b"b").unwrap().unwrap(), "lockv-b");
        assert_eq!(middle.get(Cf::Write, b"c").unwrap().unwrap(), "writev-c");
        assert_eq!(middle.get(Cf::Default, b"bb").unwrap(), None);
        for outside in ["a", "d", ""] {
            assert!(is_outside(middle.get(Cf::Default, outside.as_bytes()), outside));
        }
        let family = refused(middle.get(Cf::Raft, b"b"));
        assert!(matches!(family, RegionError::InvalidCommand { .. }), "{family}");
        let family = refused(middle.cursor(Cf::Raft, Range::ALL));
        assert!(matches!(family, RegionError::InvalidCommand { .. }), "{family}");
        assert_eq!((middle.start_key(), middle.end_key()), (&b"b"[..], &b"d"[..]));
    });
}

#[test]
fn neighbours_and_records_of_the_store_are_not_seen() {
    on_both(&["a", "b", "c", "d"], |shot| {
        for (start, end, expected) in [
            ("", "", vec!["a", "b", "c", "d"]),
            ("", "b", vec!["a"]),
            ("b", "d", vec!["b", "c"]),
            ("d", "", vec!["d"]),
            ("bb", "bc", vec![]),
        ] {
            let here = shot(region(start.as_bytes(), end.as_bytes()));
            let mut cursor = here.cursor(Cf::Default, Range::ALL).unwrap();
            let mut seen = Vec::new();
            let mut more = cursor.seek_to_first().unwrap();
            while more {
                seen.extend(at(&cursor));
                more = cursor.next().unwrap();
            }
            assert_eq!(seen, expected, "[{start}, {end})");
            let mut seen = Vec::new();
            let mut more = cursor.seek_to_last().unwrap();
            while more {
                seen.extend(at(&cursor));
                more = cursor.prev().unwrap();
            }
            seen.reverse();
            assert_eq!(seen, expected, "[{start}, {end}) backwards");
        }
    });
}

#[test]
fn a_given_bound_never_reaches_beyond_the_region() {
    on_both(&["a", "b", "c", "d", "e"], |shot| {
        let here = shot(region(b"b", b"d"));
        for (start, end, expected) in [
            ("a", "e", "bc"),
            ("", "c", "b"),
            ("c", "", "c"),
            ("c", "zz", "c"),
            ("d", "e", ""),
            ("", "b", ""),
            ("c", "b", ""),
        ] {
            let bounds = Range::new(start.as_bytes(), end.as_bytes());
            let mut cursor = here.cursor(Cf::Default, bounds).unwrap();
            let mut seen = String::new();
            let mut more = cursor.seek_to_first().unwrap();
            while more {
                seen += &at(&cursor).unwrap();
                more = cursor.next().unwrap();
            }
            assert_eq!(seen, expected, "[{start}, {end})");
        }
    });
}

#[test]
fn seeking_takes_keys_of_the_region_and_its_end() {
    on_both(&["a", "b", "bb", "c", "d", "e"], |shot| {
        let here = shot(region(b"b", b"d"));
        let mut cursor = here.cursor(Cf::Default, Range::ALL).unwrap();
        for (key, forward, backward) in [
            ("b", Some("b"), Some("b")),
            ("ba", Some("bb"), Some("b")),
            ("c", Some("c"), Some("c")),
            ("ca", None, Some("c")),
            ("d", None, Some("c")),
        ] {
            assert_eq!(cursor.seek(key.as_bytes()).unwrap(), forward.is_some(), "{key}");
            assert_eq!(at(&cursor).as_deref(), forward, "{key}");
            assert_eq!(cursor.seek_for_prev(key.as_bytes()).unwrap(), backward.is_some(), "{key}");
            assert_eq!(at(&cursor).as_deref(), backward, "{key}");
        }
        cursor.seek(b"c").unwrap();
        for outside in ["", "a", "da", "e"] {
            assert!(is_outside(cursor.seek(outside.as_bytes()), outside));
            assert!(is_outside(cursor.seek_for_prev(outside.as_bytes()), outside));
            assert_eq!(at(&cursor).as_deref(), Some("c"), "a refused move is none");
        }
        // The last region has no end to stand at; no key is beyond it.
        let last = shot(region(b"d", b""));
        let mut cursor = last.cursor(Cf::Default, Range::ALL).unwrap();
        assert!(!cursor.seek(&[0xFF; 8]).unwrap());
        assert!(cursor.seek_for_prev(&[0xFF; 8]).unwrap());
        assert_eq!(at(&cursor).as_deref(), Some("e"));
    });
}

#[test]
fn a_cursor_without_a_row_stays_without_until_it_is_placed() {
    on_both(&["a", "b"], |shot| {
        let here = shot(region(b"", b""));
        let mut cursor = here.cursor(Cf::Default, Range::ALL).unwrap();
        assert!(!cursor.next().unwrap() && !cursor.prev().unwrap());
        cursor.seek_to_last().unwrap();
        assert!(!cursor.next().unwrap());
        assert!(!cursor.prev().unwrap() && !cursor.next().unwrap(), "past the end");
        cursor.seek_to_first().unwrap();
        assert!(!cursor.prev().unwrap());
        assert!(!cursor.next().unwrap() && !cursor.prev().unwrap(), "before the start");
        assert!(cursor.seek(b"b").unwrap() && cursor.prev().unwrap());
        assert_eq!(at(&cursor).as_deref(), Some("a"));
        let empty = shot(region(b"x", b"y"));
        let mut cursor = empty.cursor(Cf::Default, Range::ALL).unwrap();
        assert!(!cursor.seek_to_last().unwrap() && !cursor.seek_to_first().unwrap());
    });
}

#[test]
fn scans_begin_in_the_region_and_end_with_it() {
    on_both(&["a", "b", "c", "d", "e"], |shot| {
        let here = shot(region(b"b", b"e"));
        let rows = |start: &str, end: &str, direction, limit| {
            let range = Range::new(start.as_bytes(), end.as_bytes());
            let rows = here.rows(Cf::Default, range, direction, limit)?;
            Ok::<String, ReadError>(rows.iter().map(|(key, _)| text(key)).collect())
        };
        let (forward, backward) = (Direction::Forward, Direction::Backward);
        assert_eq!(rows("", "", forward, 9).unwrap(), "bcd");
        assert_eq!(rows("c", "zz", forward, 9).unwrap(), "cd");
        assert_eq!(rows("", "", backward, 9).unwrap(), "dcb");
        assert_eq!(rows("a", "d", backward, 9).unwrap(), "cb");
        assert_eq!(rows("", "", forward, 2).unwrap(), "bc");
        assert_eq!(rows("", "", forward, 0).unwrap(), "");
        assert_eq!(rows("e", "", forward, 9).unwrap(), "", "the end is a place");
        assert!(is_outside(rows("a", "d", forward, 9), "a"));
        assert!(is_outside(rows("ea", "", forward, 9), "ea"));
        assert!(is_outside(rows("b", "f", backward, 9), "f"));
        let mut shown = 0;
        here.scan(Cf::Default, Range::ALL, forward, |key, value| {
            shown += 1;
            assert_eq!(value, marked(Cf::Default, format!("v-{}", text(key)).as_bytes()));
            if key == b"c" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        assert_eq!(shown, 2);
    });
}

#[test]
fn later_writes_are_not_seen_and_clones_share_the_moment() {
    let kv = MemEngine::default();
    load(&kv, &rows_of(&["a"]));
    let before = shot(&kv, region(b"", b""));
    let copy = before.clone();
    load(&kv, &rows_of(&["b"]));
    drop(before);
    assert_eq!(copy.get(Cf::Default, b"b").unwrap(), None);
    assert_eq!(copy.rows(Cf::Default, Range::ALL, Direction::Forward, 9).unwrap().len(), 1);
    assert!(shot(&kv, region(b"", b"")).get(Cf::Default, b"b").unwrap().is_some());
}

/// H47: reads that fail are errors at every place where an end could be mistaken for one.
#[test]
fn h47_a_failing_engine_never_looks_like_an_end() {
    let kv = MemEngine::default();
    let keys: Vec<String> = (0..200).map(|number| format!("k{number:03}")).collect();
    load(&kv, &rows_of(&keys.iter().map(String::as_str).collect::<Vec<_>>()));
    let (faults, here) = (kv.faults(), shot(&kv, region(b"", b"")));
    assert!(here.rows(Cf::Default, Range::ALL, Direction::Forward, 999).unwrap().len() == 200);
    // One opening, 200 rows, the end: each of them must be able to fail.
    for nth in 1..=202 {
        for direction in [Direction::Forward, Direction::Backward] {
            faults.fail_read(nth);
            let rows = here.rows(Cf::Default, Range::ALL, direction, 999);
            assert!(matches!(rows, Err(ReadError::Engine { .. })), "read {nth}: {rows:?}");
        }
    }
    faults.fail_read(203);
    assert!(here.rows(Cf::Default, Range::ALL, Direction::Forward, 999).is_ok());
    faults.fail_read(1);
    let get = here.get(Cf::Default, b"k000");
    assert!(matches!(get, Err(ReadError::Engine { .. })), "{get:?}");
}

#[derive(Clone, Debug)]
enum Move {
    First,
    Last,
    Seek(Vec<u8>),
    SeekForPrev(Vec<u8>),
    Next,
    Prev,
}

/// Few letters, among them the least and the largest, so that keys meet.
fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0), Just(b'a'), Just(b'b'), Just(0xFF)], 0..=3)
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        1 => Just(Move::First),
        1 => Just(Move::Last),
        2 => key().prop_map(Move::Seek),
        2 => key().prop_map(Move::SeekForPrev),
        4 => Just(Move::Next),
        4 => Just(Move::Prev),
    ];
    vec(one, 0..40)
}

#[derive(Clone, Debug)]
struct Case {
    rows: Rows,
    region: Region,
    bounds: (Vec<u8>, Vec<u8>),
    moves: Vec<Move>,
    /// Which read of each move fails; 0 for none.
    faults: Vec<u64>,
}

fn case() -> impl Strategy<Value = Case> {
    let range = (key(), key()).prop_map(|(one, other)| {
        let (start, end) = if one <= other { (one, other) } else { (other, one) };
        if start == end { (start, Vec::new()) } else { (start, end) }
    });
    let rows = proptest::collection::btree_map(key(), vec(any::<u8>(), 0..3), 0..30);
    let bounds = prop_oneof![Just((Vec::new(), Vec::new())), (key(), key())];
    let faults = vec(0_u64..4, 40);
    (rows, range, bounds, moves(), faults).prop_map(
        |(rows, (start, end), bounds, moves, faults)| Case {
            rows,
            region: region(&start, &end),
            bounds,
            moves,
            faults,
        },
    )
}

/// What the cursor ought to do.
struct Model {
    rows: Rows,
    region: Region,
    at: Option<Vec<u8>>,
}

impl Model {
    fn new(case: &Case) -> Self {
        let bounds = Range::new(&case.bounds.0, &case.bounds.1);
        let inside = |key: &[u8]| bounds.contains(key) && case.region.contains(key);
        let rows = case.rows.clone().into_iter().filter(|(key, _)| inside(key)).collect();
        Self { rows, region: case.region.clone(), at: None }
    }

    /// Gives whether the move is allowed.
    fn make(&mut self, it: &Move) -> bool {
        if let Move::Seek(key) | Move::SeekForPrev(key) = it {
            let end = &self.region.end_key;
            if *key < self.region.start_key || (!end.is_empty() && *key > *end) {
                return false;
            }
        }
        let keys = || self.rows.keys().cloned();
        self.at = match (it, self.at.as_ref()) {
            (Move::First, _) => keys().next(),
            (Move::Last, _) => keys().next_back(),
            (Move::Seek(target), _) => keys().find(|key| key >= target),
            (Move::SeekForPrev(target), _) => keys().rev().find(|key| key <= target),
            (Move::Next, Some(at)) => keys().find(|key| key > at),
            (Move::Prev, Some(at)) => keys().rev().find(|key| key < at),
            (Move::Next | Move::Prev, None) => None,
        };
        true
    }
}

fn make(cursor: &mut RegionCursor<'_>, it: &Move) -> Result<bool, ReadError> {
    match it {
        Move::First => cursor.seek_to_first(),
        Move::Last => cursor.seek_to_last(),
        Move::Seek(key) => cursor.seek(key),
        Move::SeekForPrev(key) => cursor.seek_for_prev(key),
        Move::Next => cursor.next(),
        Move::Prev => cursor.prev(),
    }
}

fn same(cursor: &RegionCursor<'_>, cf: Cf, model: &Model) {
    let expected = model.at.as_ref().map(|key| (key.clone(), marked(cf, &model.rows[key])));
    let found = cursor.key().map(<[u8]>::to_vec).zip(cursor.value().map(<[u8]>::to_vec));
    assert_eq!(found, expected);
}

/// Moves cursor and model alike. With `faults`, a failed move must leave the cursor where
/// it was, and lead where it should when it is made again.
fn follow(here: &RegionSnapshot, case: &Case, cf: Cf, faults: Option<&Faults>) {
    let bounds = Range::new(&case.bounds.0, &case.bounds.1);
    let mut cursor = here.cursor(cf, bounds).unwrap();
    let mut model = Model::new(case);
    for (number, it) in case.moves.iter().enumerate() {
        if let Some(faults) = faults {
            faults.fail_read(case.faults[number]);
        }
        let mut made = make(&mut cursor, it);
        if let Some(faults) = faults {
            faults.clear();
            if matches!(made, Err(ReadError::Engine { .. })) {
                same(&cursor, cf, &model);
                made = make(&mut cursor, it);
            }
        }
        if model.make(it) {
            assert_eq!(made.unwrap(), model.at.is_some(), "{it:?}");
        } else {
            let error = refused(made);
            assert!(matches!(error, RegionError::KeyNotInRegion { .. }), "{error}");
        }
        same(&cursor, cf, &model);
    }
    let rows: Vec<_> =
        model.rows.iter().map(|(key, value)| (key.clone(), marked(cf, value))).collect();
    let mut scanned = Vec::new();
    let start = bounds.start.max(&case.region.start_key);
    if Range::new(&[], &case.region.end_key).contains(start) {
        let range = Range::new(start, bounds.end);
        here.scan(cf, range, Direction::Forward, |key, value| {
            scanned.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(scanned, rows);
    }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(1_000))]

    /// H47 as well: every kind of move meets failing reads.
    #[test]
    fn cursors_do_what_the_model_does(case in case()) {
        let kv = MemEngine::default();
        load(&kv, &case.rows);
        let here = shot(&kv, case.region.clone()).erase();
        follow(&here, &case, Cf::Default, None);
        follow(&here, &case, Cf::Write, Some(&kv.faults()));
    }
}

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn cursors_do_the_same_on_redb(case in case()) {
        let kv = redb();
        load(&kv, &case.rows);
        follow(&shot(&kv, case.region.clone()).erase(), &case, Cf::Lock, None);
    }
}
