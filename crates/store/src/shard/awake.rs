//! Which replicas tick. All that the shard does again and again it does for these alone, so that
//! regions in which nothing happens cost their memory and nothing else.
//!
//! | set | who is in it | left |
//! | --- | --- | --- |
//! | awake | replicas that tick | when the group sleeps (`replica/sleep.rs`) |
//! | awaiting | replicas that wait for the applier | when they do not |
//! | cuts | replicas whose log may be cut once the engine is synced | when that was asked for |
//! | installing | replicas with a snapshot on its way in | when it is in |
//!
//! A replica is sorted anew at the end of each turn in which it was touched, as nothing happens to
//! it otherwise. Leaders that sleep still repeat their reports to placement: once in a while a
//! few of them, so that each has its turn within an interval.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use base::{Instant, RegionId, StoreId};

use super::{Cut, Shard, ShardConfig};
use crate::input::{Outbox, StoreAlive};
use crate::liveness::Liveness;

/// Sleeping leaders repeat their reports with each tenth tick.
const REPORT_TICKS: u64 = 10;

/// Who is awake, and what else is known of replicas without asking each.
pub(super) struct Awake {
    /// Ticks of this shard.
    ticks: u64,
    awake: BTreeSet<RegionId>,
    /// Those that sleep, and since when what they promised has been counted.
    asleep: BTreeMap<RegionId, u64>,
    awaiting: BTreeSet<RegionId>,
    cuts: BTreeSet<RegionId>,
    installing: BTreeSet<RegionId>,
    liveness: Liveness,
    /// Signs of life that came in this turn.
    heard: Vec<StoreAlive>,
    /// The last sleeping region that was looked at for its report.
    cursor: RegionId,
}

impl Awake {
    pub(super) fn new(store_id: StoreId, incarnation: u64, config: &ShardConfig) -> Self {
        Self {
            ticks: 0,
            awake: BTreeSet::new(),
            asleep: BTreeMap::new(),
            awaiting: BTreeSet::new(),
            cuts: BTreeSet::new(),
            installing: BTreeSet::new(),
            liveness: Liveness::new(store_id, incarnation, config.election_ticks),
            heard: Vec::new(),
            cursor: RegionId::default(),
        }
    }

    /// Another store lives. What follows is for the end of the turn: until then it is not known who
    /// sleeps.
    pub(super) fn hear(&mut self, alive: StoreAlive) {
        self.heard.push(alive);
    }

    /// Those that tick.
    pub(super) fn ids(&self) -> &BTreeSet<RegionId> {
        &self.awake
    }

    pub(super) fn awaits_applied(&self) -> bool {
        !self.awaiting.is_empty()
    }

    /// Ticks of the shard.
    pub(super) fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Snapshots that came and are not installed yet.
    pub(super) fn installing(&self) -> usize {
        self.installing.len()
    }

    pub(super) fn wants_cuts(&self) -> bool {
        !self.cuts.is_empty()
    }

    /// Ticks that a sleeping replica has missed and was not told of yet.
    pub(super) fn slept(&mut self, id: RegionId) -> Option<u64> {
        let counted = self.asleep.get_mut(&id)?;
        let missed = self.ticks - std::mem::replace(counted, self.ticks);
        (missed > 0).then_some(missed)
    }

    /// The region has no replica here any more.
    fn forget(&mut self, id: RegionId) {
        self.awake.remove(&id);
        self.awaiting.remove(&id);
        self.cuts.remove(&id);
        self.installing.remove(&id);
        if self.asleep.remove(&id).is_some() {
            self.liveness.wakes(id);
        }
    }
}

fn set(set: &mut BTreeSet<RegionId>, id: RegionId, belongs: bool) {
    match belongs {
        true => drop(set.insert(id)),
        false => drop(set.remove(&id)),
    }
}

impl Shard {
    /// How many replicas tick.
    pub fn awake(&self) -> usize {
        self.awake.awake.len()
    }

