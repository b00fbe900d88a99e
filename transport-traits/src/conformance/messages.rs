//! Cases about messages without snapshots.

use raftstore_proto::{MessageKind, RaftMessage};

use super::fixture::{Fixture, message, node, peer, region};
use crate::{SendError, Transport};

/// More messages than any reasonable queue holds.
const FLOOD: u64 = 2_000_000;

/// Messages reach the store they name and no other, unchanged, once, those of a region in
/// order.
pub fn delivers_in_order_to_the_store_named<F: Fixture>(mut fixture: F) {
    let mut one = node(&mut fixture, 1);
    let two = node(&mut fixture, 2);
    let three = node(&mut fixture, 3);
    let sent: Vec<_> = (0..500)
        .map(|index| message(MessageKind::Append, 1 + index % 7, 1, 2 + index % 2, index))
        .collect();
    for message in &sent {
        one.transport.send(message.clone()).expect("an idle transport takes messages");
    }
    one.transport.flush();
    for (receiver, store) in [(&two, 2), (&three, 3)] {
        receiver.inbox.wait("delivery", |told| told.messages.len() >= 250);
        let mut expected: Vec<_> = sent
            .iter()
            .filter(|message| message.to_peer() == Some(peer(store)))
            .map(|message| (message.clone(), None))
            .collect();
        // Between regions there is no order; sorting keeps the one within.
        let mut told = receiver.inbox.told().messages.clone();
        expected.sort_by_key(|(message, _)| message.region());
        told.sort_by_key(|(message, _)| message.region());
        assert!(told == expected, "store {store} was told something else, or in another order");
    }
    fixture.close();
    assert_eq!(two.inbox.told().messages.len() + three.inbox.told().messages.len(), 500);
    assert!(one.inbox.told().messages.is_empty());
    assert!(one.inbox.told().unreachable.is_empty());
}

/// A message that names no receiver is refused.
pub fn refuses_a_message_without_target<F: Fixture>(mut fixture: F) {
    let mut one = node(&mut fixture, 1);
    assert_eq!(one.transport.send(RaftMessage::default()), Err(SendError::NoTarget));
    fixture.close();
}

/// Two stores send to each other and to themselves.
pub fn serves_several_handles_of_one_process<F: Fixture>(mut fixture: F) {
    let mut one = node(&mut fixture, 1);
    let mut two = node(&mut fixture, 2);
    for index in 0..100 {
        for to in 1..=2 {
            let beat = |from| message(MessageKind::Heartbeat, 1, from, to, index);
            one.transport.send(beat(1)).expect("an idle transport takes messages");
            two.transport.send(beat(2)).expect("an idle transport takes messages");
        }
    }
    one.transport.flush();
    two.transport.flush();
    one.inbox.wait("delivery", |told| told.messages.len() == 200);
    two.inbox.wait("delivery", |told| told.messages.len() == 200);
    fixture.close();
}

/// While a receiver stalls, `send` goes on to return, at last with `Full`; other
/// receivers are served, and the stalled one is served again afterwards.
pub fn a_stalled_receiver_fills_a_queue_and_blocks_nobody<F: Fixture>(mut fixture: F) {
    let mut one = node(&mut fixture, 1);
    let two = node(&mut fixture, 2);
    let three = node(&mut fixture, 3);
    two.inbox.stall();
    let mut taken = 0;
    let refused = (0..FLOOD).find_map(|index| {
        let outcome = one.transport.send(message(MessageKind::Append, 1, 1, 2, index));
        one.transport.flush();
        taken += u64::from(outcome.is_ok());
        outcome.err()
    });
    assert_eq!(refused, Some(SendError::Full(peer(2).store)), "a queue must be bounded");
    one.transport
        .send(message(MessageKind::Append, 1, 1, 3, 0))
        .expect("the way to another store is free");
    one.transport.flush();
    three.inbox.wait("delivery to the other store", |told| told.messages.len() == 1);
    two.inbox.go_on();
    two.inbox.wait("delivery of what was taken", |told| told.messages.len() as u64 == taken);
    one.transport
        .send(message(MessageKind::Append, 1, 1, 2, FLOOD))
        .expect("the queue is empty again");
    one.transport.flush();
    two.inbox.wait("delivery after the stall", |told| told.messages.len() as u64 > taken);
    fixture.close();
}

/// Messages to a store nobody knows are refused, or reported as unreachable.
pub fn an_unknown_store_is_unreachable<F: Fixture>(mut fixture: F) {
    let mut one = node(&mut fixture, 1);
    expect_unreachable(&mut one.transport, &one.inbox, 9);
    fixture.close();
}

/// A stopped store is unreachable; started again it is reachable.
pub fn a_stopped_store_is_unreachable_until_it_is_back<F: Fixture>(mut fixture: F) {
    let mut one = node(&mut fixture, 1);
    let two = node(&mut fixture, 2);
    one.transport
        .send(message(MessageKind::Append, 1, 1, 2, 0))
        .expect("an idle transport takes messages");
    one.transport.flush();
    two.inbox.wait("delivery", |told| told.messages.len() == 1);
    fixture.stop(peer(2).store);
    expect_unreachable(&mut one.transport, &one.inbox, 2);
    let again = node(&mut fixture, 2);
    // A transport over a network may need some tries until it has connected.
    let reached = (0..FLOOD).any(|index| {
        let _ = one.transport.send(message(MessageKind::Append, 1, 1, 2, index));
        one.transport.flush();
        std::thread::yield_now();
        !again.inbox.told().messages.is_empty()
    });
    assert!(reached, "a store that is back is reached again");
    assert_eq!(two.inbox.told().messages.len(), 1, "the stopped one hears nothing");
    fixture.close();
}

/// Sends to `store`, which is not there, until that is noticed.
fn expect_unreachable<T: Transport>(transport: &mut T, inbox: &super::Recorder, store: u64) {
    let lost = message(MessageKind::Append, 4, 1, store, 0);
    let was_told =
        |told: &super::fixture::Told| told.unreachable.contains(&(region(4), peer(store).id));
    for _ in 0..FLOOD {
        let outcome = transport.send(lost.clone());
        transport.flush();
        let is_refused =
            matches!(outcome, Err(SendError::Unresolved(_) | SendError::Unreachable(_)));
        if is_refused || was_told(&inbox.told()) {
            return;
        }
        std::thread::yield_now();
    }
    inbox.wait("a report that the store is unreachable", was_told);
}

/// After closing, nothing is taken.
pub fn a_closed_transport_refuses<F: Fixture>(mut fixture: F) {
    let mut one = node(&mut fixture, 1);
    let _two = node(&mut fixture, 2);
    fixture.close();
    let outcome = one.transport.send(message(MessageKind::Append, 1, 1, 2, 0));
    assert_eq!(outcome, Err(SendError::Closed));
    one.transport.flush();
}
