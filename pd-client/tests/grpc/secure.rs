//! Connections that both sides secure by a way of their own: here, a word that only they know.

use std::{io, net::TcpListener, sync::Arc, time::Duration};

use pd_client::{
    Error, PdClient,
    grpc::{ClientOptions, GrpcPdClient, Io, SecureAccept, SecureConnect, ServeOptions, serve},
};
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
