//! RAFT-23: what we rely on in raft itself, asked of bare nodes without a store, each with
//! pre-vote on and off. Whoever changes or replaces the crate runs these first.
#![expect(clippy::unwrap_used, reason = "a node that refuses what a test asks has failed it")]

use std::collections::{BTreeMap, BTreeSet};

use raft::{
    Config, ProgressState, RawNode, ReadOnlyOption, SnapshotStatus, StateRole, Storage as _,
    eraftpb::{ConfChange, ConfChangeType, ConfState, Entry, Message, MessageType, Snapshot},
    storage::MemStorage,
};

const ELECTION: usize = 10;

/// A few nodes whose messages arrive at once, but for those that are cut off.
struct Net {
    nodes: BTreeMap<u64, RawNode<MemStorage>>,
    cut: BTreeSet<(u64, u64)>,
    /// Messages of these kinds are lost.
    lost: BTreeSet<i32>,
    /// Everything that was on the wire, lost or not.
    seen: Vec<Message>,
    /// What each node was told to apply.
    applied: BTreeMap<u64, Vec<(u64, Vec<u8>)>>,
    /// Confirmed reads: node, context, index.
    reads: Vec<(u64, Vec<u8>, u64)>,
}

fn logger() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

fn config(id: u64, pre_vote: bool) -> Config {
    Config {
        id,
        election_tick: ELECTION,
        heartbeat_tick: 1,
        check_quorum: true,
        pre_vote,
        max_inflight_msgs: 4,
        max_size_per_msg: 0,
        ..Config::default()
    }
}

/// Runs a test with and without pre-vote.
fn both(test: impl Fn(bool)) {
    test(false);
    test(true);
}

impl Net {
    fn new(count: u64, pre_vote: bool) -> Self {
        Self::with(count, |id| config(id, pre_vote))
    }

    fn with(count: u64, config: impl Fn(u64) -> Config) -> Self {
        let voters: Vec<u64> = (1..=count).collect();
        let node = |id: u64| {
            let storage =
                MemStorage::new_with_conf_state(ConfState::from((voters.clone(), vec![])));
            (id, RawNode::new(&config(id), storage, &logger()).unwrap())
        };
        Self {
            nodes: voters.iter().copied().map(node).collect(),
            cut: BTreeSet::new(),
            lost: BTreeSet::new(),
            seen: Vec::new(),
            applied: BTreeMap::new(),
            reads: Vec::new(),
        }
    }

    fn on(&mut self, id: u64) -> &mut RawNode<MemStorage> {
        self.nodes.get_mut(&id).unwrap()
    }

    fn isolate(&mut self, id: u64) {
        let others: Vec<u64> = self.nodes.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    fn mend(&mut self) {
        self.cut.clear();
        self.lost.clear();
    }

    fn lose(&mut self, kind: MessageType) {
        self.lost.insert(kind as i32);
    }

    /// Takes in what a node wants done, and gives its messages.
    fn drain(&mut self, id: u64) -> Vec<Message> {
        let mut out = Vec::new();
        let node = self.nodes.get_mut(&id).unwrap();
        while node.has_ready() {
            let mut ready = node.ready();
            out.extend(ready.take_messages());
            if !ready.snapshot().is_empty() {
                node.store().wl().apply_snapshot(ready.snapshot().clone()).unwrap();
            }
            node.store().wl().append(ready.entries()).unwrap();
            if let Some(hard_state) = ready.hs() {
                node.store().wl().set_hardstate(hard_state.clone());
            }
            self.reads.extend(
                ready.take_read_states().into_iter().map(|it| (id, it.request_ctx, it.index)),
            );
            let mut committed = ready.take_committed_entries();
            out.extend(ready.take_persisted_messages());
            let mut light = node.advance(ready);
            out.extend(light.take_messages());
            committed.extend(light.take_committed_entries());
            for entry in committed {
                if entry.entry_type == raft::eraftpb::EntryType::EntryConfChange {
                    let mut change = ConfChange::default();
                    protobuf::Message::merge_from_bytes(&mut change, &entry.data).unwrap();
                    let state = node.apply_conf_change(&change).unwrap();
                    node.store().wl().set_conf_state(state);
                }
                self.applied.entry(id).or_default().push((entry.index, entry.data.to_vec()));
            }
            node.advance_apply();
        }
        out
    }

    /// Delivers messages until there are none.
    fn settle(&mut self) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        loop {
            let mut messages = Vec::new();
            for id in &ids {
                messages.extend(self.drain(*id));
            }
            if messages.is_empty() {
                return;
            }
            for message in messages {
                self.seen.push(message.clone());
                let is_lost = self.lost.contains(&(message.get_msg_type() as i32))
                    || self.cut.contains(&(message.from, message.to));
                if let Some(node) = self.nodes.get_mut(&message.to).filter(|_| !is_lost) {
                    // What a node has no use for it refuses.
                    let _ = node.step(message);
                }
            }
        }
    }

