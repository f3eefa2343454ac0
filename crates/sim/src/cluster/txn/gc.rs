//! Old versions go: a client moves the safe point on, each store hears of it in its own time and
//! collects by itself, region after region and step by step.
//!
//! ```text
//!   collector ── all locks below are cleared away ── placement: the safe point is there now
//!   a store   ── asks at intervals ── refuses what is below ── the next time: sweeps, compacts
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::{KeyRange, Prng, Region, RegionId, TimeStamp};
use storage::engine::{Cf, Engine, Fate, IterOptions};
use storage::keys;
use txn::gc::{GcState, SafePoints, Sweep, Walk};

use crate::cluster::checks::mix;
use crate::cluster::event::{Event, Purpose, Request, Slot, Timer};
use crate::cluster::process::Machine;
use crate::cluster::world::{World, ms};

/// Between two questions for the safe point: no request may take as long.
const POLL_MS: u64 = 5_000;

/// Records that a step looks at: few, so that much comes between two.
const STEP_RECORDS: u64 = 40;

/// What a store knows of safe points, and what it collects at the moment.
#[derive(Default)]
pub(crate) struct Collecting {
    pub(crate) state: Arc<GcState>,
    /// Regions that are still to be swept.
    rest: VecDeque<RegionId>,
    sweep: Option<Sweep>,
}

impl World {
    /// It will ask for the safe point again.
    pub(crate) fn gc_later(&mut self, slot: Slot) {
        if self.plan.txn.is_some_and(|plan| plan.collects()) {
            let life = self.nodes[slot].life;
            self.queue.after(ms(POLL_MS), Event::Timer(slot, life, Timer::SafePoint));
        }
    }

    pub(crate) fn ask_safe_point(&mut self, slot: Slot) {
        self.ask_placement(slot, Request::SafePoint, Purpose::SafePoint);
        self.gc_later(slot);
    }

    /// What was told before may be collected now.
    pub(crate) fn learn_safe_point(&mut self, slot: Slot, ts: TimeStamp) {
        self.fates.may_be_collected(ts);
        let engine = self.nodes[slot].machine.engine.clone();
        let Some(core) = self.nodes[slot].core() else { return };
        let collecting = &mut core.txn.collecting;
        if !collecting.state.learn(&SafePoints::of_all(ts), &engine).expect("the engine works") {
            return;
        }
        let views = core.views.all().into_iter();
        let swept = views.filter(|view| !view.region.id.is_system() && view.has_data);
        collecting.rest = swept.map(|view| view.region.id).collect();
        collecting.sweep = None;
        self.sweep_later(slot);
    }

    fn sweep_later(&mut self, slot: Slot) {
        let (delay, life) = (self.network.inside() * 100, self.nodes[slot].life);
        self.queue.after(delay, Event::Timer(slot, life, Timer::Sweep));
    }

    /// A step, or the next region.
    pub(crate) fn sweep_on(&mut self, slot: Slot) {
        let engine = self.nodes[slot].machine.engine.clone();
        let compacts = self.prng.one_in(8);
        let Some(core) = self.nodes[slot].core() else { return };
        let collecting = &mut core.txn.collecting;
        if collecting.sweep.as_ref().is_none_or(Sweep::is_done) {
            let Some(region) = collecting.rest.pop_front() else { return };
            let view = core.views.get(region).filter(|view| view.has_data);
            let range = view.map(|view| keys::data_range(region, &view.region.range));
            let Some((start, end)) = range else { return self.sweep_later(slot) };
            let range = KeyRange::new(start, end);
            if compacts {
                engine.compact_range(Cf::Write, &range).expect("the engine works");
            }
            collecting.sweep = Some(Sweep::new(range, collecting.state.used()));
        }
        let sweep = collecting.sweep.as_mut().expect("just put there");
        let step = sweep.step(&*engine.snapshot(), STEP_RECORDS).expect("the engine works");
        if !step.batch.is_empty() {
            engine.write(&step.batch).expect("the engine works");
        }
        self.totals.collected += step.gone;
        self.sweep_later(slot);
    }

    /// Of all safe points that any store knows, the last.
    pub(crate) fn last_safe_point(&mut self) -> TimeStamp {
        let cores = self.nodes.iter_mut().filter_map(|node| node.core());
        cores.map(|core| core.txn.collecting.state.told().all).max().unwrap_or_default()
    }
}

/// A number for the transactional data of a region, but for what is garbage.
pub(crate) fn hash_live(machine: &Machine, region: &Region, safe_point: TimeStamp) -> u64 {
    let mut walk = Walk::new(Arc::new(SafePoints::of_all(safe_point)));
    let (start, end) = keys::data_range(region.id, &region.range);
    let snapshot = machine.engine.snapshot();
    let (mut hash, mut values_gone) = (region.id.0, std::collections::BTreeSet::new());
    for cf in [Cf::Write, Cf::Default] {
        let options = IterOptions::within(KeyRange::new(start.clone(), end.clone()));
        let mut cursor = snapshot.iter(cf, options).expect("readable");
        let mut valid = cursor.seek_to_first().expect("readable");
        while valid {
            let (key, value) = (cursor.key(), cursor.value());
            let stays = match cf {
                Cf::Write => match walk.fate(key, value) {
                    Fate::Stays => true,
                    Fate::Goes(gone) => {
                        values_gone.extend(gone.value);
                        false
                    }
                },
                _ => !values_gone.contains(key),
            };
            if stays {
                hash = mix(mix(hash, key), value);
            }
            valid = cursor.next().expect("readable");
        }
    }
    hash
}

/// How long a version lives at least, in a run; zero: for ever. Nothing that a client has begun is
/// under way for half as long.
pub(super) fn draw_life(prng: &mut Prng) -> Duration {
    ms([0, 0, 25_000][prng.below(3) as usize])
}
