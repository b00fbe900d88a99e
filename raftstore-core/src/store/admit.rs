//! May this message enter? A pure decision over what is known of the region.
//!
//! The cases of members that missed a change of membership (nodes 1, 2, 3; 1 leads):
//! (a) 2 was removed and still answers: it will apply its own removal, or is told to go;
//! (b) 2 was isolated and removed, returns with votes: told to go;
//! (c) 3 was removed while 2 was isolated, and 2's vote reaches 3's tombstone: 2 is still a
//!     member in that record, so 3 keeps silent;
//! (d) 2 removed, 4 added, 3 removed: 3's tombstone no longer lists 2, so 3 tells it to go;
//! (e) all replaced while 2, still a member, was isolated: the new leader will reach it;
//! (f) like (e), but 2 was removed too: nobody reachable can tell, so 2 asks PD.

use raftstore_proto::{Epoch, MessageKind, Peer, Region, RegionPhase, RegionState};

use crate::Dropped;

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Give it to the peer.
    Step,
    /// Build an uninitialised peer, then give it the message.
    CreatePeer,
    /// Remove the local peer: an older incarnation is in the way, or the claim is good.
    Destroy,
    /// Ask PD whether the local peer still belongs to the region.
    AskPd,
    /// Tell the sender that it was removed, as of this epoch.
    TellSender(Epoch),
    /// Nothing.
    Drop(Dropped),
}

/// What a message says about itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope {
    pub(super) from: Peer,
    pub(super) to: Peer,
    pub(super) epoch: Epoch,
    pub(super) kind: Option<MessageKind>,
    pub(super) commit: u64,
}

/// What is known of the local peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local<'a> {
    pub(super) region: &'a Region,
    pub(super) replica: Peer,
    /// The newest epoch in which it is known to be a member.
    pub(super) member_as_of: Epoch,
    pub(super) going_away: bool,
    pub(super) quarantined: bool,
    pub(super) knows_sender: bool,
}

/// A claim that the local peer was removed (4.2).
pub(super) fn admit_gc(
    envelope: &Envelope,
    local: Option<&Local<'_>>,
    any_peer: bool,
) -> Admission {
    let Some(local) = local else {
        return Admission::Drop(Dropped::StaleGc);
    };
    if local.going_away {
        return Admission::Drop(Dropped::GoingAway);
    }
    // A claim against another incarnation says nothing about this one (H15).
    if !any_peer && envelope.to.id != local.replica.id {
        return Admission::Drop(Dropped::StaleGc);
    }
    if !local.member_as_of.is_stale_against(&envelope.epoch)
        || envelope.epoch.is_stale_against(&local.member_as_of)
    {
        return Admission::Drop(Dropped::StaleGc);
    }
    // Only a member this peer knows of may have it removed; anybody else makes it ask.
    if local.knows_sender { Admission::Destroy } else { Admission::AskPd }
}

/// A message for a region with a local peer.
pub(super) fn admit_local(envelope: &Envelope, local: &Local<'_>) -> Admission {
    if envelope.epoch.is_stale_against(&local.region.epoch)
        && local.region.peer_on(envelope.from.store).is_none()
        && local.region.is_initialized()
    {
        return Admission::TellSender(local.region.epoch);
    }
    if local.going_away {
        return Admission::Drop(Dropped::GoingAway);
    }
    if local.replica.id < envelope.to.id {
        return Admission::Destroy;
    }
    if local.replica.id > envelope.to.id || local.quarantined {
        return Admission::Drop(Dropped::StalePeer);
    }
    Admission::Step
}

/// A message for a region without a local peer, given its record if there is one.
pub(super) fn admit_absent(
    envelope: &Envelope,
    record: Option<&RegionState>,
    obey_tombstone: bool,
) -> Admission {
    match record {
        None => {}
        Some(state) if state.phase == RegionPhase::Tombstone => {
            if obey_tombstone && let Some(refused) = refused_by_tombstone(envelope, &state.region) {
                return refused;
            }
        }
        // On disk but not built yet.
        Some(_) => return Admission::Drop(Dropped::RegionNonexistent),
    }
    let first_contact = match envelope.kind {
        Some(MessageKind::RequestVote | MessageKind::RequestPreVote) => true,
        Some(MessageKind::Heartbeat) => envelope.commit == 0,
        _ => false,
    };
    if first_contact { Admission::CreatePeer } else { Admission::Drop(Dropped::UnknownRegion) }
}

