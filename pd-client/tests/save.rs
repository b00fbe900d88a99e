//! PD's memory as bytes: all of it comes back, and nothing else does.

#[expect(dead_code, reason = "only regions report here")]
mod reported;

use pd_client::{
    Error, RegionHeartbeat, StoreInfo, StoreLifecycle,
    mock::{LoadError, PdConfig, PdCore},
};
use raftstore_proto::{ClusterId, Epoch, Peer, PeerId, Region, RegionId, StoreId};

const CLUSTER: ClusterId = ClusterId::must(7);

fn info(id: u64, lifecycle: StoreLifecycle) -> StoreInfo {
    StoreInfo {
        id: StoreId::must(id),
        address: format!("store-{id}"),
        labels: vec![("zone".to_owned(), format!("z{id}")), ("ssd".to_owned(), String::new())],
        lifecycle,
    }
}

fn region(id: u64, range: (&str, &str), version: u64) -> Region {
    Region {
        id: RegionId::must(id),
        start_key: range.0.to_owned().into(),
        end_key: range.1.to_owned().into(),
        epoch: Epoch { conf_ver: 4, version },
        peers: vec![
            Peer::voter(PeerId::must(id * 10 + 1), StoreId::must(1)),
            Peer::learner(PeerId::must(id * 10 + 2), StoreId::must(2)),
        ],
    }
}

fn heartbeat(region: Region, term: u64) -> RegionHeartbeat {
    RegionHeartbeat {
        written_bytes: 9,
        written_keys: 1,
        approximate_size: 5000,
        ..reported::heartbeat(region, term)
    }
}

/// Stores up, emptied and buried; regions, one of them pushed out by its newer part.
fn lived() -> PdCore {
    let mut core = PdCore::new(CLUSTER, PdConfig::manual());
    core.seed(vec![region(100, ("", "m"), 3), region(101, ("m", ""), 3)]).expect("apart");
    for id in 1..=4 {
        core.put_store(5, info(id, StoreLifecycle::Up)).expect("a new address");
    }
    core.set_lifecycle(StoreId::must(3), StoreLifecycle::Tombstone).expect("it is empty");
    core.set_lifecycle(StoreId::must(2), StoreLifecycle::Offline).expect("it is known");
    // The address of the buried one is another's now.
    let heir = StoreInfo { address: "store-3".to_owned(), ..info(5, StoreLifecycle::Up) };
    core.put_store(6, heir).expect("the address is free");
    core.region_heartbeat(7, heartbeat(region(100, ("", "m"), 3), 8)).expect("it is newer");
    core.region_heartbeat(8, heartbeat(region(101, ("m", ""), 3), 9)).expect("it is newer");
    core.region_heartbeat(9, heartbeat(region(102, ("t", ""), 4), 6)).expect("it is newer");
    core
}

fn load(bytes: &[u8]) -> Result<PdCore, LoadError> {
    PdCore::load(1000, bytes, PdConfig::manual())
}

#[test]
fn everything_that_matters_comes_back() {
    let mut core = lived();
    let bytes = core.save();
    let mut again = load(&bytes).expect("just saved");
    assert_eq!(again.cluster_id(), CLUSTER);
    assert!(again.is_bootstrapped());
    let infos = |core: &PdCore| core.stores().map(|it| it.info.clone()).collect::<Vec<_>>();
    assert_eq!(infos(&again), infos(&core));
    let regions = |core: &PdCore| {
        core.regions()
            .map(|it| (it.region.clone(), it.leader, it.term, it.approximate_size))
            .collect::<Vec<_>>()
    };
    assert_eq!(regions(&again), regions(&core));
    assert!(
        again
            .stores()
            .all(|it| { it.heard_ms == 1000 || it.info.lifecycle == StoreLifecycle::Tombstone })
    );
    assert!(again.alloc_id() > core.alloc_id(), "no id is given out twice");
    // What the part pushed out is still not believed in an older term.
    let deposed = again.region_heartbeat(1001, heartbeat(region(101, ("m", "t"), 4), 8));
    assert!(matches!(deposed, Err(Error::Stale)));
    again.region_heartbeat(1001, heartbeat(region(101, ("m", "t"), 4), 9)).expect("as known");
    // The same life, saved twice, is the same bytes.
    assert_eq!(lived().save(), bytes);
}

/// What was answered is in the bytes saved before, whenever PD falls over: it says when it
/// must be saved.
#[test]
fn what_was_promised_is_saved_in_time() {
    let mut core = PdCore::new(CLUSTER, PdConfig::manual());
    assert!(core.is_unsaved(), "nobody knows of it");
    let mut disk = core.save();
    assert!(!core.is_unsaved());
    core.bootstrap(0, info(1, StoreLifecycle::Up), first()).expect("it is the first");
    assert!(core.is_unsaved(), "the first region");
    let mut largest = 0;
    let mut saves = 0;
    for turn in 0..10_000_u64 {
        let id = core.alloc_id();
        assert!(id > largest, "{id} was given out before");
        largest = id;
        if core.is_unsaved() {
            disk = core.save();
            saves += 1;
        }
        if turn % 777 == 0 {
            core = PdCore::load(turn, &disk, PdConfig::manual()).expect("it was saved");
        }
    }
    assert!(saves < 50, "{saves} saves");
    let _ = core.save();
    core.put_store(0, info(1, StoreLifecycle::Up)).expect("as before");
    assert!(!core.is_unsaved(), "nothing new");
    core.put_store(0, info(9, StoreLifecycle::Up)).expect("a new address");
    assert!(core.is_unsaved(), "a new store");
    let _ = core.save();
    core.set_lifecycle(StoreId::must(9), StoreLifecycle::Offline).expect("it is known");
    assert!(core.is_unsaved(), "what becomes of a store");
}

fn first() -> Region {
    let mut region = region(100, ("", ""), 1);
    region.peers.truncate(1);
    region
}

/// Every flipped bit and every cut is found.
#[test]
fn damage_is_refused() {
    let bytes = lived().save();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            assert!(load(&damaged).is_err(), "bit {bit} of byte {at}");
        }
        assert!(load(&bytes[..at]).is_err(), "cut at {at}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(load(&longer).is_err());
    assert!(matches!(load(b""), Err(LoadError::Unknown)));
    assert!(matches!(load(&bytes[..20]), Err(LoadError::Truncated { record: 0 })));
    let mut flipped = bytes;
    flipped[20] ^= 1;
    assert!(matches!(load(&flipped), Err(LoadError::Checksum { record: 0 })));
}

/// Records that were exchanged, left out or repeated are found though each is whole.
#[test]
fn records_keep_their_places() {
    let bytes = lived().save();
    let mut records = Vec::new();
    let mut rest = &bytes[8..];
    while !rest.is_empty() {
        let len: [u8; 4] = rest[..4].try_into().expect("four bytes");
        let whole = u32::from_be_bytes(len) as usize + 8;
        records.push(&rest[..whole]);
        rest = &rest[whole..];
    }
    assert!(records.len() > 8);
    let join = |records: &[&[u8]]| [&bytes[..8], &records.concat()].concat();
    assert!(load(&join(&records)).is_ok());
    for at in 0..records.len() {
        let mut fewer = records.clone();
        fewer.remove(at);
        assert!(load(&join(&fewer)).is_err(), "without {at}");
        let mut twice = records.clone();
        twice.insert(at, records[at]);
        assert!(load(&join(&twice)).is_err(), "{at} twice");
        let mut swapped = records.clone();
        let other = (at + 1) % records.len();
        swapped.swap(at, other);
        assert!(load(&join(&swapped)).is_err(), "{at} and {other}");
    }
}
