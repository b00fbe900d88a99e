//! Who is answered what, and that everybody is, once.

use super::*;

fn stale(term: u64) -> Response {
    Response::error(term, RegionError::StaleCommand)
}

fn write(index: u64) -> Entry {
    entry(index, &operations(vec![put("b", "1")]))
}

#[test]
fn proposals_may_wait_for_later_entries() {
    let mut fixture = Fixture::new();
    let outcome =
        fixture.run(vec![task(R1, work(vec![write(6)], vec![waits(6, TERM), waits(7, TERM)]))]);
    assert!(answer(&outcome.answers, 6).is_ok());
    assert_eq!(fixture.worker.pending(), 1);
    let outcome = fixture.run(vec![task(R1, work(vec![write(7)], vec![]))]);
    assert!(answer(&outcome.answers, 7).is_ok());
    assert_eq!(fixture.worker.pending(), 0);
}

/// The entry at a proposal's index decides; so does any entry of a later term.
#[test]
fn overwritten_proposals_are_stale() {
    let mut fixture = Fixture::new();
    // Proposed in terms 5 and 6; the log that won has an entry of term 6 at index 6.
    let proposals = vec![waits(6, 5), waits(9, 5), waits(7, TERM)];
    let outcome = fixture.run(vec![task(R1, work(vec![write(6)], proposals))]);
    assert_eq!(outcome.answers, [(ReplyId(5_006), stale(TERM)), (ReplyId(5_009), stale(TERM))]);
    // An entry of an older term at the very index proves as much.
    let older = seal(R1, raw(7, TERM, wire::encode_command(&operations(vec![]))));
    let outcome = fixture.run(vec![task(R1, work(vec![older], vec![]))]);
    assert!(answer(&outcome.answers, 7).is_ok());
}

#[test]
fn entry_of_an_older_term_at_the_index_makes_stale_too() {
    let mut fixture = Fixture::new();
    let older = seal(R1, raw(6, 5, wire::encode_command(&operations(vec![put("b", "1")]))));
    let outcome = fixture.run(vec![task(R1, work(vec![older], vec![waits(6, TERM)]))]);
    assert_eq!(outcome.answers, [(reply(6), stale(TERM))]);
}

#[test]
fn proposals_that_come_after_their_entry_are_stale() {
    let mut fixture = Fixture::new();
    let _ = fixture.execute(vec![write(6)]);
    let outcome = fixture.run(vec![task(R1, work(vec![], vec![waits(6, TERM), waits(7, TERM)]))]);
    assert_eq!(outcome.answers, [(reply(6), stale(TERM))]);
    assert!(outcome.events.is_empty());
    assert_eq!(fixture.worker.pending(), 1);
}

#[test]
fn empty_entry_of_a_new_term_settles_older_proposals() {
    let mut fixture = Fixture::new();
    let outcome = fixture.run(vec![task(R1, work(vec![empty(6, TERM)], vec![waits(8, 5)]))]);
    assert_eq!(outcome.answers, [(ReplyId(5_008), stale(TERM))]);
    let result = applied(&outcome);
    assert_eq!((result.state.applied, result.state.applied_term), (6, TERM));
    assert!(result.exec.is_empty());
}

/// H31: raft puts an empty entry in the place of a membership change that it refuses, and
/// still calls the proposal a success.
#[test]
fn h31_refused_membership_change_is_answered() {
    let mut fixture = Fixture::new();
    let outcome = fixture.run(vec![task(R1, work(vec![empty(6, TERM)], vec![waits(6, TERM)]))]);
    let answers = &applied(&outcome).answers;
    assert_eq!(answer(answers, 6), &Err(RegionError::ConfChangePending));
    assert!(outcome.answers.is_empty());
}

#[test]
fn answers_carry_the_term_last_told() {
    let mut fixture = Fixture::new();
    let work =
        ApplyWork::Entries { term: 9, entries: vec![write(6)], proposals: vec![waits(6, TERM)] };
    let outcome = fixture.run(vec![task(R1, work)]);
    assert_eq!(outcome.answers[0].1.term, 9);
}

