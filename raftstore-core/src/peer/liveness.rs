//! Who is alive: what a leader reports to PD, and when a peer suspects that it was left
//! behind.

use engine_traits::{KvEngine, RaftEngine};
use pd_client::{PeerDown, RegionHeartbeat};

use super::Peer;
use crate::{PdRequest, context::Context, hooks::Hooks};

impl<R: RaftEngine> Peer<R> {
    /// A leader's report. Flow figures are those since the last report.
    pub(crate) fn heartbeat<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &Context<K, R, H>,
    ) -> RegionHeartbeat {
        let down_after = ctx.config.max_peer_down_duration;
        let others = || self.region.peers.iter().filter(|peer| peer.id != self.replica.id);
        let down_peers = others()
            .filter_map(|peer| {
                let silent = ctx.now.since(*self.heard.get(&peer.id)?);
                (silent >= down_after)
                    .then_some(PeerDown { peer: *peer, down_seconds: silent.as_secs() })
            })
            .collect();
        let pending_peers = self.pending_peers();
        self.told_pending = pending_peers.len();
        let (written_bytes, written_keys) = std::mem::take(&mut self.written);
        RegionHeartbeat {
            region: self.region().clone(),
            leader: self.replica,
            term: self.term(),
            down_peers,
            pending_peers,
            written_bytes,
            written_keys,
            approximate_size: self.size.reported(),
        }
    }

    /// Members that need a snapshot or are installing one, as the leader knows.
    pub(super) fn pending_peers(&self) -> Vec<raftstore_proto::Peer> {
        let truncated = self.group.storage().truncated.index;
        let behind: Vec<u64> = self
            .group
            .progress()
            .filter(|(_, progress)| progress.matched < truncated || progress.in_snapshot)
            .map(|(id, _)| id)
            .collect();
        let others = self.region.peers.iter().filter(|peer| peer.id != self.replica.id);
        others.filter(|peer| behind.contains(&peer.id.get())).copied().collect()
    }

    /// Members that are being sent a snapshot.
    pub(crate) fn sending_snapshots(&self) -> usize {
        self.group.progress().filter(|(_, progress)| progress.in_snapshot).count()
    }

    /// Tells PD at once when a member has caught up that it was told to be pending: it may
    /// wait for that.
    pub(crate) fn check_pending<K: KvEngine, H: Hooks>(&mut self, ctx: &mut Context<K, R, H>) {
        if self.told_pending > 0
            && self.is_leader()
            && self.pending_peers().len() < self.told_pending
        {
            let heartbeat = self.heartbeat(ctx);
            ctx.effects.pd.push(PdRequest::RegionHeartbeat(heartbeat));
        }
    }

    /// Asks PD whether this peer still belongs to the region once it has not heard from a
    /// leader for too long (9.1). Time since the last word counts, not what raft believes: a
    /// learner never gives its leader up. An uninitialised peer counts from its creation,
    /// since it hears a leader but cannot follow it.
    pub(crate) fn check_stale<K: KvEngine, H: Hooks>(&mut self, ctx: &mut Context<K, R, H>) {
        if self.is_leader() {
            self.leader_heard_at = ctx.now;
        }
        if ctx.now.since(self.leader_heard_at) >= ctx.config.max_leader_missing_duration {
            self.leader_heard_at = ctx.now;
            ctx.effects
                .pd
                .push(PdRequest::ValidatePeer { region: self.region_id(), peer: self.replica.id });
        }
    }
}
