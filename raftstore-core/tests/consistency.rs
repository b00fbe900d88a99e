//! Replicas on different engines hash alike.
#![expect(clippy::unwrap_used, reason = "a test that cannot read or write has failed")]

use bytes::Bytes;
use engine_redb::{MemDisk, RedbEngine, RedbOptions};
use engine_traits::{DATA_CFS, Durability, KvEngine, Range, WriteBatch, mem::MemEngine};
use raftstore_core::{
    TaskDone,
    consistency::{HashJob, HashWorker, ReaderSide, RegionHash, first_difference},
    keys,
};
use raftstore_proto::{Cf, Epoch, Peer, PeerId, Region, RegionId, StoreId};

fn region(members: &[u64]) -> Region {
    let member = |id: &u64| Peer::voter(PeerId::must(*id), StoreId::must(*id));
    Region {
        id: RegionId::must(1),
        start_key: Bytes::from_static(b"key 1"),
        end_key: Bytes::from_static(b"key 8"),
        epoch: Epoch { conf_ver: 4, version: 2 },
        peers: members.iter().map(member).collect(),
    }
}

/// The same writes in both, in batches of another size, with deletions in between.
fn fill<K: KvEngine>(kv: &K, rows_per_batch: usize) {
    let keys: Vec<String> =
        (0..1_000).map(|number| format!("key {}", number * 7 % 1_000)).collect();
    for keys in keys.chunks(rows_per_batch) {
        let mut batch = kv.write_batch();
        for key in keys {
            for cf in DATA_CFS {
                batch.put(cf, &keys::data_key(key.as_bytes()), key.repeat(3).as_bytes());
            }
        }
        kv.write(batch, Durability::Buffered).unwrap();
    }
    let mut batch = kv.write_batch();
    batch.delete_range(Cf::Lock, Range::new(b"zkey 3", b"zkey 4"));
    batch.delete(Cf::Write, b"zkey 555");
    batch.put(Cf::Default, b"zkey 20", b"");
    kv.write(batch, Durability::Synced).unwrap();
}

fn hash<K: KvEngine>(kv: &K, region: Region, slice: u64) -> RegionHash {
    let mut worker = HashWorker::new(slice);
    let snapshot = kv.snapshot().unwrap();
    assert!(worker.push(HashJob { region, incarnation: 1, index: 9, snapshot }).is_none());
    loop {
        if let Some(TaskDone::Hashed { hash, .. }) = worker.step().done {
            return hash.expect("the engine can be read");
        }
    }
}

#[test]
fn raft_18_engines_hash_alike() {
    let (mem, redb) = (MemEngine::default(), {
        let options = RedbOptions::default().with_cache_bytes(1 << 20);
        RedbEngine::open_with_backend(MemDisk::new().backend(), &options).unwrap()
    });
    fill(&mem, 1_000);
    fill(&redb, 17);
    let expected = hash(&mem, region(&[1, 2, 3]), u64::MAX);
    assert!(expected.rows > 1_500, "{expected}");
    assert_eq!(hash(&redb, region(&[3, 1, 2]), 4 << 10), expected);
    let none = first_difference(&mut ReaderSide(&mem), &mut ReaderSide(&redb), &region(&[1]));
    assert_eq!(none.unwrap(), None);

    let mut batch = redb.write_batch();
    batch.delete(Cf::Write, b"zkey 222");
    redb.write(batch, Durability::Buffered).unwrap();
    assert_ne!(hash(&redb, region(&[1, 2, 3]), 4 << 10), expected);
    let found = first_difference(&mut ReaderSide(&mem), &mut ReaderSide(&redb), &region(&[1]));
    let found = found.unwrap().expect("they differ");
    assert_eq!((found.cf, &found.start[..], found.rows), (Cf::Write, &b"key 222"[..], (1, 0)));
}
