//! Scans become snapshots, or failures; nothing in between.

use bytes::Bytes;
use engine_traits::{Cursor, Durability, KvEngine, Result, WriteBatch, mem::MemEngine};
use raftstore_proto::{Cf, Epoch, Peer, PeerId, RegionId, StoreId};
use transport_traits::{MemSnapStore, SnapOp};

use super::*;

const KEY: SnapKey = SnapKey { region: RegionId::must(7), term: 3, index: 12 };
const GENERATED: SnapDirection = SnapDirection::Generated;

fn region() -> Region {
    Region {
        id: KEY.region,
        start_key: Bytes::from_static(b"b"),
        end_key: Bytes::from_static(b"m"),
        epoch: Epoch { conf_ver: 1, version: 1 },
        peers: vec![Peer::voter(PeerId::must(1), StoreId::must(1))],
    }
}

fn engine() -> MemEngine {
    let engine = MemEngine::new();
    let mut batch = engine.write_batch();
    for cf in DATA_CFS {
        for key in [&b"a"[..], b"b", b"c", b"lz", b"m", b"x"] {
            batch.put(cf, &keys::data_key(key), key);
        }
    }
    batch.put(Cf::Raft, &keys::data_key(b"c"), b"not data");
    engine.write(batch, Durability::Buffered).unwrap();
    engine
}

fn wanted() -> GivenUp {
    GivenUp::default()
}

fn rows_of(snaps: &MemSnapStore) -> Vec<(Cf, Vec<u8>)> {
    let mut decoder = Decoder::open(snaps.open(GENERATED, KEY).unwrap()).unwrap();
    let mut rows = Vec::new();
    while let Some(chunk) = decoder.next_chunk().unwrap() {
        rows.extend(chunk.rows().map(|(key, _)| (chunk.cf(), key.to_vec())));
    }
    rows
}

#[test]
fn exactly_the_region_is_in_it() {
    let snaps = MemSnapStore::new(u64::MAX);
    let built = build(&region(), KEY, &engine(), &wanted(), &snaps, 16).unwrap();
    assert_eq!(snaps.list().unwrap(), [(GENERATED, KEY, built.size_bytes)]);
    assert_eq!((built.key, built.region), (KEY, region()));
    let mut expected = Vec::new();
    for cf in DATA_CFS {
        expected.extend([&b"b"[..], b"c", b"lz"].map(|key| (cf, keys::data_key(key))));
    }
    assert_eq!(rows_of(&snaps), expected);
}

/// A reader whose rows run into an error in one family.
struct Failing(MemEngine);

struct FailingCursor;

impl Cursor for FailingCursor {
    fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        Err(engine_traits::Error::Corrupt {
            engine: "test",
            place: "page 3".into(),
            detail: "bad sum".into(),
        })
    }

    fn seek(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

impl Reader for Failing {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.get(cf, key)
    }

    fn cursor<'a>(
        &'a self,
        cf: Cf,
        range: Range<'_>,
        direction: Direction,
    ) -> Result<Box<dyn Cursor + 'a>> {
        if cf == Cf::Write {
            Ok(Box::new(FailingCursor))
        } else {
            self.0.cursor(cf, range, direction)
        }
    }
}

#[test]
fn h47_a_scan_error_fails_the_build_and_leaves_nothing() {
    let snaps = MemSnapStore::new(u64::MAX);
    let error = build(&region(), KEY, &Failing(engine()), &wanted(), &snaps, 16).unwrap_err();
    assert!(matches!(error, BuildError::Scan { .. }));
    assert_eq!(snaps.list().unwrap(), []);
    assert_eq!(snaps.used_bytes(), 0);
    build(&region(), KEY, &engine(), &wanted(), &snaps, 16).unwrap();
}

#[test]
fn a_valid_one_is_used_again_and_a_damaged_one_replaced() {
    let snaps = MemSnapStore::new(u64::MAX);
    let first = build(&region(), KEY, &engine(), &wanted(), &snaps, 16).unwrap();
    // An engine that would fail shows that nothing is scanned.
    let again = build(&region(), KEY, &Failing(engine()), &wanted(), &snaps, 16).unwrap();
    assert_eq!(first, again);
    assert!(snaps.corrupt(GENERATED, KEY, 150, 1));
    assert!(build(&region(), KEY, &Failing(engine()), &wanted(), &snaps, 16).is_err());
    let replaced = build(&region(), KEY, &engine(), &wanted(), &snaps, 16).unwrap();
    assert_eq!(first, replaced);
    assert_eq!(rows_of(&snaps).len(), 9);
}

#[test]
fn a_store_that_fails_leaves_nothing() {
    for op in [SnapOp::Create, SnapOp::Write, SnapOp::Finish, SnapOp::Open, SnapOp::Read] {
        let snaps = MemSnapStore::new(u64::MAX);
        snaps.fail_next(op, 1);
        assert!(build(&region(), KEY, &engine(), &wanted(), &snaps, 16).is_err(), "{op:?}");
        snaps.clear_failures();
        assert_eq!(snaps.list().unwrap(), [], "{op:?}");
    }
    let full = MemSnapStore::new(100);
    assert!(build(&region(), KEY, &engine(), &wanted(), &full, 16).is_err());
}

#[test]
fn h44_a_second_builder_of_the_same_name_is_refused() {
    let snaps = MemSnapStore::new(u64::MAX);
    let writer = snaps.create(GENERATED, KEY).unwrap();
    let error = build(&region(), KEY, &engine(), &wanted(), &snaps, 16).unwrap_err();
    assert!(matches!(error, BuildError::Store { source: SnapError::Busy(_), .. }));
    drop(writer);
    build(&region(), KEY, &engine(), &wanted(), &snaps, 16).unwrap();
}

/// H53: once it is given up the scan ends, and leaves nothing at rest.
#[test]
fn h53_a_snapshot_nobody_wants_is_not_built_to_the_end() {
    let snaps = MemSnapStore::new(u64::MAX);
    let unwanted = GivenUp::default();
    unwanted.clone().give_up();
    let error = build(&region(), KEY, &engine(), &unwanted, &snaps, 16).unwrap_err();
    assert!(matches!(error, BuildError::GivenUp { key: KEY }), "{error:?}");
    assert_eq!(snaps.list().unwrap(), []);
    build(&region(), KEY, &engine(), &wanted(), &snaps, 16).unwrap();
}
