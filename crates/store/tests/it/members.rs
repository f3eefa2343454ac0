//! Peers come, go and change sides; stores are cut off, stopped and started meanwhile.

use pontoon_store as store;

use crate::common::{Cluster, REGION, everything, learner, remove, voter, word};
use base::{PeerId, PeerRole, Prng, RegionId, StoreId};
use storage::engine::{Cf, Engine};
use storage::keys;
use store::{RegionError, Writes};

/// Four stores of which the first `members` share the region.
fn cluster(members: u64) -> Cluster {
    Cluster::with_rows(members, 10)
}

fn is_here(cluster: &mut Cluster, store: u64) -> bool {
    cluster.node(store).views.get(REGION).is_some()
}

/// The state that the engine of a store holds of the region: 0 normal, 2 tombstone.
fn local_state(cluster: &mut Cluster, store: u64) -> Option<(i32, u64)> {
    use prost::Message;
    let key = keys::region_state_key(REGION);
    let data = cluster.node(store).machine.engine.get(Cf::Raft, &key).expect("readable")?;
    let state = proto::raft_serverpb::RegionLocalState::decode(data).expect("sound");
    Some((state.state, state.region?.peers.first()?.id))
}

#[test]
fn a_new_peer_begins_with_a_snapshot() {
    let mut cluster = cluster(1);
    assert_eq!(cluster.snapshots, []);
    cluster.change(REGION, &[learner(202, 2)]);
    cluster.ticks(6);
    assert_eq!(cluster.snapshots, [(REGION, PeerId(202))], "one snapshot, and it came first");
    let region = cluster.check_equal(REGION);
    assert_eq!(region.epoch, base::Epoch { conf_ver: 2, version: 1 });
    assert_eq!(region.peer(PeerId(202)).map(|peer| peer.role), Some(PeerRole::Learner));
    cluster.change(REGION, &[voter(202, 2)]);
    let region = cluster.check_equal(REGION);
    assert!(region.peers.iter().all(|peer| peer.role == PeerRole::Voter));
    assert_eq!(cluster.snapshots.len(), 1);
    cluster.change(REGION, &[voter(203, 3)]);
    cluster.put(REGION, b"z", b"later");
    assert_eq!(cluster.check_equal(REGION).peers.len(), 3);
    for store in 1..=3 {
        assert_eq!(cluster.node(store).get(b"z").as_deref(), Some(&b"later"[..]));
    }
}

#[test]
fn a_removed_peer_leaves_a_tombstone_and_no_data() {
    let mut cluster = cluster(3);
    cluster.transfer(REGION, PeerId(101));
    cluster.ticks(5);
    cluster.change(REGION, &[remove(103)]);
    cluster.ticks(40);
    assert_eq!(cluster.check_equal(REGION).peers.len(), 2);
    assert!(!is_here(&mut cluster, 3));
    assert_eq!(local_state(&mut cluster, 3), Some((2, 103)));
    let node = cluster.node(3);
    assert_eq!(node.contents(REGION, &everything()), []);
    assert_eq!(node.machine.open_log_reader().last_index(REGION), 0);
    let apply_state = node.machine.engine.get(Cf::Raft, &keys::apply_state_key(REGION));
    assert_eq!(apply_state.expect("readable"), None);
}

#[test]
fn a_peer_that_slept_through_its_removal_is_told() {
    for power in [false, true] {
        let mut cluster = cluster(3);
        cluster.transfer(REGION, PeerId(101));
        cluster.ticks(5);
        cluster.stop(3, power.then_some(&mut Prng::new(1)));
        cluster.change(REGION, &[remove(103)]);
        cluster.ticks(10);
        cluster.start(3);
        cluster.ticks(60);
        assert!(!is_here(&mut cluster, 3), "it asked, and was told");
        assert_eq!(local_state(&mut cluster, 3), Some((2, 103)));
    }
}

#[test]
fn a_learner_that_slept_through_its_removal_is_told() {
    let mut cluster = cluster(3);
    cluster.change(REGION, &[learner(204, 4)]);
    cluster.ticks(10);
    cluster.cut.push(StoreId(4));
    cluster.change(REGION, &[remove(204)]);
    cluster.ticks(10);
    cluster.stop(4, None);
    cluster.start(4);
    cluster.cut.clear();
    cluster.ticks(80);
    assert!(!is_here(&mut cluster, 4));
    assert_eq!(local_state(&mut cluster, 4), Some((2, 204)));
}

