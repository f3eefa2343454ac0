//! Replicas that are compared, and logs that stay within the store's budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{Cluster, REGION, Slot, header_of, learner};
use base::{KeyRange, RegionId, StoreId};
use bytes::Bytes;
use pontoon_store as store;
use storage::engine::{Cf, Engine, Fate, GarbageRule, GarbageWalk, Gone, WriteBatch};
use storage::keys;
use store::{CheckStatus, InspectReply, Inspection, RegionError, RegionRequest, ReplicaStatus};
use store::{ShardConfig, ShardInput};

/// Nobody sleeps: a leader has its lease all the time.
fn awake() -> ShardConfig {
    ShardConfig { sleep_ticks: 0, ..ShardConfig::default() }
}

/// Asks the leader to compare the replicas, and lets everything follow that follows at once.
fn check(cluster: &mut Cluster, region: RegionId) -> Slot {
    let at = cluster.leader_of(region);
    let slot = Slot::default();
    let header = header_of(&cluster.view(at, region));
    let request = RegionRequest { header, reply: slot.reply() };
    cluster.nodes[at].inbox.push(ShardInput::Check(request));
    cluster.deliver();
    slot
}

fn status(cluster: &mut Cluster, store: u64, region: RegionId) -> Option<ReplicaStatus> {
    let (send, receive) = std::sync::mpsc::channel();
    let reply = InspectReply::new(move |status| send.send(status).expect("somebody waits"));
    let now = cluster.now;
    let node = cluster.node(store);
    node.inbox.push(ShardInput::Inspect(Inspection { region_id: region, reply }));
    node.turn_shard(now);
    let inspected = std::mem::take(&mut node.out.inspected);
    inspected.into_iter().for_each(|(reply, status)| reply.answer(status));
    receive.recv().expect("it was answered")
}

fn check_status(cluster: &mut Cluster, store: u64) -> Option<CheckStatus> {
    status(cluster, store, REGION).expect("it is here").check
}

#[test]
fn equal_replicas_agree_and_say_so() {
    let mut cluster = Cluster::with(4, 3, awake());
    for i in 0..40u8 {
        cluster.put(REGION, &[i], &[i; 100]);
    }
    cluster.change(REGION, &[learner(104, 4)]);
    cluster.ticks(30);
    let answer = check(&mut cluster, REGION);
    cluster.ticks(4);
    assert!(answer.is_ok(), "{:?}", answer.answer());
    let first = check_status(&mut cluster, 1).expect("it made its hash");
    assert!(first.agreed && first.hash.keys() == 41, "{first:?}");
    for store in 2..=4 {
        assert_eq!(check_status(&mut cluster, store), Some(first), "store {store}");
    }
    // What is written since changes it.
    cluster.put(REGION, b"k", b"v");
    assert!(check(&mut cluster, REGION).is_ok());
    cluster.ticks(4);
    let second = check_status(&mut cluster, 1).expect("it made its hash");
    assert!(second.agreed && second.hash.index > first.hash.index);
    assert_ne!(second.hash.digest, first.hash.digest);
}

#[test]
fn a_replica_that_differs_stops_its_store_and_no_other() {
    for damage in 0..3 {
        let mut cluster = Cluster::new(3);
        cluster.put(REGION, b"key", b"value");
        let leader = cluster.leader();
        cluster.ticks(6);
        let victim = (leader + 1) % 3;
        let mut batch = WriteBatch::new();
        match damage {
            0 => batch.put(Cf::Default, &keys::data_key(b"key"), b"valuf"),
            1 => batch.delete(Cf::Default, &keys::data_key(b"key")),
            _ => batch.put(Cf::Write, &keys::data_key(b"key"), b"value"),
        }
        cluster.nodes[victim].machine.engine.write(&batch).expect("the engine works");
        let at = header_of(&cluster.view(leader, REGION));
        let slot = Slot::default();
        let request = RegionRequest { header: at, reply: slot.reply() };
        cluster.nodes[leader].inbox.push(ShardInput::Check(request));
        let fatal = until_fatal(&mut cluster, victim);
        let id = cluster.nodes[victim].machine.store_id;
        assert!(
            fatal.starts_with("region 2 differs from its leader's replica at entry"),
            "{fatal}"
        );
        assert!(fatal.contains("the hash here is") && fatal.contains("the leader's is"), "{fatal}");
        assert!(slot.is_ok(), "store {id}: {:?}", slot.answer());
        for (at, node) in cluster.nodes.iter().enumerate().filter(|(at, _)| *at != victim) {
            assert_eq!(node.fatal, None, "node {at}");
        }
    }
}

