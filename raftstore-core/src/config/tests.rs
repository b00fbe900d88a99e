//! The edges of every item, every rule between items, and the errors people will see.

use super::*;

fn out_of_range(error: &ConfigError, name: &str) -> bool {
    matches!(error, ConfigError::OutOfRange { item, .. } if item == name)
}

/// The item's value as it would stand in a file.
fn literal(kind: &str, number: u128) -> toml::Value {
    match kind {
        "duration" => toml::Value::String(format!("{number}ns")),
        "size" => toml::Value::String(format!("{number}B")),
        _ => toml::Value::Integer(i64::try_from(number).unwrap()),
    }
}

#[test]
fn every_item_at_and_beyond_its_edges() {
    for (item, kind, min, max) in items::ranges() {
        let check = |number: u128| {
            let mut config = Config::default();
            config.set(&item, &literal(kind, number)).and_then(|()| config.check_ranges())
        };
        assert_eq!(check(min), Ok(()), "{item} at its minimum");
        assert_eq!(check(max), Ok(()), "{item} at its maximum");
        assert!(min == 0 || out_of_range(&check(min - 1).unwrap_err(), &item), "{item} below");
        let beyond = check(max + 1).unwrap_err();
        assert!(
            out_of_range(&beyond, &item) || matches!(beyond, ConfigError::BadValue { .. }),
            "{item} above: {beyond}"
        );
    }
}

#[test]
fn negative_numbers_are_refused_for_every_item() {
    for (item, ..) in items::ranges() {
        let refused = Config::default().set(&item, &toml::Value::Integer(-1)).unwrap_err();
        assert!(matches!(refused, ConfigError::BadValue { .. }), "{item}: {refused}");
    }
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = Config::default();
    config.validate().unwrap();
    assert_eq!(Config::from_toml("").unwrap(), config);
    assert_eq!(config.raft_base_tick_interval, Duration::from_secs(1));
    assert_eq!(config.raft_store_max_leader_lease, Duration::from_secs(9));
    assert_eq!(config.election_timeout(), Duration::from_secs(10));
    assert_eq!(config.region_max_size, config.region_split_size * 3 / 2);
    assert_eq!(config.raft_log_gc_size_limit, config.region_split_size * 3 / 4);
    assert_eq!(config.raft_log_gc_count_limit, config.region_split_size * 3 / 4 / KIB);
    assert_eq!(config.region_split_check_diff, config.region_split_size / 16);
    assert_eq!(config.max_leader_missing_duration, Duration::from_secs(7_200));
    assert_eq!(config.snap_gc_timeout, Duration::from_secs(14_400));
    assert!(config.right_derive_when_split);
}

#[test]
fn items_dropped_on_purpose_are_unknown() {
    let names = Config::item_names();
    for gone in ["sync-log", "allow-remove-leader"] {
        assert!(!names.iter().any(|name| name == gone));
        let text = format!("{gone} = true");
        let expected = ConfigError::UnknownItem { item: gone.to_owned() };
        assert_eq!(Config::from_toml(&text), Err(expected));
    }
}

#[test]
fn a_file_sets_items_of_every_kind() {
    let config = Config::from_toml(
        "raft-base-tick-interval = \"100ms\"\n\
         raft-store-max-leader-lease = \"900ms\"\n\
         raftdb-path = \"/data/raft\"\n\
         region-split-size = \"64MB\"\n\
         region-max-size = 100663296\n\
         right-derive-when-split = false\n\
         lanes = 3\n\
         consistency-check-interval = \"1h30m\"\n\
         pd-heartbeat-tick-interval = 0\n\
         seed = 7\n",
    )
    .unwrap();
    assert_eq!(config.raft_base_tick_interval, Duration::from_millis(100));
    assert_eq!(config.raftdb_path, "/data/raft");
    assert_eq!((config.region_split_size, config.region_max_size), (64 * MIB, 96 * MIB));
    assert!(!config.right_derive_when_split);
    assert_eq!((config.lanes, config.seed), (3, 7));
    assert_eq!(config.consistency_check_interval, Duration::from_secs(5_400));
    assert_eq!(config.pd_heartbeat_tick_interval, Duration::ZERO);
}

#[test]
fn a_table_inside_another_file() {
    #[derive(serde::Deserialize)]
    struct Node {
        raftstore: Config,
    }
    let node: Node = toml::from_str("[raftstore]\nlanes = 2\n").unwrap();
    assert_eq!(node.raftstore.lanes, 2);
    let Err(error) = toml::from_str::<Node>("[raftstore]\nlanes = 0\n") else {
        panic!("0 lanes were taken");
    };
    assert!(error.to_string().contains("lanes = 0: allowed is 1 to 256"), "{error}");
}

