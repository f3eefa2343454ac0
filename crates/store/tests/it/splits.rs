//! Splits of regions with several replicas: followers that lag, stores that know nothing yet, old
//! splits that come late.

use pontoon_store as store;

use crate::common::{Cluster, REGION, TICK, learner, remove, word};
use base::{KeyRange, PeerId, Prng, RegionId, StoreId};
use storage::engine::{Cf, Engine};
use storage::keys;
use store::ShardConfig;

const LEFT: RegionId = RegionId(20);

fn cluster(members: u64) -> Cluster {
    Cluster::with_rows(members, 20)
}

/// The ranges of each store are those of its views.
fn check_ranges(cluster: &Cluster) {
    for node in &cluster.nodes {
        let views = node.views.all();
        let ranges: Vec<_> = views.iter().map(|v| (v.region.id, v.region.range.clone())).collect();
        assert_eq!(node.views.ranges(), ranges, "store {}", node.machine.store_id);
        for (id, range) in ranges {
            assert_eq!(node.views.region_of(&range.start), Some(id));
        }
    }
}

#[test]
fn both_parts_are_whole_on_every_store() {
    let mut cluster = cluster(3);
    cluster.split(REGION, b"j", 20);
    cluster.ticks(5);
    check_ranges(&cluster);
    for (id, range) in [(LEFT, KeyRange::new("", "j")), (REGION, KeyRange::new("j", ""))] {
        assert_eq!(cluster.check_equal(id).range, range);
        cluster.put(id, if id == LEFT { b"b" } else { b"x" }, b"later");
    }
    assert_eq!(cluster.snapshots, [], "nobody was far behind");
    for store in 1..=3 {
        let views = &cluster.node(store).views;
        assert_eq!(views.region_of(b"i\xff"), Some(LEFT));
        assert_eq!(views.region_of(b"j"), Some(REGION));
        assert_eq!(views.region_of(b""), Some(LEFT));
    }
}

#[test]
fn a_follower_that_lags_splits_when_it_hears_of_it() {
    let mut cluster = cluster(3);
    cluster.transfer(REGION, PeerId(101));
    cluster.ticks(5);
    cluster.cut.push(StoreId(3));
    cluster.split(REGION, b"j", 20);
    cluster.put(LEFT, b"b", b"new");
    cluster.cut.clear();
    cluster.ticks(30);
    assert_eq!(cluster.check_equal(LEFT).peers.len(), 3);
    cluster.check_equal(REGION);
    check_ranges(&cluster);
    assert_eq!(cluster.snapshots, [], "the log had it all");
}

/// The store gets the part's first messages before it has split itself, and before it has anything.
#[test]
fn a_part_waits_until_its_keys_are_free() {
    let mut cluster = cluster(1);
    cluster.change(REGION, &[learner(202, 2)]);
    cluster.ticks(5);
    let (blocked, now) = (3, cluster.now);
    // Store 2 hears nothing of the split, and then the part's messages before the region's.
    cluster.cut.push(StoreId(2));
    cluster.split(REGION, b"j", 20);
    cluster.cut.clear();
    let leader = cluster.view(0, LEFT);
    assert!(leader.is_leader());
    let body = raft::Body::Heartbeat { commit: 0, round: 1 };
    let to = *leader.region.peer_on(StoreId(2)).expect("a part has the members of the whole");
    let region = &leader.region;
    let (peers, of) = ((leader.peer, to), (region.epoch, region.range.clone()));
    let message = word(LEFT, peers, of, (leader.term, body));
    for _ in 0..blocked {
        let node = cluster.node(2);
        node.inbox.push(store::ShardInput::Message(message.clone()));
        node.settle(now);
        assert!(node.sent.is_empty(), "the whole region is still here");
        assert_eq!(node.machine.open_log_reader().regions(), [REGION]);
    }
    cluster.ticks(20);
    cluster.check_equal(LEFT);
    cluster.check_equal(REGION);
    assert_eq!(cluster.snapshots.len(), 1, "the first one of the region was the only one");
}

