//! What a leader does with a command: validation, then one of the paths propose, change
//! membership, transfer leadership, read.

use engine_traits::{KvEngine, RaftEngine};
use raftstore_proto::{
    AdminCommand, AdminResponse, Body, Command, DiskUsage, EntryFlags, Header, Operation,
    Peer as Replica, PeerChange, RegionError, Response, ResponseBody, StatusCommand,
    StatusResponse, wire,
};

use super::{
    Peer,
    membership::{self, Situation},
};
use crate::{
    FatalError, ReplyId,
    apply::Proposal,
    command::{check_epoch, is_blind_split},
    context::Context,
    hooks::{Bug, Hooks},
};

/// A transfer target may lag by at most this many entries.
const TRANSFER_LAG_MAX: u64 = 10;

impl<R: RaftEngine> Peer<R> {
    /// Answers a question that needs no leader.
    pub(crate) fn status(&self, command: StatusCommand) -> Response {
        let body = match command {
            StatusCommand::RegionLeader => Ok(StatusResponse::RegionLeader(self.leader())),
            StatusCommand::RegionDetail if self.is_initialized() => {
                Ok(StatusResponse::RegionDetail(self.region().clone(), self.leader()))
            }
            StatusCommand::RegionDetail => {
                Err(RegionError::RegionNotInitialized { region: self.region_id() })
            }
            StatusCommand::Invalid => {
                Err(RegionError::InvalidCommand { why: "unknown status command" })
            }
        };
        Response { term: self.term(), body: body.map(ResponseBody::Status) }
    }

    /// Whether the command may be acted on at all (5.1, rows 4 to 9).
    pub(super) fn validate(&self, header: &Header, body: &Body) -> Result<(), RegionError> {
        if self.going_away || self.quarantined {
            return Err(RegionError::RegionNotFound { region: self.region_id() });
        }
        let anybody = header.replica_read
            && matches!(body, Body::Operations(operations)
            if operations.iter().all(Operation::is_read));
        if !self.is_leader() && !anybody {
            return Err(self.not_leader());
        }
        if header.peer.id != self.replica.id {
            return Err(RegionError::PeerNotMatch { asked: header.peer.id, here: self.replica.id });
        }
        if !self.is_initialized() || self.intake.is_some() {
            return Err(RegionError::RegionNotInitialized { region: self.region_id() });
        }
        if header.term != 0 && self.term() > header.term + 1 {
            return Err(RegionError::StaleCommand);
        }
        check_epoch(header, body, self.region())
    }

