//! Execution of one region's committed entries, one after the other, into a batch.
//!
//! An [`Applier`] decides what an entry does from the entry, its region and its apply
//! state alone, so that every replica decides alike. It writes nothing and answers nobody:
//! effects and answers wait in the batch that the worker writes. Errors are of two kinds:
//! those that every replica gets alike are answers, the others stop the store.

use std::collections::VecDeque;

use engine_traits::{Reader, WriteBatch};
use protobuf::Message;
use raft::eraftpb::{ConfChange, ConfChangeV2};
use raftstore_proto::{
    AdminResponse, ApplyState, Body, Command, DecodeError, Entry, EntryKind, Operation, Peer,
    Region, RegionError, Response, ResponseBody, StoreId, wire,
};

use super::{
    ExecResult, Proposal, Registration, admin,
    pending::{Fill, Pending, Progress},
    split::Births,
    write,
};
use crate::{
    command::{check_epoch, is_blind_split},
    error::{FatalError, FatalSource},
    event::ReplyId,
    hooks::{Bug, Hooks},
    observe::{AppliedCommand, Observers},
};

/// Whether entries are still executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    /// It has executed its own removal. Callers are told `RegionNotFound`.
    Removed,
    /// An entry failed its checksum. Callers are told `StaleCommand`: another replica may
    /// have executed what this one could not.
    Damaged,
}

/// Executes the committed entries of one region.
#[derive(Debug)]
pub struct Applier {
    pub(super) incarnation: u64,
    pub(super) store: StoreId,
    pub(super) peer: Peer,
    pub(super) region: Region,
    /// Includes what waits in the batch.
    pub(super) state: ApplyState,
    /// The peer's term as last told; bound to answers.
    term: u64,
    life: Life,
    /// Invariant: ascending by (term, index), all above `state.applied`.
    waiting: VecDeque<Proposal>,
}

/// What executing an entry may ask.
pub(super) struct Env<'a, H> {
    pub(super) hooks: &'a H,
    pub(super) births: &'a dyn Births,
    /// The engine. For an entry that is flagged as conditional it holds all entries before.
    pub(super) rows: &'a dyn Reader,
    pub(super) observers: &'a Observers,
}

/// What came of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Executed, or not executed because nothing is any more.
    Done,
    /// It failed its checksum; nothing is executed from now on.
    Damaged,
    /// Executed, and the engine is to be hashed as it is right behind it.
    Hash,
}

/// The answer to whoever proposed an entry, and whether it is an admin's.
struct Verdict {
    body: Result<ResponseBody, RegionError>,
    is_admin: bool,
}

impl Applier {
    /// Starts from a registration.
    #[must_use]
    pub fn new(incarnation: u64, registration: Registration) -> Self {
        let Registration { peer, term, region, state, store } = registration;
        Self {
            incarnation,
            store,
            peer,
            region,
            state,
            term,
            life: Life::Running,
            waiting: VecDeque::new(),
        }
    }

    /// The region as of the last entry executed.
    #[must_use]
    pub const fn region(&self) -> &Region {
        &self.region
    }

    /// Where the data stands once everything handed in so far is written.
    #[must_use]
    pub const fn state(&self) -> ApplyState {
        self.state
    }

    /// How many callers wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a snapshot of the engine would show the region as of `state`.
    pub(super) fn is_running(&self) -> bool {
        self.life == Life::Running
    }

    /// Nothing is executed from now on.
    pub(super) fn remove(&mut self) {
        self.life = Life::Removed;
    }

    /// Takes in a term and the proposals made in it. Those that come too late, or to an
    /// Applier that has ended, are answered at once.
    pub(super) fn wait_for(
        &mut self,
        term: u64,
        proposals: Vec<Proposal>,
        answers: &mut Vec<(ReplyId, Response)>,
    ) {
        self.term = term;
        for proposal in proposals {
            let refusal = match self.life {
                Life::Removed => Some(self.not_found()),
                Life::Damaged => Some(RegionError::StaleCommand),
                Life::Running if proposal.index <= self.state.applied => {
                    Some(RegionError::StaleCommand)
                }
                Life::Running => None,
            };
            match refusal {
                Some(error) => answers.push((proposal.reply, Response::error(term, error))),
                None => self.waiting.push_back(proposal),
            }
        }
    }

    /// Answers everybody who waits.
    pub(super) fn refuse_all(&mut self, error: &RegionError, out: &mut Vec<(ReplyId, Response)>) {
        let term = self.term;
        let refused = self.waiting.drain(..);
        out.extend(refused.map(|it| (it.reply, Response::error(term, error.clone()))));
    }

    pub(super) const fn not_found(&self) -> RegionError {
        RegionError::RegionNotFound { region: self.region.id }
    }

