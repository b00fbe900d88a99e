//! Raft messages on their way in: what `admit` decided, carried out.

use engine_traits::{Cf, KvEngine, RaftEngine};
use raftstore_proto::{
    ApplyState, DiskUsage, Epoch, LocalState, MessageKind, RaftMessage, Region, RegionId,
    RegionState, wire,
};
use transport_traits::SnapKey;

use super::{
    Store,
    admit::{Admission, Envelope, Local, admit_absent, admit_gc, admit_local},
    forged::{Receiver, has_members_of, is_forged},
    start,
};
use crate::{
    Dropped, FatalError, PdRequest,
    hooks::{Bug, Hooks},
    keys,
    observe::Cause,
    peer::{Birth, Peer, conf_state_of},
};

/// Entries that a peer may have yet to apply when it is told to campaign: raft looks through
/// all of them at once (R32), and the new leader serves nobody before it has applied them.
const CAMPAIGN_LAG_MAX: u64 = 256;

impl<K: KvEngine, R: RaftEngine, H: Hooks> Store<K, R, H> {
    pub(super) fn on_message(
        &mut self,
        message: RaftMessage,
        snapshot: Option<(SnapKey, u64)>,
    ) -> Result<(), FatalError> {
        self.ctx.metrics.received_messages += 1;
        if let Some((key, size_bytes)) = snapshot {
            self.ctx.received.insert(key, size_bytes);
        }
        let (Some(region), Some(from), Some(to)) =
            (message.region(), message.from_peer(), message.to_peer())
        else {
            self.ctx.drop_message(None, Dropped::BadIds);
            return Ok(());
        };
        let refused = if self.stopping {
            Some(Dropped::GoingAway)
        } else if to.store != self.ctx.store {
            Some(Dropped::WrongStore)
        } else if self.destroying.contains_key(&region) {
            // No new incarnation before the records of the old one are gone (R26).
            Some(Dropped::GoingAway)
        } else if self.unreadable.contains(&region) {
            // Nothing is known of it that could be trusted (W12).
            Some(Dropped::Damaged)
        } else {
            None
        };
        let reason = match (refused, message.epoch()) {
            (Some(reason), _) => reason,
            (None, None) => Dropped::NoEpoch,
            (None, Some(epoch)) => {
                let kind = message.kind();
                let commit = message.commit();
                let envelope = Envelope { from, to, epoch, kind, commit };
                return self.route(region, &envelope, message);
            }
        };
        self.ctx.drop_message(Some(region), reason);
        self.discard_snapshot_of(&message);
        Ok(())
    }

    fn route(
        &mut self,
        region: RegionId,
        envelope: &Envelope,
        message: RaftMessage,
    ) -> Result<(), FatalError> {
        let admission = self.admit(region, envelope, &message)?;
        match admission {
            Admission::Step => return self.step(region, envelope, message),
            Admission::CreatePeer if is_forged(&message, &Receiver::EMPTY) => {
                self.ctx.drop_message(Some(region), Dropped::Forged);
            }
            Admission::CreatePeer => {
                if self.create_peer(region, envelope, &message)? {
                    return self.step(region, envelope, message);
                }
            }
            Admission::Destroy => {
                tracing::info!(%region, to = %envelope.to.id, "local peer has to go");
                self.start_destroy(region, Cause::NotListed);
            }
            Admission::AskPd => {
                if let Some(peer) = self.peers.get(&region) {
                    let peer = peer.replica.id;
                    self.ctx.effects.pd.push(PdRequest::ValidatePeer { region, peer });
                }
            }
            Admission::TellSender(epoch) => self.tell_sender(region, envelope, epoch),
            Admission::Drop(reason) => {
                if reason == Dropped::RegionNonexistent {
                    self.keep_first(region, &message);
                }
                self.ctx.drop_message(Some(region), reason);
            }
        }
        self.discard_snapshot_of(&message);
        Ok(())
    }

    fn keep_first(&mut self, region: RegionId, message: &RaftMessage) {
        if self.first_messages.keep(region, message) {
            self.ctx.metrics.first_messages_kept += 1;
        }
    }

    fn admit(
        &self,
        region: RegionId,
        envelope: &Envelope,
        message: &RaftMessage,
    ) -> Result<Admission, FatalError> {
        let local = self.peers.get(&region).map(|peer| Local {
            region: peer.region(),
            replica: peer.replica,
            member_as_of: peer.member_as_of(),
            going_away: peer.going_away,
            quarantined: peer.quarantined,
            knows_sender: peer.replica_of(envelope.from.id).is_some(),
        });
        if message.is_tombstone() {
            let any_peer = self.ctx.hooks.planted(Bug::GcWithoutPeerId);
            return Ok(admit_gc(envelope, local.as_ref(), any_peer));
        }
        if let Some(local) = &local {
            return Ok(admit_local(envelope, local));
        }
        let record = self.region_state(region)?;
        let obey = !self.ctx.hooks.planted(Bug::TombstoneIgnored);
        Ok(admit_absent(envelope, record.as_ref(), obey))
    }

