//! The first start: every crash point, the race for the first region, and placement that does not
//! answer.

use pontoon_store as store;

use std::time::Duration;

use crate::common::Machine;
use base::{Instant, Peer, PeerId, Prng, Region, RegionId, StoreId};
use storage::engine::{Cf, Engine, IterOptions, WriteBatch};
use storage::keys;
use storage::log::LogBatch;
use store::StoreIdent;
use store::bootstrap::{
    self, Action, BootstrapError, Event, FirstRegion, Outcome, TRIES_MAX, TRY_INTERVAL,
};

/// Placement as the bootstrap sees it: durable, and the same for all stores.
#[derive(Default)]
struct Placement {
    last_id: u64,
    first_region: Option<Region>,
    proposed: Vec<Region>,
    calls: u32,
    down_for: u32,
}

impl Placement {
    fn answer(&mut self, action: &Action) -> Event {
        self.calls += 1;
        if self.down_for > 0 {
            self.down_for -= 1;
            return Event::CallFailed("connection refused".to_owned());
        }
        match action {
            Action::AskBootstrapped => Event::Bootstrapped(self.first_region.is_some()),
            Action::AllocId => {
                self.last_id += 1;
                Event::Id(1_000 + self.last_id)
            }
            Action::Bootstrap(region) => {
                self.proposed.push(region.clone());
                if self.first_region.is_some() {
                    return Event::AlreadyBootstrapped;
                }
                self.first_region = Some(region.clone());
                Event::Accepted
            }
            Action::AskFirstRegion => {
                Event::PlacementRegion(self.first_region.clone().expect("bootstrapped"))
            }
            other => panic!("{other:?} is no call"),
        }
    }
}

/// A bootstrap that a test drives step by step.
struct Starting {
    machine: Machine,
    decision: FirstRegion,
    action: Action,
    now: Instant,
}

impl Starting {
    fn new(machine: &Machine) -> Self {
        let mut decision = FirstRegion::new(machine.store_id);
        let prepared = bootstrap::prepared_region(&machine.engine).expect("readable");
        let now = Instant::ZERO;
        let action = decision.next(now, Event::Started { prepared });
        Self { machine: machine.clone(), decision, action, now }
    }

    /// Does one action as the node does it, and stops after `writes` of its writes (all, if
    /// `None`). Whether it was cut short is told.
    fn step(&mut self, placement: &mut Placement, writes: Option<u32>) -> bool {
        let engine = &self.machine.engine;
        let event = match self.action.clone() {
            Action::Prepare(region) => {
                if writes == Some(0) {
                    return true;
                }
                bootstrap::prepare_region(engine, &region).expect("writes");
                if writes == Some(1) {
                    return true;
                }
                self.write_log(|batch| bootstrap::initial_log(batch, region.id));
                Event::Written
            }
            Action::Clear => {
                bootstrap::clear_prepared(engine).expect("writes");
                Event::Written
            }
            Action::Remove(region) => {
                self.write_log(|batch| batch.remove(region));
                if writes == Some(1) {
                    return true;
                }
                bootstrap::remove_prepared(engine, region).expect("writes");
                Event::Written
            }
            Action::WaitUntil(instant) => {
                self.now = instant;
                Event::TimeHasCome
            }
            Action::Finish(outcome) => panic!("finished: {outcome:?}"),
            call => placement.answer(&call),
        };
        self.action = self.decision.next(self.now, event);
        false
    }

    fn write_log(&self, fill: impl FnOnce(&mut LogBatch)) {
        let mut batch = LogBatch::new();
        fill(&mut batch);
        let mut log = self.machine.open_log();
        log.write(&batch).expect("writes");
        log.sync().expect("syncs");
    }

    fn finish(&mut self, placement: &mut Placement) -> Outcome {
        loop {
            if let Action::Finish(outcome) = &self.action {
                return outcome.clone();
            }
            self.step(placement, None);
        }
    }
}

