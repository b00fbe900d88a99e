//! Going without being missed: leaders are handed to other stores before a store stops.

use std::time::{Duration, Instant};

use engine_traits::KvEngine;
use raftstore_core::{PeerPhase, PeerStatus, runtime::NodeHandle};
use raftstore_proto::{AdminCommand, Body, Command, Header, Peer};

/// How long leaders are handed over at most.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How long a lane may take to tell of its peers.
const ASK: Duration = Duration::from_secs(2);

/// Between two rounds. A transfer takes a few messages.
const PAUSE: Duration = Duration::from_millis(50);

/// Rounds after which another member is tried.
const ROUNDS_PER_TARGET: usize = 10;

/// Hands over the leaders of a store until it has none that another could be, or patience is
/// over. Gives how many are left.
pub(super) fn hand_over<K: KvEngine>(node: &NodeHandle<K>, patience: Duration) -> usize {
    let deadline = Instant::now() + patience;
    for round in 0.. {
        let left: Vec<_> = node
            .peers(ASK)
            .into_iter()
            .filter(|status| status.is_leader && status.phase == PeerPhase::Normal)
            .filter_map(|status| heir(&status, round / ROUNDS_PER_TARGET).map(|to| (status, to)))
            .collect();
        if left.is_empty() || Instant::now() >= deadline || node.fatal().is_some() {
            return left.len();
        }
        for (status, to) in &left {
            // It is advice; whether it was taken shows in the next round.
            drop(node.command(transfer(status, *to)));
        }
        std::thread::sleep(PAUSE);
    }
    0
}

/// Who shall lead instead. The target must be reachable and have the log, which only its
/// leader knows and checks: so that each gets a turn.
fn heir(status: &PeerStatus, turn: usize) -> Option<Peer> {
    let may_lead = |peer: &&Peer| peer.id != status.peer.id && peer.role.votes_after();
    let heirs: Vec<_> = status.region.peers.iter().filter(may_lead).collect();
    // Regions of one store begin with different members, so that no store gets them all.
    let at = usize::try_from(status.region.id.get()).unwrap_or_default().wrapping_add(turn);
    (!heirs.is_empty()).then(|| *heirs[at % heirs.len()])
}

fn transfer(status: &PeerStatus, to: Peer) -> Command {
    let header = Header {
        region: status.region.id,
        peer: status.peer,
        epoch: Some(status.region.epoch),
        term: status.term,
        read_quorum: false,
        replica_read: false,
    };
    Command { header, body: Body::Admin(AdminCommand::TransferLeader(to)) }
}