    /// The region's lifecycle record.
    pub(super) fn region_state(&self, region: RegionId) -> Result<Option<RegionState>, FatalError> {
        let key = keys::region_state_key(region);
        let bytes = self
            .ctx
            .kv
            .get(Cf::Raft, &key)
            .map_err(FatalError::engine("reading a region's record", Some(region)))?;
        bytes
            .map(|bytes| wire::record::decode_region_state(region, &bytes))
            .transpose()
            .map_err(FatalError::record("reading a region's record", Some(region)))
    }

    /// "You were removed": to a member of the past (4.4).
    fn tell_sender(&mut self, region: RegionId, envelope: &Envelope, epoch: Epoch) {
        self.ctx.drop_message(Some(region), Dropped::StaleEpoch);
        let notice = RaftMessage::tombstone(region, envelope.to, envelope.from, epoch);
        self.ctx.effects.messages.push(notice);
    }

    /// Builds an uninitialised peer (4.5). Gives whether it did.
    fn create_peer(
        &mut self,
        id: RegionId,
        envelope: &Envelope,
        message: &RaftMessage,
    ) -> Result<bool, FatalError> {
        // A vote it cast before a crash binds it still (H9, W2).
        let kept = start::load_uninitialized(&self.ctx.raft, id, envelope.to.id)?;
        if kept.is_some_and(|kept| kept.peer > envelope.to.id) {
            // A newer incarnation has voted here; the older one is gone for good.
            self.ctx.drop_message(Some(id), Dropped::StalePeer);
            return Ok(false);
        }
        let local = kept.unwrap_or_else(|| LocalState {
            peer: envelope.to.id,
            hard_state: raftstore_proto::HardState::default(),
            last_index: 0,
        });
        let range = message.range().map(|(start_key, end_key)| Region {
            start_key,
            end_key,
            ..Region::uninitialized(id)
        });
        if let Err(refused) = self.ctx.meta.claim_creation(id, envelope.to.id, range.as_ref()) {
            tracing::debug!(region = %id, ?refused, "peer not created");
            // The parent may not have applied its split yet.
            self.keep_first(id, message);
            self.ctx.drop_message(Some(id), Dropped::RegionOverlap);
            return Ok(false);
        }
        let birth = Birth {
            region: Region::uninitialized(id),
            replica: envelope.to,
            local,
            applied: ApplyState::default(),
            last_term: 0,
        };
        let peer = Peer::new(&mut self.ctx, birth)?;
        self.ctx.metrics.peers_created += 1;
        self.ctx.attention.uninitialized.insert(id);
        self.peers.insert(id, peer);
        Ok(true)
    }

    /// Gives an admitted message to its peer.
    fn step(
        &mut self,
        region: RegionId,
        envelope: &Envelope,
        message: RaftMessage,
    ) -> Result<(), FatalError> {
        if let Err(reason) = self.may_step(region, &message) {
            let overlaps = reason == Dropped::RegionOverlap;
            self.ctx.metrics.snapshots_overlapping += u64::from(overlaps);
            self.ctx.drop_message(Some(region), reason);
            self.discard_snapshot_of(&message);
            return Ok(());
        }
        let has_snapshot = message.snapshot().is_some();
        let Some(peer) = self.peers.get_mut(&region) else {
            return Ok(());
        };
        peer.note_sender(envelope.from, message.disk_usage(), self.ctx.now);
        if matches!(
            envelope.kind,
            Some(MessageKind::Append | MessageKind::Heartbeat | MessageKind::Snapshot)
        ) {
            peer.note_spoken_to(envelope.epoch);
        }
        if envelope.kind == Some(MessageKind::ReadIndex) {
            peer.note_replica_read();
        }
        let key = snap_key_of(region, &message);
        if peer.group.step(message.into_raft()).is_err() {
            self.ctx.drop_message(Some(region), Dropped::RaftRefused);
            if has_snapshot {
                self.ctx.meta.withdraw_snapshot(region);
            }
            return Ok(());
        }
        peer.sync_role(&mut self.ctx);
        if let Some(key) = key
            && peer.group.pending_snapshot() != Some((key.index, key.term))
        {
            // raft had no use for it: older than what is here (H17).
            self.ctx.meta.withdraw_snapshot(region);
            self.drop_received(key);
        }
        self.ctx.mark(region);
        Ok(())
    }