fn machine(id: u64) -> Machine {
    let machine = Machine::new(id);
    let ident =
        StoreIdent { cluster_id: base::ClusterId(7), store_id: StoreId(id), api_version: 0 };
    bootstrap::bootstrap_store(&machine.engine, &ident).expect("empty");
    machine
}

fn raft_keys(machine: &Machine) -> Vec<Vec<u8>> {
    let snapshot = machine.engine.snapshot();
    let mut cursor = snapshot.iter(Cf::Raft, IterOptions::default()).expect("readable");
    let mut keys = Vec::new();
    let mut valid = cursor.seek_to_first().expect("readable");
    while valid {
        keys.push(cursor.key().to_vec());
        valid = cursor.next().expect("readable");
    }
    keys
}

#[test]
fn a_store_is_bootstrapped_once() {
    let machine = machine(1);
    let ident = bootstrap::store_ident(&machine.engine).expect("readable").expect("there");
    assert_eq!((ident.store_id, ident.cluster_id), (StoreId(1), base::ClusterId(7)));
    let again = bootstrap::bootstrap_store(&machine.engine, &ident);
    assert!(matches!(again, Err(BootstrapError::Bootstrapped(found)) if found == ident));
    machine.power_loss(&mut Prng::new(1));
    assert_eq!(bootstrap::store_ident(&machine.engine).expect("readable"), Some(ident));

    let foreign = Machine::new(1);
    let mut batch = WriteBatch::new();
    batch.put(Cf::Write, b"theirs", b"");
    foreign.engine.write(&batch).expect("writes");
    let refused = bootstrap::bootstrap_store(&foreign.engine, &ident);
    assert!(matches!(refused, Err(BootstrapError::NotEmpty { cf: "write", .. })));
}

#[test]
fn prepare_writes_what_clear_and_remove_take_away() {
    let machine = machine(1);
    let region = Region::first(RegionId(8), Peer::voter(PeerId(9), StoreId(1)));
    bootstrap::prepare_region(&machine.engine, &region).expect("writes");
    let states =
        [keys::apply_state_key(region.id).to_vec(), keys::region_state_key(region.id).to_vec()];
    let [apply, state] = states.clone();
    let (ident, prepare) = (keys::STORE_IDENT.to_vec(), keys::PREPARE_BOOTSTRAP.to_vec());
    assert_eq!(raft_keys(&machine), [ident.clone(), prepare, apply, state]);
    assert_eq!(
        bootstrap::prepared_region(&machine.engine).expect("readable"),
        Some(region.clone())
    );
    bootstrap::clear_prepared(&machine.engine).expect("writes");
    assert_eq!(raft_keys(&machine), [std::slice::from_ref(&ident), &states[..]].concat());
    bootstrap::prepare_region(&machine.engine, &region).expect("writes");
    bootstrap::remove_prepared(&machine.engine, region.id).expect("writes");
    assert_eq!(raft_keys(&machine), [ident]);
}

#[test]
fn every_crash_point_ends_in_one_region_with_the_first_ids() {
    for seed in 0..20 {
        for crash_at in 0..8 {
            for writes in [0, 1] {
                let machine = machine(1);
                let mut placement = Placement::default();
                let mut first = Starting::new(&machine);
                for _ in 0..crash_at {
                    if !matches!(first.action, Action::Finish(_)) {
                        first.step(&mut placement, None);
                    }
                }
                let done = matches!(first.action, Action::Finish(_));
                if !done && matches!(first.action, Action::Prepare(_)) {
                    first.step(&mut placement, Some(writes));
                }
                machine.power_loss(&mut Prng::new(seed));

                let mut second = Starting::new(&machine);
                let outcome = second.finish(&mut placement);
                let first_region = placement.first_region.clone().expect("bootstrapped");
                let ours = Outcome::Ours(first_region.clone());
                assert!(outcome == ours || outcome == Outcome::Others, "{crash_at}: {outcome:?}");
                assert!(placement.proposed.iter().all(|region| *region == first_region));
                assert_eq!(bootstrap::prepared_region(&machine.engine).expect("readable"), None);
                let mut node = machine.start(Default::default());
                node.settle(Instant(1));
                assert_eq!(node.views.all().len(), 1, "crash at {crash_at}, {writes} writes");
                assert_eq!(*node.views.all()[0].region, first_region);
            }
        }
    }
}

