//! PD's orders: commands like any other, void unless they fit the region exactly (11.4).

use engine_traits::{KvEngine, RaftEngine};
use pd_client::{Order, OrderAction, SplitPolicy};
use raftstore_proto::{AdminCommand, Body, Command, Header};

use super::Store;
use crate::{FatalError, hooks::Hooks};

impl<K: KvEngine, R: RaftEngine, H: Hooks> Store<K, R, H> {
    /// PD repeats an order until it sees the effect; epoch and target peer make it harmless
    /// when it comes late or twice (H72).
    pub(super) fn on_order(&mut self, order: Order) -> Result<(), FatalError> {
        let Some(peer) = self.peers.get_mut(&order.region) else {
            return Ok(());
        };
        if peer.region().epoch != order.epoch {
            return Ok(());
        }
        let admin = match order.action {
            OrderAction::ChangePeer(change) => AdminCommand::ChangePeer(change),
            OrderAction::ChangePeerV2(changes) => AdminCommand::ChangePeerV2(changes),
            OrderAction::TransferLeader(to) => AdminCommand::TransferLeader(to),
            // One that waits for its ids is this one, or voids it.
            OrderAction::SplitRegion { .. }
                if !peer.replica.is_same_replica(&order.target) || peer.asks_for_split() =>
            {
                return Ok(());
            }
            OrderAction::SplitRegion { keys, policy: SplitPolicy::Keys } => {
                peer.ask_split(&mut self.ctx, None, order.epoch, keys);
                return Ok(());
            }
            OrderAction::SplitRegion { .. } => {
                self.look_for_middle(order.region);
                return Ok(());
            }
            action => {
                tracing::warn!(?action, "an order this version does not know");
                return Ok(());
            }
        };
        let header = Header {
            region: order.region,
            peer: order.target,
            epoch: Some(order.epoch),
            term: 0,
            read_quorum: false,
            replica_read: false,
        };
        peer.on_command(&mut self.ctx, None, Command { header, body: Body::Admin(admin) })
    }
}
