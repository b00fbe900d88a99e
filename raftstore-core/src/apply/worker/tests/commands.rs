//! What commands do to data.

use super::*;

#[test]
fn writes_data_and_state_in_one_buffered_write() {
    let mut fixture = Fixture::new();
    let outcome = fixture.execute(vec![
        entry(6, &operations(vec![put("b", "1"), put("c", "2")])),
        entry(7, &operations(vec![delete("b"), put("d", "")])),
    ]);
    assert_eq!(fixture.kv.unsynced_writes(), 1);
    assert_eq!(fixture.data("b"), None);
    assert_eq!(fixture.data("c"), Some("2".into()));
    assert_eq!(fixture.data("d"), Some("".into()));
    let result = applied(&outcome);
    assert_eq!((result.state.applied, result.state.applied_term), (7, TERM));
    assert_eq!(fixture.stored_state(R1), Some(result.state));
    assert_eq!((result.kv_number, fixture.meta.numbers.written()), (1, 1));
    assert_eq!(
        outcome.answers,
        [
            (reply(6), Response { term: TERM, body: ok(vec![OperationResponse::Put; 2]) }),
            (
                reply(7),
                Response {
                    term: TERM,
                    body: ok(vec![OperationResponse::Delete, OperationResponse::Put])
                }
            ),
        ]
    );
}

/// Nothing of a batch is half there after a crash, whichever part of it survives.
#[test]
fn data_and_state_survive_together() {
    for keep in [0, 1] {
        let mut fixture = Fixture::new();
        let _ = fixture.execute(vec![entry(6, &operations(vec![put("b", "1")]))]);
        fixture.kv.crash(keep);
        fixture.kv = fixture.kv.reopen();
        assert_eq!(fixture.data("b").is_some(), fixture.stored_state(R1).is_some());
    }
}

/// H57: a command is all or nothing, and the bad part may come last.
#[test]
fn h57_one_bad_operation_refuses_the_command() {
    let bad = [
        put("a", "below"),
        put("m", "at the end"),
        Operation::Invalid { cmd_type: 6 },
        delete_range("c", "c"),
        Operation::Delete { cf: Cf::Default, key: "z".into() },
    ];
    for operation in bad {
        let mut fixture = Fixture::new();
        let outcome = fixture.execute(vec![entry(
            6,
            &operations(vec![put("b", "1"), delete_range("b", "m"), operation]),
        )]);
        assert!(answer(&outcome.answers, 6).is_err());
        assert_eq!(fixture.data("b"), None);
        // The entry counts as executed all the same.
        assert_eq!(fixture.stored_state(R1).unwrap().applied, 6);
        assert_eq!(applied(&outcome).metrics, ApplyMetrics { entries: 1, ..Default::default() });
    }
}

#[test]
fn keys_outside_are_named() {
    let mut fixture = Fixture::new();
    let outcome = fixture.execute(vec![entry(6, &operations(vec![put("m", "")]))]);
    let error = RegionError::KeyNotInRegion { key: "m".into(), region: region(R1) };
    assert_eq!(answer(&outcome.answers, 6), &Err(error));
}

/// H24: an epoch that is newer than the region is as wrong as an older one.
#[test]
fn h24_epoch_must_be_equal() {
    for version in [EPOCH.version - 1, EPOCH.version + 1] {
        let mut fixture = Fixture::new();
        let mut command = operations(vec![put("b", "1")]);
        command.header.epoch = Some(Epoch { version, ..EPOCH });
        let outcome = fixture.execute(vec![entry(6, &command)]);
        let error = RegionError::EpochNotMatch { current: vec![region(R1)] };
        assert_eq!(answer(&outcome.answers, 6), &Err(error));
        assert_eq!(fixture.data("b"), None);
    }
    let mut fixture = Fixture::new();
    let mut command = operations(vec![put("b", "1")]);
    command.header.epoch = None;
    let outcome = fixture.execute(vec![entry(6, &command)]);
    assert_eq!(answer(&outcome.answers, 6), &Err(RegionError::MissingEpoch));
    // conf_ver is no concern of a write.
    command.header.epoch = Some(Epoch { conf_ver: 99, ..EPOCH });
    let outcome = fixture.execute(vec![entry(7, &command)]);
    assert!(answer(&outcome.answers, 7).is_ok());
}