    fn campaign(&mut self, id: u64) {
        self.on(id).campaign().unwrap();
        self.settle();
    }

    fn tick(&mut self, id: u64, ticks: usize) {
        for _ in 0..ticks {
            self.on(id).tick();
            self.settle();
        }
    }

    /// Lets time pass without any messages, so that nobody feels bound to a leader.
    fn forget_leaders(&mut self) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            if self.on(id).raft.state != StateRole::Leader {
                self.on(id).raft.election_elapsed = ELECTION;
            }
        }
    }

    fn propose(&mut self, id: u64, data: &str) {
        self.on(id).propose(Vec::new(), data.as_bytes().to_vec()).unwrap();
        self.settle();
    }

    fn is_leader(&mut self, id: u64) -> bool {
        self.on(id).raft.state == StateRole::Leader
    }

    fn leaders(&mut self) -> Vec<u64> {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        ids.into_iter().filter(|id| self.is_leader(*id)).collect()
    }

    fn committed(&mut self, id: u64) -> u64 {
        self.on(id).raft.raft_log.committed
    }

    fn has_applied(&self, id: u64, data: &str) -> bool {
        let applied = self.applied.get(&id);
        applied.is_some_and(|it| it.iter().any(|(_, found)| found == data.as_bytes()))
    }

    /// Log of a node: (index, term).
    fn log(&mut self, id: u64) -> Vec<(u64, u64)> {
        let log = &self.on(id).raft.raft_log;
        let from = log.first_index();
        (from..=log.last_index()).map(|at| (at, log.term(at).unwrap())).collect()
    }

    fn last(&mut self, id: u64) -> u64 {
        self.on(id).raft.raft_log.last_index()
    }

    fn state_of(&mut self, leader: u64, member: u64) -> ProgressState {
        self.on(leader).raft.prs().get(member).unwrap().state
    }
}

#[test]
fn raft_23_one_round_elects() {
    both(|pre_vote| {
        let mut net = Net::new(3, pre_vote);
        net.campaign(1);
        assert_eq!(net.leaders(), [1]);
        let asked = |kind: MessageType| {
            net.seen.iter().filter(|message| message.get_msg_type() == kind).count()
        };
        assert_eq!(asked(MessageType::MsgRequestVote), 2);
        assert_eq!(asked(MessageType::MsgRequestPreVote), if pre_vote { 2 } else { 0 });
        assert_eq!(net.committed(2), 1, "the first entry of the term");
    });
}

