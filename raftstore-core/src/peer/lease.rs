//! The leader's lease: until when no other leader can exist, and when not to trust it.
//!
//! A bound lies at most `max_lease` after a moment at which messages were sent that a
//! quorum has since acknowledged in the leader's term. Every member of that quorum refuses
//! votes until an election timeout after it heard from the leader, so no other leader can
//! exist before the bound. A forced election (leader transfer) breaks that promise: once
//! this leader has sent a TimeoutNow it serves no lease read for the rest of its term
//! (H38), since the message may be delayed and its votes bypass the voters' leases.

use std::time::Duration;

use crate::MonoTime;

/// What a leader may believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseState {
    /// Not a leader, or nothing confirmed lately.
    None,
    /// No other leader exists before this moment.
    ValidUntil(MonoTime),
    /// A transfer was set in motion in this term: nothing is believed any more.
    Suspect,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    state: LeaseState,
    max: Duration,
}

impl Lease {
    pub(crate) const fn new(max: Duration) -> Self {
        Self { state: LeaseState::None, max }
    }

    /// Extends the lease to `max` after `sent`, the moment the confirmed messages left. A
    /// bound never moves back, and a suspect lease stays suspect.
    pub(crate) fn renew(&mut self, sent: MonoTime) {
        let bound = sent + self.max;
        match self.state {
            LeaseState::None => self.state = LeaseState::ValidUntil(bound),
            LeaseState::ValidUntil(known) if known < bound => {
                self.state = LeaseState::ValidUntil(bound);
            }
            LeaseState::ValidUntil(_) | LeaseState::Suspect => {}
        }
    }

    /// A TimeoutNow is about to leave.
    pub(crate) fn suspend(&mut self) {
        self.state = LeaseState::Suspect;
    }

    /// Leadership, and with it the term, has ended or begun.
    pub(crate) fn reset(&mut self) {
        self.state = LeaseState::None;
    }

    /// The moment the lease ends, if it is believed at all.
    pub(crate) fn bound(&self) -> Option<MonoTime> {
        match self.state {
            LeaseState::ValidUntil(bound) => Some(bound),
            LeaseState::None | LeaseState::Suspect => None,
        }
    }

    /// Whether a read at `now` is covered. The bound is exclusive.
    pub(crate) fn covers(&self, now: MonoTime) -> bool {
        self.bound().is_some_and(|bound| now < bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> MonoTime {
        MonoTime::from_millis(millis)
    }

    #[test]
    fn the_bound_is_exclusive_and_never_moves_back() {
        let mut lease = Lease::new(Duration::from_millis(100));
        assert!(!lease.covers(at(0)));
        lease.renew(at(50));
        assert!(lease.covers(at(149)));
        assert!(!lease.covers(at(150)));
        lease.renew(at(20));
        assert!(lease.covers(at(149)));
    }

    /// H38: neither a committed proposal nor a read round makes a suspect lease valid again.
    #[test]
    fn a_suspect_lease_stays_suspect_for_the_term() {
        let mut lease = Lease::new(Duration::from_millis(100));
        lease.renew(at(0));
        lease.suspend();
        lease.renew(at(1));
        assert!(!lease.covers(at(2)));
        lease.reset();
        lease.renew(at(3));
        assert!(lease.covers(at(4)));
    }
}