#[test]
fn a_peer_comes_back_under_another_id() {
    for sleeps in [false, true] {
        let mut cluster = cluster(3);
        cluster.transfer(REGION, PeerId(101));
        cluster.ticks(5);
        if sleeps {
            cluster.stop(3, None);
        }
        cluster.change(REGION, &[remove(103)]);
        cluster.put(REGION, b"b", b"new");
        cluster.change(REGION, &[learner(93, 3)]);
        if sleeps {
            cluster.start(3);
        }
        cluster.ticks(60);
        cluster.change(REGION, &[voter(93, 3)]);
        let region = cluster.check_equal(REGION);
        assert_eq!(region.peer_on(StoreId(3)).map(|peer| peer.id), Some(PeerId(93)));
        assert_eq!(local_state(&mut cluster, 3).map(|(state, _)| state), Some(0));
        cluster.stop(3, Some(&mut Prng::new(2)));
        cluster.start(3);
        cluster.ticks(30);
        cluster.check_equal(REGION);
    }
}

#[test]
fn a_replica_is_replaced_by_a_joint_change() {
    let mut cluster = cluster(3);
    cluster.change(REGION, &[learner(204, 4)]);
    cluster.ticks(10);
    cluster.change(REGION, &[voter(204, 4), remove(102)]);
    cluster.ticks(10);
    let region = cluster.check_equal(REGION);
    assert!(!region.is_joint(), "the leader leaves it by itself");
    assert_eq!(region.epoch.conf_ver, 6, "one learner, two changes, two roles");
    assert_eq!(region.peer(PeerId(102)).map(|peer| peer.role), Some(PeerRole::Learner));
    cluster.change(REGION, &[remove(102)]);
    cluster.ticks(40);
    assert!(!is_here(&mut cluster, 2));
    assert_eq!(cluster.check_equal(REGION).peers.len(), 3);
}

#[test]
fn the_leader_can_be_replaced_by_a_joint_change() {
    let mut cluster = cluster(3);
    cluster.change(REGION, &[learner(204, 4)]);
    cluster.ticks(10);
    let leader = cluster.leader();
    let old = cluster.view(leader, REGION).peer;
    let slot = cluster.try_change(REGION, &[remove(old.id.0)]);
    assert!(matches!(slot.error(), RegionError::ServerIsBusy { .. }), "not at once");
    cluster.change(REGION, &[voter(204, 4), remove(old.id.0)]);
    cluster.ticks(60);
    let region = cluster.check_equal(REGION);
    assert_eq!(region.peer(old.id).map(|peer| peer.role), Some(PeerRole::Learner));
    let leader = cluster.leader();
    assert_ne!(cluster.view(leader, REGION).peer.id, old.id);
}

#[test]
fn changes_that_do_not_fit_are_refused() {
    let mut cluster = cluster(3);
    for changes in [&[voter(101, 1)][..], &[voter(301, 1)], &[remove(7)], &[]] {
        let slot = cluster.try_change(REGION, changes);
        assert!(matches!(slot.error(), RegionError::EpochNotMatch { .. }), "{changes:?}");
    }
    // Two changes at the same time: the second finds the first one pending, or its epoch gone.
    let first = cluster.try_change(REGION, &[learner(204, 4)]);
    assert!(first.is_ok());
    let slot = cluster.try_change(REGION, &[learner(205, 4)]);
    assert!(matches!(slot.error(), RegionError::EpochNotMatch { .. }));
}

#[test]
fn no_change_leaves_fewer_living_voters_than_it_needs() {
    let mut cluster = cluster(3);
    let leader = cluster.leader();
    let dead = if leader == 2 { 2 } else { 3 };
    cluster.stop(dead, None);
    cluster.ticks(30);
    let living: Vec<u64> = (1..=3).filter(|id| *id != dead).collect();
    let follower = living.into_iter().find(|id| *id as usize != leader + 1).expect("two live");
    let slot = cluster.try_change(REGION, &[remove(100 + follower)]);
    assert!(matches!(slot.error(), RegionError::ServerIsBusy { .. }), "{:?}", slot.answer());
    cluster.change(REGION, &[remove(100 + dead)]);
    assert_eq!(cluster.check_equal(REGION).peers.len(), 2);
}