#[test]
fn errors_name_item_value_and_range() {
    let message = |text: &str| Config::from_toml(text).unwrap_err().to_string();
    assert_eq!(message("no-such-item = 1"), "unknown item no-such-item");
    // The snake-case spelling is no second name of the item.
    assert_eq!(message("region_max_size = 1"), "unknown item region_max_size");
    assert_eq!(
        message("raft-base-tick-interval = \"soon\""),
        "raft-base-tick-interval = \"soon\": expected a duration like \"100ms\", \"10s\", \
         \"5m\" or \"1h30m\""
    );
    assert_eq!(
        message("raft-base-tick-interval = 1000"),
        "raft-base-tick-interval = 1000: expected a duration like \"100ms\", \"10s\", \"5m\" \
         or \"1h30m\""
    );
    assert_eq!(
        message("region-max-size = true"),
        "region-max-size = true: expected a size like \"96MiB\" or a number of bytes"
    );
    assert_eq!(message("lanes = 300"), "lanes = 300: allowed is 1 to 256");
    assert_eq!(
        message("raft-entry-max-size = \"1GiB\""),
        "raft-entry-max-size = 1GiB: allowed is 1B to 16320KiB"
    );
    assert!(message("lanes = ").starts_with("configuration is not TOML: "));
}

#[test]
fn the_nine_ticks_can_be_off_but_for_the_base_tick() {
    for item in [
        "raft-log-gc-tick-interval",
        "split-region-check-tick-interval",
        "region-compact-check-interval",
        "pd-heartbeat-tick-interval",
        "pd-store-heartbeat-tick-interval",
        "snap-mgr-gc-tick-interval",
        "lock-cf-compact-interval",
        "consistency-check-interval",
    ] {
        Config::from_toml(&format!("{item} = \"0s\"")).unwrap();
    }
    let refused = Config::from_toml("raft-base-tick-interval = \"0s\"").unwrap_err();
    assert!(out_of_range(&refused, "raft-base-tick-interval"), "{refused}");
}

fn contradicts(config: &Config, item: &str, other: &str) {
    match config.validate() {
        Err(ConfigError::Contradiction { item: a, other: b, .. }) => {
            assert_eq!((a.as_str(), b.as_str()), (item, other));
        }
        result => panic!("{item} against {other}: {result:?}"),
    }
}

#[test]
fn election_timeout_is_longer_than_a_heartbeat_interval() {
    let mut config =
        Config { raft_heartbeat_ticks: 9, raft_election_timeout_ticks: 10, ..Config::default() };
    config.validate().unwrap();
    config.raft_heartbeat_ticks = 10;
    contradicts(&config, "raft-election-timeout-ticks", "raft-heartbeat-ticks");
}

/// H34: a lease as long as the election timeout can outlive the leadership.
#[test]
fn h34_lease_ends_a_tick_before_the_election_timeout() {
    let mut config =
        Config { raft_store_max_leader_lease: Duration::from_secs(9), ..Config::default() };
    config.validate().unwrap();
    config.raft_store_max_leader_lease += Duration::from_nanos(1);
    contradicts(&config, "raft-store-max-leader-lease", "raft-base-tick-interval");
    config.raft_store_max_leader_lease = Duration::ZERO;
    config.validate().unwrap();
}

/// H69: a region cut at its full size could get an empty part.
#[test]
fn h69_region_max_size_exceeds_split_size() {
    let mut config = Config::default();
    config.region_max_size = config.region_split_size + 1;
    config.validate().unwrap();
    config.region_max_size = config.region_split_size;
    contradicts(&config, "region-max-size", "region-split-size");
}

#[test]
fn leader_is_missed_after_two_election_timeouts() {
    let mut config =
        Config { max_leader_missing_duration: Duration::from_secs(20), ..Config::default() };
    config.validate().unwrap();
    config.max_leader_missing_duration -= Duration::from_nanos(1);
    contradicts(&config, "max-leader-missing-duration", "raft-base-tick-interval");
}

#[test]
fn budgets_hold_one_largest_entry() {
    for (item, set) in [
        ("max-in-flight-bytes", (|c, n| c.max_in_flight_bytes = n) as fn(&mut Config, u64)),
        ("max-uncommitted-bytes", |c, n| c.max_uncommitted_bytes = n),
        ("apply-backlog-bytes", |c, n| c.apply_backlog_bytes = n),
    ] {
        let mut config = Config::default();
        let entry = config.raft_entry_max_size;
        set(&mut config, entry);
        config.validate().unwrap();
        set(&mut config, entry - 1);
        contradicts(&config, item, "raft-entry-max-size");
    }
}

#[test]
fn intervals_become_ticks_rounded_up() {
    let config =
        Config { raft_base_tick_interval: Duration::from_millis(100), ..Config::default() };
    let ticks = |millis| config.ticks(Duration::from_millis(millis));
    assert_eq!([ticks(0), ticks(1), ticks(100), ticks(101), ticks(10_000)], [0, 1, 1, 2, 100]);
    assert_eq!(config.election_timeout(), Duration::from_secs(1));
}
