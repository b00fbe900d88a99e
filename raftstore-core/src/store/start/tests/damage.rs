//! What cannot be trusted is not obeyed: one replica, or the whole store.

use engine_traits::Error;

use super::*;

fn quarantined(disk: &Disk) -> (Vec<RegionId>, Recovery) {
    let found = disk.recover().unwrap();
    (found.quarantined.iter().map(|(region, _)| *region).collect(), found)
}

/// A healthy neighbour of region 10.
fn with_neighbour(disk: &Disk) -> RegionId {
    let id = RegionId::must(20);
    disk.region(RegionPhase::Normal, &region_of(id, "k", "")).apply(id, initial_apply_state());
    id
}

/// D15: one bad record takes its replica out of service, not the store.
#[test]
fn damaged_records_quarantine_their_replica() {
    for key in [keys::region_state_key(R1), keys::apply_state_key(R1)] {
        let disk = normal();
        disk.region(RegionPhase::Normal, &region_of(R1, "", "k"));
        let neighbour = with_neighbour(&disk);
        assert!(disk.kv.flip_bit(Cf::Raft, &key, 9));
        let (bad, found) = quarantined(&disk);
        assert_eq!(bad, [R1]);
        assert_eq!(found.peers[0].region.id, neighbour);
        assert!(found.gaps.is_empty(), "its data is not garbage");
    }
    let disk = applying();
    assert!(disk.kv.flip_bit(Cf::Raft, &keys::snapshot_raft_state_key(R1), 9));
    assert_eq!(quarantined(&disk).0, [R1]);
}

/// W12: with a range unknown, nothing may be taken for garbage.
#[test]
fn w12_gaps_are_unknown_while_a_region_record_is_unreadable() {
    let disk = normal();
    disk.region(RegionPhase::Normal, &region_of(R1, "c", "k"));
    with_neighbour(&disk);
    let gap = || disk.recover().unwrap().gaps;
    assert_eq!(gap(), [(b"z".to_vec(), b"zc".to_vec())]);
    assert!(disk.kv.flip_bit(Cf::Raft, &keys::region_state_key(R1), 9));
    assert!(gap().is_empty());
}

/// The engine itself finds the record damaged, and the walk goes on behind it.
#[test]
fn unreadable_rows_do_not_end_the_walk() {
    let disk = normal();
    disk.region(RegionPhase::Normal, &region_of(R1, "", "k"));
    let neighbour = with_neighbour(&disk);
    assert!(disk.kv.damage(Cf::Raft, &keys::region_state_key(R1)));
    let (bad, found) = quarantined(&disk);
    assert_eq!((bad, found.peers[0].region.id), (vec![R1], neighbour));
    // Two in a row, and one behind them.
    let last = RegionId::must(30);
    disk.local(neighbour, initial_local_state(OWN.id));
    disk.region(RegionPhase::Tombstone, &region_of(last, "x", ""));
    assert!(disk.kv.damage(Cf::Raft, &keys::region_state_key(neighbour)));
    let (bad, found) = quarantined(&disk);
    assert_eq!((bad, found.tombstones), (vec![R1, neighbour], 1));
}

/// Nobody knows which region the row belongs to: better no start than a wrong one.
#[test]
fn unreadable_row_of_an_unknown_region_stops_the_start() {
    let disk = Disk::default();
    disk.region(RegionPhase::Normal, &region()).apply(R1, initial_apply_state());
    assert!(disk.kv.damage(Cf::Raft, &keys::region_state_key(R1)));
    assert!(disk.recover().is_err());
}

#[test]
fn damaged_log_quarantines_its_replica() {
    let disk = normal();
    assert!(disk.raft.damage_raft_state(R1));
    assert_eq!(quarantined(&disk).0, [R1]);
    for index in [15, 20] {
        let disk = normal();
        assert!(disk.raft.damage_entry(R1, index));
        assert_eq!(quarantined(&disk).0, [R1]);
    }
    let disk = Disk::default();
    disk.local(R1, local(9, 12, 0, 0));
    assert!(disk.raft.damage_raft_state(R1));
    assert_eq!(quarantined(&disk).0, [R1], "a vote that cannot be read");
}

/// D21: the entry's own checksum counts, whatever the engine says.
#[test]
fn entry_with_a_wrong_checksum_quarantines() {
    let disk = normal();
    let mut wrong = entry(R1, 20, 7).into_raft();
    wrong.data = vec![9].into();
    let mut batch = disk.raft.log_batch();
    batch.append(R1, &[Entry::from_raft(wrong)]);
    disk.raft.write(batch, Durability::Synced).unwrap();
    assert_eq!(quarantined(&disk).0, [R1]);
}

