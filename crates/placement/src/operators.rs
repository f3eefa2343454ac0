//! Operators: orders that were given and whose effect has not shown yet, at most one a region.
//!
//! ```text
//!   heartbeats, time ──> regions_to_check ──> plan_orders ──> rows: ids of new peers
//!                              ^                                  │ applied, committed
//!                              │                                  v
//!        the region changed: over <── Operator { order, when } <── start_orders ──> to the leaders
//! ```
//!
//! An operator waits for its region to be another one than the order says (members, range or
//! leader). That ends it, whether the order did it or not: the region is looked at anew, and what
//! it needs then is told from how it is then. Orders that show no effect are given again after two
//! seconds and given up after thirty. All of it is memory: a placement driver that takes over
//! plans from what the leaders tell it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use base::{Instant, Peer, PeerChange, PeerId, PeerRole, RegionId, StoreId};
use proto::metapb;

use crate::checkers::Pauses;
use crate::goals::Next;
use crate::manual::Goals;
use crate::order::{Order, Step};
use crate::replicas::{self, Fitness, Need, StoreView, View};
use crate::{Change, Liveness, Placement, PlacementError, RegionInfo, RowChanges, StoreInfo};

/// An order without effect is given again after this time.
const REPEAT_AFTER: Duration = Duration::from_secs(2);
/// ... and given up after this.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
const _: () = assert!(REPEAT_AFTER.as_nanos() < GIVE_UP_AFTER.as_nanos());

/// Regions that one look takes in besides those that were just heard of.
const PATROL_MAX: usize = 1_024;
/// Orders that one look makes.
const ORDERS_MAX: usize = 64;

/// A store gets no new copies when less of its disk than one part in so many is free.
const FREE_SPACE_PARTS: u64 = 20;

/// What the placement driver can be told about scheduling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Replicas on a store that was silent for so long are replaced.
    pub max_store_down: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_store_down: Duration::from_secs(30 * 60) }
    }
}

/// An order that was given.
#[derive(Debug)]
struct Operator {
    order: Order,
    started_at: Instant,
    sent_at: Instant,
}

/// All operators, and which regions to look at next.
#[derive(Debug, Default)]
pub(crate) struct Operators {
    pub(crate) settings: Settings,
    pub(crate) goals: Goals,
    pub(crate) pauses: Pauses,
    running: BTreeMap<RegionId, Operator>,
    /// Heard of, or let go, since the last look.
    news: BTreeSet<RegionId>,
    /// The patrol went up to here.
    patrolled: RegionId,
}

impl Operators {
    /// A leader reported: its operator is over if the region is not what it was.
    pub(crate) fn heard(&mut self, region: &RegionInfo) {
        let id = region.id();
        if self.running.get(&id).is_some_and(|operator| !operator.order.fits(region)) {
            self.running.remove(&id);
        }
        self.news.insert(id);
        assert!(self.running.get(&id).is_none_or(|o| o.order.fits(region)), "it goes on in vain");
    }

    /// The order that region `id` is given.
    pub(crate) fn order(&self, id: RegionId) -> Option<&Order> {
        self.running.get(&id).map(|operator| &operator.order)
    }

    /// Whatever is being done to the region is nobody's wish any more.
    pub(crate) fn withdraw(&mut self, id: RegionId) {
        self.running.remove(&id);
        self.news.insert(id);
    }

    fn give_up(&mut self, now: Instant) {
        let is_late = |operator: &Operator| now.since(operator.started_at) >= GIVE_UP_AFTER;
        let late = self.running.iter().filter(|(_, operator)| is_late(operator));
        let late: Vec<RegionId> = late.map(|(id, _)| *id).collect();
        for id in late {
            let operator = self.running.remove(&id).expect("found above");
            tracing::info!(region = %id, order = operator.order.name(), "order given up");
            self.news.insert(id);
        }
    }

    /// Those that have waited long enough to be given again.
    fn repeat(&mut self, now: Instant) -> Vec<Order> {
        let due = |operator: &&mut Operator| now.since(operator.sent_at) >= REPEAT_AFTER;
        let again = self.running.values_mut().filter(due);
        again
            .map(|operator| {
                operator.sent_at = now;
                operator.order.clone()
            })
            .collect()
    }