/// A part is spoken to on a store before the region it is cut off gets its snapshot there.
#[test]
fn an_uninitialised_peer_is_filled_in_by_its_split() {
    for seed in 0..200 {
        let mut cluster = cluster(1);
        let mut prng = Prng::new(seed);
        cluster.try_change(REGION, &[learner(202, 2)]);
        let slots = [cluster.try_change(REGION, &[learner(203, 3)])];
        cluster.ticks(3);
        cluster.split(REGION, b"j", 20);
        for _ in 0..prng.below(400) {
            cluster.step(&mut prng, 4);
        }
        let store = 2 + prng.below(2);
        let power = prng.one_in(2);
        cluster.stop(store, power.then_some(&mut prng));
        cluster.start(store);
        cluster.ticks(40);
        cluster.check_equal(LEFT);
        cluster.check_equal(REGION);
        check_ranges(&cluster);
        drop(slots);
    }
}

/// The store slept while the region was split, and its part's peer there removed: the split that it
/// applies late must not bring that peer back for good.
#[test]
fn an_old_split_revives_nobody() {
    for replaced in [false, true] {
        let mut cluster = cluster(3);
        cluster.transfer(REGION, PeerId(101));
        cluster.ticks(5);
        cluster.cut.push(StoreId(3));
        cluster.split(REGION, b"j", 20);
        cluster.change(LEFT, &[remove(203)]);
        if replaced {
            cluster.change(LEFT, &[learner(93, 3)]);
            cluster.change(LEFT, &[remove(93)]);
            cluster.change(LEFT, &[learner(94, 3)]);
        }
        cluster.put(LEFT, b"b", b"new");
        cluster.cut.clear();
        cluster.ticks(100);
        let region = cluster.check_equal(LEFT);
        assert_eq!(region.peers.len(), if replaced { 3 } else { 2 });
        let here = cluster.node(3).views.get(LEFT).map(|view| view.peer.id);
        assert_eq!(here, replaced.then_some(PeerId(94)));
        if !replaced {
            let rows = cluster.node(3).contents(LEFT, &KeyRange::new("", "j"));
            assert_eq!(rows, [], "and no data of it");
        }
        cluster.check_equal(REGION);
        check_ranges(&cluster);
    }
}

/// Both the region and the part that was cut off it come to a store as snapshots.
#[test]
fn a_store_that_missed_the_split_and_its_log_gets_both_parts() {
    let config = ShardConfig { log_entries_max: 5, ..ShardConfig::default() };
    let mut cluster = Cluster::with(3, 3, config);
    cluster.leader();
    cluster.transfer(REGION, PeerId(101));
    cluster.ticks(5);
    cluster.put(REGION, b"b", b"old");
    cluster.stop(3, None);
    cluster.ticks(30);
    cluster.split(REGION, b"j", 20);
    for i in 0..30u8 {
        let key = b'a' + i % 20;
        cluster.put(if key < b'j' { LEFT } else { REGION }, &[key], b"new");
        cluster.ticks(1);
    }
    cluster.start(3);
    cluster.ticks(60);
    cluster.check_equal(LEFT);
    cluster.check_equal(REGION);
    check_ranges(&cluster);
    let snapshots: Vec<_> = cluster.snapshots.iter().map(|(region, _)| *region).collect();
    assert!(snapshots.contains(&REGION) && snapshots.contains(&LEFT), "{snapshots:?}");
    assert_eq!(cluster.node(3).get(b"b").as_deref(), Some(&b"new"[..]));
}

/// No local reads from the proposal of a split until it is applied.
#[test]
fn a_split_on_its_way_pauses_the_lease() {
    let mut cluster = cluster(1);
    let now = cluster.now;
    assert!(cluster.view(0, REGION).has_lease(now));
    let view = cluster.view(0, REGION);
    let cuts = vec![crate::common::cut(&view.region, b"j", 20)];
    let slot = crate::common::Slot::default();
    let header = crate::common::header_of(&view);
    let request = store::SplitRequest { header, cuts, reply: slot.reply() };
    let node = cluster.node(1);
    node.inbox.push(store::ShardInput::Split(request));
    node.turn_shard(now);
    assert!(!node.view().has_lease(now), "proposed");
    node.turn_log();
    node.turn_shard(now);
    assert!(!node.view().has_lease(now), "committed");
    assert!(node.shard.awaits_applied());
    node.turn_applier();
    assert!(!node.view().has_lease(now), "applied, and the store does not know");
    node.settle(now);
    assert!(slot.is_ok() && node.view().has_lease(now));
    assert_eq!(node.view().region.range, KeyRange::new("j", ""));
}

