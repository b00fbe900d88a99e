//! The proof by a client that nobody here wrote: the raw client of the `tikv-client` crate,
//! used as its documentation says, against nodes that are processes of their own.
#![expect(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod nodes;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use protobuf::Message as _;
use raftstore_grpc::{
    ProtobufCodec,
    pb::kvrpcpb::{SplitRegionRequest, SplitRegionResponse},
};
use raftstore_proto::{
    StoreId,
    wire::{epoch_to_pb, peer_to_pb},
};
use tikv_client::{Backoff, RawClient};

use nodes::{Cluster, DEADLINE, wait_until};

/// Keys of one writer.
const KEYS: u64 = 200;
const WRITERS: u64 = 4;
const COUNTERS: u64 = 3;

fn key(writer: u64, number: u64) -> String {
    format!("k{writer}{number:05}")
}

async fn connect(cluster: &Cluster) -> RawClient {
    let client = RawClient::new(vec![cluster.pd_address.clone()]).await.unwrap();
    // It tries again for longer than an election takes.
    client.with_backoff(Backoff::no_jitter_backoff(10, 500, 30))
}

/// Does something until it succeeds. What has failed may have happened all the same.
async fn insist<T, F: Future<Output = tikv_client::Result<T>>>(
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert!(Instant::now() < deadline, "{what}: {error}"),
        }
    }
}

/// What goes on while the cluster changes.
#[derive(Default)]
struct Work {
    over: AtomicBool,
    /// Operations that succeeded.
    done: AtomicU64,
    /// Steps of the counter that were acknowledged, and those that were tried.
    steps: AtomicU64,
    tries: AtomicU64,
}

impl Work {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// Waits until `count` more operations have succeeded.
    async fn progress(&self, count: u64) {
        let target = self.done.load(Ordering::Relaxed) + count;
        wait_until("operations to succeed", || async {
            (self.done.load(Ordering::Relaxed) >= target).then_some(())
        })
        .await;
    }
}

/// Writes keys of its own and reads them back. Gives what it wrote last.
async fn write(client: RawClient, work: Arc<Work>, writer: u64) -> BTreeMap<String, String> {
    let mut written = BTreeMap::new();
    for round in 0_u64.. {
        if !work.goes_on() && round >= KEYS {
            break;
        }
        let key = key(writer, round % KEYS);
        let value = format!("{key} round {round}");
        insist("a put", || client.put(key.clone(), value.clone())).await;
        written.insert(key.clone(), value.clone());
        let read = insist("a get", || client.get(key.clone())).await;
        assert_eq!(read.as_deref(), Some(value.as_bytes()), "an acknowledged write is not read");
        work.done.fetch_add(1, Ordering::Relaxed);
    }
    written
}

/// Counts in one value that others count in, too.
async fn count(client: RawClient, work: Arc<Work>) {
    let client = client.with_atomic_for_cas();
    let mut seen: Option<Vec<u8>> = None;
    while work.goes_on() {
        let number: u64 = match &seen {
            Some(value) => String::from_utf8(value.clone()).unwrap().parse().unwrap(),
            None => 0,
        };
        let next = (number + 1).to_string();
        work.tries.fetch_add(1, Ordering::Relaxed);
        let swap = client.compare_and_swap("counter".to_owned(), seen.clone(), next.clone());
        match swap.await {
            Ok((_, true)) => {
                work.steps.fetch_add(1, Ordering::Relaxed);
                work.done.fetch_add(1, Ordering::Relaxed);
                seen = Some(next.into_bytes());
            }
            Ok((previous, false)) => seen = previous,
            // Whether it happened shows the next time.
            Err(_) => {}
        }
    }
}