    fn start(&mut self, order: Order, now: Instant) {
        let operator = Operator { order, started_at: now, sent_at: now };
        let other = self.running.insert(operator.order.region_id, operator);
        assert!(other.is_none(), "two operators on one region");
    }
}

impl Placement {
    /// Sets what can be set. From the next look on.
    pub fn configure(&mut self, settings: Settings) {
        self.operators.settings = settings;
    }

    /// The orders whose effect has not shown yet, by region.
    pub fn orders(&self) -> impl Iterator<Item = &Order> {
        self.operators.running.values().map(|operator| &operator.order)
    }

    /// The system region, once its leader has reported.
    pub fn system_region(&self) -> Option<&RegionInfo> {
        self.system_region.as_deref()
    }

    /// First part of a look at the regions: which to look at. Those that were heard of since the
    /// last look, some of the others in turn; not those that have an operator, unless it is given
    /// up now.
    pub fn regions_to_check(&mut self, now: Instant) -> Vec<RegionId> {
        self.operators.give_up(now);
        self.end_goals(now);
        self.forget_vanished();
        let mut regions = std::mem::take(&mut self.operators.news);
        let after = (Bound::Excluded(self.operators.patrolled), Bound::Unbounded);
        let patrol: Vec<_> = self.regions.ids(after).take(PATROL_MAX).collect();
        let is_round = patrol.len() < PATROL_MAX;
        self.operators.patrolled = match patrol.last() {
            Some(last) if !is_round => *last,
            _ => RegionId::default(),
        };
        regions.extend(patrol);
        regions.extend(self.system_region().map(RegionInfo::id));
        regions.extend(self.operators.goals.ids());
        regions.retain(|id| self.operators.order(*id).is_none());
        assert!(regions.iter().all(|id| !self.operators.running.contains_key(id)));
        regions.into_iter().collect()
    }

    /// Nothing is ordered of regions that left the map, by a merge most likely.
    fn forget_vanished(&mut self) {
        let regions = &self.regions;
        let known = |id: RegionId| id.is_system() || regions.get(id).is_some();
        self.operators.running.retain(|id, _| known(*id));
    }

    /// Second part: what these regions need. The rows hold the ids of new peers; the orders may
    /// leave by way of [`start_orders`](Self::start_orders) once they are committed.
    pub fn plan_orders(
        &self,
        regions: &[RegionId],
        now: Instant,
    ) -> Result<Change<Vec<Order>>, PlacementError> {
        let mut rows = RowChanges::default();
        if !self.is_bootstrapped() {
            return Ok(Change { rows, reply: Vec::new() });
        }
        let mut view = self.view(now);
        let mut needs = Vec::new();
        for region in regions.iter().filter_map(|id| self.known_region(*id)) {
            let Some(wanted) = self.wanted(&view, region, now) else { continue };
            if let Wanted::Need(Need::AddLearner(store)) = wanted {
                view.count_add(store);
            }
            needs.push((region, wanted));
            if needs.len() == ORDERS_MAX {
                break;
            }
        }
        let adds = needs.iter().filter(|(_, wanted)| wanted.is_add()).count();
        let mut peer_id = match adds {
            0 => 0,
            adds => self.ids.plan(adds as u64, &mut rows)?,
        };
        assert_eq!(adds == 0, rows.is_empty(), "ids leave only after they are saved");
        let mut orders = Vec::with_capacity(needs.len());
        for (region, wanted) in needs {
            let new = PeerId(peer_id);
            peer_id += u64::from(wanted.is_add());
            let step = match wanted {
                Wanted::Need(need) => step(need, new),
                Wanted::Step(step) => step,
            };
            orders.extend(Order::new(region, step));
        }
        Ok(Change { rows, reply: orders })
    }