fn refused_by_tombstone(envelope: &Envelope, tombstone: &Region) -> Option<Admission> {
    if envelope.epoch.is_stale_against(&tombstone.epoch) {
        let told = tombstone.peer_on(envelope.from.store).is_none();
        return Some(if told {
            Admission::TellSender(tombstone.epoch)
        } else {
            Admission::Drop(Dropped::TombstonePeer)
        });
    }
    // By identity, not by conf_ver: the same or an older incarnation never comes back (H11).
    let known = tombstone.peer_on(envelope.to.store).is_some_and(|own| own.id >= envelope.to.id);
    known.then_some(Admission::Drop(Dropped::TombstonePeer))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raftstore_proto::{PeerId, RegionId, StoreId};

    use super::*;

    fn peer(id: u64, store: u64) -> Peer {
        Peer::voter(PeerId::must(id), StoreId::must(store))
    }

    fn region(conf_ver: u64, peers: Vec<Peer>) -> Region {
        let epoch = Epoch { conf_ver, version: 1 };
        Region {
            id: RegionId::must(1),
            start_key: Bytes::new(),
            end_key: Bytes::new(),
            epoch,
            peers,
        }
    }

    fn envelope(from: Peer, to: Peer, conf_ver: u64, kind: MessageKind) -> Envelope {
        let epoch = Epoch { conf_ver, version: 1 };
        Envelope { from, to, epoch, kind: Some(kind), commit: 0 }
    }

    fn local(region: &Region, replica: Peer) -> Local<'_> {
        let member_as_of = region.epoch;
        Local {
            region,
            replica,
            member_as_of,
            going_away: false,
            quarantined: false,
            knows_sender: true,
        }
    }

    /// H15: a claim against another incarnation is no claim.
    #[test]
    fn a_removal_notice_must_name_the_peer() {
        let region = region(3, vec![peer(1, 1), peer(2, 2)]);
        let here = local(&region, peer(2, 2));
        let claim = envelope(peer(1, 1), peer(2, 2), 4, MessageKind::Heartbeat);
        assert_eq!(admit_gc(&claim, Some(&here), false), Admission::Destroy);
        let other = Envelope { to: peer(7, 2), ..claim };
        assert_eq!(admit_gc(&other, Some(&here), false), Admission::Drop(Dropped::StaleGc));
        let old = Envelope { epoch: Epoch { conf_ver: 3, version: 1 }, ..claim };
        assert_eq!(admit_gc(&old, Some(&here), false), Admission::Drop(Dropped::StaleGc));
        let stranger = Local { knows_sender: false, ..here };
        assert_eq!(admit_gc(&claim, Some(&stranger), false), Admission::AskPd);
    }

    /// A peer that waits for its first snapshot knows no epoch of its own. A member that
    /// has not yet heard of its addition must not talk it away.
    #[test]
    fn an_uninitialised_peer_believes_its_leader_over_an_older_claim() {
        let unknown = region(0, Vec::new());
        let added = Epoch { conf_ver: 4, version: 1 };
        let here = Local { member_as_of: added, ..local(&unknown, peer(9, 2)) };
        let claim = |conf_ver| envelope(peer(1, 1), peer(9, 2), conf_ver, MessageKind::Heartbeat);
        assert_eq!(admit_gc(&claim(3), Some(&here), false), Admission::Drop(Dropped::StaleGc));
        assert_eq!(admit_gc(&claim(4), Some(&here), false), Admission::Drop(Dropped::StaleGc));
        assert_eq!(admit_gc(&claim(5), Some(&here), false), Admission::Destroy);
    }

    /// H20, H21: every message of a removed member is answered, pre-votes too.
    #[test]
    fn a_removed_sender_is_told_whatever_it_sends() {
        let region = region(5, vec![peer(1, 1), peer(3, 3)]);
        let here = local(&region, peer(1, 1));
        for kind in [MessageKind::RequestPreVote, MessageKind::AppendResponse] {
            let stale = envelope(peer(2, 2), peer(1, 1), 4, kind);
            assert_eq!(admit_local(&stale, &here), Admission::TellSender(region.epoch));
        }
        let member = envelope(peer(3, 3), peer(1, 1), 4, MessageKind::AppendResponse);
        assert_eq!(admit_local(&member, &here), Admission::Step);
    }

    #[test]
    fn incarnations_are_told_apart_by_id() {
        let region = region(5, vec![peer(1, 1), peer(4, 2)]);
        let here = local(&region, peer(4, 2));
        let newer = envelope(peer(1, 1), peer(9, 2), 6, MessageKind::Heartbeat);
        assert_eq!(admit_local(&newer, &here), Admission::Destroy);
        let older = envelope(peer(1, 1), peer(2, 2), 6, MessageKind::Heartbeat);
        assert_eq!(admit_local(&older, &here), Admission::Drop(Dropped::StalePeer));
    }

    /// H10, H11: what the tombstone knows never returns; a larger id does.
    #[test]
    fn a_tombstone_keeps_old_incarnations_out() {
        let record = RegionState {
            phase: RegionPhase::Tombstone,
            region: region(5, vec![peer(1, 1), peer(3, 3)]),
        };
        let vote = |to, conf_ver| envelope(peer(1, 1), to, conf_ver, MessageKind::RequestVote);
        let refused = Admission::Drop(Dropped::TombstonePeer);
        assert_eq!(admit_absent(&vote(peer(3, 3), 9), Some(&record), true), refused);
        assert_eq!(admit_absent(&vote(peer(2, 3), 9), Some(&record), true), refused);
        assert_eq!(admit_absent(&vote(peer(8, 3), 6), Some(&record), true), Admission::CreatePeer);
        let stranger = envelope(peer(2, 2), peer(3, 3), 4, MessageKind::RequestVote);
        assert_eq!(
            admit_absent(&stranger, Some(&record), true),
            Admission::TellSender(record.region.epoch)
        );
        assert_eq!(admit_absent(&vote(peer(3, 3), 4), Some(&record), true), refused);
    }

    #[test]
    fn only_a_first_contact_creates_a_peer() {
        let heartbeat = envelope(peer(1, 1), peer(3, 3), 2, MessageKind::Heartbeat);
        assert_eq!(admit_absent(&heartbeat, None, true), Admission::CreatePeer);
        let known = Envelope { commit: 7, ..heartbeat };
        assert_eq!(admit_absent(&known, None, true), Admission::Drop(Dropped::UnknownRegion));
        let append = envelope(peer(1, 1), peer(3, 3), 2, MessageKind::Append);
        assert_eq!(admit_absent(&append, None, true), Admission::Drop(Dropped::UnknownRegion));
        let normal =
            RegionState { phase: RegionPhase::Normal, region: region(2, vec![peer(3, 3)]) };
        assert_eq!(
            admit_absent(&heartbeat, Some(&normal), true),
            Admission::Drop(Dropped::RegionNonexistent)
        );
    }
}
