//! What observers are told and asked about one peer.

use engine_traits::{KvEngine, RaftEngine};
use raftstore_proto::{AdminCommand, Body, Command, RegionError};

use super::Peer;
use crate::{
    context::Context,
    hooks::Hooks,
    observe::{RegionEvent, Role, RoleChange, SnapshotApplied},
};

/// See [`Peer::told_role`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ToldRole {
    role: Role,
    term: u64,
    leader: u64,
}

impl<R: RaftEngine> Peer<R> {
    /// Tells of another role, term or leader than was told last.
    pub(crate) fn tell_role<K: KvEngine, H: Hooks>(&mut self, ctx: &Context<K, R, H>) {
        if ctx.observers.is_empty() {
            return;
        }
        let (role, term, leader) = (self.group.role(), self.term(), self.group.leader());
        let now = ToldRole { role, term, leader };
        if self.told_role.replace(now) != Some(now) {
            let (region, peer) = (self.region(), self.replica);
            ctx.observers.role_changed(&RoleChange { region, peer, role, term, leader });
        }
    }

    /// Tells what has become of the region.
    pub(crate) fn tell_region<K: KvEngine, H: Hooks>(
        &self,
        ctx: &Context<K, R, H>,
        event: RegionEvent,
    ) {
        if !ctx.observers.is_empty() {
            ctx.observers.region_changed(self.region(), self.replica, event);
        }
    }

    /// Tells that the data of a snapshot is there.
    pub(super) fn tell_snapshot<K: KvEngine, H: Hooks>(&self, ctx: &Context<K, R, H>) {
        if !ctx.observers.is_empty() {
            let (region, peer, state) = (self.region(), self.replica, self.applied);
            ctx.observers.snapshot_applied(&SnapshotApplied { region, peer, state });
        }
    }

    /// Asks observers about a command that is about to be proposed, which they may change.
    pub(super) fn ask_observers<K: KvEngine, H: Hooks>(
        &self,
        ctx: &Context<K, R, H>,
        command: &mut Command,
    ) -> Result<(), RegionError> {
        if ctx.observers.is_empty() {
            return Ok(());
        }
        match &mut command.body {
            Body::Operations(operations) if Self::classify(operations) == Ok(false) => {
                ctx.observers.pre_query(self.region(), operations)?;
                if Self::classify(operations)? {
                    return Err(RegionError::InvalidCommand { why: "observers left no write" });
                }
                Ok(())
            }
            Body::Admin(AdminCommand::TransferLeader(_))
            | Body::Operations(_)
            | Body::Status(_) => Ok(()),
            Body::Admin(admin) => ctx.observers.pre_admin(self.region(), admin),
        }
    }
}