#[test]
fn raft_23_a_vote_goes_to_one_candidate_with_a_full_log() {
    both(|pre_vote| {
        let mut net = Net::new(3, pre_vote);
        net.campaign(1);
        net.isolate(3);
        net.propose(1, "a");
        net.mend();
        net.forget_leaders();
        net.isolate(1);
        // 3 misses an entry that 2 has.
        net.campaign(3);
        assert!(!net.is_leader(3), "elected over a longer log");
        net.forget_leaders();
        net.campaign(2);
        assert!(net.is_leader(2));
        // One vote a term: whoever asks second in the same term is refused.
        let term = net.on(3).raft.term;
        assert_eq!(net.on(3).raft.vote, 2);
        let mut second = Message::default();
        second.set_msg_type(MessageType::MsgRequestVote);
        (second.from, second.to, second.term) = (1, 3, term);
        (second.index, second.log_term) = (99, term);
        net.on(3).raft.leader_id = 0;
        net.on(3).step(second).unwrap();
        let answer = net.drain(3);
        assert!(answer.iter().all(|message| message.reject), "{answer:?}");
        assert_eq!(net.on(3).raft.vote, 2);
    });
}

#[test]
fn raft_23_logs_are_made_to_match() {
    both(|pre_vote| {
        let mut net = Net::new(3, pre_vote);
        net.campaign(1);
        net.isolate(1);
        // Entries of a leader that nobody follows.
        for data in ["lost 1", "lost 2", "lost 3"] {
            net.propose(1, data);
        }
        net.forget_leaders();
        net.campaign(2);
        net.propose(2, "kept");
        net.mend();
        net.tick(2, 2);
        let log = net.log(2);
        assert_eq!(net.log(1), log);
        assert_eq!(net.log(3), log);
        assert!(net.has_applied(1, "kept") && !net.has_applied(1, "lost 1"));
    });
}

#[test]
fn raft_23_only_entries_of_the_own_term_are_committed_by_counting() {
    both(|pre_vote| {
        let mut net = Net::new(3, pre_vote);
        net.campaign(1);
        net.lose(MessageType::MsgAppendResponse);
        net.propose(1, "old");
        let before = net.committed(1);
        net.forget_leaders();
        net.isolate(1);
        // 2 has the entry, and is elected, but its own first entry gets nowhere.
        net.lose(MessageType::MsgAppend);
        net.campaign(2);
        assert!(net.is_leader(2));
        assert_eq!(net.committed(2), before, "an older term's entry was committed by counting");
        net.lost.clear();
        net.tick(2, 2);
        assert!(net.committed(2) > before + 1, "with one of its own it is");
        assert!(net.has_applied(3, "old"));
    });
}

#[test]
fn raft_23_duelling_and_isolated_candidates_do_no_harm() {
    both(|pre_vote| {
        let mut net = Net::new(3, pre_vote);
        net.cut.extend([(1, 3), (3, 1)]);
        net.campaign(1);
        net.campaign(3);
        assert_eq!(net.leaders(), [1]);
        // One that hears nobody for long and returns does not depose the leader if it asks
        // first; without that question its higher term does.
        net.mend();
        net.isolate(3);
        let term = net.on(1).raft.term;
        net.tick(3, 5 * ELECTION);
        assert_eq!(net.on(3).raft.term > term, !pre_vote);
        net.mend();
        net.tick(1, 2);
        assert_eq!(net.is_leader(1), pre_vote, "pre-vote {pre_vote}");
    });
}

#[test]
fn raft_23_a_leader_without_a_quorum_steps_down() {
    both(|pre_vote| {
        let mut net = Net::new(3, pre_vote);
        net.campaign(1);
        net.isolate(1);
        net.tick(1, 2 * ELECTION + 1);
        assert!(!net.is_leader(1));
        // And one with a quorum does not.
        let mut net = Net::new(3, pre_vote);
        net.campaign(1);
        net.isolate(3);
        net.tick(1, 5 * ELECTION);
        assert!(net.is_leader(1));
    });
}

