//! The contract suite on the PD in process, on the same one served over the network, and on
//! the one whose addresses are in `RAFTSTORE_PD_ENDPOINTS`, separated by commas.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    time::Duration,
};

use pd_client::{
    OrderAction, PdCluster,
    conformance::{self, Outcome, PdFixture},
    grpc::{ClientOptions, GrpcPdClient, PdServer, ServeOptions, serve},
    mock::{MockPd, PdConfig},
};
use raftstore_proto::{ClusterId, RegionId};
use tempfile::TempDir;

const CLUSTER: ClusterId = ClusterId::must(7);

struct InProcess(MockPd);

impl PdFixture for InProcess {
    fn client(&self) -> Arc<dyn PdCluster> {
        Arc::new(self.0.clone())
    }

    fn is_new(&self) -> bool {
        true
    }

    fn force_order(&self, region: RegionId, action: OrderAction) -> bool {
        self.0.force_order(region, action).is_ok()
    }
}

fn patient() -> ClientOptions {
    ClientOptions { deadline: Duration::from_secs(60), ..ClientOptions::default() }
}

struct Served {
    dir: TempDir,
    address: SocketAddr,
    server: Mutex<Option<PdServer>>,
}

impl Served {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Self::start(&dir, ([127, 0, 0, 1], 0).into());
        Self { dir, address: server.address(), server: Mutex::new(Some(server)) }
    }

    fn start(dir: &TempDir, address: SocketAddr) -> PdServer {
        let listener = TcpListener::bind(address).expect("the address is free");
        let options = ServeOptions {
            cluster: Some(CLUSTER),
            config: PdConfig::manual(),
            ..ServeOptions::new(dir.path())
        };
        serve(listener, options).expect("the directory is good")
    }
}

impl PdFixture for Served {
    fn client(&self) -> Arc<dyn PdCluster> {
        let endpoint = self.address.to_string();
        Arc::new(GrpcPdClient::connect(&[endpoint], patient()).expect("the server is there"))
    }

    fn is_new(&self) -> bool {
        true
    }

    fn force_order(&self, region: RegionId, action: OrderAction) -> bool {
        let server = self.server.lock().expect("nobody panicked");
        let server = server.as_ref().expect("it runs");
        server
            .with_core(move |core, now_ms| core.force_order(now_ms, region, action))
            .is_ok_and(|forced| forced.is_ok())
    }

    fn restart(&self) -> bool {
        let mut server = self.server.lock().expect("nobody panicked");
        server.take().expect("it runs").kill();
        *server = Some(Self::start(&self.dir, self.address));
        true
    }
}

/// A PD that somebody else started for this.
struct Given(Vec<String>);

impl PdFixture for Given {
    fn client(&self) -> Arc<dyn PdCluster> {
        Arc::new(GrpcPdClient::connect(&self.0, patient()).expect("a PD is there"))
    }
}

mod in_process {
    use super::*;

    pd_client::pd_conformance!(InProcess(MockPd::new(CLUSTER, PdConfig::manual())));
}

mod served {
    use super::*;

    pd_client::pd_conformance!(Served::new());
}

/// Says what a given PD does not do; without one there is nothing to say.
#[test]
fn a_given_pd() {
    let Ok(endpoints) = std::env::var("RAFTSTORE_PD_ENDPOINTS") else { return };
    let endpoints: Vec<String> = endpoints.split(',').map(str::to_owned).collect();
    let mut failures = Vec::new();
    for report in conformance::run(|| Given(endpoints.clone())) {
        println!("{}: {:?}", report.name, report.outcome);
        if let Outcome::Failed(why) = report.outcome {
            failures.push(format!("{}: {why}", report.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