/// Steps everybody until one stops, without the assertion that nobody does.
fn until_fatal(cluster: &mut Cluster, victim: usize) -> String {
    for _ in 0..100 {
        let mut messages = Vec::new();
        for node in &mut cluster.nodes {
            node.turn_shard(cluster.now);
            node.turn_log();
            node.turn_applier();
            node.run_jobs();
            messages.extend(node.sent.drain(..));
        }
        messages.into_iter().for_each(|message| cluster.carry(message, false));
        if let Some(fatal) = cluster.nodes[victim].fatal.clone() {
            return fatal;
        }
        cluster.now = cluster.now + Duration::from_millis(20);
    }
    panic!("the damage is not noticed");
}

#[test]
fn the_hash_is_of_the_entry_and_nothing_behind_it() {
    let mut cluster = Cluster::new(3);
    cluster.put(REGION, b"a", b"1");
    let leader = cluster.leader();
    // Proposed in one turn: the follower gets both with one message, and applies them in one turn.
    let header = header_of(&cluster.view(leader, REGION));
    let slot = Slot::default();
    let request = RegionRequest { header, reply: slot.reply() };
    cluster.nodes[leader].inbox.push(ShardInput::Check(request));
    let behind = cluster.nodes[leader].put(b"b", b"2");
    cluster.deliver();
    cluster.ticks(4);
    assert!(slot.is_ok() && behind.is_ok());
    for store in 1..=3 {
        let status = check_status(&mut cluster, store).expect("it made its hash");
        assert!(status.agreed && status.hash.keys() == 2, "store {store}: {status:?}");
    }
}

#[test]
fn who_cannot_compare_says_why() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    cluster.ticks(4);
    let other = (leader + 1) % 3;
    let slot = Slot::default();
    let header = header_of(&cluster.view(other, REGION));
    let request = RegionRequest { header, reply: slot.reply() };
    cluster.nodes[other].inbox.push(ShardInput::Check(request));
    cluster.deliver();
    assert!(matches!(slot.error(), RegionError::NotLeader { .. }), "{:?}", slot.error());
    // One at a time; and whoever waits for a leader that loses its office is told so.
    let (one, two) = (Slot::default(), Slot::default());
    for slot in [&one, &two] {
        let header = header_of(&cluster.view(leader, REGION));
        let request = RegionRequest { header, reply: slot.reply() };
        cluster.nodes[leader].inbox.push(ShardInput::Check(request));
    }
    let id = cluster.nodes[leader].machine.store_id;
    cluster.cut.push(id);
    cluster.deliver();
    assert!(matches!(two.error(), RegionError::ServerIsBusy { .. }), "{:?}", two.error());
    assert_eq!(one.answer(), None);
    cluster.leader();
    cluster.cut.clear();
    cluster.ticks(30);
    assert!(matches!(one.error(), RegionError::StaleCommand(_)), "{:?}", one.error());
}

/// Records of family `write` that say so are garbage; their value lies at timestamp zero of their
/// key. Stores collect up to a number.
#[derive(Debug, Default)]
struct Marked {
    told: AtomicU64,
    used: AtomicU64,
}

impl GarbageRule for Marked {
    fn compaction(&self) -> Option<Box<dyn GarbageWalk>> {
        None
    }

    fn horizon(&self) -> Bytes {
        self.told.load(Ordering::Relaxed).to_be_bytes().to_vec().into()
    }

    fn beyond(&self, horizon: &[u8], _: &KeyRange) -> Option<Box<dyn GarbageWalk>> {
        let horizon = u64::from_be_bytes(horizon.try_into().expect("ours"));
        (horizon >= self.used.load(Ordering::Relaxed)).then(|| Box::new(Walk) as _)
    }
}

struct Walk;

impl GarbageWalk for Walk {
    fn next(&mut self, key: &[u8], value: &[u8]) -> Fate {
        if value != b"garbage" {
            return Fate::Stays;
        }
        let value = Some([&key[..key.len() - 8], &[0; 8]].concat());
        Fate::Goes(Gone { hides_older: false, value })
    }
}

