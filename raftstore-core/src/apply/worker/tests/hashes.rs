//! When the engine is looked at to compare replicas.

use super::*;

fn compute(index: u64) -> Entry {
    entry(index, &command(Body::Admin(AdminCommand::ComputeHash)))
}

/// The engine's snapshot is that of the entry: everything before is in it, though it came
/// in the same task, and nothing behind.
#[test]
fn a_hash_is_of_the_moment_of_its_entry() {
    let mut fixture = Fixture::new();
    let outcome = fixture.execute(vec![
        entry(6, &operations(vec![put("c", "before")])),
        compute(7),
        entry(8, &operations(vec![put("c", "after"), put("d", "after")])),
    ]);
    let [job] = outcome.hashes.as_slice() else { panic!("{outcome:?}") };
    assert_eq!((job.index, job.incarnation, &job.region), (7, INCARNATION, &region(R1)));
    let read = |key: &str| job.snapshot.get(Cf::Default, &keys::data_key(key.as_bytes())).unwrap();
    assert_eq!((read("c"), read("d")), (Some("before".into()), None));
    let state = job.snapshot.get(Cf::Raft, &keys::apply_state_key(R1)).unwrap().unwrap();
    assert_eq!(record::decode_apply_state(R1, &state).unwrap().applied, 7);
    assert_eq!(fixture.data("c"), Some("after".into()));
    let exec: Vec<_> = outcome.events.iter().filter_map(exec_of).flatten().collect();
    assert_eq!(exec, [ExecResult::ComputeHash { index: 7 }]);
}

fn exec_of(event: &ApplyEvent) -> Option<Vec<ExecResult>> {
    match event {
        ApplyEvent::Applied(result) => Some(result.exec.clone()),
        ApplyEvent::Destroyed { .. } | ApplyEvent::Damaged { .. } => None,
    }
}

#[test]
fn several_hashes_of_one_run_are_several_moments() {
    let mut fixture = Fixture::new();
    let outcome = fixture.execute(vec![
        compute(6),
        entry(7, &operations(vec![put("c", "1")])),
        compute(8),
        compute(9),
    ]);
    let seen: Vec<_> = outcome
        .hashes
        .iter()
        .map(|job| (job.index, job.snapshot.get(Cf::Default, b"zc").unwrap().is_some()))
        .collect();
    assert_eq!(seen, [(6, false), (8, true), (9, true)]);
}

#[test]
fn a_hash_to_compare_with_is_passed_on() {
    let mut fixture = Fixture::new();
    let hash = Bytes::from_static(b"whatever it is");
    let verify = AdminCommand::VerifyHash { index: 3, hash: hash.clone() };
    let outcome = fixture.execute(vec![entry(6, &command(Body::Admin(verify)))]);
    let result = applied(&outcome);
    assert_eq!(result.exec, [ExecResult::VerifyHash { index: 3, hash }]);
    let answer = answer(&result.answers, 6);
    assert_eq!(*answer, Ok(ResponseBody::Admin(AdminResponse::VerifyHash)));
    assert!(outcome.hashes.is_empty());
}

#[test]
fn a_replica_that_has_removed_itself_is_not_hashed() {
    let mut fixture = Fixture::new();
    let removal = conf_change(6, &change_peer(ChangeKind::RemoveNode, OWN));
    let outcome = fixture.execute(vec![removal, compute(7)]);
    assert!(outcome.hashes.is_empty());
}
