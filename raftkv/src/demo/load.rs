//! Loading: many writes in flight, each noted before it is sent and when it is acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use crossbeam_channel::Sender;
use indicatif::ProgressBar;

use super::{DemoError, PATIENCE};
use crate::{
    input::{Record, Records},
    manifest::Manifest,
    report::Latencies,
};
use raftstore_core::runtime::client::{Client, Done, Request, Stores, Ticket};

/// Bytes of keys and values in flight at a time. One record more may begin below it.
const BYTES_IN_FLIGHT: usize = 8 << 20;

/// Where the outage stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    /// Nothing has happened yet.
    Before,
    /// A store is away or catching up.
    Outage,
    /// It has caught up, or there was no outage after all.
    After,
}

/// Tells the load where the outage stands.
#[derive(Debug, Default)]
pub(super) struct Outage(AtomicU8);

impl Outage {
    pub(super) fn enter(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }

    fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Before,
            1 => Phase::Outage,
            _ => Phase::After,
        }
    }
}

/// What came of a load.
pub(super) struct Loaded {
    /// Records acknowledged.
    pub(super) records: u64,
    /// Bytes of their keys and values.
    pub(super) bytes: u64,
    /// Times a write was sent again.
    pub(super) retries: u64,
    /// All latencies.
    pub(super) latencies: Latencies,
    /// Latencies of writes that met no outage.
    pub(super) quiet_latencies: Latencies,
    /// The longest pause between two acknowledgements of which the later came after the cut.
    pub(super) longest_pause: Duration,
    /// How long records were held back for the outage to begin.
    pub(super) held: Duration,
}

/// A load to be run.
pub(super) struct Load<'a, S> {
    pub(super) cluster: &'a S,
    pub(super) manifest: &'a mut Manifest,
    pub(super) in_flight: usize,
    /// How many records there will be, for knowing when half is done.
    pub(super) total: u64,
    pub(super) acknowledged: &'a AtomicU64,
    pub(super) outage: &'a Outage,
    /// Told once when half is done.
    pub(super) halfway: Sender<()>,
    pub(super) bar: &'a ProgressBar,
}

/// A write on its way.
struct Sent {
    key: Bytes,
    bytes: usize,
    phase: Phase,
}

/// What changes while a load runs.
struct State<'a, S> {
    client: Client<&'a S>,
    sent: BTreeMap<Ticket, Sent>,
    /// Keys of `sent`: two writes of one key must not overtake each other.
    keys: BTreeSet<Bytes>,
    bytes_in_flight: usize,
    /// Records taken from the input.
    taken: u64,
    /// The next record, if it could not be sent yet.
    held: Option<Record>,
    /// Since when records are held back because the outage has not begun.
    held_since: Option<Instant>,
    is_exhausted: bool,
    last_acknowledged: Instant,
    loaded: Loaded,
}

impl<'a, S: Stores> Load<'a, S> {
    /// Runs to the end of the records, or to the first error.
    pub(super) fn run(mut self, mut records: Records) -> Result<Loaded, DemoError> {
        let mut state = State {
            client: Client::new(self.cluster, PATIENCE),
            sent: BTreeMap::new(),
            keys: BTreeSet::new(),
            bytes_in_flight: 0,
            taken: 0,
            held: None,
            held_since: None,
            is_exhausted: false,
            last_acknowledged: Instant::now(),
            loaded: Loaded {
                records: 0,
                bytes: 0,
                retries: 0,
                latencies: Latencies::new(),
                quiet_latencies: Latencies::new(),
                longest_pause: Duration::ZERO,
                held: Duration::ZERO,
            },
        };
        let ended = self.work(&mut state, &mut records);
        // What was noted stays noted, however it ended.
        self.manifest.flush()?;
        ended.map(|()| state.loaded)
    }