#[test]
fn replicas_may_differ_by_garbage() {
    let rule = Arc::new(Marked::default());
    let config = ShardConfig { garbage: rule.clone(), ..awake() };
    let mut cluster = Cluster::with(3, 3, config);
    cluster.put(REGION, b"key", b"value");
    cluster.ticks(6);
    // Two replicas still have what the third has dropped, and one of them its value, too.
    let place =
        |key: &str, ts: u64| [keys::data_key(key.as_bytes()), ts.to_be_bytes().to_vec()].concat();
    for (at, node) in cluster.nodes.iter().enumerate() {
        let mut batch = WriteBatch::new();
        for key in ["a", "k", "z"] {
            batch.put(Cf::Write, &place(key, 1), b"stays");
            batch.put(Cf::Default, &place(key, 7), b"of nobody's concern");
            if at < 2 {
                batch.put(Cf::Write, &place(key, 2), b"garbage");
            }
            if at < 1 {
                batch.put(Cf::Default, &place(key, 0), b"its value");
            }
        }
        node.machine.engine.write(&batch).expect("the engine works");
    }
    assert!(check(&mut cluster, REGION).is_ok());
    cluster.ticks(4);
    let first = check_status(&mut cluster, 1).expect("it made its hash");
    assert!(first.agreed && first.hash.keys() == 8, "{first:?}");
    for store in 2..=3 {
        assert_eq!(check_status(&mut cluster, store), Some(first), "store {store}");
    }
    // Who has collected beyond what the leader knows has nothing to say, and stops nobody.
    rule.used.store(5, Ordering::Relaxed);
    let slot = check(&mut cluster, REGION);
    assert!(matches!(slot.error(), RegionError::ServerIsBusy { .. }), "{:?}", slot.error());
    rule.told.store(5, Ordering::Relaxed);
    assert!(check(&mut cluster, REGION).is_ok());
}

#[test]
fn a_replica_shows_itself() {
    let mut cluster = Cluster::new(3);
    cluster.put(REGION, b"a", b"1");
    let leader = cluster.leader();
    cluster.ticks(4);
    let leads = status(&mut cluster, leader as u64 + 1, REGION).expect("it is here");
    assert_eq!((leads.leader, leads.members.len()), (Some(leads.peer), 2));
    assert!(leads.lease_left > Duration::ZERO && leads.log_bytes > 0);
    assert!(leads.applied <= leads.committed && leads.committed <= leads.last);
    assert!(leads.members.iter().all(|member| member.alive && member.matched == leads.last));
    let follows = status(&mut cluster, (leader as u64 + 1) % 3 + 1, REGION).expect("it is here");
    assert_eq!((follows.leader, follows.members.len()), (leads.leader, 0));
    assert_eq!(follows.lease_left, Duration::ZERO);
    assert_eq!(status(&mut cluster, 1, RegionId(77)), None);
}

#[test]
fn a_group_that_sleeps_is_woken_by_whoever_wants_something_of_it() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    cluster.ticks(60);
    let shown = status(&mut cluster, leader as u64 + 1, REGION).expect("it is here");
    assert!(shown.quiet && shown.members.iter().all(|member| member.matched == shown.last));
    assert_eq!(shown.members.len(), 2);
    let heir = (leader + 1) % 3;
    let (header, slot) = (header_of(&cluster.view(leader, REGION)), Slot::default());
    let to = cluster.view(heir, REGION).peer.id;
    let request = store::TransferRequest { header, to, reply: slot.reply() };
    cluster.nodes[leader].inbox.push(ShardInput::TransferLeader(request));
    cluster.deliver();
    assert!(slot.is_ok(), "{:?}", slot.answer());
    cluster.ticks(2);
    assert!(cluster.view(heir, REGION).is_leader());
}

