//! Requests for many rows, and reads of other replicas than the leader's.

use raftstore_grpc::pb::kvrpcpb::{
    KeyRange, RawBatchScanRequest, RawChecksumRequest, RawScanRequest, ReadIndexRequest,
    SplitRegionRequest,
};

use super::*;
use crate::service::crc64;

async fn filled() -> Fixture {
    let fixture = Fixture::start().await;
    for key in ["a", "b", "c", "m", "n", "z"] {
        fixture.put(key, &format!("value of {key}")).await;
    }
    fixture
}

async fn scan(fixture: &Fixture, key: &str, change: impl Fn(&mut RawScanRequest)) -> Vec<String> {
    let send = |mut client: Client, context| {
        let mut request = RawScanRequest::default();
        request.set_context(context);
        request.limit = 100;
        change(&mut request);
        async move { client.raw_scan(request).await.unwrap().into_inner() }
    };
    let answer = fixture.ask(key, send, |it| it.region_error.as_ref()).await;
    let rows = answer.kvs.into_iter();
    rows.map(|pair| String::from_utf8([&*pair.key, &*pair.value].join(&b'=')).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_go_both_ways_and_stop_where_the_region_ends() {
    let fixture = filled().await;
    let rows = scan(&fixture, "a", |it| it.limit = 2).await;
    assert_eq!(rows, ["a=value of a", "b=value of b"]);
    let keys_only = |request: &mut RawScanRequest| {
        request.key_only = true;
        request.start_key = bytes("b");
        request.end_key = bytes("n");
    };
    assert_eq!(scan(&fixture, "a", keys_only).await, ["b=", "c=", "m="]);
    // Down from below "n" to "b", which is in.
    let down = |request: &mut RawScanRequest| {
        request.key_only = true;
        request.reverse = true;
        request.start_key = bytes("n");
        request.end_key = bytes("b");
    };
    assert_eq!(scan(&fixture, "a", down).await, ["m=", "c=", "b="]);
    assert_eq!(scan(&fixture, "a", |it| it.limit = 0).await, Vec::<String>::new());

    let (mut client, context) = fixture.leader("a").await;
    let mut request = SplitRegionRequest::default();
    request.set_context(context);
    request.split_keys = vec![bytes("m")];
    client.split_region(request).await.unwrap();
    let all = |start: &str| {
        let start = bytes(start);
        move |request: &mut RawScanRequest| {
            request.key_only = true;
            request.start_key = start.clone();
        }
    };
    assert_eq!(scan(&fixture, "a", all("")).await, ["a=", "b=", "c="]);
    assert_eq!(scan(&fixture, "m", all("m")).await, ["m=", "n=", "z="]);
    let down_from_border = |request: &mut RawScanRequest| {
        request.reverse = true;
        request.start_key = bytes("m");
        request.limit = 1;
    };
    assert_eq!(scan(&fixture, "a", down_from_border).await, ["c=value of c"]);
    // What is above the region is another's.
    let down_from_above = |request: &mut RawScanRequest| {
        request.reverse = true;
        request.start_key = bytes("x");
        request.end_key = bytes("b");
    };
    assert_eq!(scan(&fixture, "a", down_from_above).await, ["c=value of c", "b=value of b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_scans_and_checksums_look_at_several_ranges() {
    let fixture = filled().await;
    let range = |start: &str, end: &str| KeyRange {
        start_key: bytes(start),
        end_key: bytes(end),
        ..Default::default()
    };
    let (mut client, context) = fixture.leader("a").await;
    let mut request = RawBatchScanRequest::default();
    request.set_context(context.clone());
    // The first range ends where the second begins.
    request.ranges = vec![range("a", ""), range("c", "n"), range("n", "")].into();
    request.each_limit = 2;
    request.key_only = true;
    let answer = client.raw_batch_scan(request).await.unwrap().into_inner();
    let keys: Vec<_> = answer.kvs.iter().map(|pair| pair.key.clone()).collect();
    assert_eq!(keys, ["a", "b", "c", "m", "n", "z"]);

    let mut request = RawChecksumRequest::default();
    request.set_context(context);
    request.ranges = vec![range("a", "c"), range("z", "")].into();
    let answer = client.raw_checksum(request).await.unwrap().into_inner();
    let rows: [(&[u8], &[u8]); 3] =
        [(b"a", b"value of a"), (b"b", b"value of b"), (b"z", b"value of z")];
    let expected = rows.iter().fold(0, |sum, (key, value)| sum ^ crc64::of(&[key, value]));
    assert_eq!((answer.checksum, answer.total_kvs, answer.total_bytes), (expected, 3, 33));
}

/// A follower that is asked for a replica read shows what was acknowledged before.
#[tokio::test(flavor = "multi_thread")]
async fn other_replicas_serve_reads_that_allow_it() {
    let fixture = filled().await;
    for round in 0..20 {
        let value = round.to_string();
        fixture.put("a", &value).await;
        let (region, _) = fixture.route("a").await;
        for peer in &region.peers {
            let mut context = context(&region, peer.store);
            context.replica_read = true;
            let mut client = fixture.client(peer.store);
            let read = wait_until("a replica to serve", || {
                let (mut client, request) = (client.clone(), get_request(context.clone(), "a"));
                async move {
                    let answer = client.raw_get(request).await.unwrap().into_inner();
                    answer.region_error.is_none().then_some(answer.value)
                }
            });
            assert_eq!(read.await, value);
            let mut scan = RawScanRequest::default();
            scan.set_context(context.clone());
            scan.limit = 1;
            let answer = client.raw_scan(scan).await.unwrap().into_inner();
            if answer.region_error.is_none() {
                assert_eq!(answer.kvs[0].value, value);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn read_index_grows_with_writes() {
    let fixture = Fixture::start().await;
    let index = async || {
        let send = |mut client: Client, context| {
            let mut request = ReadIndexRequest::default();
            request.set_context(context);
            async move { client.read_index(request).await.unwrap().into_inner() }
        };
        fixture.ask("a", send, |it| it.region_error.as_ref()).await.read_index
    };
    let before = index().await;
    fixture.put("a", "1").await;
    fixture.put("a", "2").await;
    assert!(index().await >= before + 2);
}
