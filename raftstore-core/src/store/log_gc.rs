//! How much of a log may be cut (9.2). Pure.

/// Where a leader's log stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogProgress {
    /// First index of the log.
    pub(super) first: u64,
    /// Last entry in the data.
    pub(super) applied: u64,
    /// Last entry that is durable here.
    pub(super) persisted: u64,
    /// Match index of the slowest member; 0 if unknown.
    pub(super) slowest: u64,
    /// Rough bytes of the log.
    pub(super) bytes: u64,
    /// A member is being sent a snapshot.
    pub(super) snapshot_underway: bool,
}

/// When to cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Entries all members have before a cut is worth it.
    pub(super) threshold: u64,
    /// Entries before slow members are left to a snapshot.
    pub(super) count: u64,
    /// Bytes before slow members are left to a snapshot.
    pub(super) bytes: u64,
}

/// The last index to drop, or `None` to keep all.
///
/// One entry always stays, so that the term at the cut can be asked for, and so that the
/// entry of the cut itself does not cause the next cut.
pub(super) fn cut_at(log: &LogProgress, limits: &Limits) -> Option<u64> {
    let forced = (log.applied > log.first && log.applied - log.first >= limits.count)
        || log.bytes >= limits.bytes;
    let reach = if forced {
        // A snapshot underway would be useless at once if its successor entries went.
        if log.snapshot_underway { log.slowest.max(log.first) } else { log.applied }
    } else if log.slowest < log.first || log.slowest - log.first <= limits.threshold {
        return None;
    } else {
        log.slowest
    };
    let cut = reach.min(log.applied).min(log.persisted).checked_sub(1)?;
    (cut >= log.first).then_some(cut)
}

/// Whether only growth of the log, which ends at `last`, can make a cut worth it, however far
/// its members, its disk and its data get.
pub(super) fn is_short(log: &LogProgress, last: u64, limits: &Limits) -> bool {
    let at_best = LogProgress {
        applied: last,
        persisted: last,
        slowest: last,
        snapshot_underway: false,
        ..*log
    };
    cut_at(&at_best, limits).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { threshold: 50, count: 100, bytes: 1_000 };

    fn log(applied: u64, slowest: u64) -> LogProgress {
        LogProgress {
            first: 6,
            applied,
            persisted: applied,
            slowest,
            bytes: 0,
            snapshot_underway: false,
        }
    }

    /// GC-03: nothing below the threshold, then up to the slowest member.
    #[test]
    fn the_slowest_member_sets_the_pace() {
        assert_eq!(cut_at(&log(66, 56), &LIMITS), None);
        assert_eq!(cut_at(&log(66, 57), &LIMITS), Some(56));
    }

    /// GC-02: limits override a dead member.
    #[test]
    fn limits_override_a_dead_member() {
        assert_eq!(cut_at(&log(105, 0), &LIMITS), None);
        assert_eq!(cut_at(&log(106, 0), &LIMITS), Some(105));
        let big = LogProgress { bytes: 1_000, ..log(20, 0) };
        assert_eq!(cut_at(&big, &LIMITS), Some(19));
    }

    /// A log is looked at again as long as a member that catches up could make a cut worth
    /// it, and not a tick longer.
    #[test]
    fn a_log_with_a_dead_member_stays_in_sight() {
        assert!(!is_short(&log(57, 0), 57, &LIMITS));
        assert!(is_short(&log(56, 0), 56, &LIMITS));
        let big = LogProgress { bytes: 1_000, ..log(8, 0) };
        assert!(!is_short(&big, 8, &LIMITS));
    }

    #[test]
    fn a_snapshot_underway_keeps_what_must_follow_it() {
        let sending = LogProgress { snapshot_underway: true, ..log(200, 0) };
        assert_eq!(cut_at(&sending, &LIMITS), None);
    }

    /// GC-07: never past what is durable here.
    #[test]
    fn the_cut_stays_below_the_durable_end() {
        let slow_disk = LogProgress { persisted: 40, ..log(200, 200) };
        assert_eq!(cut_at(&slow_disk, &LIMITS), Some(39));
    }
}
