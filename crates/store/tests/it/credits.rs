//! Nothing is made that its receiver has no room for.

use pontoon_store as store;

use std::collections::BTreeSet;

use crate::common::{Cluster, REGION};
use base::{PeerId, Prng, RegionId, StoreId};
use raft::Body;
use store::{Job, ShardConfig, ShardInput, SnapshotCredit};

const LIMIT: u64 = 10;
const LEFT: RegionId = RegionId(20);
const MIDDLE: RegionId = RegionId(30);

/// Three stores and three regions, led by the first two; the third store missed so much of all of
/// them that it needs their snapshots, and comes back.
fn behind(snapshots_in_max: usize, seed: u64) -> Cluster {
    let config =
        ShardConfig { log_entries_max: LIMIT, snapshots_in_max, seed, ..Default::default() };
    let mut cluster = Cluster::with(3, 3, config);
    cluster.leader();
    cluster.split(REGION, b"j", LEFT.0);
    cluster.split(REGION, b"p", MIDDLE.0);
    cluster.ticks(5);
    cluster.stop(3, None);
    cluster.ticks(30);
    for i in 0..4 * LIMIT {
        for (region, key) in [(REGION, b"z"), (LEFT, b"a"), (MIDDLE, b"k")] {
            cluster.put(region, key, &[i as u8]);
        }
        cluster.tick();
    }
    cluster.start(3);
    cluster
}

/// Regions of which a snapshot for store 3 is made, on its way, or not yet installed. A leader that
/// was replaced may be at work on one that nobody will want.
fn under_way(cluster: &Cluster) -> usize {
    let made = |job: &Job| match job {
        Job::BuildSnapshot(build) => Some(build.region.id),
        _ => None,
    };
    let built = |input: &ShardInput| match input {
        ShardInput::SnapshotBuilt { region_id, .. } => Some(*region_id),
        _ => None,
    };
    let installed = |job: &Job| match job {
        Job::InstallSnapshot(install) => Some(install.region.id),
        _ => None,
    };
    let flies = cluster.wire.iter().filter(|m| matches!(m.message.body, Body::Snapshot { .. }));
    let senders = &cluster.nodes[..2];
    let regions: BTreeSet<RegionId> = flies
        .map(|message| message.region_id)
        .chain(senders.iter().flat_map(|node| node.jobs.iter().filter_map(made)))
        .chain(senders.iter().flat_map(|node| node.inbox.iter().filter_map(built)))
        .chain(cluster.nodes[2].jobs.iter().filter_map(installed))
        .collect();
    regions.len()
}

#[test]
fn only_so_many_come_at_once() {
    for (max, seed) in (0..30).flat_map(|seed| [(1, seed), (2, seed)]) {
        let mut cluster = behind(max, seed);
        let mut prng = Prng::new(seed);
        let mut most = 0;
        for _ in 0..120 {
            cluster.now = cluster.now + crate::common::TICK;
            for _ in 0..40 {
                cluster.step(&mut prng, 0);
                most = most.max(under_way(&cluster));
            }
        }
        cluster.ticks(100);
        assert!(most <= max, "seed {seed}: {most} at once");
        for region in [REGION, LEFT, MIDDLE] {
            assert!(cluster.snapshots.iter().any(|(id, _)| *id == region), "seed {seed}");
            cluster.check_equal(region);
        }
    }
}

/// Also with words that are lost.
#[test]
fn everybody_gets_one_in_time() {
    for seed in 0..30 {
        let mut cluster = behind(1, seed);
        let mut prng = Prng::new(seed);
        for _ in 0..60 {
            cluster.now = cluster.now + crate::common::TICK;
            (0..60).for_each(|_| cluster.step(&mut prng, 3));
        }
        cluster.ticks(200);
        for region in [REGION, LEFT, MIDDLE] {
            cluster.check_equal(region);
        }
    }
}

#[test]
fn nothing_is_made_for_a_store_whose_disk_is_full() {
    let mut cluster = behind(8, 1);
    cluster.node(3).inbox.push(ShardInput::DiskFull(true));
    cluster.ticks(60);
    assert_eq!(cluster.snapshots, [], "nobody asked for files that find no room");
    cluster.node(3).inbox.push(ShardInput::DiskFull(false));
    cluster.ticks(60);
    assert_eq!(cluster.snapshots.len(), 3);
    for region in [REGION, LEFT, MIDDLE] {
        cluster.check_equal(region);
    }
}

/// What store 3 answers when `region` asks it for a credit, in the name of another store.
fn ask(cluster: &mut Cluster, region: RegionId) -> bool {
    let now = cluster.now;
    let view = cluster.view(0, region);
    let [from, to] =
        [StoreId(1), StoreId(3)].map(|store| *view.region.peer_on(store).expect("it is a member"));
    let credit = SnapshotCredit { region_id: region, from, to, term: view.term, asks: true };
    let node = cluster.node(3);
    node.inbox.push(ShardInput::Credit(credit));
    node.settle(now);
    node.credits.drain(..).any(|answer| {
        !answer.asks && answer.region_id == region && (answer.from, answer.to) == (to, from)
    })
}

#[test]
fn who_does_not_ask_any_more_has_given_it_back() {
    let mut cluster = behind(1, 1);
    cluster.ticks(200);
    assert!(ask(&mut cluster, LEFT));
    assert!(!ask(&mut cluster, MIDDLE), "there is one");
    cluster.ticks(40);
    assert!(ask(&mut cluster, LEFT), "it is used still");
    cluster.ticks(40);
    assert!(!ask(&mut cluster, MIDDLE));
    cluster.ticks(60);
    assert!(ask(&mut cluster, MIDDLE), "its owner was not heard of any more");
}

#[test]
fn who_has_no_use_for_a_snapshot_grants_none() {
    let mut cluster = behind(8, 1);
    cluster.ticks(200);
    let view = cluster.view(0, LEFT);
    let now = cluster.now;
    let [from, to] =
        [StoreId(1), StoreId(3)].map(|store| *view.region.peer_on(store).expect("a member"));
    let good = SnapshotCredit { region_id: LEFT, from, to, term: view.term, asks: true };
    let other = base::Peer { id: PeerId(999), ..to };
    let old = SnapshotCredit { term: view.term - 1, ..good };
    let gone = SnapshotCredit { to: other, ..good };
    let unknown = SnapshotCredit { region_id: RegionId(77), ..good };
    let node = cluster.node(3);
    for credit in [old, gone, unknown] {
        node.inbox.push(ShardInput::Credit(credit));
        node.settle(now);
        assert!(node.credits.is_empty(), "{credit:?}");
    }
    node.inbox.push(ShardInput::Credit(good));
    node.settle(now);
    assert_eq!(node.credits.len(), 1);
}
