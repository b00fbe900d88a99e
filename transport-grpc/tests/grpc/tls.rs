//! Stores that show certificates.

use std::{fs, path::Path, sync::Arc};

use raftstore_grpc::{ClientConfig, ServerConfig, Tls, TlsFiles};
use raftstore_proto::StoreId;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tonic::service::Routes;
use transport_grpc::{GrpcConfig, Refusal};
use transport_traits::{StoreResolver, Transport};

use crate::common::{
    Addresses, CLUSTER, End,
    log::{Node, ONE, TWO, beat},
    wait_until,
};

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("there is chance enough");
    CertifiedIssuer::self_signed(params, key).expect("the parameters are sound")
}

/// A certificate for this machine, of this common name, in files.
fn files(directory: &Path, issuer: &CertifiedIssuer<'static, KeyPair>, name: &str) -> TlsFiles {
    let mut params =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("it is an address");
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().expect("there is chance enough");
    let certificate = params.signed_by(&key, issuer).expect("the parameters are sound");
    let write = |what: &str, pem: String| {
        let file = directory.join(format!("{name}.{what}.pem"));
        fs::write(&file, pem).expect("the directory is there");
        file
    };
    TlsFiles {
        ca: write("ca", issuer.pem()),
        certificate: write("certificate", certificate.pem()),
        key: write("key", key.serialize_pem()),
        allowed_names: Vec::new(),
    }
}

fn node(tls: Option<Tls>, addresses: &Arc<Addresses>, store: StoreId) -> Node {
    let config = GrpcConfig {
        client: ClientConfig { tls: tls.clone(), ..ClientConfig::default() },
        store_names: vec!["store".to_owned()],
        ..GrpcConfig::default()
    };
    let server = ServerConfig { tls, ..ServerConfig::default() };
    let resolver = Arc::clone(addresses) as Arc<dyn StoreResolver>;
    let node = Node::new(End::start(config, server, CLUSTER, resolver, Routes::default()), store);
    addresses.set(store, node.end.address);
    node
}

#[track_caller]
fn expect_no_way(one: &mut Node) {
    let before = one.log.told().unreachable.len();
    wait_until("the loss", || {
        let _ = one.sender.send(beat(ONE, TWO));
        one.sender.flush();
        one.log.told().unreachable.len() > before
    });
}

#[test]
fn only_stores_with_a_certificate_of_the_authority_are_listened_to() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = |name: &str| {
        let path = directory.path().join(name);
        fs::create_dir(&path).expect("it is new");
        path
    };
    let (issuer, other_issuer) = (authority(), authority());
    let tls = |files: TlsFiles| Some(Tls::load(files).expect("the files are good"));
    let store = files(&path("a"), &issuer, "store");
    let addresses = Arc::<Addresses>::default();
    let two = node(tls(store.clone()), &addresses, TWO);
    let mut one = node(tls(store.clone()), &addresses, ONE);
    one.reach(&two, ONE, TWO);
    drop(one);
    let heard = two.log.told().messages.len();

    // Of the same authority, but with a client's name: the port is open, that door is not.
    let client = files(&path("b"), &issuer, "client");
    let mut client = node(tls(client), &addresses, ONE);
    expect_no_way(&mut client);
    assert!(two.counters().refused_for(Refusal::Certificate) > 0);

    // Of another authority, which one of the two ends does not trust.
    let foreign = files(&path("c"), &other_issuer, "store");
    let mut foreigner = node(tls(foreign.clone()), &addresses, ONE);
    expect_no_way(&mut foreigner);
    let trusting = TlsFiles { ca: store.ca.clone(), ..foreign };
    let mut foreigner = node(tls(trusting), &addresses, ONE);
    let refused = || two.end.server.figures().refused_tls;
    let before = refused();
    expect_no_way(&mut foreigner);
    wait_until("the refusal", || refused() > before);

    // Without any.
    let before = refused();
    let mut plain = node(None, &addresses, ONE);
    expect_no_way(&mut plain);
    wait_until("the refusal", || refused() > before);
    // What was heard came while there was nobody else.
    assert_eq!(two.log.told().messages.len(), heard);
}

/// Certificates are renewed under the feet of stores that run.
#[test]
fn a_new_authority_takes_over_without_a_restart() {
    let directory = tempfile::tempdir().expect("there is room");
    let (old, new) = (authority(), authority());
    let certificates = files(directory.path(), &old, "store");
    let addresses = Arc::<Addresses>::default();
    let tls = [(); 2].map(|()| Tls::load(certificates.clone()).expect("the files are good"));
    let [at_one, at_two] = tls;
    let mut one = node(Some(at_one.clone()), &addresses, ONE);
    let mut two = node(Some(at_two.clone()), &addresses, TWO);
    one.reach(&two, ONE, TWO);

    files(directory.path(), &new, "store");
    at_two.reload().expect("the files are good");
    // The way that is open stays; the way back has to be made, and store 1 is of the old
    // authority still.
    one.reach(&two, ONE, TWO);
    let _ = two.sender.send(beat(TWO, ONE));
    two.sender.flush();
    wait_until("the loss", || !two.log.told().unreachable.is_empty());
    at_one.reload().expect("the files are good");
    two.reach(&one, TWO, ONE);
}
