//! Writes that depend on what they find.

use super::*;

fn swapped(swapped: bool, previous: Option<&'static str>) -> Result<ResponseBody, RegionError> {
    ok(vec![OperationResponse::CompareAndSwap { swapped, previous: previous.map(Bytes::from) }])
}

fn bodies(outcome: &ApplyOutcome<MemEngine>) -> Vec<Result<ResponseBody, RegionError>> {
    outcome.answers.iter().map(|(_, response)| response.body.clone()).collect()
}

fn alone(index: u64, operation: Operation) -> Entry {
    conditional(index, &operations(vec![operation]))
}

/// What a condition looks at includes every entry before it, also those of the same run,
/// and whether a value is empty is not whether there is one.
#[test]
fn a_condition_sees_all_entries_before_it_and_none_behind() {
    let mut fixture = Fixture::new();
    let outcome = fixture.execute(vec![
        alone(6, swap("c", None, Some(""))),
        alone(7, swap("c", None, Some("lost"))),
        alone(8, swap("c", Some(""), Some("1"))),
        entry(9, &operations(vec![put("c", "2")])),
        alone(10, swap("c", Some("1"), Some("lost"))),
        alone(11, swap("c", Some("2"), None)),
        alone(12, swap("c", Some("2"), Some("lost"))),
        alone(13, swap("c", None, None)),
        entry(14, &operations(vec![put("d", "3")])),
    ]);
    let put = || ok(vec![OperationResponse::Put]);
    let expected = [
        swapped(true, None),
        swapped(false, Some("")),
        swapped(true, Some("")),
        put(),
        swapped(false, Some("2")),
        swapped(true, Some("2")),
        swapped(false, None),
        swapped(true, None),
        put(),
    ];
    assert_eq!(bodies(&outcome), expected);
    assert_eq!((fixture.data("c"), fixture.data("d")), (None, Some("3".into())));
    assert_eq!(fixture.stored_state(R1).map(|state| state.applied), Some(14));
}

/// A crash loses writes that were not synced, never half of an entry: executed again, a
/// condition finds what it found.
#[test]
fn a_condition_that_is_executed_again_decides_alike() {
    let entries = || {
        vec![
            entry(6, &operations(vec![put("c", "1")])),
            alone(7, swap("c", Some("1"), Some("2"))),
            alone(8, swap("c", Some("2"), Some("3"))),
        ]
    };
    for keep in 0..=3 {
        let mut fixture = Fixture::new();
        let first = bodies(&fixture.execute(entries()));
        fixture.kv.crash(keep);
        fixture.kv = fixture.kv.reopen();
        fixture.worker = ApplyWorker::new(fixture.kv.clone(), NoHooks);
        let start = fixture.stored_state(R1);
        let mut registration = registration(R1);
        if let (ApplyWork::Register(registration), Some(state)) = (&mut registration, start) {
            registration.state = state;
        }
        let _ = fixture.run(vec![task(R1, registration)]);
        let applied = start.map_or(5, |state| state.applied);
        let left: Vec<_> = entries().into_iter().filter(|it| it.index() > applied).collect();
        let done = 3 - left.len();
        assert_eq!(bodies(&fixture.execute(left)), first[done..], "{keep} writes kept");
        assert_eq!(fixture.data("c"), Some("3".into()));
    }
}

#[test]
fn a_condition_is_refused_beside_others_outside_and_without_its_flag() {
    let command = |list| operations(list);
    let entries = [
        conditional(6, &command(vec![swap("c", None, Some("1")), put("d", "1")])),
        conditional(6, &command(vec![put("d", "1"), swap("c", None, Some("1"))])),
        conditional(6, &command(vec![swap("z", None, Some("1"))])),
        entry(6, &command(vec![swap("c", None, Some("1"))])),
    ];
    for entry in entries {
        let mut fixture = Fixture::new();
        let outcome = fixture.execute(vec![entry]);
        assert!(answer(&outcome.answers, 6).is_err());
        assert_eq!((fixture.data("c"), fixture.data("d")), (None, None));
        assert_eq!(fixture.stored_state(R1).map(|state| state.applied), Some(6));
    }
}

#[test]
fn an_unmet_condition_counts_no_writes() {
    let mut fixture = Fixture::new();
    let outcome = fixture.execute(vec![alone(6, swap("c", Some("x"), Some("1")))]);
    assert_eq!(applied(&outcome).metrics, ApplyMetrics { entries: 1, ..Default::default() });
    let outcome = fixture.execute(vec![alone(7, swap("c", None, Some("1")))]);
    assert_eq!(applied(&outcome).metrics.written_keys, 1);
}
