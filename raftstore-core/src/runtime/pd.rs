//! Decides what is asked of PD and when it is asked again. One thread polls all questions;
//! nothing on the data path waits for it.
//!
//! A region's report replaces an older one that has not left yet, and only one of a region
//! is on its way at a time, so a slow PD costs freshness and not memory. Reports are made
//! again by the regions themselves; what fails is counted and dropped. Only the question
//! for orders is repeated here, after a pause.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, select};
use pd_client::{Order, PdClient, RegionHeartbeat, RegionRoute, StoreStats};
use raftstore_proto::{DiskUsage, PeerId, Region, RegionId, StoreId};

use super::{
    executor::{Executor, JobId},
    fail_points::fail_point,
    figures::{Figures, usage},
    shared::Shared,
};
use crate::{Event, FatalError, PdAnswer, PdRequest, StoreReport};

/// Reports and questions on their way at a time; the rest waits.
const IN_FLIGHT_MAX: usize = 64;
/// Questions about peers that may wait; they are repeated by who asks.
const QUESTIONS_MAX: usize = 1024;
/// Questions for split ids that may wait; further ones are refused.
const SPLITS_MAX: usize = 1024;
/// Reports of splits that may wait. They are informational: the regions report themselves.
const SPLIT_REPORTS_MAX: usize = 1024;
/// Pause before PD is asked for orders again after it failed to answer.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// How a question to PD ended.
enum End {
    RegionReported(RegionId, pd_client::Result<()>),
    StoreReported(pd_client::Result<()>),
    Validated(RegionId, PeerId, pd_client::Result<Option<RegionRoute>>),
    SplitIds(RegionId, u64, pd_client::Result<SplitIds>),
    SplitReported(pd_client::Result<()>),
    Ordered(pd_client::Result<Order>),
}

/// For each new region its id and those of its peers.
type SplitIds = Vec<(RegionId, Vec<PeerId>)>;

/// The PD thread.
pub(super) struct PdThread {
    client: Arc<dyn PdClient>,
    store: StoreId,
    /// From the lanes; ends with them.
    requests: Receiver<PdRequest>,
    wakes: Receiver<JobId>,
    executor: Executor<End>,
    figures: Figures,
    /// What is to be kept free, and what the lanes were told last.
    reserve_bytes: u64,
    usage: DiskUsage,
    shared: Arc<Shared>,
    backlog: Backlog,
    in_flight: usize,
    /// When to ask for orders again; `None` while a question for them is on its way.
    ask_orders_at: Option<Instant>,
}

/// What has not been asked yet.
#[derive(Default)]
struct Backlog {
    /// The newest report of each region that has one waiting.
    reports: BTreeMap<RegionId, RegionHeartbeat>,
    /// Regions of `reports` without a report on its way, longest waiting first.
    order: VecDeque<RegionId>,
    reporting: BTreeSet<RegionId>,
    questions: BTreeSet<(RegionId, PeerId)>,
    /// Somebody waits for each of these: number of the question, region, new regions.
    splits: VecDeque<(u64, Region, usize)>,
    split_reports: VecDeque<Vec<Region>>,
    lanes: StoreReport,
    store_report: Option<StoreStats>,
    is_reporting_store: bool,
}

enum Next {
    Region(RegionHeartbeat),
    Store(StoreStats),
    Validate(RegionId, PeerId),
    AskSplit(u64, Region, usize),
    ReportSplit(Vec<Region>),
}

