//! Regions become parts of their neighbours: with everybody there, with members that lag, are cut
//! off, stop or lose their power in the middle; and merges that are off.

use pontoon_store as store;

use crate::common::{Cluster, REGION, Slot, header_of};
use base::{Epoch, PeerId, RegionId, StoreId};
use prost::Message as _;
use storage::engine::{Cf, Engine};
use storage::keys;
use store::{MergeRequest, RegionError, ShardConfig, ShardInput};

/// The region on the left, which merges into the one on the right.
const LEFT: RegionId = RegionId(7);

/// Three stores with two regions that meet at `m`; each has a key.
fn two_regions() -> Cluster {
    regions_of(3, ShardConfig::default().log_entries_max)
}

/// Nobody sleeps: these tests look at leases.
fn regions_of(size: u64, log_entries_max: u64) -> Cluster {
    let config = ShardConfig { log_entries_max, sleep_ticks: 0, ..ShardConfig::default() };
    let mut cluster = Cluster::with(size, 3, config);
    cluster.split(REGION, b"m", LEFT.0);
    cluster.put(LEFT, b"a", b"left");
    cluster.put(REGION, b"x", b"right");
    cluster.ticks(3);
    cluster
}

fn value(cluster: &mut Cluster, store: u64, key: &[u8]) -> Option<Vec<u8>> {
    let found = cluster.node(store).machine.engine.get(Cf::Default, &keys::data_key(key));
    found.expect("readable").map(|value| value.to_vec())
}

/// What the engine of a store has written down of a region.
fn record(
    cluster: &mut Cluster,
    store: u64,
    id: RegionId,
) -> proto::raft_serverpb::RegionLocalState {
    let data = cluster.node(store).machine.engine.get(Cf::Raft, &keys::region_state_key(id));
    let data = data.expect("readable").expect("a record");
    proto::raft_serverpb::RegionLocalState::decode(data).expect("sound")
}

/// Everything is one region, on all stores alike, with both keys.
fn check_merged(cluster: &mut Cluster) {
    let region = cluster.check_equal(REGION);
    assert_eq!(region.range, base::KeyRange::all());
    for peer in &region.peers {
        let store = peer.store_id.0;
        assert_eq!(value(cluster, store, b"a"), Some(b"left".to_vec()), "store {store}");
        assert_eq!(value(cluster, store, b"x"), Some(b"right".to_vec()), "store {store}");
        let ranges = cluster.node(store).views.ranges();
        assert_eq!(ranges, [(REGION, base::KeyRange::all())], "store {store}");
    }
}

fn lead(cluster: &mut Cluster, region: RegionId, store: u64) {
    for _ in 0..50 {
        let at = cluster.leader_of(region);
        if at as u64 + 1 == store {
            return;
        }
        let view = cluster.view(at, region);
        let to = view.region.peer_on(StoreId(store)).expect("a member").id;
        cluster.transfer(region, to);
        cluster.ticks(3);
    }
    panic!("region {region} does not want to be led on store {store}");
}

