//! Snapshots from store to store: followers far behind, crashes at each step of installing, files
//! that are damaged.

use pontoon_store as store;

use std::path::Path;

use crate::common::{Cluster, Machine, REGION, Slot, header_of, learner, region_on, remove};
use base::{Instant, PeerId, Prng, RegionId, StoreId};
use bytes::Bytes;
use storage::engine::{Cf, Engine};
use storage::keys;
use store::snapshot::BUILDS_MAX;
use store::{ApplyInput, ChangePeersRequest, Job, Milestone, ShardConfig, ShardInput, Writes};

const LIMIT: u64 = 10;

fn config() -> ShardConfig {
    ShardConfig { log_entries_max: LIMIT, ..ShardConfig::default() }
}

fn truncated(cluster: &mut Cluster, store: u64) -> (u64, u64) {
    cluster.node(store).machine.open_log_reader().truncated(REGION)
}

/// Three stores of which the third missed everything but the first put.
fn behind() -> Cluster {
    let mut cluster = Cluster::with(3, 3, config());
    cluster.leader();
    cluster.transfer(REGION, PeerId(101));
    cluster.ticks(5);
    cluster.put(REGION, b"deleted", b"old");
    cluster.put(REGION, b"kept", b"old");
    cluster.ticks(3);
    assert_eq!(truncated(&mut cluster, 1), (5, 5));
    cluster.stop(3, None);
    cluster.ticks(30);
    let mut writes = Writes::new();
    writes.delete(Cf::Default, b"deleted");
    writes.put(Cf::Lock, b"locked", b"lock");
    writes.put(Cf::Write, b"written", b"write");
    cluster.write(REGION, &writes);
    for i in 0..4 * LIMIT {
        cluster.put(REGION, b"kept", &[i as u8]);
        cluster.tick();
    }
    assert!(truncated(&mut cluster, 1).0 > 5, "the log was compacted without the third store");
    cluster
}

#[test]
fn a_store_far_behind_gets_all_families_and_deletions() {
    let mut cluster = behind();
    cluster.start(3);
    cluster.ticks(40);
    assert_eq!(cluster.snapshots, [(REGION, PeerId(103))]);
    for restart in [false, true] {
        if restart {
            cluster.stop(3, Some(&mut Prng::new(3)));
            cluster.start(3);
            cluster.ticks(10);
        }
        let region = cluster.check_equal(REGION);
        assert_eq!(region.peers.len(), 3);
        let node = cluster.node(3);
        assert_eq!(node.get(b"deleted"), None);
        for (cf, key, value) in [(Cf::Lock, "locked", "lock"), (Cf::Write, "written", "write")] {
            let found = node.machine.engine.get(cf, &keys::data_key(key.as_bytes()));
            assert_eq!(found.expect("readable"), Some(Bytes::from(value)));
        }
    }
    for i in 0..3 * LIMIT {
        cluster.put(REGION, b"kept", &[i as u8]);
        cluster.ticks(2);
    }
    for store in 1..=3 {
        let applied = cluster.view(store as usize - 1, REGION).applied;
        let (truncated, _) = truncated(&mut cluster, store);
        assert!(applied - truncated <= 2 * LIMIT, "store {store}: {truncated} of {applied}");
    }
}

/// While a follower is alive, if slow, the log waits for it; up to a budget.
#[test]
fn the_log_waits_for_the_slow_but_not_for_the_dead() {
    let mut cluster = Cluster::with(3, 3, config());
    cluster.leader();
    for i in 0..3 * LIMIT {
        cluster.put(REGION, b"k", &[i as u8]);
        cluster.tick();
    }
    assert_eq!(cluster.snapshots, [], "everybody was fast");
    assert!((1..=3).all(|store| truncated(&mut cluster, store).0 > 5));
}

/// Store 3 is stopped at each step of installing, with and without its power.
#[test]
fn installing_goes_on_after_a_crash_at_any_step() {
    let mut steps = std::collections::BTreeMap::new();
    for seed in 0..150 {
        let mut cluster = behind();
        let mut prng = Prng::new(seed);
        cluster.start(3);
        // In disorder until the snapshot is there, and a few steps more.
        for _ in 0..100 {
            if !cluster.snapshots.is_empty() {
                break;
            }
            cluster.now = cluster.now + crate::common::TICK;
            (0..40).for_each(|_| cluster.step(&mut prng, 0));
        }
        for _ in 0..prng.below(60) {
            cluster.step(&mut prng, 0);
        }
        *steps.entry(step_of(&mut cluster)).or_insert(0) += 1;
        let power = prng.one_in(2);
        cluster.stop(3, power.then_some(&mut prng));
        cluster.start(3);
        if prng.one_in(3) {
            cluster.ticks(1);
            cluster.stop(3, Some(&mut prng));
            cluster.start(3);
        }
        cluster.ticks(60);
        cluster.check_equal(REGION);
        assert_eq!(cluster.node(3).get(b"deleted"), None, "seed {seed}");
        let folder = cluster.node(3).folder.clone();
        assert_eq!(folder.received(), Ok(Vec::new()), "seed {seed}: files are left");
    }
    assert!(steps.len() >= 3, "{steps:?}");
    assert!(steps.values().all(|count| *count > 3), "{steps:?}");
}