impl Backlog {
    /// Takes a request in. Gives back the question for split ids that it refuses.
    #[must_use = "whoever asked waits"]
    fn add(&mut self, request: PdRequest) -> Option<(RegionId, u64)> {
        match request {
            PdRequest::AskSplit { ask, region, .. } if self.splits.len() >= SPLITS_MAX => {
                return Some((region.id, ask));
            }
            PdRequest::AskSplit { ask, region, count } => {
                self.splits.push_back((ask, region, count));
            }
            PdRequest::ReportSplit(regions) => {
                if self.split_reports.len() < SPLIT_REPORTS_MAX {
                    self.split_reports.push_back(regions);
                }
            }
            PdRequest::RegionHeartbeat(report) => {
                self.add_report(report);
            }
            PdRequest::StoreHeartbeat { lane, stats } => {
                if let Some(mut whole) = self.lanes.add(lane, stats) {
                    if let Some(older) = &self.store_report {
                        whole.written_bytes += older.written_bytes;
                        whole.written_keys += older.written_keys;
                    }
                    self.store_report = Some(whole);
                }
            }
            PdRequest::ValidatePeer { region, peer } => {
                if self.questions.len() < QUESTIONS_MAX {
                    self.questions.insert((region, peer));
                }
            }
        }
        None
    }

    /// A report that waits is replaced, but what was written is in no other.
    fn add_report(&mut self, mut report: RegionHeartbeat) {
        let region = report.region.id;
        if let Some(older) = self.reports.get(&region) {
            report.written_bytes += older.written_bytes;
            report.written_keys += older.written_keys;
        } else if !self.reporting.contains(&region) {
            self.order.push_back(region);
        }
        self.reports.insert(region, report);
    }

    fn next(&mut self) -> Option<Next> {
        if !self.is_reporting_store
            && let Some(stats) = self.store_report.take()
        {
            self.is_reporting_store = true;
            return Some(Next::Store(stats));
        }
        if let Some((ask, region, count)) = self.splits.pop_front() {
            return Some(Next::AskSplit(ask, region, count));
        }
        if let Some(regions) = self.split_reports.pop_front() {
            return Some(Next::ReportSplit(regions));
        }
        if let Some((region, peer)) = self.questions.pop_first() {
            return Some(Next::Validate(region, peer));
        }
        let region = self.order.pop_front()?;
        self.reporting.insert(region);
        self.reports.remove(&region).map(Next::Region)
    }

    fn reported(&mut self, region: RegionId) {
        self.reporting.remove(&region);
        if self.reports.contains_key(&region) {
            self.order.push_back(region);
        }
    }
}

impl PdThread {
    pub(super) fn new(
        client: Arc<dyn PdClient>,
        store: StoreId,
        requests: Receiver<PdRequest>,
        (figures, reserve_bytes): (Figures, u64),
        shared: Arc<Shared>,
    ) -> Self {
        let (bell, wakes) = crossbeam_channel::unbounded();
        Self {
            client,
            store,
            requests,
            wakes,
            executor: Executor::new(bell),
            figures,
            reserve_bytes,
            usage: DiskUsage::Normal,
            shared,
            backlog: Backlog::default(),
            in_flight: 0,
            ask_orders_at: Some(Instant::now()),
        }
    }

    /// Asks until no lane is left, or the store fails. What is on its way then is given up.
    pub(super) fn run(mut self) -> Result<(), FatalError> {
        loop {
            self.pump();
            let retry =
                self.ask_orders_at.map_or_else(crossbeam_channel::never, crossbeam_channel::at);
            let end = select! {
                recv(self.requests) -> request => match request {
                    Ok(request) => {
                        if let Some((region, ask)) = self.backlog.add(request) {
                            let answer = PdAnswer::SplitIds { region, ask, ids: None };
                            self.shared.tell(region, Event::Pd(answer));
                        }
                        None
                    }
                    Err(_) => return Ok(()),
                },
                recv(self.wakes) -> job => match job {
                    Ok(job) => self.executor.poll(job),
                    Err(_) => None,
                },
                recv(self.shared.failure.quit()) -> _ => return Ok(()),
                recv(retry) -> _ => None,
            };
            if let Some(end) = end {
                self.on_end(end);
            }
        }
    }