/// A command proposed before a membership change and ordered after it.
#[test]
fn epoch_is_checked_against_the_region_as_of_the_entry() {
    let mut fixture = Fixture::new();
    let learner = Peer::learner(PeerId::must(13), StoreId::must(3));
    let add = change_peer(ChangeKind::AddLearner, learner);
    let outcome = fixture.execute(vec![conf_change(6, &add), conf_change(7, &add)]);
    let result = applied(&outcome);
    assert!(result.answers[0].1.body.is_ok());
    assert!(matches!(
        &result.answers[1].1.body,
        Err(RegionError::EpochNotMatch { current }) if current[0].epoch.conf_ver == 3
    ));
}

/// H61: the store's own family cannot be written through a log, and unknown names are
/// refused alike everywhere.
#[test]
fn h61_internal_and_unknown_families_are_refused() {
    let mut fixture = Fixture::new();
    let mut unknown = wire::encode_command(&operations(vec![put_in(Cf::Lock, "b", "1")]));
    let at = unknown.windows(4).position(|name| name == b"lock").unwrap();
    unknown[at..at + 4].copy_from_slice(b"loot");
    let mut internal = unknown.clone();
    internal[at..at + 4].copy_from_slice(b"raft");
    let outcome =
        fixture.execute(vec![seal(R1, raw(6, TERM, unknown)), seal(R1, raw(7, TERM, internal))]);
    assert_eq!(outcome.answers.len(), 2);
    for (_, response) in &outcome.answers {
        assert!(matches!(response.body, Err(RegionError::InvalidCommand { .. })), "{response:?}");
    }
    assert_eq!(fixture.stored_state(R1).unwrap().applied, 7);
    let direct = [put_in(Cf::Raft, "b", "1")];
    assert!(crate::apply::write::validate(&direct, &region(R1)).is_err());
}

#[test]
fn delete_range_takes_part_in_the_order_of_the_batch() {
    let mut fixture = Fixture::new();
    let outcome = fixture.execute(vec![
        entry(6, &operations(vec![put("c", "1"), put("d", "1"), put("e", "1")])),
        entry(7, &operations(vec![put("cc", "1"), delete_range("c", "e"), put("d", "2")])),
    ]);
    assert_eq!(outcome.answers.len(), 2);
    assert_eq!(fixture.kv.unsynced_writes(), 1);
    assert_eq!([fixture.data("c"), fixture.data("cc")], [None, None]);
    assert_eq!(fixture.data("d"), Some("2".into()));
    assert_eq!(fixture.data("e"), Some("1".into()));
}

#[test]
fn delete_range_stays_in_the_region() {
    let validate = |start, end, id| {
        crate::apply::write::validate(&[delete_range(start, end)], &region(id)).map_err(|e| match e
        {
            RegionError::KeyNotInRegion { key, .. } => key,
            RegionError::InvalidCommand { .. } => "invalid".into(),
            other => panic!("{other}"),
        })
    };
    assert_eq!(validate("b", "m", R1), Ok(()));
    assert_eq!(validate("d", "c", R1), Err("invalid".into()));
    assert_eq!(validate("a", "c", R1), Err("a".into()));
    assert_eq!(validate("m", "n", R1), Err("m".into()));
    assert_eq!(validate("b", "ma", R1), Err("ma".into()));
    assert_eq!(validate("b", "", R1), Err("".into()), "endless, in a region that ends");
    assert_eq!(validate("m", "", R2), Ok(()));
}

#[test]
fn endless_delete_range_leaves_what_is_after_user_data() {
    let mut fixture = Fixture::new();
    let mut all = operations(vec![put("z", "1"), delete_range("m", "")]);
    all.header.region = R2;
    let proposals = vec![waits(6, TERM)];
    let outcome = fixture.run(vec![task(R2, work(vec![entry_of(R2, 6, &all)], proposals))]);
    assert!(answer(&outcome.answers, 6).is_ok());
    assert_eq!(fixture.data("z"), None);
}

#[test]
fn reads_in_a_log_are_skipped_without_a_slot() {
    let mut fixture = Fixture::new();
    let get = Operation::Get { cf: Cf::Default, key: "zzz".into() };
    let outcome =
        fixture.execute(vec![entry(6, &operations(vec![get, put("b", "1"), Operation::Snap]))]);
    assert_eq!(answer(&outcome.answers, 6), &ok(vec![OperationResponse::Put]));
}

