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
                $crate::conformance::$run(stringify!($name), || $make);
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
                entries_are_read_back;
        }
    };
}
