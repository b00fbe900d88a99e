//! The client against stores that answer from a script.

use std::{cell::RefCell, collections::VecDeque};

use raftstore_proto::{BusyReason, Epoch, PeerId, RegionId};

use super::*;

const TIME: Duration = Duration::from_secs(60);

fn store(id: u64) -> StoreId {
    StoreId::new(id).unwrap()
}

fn peer(id: u64) -> Peer {
    Peer::voter(PeerId::new(100 + id).unwrap(), store(id))
}

fn region(version: u64, start: &str, end: &str) -> Region {
    Region {
        id: RegionId::new(7).unwrap(),
        start_key: Bytes::copy_from_slice(start.as_bytes()),
        end_key: Bytes::copy_from_slice(end.as_bytes()),
        epoch: Epoch { conf_ver: 1, version },
        peers: vec![Peer::learner(PeerId::new(100).unwrap(), store(9)), peer(1), peer(2), peer(3)],
    }
}

/// Answers in order of the script and writes down who was asked, with which version.
struct Script {
    route: RegionRoute,
    answers: RefCell<VecDeque<Result<OperationResponse, RegionError>>>,
    asked: RefCell<Vec<(u64, u64)>>,
    located: RefCell<u32>,
}

impl Script {
    fn new(answers: impl IntoIterator<Item = Result<OperationResponse, RegionError>>) -> Self {
        Self {
            route: RegionRoute { region: region(1, "", ""), leader: None },
            answers: RefCell::new(answers.into_iter().collect()),
            asked: RefCell::default(),
            located: RefCell::default(),
        }
    }
}

impl Stores for Script {
    fn send(&self, store: StoreId, command: Command, answer: Answer) {
        let version = command.header.epoch.map_or(0, |epoch| epoch.version);
        self.asked.borrow_mut().push((store.get(), version));
        let body = self.answers.borrow_mut().pop_front().expect("an answer is scripted");
        let body = body.map(|answer| ResponseBody::Operations(vec![answer]));
        answer(Response { term: 5, body });
    }

    fn locate(&self, _: &Bytes) -> Option<RegionRoute> {
        *self.located.borrow_mut() += 1;
        Some(self.route.clone())
    }
}

fn put() -> Request {
    Request::Put { key: Bytes::from_static(b"k"), value: Bytes::from_static(b"v") }
}

fn run(script: &Script, request: Request) -> Done {
    let mut client = Client::new(script, TIME);
    client.submit(1, request);
    let done = client.next(TIME).expect("the script ends");
    assert_eq!(client.in_flight(), 0);
    done
}

fn asked(script: &Script) -> Vec<u64> {
    script.asked.borrow().iter().map(|(store, _)| *store).collect()
}

fn not_leader(leader: Option<Peer>) -> RegionError {
    RegionError::NotLeader { region: region(1, "", "").id, leader }
}

#[test]
fn learners_are_not_asked() {
    let script = Script::new([Ok(OperationResponse::Put)]);
    let done = run(&script, put());
    assert_eq!((done.result, done.attempts), (Ok(None), 1));
    assert_eq!(asked(&script), [1]);
}

#[test]
fn the_named_leader_is_asked_next() {
    let script = Script::new([Err(not_leader(Some(peer(3)))), Ok(OperationResponse::Put)]);
    assert_eq!(run(&script, put()).result, Ok(None));
    assert_eq!(asked(&script), [1, 3]);
}

#[test]
fn without_a_named_leader_all_voters_are_asked_in_turn() {
    let none = || Err(not_leader(None));
    let script = Script::new([none(), none(), none(), Ok(OperationResponse::Put)]);
    assert_eq!(run(&script, put()).result, Ok(None));
    assert_eq!(asked(&script), [1, 2, 3, 1]);
}

#[test]
fn a_stopped_store_is_left() {
    let script = Script::new([Err(RegionError::Stopping), Ok(OperationResponse::Put)]);
    assert_eq!(run(&script, put()).result, Ok(None));
    assert_eq!(asked(&script), [1, 2]);
}

#[test]
fn a_new_epoch_is_learnt_from_the_answer() {
    let current = vec![region(2, "a", "")];
    let script = Script::new([
        Err(RegionError::EpochNotMatch { current }),
        Ok(OperationResponse::Get(None)),
    ]);
    let get = Request::Get { key: Bytes::from_static(b"k"), read_quorum: true };
    assert_eq!(run(&script, get).result, Ok(None));
    assert_eq!(*script.asked.borrow(), [(1, 1), (1, 2)]);
    assert_eq!(*script.located.borrow(), 1);
}

#[test]
fn a_region_that_is_not_there_is_looked_up_again() {
    let not_found = RegionError::RegionNotFound { region: region(1, "", "").id };
    let script = Script::new([Err(not_found), Ok(OperationResponse::Put)]);
    assert_eq!(run(&script, put()).result, Ok(None));
    assert_eq!(*script.located.borrow(), 2);
}

#[test]
fn what_passes_is_waited_for() {
    let busy = RegionError::ServerIsBusy { reason: BusyReason::Queue, backoff_ms: 1 };
    let script = Script::new([
        Err(RegionError::StaleCommand),
        Err(busy),
        Err(RegionError::ReadNotReady),
        Ok(OperationResponse::Get(Some(Bytes::from_static(b"v")))),
    ]);
    let done = run(&script, Request::Get { key: Bytes::from_static(b"k"), read_quorum: false });
    assert_eq!(done.result, Ok(Some(Bytes::from_static(b"v"))));
    assert_eq!(done.attempts, 4);
}

#[test]
fn what_does_not_pass_is_given_up() {
    let error = RegionError::InvalidCommand { why: "test" };
    let script = Script::new([Err(error.clone())]);
    assert_eq!(run(&script, put()).result, Err(ClientError::Refused(error)));
}

#[test]
fn time_runs_out() {
    let script = Script::new(std::iter::repeat_n(Err(RegionError::StaleCommand), 100));
    let mut client = Client::new(&script, Duration::ZERO);
    client.submit(1, put());
    let done = client.next(TIME).expect("it is given up");
    assert!(matches!(done.result, Err(ClientError::TimedOut { .. })), "{:?}", done.result);
}

#[test]
fn an_answer_of_another_kind_is_refused() {
    let script = Script::new([Ok(OperationResponse::Delete)]);
    assert_eq!(run(&script, put()).result, Err(ClientError::Mismatch));
}

#[test]
fn nothing_in_flight_gives_nothing() {
    let script = Script::new([]);
    assert!(Client::new(&script, TIME).next(Duration::ZERO).is_none());
}
