//! One store with one region: writes, reads, refusals, restarts, power losses.

use pontoon_store as store;

use crate::common::{Machine, Node, OTHER_EPOCH, REGION, Slot, TICK, region_on};
use base::{Cut, Instant, Peer, PeerId, Prng, RegionId, StoreId};
use storage::engine::{Cf, Engine};
use store::{RegionError, RequestHeader, ShardConfig, ShardInput, SplitRequest, Writes};

fn founded() -> Machine {
    let machine = Machine::new(1);
    machine.found(&region_on(&[1]));
    machine
}

fn running() -> Node {
    let mut node = founded().start(ShardConfig::default());
    node.settle(Instant(1));
    node
}

#[test]
fn a_sole_voter_leads_and_serves_after_its_first_turn() {
    let node = running();
    let view = node.view();
    assert!(view.is_leader() && view.has_lease(Instant(2)));
    assert_eq!((view.term, view.applied), (6, 6), "the log begins at 5, the first term is 6");
}

#[test]
fn a_put_is_applied_before_it_is_answered() {
    let mut node = running();
    let slot = node.put(b"k", b"v");
    node.turn_shard(Instant(2));
    node.turn_log();
    node.turn_shard(Instant(3));
    assert_eq!(slot.answer(), None, "committed, not applied");
    assert_eq!(node.get(b"k"), None);
    node.turn_applier();
    assert!(slot.is_ok());
    assert_eq!(node.get(b"k").as_deref(), Some(&b"v"[..]));
}

#[test]
fn nothing_is_committed_before_the_log_is_synced() {
    let mut node = running();
    let slot = node.put(b"k", b"v");
    for now in 2..9 {
        node.turn_shard(Instant(now));
        node.turn_applier();
    }
    assert_eq!((slot.answer(), node.get(b"k")), (None, None));
}

#[test]
fn puts_of_one_turn_share_one_entry_and_one_sync() {
    let mut node = running();
    let (before, applied) = (node.writer.stats(), node.view().applied);
    let slots: Vec<Slot> = (0..64u8).map(|i| node.put(&[i], b"v")).collect();
    node.settle(Instant(2));
    assert!(slots.iter().all(Slot::is_ok));
    assert_eq!(node.writer.stats().syncs - before.syncs, 1);
    assert_eq!(node.view().applied - applied, 1);
}

#[test]
fn requests_that_do_not_fit_are_refused_in_the_order_of_the_protocol() {
    let mut node = running();
    let good = node.header();
    let refused = |node: &mut Node, header: RequestHeader| {
        let mut writes = Writes::new();
        writes.put(Cf::Default, b"k", b"v");
        let slot = node.propose(header, writes);
        node.settle(Instant(2));
        slot.error()
    };
    let other = Peer::voter(PeerId(9), StoreId(1));
    let error = refused(&mut node, RequestHeader { peer: other, epoch: None, ..good });
    assert!(matches!(error, RegionError::MismatchPeerId { .. }), "{error:?}");
    let error = refused(&mut node, RequestHeader { epoch: Some(OTHER_EPOCH), ..good });
    assert_eq!(error, RegionError::EpochNotMatch { current: vec![node.view().region.clone()] });
    let error = refused(&mut node, RequestHeader { epoch: None, ..good });
    assert!(matches!(error, RegionError::EpochNotMatch { .. }), "{error:?}");
    let error = refused(&mut node, RequestHeader { term: 4, ..good });
    assert_eq!(error, RegionError::StaleCommand(REGION), "two terms behind");
    let error = refused(&mut node, RequestHeader { region_id: RegionId(77), ..good });
    assert_eq!(error, RegionError::RegionNotFound(RegionId(77)));
    assert_eq!(node.get(b"k"), None);

    let elsewhere = RequestHeader { peer: Peer::voter(PeerId(101), StoreId(5)), ..good };
    let error = node.views.route(&elsewhere).expect_err("another store");
    assert_eq!(error, RegionError::StoreNotMatch { requested: StoreId(5), actual: StoreId(1) });
    let system = RequestHeader { region_id: RegionId::SYSTEM, ..good };
    let error = node.views.route(&system).expect_err("not for clients");
    assert_eq!(error, RegionError::RegionNotFound(RegionId::SYSTEM));
}