/// Cuts a region through the service of its leader, as tools do.
async fn split(cluster: &Cluster, at: &str) {
    wait_until("a split", || async {
        let routes = cluster.regions().await;
        if routes.iter().any(|route| route.region.start_key == at.as_bytes()) {
            return Some(());
        }
        let route = routes.into_iter().find(|route| route.region.contains(at.as_bytes()))?;
        let leader = route.leader?;
        let mut request = SplitRegionRequest::default();
        let context = request.mut_context();
        context.region_id = route.region.id.get();
        context.set_region_epoch(epoch_to_pb(route.region.epoch));
        context.set_peer(peer_to_pb(&leader));
        request.split_keys.push(Bytes::copy_from_slice(at.as_bytes()));
        request.is_raw_kv = true;
        let address = &cluster.nodes[cluster.node_of(leader.store)].address;
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
        let channel = channel.unwrap().connect().await.ok()?;
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.ok()?;
        let path = "/tikvpb.Tikv/SplitRegion".parse().unwrap();
        let codec = ProtobufCodec::<SplitRegionRequest, SplitRegionResponse>::default();
        let answer = grpc.unary(tonic::Request::new(request), path, codec).await.ok()?.into_inner();
        assert!(answer.errors.is_empty(), "{}", answer.write_to_bytes().unwrap().len());
        None
    })
    .await;
}

/// The store that leads most regions.
async fn main_leader(cluster: &Cluster) -> StoreId {
    let mut counts: BTreeMap<StoreId, usize> = BTreeMap::new();
    for leader in cluster.regions().await.iter().filter_map(|route| route.leader) {
        *counts.entry(leader.store).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).expect("regions have leaders").0
}

/// Waits until every region is led, and none on `store`.
async fn led_elsewhere(cluster: &Cluster, store: StoreId) {
    wait_until("all regions to be led elsewhere", || async {
        let routes = cluster.regions().await;
        let elsewhere = |leader: raftstore_proto::Peer| leader.store != store;
        routes.iter().all(|route| route.leader.is_some_and(elsewhere)).then_some(())
    })
    .await;
}

async fn replicated(cluster: &Cluster) {
    wait_until("three voters", || async {
        let routes = cluster.regions().await;
        let voters = |region: &raftstore_proto::Region| {
            region.peers.iter().filter(|peer| peer.role.votes_after()).count()
        };
        let all = !routes.is_empty() && routes.iter().all(|route| voters(&route.region) == 3);
        all.then_some(())
    })
    .await;
}

/// XT-11 and the rest of the contract, with everything at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_tikv_works_while_regions_split_leaders_move_and_a_node_dies() {
    let mut cluster = tokio::task::spawn_blocking(|| Cluster::of(3)).await.unwrap();
    let client = connect(&cluster).await;
    replicated(&cluster).await;
    let work = Arc::new(Work::default());
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(client.clone(), Arc::clone(&work), writer)))
        .collect();
    let counters: Vec<_> =
        (0..COUNTERS).map(|_| tokio::spawn(count(client.clone(), Arc::clone(&work)))).collect();

    work.progress(200).await;
    for at in ["k1", "k200100", "k3", "k000100"] {
        split(&cluster, at).await;
    }
    replicated(&cluster).await;
    work.progress(300).await;

    // One dies where most regions are led.
    let killed = main_leader(&cluster).await;
    let at = cluster.node_of(killed);
    cluster.nodes[at].process.take().unwrap().kill();
    led_elsewhere(&cluster, killed).await;
    work.progress(300).await;
    cluster = tokio::task::spawn_blocking(move || {
        cluster.restart(at);
        cluster
    })
    .await
    .unwrap();
    split(&cluster, "k300150").await;
    work.progress(300).await;

    // One is asked to go: it hands its leaders over first.
    let leaving = main_leader(&cluster).await;
    let at = cluster.node_of(leaving);
    let process = cluster.nodes[at].process.take().unwrap();
    let status = tokio::task::spawn_blocking(move || process.end()).await.unwrap();
    assert!(status.success(), "{status}");
    led_elsewhere(&cluster, leaving).await;
    work.progress(300).await;
    cluster = tokio::task::spawn_blocking(move || {
        cluster.restart(at);
        cluster
    })
    .await
    .unwrap();
    work.progress(300).await;

    work.over.store(true, Ordering::Relaxed);
    let mut written = BTreeMap::new();
    for writer in writers {
        written.extend(writer.await.unwrap());
    }
    for counter in counters {
        counter.await.unwrap();
    }
    assert_eq!(written.len() as u64, WRITERS * KEYS);
    assert!(cluster.regions().await.len() >= 6);
    check(&client, &written).await;
    check_counter(&client, &work).await;
    remove_and_add(&client, written).await;
}