    /// Third part: begins operators for the orders that still fit. Returns the orders to give now:
    /// these, and older ones that showed no effect.
    pub fn start_orders(&mut self, planned: Vec<Order>, now: Instant) -> Vec<Order> {
        let mut orders = self.operators.repeat(now);
        for order in planned {
            let fits = self.known_region(order.region_id).is_some_and(|region| order.fits(region));
            if !fits || self.operators.order(order.region_id).is_some() {
                continue;
            }
            tracing::info!(region = %order.region_id, step = ?order.step, "order");
            self.operators.start(order.clone(), now);
            orders.push(order);
        }
        orders
    }

    /// What is to be done to a region now: what somebody wants by hand, or what it needs.
    fn wanted(&self, view: &View, region: &RegionInfo, now: Instant) -> Option<Wanted> {
        let goals = &self.operators.goals;
        let Some(manual) = goals.get(region.id()) else {
            if goals.merges_into(region.id()).is_some() {
                // The one that waits for it names its epoch.
                return None;
            }
            let need = replicas::need(view, region)?;
            let forbidden = self.operators.pauses.forbid(need, now);
            return (!forbidden).then_some(Wanted::Need(need));
        };
        if manual.target().is_some_and(|target| self.operators.order(target).is_some()) {
            return None;
        }
        match manual.next(region, self) {
            Next::Need(need) => Some(Wanted::Need(need)),
            Next::Step(step) => Some(Wanted::Step(step)),
            Next::Wait(_) | Next::Done | Next::Failed(_) => None,
        }
    }

    pub(crate) fn known_region(&self, id: RegionId) -> Option<&RegionInfo> {
        if id.is_system() {
            return self.system_region();
        }
        self.regions.get(id).map(|region| &**region)
    }

    /// What the checker goes by.
    fn view(&self, now: Instant) -> View {
        let loads = self.regions.store_loads();
        let mut adding: BTreeMap<StoreId, u64> = BTreeMap::new();
        for store in self.orders().filter_map(Order::adds_to) {
            *adding.entry(store).or_default() += 1;
        }
        let store = |store: &StoreInfo| {
            let id = StoreId(store.meta.id);
            let load = loads.get(&id).copied().unwrap_or_default();
            let adding = adding.get(&id).copied().unwrap_or(0);
            let view = StoreView {
                fitness: self.fitness(store, now),
                copies: load.regions + adding,
                adding: load.pending + adding,
            };
            (id, view)
        };
        View { stores: self.stores().map(store).collect(), wanted: self.wanted_copies() }
    }

    /// Copies that a region should have.
    pub(crate) fn wanted_copies(&self) -> usize {
        self.cluster.meta.map_or(1, |meta| meta.max_peer_count.max(1) as usize)
    }

    fn fitness(&self, store: &StoreInfo, now: Instant) -> Fitness {
        let serves = store.meta.state() == metapb::StoreState::Up
            && store.meta.node_state() == metapb::NodeState::Serving;
        let silent = now.since(store.heard_at);
        if !serves || silent >= self.operators.settings.max_store_down {
            return Fitness::Lost;
        }
        let Some(stats) = &store.stats else { return Fitness::Keeps };
        let has_space = stats.available >= stats.capacity / FREE_SPACE_PARTS;
        let is_up = store.liveness(now) == Liveness::Up;
        if is_up && has_space { Fitness::Takes } else { Fitness::Keeps }
    }
}

/// What is to be done to a region.
enum Wanted {
    Need(Need),
    Step(Step),
}

impl Wanted {
    fn is_add(&self) -> bool {
        matches!(self, Self::Need(Need::AddLearner(_)))
    }
}

/// The step that a need asks for; `new` is the id of a peer that begins to exist.
fn step(need: Need, new: PeerId) -> Step {
    match need {
        Need::LeaveJoint => Step::ChangePeers(Vec::new()),
        Need::AddLearner(store_id) => {
            assert!(new != PeerId::NONE, "a new peer needs an id");
            let peer = Peer { id: new, store_id, role: PeerRole::Learner };
            Step::ChangePeers(vec![PeerChange::AddLearner(peer)])
        }
        Need::Promote(peer) => Step::ChangePeers(vec![PeerChange::AddVoter(peer)]),
        Need::Remove(peer) => Step::ChangePeers(vec![PeerChange::Remove(peer)]),
        Need::TransferLeader(peer) => Step::TransferLeader(peer),
    }
}