#[test]
fn raft_23_reads_are_confirmed_by_a_quorum_or_by_the_lease() {
    both(|pre_vote| {
        let mut net = Net::new(3, pre_vote);
        net.campaign(1);
        net.propose(1, "a");
        let committed = net.committed(1);
        net.on(1).read_index(b"safe".to_vec());
        net.settle();
        assert_eq!(net.reads, [(1, b"safe".to_vec(), committed)]);
        net.reads.clear();
        net.isolate(1);
        net.on(1).read_index(b"alone".to_vec());
        net.settle();
        assert_eq!(net.reads, [], "confirmed by nobody");

        let lease =
            |id| Config { read_only_option: ReadOnlyOption::LeaseBased, ..config(id, pre_vote) };
        let mut net = Net::with(3, lease);
        net.campaign(1);
        net.isolate(1);
        net.on(1).read_index(b"lease".to_vec());
        net.settle();
        assert_eq!(net.reads.len(), 1, "the lease needs nobody");
    });
}

#[test]
fn raft_23_messages_in_flight_are_bounded() {
    both(|pre_vote| {
        let mut net = Net::new(2, pre_vote);
        net.campaign(1);
        assert_eq!(net.state_of(1, 2), ProgressState::Replicate);
        net.lose(MessageType::MsgAppendResponse);
        let sent = |net: &Net| {
            let of_data = |message: &&Message| {
                message.get_msg_type() == MessageType::MsgAppend && !message.entries.is_empty()
            };
            net.seen.iter().filter(of_data).count()
        };
        let before = sent(&net);
        for _ in 0..10 {
            net.propose(1, "x");
        }
        assert_eq!(sent(&net) - before, 4, "the window is full");
        // An answer to a heartbeat opens the window by one.
        net.tick(1, 1);
        assert_eq!(sent(&net) - before, 5);
        // An acknowledgement frees what it covers, and the rest follows.
        net.lost.clear();
        net.tick(1, 2);
        let last = net.on(1).raft.raft_log.last_index();
        assert_eq!(net.on(1).raft.prs().get(2).unwrap().matched, last);
    });
}

/// Node 2 lags behind the start of node 1's log.
fn with_a_cut_log(pre_vote: bool) -> Net {
    let mut net = Net::new(3, pre_vote);
    net.campaign(1);
    net.isolate(2);
    for _ in 0..5 {
        net.propose(1, "x");
    }
    let applied = net.on(1).raft.raft_log.applied;
    net.on(1).store().wl().commit_to(applied).unwrap();
    net.on(1).store().wl().compact(applied).unwrap();
    net.mend();
    net
}

#[test]
fn raft_23_a_snapshot_holds_appends_back_until_it_is_reported() {
    both(|pre_vote| {
        for fate in [SnapshotStatus::Finish, SnapshotStatus::Failure] {
            let mut net = with_a_cut_log(pre_vote);
            net.lose(MessageType::MsgSnapshot);
            net.tick(1, 2);
            assert_eq!(net.state_of(1, 2), ProgressState::Snapshot);
            let before = net.seen.len();
            net.propose(1, "y");
            let to_2 = |message: &&Message| {
                message.to == 2 && message.get_msg_type() == MessageType::MsgAppend
            };
            assert_eq!(net.seen[before..].iter().filter(to_2).count(), 0, "not held back");
            net.on(1).report_snapshot(2, fate);
            assert_eq!(net.state_of(1, 2), ProgressState::Probe);
            net.lost.clear();
            net.tick(1, 4);
            assert!(net.has_applied(1, "y"));
            assert_eq!(net.last(2), net.last(1), "{fate:?}");
        }
    });
}

#[test]
fn raft_23_a_snapshot_ends_with_the_acknowledgement_of_its_index() {
    both(|pre_vote| {
        let mut net = with_a_cut_log(pre_vote);
        net.tick(1, 3);
        assert_eq!(net.state_of(1, 2), ProgressState::Probe, "no more needed than to try");
        assert_eq!(net.last(2), net.last(1));
        net.propose(1, "y");
        net.tick(1, 1);
        assert_eq!(net.state_of(1, 2), ProgressState::Replicate);
        assert_eq!(net.committed(2), net.committed(1));
        // One that is older than what is there already is refused without a trace.
        let mut old = Snapshot::default();
        (old.mut_metadata().index, old.mut_metadata().term) = (1, 1);
        old.mut_metadata().mut_conf_state().voters = vec![1, 2, 3];
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgSnapshot);
        (message.from, message.to, message.term) = (1, 2, net.on(1).raft.term);
        message.set_snapshot(old);
        let committed = net.committed(2);
        net.on(2).step(message).unwrap();
        assert!(net.on(2).snap().is_none_or(Snapshot::is_empty));
        assert_eq!(net.committed(2), committed);
    });
}