    /// Asks what may be asked now.
    fn pump(&mut self) {
        fail_point!("pd_before_ask");
        if self.ask_orders_at.is_some_and(|at| at <= Instant::now()) {
            self.ask_orders_at = None;
            let (client, store) = (Arc::clone(&self.client), self.store);
            self.spawn(async move { End::Ordered(client.next_order(store).await) });
        }
        while self.in_flight < IN_FLIGHT_MAX
            && let Some(next) = self.backlog.next()
        {
            self.in_flight += 1;
            let client = Arc::clone(&self.client);
            match next {
                Next::Region(report) => self.spawn(async move {
                    let region = report.region.id;
                    End::RegionReported(region, client.region_heartbeat(report).await)
                }),
                Next::Store(stats) => {
                    let stats = (self.figures)(stats);
                    self.tell_usage(stats.available_bytes);
                    self.spawn(
                        async move { End::StoreReported(client.store_heartbeat(stats).await) },
                    );
                }
                Next::AskSplit(ask, region, count) => self.spawn(async move {
                    let id = region.id;
                    End::SplitIds(id, ask, client.ask_split(region, count).await)
                }),
                Next::ReportSplit(regions) => self
                    .spawn(async move { End::SplitReported(client.report_split(regions).await) }),
                Next::Validate(region, peer) => self.spawn(async move {
                    End::Validated(region, peer, client.region_by_id(region).await)
                }),
            }
        }
    }

    /// Tells the lanes how full the store is, when that has changed.
    fn tell_usage(&mut self, available_bytes: u64) {
        let usage = usage(available_bytes, self.reserve_bytes);
        if usage != self.usage {
            tracing::warn!(?usage, available_bytes, "room on this store");
            self.usage = usage;
            self.shared.tell_all(|| Event::DiskUsage(usage));
        }
    }

    fn spawn(&mut self, question: impl Future<Output = End> + Send + 'static) {
        if let Some(end) = self.executor.spawn(Box::pin(question)) {
            self.on_end(end);
        }
    }

    fn on_end(&mut self, end: End) {
        match end {
            End::RegionReported(region, result) => {
                self.in_flight -= 1;
                self.backlog.reported(region);
                self.count("region heartbeat", result);
            }
            End::StoreReported(result) => {
                self.in_flight -= 1;
                self.backlog.is_reporting_store = false;
                self.count("store heartbeat", result);
            }
            End::SplitIds(region, ask, result) => {
                self.in_flight -= 1;
                let ids = self.count("ids for a split", result);
                self.shared.tell(region, Event::Pd(PdAnswer::SplitIds { region, ask, ids }));
            }
            End::SplitReported(result) => {
                self.in_flight -= 1;
                self.count("report of a split", result);
            }
            End::Validated(region, peer, result) => {
                self.in_flight -= 1;
                if let Some(route) = self.count("validation of a peer", result) {
                    let answer = PdAnswer::Validated { region, peer, route };
                    self.shared.tell(region, Event::Pd(answer));
                }
            }
            End::Ordered(result) => {
                let now = Instant::now();
                self.ask_orders_at = Some(if result.is_ok() { now } else { now + RETRY_AFTER });
                if let Some(order) = self.count("orders", result) {
                    self.shared.tell(order.region, Event::Pd(PdAnswer::Order(order)));
                }
            }
        }
    }