#[test]
fn a_store_that_stops_hands_over_what_it_leads() {
    let mut cluster = Cluster::new(3);
    cluster.split(REGION, b"m", 20);
    let leader = cluster.leader();
    // Long enough for quiet groups to fall asleep.
    cluster.ticks(60);
    cluster.nodes[leader].inbox.push(ShardInput::HandOver);
    cluster.deliver();
    // At once, without an election timeout.
    let leads = |cluster: &Cluster| {
        let views = cluster.nodes[leader].views.all();
        views.iter().filter(|view| view.is_leader()).count()
    };
    cluster.ticks(2);
    assert_eq!(leads(&cluster), 0);
    for region in [REGION, RegionId(20)] {
        assert_ne!(cluster.leader_of(region), leader);
        cluster.put(region, if region == REGION { b"z" } else { b"a" }, b"v");
    }
    // And it does not take the office back.
    cluster.ticks(40);
    assert_eq!(leads(&cluster), 0);
}

const BUDGET: u64 = 256 << 10;

fn tight() -> ShardConfig {
    // The regions' own limits never bite.
    ShardConfig { log_store_bytes_max: BUDGET, ..awake() }
}

fn live(cluster: &Cluster, at: usize) -> u64 {
    cluster.nodes[at].machine.open_log_reader().live_bytes()
}

/// Cuts the region into nine and writes to all of them, 4 MiB in all. Returns the largest logs.
fn write_everywhere(cluster: &mut Cluster) -> Vec<u64> {
    for (at, key) in (b'b'..b'j').enumerate() {
        cluster.split(REGION, &[key], 20 + at as u64);
    }
    let regions: Vec<RegionId> = (20..28).map(RegionId).chain([REGION]).collect();
    let mut largest = vec![0; cluster.nodes.len()];
    for round in 0..32u8 {
        for (at, region) in regions.iter().enumerate() {
            cluster.put(*region, &[b'a' + at as u8, round], &[round; 14_000]);
        }
        cluster.tick();
        for (at, largest) in largest.iter_mut().enumerate() {
            *largest = live(cluster, at).max(*largest);
        }
    }
    cluster.ticks(100);
    largest
}

#[test]
fn the_log_stays_within_its_budget_while_a_member_is_down() {
    let mut cluster = Cluster::with(3, 3, tight());
    cluster.leader();
    cluster.stop(3, None);
    let largest = write_everywhere(&mut cluster);
    for (at, largest) in largest.iter().enumerate().take(2) {
        assert!(*largest < 2 * BUDGET, "node {at}: {largest} of {BUDGET}");
        assert!(live(&cluster, at) <= BUDGET / 2 + (64 << 10), "node {at}: {}", live(&cluster, at));
        let files = cluster.nodes[at].writer.stats().disk_bytes;
        assert!(files < 4 * BUDGET + 8 * (64 << 10), "node {at}: {files} bytes of files");
    }
    cluster.start(3);
    cluster.ticks(100);
    assert!(!cluster.snapshots.is_empty(), "what it lacks is gone from the log");
    for region in (20..28).map(RegionId).chain([REGION]) {
        cluster.check_equal(region);
    }
}

#[test]
fn a_living_member_that_lags_holds_back_no_more_than_the_budget() {
    let mut cluster = Cluster::with(3, 3, tight());
    let leader = cluster.leader();
    // It answers, but what it is sent gets no further than to its log's queue.
    let slow = cluster.nodes[(leader + 1) % 3].machine.store_id;
    for (at, key) in (b'b'..b'f').enumerate() {
        cluster.split(REGION, &[key], 20 + at as u64);
    }
    let regions: Vec<RegionId> = (20..24).map(RegionId).chain([REGION]).collect();
    for round in 0..60u8 {
        for (at, region) in regions.iter().enumerate() {
            without_entries(&mut cluster, slow, |cluster| {
                cluster.put(*region, &[b'a' + at as u8, round], &[round; 8_000]);
            });
        }
        without_entries(&mut cluster, slow, Cluster::tick);
    }
    let log = live(&cluster, leader);
    assert!(log <= BUDGET + (64 << 10), "{log} of {BUDGET} with a member that lags");
    cluster.ticks(100);
    assert!(!cluster.snapshots.is_empty(), "it was cut over to a snapshot");
    regions.into_iter().for_each(|region| drop(cluster.check_equal(region)));
}

/// Lets something happen while one store gets heartbeats and no entries.
fn without_entries(cluster: &mut Cluster, store: StoreId, happen: impl FnOnce(&mut Cluster)) {
    cluster.starved = Some(store);
    happen(cluster);
    cluster.starved = None;
}
