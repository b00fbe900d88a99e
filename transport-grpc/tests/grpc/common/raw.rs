//! Calls as somebody makes them who does not keep to the rules.

use std::net::SocketAddr;

use axum::body::Body;
use bytes::Bytes;
use raftstore_grpc::{ClientConfig, connect};
use raftstore_proto::{
    RaftMessage, StoreId,
    wire::{SnapshotChunk, encode_batch, encode_snapshot_chunk},
};
use tonic::{client::GrpcService as _, metadata::MetadataMap};

use super::CLUSTER;

pub const BATCH_RAFT: &str = "/tikvpb.Tikv/BatchRaft";
pub const SNAPSHOT: &str = "/tikvpb.Tikv/Snapshot";

/// What a call from `from` to `to` begins with.
pub fn greeting(from: StoreId, to: StoreId) -> Vec<(&'static str, String)> {
    vec![
        ("raftstore-protocol", "1".to_owned()),
        ("raftstore-cluster", CLUSTER.to_string()),
        ("raftstore-from", from.to_string()),
        ("raftstore-to", to.to_string()),
        ("raftstore-connection", "0".to_owned()),
    ]
}

/// A frame as gRPC has it: a flag, a length, and so many bytes.
pub fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("frames are short");
    [&[0][..], &length.to_be_bytes(), bytes].concat()
}

/// A frame with messages.
pub fn batch(messages: &[RaftMessage]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_batch(messages, &mut out).expect("memory takes everything");
    frame(&out)
}

/// A frame with a piece of a snapshot.
pub fn chunk(chunk: &SnapshotChunk) -> Vec<u8> {
    let (head, bytes) = encode_snapshot_chunk(chunk);
    frame(&[&head[..], &bytes].concat())
}

/// Makes a call, and gives the reason that it was refused for, if it was.
pub async fn call(
    address: SocketAddr,
    path: &str,
    headers: &[(&'static str, String)],
    body: Body,
) -> Option<String> {
    let mut channel =
        connect(&address.to_string(), &ClientConfig::default()).await.expect("it listens");
    let mut request = http::Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(tonic::body::Body::new(body)).expect("it is well formed");
    std::future::poll_fn(|context| channel.poll_ready(context)).await.expect("it is connected");
    // A server that has seen enough may end the connection's stream in several ways.
    let response = channel.call(request).await.ok()?;
    let reason = |headers: &http::HeaderMap| {
        let headers = MetadataMap::from_headers(headers.clone());
        let reason = headers.get("raftstore-refused")?;
        Some(reason.to_str().expect("it is text").to_owned())
    };
    if let Some(reason) = reason(response.headers()) {
        return Some(reason);
    }
    let mut body = std::pin::pin!(response.into_body());
    loop {
        let next =
            std::future::poll_fn(|context| http_body::Body::poll_frame(body.as_mut(), context));
        match next.await {
            Some(Ok(frame)) => {
                if let Some(reason) = frame.trailers_ref().and_then(reason) {
                    return Some(reason);
                }
            }
            Some(Err(_)) | None => return None,
        }
    }
}

/// A body of whole frames that ends in order.
pub fn body(frames: &[Vec<u8>]) -> Body {
    Body::from(Bytes::from(frames.concat()))
}

/// A body that goes on for as long as the sender is kept.
pub fn open_body(
    first: Vec<u8>,
) -> (tokio::sync::mpsc::Sender<Result<Bytes, std::io::Error>>, Body) {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let _ = sender.try_send(Ok(first.into()));
    (sender, Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver)))
}