    fn count<T>(&self, question: &'static str, result: pd_client::Result<T>) -> Option<T> {
        match result {
            Ok(answer) => {
                self.shared.counters.pd_answers.add(1);
                Some(answer)
            }
            Err(error) => {
                self.shared.counters.pd_failures.add(1);
                tracing::debug!(question, %error, "PD gave no answer");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use raftstore_proto::{Peer, Region};

    use super::*;

    fn report(region: u64, term: u64) -> PdRequest {
        let leader = Peer::voter(PeerId::must(region * 10), StoreId::must(1));
        PdRequest::RegionHeartbeat(RegionHeartbeat {
            region: Region::uninitialized(RegionId::must(region)),
            leader,
            term,
            down_peers: Vec::new(),
            pending_peers: Vec::new(),
            written_bytes: 100 * term,
            written_keys: term,
            approximate_size: 0,
        })
    }

    /// Region and term of the report that leaves next.
    fn leaves(backlog: &mut Backlog) -> Option<(u64, u64)> {
        match backlog.next()? {
            Next::Region(report) => Some((report.region.id.get(), report.term)),
            _ => panic!("not a region's report"),
        }
    }

    #[test]
    fn a_newer_report_replaces_one_that_waits_and_keeps_its_place() {
        let mut backlog = Backlog::default();
        for (region, term) in [(9, 1), (3, 1), (9, 2)] {
            assert_eq!(backlog.add(report(region, term)), None);
        }
        assert_eq!(leaves(&mut backlog), Some((9, 2)));
        assert_eq!(leaves(&mut backlog), Some((3, 1)));
        assert_eq!(leaves(&mut backlog), None);
    }

    #[test]
    fn one_report_of_a_region_is_on_its_way_at_a_time() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.add(report(9, 1)), None);
        assert_eq!(leaves(&mut backlog), Some((9, 1)));
        assert_eq!(backlog.add(report(9, 2)), None);
        assert_eq!(backlog.add(report(9, 3)), None);
        assert_eq!(leaves(&mut backlog), None);
        backlog.reported(RegionId::must(9));
        assert_eq!(leaves(&mut backlog), Some((9, 3)));
        backlog.reported(RegionId::must(9));
        assert_eq!(leaves(&mut backlog), None);
    }

    /// H67: what was written is told once, whichever report tells it.
    #[test]
    fn h67_a_replaced_report_leaves_its_flow_to_the_next() {
        let mut backlog = Backlog::default();
        for term in 1..=3 {
            assert_eq!(backlog.add(report(9, term)), None);
        }
        let Some(Next::Region(told)) = backlog.next() else { panic!("a region's report") };
        assert_eq!((told.term, told.written_bytes, told.written_keys), (3, 600, 6));
        assert_eq!(backlog.add(report(9, 4)), None);
        backlog.reported(RegionId::must(9));
        let Some(Next::Region(told)) = backlog.next() else { panic!("a region's report") };
        assert_eq!((told.written_bytes, told.written_keys), (400, 4));
    }

    /// H28: a question for ids is either taken, and asked, or given back at once; it is never
    /// behind reports, and they are not behind for ever.
    #[test]
    fn h28_questions_for_ids_are_asked_or_given_back() {
        let mut backlog = Backlog::default();
        let region = Region::uninitialized(RegionId::must(9));
        let ask = |ask| PdRequest::AskSplit { ask, region: region.clone(), count: 1 };
        assert_eq!(backlog.add(report(9, 1)), None);
        let splits_max = SPLITS_MAX as u64;
        for number in 0..splits_max {
            assert_eq!(backlog.add(ask(number)), None);
        }
        assert_eq!(backlog.add(ask(splits_max)), Some((region.id, splits_max)));
        assert_eq!(backlog.add(PdRequest::ReportSplit(vec![region.clone()])), None);
        for number in 0..splits_max {
            let Some(Next::AskSplit(ask, ..)) = backlog.next() else { panic!("a question") };
            assert_eq!(ask, number);
        }
        assert_eq!(backlog.add(ask(7)), None, "there is room again");
        assert!(matches!(backlog.next(), Some(Next::AskSplit(7, ..))));
        assert!(matches!(backlog.next(), Some(Next::ReportSplit(_))));
        assert_eq!(leaves(&mut backlog), Some((9, 1)));
        assert!(backlog.next().is_none());
    }

    #[test]
    fn reports_of_splits_are_bounded() {
        let mut backlog = Backlog::default();
        for _ in 0..SPLIT_REPORTS_MAX + 5 {
            assert_eq!(backlog.add(PdRequest::ReportSplit(Vec::new())), None);
        }
        assert_eq!(std::iter::from_fn(|| backlog.next()).count(), SPLIT_REPORTS_MAX);
    }

    #[test]
    fn questions_about_peers_are_bounded_and_asked_once() {
        let mut backlog = Backlog::default();
        for peer in (1..=QUESTIONS_MAX as u64 + 5).chain(1..5) {
            let (region, peer) = (RegionId::must(1), PeerId::must(peer));
            assert_eq!(backlog.add(PdRequest::ValidatePeer { region, peer }), None);
        }
        let asked = std::iter::from_fn(|| backlog.next()).count();
        assert_eq!(asked, QUESTIONS_MAX);
    }
}