#[test]
fn volume_is_counted() {
    let mut fixture = Fixture::new();
    let lock = Operation::Delete { cf: Cf::Lock, key: "c".into() };
    let outcome = fixture.execute(vec![
        entry(6, &operations(vec![put("b", "123"), put_in(Cf::Lock, "c", "4"), lock])),
        entry(7, &operations(vec![delete("bb")])),
    ]);
    let expected = ApplyMetrics {
        entries: 2,
        written_bytes: 5 + 3,
        written_keys: 4,
        size_diff: 5 + 3 - 2 - 3,
        deleted_keys: 1,
        lock_cf_bytes: 3 + 2,
    };
    assert_eq!(applied(&outcome).metrics, expected);
}

#[test]
fn log_cut() {
    let mut fixture = Fixture::new();
    let cut = |index, term| {
        let mut cut = command(Body::Admin(AdminCommand::CompactLog { index, term }));
        cut.header.epoch = None;
        cut
    };
    let writes = (6..10).map(|index| entry(index, &operations(vec![put("b", "1")])));
    let _ = fixture.run(vec![task(R1, work(writes.collect(), vec![]))]);
    let outcome = fixture.execute(vec![entry(10, &cut(9, TERM)), entry(11, &cut(10, TERM))]);
    let result = applied(&outcome);
    let truncated = Truncated { index: 9, term: TERM };
    assert_eq!(result.exec[0], ExecResult::Truncate { truncated, first_index_before: 6 });
    // Index 10 is the first of the log, so there is nothing to cut: a success, no result.
    assert_eq!(result.exec.len(), 1);
    let cut_answer = Ok(ResponseBody::Admin(AdminResponse::CompactLog));
    assert!(result.answers.iter().all(|(_, response)| response.body == cut_answer));
    assert_eq!(fixture.stored_state(R1).unwrap().truncated, truncated);
    let outcome = fixture.execute(vec![entry(12, &cut(11, 0)), entry(13, &cut(13, TERM))]);
    assert!(applied(&outcome).exec.is_empty());
    assert!(applied(&outcome).answers.iter().all(|(_, response)| response.body.is_err()));
    assert_eq!(fixture.stored_state(R1).unwrap().truncated, truncated);
}

#[test]
fn what_no_log_should_carry_is_refused_alike() {
    let bodies = [
        Body::Admin(AdminCommand::BatchSplit { requests: vec![], right_derive: true }),
        Body::Admin(AdminCommand::TransferLeader(OTHER)),
        Body::Admin(AdminCommand::Invalid { cmd_type: 99 }),
        change_peer(ChangeKind::RemoveNode, OTHER).body,
        Body::Status(raftstore_proto::StatusCommand::RegionLeader),
    ];
    for body in bodies {
        let mut fixture = Fixture::new();
        let outcome = fixture.execute(vec![entry(6, &command(body.clone()))]);
        let result = applied(&outcome);
        let all = [outcome.answers.as_slice(), &result.answers].concat();
        assert!(
            matches!(answer(&all, 6), Err(RegionError::InvalidCommand { .. })),
            "{body:?}: {all:?}"
        );
        assert!(result.exec.is_empty());
        assert_eq!(fixture.stored_region(R1), None);
    }
}

#[test]
fn planted_epoch_bug_executes_stale_commands() {
    let mut fixture = Fixture::with(Planted(Bug::ApplyIgnoresEpoch));
    let mut command = operations(vec![put("b", "1")]);
    command.header.epoch = None;
    let outcome = fixture.execute(vec![entry(6, &command)]);
    assert!(answer(&outcome.answers, 6).is_ok());
}

#[test]
fn planted_batch_bug_can_lose_the_state_alone() {
    let mut fixture = Fixture::with(Planted(Bug::ApplyStateOutsideBatch));
    let _ = fixture.execute(vec![entry(6, &operations(vec![put("b", "1")]))]);
    assert_eq!(fixture.kv.unsynced_writes(), 2);
    fixture.kv.crash(1);
    fixture.kv = fixture.kv.reopen();
    assert!(fixture.data("b").is_some() && fixture.stored_state(R1).is_none());
}

/// Merges are refused by name on every replica, and the log goes on behind them.
#[test]
fn merges_are_not_supported() {
    let mut fixture = Fixture::new();
    for (index, cmd_type) in [(6, 7), (7, 8), (8, 9)] {
        let merge = command(Body::Admin(AdminCommand::Invalid { cmd_type }));
        let outcome = fixture.execute(vec![entry(index, &merge)]);
        let refused = answer(&applied(&outcome).answers, index);
        assert_eq!(refused, &Err(RegionError::Unsupported { what: "region merge" }));
    }
    assert_eq!(fixture.stored_state(R1).unwrap().applied, 8);
}
