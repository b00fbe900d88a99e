//! What a crash leaves half done is finished.

use super::*;

#[test]
fn empty_engines_hold_nothing() {
    let found = Disk::default().recover().unwrap();
    assert!(found.peers.is_empty() && found.applying.is_empty());
    assert_eq!(found.gaps, [(b"z".to_vec(), b"{".to_vec())]);
}

#[test]
fn normal_replica_comes_back_as_it_was() {
    let peer = normal().only_peer();
    assert_eq!(peer.region, region());
    assert_eq!(peer.peer, OWN);
    assert_eq!(peer.local, local(7, 12, 18, 20));
    assert_eq!(peer.apply, apply(15, 7, 8, 7));
    assert_eq!(peer.last_term, 7);
}

/// H3, R3: an applied entry is committed, whatever the stored commit index says.
#[test]
fn h3_commit_is_repaired_from_applied() {
    let disk = normal();
    disk.local(R1, local(7, 12, 9, 20));
    assert_eq!(
        disk.recover_with(&Planted(Bug::CommitNotRepaired)).unwrap().peers[0].local,
        local(7, 12, 9, 20)
    );
    assert_eq!(disk.only_peer().local, local(7, 12, 15, 20));
    assert_eq!(disk.raft.raft_state(R1).unwrap(), Some(local(7, 12, 15, 20)));
}

/// H8: applied and last term are those of the entries, not constants.
#[test]
fn h8_terms_are_those_of_the_log() {
    let disk = normal();
    disk.log(R1, 16..=20, 9).local(R1, local(9, 0, 15, 20));
    assert_eq!(disk.only_peer().last_term, 9);
    // Nothing behind the cut.
    let disk = Disk::default();
    disk.region(RegionPhase::Normal, &region())
        .apply(R1, apply(8, 6, 8, 6))
        .local(R1, local(7, 0, 8, 8));
    assert_eq!(disk.only_peer().last_term, 6);
}

/// "Split applied, new peer not yet created": the log's state is made up.
#[test]
fn new_region_without_a_log_gets_one() {
    let disk = Disk::default();
    disk.region(RegionPhase::Normal, &region()).apply(R1, initial_apply_state());
    let peer = disk.only_peer();
    assert_eq!(peer.local, initial_local_state(OWN.id));
    assert_eq!(peer.last_term, 5);
}

/// W3: the uninitialised peer of the same id had voted before the split came.
#[test]
fn w3_vote_of_the_same_peer_is_completed() {
    for (term, vote, expected_vote) in [(8, 12, 12), (5, 12, 0), (3, 12, 0)] {
        let disk = Disk::default();
        disk.region(RegionPhase::Normal, &region())
            .apply(R1, initial_apply_state())
            .local(R1, local(term, vote, 0, 0));
        assert_eq!(disk.only_peer().local, local(term.max(5), expected_vote, 5, 5));
    }
}

#[test]
fn w3_vote_of_an_earlier_incarnation_is_replaced() {
    let disk = Disk::default();
    disk.region(RegionPhase::Normal, &region())
        .apply(R1, initial_apply_state())
        .local(R1, of_peer(4, local(9, 12, 0, 0)));
    assert_eq!(disk.only_peer().local, initial_local_state(OWN.id));
}

fn only_applying(disk: &Disk) -> RecoveredPeer {
    let found = disk.recover().unwrap();
    assert!(found.peers.is_empty() && found.quarantined.is_empty(), "{found:?}");
    let [peer] = found.applying.as_slice() else { panic!("{found:?}") };
    assert_eq!(disk.recover().unwrap().applying, found.applying, "repaired on disk too");
    peer.clone()
}

/// H1: the log part of the acceptance was lost, and the old log is longer than the new one.
#[test]
fn h1_lost_log_part_is_redone_from_the_copy() {
    let disk = applying();
    let peer = only_applying(&disk);
    assert_eq!(peer.local, local(9, 12, 30, 30));
    assert_eq!((peer.apply, peer.last_term), (apply(30, 9, 30, 9), 9));
    for index in [6, 30, 31, 40] {
        assert_eq!(disk.raft.entry(R1, index).unwrap(), None, "entry {index} of the old log");
    }
    assert!(disk.stored(&keys::snapshot_raft_state_key(R1)).is_some(), "until installed");
}

/// Neither was there a log before: a replica that was created from a message.
#[test]
fn lost_log_part_of_a_new_replica() {
    let disk = Disk::default();
    disk.region(RegionPhase::Applying, &region())
        .apply(R1, apply(30, 9, 30, 9))
        .copy(R1, local(9, 0, 30, 30));
    assert_eq!(only_applying(&disk).local, local(9, 0, 30, 30));
    // A vote it has cast stays cast.
    disk.local(R1, local(9, 12, 0, 0));
    assert_eq!(only_applying(&disk).local, local(9, 12, 30, 30));
    disk.local(R1, local(10, 11, 0, 0));
    assert_eq!(only_applying(&disk).local, local(10, 11, 30, 30));
    // Another incarnation's does not.
    disk.local(R1, of_peer(4, local(10, 11, 0, 0)));
    assert_eq!(only_applying(&disk).local, local(9, 0, 30, 30));
}

