//! Only a voter leads (raft facts R2 and R17): a leader that learns of its own demotion
//! follows from then on.

use raftstore_core::PeerStatus;
use raftstore_proto::PeerRole;

use super::Violation;

/// Looks at a peer whose members are known.
///
/// # Errors
/// If it leads and has no vote.
pub fn check_leader_votes(store: u64, status: &PeerStatus) -> Result<(), Violation> {
    if status.is_leader && status.peer.role == PeerRole::Learner {
        let (region, peer, term) = (status.region.id, status.peer.id, status.term);
        return Err(Violation::new(
            "only a voter leads",
            format!("store {store}: learner {peer} leads region {region} in term {term}"),
        ));
    }
    Ok(())
}