    /// Executes an entry into the batch. Does nothing once the Applier has ended.
    ///
    /// # Errors
    /// If the entry passes its checksum and still cannot be understood: other replicas may
    /// understand it, and this store must not go on without its effect.
    ///
    /// # Panics
    /// If the entry does not follow the one executed last.
    pub(super) fn apply<B: WriteBatch, H: Hooks>(
        &mut self,
        entry: &Entry,
        pending: &mut Pending<B>,
        env: &Env<'_, H>,
    ) -> Result<Step, FatalError> {
        if self.life != Life::Running {
            return Ok(Step::Done);
        }
        assert_eq!(
            entry.index(),
            self.state.applied + 1,
            "region {}: entry does not follow the applied index",
            self.region.id
        );
        if entry.verify(self.region.id).is_err() {
            self.life = Life::Damaged;
            self.refuse_all(&RegionError::StaleCommand, &mut pending.answers);
            return Ok(Step::Damaged);
        }
        let progress = pending
            .progress
            .entry(self.region.id)
            .or_insert_with(|| Progress::new(self.incarnation, self.state));
        let verdict = self.execute(entry, &mut pending.fill, progress, env).map_err(|source| {
            let (doing, region) = ("executing a committed entry", Some(self.region.id));
            FatalError { doing, region, source }
        })?;
        self.state.applied = entry.index();
        self.state.applied_term = entry.term();
        progress.state = self.state;
        progress.removed = self.life == Life::Removed;
        progress.metrics.entries += 1;
        let asked = ExecResult::ComputeHash { index: entry.index() };
        let asks_for_hash = progress.exec.last() == Some(&asked);
        self.resolve(entry, verdict, progress, &mut pending.answers, env.hooks);
        if progress.removed {
            self.refuse_all(&self.not_found(), &mut pending.answers);
        }
        pending.count_entry();
        Ok(if asks_for_hash { Step::Hash } else { Step::Done })
    }

    fn execute<B: WriteBatch, H: Hooks>(
        &mut self,
        entry: &Entry,
        fill: &mut Fill<B>,
        progress: &mut Progress,
        env: &Env<'_, H>,
    ) -> Result<Verdict, FatalSource> {
        match entry.kind() {
            // A new leader's first entry, which nobody waits for, or what raft put in place
            // of a membership change that it refused (H31).
            EntryKind::Normal if entry.data().is_empty() => {
                Ok(Verdict { body: Err(RegionError::ConfChangePending), is_admin: true })
            }
            EntryKind::Normal => match decode(wire::decode_command(entry.data()))? {
                Ok(command) => Ok(self.execute_command(command, entry, fill, progress, env)?),
                Err(error) => Ok(Verdict { body: Err(error), is_admin: false }),
            },
            EntryKind::ConfChange | EntryKind::ConfChangeV2 => {
                let body = match members_command(entry)? {
                    Some(command) => {
                        self.execute_members(&command, entry.index(), fill, progress, env)
                    }
                    None => Err(RegionError::InvalidCommand { why: "empty membership change" }),
                };
                if body.is_err() {
                    let refused = ExecResult::ChangePeer { index: entry.index(), applied: None };
                    progress.exec.push(refused);
                }
                let body = body.map(ResponseBody::Admin);
                Ok(Verdict { body, is_admin: true })
            }
        }
    }

    fn execute_command<B: WriteBatch, H: Hooks>(
        &mut self,
        command: Command,
        entry: &Entry,
        fill: &mut Fill<B>,
        progress: &mut Progress,
        env: &Env<'_, H>,
    ) -> Result<Verdict, engine_traits::Error> {
        let is_admin = matches!(command.body, Body::Admin(_));
        if let Err(error) = self.check_epoch(&command, env.hooks) {
            return Ok(Verdict { body: Err(error), is_admin });
        }
        let body = match command.body {
            Body::Operations(operations) => {
                self.execute_operations(operations, entry, fill, progress, env)?
            }
            Body::Admin(command) => admin::decide(self, &command, entry.flags()).map(|admin| {
                let (index, exec) = (entry.index(), &mut progress.exec);
                let answer = admin::execute(self, admin, index, env.births, fill, exec);
                ResponseBody::Admin(answer)
            }),
            Body::Status(_) => {
                Err(RegionError::InvalidCommand { why: "a question is not replicated" })
            }
        };
        Ok(Verdict { body, is_admin })
    }

