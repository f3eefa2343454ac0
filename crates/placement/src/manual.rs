//! Operators by hand: a [`Goal`] for a region, how it goes, and what became of it.
//!
//! ```text
//!   set_goal ──> Manual ── every look: Goal::next ──> order, order, ... ──> reached
//!                   │                                                       ├──> impossible
//!                   └── cancelled, or not reached in ten minutes ───────────┴──> Record
//! ```
//!
//! All of it is memory: a placement driver that takes over knows of no goals. Whoever set one asks
//! for its [`Record`] and finds none.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base::{Epoch, Instant, KeyRange, RegionId};
use proto::metapb;

use crate::goals::{Goal, Next};
use crate::{Placement, PlacementError, RegionInfo};

/// A goal that was not reached in this time is given up.
const GOAL_TIMEOUT: Duration = Duration::from_secs(600);

/// Goals that are over and still remembered.
const RECORDS_MAX: usize = 256;

/// Goals that may stand at once.
const GOALS_MAX: usize = 1_024;

/// A goal that stands.
#[derive(Clone, Debug)]
pub(crate) struct Manual {
    goal: Goal,
    began: Epoch,
    /// The keys when it was set: where to look for what became of them.
    range: KeyRange,
    started_at: Instant,
    /// What it waits for, if no order is given.
    waits: String,
}

/// How a goal stands, or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The region.
    pub region_id: RegionId,
    /// What was wanted.
    pub goal: Goal,
    /// How it stands.
    pub status: RecordStatus,
    /// What it waits for, or why it ended as it did.
    pub detail: String,
}

/// How a goal stands. The names are PD's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordStatus {
    /// It is being worked on.
    Running,
    /// It is reached.
    Success,
    /// Somebody took it back.
    Cancel,
    /// It was not reached in time.
    Timeout,
    /// It cannot be reached.
    Failed,
}

impl RecordStatus {
    /// As PD spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Success => "SUCCESS",
            Self::Cancel => "CANCEL",
            Self::Timeout => "TIMEOUT",
            Self::Failed => "FAILED",
        }
    }
}

/// All goals.
#[derive(Debug, Default)]
pub(crate) struct Goals {
    standing: BTreeMap<RegionId, Manual>,
    records: VecDeque<Record>,
}

impl Goals {
    pub(crate) fn ids(&self) -> impl Iterator<Item = RegionId> {
        self.standing.keys().copied()
    }

    pub(crate) fn get(&self, id: RegionId) -> Option<&Manual> {
        self.standing.get(&id)
    }

    /// The region that is to become a part of `target`.
    pub(crate) fn merges_into(&self, target: RegionId) -> Option<RegionId> {
        let merges = |manual: &Manual| matches!(manual.goal, Goal::Merge(into) if into == target);
        self.standing.iter().find(|(_, manual)| merges(manual)).map(|(id, _)| *id)
    }

    /// Why nothing is to be done to region `id` beside what is wanted of it: two merges at once of
    /// one region would undo each other.
    fn occupies(&self, id: RegionId) -> Option<String> {
        if let Some(manual) = self.get(id) {
            return Some(format!("region {id} has a goal already: {}", manual.goal.name()));
        }
        let source = self.merges_into(id)?;
        Some(format!("region {source} is about to become a part of region {id}"))
    }

    fn end(&mut self, region_id: RegionId, status: RecordStatus, detail: String) {
        let Some(Manual { goal, .. }) = self.standing.remove(&region_id) else { return };
        tracing::info!(region = %region_id, ?goal, status = status.name(), detail, "goal over");
        if self.records.len() == RECORDS_MAX {
            self.records.pop_front();
        }
        self.records.push_back(Record { region_id, goal, status, detail });
    }
}

impl Manual {
    pub(crate) fn next(&self, region: &RegionInfo, placement: &Placement) -> Next {
        self.goal.next(region, self.began, placement.regions())
    }

    pub(crate) fn target(&self) -> Option<RegionId> {
        self.goal.target()
    }

    fn record(&self, region_id: RegionId) -> Record {
        let (goal, detail) = (self.goal.clone(), self.waits.clone());
        Record { region_id, goal, status: RecordStatus::Running, detail }
    }
}

