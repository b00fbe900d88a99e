//! Requests that are one command.

use raftstore_grpc::pb::kvrpcpb::{
    KvPair, RawBatchDeleteRequest, RawBatchGetRequest, RawBatchPutRequest, RawCASRequest,
    RawDeleteRangeRequest, RawDeleteRequest, RawGetKeyTTLRequest,
};

use super::*;

fn pair(key: &str, value: &str) -> KvPair {
    KvPair { key: bytes(key), value: bytes(value), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_stored_read_and_removed() {
    let fixture = Fixture::start().await;
    fixture.put("a", "1").await;
    fixture.put("b", "").await;
    assert_eq!(fixture.get("a").await.as_deref(), Some("1"));
    // An empty value is there.
    assert_eq!(fixture.get("b").await.as_deref(), Some(""));
    assert_eq!(fixture.get("c").await, None);

    let (mut client, context) = fixture.leader("a").await;
    let mut request = RawDeleteRequest::default();
    request.set_context(context.clone());
    request.key = bytes("a");
    let answer = client.raw_delete(request).await.unwrap().into_inner();
    assert_eq!((answer.region_error.as_ref(), &*answer.error), (None, ""));
    assert_eq!(fixture.get("a").await, None);

    let mut request = RawGetKeyTTLRequest::default();
    request.set_context(context.clone());
    request.key = bytes("b");
    let answer = client.raw_get_key_ttl(request.clone()).await.unwrap().into_inner();
    assert_eq!((answer.ttl, answer.not_found), (0, false));
    request.key = bytes("a");
    assert!(client.raw_get_key_ttl(request).await.unwrap().into_inner().not_found);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_one_command() {
    let fixture = Fixture::start().await;
    let (mut client, context) = fixture.leader("a").await;
    let mut request = RawBatchPutRequest::default();
    request.set_context(context.clone());
    request.pairs = vec![pair("a", "1"), pair("b", "2"), pair("c", "3")].into();
    let answer = client.raw_batch_put(request).await.unwrap().into_inner();
    assert_eq!((answer.region_error.as_ref(), &*answer.error), (None, ""));

    let mut request = RawBatchGetRequest::default();
    request.set_context(context.clone());
    request.keys = ["c", "x", "a"].map(bytes).to_vec();
    let answer = client.raw_batch_get(request.clone()).await.unwrap().into_inner();
    // What is not there is left out.
    assert_eq!(answer.pairs.into_vec(), [pair("c", "3"), pair("a", "1")]);
    // Nothing to do is nothing to propose.
    request.keys.clear();
    assert!(client.raw_batch_get(request).await.unwrap().into_inner().pairs.is_empty());

    let mut request = RawBatchDeleteRequest::default();
    request.set_context(context.clone());
    request.keys = ["a", "c"].map(bytes).to_vec();
    client.raw_batch_delete(request).await.unwrap();
    assert_eq!((fixture.get("a").await, fixture.get("c").await), (None, None));
    assert_eq!(fixture.get("b").await.as_deref(), Some("2"));

    let mut request = RawDeleteRangeRequest::default();
    request.set_context(context);
    request.start_key = bytes("a");
    let answer = client.raw_delete_range(request).await.unwrap().into_inner();
    assert_eq!((answer.region_error.as_ref(), &*answer.error), (None, ""));
    assert_eq!(fixture.get("b").await, None);
}

fn swap(
    context: &Context,
    key: &str,
    previous: Option<&str>,
    value: Option<&str>,
) -> RawCASRequest {
    let mut request = RawCASRequest::default();
    request.set_context(context.clone());
    request.key = bytes(key);
    request.previous_not_exist = previous.is_none();
    request.previous_value = bytes(previous.unwrap_or_default());
    request.delete = value.is_none();
    request.value = bytes(value.unwrap_or_default());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn compare_and_swap_tells_what_was_there() {
    let fixture = Fixture::start().await;
    let (mut client, context) = fixture.leader("a").await;
    let mut found = Vec::new();
    for (previous, value) in [
        (None, Some("1")),
        (None, Some("2")),
        (Some("1"), Some("")),
        (Some(""), None),
        (Some(""), Some("3")),
    ] {
        let request = swap(&context, "a", previous, value);
        let answer = client.raw_compare_and_swap(request).await.unwrap().into_inner();
        assert_eq!((answer.region_error.as_ref(), &*answer.error), (None, ""));
        let previous = (!answer.previous_not_exist).then_some(answer.previous_value);
        found.push((answer.succeed, previous));
    }
    let held = |text: &str| Some(bytes(text));
    assert_eq!(
        found,
        [(true, None), (false, held("1")), (true, held("1")), (true, held("")), (false, None)]
    );
    assert_eq!(fixture.get("a").await, None);
}

/// Many clients count in one value. Were there a moment between the look and the write, a
/// step would be lost.
#[tokio::test(flavor = "multi_thread")]
async fn compare_and_swap_loses_no_step_of_a_counter() {
    const CLIENTS: u64 = 8;
    const STEPS: u64 = 25;
    let fixture = Fixture::start().await;
    fixture.put("n", "0").await;
    let count = async || {
        let mut seen = "0".to_owned();
        for _ in 0..STEPS {
            loop {
                let next = (seen.parse::<u64>().unwrap() + 1).to_string();
                let send = |mut client: Client, context: Context| {
                    let request = swap(&context, "n", Some(&seen), Some(&next));
                    async move { client.raw_compare_and_swap(request).await.unwrap().into_inner() }
                };
                let answer = fixture.ask("n", send, |it| it.region_error.as_ref()).await;
                let held = String::from_utf8(answer.previous_value.to_vec()).unwrap();
                if answer.succeed {
                    seen = next;
                    break;
                }
                seen = held;
            }
        }
    };
    tokio::join!(count(), count(), count(), count(), count(), count(), count(), count());
    assert_eq!(fixture.get("n").await, Some((CLIENTS * STEPS).to_string()));
}
