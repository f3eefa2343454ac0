//! Three stores that share a region: replication, loss of the leader, answers that may be given and
//! ones that may not.

use pontoon_store as store;

use crate::common::{Cluster, REGION, Slot, TICK, header_of};
use base::{PeerId, Prng};
use store::{RegionError, ShardInput};

fn put(cluster: &mut Cluster, at: usize, key: &[u8], value: &[u8]) -> Slot {
    let slot = cluster.nodes[at].put(key, value);
    cluster.deliver();
    slot
}

#[test]
fn what_the_leader_acknowledged_is_on_every_store() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    for i in 0..50u8 {
        assert!(put(&mut cluster, leader, &[i], b"v").is_ok());
    }
    (0..4).for_each(|_| cluster.tick());
    for node in &cluster.nodes {
        assert_eq!(node.get(&[49]).as_deref(), Some(&b"v"[..]), "store {}", node.machine.store_id);
    }
}

#[test]
fn a_follower_names_the_leader() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    (0..4).for_each(|_| cluster.tick());
    let follower = (leader + 1) % 3;
    let slot = put(&mut cluster, follower, b"k", b"v");
    let expected = cluster.nodes[leader].view().peer;
    let RegionError::NotLeader { leader: Some(named), .. } = slot.error() else {
        panic!("{:?}", slot.error())
    };
    assert_eq!(named, expected);
}

#[test]
fn a_cut_off_leader_neither_acknowledges_nor_serves() {
    let mut cluster = Cluster::new(3);
    let old = cluster.leader();
    assert!(put(&mut cluster, old, b"k", b"old").is_ok());
    cluster.cut.push(cluster.nodes[old].machine.store_id);
    let lost = put(&mut cluster, old, b"k", b"lost");
    let new = cluster.leader();
    assert_ne!(new, old);
    assert!(put(&mut cluster, new, b"k", b"new").is_ok());
    assert!(!cluster.nodes[old].view().has_lease(cluster.now), "two leases at once");
    assert_eq!(lost.answer(), None, "its fate is open while the old leader is cut off");
    assert_eq!(cluster.nodes[old].get(b"k").as_deref(), Some(&b"old"[..]));

    cluster.cut.clear();
    (0..30).for_each(|_| cluster.tick());
    assert!(matches!(lost.error(), RegionError::StaleCommand(_)));
    assert_eq!(cluster.nodes[old].get(b"k").as_deref(), Some(&b"new"[..]));
}

#[test]
fn leases_of_two_leaders_never_overlap() {
    let mut cluster = Cluster::new(3);
    let mut prng = Prng::new(11);
    let mut changes = 0;
    let mut last = None;
    for step in 0..1_500 {
        if step % 40 == 0 {
            cluster.cut.clear();
            let victim = prng.below(3) as usize;
            cluster.cut.push(cluster.nodes[victim].machine.store_id);
        }
        cluster.tick();
        let leases = cluster.nodes.iter().filter(|node| node.view().has_lease(cluster.now));
        let leases: Vec<PeerId> = leases.map(|node| node.view().peer.id).collect();
        assert!(leases.len() <= 1, "at {:?}: {leases:?}", cluster.now);
        if let Some(&leader) = leases.first() {
            changes += u32::from(last.replace(leader) != Some(leader));
        }
    }
    assert!(changes > 5, "the leader changed {changes} times");
}

#[test]
fn a_store_that_lost_its_power_catches_up() {
    let mut cluster = Cluster::new(3);
    let mut prng = Prng::new(5);
    let leader = cluster.leader();
    let victim = (leader + 1) % 3;
    for round in 0..20u8 {
        assert!(put(&mut cluster, leader, &[round], b"v").is_ok());
        if round % 5 == 4 {
            let machine = cluster.nodes[victim].machine.clone();
            machine.power_loss(&mut prng);
            cluster.nodes[victim] = machine.start(Default::default());
        }
    }
    (0..60).for_each(|_| cluster.tick());
    for round in 0..20u8 {
        assert_eq!(cluster.nodes[victim].get(&[round]).as_deref(), Some(&b"v"[..]), "{round}");
    }
}

#[test]
fn a_restarted_voter_honours_the_lease_it_may_have_granted() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let (other, restarted) = ((leader + 1) % 3, (leader + 2) % 3);
    // The leader is cut off from `other`; `restarted` has just confirmed the lease and forgets it.
    cluster.tick();
    let machine = cluster.nodes[restarted].machine.clone();
    machine.kill();
    cluster.nodes[restarted] = machine.start(Default::default());
    cluster.cut.push(cluster.nodes[leader].machine.store_id);
    cluster.deliver();
    while cluster.nodes[leader].view().has_lease(cluster.now) {
        assert!(!cluster.nodes[other].view().is_leader(), "{:?}", cluster.now);
        assert!(!cluster.nodes[restarted].view().is_leader(), "{:?}", cluster.now);
        cluster.now = cluster.now + TICK;
        cluster.deliver();
    }
    assert_ne!(cluster.leader(), leader);
}

#[test]
fn a_request_for_another_peer_is_not_taken_for_ours() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let other = header_of(&cluster.nodes[(leader + 1) % 3].view());
    let error = cluster.nodes[leader].views.route(&other).expect_err("another store");
    assert!(matches!(error, RegionError::StoreNotMatch { .. }), "{error:?}");
}

/// A follower whose disk is full takes nothing more, so that it lives; the others go on, and when
/// it has room again it gets what it missed.
#[test]
fn a_follower_with_a_full_disk_waits_for_room() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let full = (leader + 1) % 3;
    cluster.put(REGION, b"before", b"v");
    cluster.ticks(3);
    cluster.nodes[full].inbox.push(ShardInput::DiskFull(true));
    for i in 0..20u8 {
        cluster.put(REGION, &[i], b"meanwhile");
    }
    cluster.ticks(30);
    assert_eq!(cluster.leader(), leader, "it goes on to follow");
    assert_eq!(cluster.nodes[full].get(b"before").as_deref(), Some(&b"v"[..]));
    let log = cluster.nodes[full].machine.open_log_reader().last_index(REGION);
    let whole = cluster.nodes[leader].machine.open_log_reader().last_index(REGION);
    assert!(log + 20 <= whole, "it holds {log} entries of {whole}");
    cluster.nodes[full].inbox.push(ShardInput::DiskFull(false));
    cluster.ticks(10);
    cluster.check_equal(REGION);
    assert_eq!(cluster.snapshots, []);
}
