//! Many requests on one stream.

use std::collections::BTreeSet;

use raftstore_grpc::pb::{
    kvrpcpb::RawScanRequest,
    tikvpb::{
        BatchCommandsEmptyRequest, BatchCommandsRequest, BatchCommandsRequest_Request as Asked,
        BatchCommandsRequest_Request_oneof_cmd as Ask,
        BatchCommandsResponse_Response_oneof_cmd as Answer,
    },
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use super::*;

fn bundle(requests: Vec<(u64, Option<Ask>)>) -> BatchCommandsRequest {
    let mut bundle = BatchCommandsRequest::default();
    for (id, cmd) in requests {
        bundle.request_ids.push(id);
        bundle.requests.push(Asked { cmd, ..Default::default() });
    }
    bundle
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_a_stream_is_answered_once() {
    const PUTS: u64 = 20_000;
    let fixture = Fixture::start().await;
    let (mut client, context) = fixture.leader("a").await;
    let (sender, requests) = tokio::sync::mpsc::channel(4);
    let mut answers =
        client.batch_commands(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let sending = async {
        let mut id = 0;
        while id < PUTS {
            let ids = id..(id + 500);
            let puts = ids.map(|id| {
                let request = put_request(&context, &format!("k{id:06}"), &id.to_string());
                (id, Some(Ask::RawPut(request)))
            });
            sender.send(bundle(puts.collect())).await.unwrap();
            id += 500;
        }
        let mut scan = RawScanRequest::default();
        scan.set_context(context.clone());
        scan.limit = 10;
        let others = vec![
            (PUTS, Some(Ask::RawGet(get_request(context.clone(), "not there")))),
            (PUTS + 1, Some(Ask::RawScan(scan))),
            (PUTS + 2, Some(Ask::Empty(BatchCommandsEmptyRequest::default()))),
            // Of a kind that this version does not know.
            (PUTS + 3, None),
        ];
        sender.send(bundle(others)).await.unwrap();
        drop(sender);
    };
    let receiving = async {
        let mut missing: BTreeSet<u64> = (0..PUTS + 4).collect();
        while let Some(message) = answers.next().await {
            let message = message.unwrap();
            assert_eq!(message.responses.len(), message.request_ids.len());
            for (answer, id) in message.responses.into_iter().zip(message.request_ids) {
                assert!(missing.remove(&id), "{id} is answered twice");
                match (id, answer.cmd) {
                    (PUTS, Some(Answer::RawGet(answer))) => assert!(answer.not_found),
                    (id, Some(Answer::RawScan(_))) if id == PUTS + 1 => {}
                    (id, Some(Answer::Empty(_))) if id > PUTS + 1 => {}
                    (id, Some(Answer::RawPut(answer))) if id < PUTS => {
                        // A store may say that it is busy, in words that clients know.
                        let error = answer.region_error.as_ref();
                        assert!(error.is_none_or(|it| it.server_is_busy.is_some()), "{error:?}");
                    }
                    other => panic!("an answer that does not fit: {other:?}"),
                }
            }
        }
        assert_eq!(missing, BTreeSet::new());
    };
    tokio::join!(sending, receiving);
}

/// Bytes that would decode to far more are refused before they are, and the store goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_of_many_empty_requests_is_refused_unread() {
    let fixture = Fixture::start().await;
    let (mut client, _) = fixture.leader("a").await;
    let requests = vec![Asked::default(); 1 << 20].into();
    let bad = BatchCommandsRequest { requests, ..Default::default() };
    let mut answers = client.batch_commands(tokio_stream::once(bad)).await.unwrap().into_inner();
    let refused = answers.next().await.unwrap().unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("more than"), "{refused}");
    fixture.put("a", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_whose_numbers_do_not_fit_ends_the_stream() {
    let fixture = Fixture::start().await;
    let (mut client, context) = fixture.leader("a").await;
    let request = get_request(context, "a");
    let mut bad = bundle(vec![(1, Some(Ask::RawGet(request)))]);
    bad.request_ids.push(2);
    let mut answers = client.batch_commands(tokio_stream::once(bad)).await.unwrap().into_inner();
    let refused = answers.next().await.unwrap().unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}
