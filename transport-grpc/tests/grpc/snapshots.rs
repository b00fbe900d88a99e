//! Region snapshots between stores: interrupted, hostile, bounded.

use std::{sync::Arc, time::Duration};

use raftstore_proto::wire::SnapshotChunk;
use transport_grpc::{GrpcConfig, Refusal};
use transport_traits::{SnapshotStatus, Transport};

use crate::{
    common::{
        Addresses, End,
        log::{KEY, Node, ONE, TWO, announcement, beat, content, put, received},
        proxy::Proxy,
        raw::{self, SNAPSHOT, chunk, greeting},
        wait_until,
    },
    streams::pair,
};

const SIZE: usize = 4 << 20;

fn config() -> GrpcConfig {
    GrpcConfig {
        snapshot_chunk_bytes: 64 << 10,
        snapshot_bytes_per_second: 0,
        ..GrpcConfig::default()
    }
}

/// Sends the snapshot and waits for the end.
#[track_caller]
fn send(one: &mut Node, status: SnapshotStatus) {
    let before = one.log.told().statuses.len();
    one.sender.send(announcement(ONE, TWO)).expect("there is room");
    one.sender.flush();
    wait_until("a report", || one.log.told().statuses.len() > before);
    assert_eq!(one.log.told().statuses[before..], [status]);
}

#[test]
fn an_interrupted_snapshot_goes_on_where_it_stopped() {
    let addresses = Arc::<Addresses>::default();
    let mut one = Node::new(End::plain(config(), &addresses), ONE);
    let two = Node::new(End::plain(config(), &addresses), TWO);
    let proxy = Proxy::start(&one.end.transport.runtime(), two.end.address);
    addresses.set(TWO, proxy.address);
    let bytes = content(1, SIZE);
    put(&one.snaps, &bytes);
    proxy.cut_after(SIZE as u64 / 2);
    send(&mut one, SnapshotStatus::Finished);
    assert!(received(&two.snaps) == Some(bytes), "something else has arrived");
    assert_eq!(two.log.told().messages, [(announcement(ONE, TWO), Some((KEY, SIZE as u64)))]);
    let sent = one.counters().snapshot_sent_bytes;
    assert_eq!(one.counters().snapshots_resumed, 1);
    // What was on its way when the connection broke is sent twice, and no more.
    assert!(sent < 2 * SIZE as u64, "{sent} bytes for {SIZE}");
    assert_eq!(two.counters().snapshot_received_bytes, SIZE as u64);
}

fn head(size_bytes: u64) -> Vec<u8> {
    let message = Box::new(announcement(ONE, TWO));
    chunk(&SnapshotChunk::Head { message, size_bytes })
}

fn data(offset: u64, bytes: &[u8]) -> Vec<u8> {
    chunk(&SnapshotChunk::Data { offset, bytes: bytes.to_vec().into() })
}

fn end(size_bytes: u64, checksum: u32) -> Vec<u8> {
    chunk(&SnapshotChunk::End { size_bytes, checksum })
}

fn call(two: &Node, frames: &[Vec<u8>]) -> Option<String> {
    let headers = greeting(ONE, TWO);
    let call = raw::call(two.end.address, SNAPSHOT, &headers, raw::body(frames));
    two.end.transport.runtime().block_on(call)
}

/// What came before is not trusted: it is other bytes than the sender's.
#[test]
fn other_bytes_of_the_same_name_are_not_gone_on_with() {
    let (mut one, two) = pair(&config());
    let bytes = content(2, SIZE);
    put(&one.snaps, &bytes);
    assert_eq!(call(&two, &[head(SIZE as u64), data(0, &content(3, 1000))]), None);
    wait_until("the interruption", || two.counters().snapshots_receive_failed == 1);
    assert_eq!(two.snaps.used_bytes(), 1000, "what has come is kept for a while");
    send(&mut one, SnapshotStatus::Finished);
    assert!(received(&two.snaps) == Some(bytes), "something else has arrived");
    assert_eq!(one.counters().snapshots_resumed, 0);
    assert_eq!(two.snaps.used_bytes(), SIZE as u64);
}

#[test]
fn what_an_interrupted_stream_brought_is_kept_for_a_bounded_time() {
    let config = GrpcConfig { snapshot_keep: Duration::from_millis(20), ..config() };
    let (_, two) = pair(&config);
    assert_eq!(call(&two, &[head(SIZE as u64), data(0, &content(3, 1000))]), None);
    wait_until("the interruption", || two.counters().snapshots_receive_failed == 1);
    wait_until("its end", || two.snaps.used_bytes() == 0);
}

