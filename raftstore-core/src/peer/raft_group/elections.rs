//! Decides when raft may tick and campaign, and after how many ticks it does.

use engine_traits::RaftEngine;

use super::RaftGroup;

impl<R: RaftEngine> RaftGroup<R> {
    /// Whether a tick or a TimeoutNow may reach raft now (R9, R37).
    pub(crate) fn may_campaign(&self) -> bool {
        if self.taking_snapshot || self.pending_snapshot().is_some() {
            return false;
        }
        let unreported =
            !self.in_flight.is_empty() || !self.raw.raft.raft_log.unstable_entries().is_empty();
        self.is_leader() || !(unreported && self.is_sole_voter())
    }

    /// One tick. Gives whether raft may have something to do.
    pub(crate) fn tick(&mut self) -> bool {
        if !self.may_campaign() {
            return false;
        }
        if self.is_leader() {
            self.attempts = 0;
        }
        let timeout = self.election_timeout();
        self.raw.raft.set_randomized_election_timeout(timeout);
        let asked = self.raw.tick();
        if asked && !self.is_leader() {
            self.attempts += 1;
        }
        asked
    }

    /// The election timeout in ticks, drawn from our seed in `[election, 2 * election)`:
    /// raft would redraw it from a generator of its own at every change of role (R41).
    fn election_timeout(&self) -> usize {
        let mut x = self.seed
            ^ self.raw.raft.id.wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ^ self.raw.raft.term.wrapping_mul(0xBF58_476D_1CE4_E5B9)
            ^ self.attempts.wrapping_mul(0x94D0_49BB_1331_11EB);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^= x >> 31;
        let spread = usize::try_from(x % self.election_ticks as u64).unwrap_or(0);
        self.election_ticks + spread
    }

    /// Asks to become leader now, if this peer is a voter. raft itself asks that question at
    /// its ticks only (R2).
    pub(crate) fn campaign(&mut self) {
        if self.may_campaign() && self.raw.raft.promotable() {
            // Without effect on a leader, and never an error.
            let _ = self.raw.campaign();
        }
    }

    /// As [`RaftGroup::campaign`] for a group that has just been born, whose members have
    /// promised nothing to anybody: without asking first whether asking is any use (W15).
    pub(crate) fn campaign_at_once(&mut self) {
        let asks_first = std::mem::replace(&mut self.raw.raft.pre_vote, false);
        self.campaign();
        self.raw.raft.pre_vote = asks_first;
    }
}