/// What the engine and the log of store 3 say of an install: Applying, and a log behind it.
fn step_of(cluster: &mut Cluster) -> (i32, bool) {
    use prost::Message;
    let node = cluster.node(3);
    let key = keys::region_state_key(REGION);
    let data = node.machine.engine.get(Cf::Raft, &key).expect("readable").expect("there");
    let state = proto::raft_serverpb::RegionLocalState::decode(data).expect("sound");
    (state.state, node.machine.open_log_reader().truncated(REGION).0 > 5)
}

/// The region is Applying when its files turn out to be damaged, or are gone with a crash: another
/// snapshot comes, and meanwhile the store keeps quiet about what it has not got.
#[test]
fn damaged_files_are_given_up_and_come_again() {
    for crash in [false, true] {
        let mut cluster = behind();
        cluster.start(3);
        for _ in 0..200 {
            cluster.now = cluster.now + crate::common::TICK;
            let found = std::cell::Cell::new(false);
            round(&mut cluster, |node| {
                let install = |job: &store::Job| matches!(job, store::Job::InstallSnapshot(_));
                found.set(found.get() || node.jobs.iter().any(install));
                if !found.get() {
                    node.run_job();
                }
            });
            if found.get() {
                break;
            }
        }
        assert_eq!(step_of(&mut cluster), (1, true));
        let disk = cluster.node(3).machine.disk.clone();
        for file in storage::disk::Disk::list(&disk, Path::new("snap")).expect("a folder") {
            let path = Path::new("snap").join(&file);
            storage::disk::Disk::remove(&disk, &path).expect("it was there");
        }
        if crash {
            cluster.stop(3, None);
            cluster.start(3);
        }
        let before = cluster.snapshots.len();
        cluster.ticks(80);
        assert!(cluster.snapshots.len() > before, "another one came");
        cluster.check_equal(REGION);
        assert_eq!(step_of(&mut cluster).0, 0);
    }
}

/// A snapshot that was built before the follower caught up otherwise, or that comes twice, leaves
/// nothing behind.
#[test]
fn files_that_nobody_wants_go() {
    for seed in 0..60 {
        let mut cluster = behind();
        let mut prng = Prng::new(seed);
        cluster.start(3);
        for round in 0..40 {
            cluster.now = cluster.now + crate::common::TICK;
            (0..60).for_each(|_| cluster.step(&mut prng, 3));
            if round % 13 == 12 {
                cluster.stop(3, None);
                cluster.start(3);
            }
        }
        cluster.ticks(60);
        cluster.check_equal(REGION);
        for node in &cluster.nodes {
            let left = storage::disk::Disk::list(&node.machine.disk, Path::new("snap"));
            let left = left.expect("a folder");
            let received: Vec<_> = left.iter().filter(|name| !name.starts_with("made")).collect();
            assert!(received.is_empty(), "seed {seed}: {received:?}");
        }
    }
}

/// Other regions go on while one is being installed.
#[test]
fn an_install_blocks_nobody_else() {
    let left = RegionId(20);
    let mut cluster = Cluster::with(3, 3, config());
    cluster.leader();
    cluster.transfer(REGION, PeerId(101));
    cluster.ticks(5);
    cluster.split(REGION, b"j", 20);
    cluster.ticks(5);
    cluster.stop(3, None);
    cluster.ticks(30);
    for i in 0..4 * LIMIT {
        cluster.put(REGION, b"z", &[i as u8]);
        cluster.tick();
    }
    cluster.put(left, b"b", b"new");
    cluster.start(3);
    hang(&mut cluster);
    assert_eq!(step_of(&mut cluster), (1, true), "it hangs");
    assert_eq!(cluster.node(3).get(b"b").as_deref(), Some(&b"new"[..]), "the other one goes on");
    let slot = cluster.node(1).views.get(left).expect("here");
    assert_eq!(cluster.view(2, left).applied, slot.applied);
    cluster.ticks(60);
    cluster.check_equal(REGION);
    cluster.check_equal(left);
}