#[test]
fn an_entry_over_the_limit_is_refused_and_the_largest_is_not() {
    let mut node = running();
    let mut writes = Writes::new();
    writes.put(Cf::Default, b"k", &vec![1; 8 << 20]);
    let header = node.header();
    let slot = node.propose(header, writes);
    node.settle(Instant(2));
    assert!(matches!(slot.error(), RegionError::RaftEntryTooLarge { .. }));
    let mut writes = Writes::new();
    writes.put(Cf::Default, b"k", &vec![1; (8 << 20) - 100]);
    let slot = node.propose(header, writes);
    node.settle(Instant(3));
    assert!(slot.is_ok());
}

#[test]
fn a_full_disk_refuses_writes_and_nothing_else() {
    let mut node = running();
    assert!({
        let slot = node.put(b"k", b"v");
        node.settle(Instant(2));
        slot.is_ok()
    });
    node.inbox.push(ShardInput::DiskFull(true));
    let (put, read) = (node.put(b"k", b"w"), node.read_index());
    node.settle(Instant(3));
    assert_eq!(put.error(), RegionError::DiskFull(StoreId(1)));
    assert!(read.is_ok());
    node.inbox.push(ShardInput::DiskFull(false));
    let put = node.put(b"k", b"w");
    node.settle(Instant(4));
    assert!(put.is_ok());
}

#[test]
fn the_lease_of_who_decides_alone_has_no_end() {
    let mut node = running();
    let later = Instant(1) + TICK * 9_000;
    assert!(node.view().has_lease(later), "nobody else could lead");
    let read = node.read_index();
    node.settle(later);
    assert!(read.is_ok());
}

#[test]
fn a_read_waits_until_what_was_committed_is_applied() {
    let mut node = running();
    let put = node.put(b"k", b"v");
    node.turn_shard(Instant(2));
    node.turn_log();
    node.turn_shard(Instant(3));
    let read = node.read_index();
    node.turn_shard(Instant(4));
    assert_eq!((put.answer(), read.answer()), (None, None), "committed at 7, applied at 6");
    assert!(node.shard.awaits_applied());
    node.settle(Instant(5));
    assert!(put.is_ok() && read.is_ok());
}

#[test]
fn a_store_that_stops_answers_everybody() {
    let mut node = running();
    let (waiting, queued) = (node.put(b"a", b""), node.put(b"b", b""));
    node.turn_shard(Instant(2));
    let unseen = node.put(b"c", b"");
    drop(node);
    for slot in [waiting, queued, unseen] {
        assert_eq!(slot.error(), RegionError::Undetermined);
    }
}

#[test]
fn a_restart_goes_on_where_the_store_stopped() {
    let mut node = running();
    let puts: Vec<Slot> = (0..200u16).map(|i| node.put(&i.to_be_bytes(), b"v")).collect();
    node.settle(Instant(2));
    assert!(puts.iter().all(Slot::is_ok));
    let (machine, applied, term) = (node.machine.clone(), node.view().applied, node.view().term);
    drop(node);
    machine.kill();
    let mut node = machine.start(ShardConfig::default());
    node.settle(Instant(1));
    assert_eq!((node.view().applied, node.view().term), (applied + 1, term + 1));
    assert_eq!(node.get(&150u16.to_be_bytes()).as_deref(), Some(&b"v"[..]));
}