#[test]
fn of_many_stores_one_wins_and_the_others_leave_nothing() {
    for seed in 0..50 {
        let mut prng = Prng::new(seed);
        let machines: Vec<Machine> = (1..=5).map(machine).collect();
        let mut placement = Placement::default();
        let mut starting: Vec<Starting> = machines.iter().map(Starting::new).collect();
        let mut outcomes = Vec::new();
        while !starting.is_empty() {
            let at = prng.below(starting.len() as u64) as usize;
            if let Action::Finish(outcome) = &starting[at].action {
                outcomes.push(outcome.clone());
                starting.swap_remove(at);
            } else if prng.one_in(10) {
                let machine = starting[at].machine.clone();
                machine.power_loss(&mut prng);
                starting[at] = Starting::new(&machine);
            } else {
                starting[at].step(&mut placement, None);
            }
        }
        let winner = placement.first_region.clone().expect("bootstrapped");
        for machine in &machines {
            let log = machine.open_log();
            if winner.peer_on(machine.store_id).is_some() {
                assert_eq!(raft_keys(machine).len(), 3, "seed {seed}: ident and two states");
                assert_eq!(log.reader().regions(), [winner.id]);
            } else {
                assert_eq!(raft_keys(machine).len(), 1, "seed {seed}: nothing but the ident");
                assert_eq!(log.reader().regions(), []);
            }
        }
        let ours = outcomes.iter().filter(|outcome| **outcome == Outcome::Ours(winner.clone()));
        assert!(ours.count() <= 1, "seed {seed}");
    }
}

#[test]
fn placement_is_asked_every_three_seconds_and_sixty_times_at_most() {
    for k in [1, 30, TRIES_MAX - 1] {
        let mut placement = Placement { down_for: k, ..Placement::default() };
        let mut starting = Starting::new(&machine(1));
        assert!(matches!(starting.finish(&mut placement), Outcome::Ours(_)));
        assert_eq!(starting.now, Instant::ZERO + TRY_INTERVAL * k, "up at try {}", k + 1);
    }
    let mut placement = Placement { down_for: u32::MAX, ..Placement::default() };
    let mut starting = Starting::new(&machine(1));
    let outcome = starting.finish(&mut placement);
    assert_eq!(outcome, Outcome::GaveUp("connection refused".to_owned()));
    assert_eq!(placement.calls, 60);
    assert!(starting.now.since(Instant::ZERO) <= Duration::from_secs(180));

    // The second loop: it answers until phase one is done, then never again.
    let mut placement = Placement::default();
    let mut starting = Starting::new(&machine(1));
    while !matches!(starting.action, Action::Bootstrap(_)) {
        starting.step(&mut placement, None);
    }
    (placement.down_for, placement.calls) = (u32::MAX, 0);
    assert!(matches!(starting.finish(&mut placement), Outcome::GaveUp(_)));
    assert_eq!(placement.calls, 60);
}

#[test]
fn the_system_region_is_made_again_until_it_is_whole() {
    let machine = machine(1);
    let mut log = machine.open_log();
    let mut batch = LogBatch::new();
    bootstrap::initial_log(&mut batch, RegionId::SYSTEM);
    log.write(&batch).expect("writes");
    log.sync().expect("syncs");
    drop(log);
    assert!(!bootstrap::has_system_region(&machine.engine).expect("readable"));
    machine.power_loss(&mut Prng::new(3));
    let mut log = machine.open_log();
    log.write(&batch).expect("writes again");
    log.sync().expect("syncs");
    drop(log);
    bootstrap::write_system_region(&machine.engine).expect("writes");
    assert!(bootstrap::has_system_region(&machine.engine).expect("readable"));
    let mut node = machine.start(Default::default());
    node.settle(Instant(1));
    assert!(node.views.get(RegionId::SYSTEM).expect("runs").serves_reads);
}