/// SNAP-09: lengths and checksums are held against what comes, and nothing of a snapshot that
/// breaks its word stays.
#[test]
fn a_snapshot_that_breaks_its_word_leaves_nothing() {
    let (mut one, two) = pair(&config());
    let bytes = content(4, 100);
    let checksum = crc32c::crc32c(&bytes);
    let most = GrpcConfig::default().snapshot_bytes_max;
    let forged =
        chunk(&SnapshotChunk::Head { message: Box::new(announcement(TWO, TWO)), size_bytes: 100 });
    let not_one = chunk(&SnapshotChunk::Head { message: Box::new(beat(ONE, TWO)), size_bytes: 1 });
    let cases = [
        (vec![data(0, &bytes)], Refusal::SnapshotOrder),
        (vec![end(0, 0)], Refusal::SnapshotOrder),
        (vec![raw::frame(b"\x0a\xff\xff")], Refusal::Malformed),
        (vec![forged], Refusal::ForgedSender),
        (vec![not_one], Refusal::NoSnapshot),
        (vec![head(most + 1)], Refusal::SnapshotSize),
        (vec![head(99), data(0, &bytes)], Refusal::SnapshotSize),
        (vec![head(100), data(0, &bytes), data(100, b"x")], Refusal::SnapshotSize),
        (vec![head(100), data(1, &bytes)], Refusal::SnapshotOrder),
        (vec![head(100), data(0, &bytes), head(100)], Refusal::SnapshotOrder),
        (vec![head(101), data(0, &bytes), end(101, checksum)], Refusal::SnapshotSize),
        (vec![head(100), data(0, &bytes), end(99, checksum)], Refusal::SnapshotSize),
        (vec![head(100), data(0, &bytes), end(100, checksum + 1)], Refusal::SnapshotChecksum),
    ];
    for (frames, why) in &cases {
        let before = two.counters().refused_for(*why);
        let refused = call(&two, frames);
        assert!(refused.is_none() || refused.as_deref() == Some(why.name()), "{refused:?}");
        assert_eq!(two.counters().refused_for(*why), before + 1, "{why:?}");
        wait_until("nothing to be left", || two.snaps.used_bytes() == 0);
    }
    assert!(two.log.told().messages.is_empty());
    // A good one by the same means, so that the bad ones failed for what was bad about them.
    assert_eq!(call(&two, &[head(100), data(0, &bytes), end(100, checksum)]), None);
    assert_eq!(received(&two.snaps), Some(bytes));
    one.reach(&two, ONE, TWO);
}

#[test]
fn snapshots_are_received_so_many_at_a_time() {
    let (mut one, two) = pair(&GrpcConfig { snapshot_receives_max: 1, ..config() });
    let runtime = two.end.transport.runtime();
    let hold = || {
        let (open, body) = raw::open_body(Vec::new());
        let address = two.end.address;
        let call = async move { raw::call(address, SNAPSHOT, &greeting(ONE, TWO), body).await };
        (open, runtime.spawn(call))
    };
    let (mut open, mut holding) = hold();
    wait_until("the place to be taken", || {
        if holding.is_finished() {
            // Whoever asks whether it is taken may be the one who has it.
            (open, holding) = hold();
        }
        call(&two, &[head(1)]).as_deref() == Some("snapshot_busy") && !holding.is_finished()
    });
    // The sender tries again until there is a place.
    let bytes = content(5, 1000);
    put(&one.snaps, &bytes);
    one.sender.send(announcement(ONE, TWO)).expect("there is room");
    let refused = two.counters().refused_for(Refusal::SnapshotBusy);
    wait_until("the refusal", || two.counters().refused_for(Refusal::SnapshotBusy) > refused);
    drop(open);
    runtime.block_on(holding).expect("it does not panic");
    wait_until("a report", || !one.log.told().statuses.is_empty());
    assert_eq!(one.log.told().statuses, [SnapshotStatus::Finished]);
    assert_eq!(received(&two.snaps), Some(bytes));
}

#[test]
fn snapshots_wait_in_a_bounded_queue() {
    let (mut one, _two) = pair(&GrpcConfig { snapshot_queue_max: 1, ..config() });
    put(&one.snaps, &content(6, SIZE));
    let taken = (0..100).filter(|_| one.sender.send(announcement(ONE, TWO)).is_ok()).count();
    assert!((1..100).contains(&taken), "{taken} of 100");
    wait_until("a report for each", || one.log.told().statuses.len() == taken);
    assert_eq!(one.counters().full_messages, 100 - taken as u64);
}
