//! A placement driver and nodes that show each other certificates, and talk to nobody else.
#![expect(clippy::panic, clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "clusters without certificates are for other tests")]
mod nodes;

use std::{
    fs,
    path::{Path, PathBuf},
};

use nodes::{Process, wait_until};
use pd_client::{
    PdCluster as _,
    grpc::{ClientOptions, GrpcPdClient, tls_connect},
};
use raftstore_grpc::{
    ClientConfig, ProtobufCodec, Tls, TlsFiles, connect,
    pb::kvrpcpb::{Context, RawPutRequest, RawPutResponse},
};
use raftstore_proto::wire::{epoch_to_pb, peer_to_pb};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tonic::{Request, Status, client::Grpc, codegen::http::uri::PathAndQuery};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn issuer() -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Files that say that their owner is `name`, at this machine.
fn files(dir: &Path, issuer: &Issuer, name: &str) -> TlsFiles {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.signed_by(&key, issuer).unwrap();
    let write = |what: &str, pem: String| -> PathBuf {
        let file = dir.join(format!("{name}-{what}.pem"));
        fs::write(&file, pem).unwrap();
        file
    };
    TlsFiles {
        ca: write("ca", issuer.pem()),
        certificate: write("certificate", certificate.pem()),
        key: write("key", key.serialize_pem()),
        allowed_names: Vec::new(),
    }
}

fn start(arguments: &[&str], files: &TlsFiles) -> Process {
    let [ca, certificate, key] =
        [&files.ca, &files.certificate, &files.key].map(|file| file.to_str().unwrap());
    let mut all = arguments.to_vec();
    all.extend(["--ca", ca, "--cert", certificate, "--key", key]);
    Process::start(&all)
}

/// Puts a row on the node at `address`, by whatever connection `tls` gives.
async fn put(address: &str, context: Context, tls: Option<Tls>) -> Result<RawPutResponse, Status> {
    let config = ClientConfig { tls, ..ClientConfig::default() };
    let unavailable = |error: &dyn std::fmt::Display| Status::unavailable(error.to_string());
    let channel = connect(address, &config).await.map_err(|error| unavailable(&error))?;
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| unavailable(&error))?;
    let mut request = RawPutRequest::new();
    request.set_context(context);
    request.set_key("key".into());
    request.set_value("value".into());
    let codec = ProtobufCodec::<RawPutRequest, RawPutResponse>::default();
    let path = PathAndQuery::from_static("/tikvpb.Tikv/RawPut");
    Ok(grpc.unary(Request::new(request), path, codec).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_certificates_serves_those_who_have_one() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (issuer(), issuer());
    let of = |issuer: &Issuer, name: &str| files(folder.path(), issuer, name);
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let pd = start(&["pd", "--addr", "127.0.0.1:0", "--dir", &at("pd")], &of(&ours, "pd"));
    let pd_address = pd.word_after("listens on");
    fs::write(at("node.toml"), nodes::SETTINGS).unwrap();
    let (config, node_files) = (at("node.toml"), of(&ours, "store"));
    let mut processes = Vec::new();
    for number in 1..=3 {
        let dir = at(&format!("node-{number}"));
        let arguments = [
            "serve",
            "--config",
            &config,
            "--dir",
            &dir,
            "--addr",
            "127.0.0.1:0",
            "--pd",
            &pd_address,
            "--store-names",
            "store",
        ];
        processes.push(start(&arguments, &node_files));
    }
    let client_files = of(&ours, "client");
    let tls = Tls::load(client_files).unwrap();
    let secure = Some(tls_connect(tls.clone()));
    let options = ClientOptions { secure, ..ClientOptions::default() };
    let endpoints = [pd_address.clone()];
    let pd_client = tokio::task::spawn_blocking(move || GrpcPdClient::connect(&endpoints, options))
        .await
        .unwrap()
        .unwrap();

    // Replicas reach each other: a region gets its three, and its leader takes a write.
    let (context, address) = wait_until("three replicas and a leader", async || {
        let routes = pd_client.scan_regions(bytes::Bytes::new(), bytes::Bytes::new(), 10).await;
        let route = routes.ok()?.into_iter().next()?;
        let leader = route.leader.filter(|_| route.region.peers.len() == 3)?;
        let stores = pd_client.stores().await.ok()?;
        let store = stores.into_iter().find(|store| store.id == leader.store)?;
        let mut context = Context::new();
        context.set_region_id(route.region.id.get());
        context.set_region_epoch(epoch_to_pb(route.region.epoch));
        context.set_peer(peer_to_pb(&leader));
        Some((context, store.address))
    })
    .await;
    wait_until("a write", async || {
        let answer = put(&address, context.clone(), Some(tls.clone())).await.unwrap();
        (!answer.has_region_error() && answer.error.is_empty()).then_some(())
    })
    .await;

    // Whoever has none, or one of somebody else's, gets no answer.
    assert!(put(&address, context.clone(), None).await.is_err());
    let foreign = Tls::load(of(&theirs, "client")).unwrap();
    assert!(put(&address, context.clone(), Some(foreign)).await.is_err());
    assert!(put(&address, context, Some(tls)).await.is_ok(), "others are served");
    for process in processes {
        assert!(process.end().success());
    }
}
