//! What clients are told when they cannot be served.

use raftstore_grpc::pb::kvrpcpb::{APIVersion, RawScanRequest, SplitRegionRequest};

use super::*;

async fn refused(client: &mut Client, request: RawGetRequest) -> errorpb::Error {
    let answer = client.raw_get(request).await.unwrap().into_inner();
    answer.region_error.into_option().expect("a refusal")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_names_the_leader() {
    let fixture = Fixture::start().await;
    let (_, leading) = fixture.leader("a").await;
    let leader = leading.get_peer().store_id;
    let (region, _) = fixture.route("a").await;
    let other = region.peers.iter().map(|peer| peer.store).find(|it| it.get() != leader).unwrap();
    let mut client = fixture.client(other);
    let told = wait_until("the follower to know", || {
        let mut client = client.clone();
        let request = get_request(context(&region, other), "a");
        async move {
            let mut error = refused(&mut client, request).await;
            assert!(error.not_leader.is_some(), "{error:?}");
            error.mut_not_leader().leader.take()
        }
    });
    assert_eq!(told.await.store_id, leader);
    // A write is no different.
    let request = put_request(&context(&region, other), "a", "1");
    let answer = client.raw_put(request).await.unwrap().into_inner();
    assert!(answer.get_region_error().not_leader.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_do_not_fit_are_named() {
    let fixture = Fixture::start().await;
    let (mut client, good) = fixture.leader("a").await;
    let bad = |change: fn(&mut Context)| {
        let mut context = good.clone();
        change(&mut context);
        get_request(context, "a")
    };
    let error = refused(&mut client, bad(|it| it.region_id = 999)).await;
    assert_eq!(error.get_region_not_found().region_id, 999);
    let error = refused(&mut client, bad(|it| it.region_id = 0)).await;
    assert!(error.region_not_found.is_some());
    let error = refused(&mut client, bad(|it| it.mut_peer().store_id = 77)).await;
    assert_eq!(error.get_store_not_match().request_store_id, 77);
    let error = refused(&mut client, bad(|it| it.mut_peer().id = 9999)).await;
    assert_eq!(error.get_mismatch_peer_id().request_peer_id, 9999);
    let error = refused(&mut client, bad(|it| it.mut_region_epoch().version += 1)).await;
    let current = error.get_epoch_not_match().get_current_regions();
    assert_eq!(current.first().map(|it| it.id), Some(good.region_id));
    let error = refused(&mut client, bad(|it| it.peer.clear())).await;
    assert_eq!(error.message, "the request names no replica");
    // Scans do not go through a command, and answer alike.
    let mut scan = RawScanRequest::default();
    scan.set_context(good.clone());
    scan.limit = 10;
    scan.mut_context().mut_peer().store_id = 77;
    let answer = client.raw_scan(scan.clone()).await.unwrap().into_inner();
    assert_eq!(answer.get_region_error().get_store_not_match().request_store_id, 77);
    scan.set_context(good.clone());
    scan.mut_context().mut_region_epoch().version += 1;
    let answer = client.raw_scan(scan).await.unwrap().into_inner();
    assert!(answer.get_region_error().epoch_not_match.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_nobody_serves_are_refused_in_words() {
    let fixture = Fixture::start().await;
    let (mut client, context) = fixture.leader("a").await;
    let mut request = put_request(&context, "a", "1");
    request.ttl = 10;
    let answer = client.raw_put(request).await.unwrap().into_inner();
    assert!(answer.error.contains("ttl") && answer.region_error.is_none(), "{answer:?}");
    let mut request = put_request(&context, "a", "1");
    "raft".clone_into(&mut request.cf);
    let answer = client.raw_put(request).await.unwrap().into_inner();
    assert!(answer.error.contains("column family") && answer.region_error.is_none());
    let mut request = put_request(&context, "a", "1");
    request.mut_context().api_version = APIVersion::V2;
    let answer = client.raw_put(request).await.unwrap().into_inner();
    assert!(answer.error.contains("API version") && answer.region_error.is_none());
    assert_eq!(fixture.get("a").await, None);

    let mut scan = RawScanRequest::default();
    scan.set_context(context);
    "other".clone_into(&mut scan.cf);
    let answer = client.raw_scan(scan).await.unwrap().into_inner();
    assert!(answer.kvs[0].get_error().abort.contains("column family"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_too_large_says_so() {
    let fixture = Fixture::start().await;
    let (mut client, context) = fixture.leader("a").await;
    let request = put_request(&context, "a", &"v".repeat(2 << 20));
    let answer = client.raw_put(request).await.unwrap().into_inner();
    let error = answer.get_region_error().get_raft_entry_too_large();
    assert_eq!(error.region_id, context.region_id);
    assert!(error.entry_size > 2 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_tells_its_parts_and_old_routes_are_corrected() {
    let fixture = Fixture::start().await;
    fixture.put("a", "1").await;
    fixture.put("x", "2").await;
    let (mut client, old) = fixture.leader("a").await;
    let mut request = SplitRegionRequest::default();
    request.set_context(old.clone());
    request.split_keys = ["h", "p"].map(bytes).to_vec();
    let answer = client.split_region(request.clone()).await.unwrap().into_inner();
    assert!(answer.region_error.is_none() && answer.errors.is_empty(), "{answer:?}");
    let borders: Vec<_> = answer.regions.iter().map(|it| it.start_key.clone()).collect();
    assert_eq!(borders, ["", "h", "p"]);

    let error = refused(&mut client, get_request(old, "x")).await;
    let current = error.get_epoch_not_match().get_current_regions();
    assert!(!current.is_empty());
    assert_eq!(fixture.get("x").await.as_deref(), Some("2"));
    assert_eq!(fixture.get("a").await.as_deref(), Some("1"));
    // A key of a neighbour.
    let (mut client, context) = fixture.leader("a").await;
    let error = refused(&mut client, get_request(context.clone(), "x")).await;
    assert_eq!(error.get_key_not_in_region().key, "x");
    // Nothing to cut at.
    request.set_context(context);
    request.split_keys = vec![bytes("")];
    let answer = client.split_region(request).await.unwrap().into_inner();
    assert!(answer.region_error.is_some() || !answer.errors.is_empty());
    assert!(answer.regions.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn h28_a_store_that_stops_answers_everybody() {
    let mut fixture = Fixture::start().await;
    let (mut client, context) = fixture.leader("a").await;
    let store = context.get_peer().store_id;
    let at = fixture.nodes.iter().position(|node| node.store().get() == store).unwrap();
    let node = fixture.nodes.remove(at);
    tokio::task::spawn_blocking(move || node.stop().unwrap()).await.unwrap();
    let error = refused(&mut client, get_request(context.clone(), "a")).await;
    assert_eq!(error.message, "the store is stopping");
    let mut scan = RawScanRequest::default();
    scan.set_context(context);
    scan.limit = 1;
    let answer = client.raw_scan(scan).await.unwrap().into_inner();
    assert_eq!(answer.get_region_error().message, "the store is stopping");
}