/// Both writes of the acceptance are there, and entries behind the snapshot with them.
#[test]
fn accepted_snapshot_is_installed_again() {
    let disk = applying();
    let mut batch = disk.raft.log_batch();
    batch.clear_region(R1);
    batch.append(R1, &[entry(R1, 31, 9), entry(R1, 32, 10)]);
    batch.put_raft_state(R1, &local(10, 12, 30, 32));
    disk.raft.write(batch, Durability::Synced).unwrap();
    let peer = only_applying(&disk);
    assert_eq!((peer.local, peer.last_term), (local(10, 12, 30, 32), 10));
}

#[test]
fn planted_install_bug_takes_half_for_whole() {
    let disk = applying();
    let found = disk.recover_with(&Planted(Bug::InstallNotRedone)).unwrap();
    assert_eq!((found.peers.len(), found.applying.len()), (1, 0));
    assert_eq!(disk.recover().unwrap().peers, found.peers);
}

/// "Destroy: tombstone written, log not cleared", and the same for an own removal.
#[test]
fn tombstone_clears_what_is_left_of_the_log() {
    let disk = normal();
    disk.region(RegionPhase::Tombstone, &region());
    let before = disk.stored(&keys::region_state_key(R1));
    let found = disk.recover().unwrap();
    assert_eq!((found.peers.len(), found.tombstones), (0, 1));
    assert!(disk.raft.regions().unwrap().is_empty());
    assert_eq!(disk.stored(&keys::apply_state_key(R1)), None);
    assert_eq!(disk.stored(&keys::region_state_key(R1)), before, "unchanged");
    assert_eq!(disk.recover().unwrap().tombstones, 1);
}

/// W2: a newer incarnation has voted and waits for its snapshot.
#[test]
fn w2_tombstone_leaves_the_vote_of_a_newer_peer() {
    let disk = Disk::default();
    let vote = of_peer(OWN.id.get() + 1, local(9, 12, 0, 0));
    disk.region(RegionPhase::Tombstone, &region()).local(R1, vote);
    assert_eq!(disk.recover().unwrap().tombstones, 1);
    assert_eq!(disk.raft.raft_state(R1).unwrap(), Some(vote));
}

/// H9: an uninitialised peer's vote is kept, and obeyed when the peer comes again.
#[test]
fn h9_vote_without_a_region_is_kept() {
    let disk = Disk::default();
    disk.local(R1, local(9, 12, 0, 0));
    let found = disk.recover().unwrap();
    assert!(found.peers.is_empty() && found.quarantined.is_empty());
    let load = |peer| load_uninitialized(&disk.raft, R1, PeerId::must(peer)).unwrap();
    assert_eq!(load(11), Some(local(9, 12, 0, 0)));
    assert_eq!(load(12), None, "a later incarnation is not bound");
    assert_eq!(load(10), Some(local(9, 12, 0, 0)), "an earlier one must not be built");
    assert_eq!(load_uninitialized(&disk.raft, RegionId::must(99), OWN.id).unwrap(), None);
}

#[test]
fn gaps_are_what_belongs_to_nobody() {
    let disk = Disk::default();
    for (id, start, end, phase) in [
        (1, "m", "p", RegionPhase::Normal),
        (2, "b", "d", RegionPhase::Normal),
        (3, "d", "f", RegionPhase::Normal),
        (4, "f", "m", RegionPhase::Tombstone),
    ] {
        let id = RegionId::must(id);
        disk.region(phase, &region_of(id, start, end)).apply(id, initial_apply_state());
    }
    let found = disk.recover().unwrap();
    assert_eq!(found.peers.len(), 3);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let gaps: Vec<_> = found.gaps.into_iter().map(|(a, b)| (text(a), text(b))).collect();
    let expected = [("z", "zb"), ("zf", "zm"), ("zp", "{")];
    assert_eq!(gaps, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    let whole = normal();
    assert!(whole.recover().unwrap().gaps.is_empty());
}

/// Whatever a stopped process left buffered is durable before it is acted on.
#[test]
fn start_makes_durable_what_it_read() {
    let disk = Disk::default();
    let mut batch = disk.kv.write_batch();
    put_new_region(&region(), &mut batch);
    disk.kv.write(batch, Durability::Buffered).unwrap();
    let mut batch = disk.raft.log_batch();
    batch.put_raft_state(R1, &initial_local_state(OWN.id));
    disk.raft.write(batch, Durability::Buffered).unwrap();
    let found = disk.recover().unwrap();
    disk.kv.crash(0);
    disk.raft.crash(0);
    let again = Disk { kv: disk.kv.reopen(), raft: disk.raft.reopen() }.recover().unwrap();
    assert_eq!(again.peers, found.peers);
    assert_eq!(again.peers.len(), 1);
}

/// Repairs go to the data engine first: with its write failed, the log stays as it was.
#[test]
fn data_engine_is_written_before_the_log() {
    let disk = normal();
    disk.region(RegionPhase::Tombstone, &region());
    disk.kv.faults().fail_write(1, engine_traits::mem::Leaves::Nothing);
    assert!(disk.recover().is_err());
    assert!(!disk.raft.regions().unwrap().is_empty());
}

#[cfg(feature = "test-support")]
#[test]
fn seeded_regions_are_found() {
    let disk = Disk::default();
    let regions = [region_of(R1, "", "k"), region_of(RegionId::must(20), "k", "")];
    crate::store::seed::seed_regions(&disk.kv, &disk.raft, &regions, STORE).unwrap();
    let found = disk.recover().unwrap();
    assert!(found.peers.iter().map(|peer| &peer.region).eq(regions.iter()));
    assert!(found.peers.iter().all(|peer| peer.local == initial_local_state(OWN.id)));
    assert!(found.gaps.is_empty());
}