impl Placement {
    /// Sets a goal for a region, in the place of what is being done to it. Refused if the region or
    /// a store that it needs is not known or does not serve, if the region has a goal already, or
    /// if it is plain now that the goal cannot be reached.
    pub fn set_goal(
        &mut self,
        id: RegionId,
        goal: Goal,
        now: Instant,
    ) -> Result<(), PlacementError> {
        if !self.is_bootstrapped() {
            return Err(PlacementError::NotBootstrapped);
        }
        let Some(region) = self.known_region(id) else {
            return Err(PlacementError::refused(format!("region {id} is not known")));
        };
        for store in goal.stores() {
            let known = self.live_store(store.0)?;
            if known.meta.node_state() != metapb::NodeState::Serving {
                let text = format!("store {store} is being removed");
                return Err(PlacementError::refused(text));
            }
        }
        let mut involved = vec![id];
        involved.extend(goal.target());
        if let Some(text) = involved.iter().find_map(|id| self.operators.goals.occupies(*id)) {
            return Err(PlacementError::refused(text));
        }
        if self.operators.goals.standing.len() >= GOALS_MAX {
            return Err(PlacementError::refused(format!("there are {GOALS_MAX} goals already")));
        }
        if id.is_system() && matches!(goal, Goal::Split(_) | Goal::Merge(_)) {
            return Err(PlacementError::refused("the system region is neither split nor merged"));
        }
        let (began, range) = (region.epoch(), region.range());
        if let Next::Failed(why) = goal.next(region, began, &self.regions) {
            return Err(PlacementError::refused(format!("region {id}: {why}")));
        }
        let manual = Manual { goal, began, range, started_at: now, waits: String::new() };
        self.operators.withdraw(id);
        self.operators.goals.standing.insert(id, manual);
        Ok(())
    }

    /// Takes a goal back. Orders that were given may still take effect. Returns whether there was
    /// one.
    pub fn cancel_goal(&mut self, id: RegionId) -> bool {
        let stands = self.operators.goals.get(id).is_some();
        self.operators.withdraw(id);
        self.operators.goals.end(id, RecordStatus::Cancel, "taken back".to_owned());
        stands
    }

    /// The goal that stands for a region, or else the last one that ended.
    pub fn goal(&self, id: RegionId) -> Option<Record> {
        let goals = &self.operators.goals;
        let standing = goals.get(id).map(|manual| manual.record(id));
        standing.or_else(|| goals.records.iter().rev().find(|r| r.region_id == id).cloned())
    }

    /// All goals that stand.
    pub fn goals(&self) -> impl Iterator<Item = Record> {
        self.operators.goals.standing.iter().map(|(id, manual)| manual.record(*id))
    }

    /// Goals that are over, the latest last.
    pub fn goal_records(&self) -> impl Iterator<Item = &Record> {
        self.operators.goals.records.iter()
    }

    /// Ends the goals that are reached, cannot be, or took too long.
    pub(crate) fn end_goals(&mut self, now: Instant) {
        let ids: Vec<RegionId> = self.operators.goals.ids().collect();
        for id in ids {
            let manual = self.operators.goals.get(id).expect("listed above");
            let late = now.since(manual.started_at) >= GOAL_TIMEOUT;
            let next = match self.known_region(id) {
                Some(region) => manual.next(region, self),
                None => self.without_region(manual),
            };
            let waits = match next {
                Next::Done => {
                    self.operators.goals.end(id, RecordStatus::Success, String::new());
                    continue;
                }
                Next::Failed(why) => {
                    self.operators.goals.end(id, RecordStatus::Failed, why);
                    continue;
                }
                Next::Wait(why) => why,
                Next::Step(step) => format!("ordered: {step:?}"),
                Next::Need(need) => format!("ordered: {need:?}"),
            };
            if late {
                self.operators.goals.end(id, RecordStatus::Timeout, waits);
            } else if let Some(manual) = self.operators.goals.standing.get_mut(&id) {
                manual.waits = waits;
            }
        }
    }

    /// The region left the map: that is how a merge ends.
    fn without_region(&self, manual: &Manual) -> Next {
        let holder = self.regions.find(&manual.range.start).map(|region| region.id());
        match (&manual.goal, holder) {
            (Goal::Merge(target), Some(holder)) if holder == *target => Next::Done,
            (_, None) => Next::Wait("the region is not known just now".to_owned()),
            (_, Some(holder)) => Next::Failed(format!("its keys are those of region {holder} now")),
        }
    }
}