#[test]
fn raft_23_leadership_goes_where_it_is_sent() {
    both(|pre_vote| {
        // To one that has everything.
        let mut net = Net::new(3, pre_vote);
        net.campaign(1);
        net.on(1).transfer_leader(2);
        net.settle();
        assert_eq!(net.leaders(), [2]);
        // To one that has to catch up first.
        net.isolate(3);
        net.propose(2, "x");
        net.mend();
        net.on(2).transfer_leader(3);
        net.settle();
        net.tick(2, 1);
        assert_eq!(net.leaders(), [3]);
        // To nobody, and to itself: nothing happens.
        net.on(3).transfer_leader(9);
        net.settle();
        net.on(3).transfer_leader(3);
        net.settle();
        assert_eq!(net.leaders(), [3]);
        assert_eq!(net.on(3).raft.lead_transferee, None);
        // To a second target: the first is forgotten.
        net.isolate(1);
        net.on(3).transfer_leader(1);
        net.on(3).transfer_leader(2);
        net.settle();
        assert_eq!(net.leaders(), [2]);
    });
}

#[test]
fn raft_23_a_transfer_that_does_not_end_is_given_up() {
    both(|pre_vote| {
        let mut net = Net::new(3, pre_vote);
        net.campaign(1);
        net.isolate(2);
        net.on(1).transfer_leader(2);
        net.settle();
        assert_eq!(net.on(1).raft.lead_transferee, Some(2));
        assert!(net.on(1).propose(Vec::new(), b"x".to_vec()).is_err(), "taken in a transfer");
        net.tick(1, ELECTION + 1);
        assert_eq!(net.on(1).raft.lead_transferee, None);
        net.propose(1, "later");
        assert!(net.has_applied(3, "later"));
        // A leader of a higher term ends it too.
        net.on(1).transfer_leader(2);
        net.settle();
        net.isolate(1);
        net.cut.retain(|ends| ends.0 == 1 || ends.1 == 1);
        net.forget_leaders();
        net.campaign(3);
        net.mend();
        net.tick(3, 2);
        assert_eq!(net.leaders(), [3]);
        assert_eq!(net.on(1).raft.lead_transferee, None);
    });
}

#[test]
fn raft_23_a_transfer_to_a_removed_member_is_given_up() {
    both(|pre_vote| {
        let mut net = Net::new(3, pre_vote);
        net.campaign(1);
        let mut change = ConfChange::default();
        change.set_change_type(ConfChangeType::RemoveNode);
        change.node_id = 2;
        net.on(1).propose_conf_change(Vec::new(), change).unwrap();
        net.isolate(2);
        net.on(1).transfer_leader(2);
        net.settle();
        assert_eq!(net.on(1).raft.lead_transferee, None);
        net.propose(1, "on");
        assert!(net.has_applied(3, "on"));
    });
}

/// What our storage view is held to: nothing is asked of it before the log's start.
#[test]
fn raft_23_entries_before_the_start_are_not_asked_for() {
    both(|pre_vote| {
        let mut net = with_a_cut_log(pre_vote);
        net.tick(1, 3);
        net.campaign(3);
        let first = net.on(1).store().first_index().unwrap();
        assert!(first > 1);
        let entries: Vec<Entry> = net.on(1).raft.raft_log.all_entries();
        assert!(entries.iter().all(|entry| entry.index >= first));
    });
}
