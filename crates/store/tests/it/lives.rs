//! Replicas come and go, and what is said of it comes together.

use base::{Epoch, Peer, PeerId, Region, RegionId, StoreId};
use pontoon_store as store;
use prost::Message;
use raft::Body;
use storage::engine::{Cf, Engine};
use storage::keys;
use store::{ChangePeersRequest, RaftMessage, ShardInput};

use crate::common::{Cluster, REGION, Slot, TICK, everything, header_of, learner, remove, word};

/// Four stores of which the first `members` share the region.
fn cluster(members: u64) -> Cluster {
    Cluster::with_rows(members, 10)
}

/// What store 1 says to a peer on another one, in the name of its leader.
fn greeting(cluster: &Cluster, to: Peer, epoch: Epoch) -> RaftMessage {
    let view = cluster.view(0, REGION);
    let body = Body::Heartbeat { commit: 0, round: 1 };
    word(REGION, (view.peer, to), (epoch, everything()), (view.term, body))
}

/// One round: all but `frozen` do what there is to do, what was sent arrives, and `frozen`'s shard
/// and log take it, but its applier does not. Nobody is told that he was removed.
fn round(cluster: &mut Cluster, frozen: Option<u64>, mut then: impl FnMut(&mut Cluster, &Body)) {
    let (now, mut messages, mut credits) = (cluster.now, Vec::new(), Vec::new());
    for store in 1..=4 {
        let node = cluster.node(store);
        if frozen == Some(store) {
            node.turn_shard(now);
            node.turn_log();
        } else {
            node.settle(now);
        }
        messages.extend(node.sent.drain(..));
        credits.extend(node.credits.drain(..));
    }
    credits.into_iter().for_each(|credit| cluster.carry_credit(credit, false));
    for message in messages.into_iter().filter(|message: &RaftMessage| !message.tombstone) {
        let body = message.message.body.clone();
        cluster.carry(message, false);
        then(cluster, &body);
    }
}

/// The snapshot counts for the group from the moment on at which it arrived, though nothing of it
/// is installed: a replica that forgot it would have promised what it has not.
#[test]
fn a_word_to_a_later_peer_does_not_undo_a_snapshot_of_the_same_moment() {
    let mut cluster = cluster(1);
    cluster.cut.push(StoreId(2));
    cluster.change(REGION, &[learner(202, 2)]);
    cluster.cut.clear();
    let later = Peer::voter(PeerId(302), StoreId(2));
    let said = greeting(&cluster, later, Epoch { conf_ver: 9, version: 1 });
    let mut came = false;
    for _ in 0..40 {
        cluster.now = cluster.now + TICK;
        for _ in 0..6 {
            round(&mut cluster, None, |cluster, body| {
                if matches!(body, Body::Snapshot { .. }) && !came {
                    came = true;
                    cluster.node(2).inbox.push(ShardInput::Message(said.clone()));
                }
            });
        }
    }
    assert!(came, "a new peer begins with a snapshot");
    assert_eq!(cluster.node(2).fatal, None);
    cluster.ticks(20);
    assert_eq!(cluster.check_equal(REGION).peers.len(), 2);
}

/// The record that stays must tell of the last change that the store was told of: a later peer of
/// the region here is known by that.
#[test]
fn what_an_entry_says_of_a_removal_outlives_a_rumour_of_before() {
    let mut cluster = cluster(3);
    cluster.change(REGION, &[learner(204, 4)]);
    cluster.ticks(10);
    let leader = cluster.leader();
    let view = cluster.view(leader, REGION);
    let slot = Slot::default();
    let request = ChangePeersRequest {
        header: header_of(&view),
        changes: vec![remove(204)],
        reply: slot.reply(),
    };
    cluster.nodes[leader].inbox.push(ShardInput::ChangePeers(request));
    for _ in 0..12 {
        round(&mut cluster, Some(4), |_, _| {});
    }
    assert!(slot.is_ok(), "{:?}", slot.answer());
    let removed = cluster.view(leader, REGION).region.epoch;
    assert_eq!(removed.conf_ver, view.region.epoch.conf_ver + 1);
    // Its applier has not seen the entry yet, and somebody says that the region merged.
    let target = Region { id: RegionId(77), ..(*view.region).clone() };
    let to = *view.region.peer_on(StoreId(4)).expect("it was one");
    let rumour = RaftMessage {
        tombstone: true,
        merged_into: Some(Box::new(target)),
        range: None,
        ..greeting(&cluster, to, view.region.epoch)
    };
    let now = cluster.now;
    let node = cluster.node(4);
    assert!(!node.apply_inbox.is_empty(), "the entry waits");
    node.inbox.push(ShardInput::Message(rumour));
    node.turn_shard(now);
    node.turn_applier();
    let record = node.machine.engine.get(Cf::Raft, &keys::region_state_key(REGION));
    let record = record.expect("readable").expect("a tombstone stays");
    let record = proto::raft_serverpb::RegionLocalState::decode(record).expect("sound");
    assert_eq!(record.state(), proto::raft_serverpb::PeerState::Tombstone);
    assert!(record.merge_state.is_some(), "both are remembered");
    let epoch = record.region.and_then(|region| region.region_epoch).expect("there is one");
    assert_eq!(epoch.conf_ver, removed.conf_ver);
    node.settle(now);
}