/// W12: what was taken out of service stays so, and keeps its range.
#[test]
fn quarantine_mark_is_obeyed() {
    let disk = normal();
    disk.put(&keys::quarantine_key(R1), b"entry 17");
    let (_, found) = quarantined(&disk);
    assert_eq!(found.quarantined, [(R1, "entry 17".to_owned())]);
    assert!(found.peers.is_empty() && found.gaps.is_empty());
    // A removed replica needs none.
    disk.region(RegionPhase::Tombstone, &region());
    let (bad, found) = quarantined(&disk);
    assert_eq!((bad.len(), found.tombstones), (0, 1));
    assert_eq!(disk.stored(&keys::quarantine_key(R1)), None);
    // Nor does it take a record: the peer may not have known its range.
    let disk = Disk::default();
    disk.put(&keys::quarantine_key(R1), b"vote");
    assert_eq!(quarantined(&disk).0, [R1]);
}

#[test]
fn entries_without_a_region_are_a_lost_record() {
    let disk = Disk::default();
    disk.log(R1, 6..=9, 6).local(R1, local(6, 0, 9, 9));
    let (bad, found) = quarantined(&disk);
    assert_eq!(bad, [R1]);
    assert!(found.gaps.is_empty());
    assert!(!disk.raft.regions().unwrap().is_empty(), "nothing is removed");
}

/// H3, I1, I9: positions and terms that no crash can leave mean lost writes.
#[test]
fn h3_contradictions_stop_the_start() {
    type Case = (&'static str, fn(&Disk));
    let cases: [Case; 11] = [
        ("log ends before what is applied", |disk| {
            disk.local(R1, local(7, 12, 10, 14));
        }),
        ("log ends before what is committed", |disk| {
            disk.local(R1, local(7, 12, 21, 20));
        }),
        ("log cut beyond what is applied", |disk| {
            disk.apply(R1, apply(15, 7, 16, 7));
        }),
        ("another entry is in the log than was applied", |disk| {
            disk.apply(R1, apply(15, 6, 8, 6));
        }),
        ("term behind the log's", |disk| {
            disk.local(R1, local(6, 0, 18, 20));
        }),
        ("entry 25 is not in the log", |disk| {
            disk.local(R1, local(7, 0, 18, 25));
        }),
        ("with None", |disk| {
            let mut batch = disk.raft.log_batch();
            batch.clear_region(R1);
            disk.raft.write(batch, Durability::Synced).unwrap();
        }),
        ("peer: PeerId(4)", |disk| {
            disk.local(R1, of_peer(4, local(7, 12, 18, 20)));
        }),
        ("peer: PeerId(99)", |disk| {
            disk.apply(R1, initial_apply_state()).local(R1, of_peer(99, local(9, 0, 0, 0)));
        }),
        ("store 1 is not a member", |disk| {
            disk.region(RegionPhase::Normal, &Region { peers: vec![OTHER], ..region() });
        }),
        ("it is being merged into a neighbour", |disk| {
            disk.region(RegionPhase::Merging, &region());
        }),
    ];
    for (expected, spoil) in cases {
        let disk = normal();
        spoil(&disk);
        let detail = disk.refusal();
        assert!(detail.contains(expected), "{expected}: {detail}");
    }
}

#[test]
fn missing_records_stop_the_start() {
    let disk = Disk::default();
    disk.region(RegionPhase::Normal, &region());
    assert_eq!(disk.refusal(), "no apply state");
    disk.region(RegionPhase::Applying, &region()).apply(R1, apply(30, 9, 30, 9));
    assert_eq!(disk.refusal(), "no raft state of the accepted snapshot");
    disk.copy(R1, local(9, 0, 29, 29));
    assert!(disk.refusal().contains("commit: 29"));
}

#[test]
fn overlapping_regions_stop_the_start() {
    let disk = normal();
    with_neighbour(&disk);
    assert!(disk.refusal().contains("overlaps"));
}

#[test]
fn identity_must_be_ours() {
    let put = |disk: &Disk, record: &[u8]| {
        let mut batch = disk.kv.write_batch();
        batch.put(Cf::Default, &keys::STORE_IDENT, record);
        disk.kv.write(batch, Durability::Synced).unwrap();
    };
    let ident =
        |store| record::encode_store_ident(&StoreIdent { cluster: ClusterId::must(1), store });
    let disk = normal();
    put(&disk, &ident(STORE));
    disk.only_peer();
    put(&disk, &ident(StoreId::must(2)));
    assert!(disk.refusal().contains("belong to store 2, not 1"));
    put(&disk, b"garbage");
    let error = disk.recover().unwrap_err();
    assert!(matches!(error.source, crate::FatalSource::Record(_)), "{error:?}");
}

/// An engine that fails, as opposed to one that finds damage, is nobody's own.
#[test]
fn failing_reads_stop_the_start() {
    let disk = normal();
    for nth in 1..20 {
        disk.kv.faults().clear();
        disk.kv.faults().fail_read(nth);
        if let Err(error) = disk.recover() {
            let source = &error.source;
            assert!(matches!(source, crate::FatalSource::Engine(Error::Backend { .. })));
        } else {
            assert!(nth > 4, "read {nth} was not noticed");
            return;
        }
    }
    panic!("reads without end");
}