#[test]
fn a_region_becomes_a_part_of_its_neighbour() {
    for (source, target) in [(LEFT, REGION), (REGION, LEFT)] {
        let mut cluster = two_regions();
        let before = cluster.check_equal(source).epoch;
        let (conf_ver, version) = (before.conf_ver, before.version);
        cluster.merge(source, target);
        let region = cluster.check_equal(target);
        assert_eq!(region.range, base::KeyRange::all());
        assert_eq!(region.epoch, Epoch { conf_ver, version: version + 2 }, "row A-21");
        for store in 1..=3 {
            assert_eq!(value(&mut cluster, store, b"a"), Some(b"left".to_vec()));
            assert_eq!(value(&mut cluster, store, b"x"), Some(b"right".to_vec()));
            let tombstone = record(&mut cluster, store, source);
            assert_eq!(tombstone.state(), proto::raft_serverpb::PeerState::Tombstone);
            let merged = tombstone.merge_state.expect("it tells into what").target.expect("whom");
            assert_eq!(merged.id, target.0);
            let log = cluster.node(store).machine.open_log_reader();
            assert_eq!(log.last_index(source), 0, "its log is gone");
        }
        cluster.put(target, b"b", b"one of both");
        cluster.put(target, b"y", b"one of both");
        cluster.split(target, b"m", 9);
        cluster.check_equal(target);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut cluster = two_regions();
    cluster.split(LEFT, b"c", 8);
    let view = |cluster: &mut Cluster, id| {
        let at = cluster.leader_of(id);
        cluster.view(at, id)
    };
    let (left, right) = (view(&mut cluster, LEFT), view(&mut cluster, REGION));
    let ask = |cluster: &mut Cluster, header, target| {
        let at = cluster.leader_of(LEFT);
        let slot = Slot::default();
        let request = MergeRequest { header, target, reply: slot.reply() };
        cluster.nodes[at].inbox.push(ShardInput::Merge(request));
        cluster.deliver();
        slot.answer().expect("an answer")
    };
    let far = view(&mut cluster, RegionId(8));
    let mut strangers = (*right.region).clone();
    strangers.peers[0].store_id = StoreId(9);
    let mut of_old = header_of(&left);
    of_old.epoch = of_old.epoch.map(|epoch| Epoch { conf_ver: 0, ..epoch });
    let not_led = store::RequestHeader { region_id: RegionId(8), ..header_of(&far) };
    let cases = [
        ("itself", header_of(&left), (*left.region).clone()),
        ("other stores", header_of(&left), strangers),
        ("an old epoch", of_old, (*right.region).clone()),
    ];
    for (why, header, target) in cases {
        let answer = ask(&mut cluster, header, target);
        assert!(matches!(answer, Err(RegionError::EpochNotMatch { .. })), "{why}: {answer:?}");
    }
    let answer = ask(&mut cluster, not_led, (*right.region).clone());
    assert!(answer.is_err(), "not neighbours: {answer:?}");
    assert_eq!(cluster.check_equal(LEFT).epoch, left.region.epoch, "nothing happened");
}

#[test]
fn whoever_merges_serves_nobody() {
    let mut cluster = two_regions();
    let at = cluster.leader_of(LEFT);
    let view = cluster.view(at, LEFT);
    assert!(view.has_lease(cluster.now));
    // Bug 7: nobody else may know before this store has ceased to serve.
    let slot = cluster.try_merge(LEFT, REGION);
    let now = cluster.now;
    cluster.nodes[at].turn_shard(now);
    assert!(slot.answer().is_none(), "it is only proposed");
    assert!(!cluster.view(at, LEFT).has_lease(now), "and serves no reads from now on");
    let header = header_of(&cluster.view(at, LEFT));
    let (read, mut writes) = (Slot::default(), store::Writes::new());
    writes.put(Cf::Default, b"b", b"late");
    let write = cluster.nodes[at].propose(header, writes);
    let request = store::ReadRequest { header, any_replica: false, reply: read.reply() };
    cluster.nodes[at].inbox.push(ShardInput::ReadIndex(request));
    cluster.nodes[at].turn_shard(now);
    let answer = write.answer().expect("an answer at once");
    assert_eq!(answer, Err(RegionError::ProposalInMergingMode(LEFT)));
    let answer = read.answer().expect("an answer at once");
    assert!(matches!(answer, Err(RegionError::ReadIndexNotReady { .. })), "{answer:?}");
    cluster.ticks(5);
    check_merged(&mut cluster);
}

#[test]
fn a_member_that_lags_learns_the_end_from_the_target() {
    let mut cluster = two_regions();
    lead(&mut cluster, LEFT, 1);
    lead(&mut cluster, REGION, 1);
    // Store 3 hears nothing of the source's last entries, only of the target's.
    cluster.deaf = vec![(LEFT, StoreId(3))];
    cluster.put(LEFT, b"b", b"late");
    cluster.prepare_merge(LEFT, REGION);
    cluster.ticks(10);
    assert!(cluster.node(1).views.get(LEFT).is_none() && cluster.node(2).views.get(LEFT).is_none());
    assert!(cluster.node(3).views.get(LEFT).is_none(), "it learnt the end of the log");
    assert_eq!(value(&mut cluster, 3, b"b"), Some(b"late".to_vec()));
    assert!(cluster.snapshots.is_empty(), "by the log alone");
    check_merged(&mut cluster);
}

/// The leader itself is a member: what it has not synced it may lose, although all others have it.
#[test]
fn a_leader_that_loses_its_power_learns_the_end_from_the_target() {
    let mut cluster = two_regions();
    lead(&mut cluster, LEFT, 1);
    lead(&mut cluster, REGION, 2);
    let (target, now) = (cluster.view(1, REGION).region.clone(), cluster.now);
    let (write, merge) = (Slot::default(), Slot::default());
    let header = header_of(&cluster.view(0, LEFT));
    let mut writes = store::Writes::new();
    writes.put(Cf::Default, b"b", b"late");
    let (only_in_term, reply) = (None, write.reply());
    let proposal = store::Proposal { header, writes, only_in_term, reply };
    cluster.node(1).inbox.push(ShardInput::Propose(proposal));
    let request = MergeRequest { header, target: (*target).clone(), reply: merge.reply() };
    let mut request = Some(ShardInput::Merge(request));
    // Its log writer stands still. The others take what it sends, and that is enough to commit.
    for _ in 0..6 {
        cluster.node(1).turn_shard(now);
        for message in std::mem::take(&mut cluster.node(1).sent) {
            cluster.carry(message, false);
        }
        for store in [2, 3] {
            cluster.node(store).settle(now);
            for message in std::mem::take(&mut cluster.node(store).sent) {
                cluster.carry(message, false);
            }
        }
        if let Some(request) = request.take_if(|_| cluster.node(2).get(b"b").is_some()) {
            cluster.node(1).inbox.push(request);
        }
    }
    assert!(request.is_none() && merge.answer().is_none(), "{:?}", merge.answer());
    let waits = record(&mut cluster, 2, LEFT);
    assert_eq!(waits.state(), proto::raft_serverpb::PeerState::Merging, "the others know");
    cluster.stop(1, Some(&mut base::Prng::new(1)));
    cluster.ticks(60);
    assert!(cluster.node(2).views.get(LEFT).is_none(), "the others are done");
    cluster.start(1);
    cluster.ticks(60);
    assert!(cluster.snapshots.is_empty(), "by the log alone: {:?}", cluster.snapshots);
    assert_eq!(value(&mut cluster, 1, b"b"), Some(b"late".to_vec()));
    check_merged(&mut cluster);
}

/// A part is cut off the region and becomes a part of `target`, while store 3 has no power: it
/// took the split from the engine there, but not the part's log, and the region itself leaves that
/// store. Then it comes back. False, and nothing of that, if this seed's power loss took something
/// else.
fn takes_over_what_store_3_forgot(cluster: &mut Cluster, target: RegionId, seed: u64) -> bool {
    lead(cluster, REGION, 1);
    // Long enough for the engines to be synced, and not again for a while.
    cluster.ticks(120);
    cluster.put(REGION, b"z", b"right");
    cluster.ticks(2);
    cluster.split(REGION, b"m", LEFT.0);
    cluster.stop(3, Some(&mut base::Prng::new(seed)));
    let key = keys::region_state_key(LEFT);
    let engine = cluster.node(3).machine.engine.clone();
    let has_log = cluster.node(3).machine.open_log_reader().last_index(LEFT) > 0;
    if engine.get(Cf::Raft, &key).expect("readable").is_some() || !has_log {
        return false;
    }
    cluster.put(LEFT, b"d", b"middle");
    cluster.change(REGION, &[crate::common::remove(103)]);
    cluster.merge(LEFT, target);
    cluster.start(3);
    true
}

/// A source that never comes back: its split is forgotten, and the region that did it is gone. The
/// target's patience runs out, also when everybody else is done and the group wants to sleep, or
/// when the one that waits has come to lead. The snapshot that helps is not the last one it takes.
#[test]
fn a_target_waits_in_vain() {
    let config = ShardConfig { log_entries_max: 20, ..ShardConfig::default() };
    let mut forgotten = 0;
    for (seed, leads) in (0..80).map(|number| (number / 2, number % 2 == 1)) {
        let mut cluster = Cluster::with(4, 3, config.clone());
        cluster.split(REGION, b"c", 8);
        cluster.put(RegionId(8), b"a", b"left");
        if !takes_over_what_store_3_forgot(&mut cluster, RegionId(8), seed) {
            continue;
        }
        forgotten += 1;
        if leads {
            cluster.ticks(5);
            cluster.transfer(RegionId(8), PeerId(83));
            cluster.ticks(5);
            assert!(cluster.view(2, RegionId(8)).is_leader(), "it has the log");
        }
        cluster.ticks(400);
        let region = cluster.check_equal(RegionId(8));
        assert_eq!(region.range, base::KeyRange::new("", "m"));
        assert_eq!(value(&mut cluster, 3, b"d"), Some(b"middle".to_vec()), "seed {seed}");
        cluster.snapshots.clear();
        cluster.cut = vec![StoreId(3)];
        for _ in 0..100 {
            cluster.put(RegionId(8), b"e", b"more");
        }
        cluster.ticks(20);
        cluster.cut.clear();
        cluster.ticks(200);
        assert!(cluster.snapshots.contains(&(RegionId(8), PeerId(83))), "seed {seed}");
        cluster.check_equal(RegionId(8));
    }
    assert!(forgotten > 0, "no power loss took the split, and left the log");
}

/// Like before, and the target that waits becomes a part of a third region meanwhile: nobody is
/// left who could send it a snapshot, so it goes, and the third region waits for it in vain.
#[test]
fn a_target_that_waits_and_is_taken_over_itself() {
    let config = ShardConfig { log_entries_max: 20, ..ShardConfig::default() };
    let (middle, third) = (RegionId(8), RegionId(9));
    let mut forgotten = 0;
    for seed in 0..40 {
        let mut cluster = Cluster::with(4, 3, config.clone());
        cluster.split(REGION, b"c", middle.0);
        cluster.split(middle, b"b", third.0);
        cluster.put(third, b"a", b"left");
        if !takes_over_what_store_3_forgot(&mut cluster, middle, seed) {
            continue;
        }
        forgotten += 1;
        cluster.ticks(30);
        // Store 3 is not done with it before its patience is at an end.
        cluster.prepare_merge(middle, third);
        cluster.ticks(600);
        let region = cluster.check_equal(third);
        assert_eq!(region.range, base::KeyRange::new("", "m"));
        assert_eq!(value(&mut cluster, 3, b"d"), Some(b"middle".to_vec()), "seed {seed}");
    }
    assert!(forgotten > 0, "no power loss took the split, and left the log");
}

/// A member is removed right after it took a region over: both are told with one turn of its
/// applier, which stood still meanwhile.
#[test]
fn a_target_that_is_removed_right_after_it_took_a_region_over() {
    let mut cluster = two_regions();
    lead(&mut cluster, LEFT, 1);
    lead(&mut cluster, REGION, 1);
    let tick = |cluster: &mut Cluster| {
        cluster.now = cluster.now + crate::common::TICK;
        let now = cluster.now;
        for _ in 0..6 {
            for store in 1..=3 {
                let node = cluster.node(store);
                match store {
                    3 => (0..2).for_each(|_| (node.turn_shard(now), node.turn_log()).0),
                    _ => node.settle(now),
                }
                for message in std::mem::take(&mut node.sent) {
                    cluster.carry(message, false);
                }
            }
        }
    };
    let (header, target) = (header_of(&cluster.view(0, LEFT)), cluster.view(0, REGION));
    let (merge, change) = (Slot::default(), Slot::default());
    let (target, reply) = ((*target.region).clone(), merge.reply());
    cluster.node(1).inbox.push(ShardInput::Merge(MergeRequest { header, target, reply }));
    (0..5).for_each(|_| tick(&mut cluster));
    assert!(cluster.node(1).views.get(LEFT).is_none(), "{:?}", merge.answer());
    assert!(cluster.node(3).views.get(LEFT).is_some(), "it knows nothing of that");
    let header = header_of(&cluster.view(0, REGION));
    let (changes, reply) = (vec![crate::common::remove(103)], change.reply());
    let request = store::ChangePeersRequest { header, changes, reply };
    cluster.node(1).inbox.push(ShardInput::ChangePeers(request));
    (0..5).for_each(|_| tick(&mut cluster));
    assert!(change.is_ok(), "{:?}", change.answer());
    cluster.ticks(20);
    assert!(cluster.node(3).views.all().is_empty(), "both are gone");
    assert!(cluster.node(3).views.ranges().is_empty());
    assert_eq!(value(&mut cluster, 3, b"a"), None, "and what they held");
    check_merged(&mut cluster);
}

/// Bug 17: what is learnt goes through the source's own log, so that a restart finds it.
#[test]
fn a_member_stops_while_it_learns_the_end() {
    for power in [false, true] {
        for steps in 0..40 {
            let mut cluster = two_regions();
            lead(&mut cluster, LEFT, 1);
            lead(&mut cluster, REGION, 1);
            cluster.deaf = vec![(LEFT, StoreId(3))];
            cluster.put(LEFT, b"b", b"late");
            cluster.prepare_merge(LEFT, REGION);
            let mut prng = base::Prng::new(steps);
            cluster.now = cluster.now + crate::common::TICK;
            for _ in 0..steps * 6 {
                cluster.step(&mut prng, 0);
            }
            cluster.stop(3, power.then_some(&mut prng));
            cluster.start(3);
            cluster.ticks(20);
            assert_eq!(value(&mut cluster, 3, b"b"), Some(b"late".to_vec()));
            check_merged(&mut cluster);
        }
    }
}

/// A target that changes in the meantime takes nobody over; the source goes on as before. Bug 14:
/// an entry that began a merge which is off is not taken for the one of a later merge.
#[test]
fn a_merge_is_off_when_the_target_changed() {
    let mut cluster = two_regions();
    lead(&mut cluster, LEFT, 1);
    lead(&mut cluster, REGION, 2);
    // The target is split while the source's wish is on its way.
    let at = cluster.leader_of(LEFT);
    let slot = cluster.try_merge(LEFT, REGION);
    cluster.split(REGION, b"t", 8);
    cluster.nodes[at].turn_shard(cluster.now);
    cluster.deliver();
    assert!(slot.is_ok(), "{:?}", slot.answer());
    let waits = record(&mut cluster, 1, LEFT);
    assert_eq!(waits.state(), proto::raft_serverpb::PeerState::Merging);
    cluster.ticks(20);
    let region = cluster.check_equal(LEFT);
    let epoch = Epoch { conf_ver: 2, version: 4 };
    assert_eq!(region.epoch, epoch, "split, prepared, off: row A-21");
    for store in 1..=3 {
        let state = record(&mut cluster, store, LEFT);
        assert_eq!(state.state(), proto::raft_serverpb::PeerState::Normal);
    }
    cluster.put(LEFT, b"b", b"it goes on");
    lead(&mut cluster, LEFT, 1);
    // And once more, now for good, while a member hears nothing of either.
    cluster.deaf = vec![(LEFT, StoreId(3))];
    let answer = cluster.try_merge(LEFT, RegionId(8));
    cluster.deliver();
    assert!(answer.is_ok(), "{:?}", answer.answer());
    cluster.ticks(20);
    assert!((1..=3).all(|store| cluster.node(store).views.get(LEFT).is_none()));
    let region = cluster.check_equal(RegionId(8));
    assert_eq!(region.range, base::KeyRange::new("", "t"));
    assert_eq!(value(&mut cluster, 3, b"b"), Some(b"it goes on".to_vec()));
}

/// A target that is not on this store, or lags behind, proves nothing.
#[test]
fn a_target_that_is_not_heard_of_is_no_proof() {
    let mut cluster = two_regions();
    lead(&mut cluster, LEFT, 1);
    lead(&mut cluster, REGION, 1);
    cluster.cut.push(StoreId(1));
    cluster.ticks(60);
    lead(&mut cluster, REGION, 2);
    lead(&mut cluster, LEFT, 3);
    cluster.deaf = vec![(REGION, StoreId(1)), (REGION, StoreId(2)), (REGION, StoreId(3))];
    let target = cluster.view(1, REGION).region.clone();
    let slot = Slot::default();
    let header = header_of(&cluster.view(2, LEFT));
    let request = MergeRequest { header, target: (*target).clone(), reply: slot.reply() };
    cluster.cut.clear();
    cluster.ticks(5);
    cluster.nodes[2].inbox.push(ShardInput::Merge(request));
    cluster.deliver();
    assert!(slot.is_ok(), "{:?}", slot.answer());
    cluster.ticks(100);
    let waits = record(&mut cluster, 3, LEFT);
    assert_eq!(waits.state(), proto::raft_serverpb::PeerState::Merging, "it waits");
    cluster.deaf.clear();
    cluster.ticks(60);
    check_merged(&mut cluster);
}

/// Bug 16: a learner counts like everybody.
#[test]
fn a_learner_that_lags_far_behind_holds_a_merge_back() {
    let mut cluster = regions_of(4, ShardConfig::default().log_entries_max);
    cluster.change(LEFT, &[crate::common::learner(74, 4)]);
    cluster.change(REGION, &[crate::common::learner(24, 4)]);
    cluster.ticks(20);
    cluster.cut.push(StoreId(4));
    for _ in 0..1_100 {
        cluster.put(LEFT, b"b", b"more");
    }
    let slot = cluster.try_merge(LEFT, REGION);
    cluster.deliver();
    let answer = slot.answer().expect("an answer");
    assert!(matches!(answer, Err(RegionError::ServerIsBusy { .. })), "{answer:?}");
    cluster.cut.clear();
    cluster.ticks(30);
    cluster.merge(LEFT, REGION);
    check_merged(&mut cluster);
    assert_eq!(value(&mut cluster, 4, b"b"), Some(b"more".to_vec()));
}

/// A store that was away for the whole merge, and for what came after, so that only a snapshot
/// helps: its source goes, and the target comes with all keys. Bugs 15 and 18.
#[test]
fn a_store_that_missed_it_all_comes_back() {
    for power in [false, true] {
        let mut cluster = regions_of(3, 20);
        let mut prng = base::Prng::new(1);
        cluster.stop(3, power.then_some(&mut prng));
        cluster.merge(LEFT, REGION);
        for _ in 0..100 {
            cluster.put(REGION, b"y", b"more");
        }
        cluster.ticks(20);
        cluster.start(3);
        cluster.ticks(200);
        assert!(cluster.snapshots.contains(&(REGION, PeerId(103))), "{:?}", cluster.snapshots);
        assert!(cluster.node(3).views.get(LEFT).is_none());
        check_merged(&mut cluster);
        let tombstone = record(&mut cluster, 3, LEFT);
        assert_eq!(tombstone.state(), proto::raft_serverpb::PeerState::Tombstone);
        assert!(tombstone.merge_state.is_some(), "it remembers why");
    }
}

/// The same, stopped at any point of it.
#[test]
fn a_store_that_comes_back_stops_at_any_point() {
    for seed in 0..60 {
        let mut cluster = regions_of(3, 20);
        let mut prng = base::Prng::new(seed);
        cluster.stop(3, None);
        cluster.merge(LEFT, REGION);
        for _ in 0..60 {
            cluster.put(REGION, b"y", b"more");
        }
        cluster.start(3);
        for _ in 0..4 {
            for _ in 0..prng.below(30) {
                cluster.tick();
            }
            for _ in 0..prng.below(200) {
                cluster.step(&mut prng, 0);
            }
            let mut lost = base::Prng::new(prng.next_u64());
            let power = prng.one_in(2);
            cluster.stop(3, power.then_some(&mut lost));
            cluster.start(3);
        }
        cluster.ticks(200);
        check_merged(&mut cluster);
    }
}

/// Bug 21: what was meant for a replica that is gone meets nobody.
#[test]
fn late_messages_of_a_region_that_is_gone_do_nothing() {
    let mut cluster = two_regions();
    let mut late = Vec::new();
    cluster.prepare_merge(LEFT, REGION);
    for _ in 0..20 {
        cluster.now = cluster.now + crate::common::TICK;
        let now = cluster.now;
        for node in &mut cluster.nodes {
            node.settle(now);
            late.extend(node.sent.iter().filter(|message| message.region_id == LEFT).cloned());
        }
        cluster.deliver();
    }
    check_merged(&mut cluster);
    assert!(!late.is_empty(), "they spoke to each other");
    for message in late {
        let to = message.to.store_id.0;
        cluster.node(to).inbox.push(ShardInput::Message(message));
        cluster.deliver();
    }
    cluster.ticks(5);
    check_merged(&mut cluster);
}

/// All stores lose their power at any point of a merge.
#[test]
fn the_power_goes_everywhere_at_any_point() {
    for seed in 0..150 {
        let mut cluster = two_regions();
        let mut prng = base::Prng::new(seed);
        let slot = cluster.try_merge(LEFT, REGION);
        for _ in 0..prng.below(400) {
            if prng.one_in(40) {
                cluster.now = cluster.now + crate::common::TICK;
            }
            cluster.step(&mut prng, 0);
        }
        let began = slot.is_ok();
        for store in 1..=3 {
            cluster.stop(store, Some(&mut prng));
        }
        (1..=3).for_each(|store| cluster.start(store));
        cluster.ticks(60);
        if began || cluster.node(1).views.get(LEFT).is_none() {
            check_merged(&mut cluster);
        } else {
            cluster.check_equal(LEFT);
            cluster.check_equal(REGION);
        }
    }
}