    /// Sorts a replica that was touched, or is gone.
    pub(super) fn settle(&mut self, id: RegionId) {
        let Some(replica) = self.replicas.get_mut(&id) else { return self.awake.forget(id) };
        let awake = &mut self.awake;
        set(&mut awake.awaiting, id, replica.awaits_applied());
        set(&mut awake.cuts, id, replica.wants_cut().is_some());
        set(&mut awake.installing, id, replica.coming_range().is_some());
        let mut sleeps = replica.is_quiet();
        match awake.asleep.contains_key(&id) {
            false if sleeps => match replica.sleeps_with() {
                Some(stores) => {
                    awake.asleep.insert(id, awake.ticks);
                    awake.liveness.sleeps(id, stores.into_iter(), awake.ticks);
                }
                None => {
                    replica.wake();
                    sleeps = false;
                }
            },
            true if !sleeps => {
                awake.asleep.remove(&id);
                awake.liveness.wakes(id);
            }
            _ => {}
        }
        set(&mut awake.awake, id, !sleeps);
    }

    /// A tick passed for those who are awake.
    pub(super) fn tick_replicas(&mut self, now: Instant, out: &mut Outbox) {
        self.awake.ticks += 1;
        self.wake_with_dead(out);
        for id in &self.awake.awake {
            // It may have left in this turn.
            let Some(replica) = self.replicas.get_mut(id) else { continue };
            replica.tick(&self.config, out);
            replica.compact_log(&self.config, out);
            replica.report_again(now, &self.config, out);
            self.touched.insert(*id);
        }
        self.report_sleepers(now, out);
    }

    /// Groups do not sleep on with a store that is silent.
    fn wake_with_dead(&mut self, out: &mut Outbox) {
        for id in self.awake.liveness.tick(self.awake.ticks, &mut out.alive) {
            self.rouse(id);
        }
    }

    /// Wakes a replica that need not have noticed what others did.
    fn rouse(&mut self, id: RegionId) {
        if let Some(replica) = self.replica(id) {
            replica.wake();
            self.awake.awake.insert(id);
        }
    }

    /// What the signs of life of this turn mean, now that it is known who sleeps.
    pub(super) fn answer_signs_of_life(&mut self, out: &mut Outbox) {
        for alive in std::mem::take(&mut self.awake.heard) {
            let (wake, answer) = self.awake.liveness.hear(alive, self.awake.ticks);
            out.alive.extend(answer);
            for id in wake {
                self.rouse(id);
                self.settle(id);
            }
        }
    }

    fn report_sleepers(&mut self, now: Instant, out: &mut Outbox) {
        // Each time is a reason for placement to look at what was told.
        if !self.awake.ticks.is_multiple_of(REPORT_TICKS) {
            return;
        }
        let (interval, tick) = (self.config.report_interval, self.config.tick);
        let between = tick.as_nanos() * u128::from(REPORT_TICKS);
        let parts = (interval.as_nanos() / between.max(1)).max(1);
        let parts = usize::try_from(parts).unwrap_or(usize::MAX);
        let turn = self.awake.asleep.len().div_ceil(parts);
        let behind = (Bound::Excluded(self.awake.cursor), Bound::Unbounded);
        let mut last = None;
        for id in self.awake.asleep.range(behind).map(|(id, _)| *id).take(turn) {
            let replica = self.replicas.get_mut(&id).expect("only those who are here sleep");
            replica.report_again(now, &self.config, out);
            last = Some(id);
        }
        self.awake.cursor = last.unwrap_or_default();
    }

    /// What may leave the logs once the engine is synced.
    pub(super) fn cuts(&mut self) -> Vec<Cut> {
        let ids = std::mem::take(&mut self.awake.cuts).into_iter();
        let cut = |region: RegionId| {
            let replica = self.replicas.get(&region)?;
            Some(Cut { region, life: replica.life(), to: replica.wants_cut()? })
        };
        ids.filter_map(cut).collect()
    }
}