    /// What keeps a message from raft although it is meant for this very peer.
    fn may_step(&self, region: RegionId, message: &RaftMessage) -> Result<(), Dropped> {
        let Some(peer) = self.peers.get(&region) else {
            return Err(Dropped::UnknownRegion);
        };
        let taking_snapshot = peer.intake.is_some();
        if message.kind().is_none() {
            return Err(Dropped::BadIds);
        }
        let (group, committed) = (&peer.group, peer.group.committed());
        let receiver = Receiver {
            term: group.term(),
            leads: group.is_leader(),
            last_index: group.last_index(),
            committed,
            committed_term: group.term_at(committed),
        };
        if is_forged(message, &receiver) {
            return Err(Dropped::Forged);
        }
        match message.kind() {
            Some(MessageKind::ReadIndex) => {
                // Which range the asker may read is not known before it is applied (H36). It
                // asks again.
                if peer.has_committed_split() {
                    return Err(Dropped::ReadTooEarly);
                }
            }
            Some(MessageKind::RequestVote | MessageKind::RequestPreVote) => {
                // A restarted member may have promised a leader not to vote (H35).
                let since_start = self.ctx.now.since(self.ctx.started);
                if since_start < self.ctx.config.election_timeout()
                    && !self.ctx.hooks.planted(Bug::VoteRightAfterStart)
                {
                    return Err(Dropped::UnsafeVote);
                }
            }
            Some(MessageKind::Append) if message.entries_len() > 0 => {
                if self.ctx.disk == DiskUsage::Full {
                    return Err(Dropped::DiskFull);
                }
                if taking_snapshot || self.ctx.over_budget().is_some() {
                    return Err(Dropped::Backpressure);
                }
                if peer.has_damaged_entries(message)
                    && !self.ctx.hooks.planted(Bug::EntriesUnchecked)
                {
                    return Err(Dropped::Damaged);
                }
            }
            Some(MessageKind::TimeoutNow) if self.ctx.disk != DiskUsage::Normal => {
                return Err(Dropped::DiskFull);
            }
            Some(MessageKind::TimeoutNow)
                if taking_snapshot
                    || peer.apply_lag() > CAMPAIGN_LAG_MAX
                    || !peer.group.may_campaign() =>
            {
                return Err(Dropped::Backpressure);
            }
            Some(MessageKind::Snapshot) => {
                if self.ctx.disk == DiskUsage::Full {
                    return Err(Dropped::DiskFull);
                }
                if taking_snapshot || peer.group.pending_snapshot().is_some() {
                    return Err(Dropped::ApplyingSnapshot);
                }
                self.admit_snapshot(region, message)?;
            }
            Some(_) | None => {}
        }
        Ok(())
    }

    /// Whether a snapshot may be taken in (4.9).
    fn admit_snapshot(&self, id: RegionId, message: &RaftMessage) -> Result<(), Dropped> {
        let (Some(snapshot), Some(key)) = (message.snapshot(), snap_key_of(id, message)) else {
            return Err(Dropped::BadSnapshot);
        };
        let Ok((region, _)) = wire::decode_snapshot_data(&snapshot.data) else {
            return Err(Dropped::BadSnapshot);
        };
        if region.id != id || !range_is_ordered(&region) {
            return Err(Dropped::BadSnapshot);
        }
        let members = snapshot.get_metadata().get_conf_state();
        let of_nothing = key.index == 0 || key.term == 0 || key.term > message.term();
        if of_nothing || !has_members_of(members, &region, &conf_state_of(&region)) {
            return Err(Dropped::BadSnapshot);
        }
        let listed = message.to_peer().and_then(|to| region.peer(to.id).copied());
        if listed.is_none_or(|own| own.store != self.ctx.store) {
            return Err(Dropped::RegionNoPeer);
        }
        if !self.ctx.received.contains_key(&key) {
            return Err(Dropped::BadSnapshot);
        }
        match self.ctx.meta.admit_snapshot(&region) {
            Err(_) if !self.ctx.hooks.planted(Bug::SnapshotOverLiveRegion) => {
                Err(Dropped::RegionOverlap)
            }
            _ => Ok(()),
        }
    }

    /// Removes the bytes that came with a message nobody acted on.
    fn discard_snapshot_of(&mut self, message: &RaftMessage) {
        let key = message.region().and_then(|region| snap_key_of(region, message));
        if let Some(key) = key {
            self.drop_received(key);
        }
    }

    /// Removes a received snapshot nobody needs, unless it is being installed.
    pub(super) fn drop_received(&mut self, key: SnapKey) {
        let in_use = self.peers.get(&key.region).is_some_and(|peer| {
            peer.intake.as_ref().is_some_and(|intake| intake.key == key)
                || peer.group.pending_snapshot() == Some((key.index, key.term))
        }) || self.spent.iter().any(|(spent, _)| *spent == key);
        if !in_use && self.ctx.received.remove(&key).is_some() {
            let direction = transport_traits::SnapDirection::Received;
            self.ctx.effects.tasks.push(crate::Task::DeleteSnapshot { direction, key });
        }
    }
}

/// The name of the region snapshot a raft message refers to.
fn snap_key_of(region: RegionId, message: &RaftMessage) -> Option<SnapKey> {
    let meta = message.snapshot()?.get_metadata();
    Some(SnapKey { region, term: meta.term, index: meta.index })
}

fn range_is_ordered(region: &Region) -> bool {
    region.end_key.is_empty() || region.start_key < region.end_key
}
