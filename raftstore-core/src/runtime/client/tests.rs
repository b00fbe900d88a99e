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
    fn send(&self, store: StoreId, command: Command, answer: Callback) {
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
fn once_nobody_is_left_to_ask_pd_is() {
    let stopping = || Err(RegionError::Stopping);
    let mut script = Script::new([stopping(), stopping(), Ok(OperationResponse::Put)]);
    script.route.region.peers.truncate(3);
    assert_eq!(run(&script, put()).result, Ok(None));
    assert_eq!(*script.located.borrow(), 2, "PD may know of replicas that came since");
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

/// One of the parts that `region` was cut into, with peers of its own.
fn part(id: u64, version: u64, start: &str, end: &str) -> Region {
    let mut part = region(version, start, end);
    part.id = RegionId::new(id).unwrap();
    for peer in &mut part.peers {
        peer.id = PeerId::new(id * 1000 + peer.id.get()).unwrap();
    }
    part
}

#[test]
fn a_part_of_a_split_region_is_asked_where_the_whole_was() {
    let current = vec![region(2, "", "g"), part(8, 2, "g", "m"), part(9, 2, "m", "")];
    let script = Script::new([
        Err(not_leader(Some(peer(3)))),
        Err(RegionError::EpochNotMatch { current }),
        Ok(OperationResponse::Put),
        Ok(OperationResponse::Put),
    ]);
    let mut client = Client::new(&script, TIME);
    for (ticket, key) in [(1, "k"), (2, "z")] {
        let (key, value) = (key.into(), Bytes::from_static(b"v"));
        client.submit(ticket, Request::Put { key, value });
        assert_eq!(client.next(TIME).expect("the script ends").result, Ok(None));
    }
    // Nobody had to look anything up for the part that was not asked for.
    assert_eq!(*script.asked.borrow(), [(1, 1), (3, 1), (3, 2), (3, 2)]);
    assert_eq!(*script.located.borrow(), 1);
}

#[test]
fn old_news_changes_nothing() {
    let mut routes = Routes::default();
    routes.learn(region(3, "", "m"), Some(store(2)));
    routes.learn(part(8, 3, "m", ""), Some(store(2)));
    // The whole of before, and another part of it.
    routes.learn(region(2, "", ""), Some(store(1)));
    routes.learn(part(9, 2, "k", "p"), Some(store(1)));
    for (key, id) in [("a", 7), ("l", 7), ("m", 8), ("z", 8)] {
        let route = routes.of(key.as_bytes()).expect("known");
        assert_eq!((route.region.id.get(), route.peer().unwrap().store), (id, store(2)));
    }
    // Something newer in the middle leaves nothing of what it shares keys with.
    routes.learn(part(9, 4, "k", "p"), Some(store(3)));
    assert_eq!(routes.of(b"o").expect("known").region.id.get(), 9);
    assert!(routes.of(b"a").is_none() && routes.of(b"z").is_none());
    // The same epoch again says who leads now.
    routes.learn(part(9, 4, "k", "p"), Some(store(1)));
    assert_eq!(routes.of(b"k").expect("known").peer().unwrap().store, store(1));
}

#[test]
fn many_answers_of_one_kind_move_on_once() {
    let script = Script::new([]);
    let mut client = Client::new(&script, TIME);
    client.routes.learn(region(1, "", ""), Some(store(1)));
    let asked =
        Asked { peer: peer(1), region: region(1, "", "").id, epoch: region(1, "", "").epoch };
    let pending = Pending {
        ticket: 1,
        request: put(),
        submitted: Instant::now(),
        attempts: 1,
        asked: Some(asked),
        last: None,
    };
    for error in
        [not_leader(None), not_leader(None), RegionError::Stopping, not_leader(Some(peer(3)))]
    {
        assert!(matches!(client.after(&error, &pending), Next::Again(_)));
        assert_eq!(client.routes.of(b"k").unwrap().peer().unwrap().store, store(2), "{error}");
    }
    let lost = RegionError::RegionNotFound { region: asked.region };
    client.after(&lost, &pending);
    assert!(client.routes.of(b"k").is_some(), "it is not about the peer asked now");
}

#[test]
fn a_key_of_another_region_is_looked_for_there() {
    let region = region(1, "", "g");
    let error = RegionError::KeyNotInRegion { key: Bytes::from_static(b"k"), region };
    let script = Script::new([Err(error), Ok(OperationResponse::Put)]);
    assert_eq!(run(&script, put()).result, Ok(None));
    assert_eq!(*script.located.borrow(), 2);
}

#[test]
fn where_no_leader_is_known_everyone_has_a_turn() {
    let not_found = || Err(RegionError::RegionNotFound { region: region(1, "", "").id });
    let script = Script::new([not_found(), not_found(), not_found(), Ok(OperationResponse::Put)]);
    assert_eq!(run(&script, put()).result, Ok(None));
    assert_eq!(asked(&script), [1, 2, 3, 1]);
}
