//! Groups that sleep: what puts them to sleep, what wakes them, and what they cost meanwhile.

use pontoon_store as store;

use crate::common::{Cluster, Machine, REGION, Slot, TICK, header_of, learner, region_on};
use base::{RegionId, StoreId};
use raft::Body;
use store::{ShardConfig, ShardInput};

/// A cluster of `size` stores whose group sleeps, and the place of its leader.
fn sleeping(size: u64) -> (Cluster, usize) {
    let mut cluster = Cluster::new(size);
    let leader = cluster.leader();
    cluster.put(REGION, b"k", b"v");
    cluster.ticks(40);
    assert_eq!(awake(&cluster), 0, "all sleep");
    (cluster, leader)
}

/// Replicas that tick, on all stores that run.
fn awake(cluster: &Cluster) -> usize {
    let runs = cluster.nodes.iter().filter(|n| !cluster.down.contains(&n.machine.store_id));
    runs.map(|node| node.shard.awake()).sum()
}

/// Ticks until some store serves the region; how many that took.
fn ticks_to_serve(cluster: &mut Cluster, most: u32) -> u32 {
    for tick in 1..=most {
        cluster.tick();
        let down = cluster.down.clone();
        let cut = cluster.cut.clone();
        let mut nodes = cluster.nodes.iter().filter(|node| {
            let id = node.machine.store_id;
            !down.contains(&id) && !cut.contains(&id)
        });
        let now = cluster.now;
        if nodes.any(|node| node.views.get(REGION).is_some_and(|view| view.has_lease(now))) {
            return tick;
        }
    }
    panic!("nobody serves the region after {most} ticks");
}

#[test]
fn an_idle_group_says_nothing() {
    let (mut cluster, _) = sleeping(3);
    let (messages, signs) = cluster.said;
    cluster.ticks(300);
    assert_eq!(cluster.said.0, messages, "no heartbeats");
    // Each of the two pairs with the leader's store, both ways, every three ticks.
    let signs = cluster.said.1 - signs;
    assert!((4 * 95..=4 * 101).contains(&signs), "{signs} signs of life");
}

#[test]
fn many_groups_share_their_signs_of_life() {
    let mut cluster = Cluster::new(3);
    cluster.leader();
    for (i, key) in (b'b'..b'v').enumerate() {
        cluster.split(REGION, &[key], 100 + i as u64);
    }
    cluster.ticks(60);
    assert_eq!(awake(&cluster), 0);
    let (messages, signs) = cluster.said;
    cluster.ticks(30);
    let signs = cluster.said.1 - signs;
    assert!(cluster.said.0 == messages && signs <= 6 * 11, "{signs} signs of life");
}

#[test]
fn a_write_wakes_the_group_and_is_everywhere() {
    let (mut cluster, leader) = sleeping(3);
    let term = cluster.nodes[leader].view().term;
    cluster.put(REGION, b"k", b"later");
    cluster.ticks(3);
    for node in &cluster.nodes {
        assert_eq!(node.get(b"k").as_deref(), Some(&b"later"[..]));
        assert_eq!(node.view().term, term, "no election was needed");
    }
    cluster.ticks(40);
    assert_eq!(awake(&cluster), 0, "and all sleep again");
}

#[test]
fn a_read_at_the_leader_or_elsewhere_wakes_the_group() {
    for place in 0..3 {
        let (mut cluster, leader) = sleeping(3);
        assert!(!cluster.nodes[leader].view().has_lease(cluster.now), "it ran out");
        let slot = cluster.nodes[(leader + place) % 3].replica_read(REGION);
        cluster.deliver();
        assert!(slot.is_ok(), "{:?}", slot.answer());
    }
}

#[test]
fn a_group_that_is_read_under_its_lease_stays_awake() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    for _ in 0..60 {
        let view = cluster.nodes[leader].view();
        view.traffic.read(b"k", 1);
        cluster.tick();
        assert!(cluster.nodes[leader].view().has_lease(cluster.now));
    }
}

#[test]
fn the_groups_of_a_dead_store_wake_and_are_led_elsewhere() {
    let mut worst = 0;
    for victim in 0..10 {
        let (mut cluster, leader) = sleeping(3);
        cluster.ticks(victim);
        let dead = cluster.nodes[leader].machine.store_id.0;
        cluster.stop(dead, None);
        worst = worst.max(ticks_to_serve(&mut cluster, 40));
        cluster.put(REGION, b"k", b"after");
        cluster.start(dead);
        cluster.ticks(80);
        assert_eq!(cluster.node(dead).get(b"k").as_deref(), Some(&b"after"[..]));
        assert_eq!(awake(&cluster), 0, "and all sleep again");
    }
    println!("led again after {worst} ticks at the latest");
}

#[test]
fn a_store_that_was_started_anew_leads_no_group_that_sleeps() {
    let (mut cluster, leader) = sleeping(3);
    let dead = cluster.nodes[leader].machine.store_id.0;
    // It is back before anybody notices that it was gone.
    cluster.stop(dead, None);
    cluster.start(dead);
    assert!(ticks_to_serve(&mut cluster, 40) <= 30);
}

