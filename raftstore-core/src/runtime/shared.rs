//! Decides what the threads of a node and its handles share: the ways into the lanes, the
//! callers, the clock, the failure.

use std::{sync::Arc, time::Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use raftstore_proto::{OperationResponse, RegionId, Response, ResponseBody};

use super::{
    clock::MonoClock, counters::Counters, failure::Failure, router::Router, timings::Timings,
};
use crate::{Event, LaneId, Moment, Persisted, ReplyId, StoreMetrics, store::PeerStatus};

/// What a lane is told through the channel that never drops and never blocks.
pub(super) enum LaneInput {
    /// Something happened that must not be lost.
    Event(Event),
    /// Rounds are durable, in order.
    Proofs(Vec<Persisted>),
    /// Somebody wants to know the counters.
    Metrics(Sender<StoreMetrics>),
    /// Somebody wants to know the peers.
    Peers(Sender<Vec<PeerStatus>>),
    /// Finish what is on its way and end.
    Stop,
}

/// A message or command on its way to its lane.
#[derive(Debug)]
pub(super) struct Queued {
    /// When a command came; how long it waits is measured.
    pub(super) at: Option<Instant>,
    pub(super) event: Event,
}

/// Why a lane did not take something.
pub(super) enum Refused {
    /// Its queue is full.
    Full,
    /// It has ended.
    Gone,
}

/// The two ways into a lane.
#[derive(Debug)]
pub(super) struct LaneLink {
    /// Bounded: messages and commands, which may be refused.
    pub(super) events: Sender<Queued>,
    /// Unbounded; what goes in is bounded by what the lane itself has asked for.
    pub(super) significant: Sender<LaneInput>,
}

/// The other ends.
pub(super) struct LaneInlets {
    pub(super) events: Receiver<Queued>,
    pub(super) significant: Receiver<LaneInput>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: MonoClock,
    pub(super) router: Arc<Router>,
    pub(super) failure: Failure,
    pub(super) counters: Counters,
    pub(super) timings: Timings,
    pub(super) lanes: Vec<LaneLink>,
}

impl Shared {
    /// Channels for `lanes` lanes, each of which takes `capacity` events.
    pub(super) fn channels(lanes: u16, capacity: usize) -> (Vec<LaneLink>, Vec<LaneInlets>) {
        (0..lanes)
            .map(|_| {
                let (events, events_end) = crossbeam_channel::bounded(capacity);
                let (significant, significant_end) = crossbeam_channel::unbounded();
                (
                    LaneLink { events, significant },
                    LaneInlets { events: events_end, significant: significant_end },
                )
            })
            .unzip()
    }

    pub(super) fn lane_of(&self, region: RegionId) -> LaneId {
        let lanes = u16::try_from(self.lanes.len()).expect("lanes are counted in u16");
        LaneId::of(region, lanes)
    }

    pub(super) fn link(&self, lane: LaneId) -> &LaneLink {
        &self.lanes[usize::from(lane.0)]
    }

    /// Tells the region's lane. A lane that has ended needs to know nothing any more.
    pub(super) fn tell(&self, region: RegionId, event: Event) {
        let _ = self.link(self.lane_of(region)).significant.send(LaneInput::Event(event));
    }

    /// Tells a lane.
    pub(super) fn tell_lane(&self, lane: LaneId, event: Event) {
        let _ = self.link(lane).significant.send(LaneInput::Event(event));
    }

    /// Tells every lane.
    pub(super) fn tell_all(&self, event: impl Fn() -> Event) {
        for link in &self.lanes {
            let _ = link.significant.send(LaneInput::Event(event()));
        }
    }

    /// Offers something that may be refused.
    pub(super) fn offer(&self, region: RegionId, event: Event) -> Result<(), Refused> {
        self.offer_lane(self.lane_of(region), event)
    }

    pub(super) fn offer_lane(&self, lane: LaneId, event: Event) -> Result<(), Refused> {
        let at = matches!(event, Event::Command { .. }).then(Instant::now);
        let queued = Queued { at, event };
        self.link(lane).events.try_send(queued).map_err(|refused| match refused {
            TrySendError::Full(_) => Refused::Full,
            TrySendError::Disconnected(_) => Refused::Gone,
        })
    }

    /// Gives an answer, unless the store has failed: then everybody has been answered, and
    /// nothing may be acknowledged.
    pub(super) fn answer(&self, reply: ReplyId, response: Response, moment: Option<&Moment>) {
        if self.failure.has_failed() {
            return;
        }
        let is_write = is_acknowledged_write(&response);
        if self.router.answer(reply, response, moment) {
            self.counters.answers.add(1);
            if is_write {
                self.counters.acknowledged_writes.add(1);
            }
        }
    }

    /// Answers one lane's part of a batch, unless the store has failed.
    pub(super) fn answer_part(
        &self,
        reply: ReplyId,
        answers: Vec<Option<Response>>,
        moment: Option<&Moment>,
    ) {
        if !self.failure.has_failed() && self.router.answer_part(reply, answers, moment) {
            self.counters.answers.add(1);
        }
    }
}

/// Reads and writes are never mixed, so the first answer tells the kind.
fn is_acknowledged_write(response: &Response) -> bool {
    match &response.body {
        Ok(ResponseBody::Operations(operations)) => matches!(
            operations.first(),
            Some(
                OperationResponse::Put
                    | OperationResponse::Delete
                    | OperationResponse::DeleteRange
                    | OperationResponse::CompareAndSwap { .. }
            )
        ),
        Ok(ResponseBody::Admin(_) | ResponseBody::Status(_)) | Err(_) => false,
    }
}
