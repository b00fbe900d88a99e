//! Region snapshots and batches of them, asked for by hand.

use std::sync::Arc;

use raftstore_core::{Event, Moment, ReplyId, read::RegionSnapshot};
use raftstore_proto::{Command, OperationResponse, Response, ResponseBody};

use super::World;
use crate::invariants::Violation;

impl World {
    /// Puts reads of regions of one lane to a store. The answers are found with
    /// [`World::answers_to`].
    pub fn ask_batch(&mut self, store: u64, commands: Vec<Command>) -> Option<u64> {
        let node = self.nodes.get(&store)?;
        node.running.as_ref()?;
        let reply = self.answers.ask(store, node.life, self.now);
        self.batches.insert(reply, None);
        let size = commands.len();
        self.transcript.event(self.now, store, 0, format_args!("asked {reply}: {size} reads"));
        self.event_arrives(store, Event::BatchSnapshot { reply: ReplyId(reply), commands });
        Some(reply)
    }

    /// The answers to a batch, once they are there.
    #[must_use]
    pub fn answers_to(&self, reply: u64) -> Option<&Vec<Option<Response>>> {
        self.batches.get(&reply).and_then(Option::as_ref)
    }

    /// The region that an answer gave together with its data.
    #[must_use]
    pub fn region_snapshot(&self, reply: u64, response: &Response) -> Option<RegionSnapshot> {
        let Moment(snapshot) = self.moments.get(&reply)?;
        let Ok(ResponseBody::Operations(answers)) = &response.body else { return None };
        let OperationResponse::Snap(region) = answers.first()? else { return None };
        Some(RegionSnapshot::new(Arc::clone(snapshot), Arc::new(region.clone())))
    }

    pub(super) fn keep_moment(&mut self, reply: u64, moment: Moment) {
        // Clients at random never look at theirs.
        if self.direct.contains_key(&reply) || self.batches.contains_key(&reply) {
            self.moments.insert(reply, moment);
        }
    }

    pub(super) fn answer_batch(
        &mut self,
        store: u64,
        life: u64,
        reply: u64,
        answers: Vec<Option<Response>>,
    ) {
        if let Err(fault) = self.answers.answered(reply, store, life) {
            return self.fail(Violation::new("every answer exactly once", fault.to_string()));
        }
        self.transcript.event(
            self.now,
            store,
            0,
            format_args!("answers {reply}: {} reads", answers.len()),
        );
        self.batches.insert(reply, Some(answers));
    }
}
