//! Batches, snapshots, and the life of an Applier.

use super::*;

fn write_to(region: RegionId, index: u64, key: &'static str) -> Entry {
    entry_of(region, index, &operations(vec![put(key, "1")]))
}

fn no_proposals(entries: Vec<Entry>) -> ApplyWork {
    work(entries, vec![])
}

#[test]
fn regions_share_one_write() {
    let mut fixture = Fixture::new();
    let outcome = fixture.run(vec![
        task(R1, no_proposals(vec![write_to(R1, 6, "b")])),
        task(R2, no_proposals(vec![write_to(R2, 6, "n")])),
        task(R1, no_proposals(vec![write_to(R1, 7, "c")])),
    ]);
    assert_eq!((fixture.kv.unsynced_writes(), fixture.meta.numbers.written()), (1, 1));
    let regions: Vec<_> = outcome
        .events
        .iter()
        .map(|event| match event {
            ApplyEvent::Applied(result) => (result.region, result.state.applied, result.kv_number),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(regions, [(R1, 7, 1), (R2, 6, 1)]);
}

#[test]
fn long_runs_are_cut_into_batches_that_are_whole() {
    let mut fixture = Fixture::new();
    let entries = (6..606).map(|index| write_to(R1, index, "b")).collect();
    let outcome = fixture.run(vec![task(R1, no_proposals(entries))]);
    let mut last = 5;
    for event in &outcome.events {
        let ApplyEvent::Applied(result) = event else { panic!("{event:?}") };
        assert!(result.state.applied - last <= 256);
        assert_eq!(result.metrics.entries, result.state.applied - last);
        last = result.state.applied;
    }
    assert_eq!((last, outcome.events.len()), (605, 3));
    assert_eq!(fixture.kv.unsynced_writes(), 3);
    // After a crash between two of them the state fits the data.
    fixture.kv.crash(1);
    fixture.kv = fixture.kv.reopen();
    assert_eq!(fixture.stored_state(R1).unwrap().applied, 5 + 256);
}

#[test]
fn large_batches_are_cut_too() {
    let mut fixture = Fixture::new();
    let big =
        || Operation::Put { cf: Cf::Default, key: "b".into(), value: vec![0; 600 << 10].into() };
    let entries = (6..10).map(|index| entry(index, &operations(vec![big()]))).collect();
    let _ = fixture.run(vec![task(R1, no_proposals(entries))]);
    assert_eq!(fixture.kv.unsynced_writes(), 2);
}

/// H46: the engine snapshot shows exactly what the apply state says.
#[test]
fn h46_snapshot_is_taken_behind_everything_before_it() {
    let mut fixture = Fixture::new();
    let outcome = fixture.run(vec![
        task(R1, no_proposals(vec![write_to(R1, 6, "b")])),
        task(R1, snapshot_at(6)),
        task(R1, no_proposals(vec![write_to(R1, 7, "c")])),
    ]);
    let [build] = outcome.builds.as_slice() else { panic!("{outcome:?}") };
    assert_eq!(build.key, SnapKey { region: R1, term: TERM, index: 6 });
    assert_eq!((&build.region, build.incarnation), (&region(R1), INCARNATION));
    let seen = |key: &[u8]| build.snapshot.get(Cf::Default, key).unwrap().is_some();
    assert!(seen(b"zb") && !seen(b"zc"));
    assert!(fixture.data("c").is_some());
}

/// A request that goes unanswered would never be made again.
#[test]
fn snapshot_comes_even_if_more_was_asked_for() {
    let mut fixture = Fixture::new();
    let outcome = fixture.run(vec![task(R1, snapshot_at(9))]);
    assert_eq!(outcome.builds[0].key, SnapKey { region: R1, term: 5, index: 5 });
    assert_eq!(fixture.meta.numbers.written(), 0);
    let other = ApplyTask { region: R1, incarnation: INCARNATION - 1, work: snapshot_at(5) };
    assert!(fixture.run(vec![other]).builds.is_empty(), "another incarnation's");
}

#[test]
fn registering_again_starts_over() {
    let mut fixture = Fixture::new();
    let restart = ApplyTask { incarnation: 8, ..task(R1, registration(R1)) };
    let outcome = fixture.run(vec![
        task(R1, work(vec![write_to(R1, 6, "b")], vec![waits(6, TERM), waits(7, TERM)])),
        restart,
    ]);
    assert_eq!(outcome.answers.len(), 2);
    assert!(outcome.answers[0].1.body.is_ok());
    let stale = Response::error(TERM, RegionError::StaleCommand);
    assert_eq!(outcome.answers[1], (reply(7), stale));
    // The result of the old incarnation is told under its own number.
    assert_eq!(applied(&outcome).incarnation, INCARNATION);
    assert_eq!(fixture.worker.applier(R1).unwrap().state().applied, 5);
    // Late tasks of the old one change nothing.
    let late = fixture.run(vec![
        task(R1, work(vec![write_to(R1, 7, "c")], vec![waits(8, TERM)])),
        task(R1, ApplyWork::Destroy),
    ]);
    let gone = Err(RegionError::RegionNotFound { region: R1 });
    assert_eq!(answer(&late.answers, 8), &gone);
    assert!(late.events.is_empty());
    assert_eq!(fixture.data("c"), None);
}

#[test]
fn destroy_answers_and_says_so_once() {
    let mut fixture = Fixture::new();
    let outcome = fixture.run(vec![
        task(R1, work(vec![write_to(R1, 6, "b")], vec![waits(9, TERM)])),
        task(R1, ApplyWork::Destroy),
        task(R1, ApplyWork::Destroy),
    ]);
    let gone = RegionError::RegionNotFound { region: R1 };
    assert_eq!(answer(&outcome.answers, 9), &Err(gone.clone()));
    assert!(matches!(
        outcome.events.as_slice(),
        [ApplyEvent::Applied(_), ApplyEvent::Destroyed { region: R1, incarnation: INCARNATION }]
    ));
    // The peer is known to be gone, so late entries are no error.
    let late = fixture.execute(vec![write_to(R1, 7, "c")]);
    assert_eq!(answer(&late.answers, 7), &Err(gone));
    assert_eq!(fixture.data("c"), None);
}

/// H60: entries that nobody will execute must not vanish with a log line.
#[test]
fn h60_entries_without_an_applier_stop_the_store() {
    let mut fixture = Fixture::new();
    let unknown = RegionId::must(9);
    let entries = vec![write_to(unknown, 6, "b")];
    let tasks = vec![task(unknown, work(entries, vec![waits(6, TERM)]))];
    let error = fixture.worker.run(tasks, &fixture.meta).unwrap_err();
    assert_eq!(error.region, Some(unknown));
    assert_eq!(fixture.worker.stop().len(), 1);
    let mut fixture = Fixture::new();
    let outcome = fixture.run(vec![task(unknown, work(vec![], vec![waits(6, TERM)]))]);
    let gone = Err(RegionError::RegionNotFound { region: unknown });
    assert_eq!(answer(&outcome.answers, 6), &gone);
}

/// D21: a damaged entry is not executed, nor anything behind it.
#[test]
fn damaged_entry_ends_execution() {
    let mut fixture = Fixture::new();
    let mut bad = write_to(R1, 7, "c").into_raft();
    bad.data = wire::encode_command(&operations(vec![put("d", "1")])).into();
    let entries = vec![write_to(R1, 6, "b"), Entry::from_raft(bad), write_to(R1, 8, "e")];
    let outcome = fixture.execute(entries);
    assert!(matches!(
        outcome.events.as_slice(),
        [
            ApplyEvent::Applied(result),
            ApplyEvent::Damaged { region: R1, incarnation: INCARNATION, index: 7 },
        ] if result.state.applied == 6
    ));
    let bodies: Vec<_> = outcome.answers.iter().map(|(_, it)| it.body.is_ok()).collect();
    assert_eq!(bodies, [true, false, false]);
    assert_eq!(outcome.answers[2].1.body, Err(RegionError::StaleCommand));
    assert!(fixture.data("d").is_none() && fixture.data("e").is_none());
    // It stays so.
    let later = fixture.execute(vec![write_to(R1, 7, "c")]);
    assert_eq!(answer(&later.answers, 7), &Err(RegionError::StaleCommand));
    assert!(later.events.is_empty());
    // Other regions are unharmed.
    let other = fixture.run(vec![task(R2, no_proposals(vec![write_to(R2, 6, "n")]))]);
    assert_eq!(applied(&other).state.applied, 6);
}

#[test]
fn entry_of_another_region_is_damage() {
    let mut fixture = Fixture::new();
    let outcome = fixture.execute(vec![write_to(R2, 6, "n")]);
    assert!(matches!(outcome.events.as_slice(), [ApplyEvent::Damaged { index: 6, .. }]));
}

#[test]
#[should_panic(expected = "does not follow the applied index")]
fn gap_in_the_entries_is_a_bug() {
    let _ = Fixture::new().execute(vec![write_to(R1, 7, "b")]);
}

#[test]
#[should_panic(expected = "does not follow the applied index")]
fn entry_given_twice_is_a_bug() {
    let _ = Fixture::new().execute(vec![write_to(R1, 6, "b"), write_to(R1, 6, "b")]);
}

/// Replicas that understand less than others must stop, not diverge.
#[test]
fn undecodable_command_stops_the_store() {
    let mut fixture = Fixture::new();
    let garbage = seal(R1, raw(6, TERM, vec![0xFF; 5]));
    let tasks = vec![task(R1, work(vec![garbage], vec![waits(6, TERM)]))];
    let error = fixture.worker.run(tasks, &fixture.meta).unwrap_err();
    assert_eq!(error.region, Some(R1));
    assert_eq!(fixture.kv.unsynced_writes(), 0);
    assert_eq!(fixture.worker.stop().len(), 1);
}

#[test]
fn failed_engine_snapshot_stops_the_store() {
    let mut fixture = Fixture::new();
    fixture.kv.faults().fail_read(1);
    let tasks = vec![task(R1, snapshot_at(5))];
    assert!(fixture.worker.run(tasks, &fixture.meta).is_err());
}