#[test]
fn a_group_with_a_dead_follower_stays_awake_and_says_who_it_is() {
    let (mut cluster, leader) = sleeping(3);
    let dead = cluster.nodes[(leader + 1) % 3].machine.store_id;
    cluster.stop(dead.0, None);
    cluster.ticks(60);
    for _ in 0..60 {
        cluster.tick();
        assert_eq!(awake(&cluster), 2, "else placement would never hear of it");
    }
    cluster.start(dead.0);
    cluster.ticks(80);
    assert_eq!(awake(&cluster), 0);
}

/// Known bug 16429: after an isolation step by step a sleeping group found no leader.
#[test]
fn a_group_that_is_isolated_step_by_step_finds_a_leader() {
    for order in 0..6 {
        let (mut cluster, leader) = sleeping(3);
        let id = |at: usize| cluster.nodes[at % 3].machine.store_id.0;
        let (a, b, c) = (id(leader), id(leader + 1), id(leader + 2));
        let steps = [(a, b), (a, c), (b, c)];
        for step in 0..3 {
            let pair = steps[(order + step * if order < 3 { 1 } else { 2 }) % 3];
            cluster.broken.push(pair);
            cluster.ticks(17);
        }
        cluster.cut.push(StoreId(a));
        cluster.broken.clear();
        let ticks = ticks_to_serve(&mut cluster, 60);
        assert!(ticks <= 60, "order {order}: {ticks} ticks");
        cluster.put(REGION, b"k", b"after");
    }
}

/// Known bug 18916: a replica that was woken went to sleep again by a word of before.
#[test]
fn a_late_word_to_sleep_does_not_keep_a_group_without_its_leader() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    cluster.put(REGION, b"k", b"v");
    let mut late = Vec::new();
    while late.is_empty() {
        cluster.now = cluster.now + TICK;
        let now = cluster.now;
        for node in &mut cluster.nodes {
            node.settle(now);
            let sent: Vec<_> = node.sent.drain(..).collect();
            let quiesce = |m: &&store::RaftMessage| matches!(m.message.body, Body::Quiesce { .. });
            late.extend(sent.iter().filter(quiesce).cloned());
            cluster.wire.extend(sent);
        }
        cluster.deliver();
    }
    assert_eq!(late.len(), 2, "to both followers");
    cluster.ticks(5);
    assert_eq!(awake(&cluster), 0);
    let dead = cluster.nodes[leader].machine.store_id;
    cluster.stop(dead.0, None);
    // Again and again, for as long as a network may keep a message.
    let mut now = cluster.now;
    for _ in 0..40 {
        for message in &late {
            let to = message.to.store_id;
            cluster.node(to.0).inbox.push(ShardInput::Message(message.clone()));
        }
        cluster.ticks(2);
        now = cluster.now;
    }
    assert!(cluster.now == now);
    ticks_to_serve(&mut cluster, 40);
}

#[test]
fn who_decides_alone_reads_without_ticks_and_writes_nothing_for_it() {
    let machine = Machine::new(1);
    machine.found(&region_on(&[1]));
    let mut node = machine.start(ShardConfig::default());
    let mut now = base::Instant::ZERO;
    for _ in 0..60 {
        now = now + TICK;
        node.settle(now);
    }
    assert_eq!(node.shard.awake(), 0);
    assert!(node.view().has_lease(now));
    let written = node.writer.stats();
    now = now + TICK * 10_000;
    node.settle(now);
    assert!(node.view().has_lease(now), "nobody else can lead");
    assert_eq!(node.writer.stats().writes, written.writes, "and the log was not written");
    // Once somebody else may come to decide, the lease is one of time again.
    let slot = Slot::default();
    let (header, reply) = (header_of(&node.view()), slot.reply());
    let changes = vec![learner(200, 2), crate::common::voter(201, 3)];
    let request = store::ChangePeersRequest { header, changes, reply };
    node.inbox.push(ShardInput::ChangePeers(request));
    node.turn_shard(now);
    let later = now + TICK * 100;
    assert!(!node.view().has_lease(later), "{:?}", node.view());
}

#[test]
fn a_region_that_is_gone_wakes_nobody() {
    let (mut cluster, leader) = sleeping(3);
    let store = cluster.nodes[(leader + 1) % 3].machine.store_id.0;
    cluster.change(REGION, &[crate::common::remove(100 + store)]);
    cluster.ticks(80);
    assert!(cluster.node(store).views.get(REGION).is_none());
    assert_eq!(awake(&cluster), 0);
    let said = cluster.said;
    cluster.stop(store, None);
    cluster.ticks(60);
    assert_eq!((awake(&cluster), cluster.said.0), (0, said.0), "it is no member any more");
    assert_eq!(RegionId(REGION.0), REGION);
}