/// H33: nobody waits for ever, whatever stops the worker.
#[test]
fn stop_answers_everybody() {
    let mut fixture = Fixture::new();
    let _ = fixture.run(vec![task(R1, work(vec![], vec![waits(6, TERM), waits(7, TERM)]))]);
    let stopped = Response::error(TERM, RegionError::Stopping);
    assert_eq!(fixture.worker.stop(), [(reply(6), stopped.clone()), (reply(7), stopped)]);
    assert_eq!(fixture.worker.pending(), 0);
    assert!(fixture.worker.stop().is_empty());
}

#[test]
fn failed_write_answers_nobody_until_stop() {
    let mut fixture = Fixture::new();
    fixture.kv.faults().fail_write(1, engine_traits::mem::Leaves::Everything);
    let learner = Peer::learner(PeerId::must(13), StoreId::must(3));
    let add = change_peer(ChangeKind::AddLearner, learner);
    let tasks = vec![
        task(R1, work(vec![write(6), conf_change(7, &add)], vec![waits(6, TERM), waits(7, TERM)])),
        task(R1, snapshot_at(6)),
        task(R1, work(vec![write(8)], vec![waits(8, TERM), waits(9, TERM)])),
        task(R2, work(vec![], vec![Proposal { reply: ReplyId(1), ..waits(6, TERM) }])),
    ];
    let failed = fixture.worker.run(tasks, &fixture.meta).unwrap_err();
    assert_eq!(failed.doing, "writing applied entries");
    assert_eq!(fixture.meta.numbers.written(), 0);
    let mut answers = fixture.worker.stop();
    answers.sort_by_key(|(reply, _)| *reply);
    let replies: Vec<u64> = answers.iter().map(|(reply, _)| reply.0).collect();
    assert_eq!(replies, [1, 6_006, 6_007, 6_008, 6_009]);
    assert!(answers.iter().all(|(_, it)| it.body == Err(RegionError::Stopping)));
}

/// What was written before the failure keeps its answer.
#[test]
fn answers_of_written_batches_survive_a_later_failure() {
    let mut fixture = Fixture::new();
    fixture.kv.faults().fail_write(2, engine_traits::mem::Leaves::Nothing);
    let tasks = vec![
        task(R1, work(vec![write(6)], vec![waits(6, TERM)])),
        task(R1, snapshot_at(6)),
        task(R1, work(vec![write(7)], vec![waits(7, TERM)])),
    ];
    assert!(fixture.worker.run(tasks, &fixture.meta).is_err());
    let answers = fixture.worker.stop();
    assert_eq!(answers.len(), 2);
    assert!(answers[0].0 == reply(6) && answers[0].1.body.is_ok());
    assert_eq!(answers[1].1.body, Err(RegionError::Stopping));
}

/// A panic in the middle of a run loses no caller, the one of the very entry included.
#[test]
fn stop_after_a_panic_answers_everybody() {
    let mut fixture = Fixture::new();
    let gap = vec![write(6), write(8)];
    let tasks = vec![
        task(R1, work(gap, vec![waits(6, TERM), waits(8, TERM)])),
        task(R1, work(vec![], vec![waits(9, TERM)])),
    ];
    let run = std::panic::AssertUnwindSafe(|| fixture.worker.run(tasks, &fixture.meta));
    assert!(std::panic::catch_unwind(run).is_err());
    assert_eq!(fixture.worker.stop().len(), 3);
}

#[test]
fn planted_stale_bug_answers_ok() {
    let mut fixture = Fixture::with(Planted(Bug::StaleAnsweredOk));
    let outcome = fixture.run(vec![task(R1, work(vec![write(6)], vec![waits(6, 5)]))]);
    assert!(outcome.answers[0].1.body.is_ok());
}