/// Runs random puts with random stops in between, and compares what every restart finds with the
/// model: acknowledged writes are there, and the data is exactly that of some prefix of the
/// proposals (rows ).
#[test]
fn power_losses_lose_nothing_that_was_acknowledged() {
    for seed in 0..60 {
        let mut prng = Prng::new(seed);
        let machine = founded();
        let config = || ShardConfig {
            log_entries_max: 20,
            sync_interval: TICK * 3,
            ..ShardConfig::default()
        };
        // Every put writes the next number to one of four keys and to the key `last`.
        let (mut next, mut acknowledged) = (0u64, 0u64);
        for _ in 0..8 {
            let mut node = machine.start(config());
            let mut now = Instant(1);
            node.settle(now);
            let found = node.get(b"last").map_or(0, number);
            assert!(found >= acknowledged, "seed {seed}: {found} < {acknowledged} acknowledged");
            assert!(found <= next, "seed {seed}: {found} was never written");
            check_prefix(&node, found, seed);
            next = found;
            let mut slots = Vec::new();
            for _ in 0..prng.below(60) {
                next += 1;
                slots.push((next, put_number(&mut node, next)));
                step(&mut node, &mut prng, &mut now);
            }
            let ok = slots.iter().filter(|(_, slot)| slot.is_ok()).map(|(n, _)| *n).max();
            acknowledged = ok.unwrap_or(found).max(acknowledged);
            assert_eq!(node.fatal, None, "seed {seed}");
            drop(node);
            if prng.one_in(3) { machine.kill() } else { machine.power_loss(&mut prng) }
        }
        assert!(machine.disk.used() < 1 << 20, "seed {seed}: the log is never cut");
    }
}

fn put_number(node: &mut Node, n: u64) -> Slot {
    let mut writes = Writes::new();
    writes.put(Cf::Default, b"last", &n.to_be_bytes());
    writes.put(Cf::Default, &[(n % 4) as u8], &n.to_be_bytes());
    let header = node.header();
    node.propose(header, writes)
}

fn step(node: &mut Node, prng: &mut Prng, now: &mut Instant) {
    *now = *now + TICK / 4;
    for _ in 0..prng.below(4) {
        match prng.below(4) {
            0 => node.turn_shard(*now),
            1 => node.turn_log(),
            2 => node.turn_applier(),
            _ => node.run_jobs(),
        }
    }
}

fn number(bytes: bytes::Bytes) -> u64 {
    u64::from_be_bytes(bytes[..].try_into().expect("eight bytes"))
}

/// After the writes of 1 to `last` each of the four keys holds the largest number that belongs to
/// it.
fn check_prefix(node: &Node, last: u64, seed: u64) {
    for key in 0..4u64 {
        let expected = (1..=last).rev().find(|n| n % 4 == key);
        let found = node.get(&[key as u8]).map(number);
        assert_eq!(found, expected, "seed {seed}: key {key} after {last}");
    }
}

#[test]
fn the_log_is_cut_only_behind_a_synced_engine() {
    let machine = founded();
    let config = ShardConfig { log_entries_max: 10, ..ShardConfig::default() };
    let mut node = machine.start(config);
    node.settle(Instant(1));
    let mut now = Instant(1);
    for i in 0..40u8 {
        now = now + TICK;
        node.put(&[i], b"v");
        // The engine's sync is asked for and never comes.
        for _ in 0..4 {
            node.turn_shard(now);
            node.turn_log();
            node.turn_applier();
        }
    }
    assert_eq!(node.jobs.len(), 1, "one sync at a time");
    let log = machine.open_log_reader();
    assert_eq!(log.first_index(REGION), 6, "nothing may go yet");
    node.settle(now + TICK);
    node.settle(now + TICK * 2);
    let log = machine.open_log_reader();
    assert!(log.first_index(REGION) > 6, "now it goes");
    let synced = machine.engine.progress().1;
    assert!(synced > 0);
}

#[test]
fn a_lost_entry_is_named_and_the_store_refuses_to_start() {
    let mut node = running();
    for i in 0..30u8 {
        node.put(&[i], b"v");
        node.settle(Instant(u64::from(i) + 2));
    }
    let machine = node.machine.clone();
    machine.engine.sync().expect("syncs");
    drop(node);
    // Somebody puts an older log beside the newer engine.
    let older = founded();
    let log = older.open_log();
    let error = store::recover(&machine.engine, &log.reader(), StoreId(1)).expect_err("lost");
    assert!(error.to_string().contains("region 2: entry 36 of term 6 was committed"), "{error}");
    let error = store::recover(&machine.engine, &machine.open_log().reader(), StoreId(3));
    assert!(error.expect_err("another store").to_string().contains("no peer on store 3"));
}

