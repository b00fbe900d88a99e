//! Who does not speak the protocol, or means no good, is refused and counted; everybody else
//! is served as before.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
};

use bytes::Bytes;
use pd_client::{
    Error, PdClient,
    grpc::{ClientOptions, GrpcPdClient, PdStub},
};
use protobuf::{Message as _, UnknownFields};
use raftstore_grpc::pb::{metapb, pdpb};
use raftstore_proto::ClusterId;
use tonic::{Code, Status, transport::Channel};

use crate::world::{CLUSTER, World, block_on, first_region, info, patient};

/// Calls the server without the checks that a client makes.
pub(crate) fn raw<T>(
    world: &World,
    call: impl AsyncFnOnce(PdStub<Channel>, pdpb::RequestHeader) -> T,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let stub = PdStub::connect(format!("http://{}", world.address())).await;
        let mut header = pdpb::RequestHeader::new();
        header.cluster_id = CLUSTER.get();
        call(stub.expect("the server is there"), header).await
    })
}

/// Asks until the count is reached: connections are refused on threads of the server's.
fn until(mut is_reached: impl FnMut() -> bool) {
    while !is_reached() {
        thread::yield_now();
    }
}

#[test]
fn garbage_is_refused_and_counted() {
    let world = World::new();
    let client = world.client();
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: pd\r\n\r\n",
        &[0; 64],
        &[0xff; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n",
    ];
    for bytes in garbage {
        let mut stream = TcpStream::connect(world.address()).expect("the server listens");
        stream.write_all(bytes).expect("it is sent");
        let mut rest = Vec::new();
        // Reset or ended, it is over.
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "answered with {rest:?}");
    }
    // One that ends before it has begun.
    drop(TcpStream::connect(world.address()).expect("the server listens"));
    until(|| world.server().counters().connections_refused == 5);
    // One that begins well and goes on with garbage ends, too.
    let mut stream = TcpStream::connect(world.address()).expect("the server listens");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("it is sent");
    stream.write_all(&[0xee; 512]).expect("it is sent");
    let _ = stream.read_to_end(&mut Vec::new());
    assert!(block_on(client.alloc_id()).is_ok(), "others are served");
}

#[test]
fn another_cluster_is_refused() {
    let world = World::new();
    let theirs = ClusterId::must(8);
    let options = ClientOptions { cluster: Some(theirs), ..patient() };
    let error = GrpcPdClient::connect(&world.endpoints(), options).expect_err("another cluster");
    assert!(matches!(error, Error::WrongCluster { ours, theirs: found }
        if ours == theirs && found == CLUSTER));
    let status: Status = raw(&world, async |mut pd, mut header| {
        header.cluster_id = 8;
        let mut request = pdpb::AllocIDRequest::new();
        request.set_header(header);
        pd.alloc_id(request).await.expect_err("another cluster")
    });
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.message(), "mismatch cluster id, need 7 but got 8");
    let status: Status = raw(&world, async |mut pd, _| {
        // No header is no cluster.
        pd.get_store(pdpb::GetStoreRequest::new()).await.expect_err("no cluster")
    });
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(world.server().counters().wrong_cluster, 2);
}

/// Neither large frames, nor small ones that would be large when decoded.
#[test]
fn giant_requests_are_refused() {
    let world = World::new();
    let client = world.client();
    let codes = raw(&world, async |mut pd, header| {
        let mut giant = pdpb::GetRegionRequest::new();
        giant.set_header(header.clone());
        giant.region_key = Bytes::from(vec![b'k'; 2 << 20]);
        let too_long = pd.get_region(giant).await.expect_err("2 MiB").code();

        let mut crowd = pdpb::ReportBatchSplitRequest::new();
        crowd.set_header(header.clone());
        crowd.regions = vec![metapb::Region::new(); 400_000].into();
        let too_many = pd.report_batch_split(crowd).await.expect_err("many regions").code();

        let mut strange = pdpb::AllocIDRequest::new();
        strange.set_header(header);
        let mut fields = UnknownFields::new();
        for number in 100..20_000 {
            fields.add_varint(number, 1);
        }
        *strange.mut_unknown_fields() = fields;
        let unknown = pd.alloc_id(strange).await.expect_err("unknown fields").code();
        [too_long, too_many, unknown]
    });
    assert_eq!(codes, [Code::OutOfRange, Code::InvalidArgument, Code::InvalidArgument]);
    let key = Bytes::from(vec![b'k'; 2 << 20]);
    assert!(matches!(block_on(client.region_by_key(key)), Err(Error::Refused(_))));
    assert!(block_on(client.alloc_id()).is_ok(), "others are served");
}

/// What PD would have to remember is bounded.
#[test]
fn boundless_descriptions_are_refused() {
    let world = World::new();
    let client = world.client();
    let region = first_region(2, 3, 1);
    block_on(client.bootstrap_cluster(info(1, "a:1"), region)).expect("it is the first");
    let mut far = info(4, "b:1");
    far.address = "b".repeat(1025);
    let mut labelled = info(4, "b:1");
    labelled.labels = vec![("zone".to_owned(), "z".to_owned()); 65];
    let mut wordy = info(4, "b:1");
    wordy.labels = vec![("zone".to_owned(), "z".repeat(1025))];
    for store in [far, labelled, wordy] {
        assert!(matches!(block_on(client.put_store(store)), Err(Error::Refused(_))));
    }
    let code = raw(&world, async |mut pd, header| {
        let mut request = pdpb::AllocIDRequest::new();
        request.set_header(header);
        request.count = u32::MAX;
        let answer = pd.alloc_id(request).await.expect("a refusal is an answer").into_inner();
        answer.get_header().get_error().get_field_type()
    });
    assert_eq!(code, pdpb::ErrorType::INVALID_VALUE);
}

#[test]
fn calls_that_are_not_served_are_unimplemented() {
    let world = World::new();
    let code = raw(&world, async |_, _| {
        let channel =
            tonic::transport::Endpoint::from_shared(format!("http://{}", world.address()))
                .expect("an address")
                .connect()
                .await
                .expect("the server is there");
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.expect("it is connected");
        let codec =
            raftstore_grpc::ProtobufCodec::<pdpb::GetMinTSRequest, pdpb::GetMinTSResponse>::default(
            );
        let path = http::uri::PathAndQuery::from_static("/pdpb.PD/GetMinTS");
        let request = tonic::Request::new(pdpb::GetMinTSRequest::new());
        grpc.unary(request, path, codec).await.expect_err("not served").code()
    });
    assert_eq!(code, Code::Unimplemented);
}