type Written = BTreeMap<String, String>;

fn rows(pairs: Vec<tikv_client::KvPair>) -> Vec<(String, String)> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    pairs.into_iter().map(|pair| (text(pair.0.into()), text(pair.1))).collect()
}

/// Everything written is read, one by one, together, and in both directions. Limits are the
/// number of rows that there are: asked for more, this client begins anew at the first region.
async fn check(client: &RawClient, written: &Written) {
    for (key, value) in written {
        let read = insist("a get", || client.get(key.clone())).await;
        assert_eq!(read.as_deref(), Some(value.as_bytes()), "{key}");
    }
    let all: Vec<_> = written.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let keys = || written.keys().cloned();
    let mut read = rows(insist("a batch get", || client.batch_get(keys())).await);
    read.sort_unstable();
    assert_eq!(read, all);

    let range = || "k".to_owned().."l".to_owned();
    let limit = u32::try_from(written.len()).unwrap();
    assert_eq!(rows(insist("a scan", || client.scan(range(), limit)).await), all);
    let keys_only = insist("a scan of keys", || client.scan_keys(range(), limit)).await;
    assert_eq!(keys_only.len(), all.len());
    // It goes down in each region, and up from one to the next.
    let backward = insist("a reverse scan", || client.scan_reverse(range(), limit)).await;
    let mut backward = rows(backward);
    assert_ne!(backward, all);
    backward.sort_unstable();
    assert_eq!(backward, all);
    let part = || key(1, 150)..key(3, 50);
    let expected: Vec<_> =
        all.iter().filter(|(it, _)| *it >= key(1, 150) && *it < key(3, 50)).cloned().collect();
    let limit = u32::try_from(expected.len()).unwrap();
    assert_eq!(rows(insist("a scan of a part", || client.scan(part(), limit)).await), expected);
}

/// No acknowledged step is lost, and none was taken that nobody tried.
async fn check_counter(client: &RawClient, work: &Work) {
    let value = insist("a get", || client.get("counter".to_owned())).await.unwrap();
    let value: u64 = String::from_utf8(value).unwrap().parse().unwrap();
    let (steps, tries) = (work.steps.load(Ordering::Relaxed), work.tries.load(Ordering::Relaxed));
    assert!(steps > 0 && steps <= value && value <= tries, "{steps} <= {value} <= {tries}");
}

/// Ranges and batches that cross regions.
async fn remove_and_add(client: &RawClient, mut written: Written) {
    let range = || key(0, 50)..key(2, 150);
    insist("a range deletion", || client.delete_range(range())).await;
    written.retain(|it, _| *it < key(0, 50) || *it >= key(2, 150));
    check(client, &written).await;

    let added: Written = (0..KEYS).map(|number| (key(1, number), number.to_string())).collect();
    insist("a batch put", || client.batch_put(added.clone())).await;
    written.extend(added);
    check(client, &written).await;

    let gone = || (0..KEYS).filter(|number| number % 3 == 0).map(|number| key(1, number));
    insist("a batch deletion", || client.batch_delete(gone())).await;
    for key in gone() {
        written.remove(&key);
    }
    insist("a deletion", || client.delete(key(3, 7))).await;
    written.remove(&key(3, 7));
    check(client, &written).await;

    let refused = client.put_with_ttl("k".to_owned(), "v".to_owned(), 10).await.unwrap_err();
    assert!(refused.to_string().contains("ttl"), "{refused}");
}