/// A write was checked, and the split that takes its key away is applied before it is proposed.
#[test]
fn a_write_does_not_slip_through_a_split() {
    let mut cluster = cluster(1);
    let now = cluster.now;
    let view = cluster.view(0, REGION);
    let (slot, cuts) =
        (crate::common::Slot::default(), vec![crate::common::cut(&view.region, b"j", 20)]);
    let header = crate::common::header_of(&view);
    let request = store::SplitRequest { header, cuts, reply: slot.reply() };
    let node = cluster.node(1);
    node.inbox.push(store::ShardInput::Split(request));
    node.turn_shard(now);
    node.turn_log();
    node.turn_shard(now);
    let late = node.put(b"b", b"late");
    node.turn_applier();
    assert_eq!(node.inbox.len(), 2, "the write, then the news of the split");
    node.settle(now);
    assert!(slot.is_ok());
    assert!(matches!(late.error(), store::RegionError::EpochNotMatch { .. }));
    assert_eq!(node.get(b"b").as_deref(), Some(&b"v"[..]));
}

/// Three stores, of which the third lost its power, and with it perhaps the split of a moment ago,
/// which is in its log. It is down, and its replicas of both regions are taken away from it.
fn without_power_after_a_split(seed: u64) -> Cluster {
    let report_interval = TICK * 20;
    let mut cluster = Cluster::with(3, 3, ShardConfig { report_interval, ..Default::default() });
    while cluster.leader() != 0 {
        cluster.transfer(REGION, PeerId(101));
        cluster.ticks(3);
    }
    cluster.ticks(60);
    cluster.split(REGION, b"j", 20);
    cluster.ticks(2);
    assert!(cluster.node(3).views.get(LEFT).is_some());
    cluster.stop(3, Some(&mut Prng::new(seed)));
    for (region, peer) in [(REGION, 103), (LEFT, 203)] {
        cluster.change(region, &[remove(peer)]);
    }
    cluster
}

/// The power takes the split from the engine of store 3, but not the part's log; then both the
/// region and its part are taken away from that store before it hears that the split is committed.
#[test]
fn the_log_of_a_lost_part_goes_once_placement_says_so() {
    let mut lost = 0;
    for seed in 0..12 {
        let mut cluster = without_power_after_a_split(seed);
        let machine = cluster.node(3).machine.clone();
        let record = || machine.engine.get(Cf::Raft, &keys::region_state_key(LEFT));
        lost += u32::from(record().expect("readable").is_none());
        cluster.start(3);
        cluster.ticks(120);
        cluster.find_owners();
        cluster.ticks(5);
        assert_eq!(cluster.node(3).views.all().len(), 0, "seed {seed}");
        let log = machine.open_log_reader();
        let entries = [REGION, LEFT].map(|region| log.last_index(region));
        assert_eq!(entries, [0, 0], "seed {seed}: no log stays");
        assert_eq!(cluster.node(3).contents(REGION, &KeyRange::all()), [], "seed {seed}");
        assert!(record().expect("readable").is_some(), "seed {seed}: it is a Tombstone");
        // It may come back, under another name.
        cluster.change(LEFT, &[learner(303, 3)]);
        cluster.ticks(10);
        cluster.check_equal(LEFT);
    }
    assert!(lost > 2, "{lost} times the power took the split");
}

/// The same, and the part has become a part of the region again before that store comes back: no
/// region of its name is known to anybody.
#[test]
fn the_log_of_a_lost_part_goes_once_a_store_says_how_it_ended() {
    let mut lost = 0;
    for seed in 0..12 {
        let mut cluster = without_power_after_a_split(seed);
        let machine = cluster.node(3).machine.clone();
        let record = || machine.engine.get(Cf::Raft, &keys::region_state_key(LEFT));
        lost += u32::from(record().expect("readable").is_none());
        cluster.ticks(5);
        cluster.merge(LEFT, REGION);
        cluster.start(3);
        for _ in 0..10 {
            cluster.ticks(12);
            cluster.find_owners();
        }
        let log = machine.open_log_reader();
        let entries = [REGION, LEFT].map(|region| log.last_index(region));
        assert_eq!(entries, [0, 0], "seed {seed}: no log stays");
        assert!(record().expect("readable").is_some(), "seed {seed}: it is a Tombstone");
        cluster.stop(3, Some(&mut Prng::new(seed)));
        cluster.start(3);
        cluster.ticks(10);
        assert_eq!(machine.open_log_reader().last_index(LEFT), 0, "seed {seed}");
    }
    assert!(lost > 2, "{lost} times the power took the split");
}