#[test]
fn a_learner_that_lags_is_not_promoted() {
    let mut cluster = cluster(3);
    cluster.change(REGION, &[learner(204, 4)]);
    cluster.ticks(10);
    cluster.cut.push(StoreId(4));
    cluster.ticks(30);
    let slot = cluster.try_change(REGION, &[voter(204, 4)]);
    assert!(matches!(slot.error(), RegionError::ServerIsBusy { .. }));
    cluster.cut.clear();
    cluster.ticks(10);
    cluster.change(REGION, &[voter(204, 4)]);
    cluster.check_equal(REGION);
}

#[test]
fn leadership_moves_on_request_and_writes_go_on() {
    let mut cluster = cluster(3);
    for to in [102, 103, 101, 102] {
        let slot = cluster.transfer(REGION, PeerId(to));
        assert!(slot.is_ok(), "{:?}", slot.answer());
        cluster.ticks(3);
        let leader = cluster.leader();
        assert_eq!(cluster.view(leader, REGION).peer.id, PeerId(to));
        cluster.put(REGION, b"k", &[to as u8]);
    }
    cluster.change(REGION, &[learner(204, 4)]);
    cluster.ticks(10);
    let slot = cluster.transfer(REGION, PeerId(204));
    assert!(matches!(slot.error(), RegionError::ServerIsBusy { .. }), "a learner cannot lead");
    cluster.check_equal(REGION);
}

#[test]
fn a_learner_names_the_leader() {
    let mut cluster = cluster(3);
    cluster.change(REGION, &[learner(204, 4)]);
    cluster.ticks(10);
    let header = crate::common::header_of(&cluster.view(3, REGION));
    let mut writes = Writes::new();
    writes.put(Cf::Default, b"k", b"v");
    let slot = cluster.node(4).propose(header, writes);
    cluster.deliver();
    let RegionError::NotLeader { leader: Some(leader), .. } = slot.error() else {
        panic!("{:?}", slot.error())
    };
    assert_eq!(leader.role, PeerRole::Voter);
}

#[test]
fn what_an_uninitialised_peer_voted_survives_a_power_loss() {
    let mut cluster = cluster(3);
    // A candidate that knows a peer which nobody made yet.
    let term = 50;
    let last = raft::LogPos { index: 100, term: 40 };
    let vote = |from: u64, to: u64| {
        let body = raft::Body::Vote { last, priority: 0, released: None };
        let from = base::Peer::voter(PeerId(from), StoreId(from - 100));
        let to = base::Peer::voter(PeerId(to), StoreId(4));
        let epoch = base::Epoch { conf_ver: 9, version: 1 };
        word(REGION, (from, to), (epoch, everything()), (term, body))
    };
    cluster.cut.push(StoreId(4));
    let ask = |cluster: &mut Cluster, from: u64, to: u64| -> Vec<bool> {
        let now = cluster.now;
        let node = cluster.node(4);
        node.inbox.push(store::ShardInput::Message(vote(from, to)));
        node.settle(now);
        let granted = node.sent.drain(..).filter_map(|message| match message.message.body {
            raft::Body::VoteResponse { granted } => Some(granted),
            _ => None,
        });
        granted.collect()
    };
    assert_eq!(ask(&mut cluster, 101, 204), [true]);
    assert_eq!(ask(&mut cluster, 102, 204), [false]);
    for _ in 0..3 {
        cluster.stop(4, Some(&mut Prng::new(5)));
        cluster.start(4);
        // It may have answered a leader before it went down, so it is silent for a while.
        let _ = ask(&mut cluster, 102, 204);
        cluster.ticks(25);
        assert_eq!(ask(&mut cluster, 102, 204), [false]);
    }
    assert!(cluster.node(4).views.get(RegionId(2)).is_none());
}

/// Who was told of a change may take away the store that the group needed before.
#[test]
fn a_change_that_was_told_outlives_a_power_loss() {
    for seed in 0..10 {
        let mut prng = Prng::new(seed);
        let mut cluster = cluster(2);
        cluster.change(REGION, &[learner(203, 3)]);
        cluster.change(REGION, &[voter(203, 3)]);
        assert_eq!(cluster.check_equal(REGION).peers.len(), 3);
        let leader = cluster.leader() as u64 + 1;
        let gone = if leader == 3 { 1 } else { leader };
        let others: Vec<u64> = (1..=3).filter(|store| *store != gone).collect();
        cluster.stop(gone, None);
        others.iter().for_each(|store| cluster.stop(*store, Some(&mut prng)));
        others.iter().for_each(|store| cluster.start(*store));
        cluster.put(REGION, b"z", b"later");
    }
}