/// A replica that is removed while a snapshot is on its way into it is not torn out of that: it
/// goes, with all its data, once the snapshot is in.
#[test]
fn who_is_removed_while_it_installs_goes_behind_it() {
    let mut cluster = behind();
    cluster.start(3);
    hang(&mut cluster);
    assert_eq!(step_of(&mut cluster), (1, true), "it hangs");
    let slot = Slot::default();
    let (header, changes) = (header_of(&cluster.view(0, REGION)), vec![remove(103)]);
    let request = ChangePeersRequest { header, changes, reply: slot.reply() };
    cluster.nodes[0].inbox.push(ShardInput::ChangePeers(request));
    hang(&mut cluster);
    hang(&mut cluster);
    assert!(slot.is_ok(), "{:?}", slot.answer());
    assert_eq!(step_of(&mut cluster), (1, true), "it was told, and hangs on");
    cluster.ticks(100);
    let tombstone = proto::raft_serverpb::PeerState::Tombstone as i32;
    assert_eq!(step_of(&mut cluster).0, tombstone);
    assert_eq!(cluster.node(3).contents(REGION, &crate::common::everything()), []);
    assert_eq!(cluster.node(3).machine.open_log_reader().last_index(REGION), 0);
    let left = storage::disk::Disk::list(&cluster.node(3).machine.disk, Path::new("snap"));
    assert_eq!(left.expect("a folder"), [""; 0], "no files stay");
}

/// Store 3 does no job beside syncs for a while: an install does not get on.
fn hang(cluster: &mut Cluster) {
    for _ in 0..60 {
        cluster.now = cluster.now + crate::common::TICK;
        round(cluster, |node| {
            if matches!(node.jobs.front(), Some(store::Job::SyncEngine)) {
                node.run_job();
            }
        });
    }
}

/// Stores 1 and 2 do all that they can, store 3 takes three turns and then does `jobs`.
fn round(cluster: &mut Cluster, jobs: impl Fn(&mut crate::common::Node)) {
    let now = cluster.now;
    let last = cluster.nodes.len() - 1;
    for _ in 0..3 {
        cluster.nodes[..last].iter_mut().for_each(|node| node.settle(now));
        let node = &mut cluster.nodes[last];
        node.turn_shard(now);
        node.turn_log();
        node.turn_applier();
        jobs(node);
        let sent: Vec<_> = cluster.nodes.iter_mut().flat_map(|node| node.sent.drain(..)).collect();
        sent.into_iter().for_each(|message| cluster.carry(message, false));
        let nodes = &mut cluster.nodes;
        let credits: Vec<_> = nodes.iter_mut().flat_map(|node| node.credits.drain(..)).collect();
        credits.into_iter().for_each(|credit| cluster.carry_credit(credit, false));
    }
}

/// The applier tells steps only once the engine is synced behind them.
#[test]
fn steps_of_a_life_are_durable_when_told() {
    let mut cluster = Cluster::with(2, 1, config());
    cluster.leader();
    cluster.cut.push(StoreId(2));
    cluster.change(REGION, &[learner(202, 2)]);
    cluster.cut.clear();
    let seen = std::cell::RefCell::new(Vec::new());
    for _ in 0..40 {
        cluster.now = cluster.now + crate::common::TICK;
        round(&mut cluster, |node| {
            for input in &node.inbox {
                let ShardInput::Applied(applied) = input else { continue };
                for step in applied.iter().filter_map(|applied| applied.milestone) {
                    let (last, synced) = node.machine.engine.progress();
                    assert_eq!(last, synced, "{step:?}");
                    seen.borrow_mut().push(step);
                }
            }
            node.run_job();
        });
    }
    assert_eq!(seen.into_inner(), [Milestone::Applying, Milestone::Installed]);
}

/// Each that is being made keeps the engine from forgetting: the others wait, and hold nothing.
#[test]
fn only_so_many_are_made_at_once() {
    let machine = Machine::new(1);
    machine.found(&region_on(&[1]));
    let mut node = machine.start(ShardConfig::default());
    node.settle(Instant::ZERO);
    let wanted = |to| ApplyInput::Snapshot { region_id: REGION, to: PeerId(to), at_least: 0 };
    node.apply_inbox.extend((201..=205).map(wanted));
    node.turn_applier();
    let mut made = Vec::new();
    while let Some(job) = node.jobs.pop_front() {
        let Job::BuildSnapshot(build) = job else { panic!("{job:?}") };
        assert!(node.jobs.len() < BUILDS_MAX);
        made.push(build.to.0);
        node.apply_inbox.push(ApplyInput::SnapshotBuilt);
        node.turn_applier();
    }
    assert_eq!(made, [201, 202, 203, 204, 205]);
}