    /// Acts on a command. `reply` is `None` for the store's own commands.
    pub(crate) fn on_command<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        reply: Option<ReplyId>,
        command: Command,
    ) -> Result<(), FatalError> {
        let asked = command.header.epoch;
        let checked = match self.validate(&command.header, &command.body) {
            Err(RegionError::EpochNotMatch { .. })
                if is_blind_split(&command.header, &command.body, self.region(), &ctx.hooks) =>
            {
                Ok(())
            }
            checked => checked,
        };
        let outcome = match checked {
            Ok(()) => self.dispatch(ctx, reply, command)?,
            Err(error) => Err(error),
        };
        if let (Err(error), Some(reply)) = (outcome, reply) {
            let error = match asked {
                Some(asked) => self.with_siblings(ctx, error, asked),
                None => error,
            };
            ctx.refuse(reply, self.term(), error);
        }
        Ok(())
    }

    fn dispatch<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        reply: Option<ReplyId>,
        mut command: Command,
    ) -> Result<Result<(), RegionError>, FatalError> {
        if let Err(refused) = self.ask_observers(ctx, &mut command) {
            return Ok(Err(refused));
        }
        Ok(match &command.body {
            Body::Operations(operations) => match Self::classify(operations) {
                // It may be far behind, and takes nothing that would bring it nearer.
                Ok(true) if ctx.disk == DiskUsage::Full && !self.is_leader() => {
                    Err(RegionError::DiskFull { stores: vec![ctx.store] })
                }
                Ok(true) => {
                    if let Some(reply) = reply {
                        self.read(ctx, reply, command)?;
                    }
                    Ok(())
                }
                Ok(false) => {
                    if let Some(epoch) = self.epoch_behind_split(operations) {
                        ctx.metrics.writes_behind_split += 1;
                        command.header.epoch = Some(epoch);
                    }
                    let conditional = operations.iter().any(Operation::is_conditional);
                    let flags = EntryFlags { conditional, ..EntryFlags::NONE };
                    self.propose_with(ctx, reply, &command, flags)
                }
                Err(error) => Err(error),
            },
            Body::Admin(AdminCommand::ChangePeer(change)) => {
                self.propose_change(ctx, reply, std::slice::from_ref(change), &command)
            }
            Body::Admin(AdminCommand::ChangePeerV2(changes)) => {
                self.propose_change(ctx, reply, changes, &command)
            }
            Body::Admin(AdminCommand::TransferLeader(to)) => {
                let to = *to;
                self.transfer(ctx, &to);
                // Advice: taken or not, it is answered at once (5.13).
                if let Some(reply) = reply {
                    let body = ResponseBody::Admin(AdminResponse::TransferLeader);
                    ctx.answer(reply, Response::ok(self.term(), body));
                }
                Ok(())
            }
            Body::Admin(AdminCommand::BatchSplit { .. }) => {
                self.propose_split(ctx, reply, &command)
            }
            // A made-up hash would accuse every replica of the region.
            Body::Admin(AdminCommand::VerifyHash { .. }) if reply.is_some() => {
                Err(RegionError::InvalidCommand { why: "only a store itself has hashes compared" })
            }
            Body::Admin(
                AdminCommand::CompactLog { .. }
                | AdminCommand::ComputeHash
                | AdminCommand::VerifyHash { .. },
            ) => self.propose(ctx, reply, &command),
            Body::Admin(admin) if admin.is_merge() => {
                Err(RegionError::Unsupported { what: "region merge" })
            }
            Body::Admin(_) => {
                Err(RegionError::InvalidCommand { why: "the command is not supported" })
            }
            Body::Status(_) => Err(RegionError::InvalidCommand { why: "not a leader's question" }),
        })
    }

    fn propose<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        reply: Option<ReplyId>,
        command: &Command,
    ) -> Result<(), RegionError> {
        self.propose_with(ctx, reply, command, EntryFlags::default())
    }

    pub(super) fn propose_with<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        reply: Option<ReplyId>,
        command: &Command,
        flags: EntryFlags,
    ) -> Result<(), RegionError> {
        self.check_room(ctx, &command.body)?;
        if let Some(reason) = ctx.over_budget() {
            return Err(RegionError::ServerIsBusy { reason, backoff_ms: 50 });
        }
        let data = wire::encode_command(command);
        let (size_bytes, max_bytes) = (data.len() as u64, ctx.config.raft_entry_max_size);
        ctx.metrics.proposal_bytes.record(size_bytes);
        if size_bytes > max_bytes {
            return Err(RegionError::EntryTooLarge {
                region: self.region_id(),
                size_bytes,
                max_bytes,
            });
        }
        let placed = self.group.propose(data, flags)?;
        self.proposed(ctx, reply, placed);
        Ok(())
    }

    fn propose_change<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        reply: Option<ReplyId>,
        changes: &[PeerChange],
        command: &Command,
    ) -> Result<(), RegionError> {
        let members = self.members(ctx.now, ctx.config.election_timeout() * 4);
        membership::admit_change(&self.situation(&members), changes)?;
        self.check_room(ctx, &command.body)?;
        let placed = self.group.propose_conf_change(changes, wire::encode_command(command))?;
        self.proposed(ctx, reply, placed);
        Ok(())
    }

    fn situation<'a>(&'a self, members: &'a [membership::Member]) -> Situation<'a> {
        Situation {
            region: self.region(),
            leader: self.replica.id,
            members,
            first_index: self.group.first_index(),
            last_index: self.group.last_index(),
            applied_own_term: self.applied_own_term(),
            change_pending: self.group.has_pending_conf(),
        }
    }

    fn proposed<K: KvEngine, H: Hooks>(
        &mut self,
        ctx: &mut Context<K, R, H>,
        reply: Option<ReplyId>,
        (index, term): (u64, u64),
    ) {
        ctx.metrics.proposals += 1;
        tracing::trace!(region = %self.region_id(), index, term, "propose");
        self.note_proposed(index, ctx.now);
        if let Some(reply) = reply {
            if ctx.hooks.planted(Bug::AnswerBeforeCommit) {
                let body = ResponseBody::Operations(vec![raftstore_proto::OperationResponse::Put]);
                ctx.answer(reply, Response::ok(term, body));
            } else {
                self.proposals.push_back(Proposal { index, term, reply });
            }
        }
        ctx.mark(self.region_id());
    }

    /// Hands leadership over if that cannot stop the group (H32).
    fn transfer<K: KvEngine, H: Hooks>(&mut self, ctx: &mut Context<K, R, H>, to: &Replica) {
        let members = self.members(ctx.now, ctx.config.election_timeout() * 4);
        let recent_change = self
            .conf_changed_at
            .is_some_and(|at| ctx.now.since(at) < ctx.config.raft_base_tick_interval * 3);
        let refused = if recent_change {
            Err("a membership change was applied a moment ago")
        } else if !self.has_room_to_lead(to.id) {
            Err("the target's store is short of room")
        } else {
            membership::admit_transfer(&self.situation(&members), to, TRANSFER_LAG_MAX)
        };
        match refused {
            Ok(()) => {
                ctx.metrics.transfers += 1;
                self.group.transfer_leader(to.id);
                ctx.mark(self.region_id());
            }
            Err(why) => {
                tracing::info!(region = %self.region_id(), to = %to.id, why, "transfer refused");
            }
        }
    }

    /// A command of this leader's own.
    pub(crate) fn own_command(&self, admin: AdminCommand) -> Command {
        let header = Header {
            region: self.region_id(),
            peer: self.replica,
            epoch: Some(self.region().epoch),
            term: self.term(),
            read_quorum: false,
            replica_read: false,
        };
        Command { header, body: Body::Admin(admin) }
    }

    /// What a leader does about a joint configuration that nobody has left for a while, be it
    /// that whoever entered it has died (R40): it leaves it, or hands over to a member that
    /// may, if leaving would demote it.
    pub(crate) fn end_of_joint<K: KvEngine, H: Hooks>(
        &self,
        ctx: &Context<K, R, H>,
    ) -> Option<AdminCommand> {
        let after = ctx.config.leave_joint_after;
        if !self.is_leader() || !self.region().is_joint() || after.is_zero() {
            return None;
        }
        if ctx.hooks.planted(Bug::JointNeverLeft) {
            return None;
        }
        let settled = self.conf_changed_at.is_none_or(|at| ctx.now.since(at) >= after)
            && self.applied_own_term()
            && !self.group.has_pending_conf()
            && self.group.lead_transferee().is_none();
        if !settled {
            return None;
        }
        if self.replica.role.votes_after() {
            return Some(AdminCommand::ChangePeerV2(Vec::new()));
        }
        let members = self.members(ctx.now, ctx.config.election_timeout() * 4);
        let heir = membership::heir(&members)?;
        self.region().peer(heir).copied().map(AdminCommand::TransferLeader)
    }

    /// Notes that a membership change was applied.
    pub(crate) fn note_conf_changed<K: KvEngine, H: Hooks>(&mut self, ctx: &Context<K, R, H>) {
        self.conf_changed_at = Some(ctx.now);
    }
}
