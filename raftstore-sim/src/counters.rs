//! Counts the rare things of a run, so that a set of seeds can prove it has seen them all.

use std::collections::BTreeMap;

macro_rules! sometimes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Something that must happen in some run.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Sometimes {
            $($(#[$doc])* $name,)*
        }

        impl Sometimes {
            /// Everything that is counted.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// In words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

sometimes! {
    /// A peer became leader.
    Elections = "elections won";
    /// A leader handed over as it was told.
    LeaderTransfers = "leader transfers asked";
    /// A membership change was executed.
    ConfChanges = "membership changes applied";
    /// A learner was added.
    LearnersAdded = "learners added";
    /// A replica that did not lead served a read.
    ReplicaReads = "reads asked of any replica";
    /// A joint change began to make a voter a learner.
    Demotions = "voters being demoted";
    /// A joint configuration was entered.
    JointsEntered = "joint configurations entered";
    /// A joint configuration was left.
    JointsLeft = "joint configurations left";
    /// A region snapshot was built.
    SnapshotsBuilt = "region snapshots built";
    /// A region snapshot was sent and arrived.
    SnapshotsReceived = "region snapshots received";
    /// The transfer of a region snapshot failed.
    SnapshotsLost = "region snapshots lost on the way";
    /// A region snapshot was installed.
    SnapshotsInstalled = "region snapshots installed";
    /// An installation was cancelled.
    InstallsCancelled = "snapshot installations cancelled";
    /// A peer was destroyed.
    PeersDestroyed = "peers destroyed";
    /// A peer was created by a message.
    PeersCreated = "peers created by messages";
    /// A removal claim was sent.
    RemovalClaims = "removal claims sent";
    /// Log was cut.
    LogCuts = "log prefixes cut";
    /// A write was acknowledged.
    WritesAcknowledged = "writes acknowledged";
    /// A conditional write found what it expected.
    Swaps = "conditional writes that took effect";
    /// A conditional write found something else.
    SwapsMissed = "conditional writes that found something else";
    /// A write ended with an unknown outcome.
    WritesUnknown = "writes with unknown outcome";
    /// A read through the store was answered.
    StoreReads = "reads served by the store thread";
    /// A read through a quorum was answered.
    QuorumReads = "reads served by read index";
    /// A read beside the store was answered.
    LocalReads = "reads served off the store thread";
    /// A real delete or delete-range was acknowledged.
    Deletes = "deletes acknowledged";
    /// A store was killed.
    Kills = "stores killed";
    /// A store lost power.
    PowerLosses = "stores that lost power";
    /// Power was lost at a chosen step.
    CutsAtSteps = "stores cut at a chosen step";
    /// All stores died at the same moment.
    Blackouts = "all stores cut at once";
    /// A store stopped in order.
    CleanStops = "stores stopped in order";
    /// An engine call failed and stopped its store.
    DiskFailures = "stores stopped by a failing disk";
    /// The network was partitioned.
    Partitions = "partitions";
    /// A link was cut in one direction.
    OneWayCuts = "one-way cuts";
    /// PD was away.
    PdAbsences = "absences of PD";
    /// PD gave an order.
    PdOrders = "orders of PD";
    /// A store was paused.
    Pauses = "stores paused";
    /// A group of several rounds shared one sync.
    GroupCommits = "groups of rounds that shared a sync";
    /// A region was hashed, to be compared with other replicas.
    RegionsHashed = "regions hashed";
    /// A store said it was busy.
    Busy = "busy answers";
    /// A region was asked to be cut.
    SplitsAsked = "splits asked";
    /// A replica was cut.
    Splits = "splits applied";
    /// A split made a peer.
    SplitBorn = "peers born of splits";
    /// The peer had been created from a message before.
    SplitReplaced = "split-born peers that replaced a waiting one";
    /// The store knew something newer of the region.
    SplitSkipped = "split-born peers skipped";
    /// The first vote for a region came before its split.
    FirstKept = "first messages kept";
    /// It was taken up again.
    FirstReplayed = "first messages taken up again";
    /// A read came while a split was committed and not yet applied.
    ReadsBehindSplit = "reads behind a committed split";
    /// A snapshot was refused because its range was held by another region.
    SnapshotsOverlapping = "region snapshots refused for their range";
    /// A peer was not created, or a snapshot not taken, because of a range in the way.
    Overlaps = "messages refused for their range";
    /// A raft-side write waited for the data engine.
    ParkedWrites = "log writes that waited for data";
    /// Proofs were held back because an index was on its way twice.
    WithheldProofs = "proofs held back";
    /// A vote was asked too soon after a start.
    UnsafeVotes = "votes refused after a start";
    /// A removed peer was addressed.
    Tombstones = "messages for removed peers";
    /// A claim of removal proved nothing.
    StaleClaims = "claims of removal that prove nothing";
    /// A snapshot came while another one was being taken in.
    SnapshotsUnderWay = "snapshots refused because one is under way";
    /// Entries came for a peer that could not take them.
    Backpressure = "messages refused for want of room";
    /// An entry was changed on the way.
    EntriesDamaged = "entries damaged on the way";
    /// Bytes of a region snapshot were changed on the way.
    SnapshotsDamaged = "region snapshots damaged on the way";
    /// PD said something twice.
    PdRepeats = "answers that PD repeated";
    /// PD said something when everything had changed.
    PdLate = "answers of PD that were late";
    /// A store's clock jumped.
    ClockJumps = "clocks that jumped";
    /// A store's clock could not be relied on.
    UnsafeClocks = "runs with clocks beyond the bound";
    /// A client was told that its region had changed.
    StaleEpochs = "clients told of newer epochs";
    /// A delete of a range met the border of a region.
    CallsCut = "range deletions cut at a border";
}

/// How often each thing happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    counts: BTreeMap<Sometimes, u64>,
}

impl Counters {
    /// It happened.
    pub fn hit(&mut self, what: Sometimes) {
        self.add(what, 1);
    }

    /// It happened `times` times.
    pub fn add(&mut self, what: Sometimes, times: u64) {
        if times > 0 {
            *self.counts.entry(what).or_default() += times;
        }
    }

    /// How often it happened.
    #[must_use]
    pub fn get(&self, what: Sometimes) -> u64 {
        self.counts.get(&what).copied().unwrap_or(0)
    }

    /// Adds the counts of another run.
    pub fn merge(&mut self, other: &Self) {
        for (what, times) in &other.counts {
            self.add(*what, *times);
        }
    }

    /// What never happened.
    #[must_use]
    pub fn never(&self) -> Vec<Sometimes> {
        Sometimes::ALL.iter().copied().filter(|what| self.get(*what) == 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up() {
        let mut first = Counters::default();
        first.hit(Sometimes::Elections);
        let mut second = Counters::default();
        second.add(Sometimes::Elections, 2);
        second.add(Sometimes::Kills, 0);
        first.merge(&second);
        assert_eq!(first.get(Sometimes::Elections), 3);
        assert!(first.never().contains(&Sometimes::Kills));
        assert!(!first.never().contains(&Sometimes::Elections));
    }
}
