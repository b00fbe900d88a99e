//! What a node tells of itself over HTTP: figures for Prometheus, states as JSON. Only looked
//! at, never changed.

use std::{future::Future, io, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use engine_traits::KvEngine;
use raftstore_core::{PeerPhase, PeerStatus, runtime::NodeHandle};
use raftstore_grpc::ServerCounters;
use raftstore_proto::{ClusterId, Peer, PeerRole};
use serde::Serialize;
use tokio::net::TcpListener;
use transport_grpc::GrpcTransport;

/// How long a lane may take to answer.
const ASK: Duration = Duration::from_secs(2);

/// Whom the answers come from.
#[derive(Clone)]
pub(super) struct StatusSources<K> {
    pub(super) node: NodeHandle<K>,
    pub(super) transport: GrpcTransport,
    pub(super) server: ServerCounters,
    pub(super) cluster: ClusterId,
    pub(super) address: String,
    pub(super) engine: &'static str,
    pub(super) raft_log: &'static str,
}

/// Answers until `shutdown` is over.
pub(super) async fn serve<K: KvEngine>(
    listener: TcpListener,
    sources: StatusSources<K>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics::<K>))
        .route("/status", get(status::<K>))
        .route("/regions", get(regions::<K>))
        .route("/region/{id}", get(region::<K>))
        .route("/healthz", get(health::<K>))
        .with_state(sources);
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

/// Asks the node on a thread that may wait for it.
async fn ask<K: KvEngine, T: Send + 'static>(
    sources: &StatusSources<K>,
    question: impl FnOnce(&NodeHandle<K>) -> T + Send + 'static,
) -> Result<T, StatusCode> {
    let node = sources.node.clone();
    let asked = tokio::task::spawn_blocking(move || question(&node)).await;
    asked.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn metrics<K: KvEngine>(
    State(sources): State<StatusSources<K>>,
) -> Result<Response, StatusCode> {
    let mut text = ask(&sources, |node| node.metrics_text(ASK)).await?;
    text += &sources.transport.counters().exposition();
    for (name, what, value) in sources.server.figures().named() {
        let name = format!("raftkv_server_{name}");
        text += &format!("# HELP {name} {what}\n# TYPE {name} counter\n{name} {value}\n");
    }
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// The node as a whole.
#[derive(Serialize)]
struct NodeStatus {
    version: &'static str,
    cluster: u64,
    store: u64,
    address: String,
    engine: &'static str,
    raft_log: &'static str,
    regions: usize,
    leaders: usize,
    waiting_callers: usize,
    failure: Option<String>,
}

async fn status<K: KvEngine>(
    State(sources): State<StatusSources<K>>,
) -> Result<Json<NodeStatus>, StatusCode> {
    let peers = ask(&sources, |node| node.peers(ASK)).await?;
    Ok(Json(NodeStatus {
        version: env!("CARGO_PKG_VERSION"),
        cluster: sources.cluster.get(),
        store: sources.node.store().get(),
        address: sources.address.clone(),
        engine: sources.engine,
        raft_log: sources.raft_log,
        regions: peers.len(),
        leaders: peers.iter().filter(|peer| peer.is_leader).count(),
        waiting_callers: sources.node.waiting(),
        failure: sources.node.fatal().map(|error| error.to_string()),
    }))
}

/// A replica of a region.
#[derive(Serialize)]
struct RegionStatus {
    region: u64,
    /// In hexadecimal, as everywhere here: keys are bytes.
    start_key: String,
    end_key: String,
    version: u64,
    conf_ver: u64,
    peers: Vec<MemberStatus>,
    peer: u64,
    phase: &'static str,
    is_leader: bool,
    leader: Option<u64>,
    term: u64,
    last_index: u64,
    persisted_index: u64,
    committed_index: u64,
    applied_index: u64,
    truncated_index: u64,
}

#[derive(Serialize)]
struct MemberStatus {
    peer: u64,
    store: u64,
    role: &'static str,
}

impl From<&Peer> for MemberStatus {
    fn from(peer: &Peer) -> Self {
        let role = match peer.role {
            PeerRole::Voter => "voter",
            PeerRole::Learner => "learner",
            PeerRole::IncomingVoter => "incoming voter",
            PeerRole::DemotingVoter => "demoting voter",
        };
        Self { peer: peer.id.get(), store: peer.store.get(), role }
    }
}

impl From<PeerStatus> for RegionStatus {
    fn from(status: PeerStatus) -> Self {
        let PeerStatus { region, peer, phase, applied, .. } = status;
        Self {
            region: region.id.get(),
            start_key: hex(&region.start_key),
            end_key: hex(&region.end_key),
            version: region.epoch.version,
            conf_ver: region.epoch.conf_ver,
            peers: region.peers.iter().map(MemberStatus::from).collect(),
            peer: peer.id.get(),
            phase: match phase {
                PeerPhase::Uninitialized => "waits for its first snapshot",
                PeerPhase::Normal => "normal",
                PeerPhase::Applying => "takes a snapshot in",
                PeerPhase::GoingAway => "is being removed",
                PeerPhase::Quarantined => "quarantined",
            },
            is_leader: status.is_leader,
            leader: (status.leader != 0).then_some(status.leader),
            term: status.term,
            last_index: status.last_index,
            persisted_index: status.persisted_index,
            committed_index: status.committed,
            applied_index: applied.applied,
            truncated_index: applied.truncated.index,
        }
    }
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn regions<K: KvEngine>(
    State(sources): State<StatusSources<K>>,
) -> Result<Json<Vec<RegionStatus>>, StatusCode> {
    let peers = ask(&sources, |node| node.peers(ASK)).await?;
    Ok(Json(peers.into_iter().map(RegionStatus::from).collect()))
}

async fn region<K: KvEngine>(
    State(sources): State<StatusSources<K>>,
    Path(id): Path<u64>,
) -> Result<Json<RegionStatus>, StatusCode> {
    let peers = ask(&sources, |node| node.peers(ASK)).await?;
    let found = peers.into_iter().find(|peer| peer.region.id.get() == id);
    found.map(|peer| Json(peer.into())).ok_or(StatusCode::NOT_FOUND)
}

#[derive(Serialize)]
struct Health {
    healthy: bool,
}

/// Whether the store runs and its lanes answer.
async fn health<K: KvEngine>(
    State(sources): State<StatusSources<K>>,
) -> Result<Response, StatusCode> {
    let answers = ask(&sources, |node| node.lane_metrics(ASK).len()).await?;
    let healthy = answers > 0 && sources.node.fatal().is_none();
    let code = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((code, Json(Health { healthy })).into_response())
}
