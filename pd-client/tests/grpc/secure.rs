//! Connections that both sides secure: by a word that only they know, or by certificates.

use std::{fs, io, net::TcpListener, path::Path, sync::Arc, time::Duration};

use pd_client::{
    Error, PdClient,
    grpc::{
        ClientOptions, GrpcPdClient, Io, SecureAccept, SecureConnect, ServeOptions, serve,
        tls_accept, tls_connect,
    },
};
use raftstore_grpc::{Tls, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{block_on, patient};

const WORD: &[u8; 6] = b"sesame";

fn accept() -> SecureAccept {
    Arc::new(|mut stream| {
        Box::pin(async move {
            let mut word = [0; WORD.len()];
            stream.read_exact(&mut word).await?;
            if word == *WORD {
                Ok(Box::new(stream) as Box<dyn Io>)
            } else {
                Err(io::ErrorKind::PermissionDenied.into())
            }
        })
    })
}

fn connect(word: &'static [u8; 6]) -> SecureConnect {
    Arc::new(move |mut stream, host| {
        Box::pin(async move {
            assert_eq!(host, "localhost");
            stream.write_all(word).await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    })
}

#[test]
fn who_does_not_secure_a_connection_as_the_server_does_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let options = ServeOptions {
        secure: Some(accept()),
        advertise: Some(format!("localhost:{port}")),
        ..ServeOptions::new(dir.path())
    };
    let server = serve(listener, options).expect("the directory is good");
    assert_eq!(server.url(), format!("https://localhost:{port}"));
    let endpoints = [format!("localhost:{port}")];
    let knowing = ClientOptions { secure: Some(connect(WORD)), ..patient() };
    let client = GrpcPdClient::connect(&endpoints, knowing).expect("it knows the word");
    assert!(block_on(client.alloc_id()).is_ok(), "the leader is reached in the same way");
    let impatient = ClientOptions {
        attempt_timeout: Duration::from_millis(100),
        deadline: Duration::from_millis(300),
        ..ClientOptions::default()
    };
    let wrong = ClientOptions { secure: Some(connect(b"simsim")), ..impatient.clone() };
    for options in [impatient, wrong] {
        let error = GrpcPdClient::connect(&endpoints, options).expect_err("it does not");
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    }
    assert!(server.counters().connections_refused >= 2);
    assert!(block_on(client.alloc_id()).is_ok(), "others are served");
}

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn issuer() -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an issuer")
}

/// Certificates of somebody of that name at this machine.
fn certificates(dir: &Path, issuer: &Issuer, name: &str, allowed: &[&str]) -> Tls {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.signed_by(&key, issuer).expect("it is signed");
    let write = |what: &str, pem: String| {
        let file = dir.join(format!("{name}-{what}.pem"));
        fs::write(&file, pem).expect("it can be written");
        file
    };
    let files = TlsFiles {
        ca: write("ca", issuer.pem()),
        certificate: write("certificate", certificate.pem()),
        key: write("key", key.serialize_pem()),
        allowed_names: allowed.iter().map(|&name| name.to_owned()).collect(),
    };
    Tls::load(files).expect("the files are good")
}

/// Only who has a certificate of the authority and an allowed name is served, and only by a
/// PD that has one, too.
#[test]
fn certificates_are_demanded_on_both_sides() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = tempfile::tempdir().expect("a directory");
    let (ours, theirs) = (issuer(), issuer());
    let of = |issuer, name| certificates(files.path(), issuer, name, &[]);
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let options = ServeOptions {
        secure: Some(tls_accept(certificates(files.path(), &ours, "pd", &["store"]))),
        ..ServeOptions::new(dir.path())
    };
    let server = serve(listener, options).expect("the directory is good");
    let endpoints = [server.address().to_string()];
    let connect = |tls: Option<Tls>, options: ClientOptions| {
        let options = ClientOptions { secure: tls.map(tls_connect), ..options };
        GrpcPdClient::connect(&endpoints, options)
    };
    let client = connect(Some(of(&ours, "store")), patient()).expect("it may");
    assert!(block_on(client.alloc_id()).is_ok());
    let impatient = ClientOptions {
        attempt_timeout: Duration::from_millis(200),
        deadline: Duration::from_millis(500),
        ..ClientOptions::default()
    };
    for tls in [None, Some(of(&theirs, "store")), Some(of(&ours, "somebody"))] {
        let error = connect(tls, impatient.clone()).expect_err("it may not");
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    }
    assert!(server.counters().connections_refused >= 3);
    assert!(block_on(client.alloc_id()).is_ok(), "others are served");
}
