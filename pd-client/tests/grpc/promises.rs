//! Timestamps and safe points: what transactions count on.

use pd_client::grpc::PdStub;
use raftstore_grpc::pb::pdpb;
use tokio_stream::iter;
use tonic::{Code, transport::Channel};

use crate::{hostile::raw, world::World};

fn question(header: &pdpb::RequestHeader, count: u32) -> pdpb::TsoRequest {
    let mut request = pdpb::TsoRequest::new();
    request.set_header(header.clone());
    request.count = count;
    request
}

/// First and last of each answer.
async fn timestamps(
    pd: &mut PdStub<Channel>,
    header: &pdpb::RequestHeader,
    counts: &[u32],
) -> Vec<[(i64, i64); 2]> {
    let questions: Vec<_> = counts.iter().map(|count| question(header, *count)).collect();
    let mut answers = pd.tso(iter(questions)).await.expect("it is served").into_inner();
    let mut taken = Vec::new();
    for _ in counts {
        let answer = answers.message().await.expect("no refusal").expect("an answer for each");
        let last = answer.get_timestamp();
        let first = last.logical + 1 - i64::from(answer.count);
        taken.push([(last.physical, first), (last.physical, last.logical)]);
    }
    taken
}

/// Every timestamp is later than all before it, whenever the server was killed. So many are
/// taken that they run seconds ahead of the clock: it is no help after a restart.
#[test]
fn timestamps_grow_over_kills() {
    let mut world = World::new();
    let mut newest = (0, 0);
    let counts = [&[1, 10, 262_143, 5][..], &[262_143; 8000]].concat();
    for life in 0..3 {
        let taken = raw(&world, async |mut pd, header| timestamps(&mut pd, &header, &counts).await);
        for [first, last] in taken {
            assert!(first > newest, "{first:?} in life {life} is not after {newest:?}");
            newest = last;
        }
        if life == 1 {
            world.stop()
        } else {
            world.kill()
        }
        world.start();
    }
}

#[test]
fn timestamps_are_asked_for_in_numbers_that_can_be() {
    let world = World::new();
    for count in [0, 262_144, u32::MAX] {
        let code = raw(&world, async |mut pd, header| {
            let mut answers =
                pd.tso(iter([question(&header, count)])).await.expect("it is served").into_inner();
            answers.message().await.expect_err("no such number").code()
        });
        assert_eq!(code, Code::InvalidArgument, "{count}");
    }
}

#[test]
fn safe_points_hold_over_kills_and_do_not_go_back() {
    let mut world = World::new();
    let raise = |world: &World, to: u64| {
        raw(world, async |mut pd, header| {
            let mut request = pdpb::UpdateGCSafePointRequest::new();
            request.set_header(header);
            request.safe_point = to;
            let answer = pd.update_gc_safe_point(request).await.expect("it is served");
            answer.into_inner().new_safe_point
        })
    };
    let hold = |world: &World, service: &'static str, safe_point: u64| {
        raw(world, async |mut pd, header| {
            let mut request = pdpb::UpdateServiceGCSafePointRequest::new();
            request.set_header(header);
            request.service_id = service.into();
            request.TTL = if service == "gc_worker" { i64::MAX } else { 1_000_000 };
            request.safe_point = safe_point;
            let answer = pd.update_service_gc_safe_point(request).await.expect("it is served");
            answer.into_inner().min_safe_point
        })
    };
    assert_eq!(raise(&world, 70), 70);
    assert_eq!(hold(&world, "gc_worker", 80), 80);
    assert_eq!(hold(&world, "backup", 90), 80);
    world.kill();
    world.start();
    assert_eq!(raise(&world, 60), 70);
    assert_eq!(hold(&world, "gc_worker", 100), 90, "the backup still needs 90");
    let found = raw(&world, async |mut pd, header| {
        let mut request = pdpb::GetGCSafePointRequest::new();
        request.set_header(header);
        pd.get_gc_safe_point(request).await.expect("it is served").into_inner().safe_point
    });
    assert_eq!(found, 70);
}

/// What a client asks when it connects, in the form it asks it.
#[test]
fn clients_learn_who_leads_and_how_many_replicas_there_shall_be() {
    let mut world = World::new();
    let url = format!("http://{}", world.address());
    let (members, info) = raw(&world, async |mut pd, _| {
        // Neither names a cluster: who asks does not know it yet.
        let members = pd.get_members(pdpb::GetMembersRequest::new()).await.expect("it is served");
        let info = pd.get_cluster_info(pdpb::GetClusterInfoRequest::new()).await;
        (members.into_inner(), info.expect("it is served").into_inner())
    });
    assert_eq!(members.get_header().cluster_id, 7);
    assert!(!members.get_header().has_error());
    assert_eq!(members.get_leader().client_urls.first(), Some(&url));
    assert_eq!(members.members.first(), Some(members.get_leader()));
    assert_eq!(info.serviceModes, [pdpb::ServiceMode::PD_SVC_MODE]);
    let put = |world: &World, count| {
        raw(world, async |mut pd, header| {
            let mut request = pdpb::PutClusterConfigRequest::new();
            request.mut_cluster().id = header.cluster_id;
            request.mut_cluster().max_peer_count = count;
            request.set_header(header);
            let answer = pd.put_cluster_config(request).await.expect("it is served").into_inner();
            !answer.get_header().has_error()
        })
    };
    let get = |world: &World| {
        raw(world, async |mut pd, header| {
            let mut request = pdpb::GetClusterConfigRequest::new();
            request.set_header(header);
            let answer = pd.get_cluster_config(request).await.expect("it is served").into_inner();
            answer.get_cluster().max_peer_count
        })
    };
    assert_eq!(get(&world), 3);
    assert!(!put(&world, 0) && !put(&world, 33));
    assert!(put(&world, 5));
    world.kill();
    world.start();
    assert_eq!(get(&world), 5);
}