fn cuts() -> Vec<Cut> {
    let cut = |key: &'static str, id: u64| Cut {
        key: key.into(),
        region_id: RegionId(id),
        peer_ids: vec![PeerId(id + 1)],
    };
    vec![cut("g", 10), cut("p", 20)]
}

fn split(node: &mut Node) -> Slot {
    let slot = Slot::default();
    let request = SplitRequest { header: node.header(), cuts: cuts(), reply: slot.reply() };
    node.inbox.push(ShardInput::Split(request));
    slot
}

fn put_in(node: &mut Node, region: RegionId, key: &[u8]) -> Slot {
    let mut writes = Writes::new();
    writes.put(Cf::Default, key, b"v");
    let header = crate::common::header_of(&node.views.get(region).expect("it is here"));
    node.propose(header, writes)
}

#[test]
fn a_split_region_serves_in_all_its_parts() {
    let mut node = running();
    let old = node.header();
    let slot = split(&mut node);
    node.settle(Instant(2));
    assert!(slot.is_ok());
    let ranges: Vec<_> = node.views.all().iter().map(|view| view.region.range.clone()).collect();
    assert_eq!(ranges[0], base::KeyRange::new("p", ""), "the region keeps the right-most part");
    assert_eq!(ranges[1], base::KeyRange::new("", "g"));
    assert_eq!(ranges[2], base::KeyRange::new("g", "p"));
    assert!(node.views.all().iter().all(|view| view.has_lease(Instant(3))));
    for (region, key) in [(REGION, b"z"), (RegionId(10), b"a"), (RegionId(20), b"h")] {
        let slot = put_in(&mut node, region, key);
        node.settle(Instant(4));
        assert!(slot.is_ok(), "{region}");
    }
    let mut writes = Writes::new();
    writes.put(Cf::Default, b"z", b"late");
    let slot = node.propose(old, writes);
    node.settle(Instant(5));
    let RegionError::EpochNotMatch { current } = slot.error() else { panic!("{:?}", slot.error()) };
    assert_eq!(current[0].epoch, base::Epoch { conf_ver: 1, version: 3 });
}

#[test]
fn of_two_splits_under_one_epoch_the_second_has_no_effect() {
    let mut node = running();
    let (first, second) = (split(&mut node), split(&mut node));
    node.settle(Instant(2));
    assert!(first.is_ok());
    assert!(matches!(second.error(), RegionError::EpochNotMatch { .. }));
    assert_eq!(node.views.all().len(), 3);
}

/// The power goes at every step of a split and of the first writes to its parts: either all parts
/// are there or none, and nothing that was acknowledged is lost.
#[test]
fn a_split_survives_a_power_loss_at_any_step() {
    for seed in 0..200 {
        let mut prng = Prng::new(seed);
        let mut node = running();
        let before = node.put(b"a", b"before");
        node.settle(Instant(2));
        assert!(before.is_ok());
        let slot = split(&mut node);
        let mut now = Instant(3);
        let mut puts = Vec::new();
        for _ in 0..prng.below(12) {
            step(&mut node, &mut prng, &mut now);
            if node.views.get(RegionId(20)).is_some() {
                puts.push(put_in(&mut node, RegionId(20), &[b'h', puts.len() as u8]));
            }
        }
        let acknowledged = puts.iter().filter(|put| put.is_ok()).count();
        let split_done = slot.is_ok();
        let machine = node.machine.clone();
        drop(node);
        machine.power_loss(&mut prng);

        let mut node = machine.start(ShardConfig::default());
        node.settle(Instant(1));
        let regions = node.views.all().len();
        assert!(regions == 3 || (regions == 1 && !split_done), "seed {seed}: {regions} regions");
        assert_eq!(node.get(b"a").as_deref(), Some(&b"before"[..]), "seed {seed}");
        for i in 0..acknowledged {
            assert!(node.get(&[b'h', i as u8]).is_some(), "seed {seed}: put {i} is lost");
        }
        assert!(node.views.all().iter().all(|view| view.serves_reads), "seed {seed}");
    }
}