    fn work(&mut self, state: &mut State<'a, S>, records: &mut Records) -> Result<(), DemoError> {
        loop {
            let is_held = self.note_hold(state);
            self.fill(state, records)?;
            if state.client.in_flight() == 0 && !is_held {
                return Ok(());
            }
            let mut wait = Duration::from_millis(if is_held { 10 } else { 500 });
            for _ in 0..self.in_flight {
                let Some(done) = state.client.next(wait) else { break };
                self.finish(state, done)?;
                wait = Duration::ZERO;
            }
        }
    }

    /// Whether the last quarter of the records is kept back until the outage has begun, so
    /// that there is something to write in it however small the load is.
    fn is_held(&self, taken: u64) -> bool {
        let early = self.outage.phase() == Phase::Before;
        early && taken < self.total && taken >= self.total - self.total / 4
    }

    /// Notes how long records are kept back, and gives whether they are.
    fn note_hold(&self, state: &mut State<'a, S>) -> bool {
        let is_held = self.is_held(state.taken);
        let now = Instant::now();
        match state.held_since {
            None if is_held => state.held_since = Some(now),
            Some(since) if !is_held => {
                state.loaded.held += now.saturating_duration_since(since);
                state.held_since = None;
                state.last_acknowledged = now;
            }
            _ => {}
        }
        is_held
    }

    /// Sends as many records as fit.
    fn fill(&mut self, state: &mut State<'a, S>, records: &mut Records) -> Result<(), DemoError> {
        let mut batch = Vec::new();
        while state.sent.len() < self.in_flight
            && state.bytes_in_flight < BYTES_IN_FLIGHT
            && !self.is_held(state.taken)
        {
            let Some(record) = state.next_record(records)? else { break };
            if state.keys.contains(&record.key) {
                state.held = Some(record);
                break;
            }
            let ticket = self.manifest.intend(&record.key, &record.value)?;
            let bytes = record.key.len() + record.value.len();
            let phase = self.outage.phase();
            state.bytes_in_flight += bytes;
            state.keys.insert(record.key.clone());
            state.sent.insert(ticket, Sent { key: record.key.clone(), bytes, phase });
            batch.push((ticket, record));
        }
        if !batch.is_empty() {
            self.manifest.flush()?;
        }
        for (ticket, Record { key, value }) in batch {
            state.client.submit(ticket, Request::Put { key, value });
        }
        Ok(())
    }

    fn finish(&mut self, state: &mut State<'a, S>, done: Done) -> Result<(), DemoError> {
        let Some(sent) = state.sent.remove(&done.ticket) else { return Ok(()) };
        state.keys.remove(&sent.key);
        state.bytes_in_flight -= sent.bytes;
        if let Err(source) = done.result {
            return Err(DemoError::Request { doing: "writing", key: sent.key, source });
        }
        self.manifest.acknowledge(done.ticket)?;
        let loaded = &mut state.loaded;
        loaded.records += 1;
        loaded.bytes += sent.bytes as u64;
        loaded.retries += u64::from(done.attempts.saturating_sub(1));
        loaded.latencies.record(done.latency);
        let phase = self.outage.phase();
        if phase == sent.phase && phase != Phase::Outage {
            loaded.quiet_latencies.record(done.latency);
        }
        let now = Instant::now();
        if phase != Phase::Before {
            let pause = now.saturating_duration_since(state.last_acknowledged);
            loaded.longest_pause = loaded.longest_pause.max(pause);
        }
        state.last_acknowledged = now;
        self.acknowledged.store(loaded.records, Ordering::Release);
        self.bar.inc(1);
        if loaded.records == self.total.div_ceil(2) {
            // Nobody listens any more if the other thread has failed; it will tell.
            let _ = self.halfway.try_send(());
        }
        Ok(())
    }
}

impl<S> State<'_, S> {
    fn next_record(&mut self, records: &mut Records) -> Result<Option<Record>, DemoError> {
        if let Some(record) = self.held.take() {
            return Ok(Some(record));
        }
        if self.is_exhausted {
            return Ok(None);
        }
        let next = records.next().transpose()?;
        self.is_exhausted = next.is_none();
        self.taken += u64::from(next.is_some());
        Ok(next)
    }
}
