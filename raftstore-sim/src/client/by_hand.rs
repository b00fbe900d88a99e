//! Questions that scenarios and operators put to a store, one by one.

use bytes::Bytes;
use raftstore_core::{Event, ReplyId};
use raftstore_proto::{Command, Epoch, RegionId, Response};

use crate::world::World;

impl World {
    /// Puts a command to a store by hand. The answer is found with [`World::answer_to`].
    pub fn ask(&mut self, store: u64, command: Command) -> Option<u64> {
        let reply = self.put_question(store, command)?;
        self.direct.insert(reply, None);
        Some(reply)
    }

    /// Asks a store to cut a region. The answer is found with [`World::answer_to`].
    pub fn ask_split(
        &mut self,
        store: u64,
        region: RegionId,
        epoch: Epoch,
        keys: Vec<Bytes>,
    ) -> Option<u64> {
        let node = self.nodes.get(&store).filter(|node| node.is_up())?;
        let reply = self.answers.ask(store, node.life, self.now);
        self.transcript.event(
            self.now,
            store,
            region.get(),
            format_args!("asked {reply}: split at {keys:?}"),
        );
        self.direct.insert(reply, None);
        let asker = Some(ReplyId(reply));
        self.event_arrives(store, Event::SplitRegion { reply: asker, region, epoch, keys });
        Some(reply)
    }

    /// Reads beside a store's thread; `None` if that is not possible now.
    #[must_use]
    pub fn read_beside(&self, store: u64, command: &Command) -> Option<Response> {
        let node = self.nodes.get(&store)?;
        let running = node.running.as_ref()?;
        if node.paused_until > self.now {
            return None;
        }
        running.reader.read(command, || node.clock(self.now)).ok().flatten()
    }

    /// The answer to a command put by hand, once it is there.
    #[must_use]
    pub fn answer_to(&self, reply: u64) -> Option<&Response> {
        self.direct.get(&reply).and_then(Option::as_ref)
    }
}
