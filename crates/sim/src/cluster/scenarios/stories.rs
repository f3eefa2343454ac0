//! Single stories of the teaching store's suite.

use std::collections::BTreeSet;

use base::{Peer, PeerChange, PeerId, PeerRole};
use bytes::Bytes;
use storage::engine::Cf;
use store::{Proposal, RegionView, ReplyTo, RequestHeader, ShardInput, Writes};

use super::script::{Script, region_on};
use super::{Scenario, What};
use crate::cluster::event::Actor;
use crate::cluster::world::ms;

/// An id that the placement driver does not give out.
const NEW_PEER: u64 = 1 << 59;

type Story = (&'static str, usize, fn(&mut Script));

const STORIES: [Story; 11] = [
    ("test_different_db_path_2b", 5, different_disks),
    ("test_one_partition_2b", 5, one_partition),
    ("test_one_snapshot_2c", 3, one_snapshot),
    ("test_transfer_leader_3b", 5, transfer_leader),
    ("test_basic_conf_change_3b", 5, basic_conf_change),
    ("test_conf_change_remove_leader_3b", 5, remove_leader),
    ("test_one_split_3b", 5, one_split),
    ("test_restart_of_everybody", 3, restart_of_everybody),
    ("timestamps_while_members_of_the_group_change", 4, stamps_without_lease),
    ("a_log_that_stands_still_for_long", 3, log_stands_still),
    ("a_region_is_cut_while_all_is_looked_at", 3, cut_while_looked_at),
];

pub(super) fn all() -> Vec<Scenario> {
    let scenario = |(name, nodes, tell): &Story| Scenario {
        name: (*name).to_owned(),
        what: What::Story(*nodes, *tell),
    };
    STORIES.iter().map(scenario).collect()
}

/// Each store has a disk of its own, with its own name on it.
fn different_disks(script: &mut Script) {
    script.put("k", "v");
    let nodes = &script.world.nodes;
    let names: BTreeSet<_> = nodes
        .iter()
        .map(|node| {
            let ident = store::bootstrap::store_ident(&node.machine.engine).expect("readable");
            let name = ident.expect("it has its name").store_id;
            assert_eq!(Some(name), node.store_id, "what is on the disk");
            name
        })
        .collect();
    assert_eq!(names.len(), 5, "five names: {names:?}");
}

/// A leader with a majority goes on; one without does not, and its successor does.
fn one_partition(script: &mut Script) {
    script.put("k1", "v1");
    let (leader, view) = script.leader("k1");
    let (follower, _) = script.follower("k1");
    let slots: Vec<_> =
        view.region.peers.iter().map(|p| script.world.stores[&p.store_id]).collect();
    let alone = slots.iter().copied().find(|slot| ![leader, follower].contains(slot));
    let alone = alone.expect("there are three");
    script.part(&[alone]);
    script.put("k1", "v2");
    assert_eq!(script.get("k1").as_deref(), Some("v2"), "the majority goes on");
    script.join();
    script.well();
    let (leader, _) = script.leader("k1");
    script.part(&[leader]);
    script.until("another leader", |world| {
        let views = world.nodes.iter().enumerate().filter(|(slot, _)| *slot != leader);
        let mut views = views.filter_map(|(slot, node)| {
            let views = node.views()?;
            Some((slot, views.get(views.region_of(b"k1")?)?))
        });
        views.any(|(slot, view)| view.has_lease(world.local(slot)))
    });
    script.put("k1", "changed");
    assert_eq!(script.get("k1").as_deref(), Some("changed"), "the successor serves");
    script.join();
    script.well();
    assert_eq!(script.get("k1").as_deref(), Some("changed"), "and everybody has it");
}

/// A follower that misses more than the log holds gets a snapshot, deletes too.
fn one_snapshot(script: &mut Script) {
    script.put("k2", "v");
    let (follower, _) = script.follower("k2");
    script.part(&[follower]);
    for i in 0..40 {
        script.put(&format!("k{i:03}"), "value");
    }
    script.delete("k2");
    script.run(3_000);
    let before = script.world.totals.installed;
    script.join();
    script.well();
    assert!(script.world.totals.installed > before, "it came by snapshot");
    script.restart(follower, true);
    script.well();
    assert_eq!(script.get("k2"), None, "what was deleted is gone");
    assert_eq!(script.get("k039").as_deref(), Some("value"), "what was written is there");
}

fn transfer_leader(script: &mut Script) {
    script.put("k", "v");
    for _ in 0..6 {
        let (_, peer) = script.follower("k");
        script.transfer("k", peer);
        script.put("k", "again");
    }
}

/// Replicas come and go; one that comes back has a new name, and all the data.
fn basic_conf_change(script: &mut Script) {
    script.put("k", "v");
    for round in 0..3 {
        let (_, view) = script.leader("k");
        let stores: Vec<_> = script.world.stores.keys().copied().collect();
        let free = stores.into_iter().find(|store| view.region.peer_on(*store).is_none());
        let store_id = free.expect("five nodes, three replicas");
        let id = PeerId(NEW_PEER + round);
        let learner = Peer { id, store_id, role: PeerRole::Learner };
        script.change("k", &[PeerChange::AddLearner(learner)]);
        script.put("k", &format!("v{round}"));
        script.well();
        let (_, gone) = script.follower("k");
        script.change("k", &[PeerChange::Remove(gone)]);
        script.put("k", &format!("w{round}"));
        script.well();
    }
    let (_, view) = script.leader("k");
    assert!(view.region.epoch.conf_ver > 6, "members changed: {:?}", view.region);
}

/// The leader's own replica goes, once it has handed over: before, it refuses. The group goes on.
fn remove_leader(script: &mut Script) {
    for round in 0..3 {
        script.put("k", &format!("v{round}"));
        let (slot, view) = script.leader("k");
        let before = view.region.epoch;
        script.world.change_peers(slot, &view, vec![PeerChange::Remove(view.peer.id)]);
        script.run(500);
        assert_eq!(script.leader("k").1.region.epoch, before, "a leader does not remove itself");
        let (_, heir) = script.follower("k");
        script.transfer("k", heir);
        script.change("k", &[PeerChange::Remove(view.peer.id)]);
        script.put("k", &format!("w{round}"));
        script.well();
    }
}

/// A split while one replica is away; it catches up.
fn one_split(script: &mut Script) {
    for i in 0..30 {
        script.put(&format!("k{i:03}"), "value");
    }
    let (away, _) = script.follower("k000");
    script.part(&[away]);
    script.split("k015");
    let (_, left) = script.leader("k000");
    let (_, right) = script.leader("k020");
    assert_eq!(left.region.range.end, right.region.range.start, "neighbours");
    assert_ne!(left.region.id, right.region.id, "two of them");
    assert!(left.check_key(b"k020").is_err(), "a key of the other one is refused");
    assert_eq!(region_on(&script.world, away, "k000"), region_on(&script.world, away, "k020"));
    assert_eq!(script.get("k000").as_deref(), Some("value"));
    assert_eq!(script.get("k020").as_deref(), Some("value"));
    script.join();
    script.well();
    let store = script.store(away);
    let (_, left) = script.leader("k000");
    let here =
        left.region.peer_on(store).is_none() || region_on(&script.world, away, "k000").is_some();
    assert!(here, "who was away knows of the split");
}

/// The leader has no lease while the members of its group change. Timestamps come all the same, and
/// nobody asks the group again and again when there will be one.
fn stamps_without_lease(script: &mut Script) {
    script.world.plan.think = ms(5);
    // Longer than what was saved ahead lasts: it is saved anew now, and not while logs stand still.
    script.run(4_000);
    assert!(script.stamp(), "the placement driver runs");
    let led = |view: &RegionView| view.is_leader() && view.region.id.is_system();
    let led = script.world.nodes.iter().enumerate().find_map(|(slot, node)| {
        Some((slot, node.views()?.all().into_iter().find(|view| led(view))?))
    });
    let (slot, view) = led.expect("the placement driver runs");
    let free = script.world.stores.keys().find(|store| view.region.peer_on(**store).is_none());
    let store_id = *free.expect("four nodes, three members");
    let until = script.world.now() + ms(1_500);
    for node in &mut script.world.nodes {
        node.stalled = Some((Actor::Log, until));
    }
    let learner = Peer { id: PeerId(NEW_PEER), store_id, role: PeerRole::Learner };
    script.world.change_peers(slot, &view, vec![PeerChange::AddLearner(learner)]);
    script.run(30);
    let view = script.world.nodes[slot].views().and_then(|views| views.get(view.region.id));
    let leased = view.is_some_and(|view| view.has_lease(script.world.local(slot)));
    assert!(!leased, "the change is on its way");
    let before = script.world.totals.messages;
    for _ in 0..6 {
        assert!(script.stamp(), "timestamps need no lease");
        script.run(5);
    }
    assert!(script.world.now() < until, "they did not wait for it");
    let messages = script.world.totals.messages - before;
    assert!(messages < 1_000, "{messages} messages for six timestamps");
    script.well();
}

/// A log stands still, and its shard with it, once enough waits to be written.
fn log_stands_still(script: &mut Script) {
    script.put("k", "v");
    let (slot, view) = script.leader("k");
    let until = script.world.now() + ms(15_000);
    script.world.nodes[slot].stalled = Some((Actor::Log, until));
    let mut most = 0;
    while script.world.now() < until {
        let header = RequestHeader::new(view.region.id, view.peer, view.region.epoch);
        let mut writes = Writes::new();
        writes.put(Cf::Default, b"l", b"of nobody");
        let (only_in_term, reply) = (None, ReplyTo::new(|_| {}));
        let proposal = Proposal { header, writes, only_in_term, reply };
        script.world.tell(slot, ShardInput::Propose(proposal));
        script.run(1);
        let core = script.world.nodes[slot].core().expect("it runs");
        most = core.log_inbox.len().max(most);
    }
    assert!((1_000..3_000).contains(&most), "bounded queues: {most} writes waited for the log");
    script.well();
    assert_eq!(script.get("k").as_deref(), Some("v"));
}

/// A healthy cluster does things by itself at any moment: for some milliseconds nobody leads a part
/// that was just cut off, and that must not pass for a failure.
fn cut_while_looked_at(script: &mut Script) {
    script.put("k", "v");
    for i in 1..20 {
        let (slot, view) = script.leader("k");
        let cut = Bytes::from(format!("k{:03}", 20 - i));
        script.world.ask_split(slot, &view, vec![cut]);
        script.run(i);
        script.world.compare_all();
    }
}

fn restart_of_everybody(script: &mut Script) {
    for i in 0..20 {
        script.put(&format!("k{i:03}"), "value");
    }
    for slot in 0..script.world.nodes.len() {
        script.world.crash(slot, true);
    }
    script.well();
    for i in 0..20 {
        assert_eq!(script.get(&format!("k{i:03}")).as_deref(), Some("value"), "it stays");
    }
}
