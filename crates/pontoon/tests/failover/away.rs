//! A follower that was away has everything again, by the log or, when that was forgotten meanwhile,
//! by a snapshot; one whose disk was wiped comes back as another store.

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use client::ApiVersion;
use pontoon::remote::{self, http};
use proto::tikvpb::tikv_client::TikvClient;
use proto::{kvrpcpb, metapb};

use crate::cluster::{Cluster, Placed};
use crate::metrics::counter;
use crate::{PATIENCE, Probes, check, probe};

/// Writes of each writer while the follower is away.
const MISSED: u64 = 50;

/// A member that was heard within this time is alive, and the log waits for it.
const LIVING: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_has_everything_again() {
    let mut cluster = Cluster::start(3);
    let placed = cluster.wait_until_whole().await;
    let addresses = cluster.addresses();
    let db = remote::connect(&addresses[0], ApiVersion::V1, 1).await.expect("it runs");
    let cluster_id = db.link().placement().cluster_id();
    let probes = Probes::start(cluster_id, &placed, &addresses);
    probes.each_wrote(1).await;

    for compacts in [false, true] {
        let placed = cluster.wait_until_whole().await;
        let node = follower(&placed);
        let killed = cluster.kill(node);
        probes.each_wrote(MISSED).await;
        if compacts {
            probes.write_until(killed + LIVING).await;
            compact(&addresses[placed.leads_region], placed.region.id);
            // It goes once the engine is synced.
            probes.write_until(Instant::now() + LIVING).await;
        }
        cluster.start_again(node);
        let (began, way) = (Instant::now(), if compacts { "a snapshot" } else { "the log" });
        has_everything(&addresses[node], &placed.region, placed.stores[node], &probes).await;
        println!("a follower has everything again by {way}: {} ms", began.elapsed().as_millis());
        if compacts {
            let came = counter(&addresses[node], "pontoon_snapshots_received_total").await;
            assert!(came > 0, "the log was forgotten");
        }
    }

    let placed = cluster.wait_until_whole().await;
    let node = follower(&placed);
    cluster.kill(node);
    let (old, leader) = (placed.stores[node], &addresses[placed.leads_placement]);
    let path = format!("/pd/api/v1/store/{old}?force=true");
    let answer = http::request(leader, "DELETE", &path, None, PATIENCE).await.expect("it serves");
    assert_eq!(answer.status, 200);
    let began = Instant::now();
    cluster.wipe(node, leader);
    let placed = cluster.wait_until_whole().await;
    assert_ne!(placed.stores[node], old);
    has_everything(&addresses[node], &placed.region, placed.stores[node], &probes).await;
    println!("a wiped follower is replaced: {} ms", began.elapsed().as_millis());

    probes.stop.store(true, Ordering::Relaxed);
    for (writer, written) in probes.written.iter().enumerate() {
        check(&db.raw(), writer, written.load(Ordering::Relaxed)).await;
    }
}

/// A node that leads neither the region nor the placement driver, or at least not the region.
fn follower(placed: &Placed) -> usize {
    let others = || (0..placed.stores.len()).filter(|node| *node != placed.leads_region);
    let quiet = others().find(|node| *node != placed.leads_placement);
    quiet.or_else(|| others().next()).expect("there are several")
}

/// The region's log forgets what all living members have.
fn compact(address: &str, region: u64) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
    command.args(["ctl", "--addr", address, "compact", &region.to_string()]);
    assert!(command.status().expect("it was built for this test").success());
}

/// Until the replica on `store`, which listens at `address`, answers with the last write of each
/// writer that was acknowledged by now.
async fn has_everything(address: &str, region: &metapb::Region, store: u64, probes: &Probes) {
    let mut region = region.clone();
    let began = Instant::now();
    let last = |written: &std::sync::Arc<std::sync::atomic::AtomicU64>| {
        written.load(Ordering::Relaxed).checked_sub(1).expect("it has written")
    };
    let wanted: Vec<String> =
        (0..).zip(&probes.written).map(|(w, n)| probe::key(w, last(n))).collect();
    let mut tries = tokio::time::interval(Duration::from_millis(5));
    let mut client = None;
    for key in wanted {
        while !replica_has(&mut client, address, &mut region, store, &key).await {
            assert!(began.elapsed() < PATIENCE, "{key} is not on store {store}");
            tries.tick().await;
        }
    }
}

async fn replica_has(
    client: &mut Option<TikvClient<tonic::transport::Channel>>,
    address: &str,
    region: &mut metapb::Region,
    store: u64,
    key: &str,
) -> bool {
    if client.is_none() {
        *client = TikvClient::connect(format!("http://{address}")).await.ok();
    }
    let Some(client) = client else { return false };
    let context = kvrpcpb::Context {
        region_id: region.id,
        region_epoch: region.region_epoch,
        peer: region.peers.iter().find(|peer| peer.store_id == store).copied(),
        replica_read: true,
        ..Default::default()
    };
    let key = key.to_owned();
    let request = kvrpcpb::RawGetRequest {
        context: Some(context),
        key: key.clone().into(),
        ..Default::default()
    };
    let Ok(answer) = client.raw_get(request).await else { return false };
    let answer = answer.into_inner();
    if let Some(error) = answer.region_error {
        let current = error.epoch_not_match.map(|error| error.current_regions);
        let newer = current.into_iter().flatten().find(|current| current.id == region.id);
        *region = newer.unwrap_or_else(|| region.clone());
        return false;
    }
    assert!(!answer.not_found && answer.value == key.as_bytes(), "{key} was acknowledged");
    true
}