    fn execute_operations<B: WriteBatch, H: Hooks>(
        &self,
        mut operations: Vec<Operation>,
        entry: &Entry,
        fill: &mut Fill<B>,
        progress: &mut Progress,
        env: &Env<'_, H>,
    ) -> Result<Result<ResponseBody, RegionError>, engine_traits::Error> {
        let is_observed = !env.observers.is_empty();
        if is_observed {
            env.observers.pre_apply_query(&self.region, &mut operations);
        }
        if let Err(error) = write::validate(&operations, &self.region) {
            return Ok(Err(error));
        }
        let decided = match write::condition(&operations) {
            // The batch may hold entries that the engine does not yet show.
            Some(_) if !entry.flags().conditional => {
                let why = "a conditional write whose entry does not say so";
                return Ok(Err(RegionError::InvalidCommand { why }));
            }
            Some(swap) => {
                let (answer, write) = write::decide(swap, env.rows)?;
                operations = write.into_iter().collect();
                Some(answer)
            }
            None => None,
        };
        let mut answers = write::execute(&operations, fill, &mut progress.metrics);
        if let Some(answer) = decided {
            answers = vec![answer];
        }
        if is_observed {
            let (index, term) = (entry.index(), entry.term());
            progress.observed.push(AppliedCommand { index, term, operations });
        }
        Ok(Ok(ResponseBody::Operations(answers)))
    }

    fn execute_members<B: WriteBatch, H: Hooks>(
        &mut self,
        command: &Command,
        index: u64,
        fill: &mut Fill<B>,
        progress: &mut Progress,
        env: &Env<'_, H>,
    ) -> Result<AdminResponse, RegionError> {
        self.check_epoch(command, env.hooks)?;
        let Body::Admin(command) = &command.body else {
            return Err(RegionError::InvalidCommand { why: "not a membership change" });
        };
        let admin = admin::decide_members(self, command)?;
        Ok(admin::execute(self, admin, index, env.births, fill, &mut progress.exec))
    }

    /// The check that counts: it fences commands that were proposed before a change of the
    /// region and ordered after it.
    fn check_epoch<H: Hooks>(&self, command: &Command, hooks: &H) -> Result<(), RegionError> {
        if hooks.planted(Bug::ApplyIgnoresEpoch) {
            return Ok(());
        }
        match check_epoch(&command.header, &command.body, &self.region) {
            Err(_) if is_blind_split(&command.header, &command.body, &self.region, hooks) => Ok(()),
            checked => checked,
        }
    }

    /// Answers the caller of this very entry, and those whose entries it proves overwritten:
    /// anybody of an older term, and anybody at or below its index.
    fn resolve<H: Hooks>(
        &mut self,
        entry: &Entry,
        verdict: Verdict,
        progress: &mut Progress,
        answers: &mut Vec<(ReplyId, Response)>,
        hooks: &H,
    ) {
        while let Some(first) = self.waiting.front() {
            let reply = first.reply;
            if (first.term, first.index) == (entry.term(), entry.index()) {
                self.waiting.pop_front();
                let response = Response { term: self.term, body: verdict.body };
                // H58: an admin's caller may rely on what the store does with the result.
                let waits = verdict.is_admin && !hooks.planted(Bug::AdminAnsweredEarly);
                let out = if waits { &mut progress.answers } else { answers };
                out.push((reply, response));
                return;
            }
            if first.term >= entry.term() && first.index > entry.index() {
                return;
            }
            self.waiting.pop_front();
            let stale = if hooks.planted(Bug::StaleAnsweredOk) {
                Response::ok(self.term, ResponseBody::Operations(Vec::new()))
            } else {
                Response::error(self.term, RegionError::StaleCommand)
            };
            answers.push((reply, stale));
        }
    }
}

/// Tells apart what every replica refuses from what only this one may fail to understand.
fn decode(
    decoded: Result<Command, DecodeError>,
) -> Result<Result<Command, RegionError>, DecodeError> {
    match decoded {
        Ok(command) => Ok(Ok(command)),
        // H61: no family of that name exists anywhere.
        Err(DecodeError::UnknownColumnFamily { .. }) => {
            Ok(Err(RegionError::InvalidCommand { why: "not a column family for user data" }))
        }
        Err(error) => Err(error),
    }
}

/// The command that a membership change entry carries as its context. `None` for the empty
/// change with which raft would leave a joint configuration by itself: it is never told to.
fn members_command(entry: &Entry) -> Result<Option<Command>, DecodeError> {
    let malformed = |error: protobuf::ProtobufError| DecodeError::Malformed {
        what: "membership change",
        detail: error.to_string(),
    };
    let context = if entry.kind() == EntryKind::ConfChange {
        ConfChange::parse_from_carllerche_bytes(entry.data()).map_err(malformed)?.context
    } else {
        ConfChangeV2::parse_from_carllerche_bytes(entry.data()).map_err(malformed)?.context
    };
    if context.is_empty() { Ok(None) } else { wire::decode_command(&context).map(Some) }
}
