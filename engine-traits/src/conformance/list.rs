//! Which cases there are, and the macros that make a test of each.

/// One `#[test]` per case of the data engine suite.
///
/// The expression is evaluated for every fresh store a case asks for and gives a
/// [`KvFixture`](crate::conformance::KvFixture). The tests are named after the cases, so a
/// module should hold one use of this macro.
#[macro_export]
macro_rules! kv_conformance {
    ($make:expr) => {
        $crate::__kv_cases! { tests run_kv_case $make }
    };
}

/// One `#[test]` per case of the log engine suite.
///
/// As [`kv_conformance!`](crate::kv_conformance), with a
/// [`RaftLogFixture`](crate::conformance::RaftLogFixture).
#[macro_export]
macro_rules! raft_log_conformance {
    ($make:expr) => {
        $crate::__raft_log_cases! { tests run_raft_log_case $make }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance {
    (tests $run:ident $make:expr; $($group:ident: $($name:ident)*;)*) => {
        $($(
            #[test]
            fn $name() {
                let path = concat!(module_path!(), "::", stringify!($name));
                $crate::conformance::$run(path, || $make);
            }
        )*)*
    };
    (list; $($group:ident: $($name:ident)*;)*) => {
        vec![$($($crate::conformance::case::Case {
            name: stringify!($name),
            group: stringify!($group),
            run: $group::$name,
        }),*),*]
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __kv_cases {
    ($($mode:tt)*) => {
        $crate::__conformance! { $($mode)*;
            reads:
                absent_key_is_none
                value_is_read_back
                overwrite_gives_newest_value
                empty_value_is_a_value
                empty_key_is_a_key
                deleted_key_is_none
                families_are_separate
                keys_and_values_are_any_bytes
                large_value_is_read_back
                clones_name_one_engine;
            cursors:
                forward_walk_is_ascending
                backward_walk_is_descending
                long_walk_loses_no_row
                rows_carry_their_values
                cursor_stays_in_its_family
                cursor_skips_deleted_keys
                range_start_is_inclusive
                range_end_is_exclusive
                empty_end_is_after_every_key
                empty_or_reversed_range_has_no_rows
                ended_cursor_stays_ended
                seek_forward_lands_at_or_after
                seek_backward_lands_at_or_before
                seek_below_the_range_is_clamped
                seek_above_the_range_is_clamped
                seek_revives_an_ended_cursor
                seek_goes_against_the_direction
                last_seek_counts
                engine_cursor_sees_one_moment;
            batches:
                empty_batch_changes_nothing
                unwritten_batch_changes_nothing
                later_put_of_a_batch_wins
                put_and_delete_keep_their_order
                delete_range_covers_earlier_puts
                delete_range_spares_later_puts
                delete_range_is_half_open
                delete_range_without_end_takes_the_rest
                delete_range_of_nothing_does_nothing
                delete_range_stays_in_its_family
                ranges_and_puts_interleave_in_order
                batch_spans_families
                batch_counts_its_operations
                large_batch_is_carried_out_whole
                readers_never_see_half_a_batch;
            snapshots:
                snapshot_sees_earlier_writes
                snapshot_hides_later_writes
                snapshot_cursor_hides_later_writes
                snapshot_is_one_moment_of_all_families
                snapshots_keep_their_own_moments
                snapshot_outlives_its_handle;
            capabilities:
                approximate_size_is_of_the_right_order
                approximate_size_knows_its_range
                ingested_rows_are_readable
                ingestion_comes_to_the_same_as_writes
                compaction_keeps_the_data
                compaction_keeps_snapshots
                stats_count_what_they_name
                speed_is_told;
            durability:
                stop_keeps_synced_writes
                stop_keeps_a_prefix_of_unsynced_writes
                synced_write_survives_a_power_cut
                sync_makes_buffered_writes_durable
                synced_write_takes_earlier_ones_along
                empty_synced_batch_is_a_sync
                idle_sync_is_no_error
                synced_deletions_survive_a_power_cut
                synced_ingestion_survives_a_power_cut
                engine_works_on_after_a_power_cut
                power_cut_leaves_a_prefix
                power_cut_keeps_everything_synced
                power_cut_never_tears_a_batch
                second_power_cut_takes_nothing
                damage_is_never_a_wrong_value;
            crash:
                every_write_boundary_keeps_a_prefix
                every_device_operation_keeps_a_prefix
                killed_process_leaves_a_prefix;
            model:
                random_writes_agree_with_a_map
                random_snapshots_agree_with_copies
                random_walks_agree_with_a_map
                random_power_cuts_leave_prefixes;
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __raft_log_cases {
    ($($mode:tt)*) => {
        $crate::__conformance! { $($mode)*;
            log_reads:
                absent_region_has_nothing
                entries_are_read_back
                entries_come_back_whole
                entries_are_half_open
                entries_are_added_to_the_output
                entries_keep_the_limit
                first_entry_is_always_given
                entries_stop_where_the_log_does
                long_log_is_read_back
                regions_are_separate
                regions_are_listed_ascending
                largest_indexes_are_indexes;
            log_writes:
                append_continues_the_log
                empty_append_changes_nothing
                append_replaces_the_suffix
                append_before_the_start_replaces_all
                first_append_starts_anywhere
                append_to_an_emptied_log_starts_anywhere
                append_that_leaves_a_hole_is_refused
                append_with_a_gap_is_refused
                refused_batch_leaves_nothing
                holes_are_judged_in_order
                truncation_removes_what_is_below
                truncation_of_nothing_is_no_error
                raft_state_is_read_back
                cleared_region_is_forgotten
                log_batch_keeps_its_order
                log_batch_spans_regions
                unwritten_log_batch_changes_nothing
                log_batch_knows_its_size
                log_clones_name_one_engine;
            log_capabilities:
                pinning_regions_are_stored
                log_stats_count_what_they_name
                log_speed_is_told;
            log_durability:
                stop_keeps_synced_logs
                reopened_log_knows_its_bounds
                synced_append_survives_a_power_cut
                every_sync_takes_earlier_appends_along
                empty_synced_log_batch_is_a_sync
                synced_removals_survive_a_power_cut
                power_cut_leaves_a_prefix_of_log_writes
                power_cut_never_tears_a_log_batch
                log_works_on_after_a_power_cut
                damaged_entry_is_an_error
                damaged_raft_state_is_an_error;
            log_crash:
                every_log_write_boundary_keeps_a_prefix
                every_device_operation_keeps_a_log_prefix
                killed_process_leaves_a_log_prefix;
            log_model:
                random_log_writes_agree_with_maps
                random_power_cuts_leave_log_prefixes;
        }
    };
}
