//! Who makes the first region, decided: [`FirstRegion`] is told what happened and says what to do
//! next.

use std::time::Duration;

use base::{Instant, Peer, PeerId, Region, RegionId, StoreId};

/// Failed calls after which the bootstrap gives up, for each of the two loops (is it bootstrapped;
/// bootstrap it).
pub const TRIES_MAX: u32 = 60;

/// Time between two tries.
pub const TRY_INTERVAL: Duration = Duration::from_secs(3);

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The store starts; `prepared` is the region of an unfinished bootstrap.
    Started {
        /// See [`super::prepared_region`].
        prepared: Option<Region>,
    },
    /// Placement says whether the cluster has a first region.
    Bootstrapped(bool),
    /// Placement gave out an id.
    Id(u64),
    /// What was to be written or removed is durable.
    Written,
    /// Placement took our region for the first.
    Accepted,
    /// Placement has a first region already.
    AlreadyBootstrapped,
    /// Placement's region that holds the smallest key.
    PlacementRegion(Region),
    /// The last call to placement failed.
    CallFailed(String),
    /// The instant of [`Action::WaitUntil`] has come.
    TimeHasCome,
}

/// What to do next. Every action is answered by one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask placement whether the cluster is bootstrapped.
    AskBootstrapped,
    /// Ask placement for an id.
    AllocId,
    /// Write the region's prepare key, states and log (phase one).
    Prepare(Region),
    /// Tell placement (phase two).
    Bootstrap(Region),
    /// Ask placement for the region that holds the smallest key.
    AskFirstRegion,
    /// Remove the prepare key.
    Clear,
    /// Remove the region's log, states and prepare key.
    Remove(RegionId),
    /// Do nothing until then.
    WaitUntil(Instant),
    /// The bootstrap is over.
    Finish(Outcome),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This store holds the first region; it may run.
    Ours(Region),
    /// Another store does.
    Others,
    /// Placement did not answer [`TRIES_MAX`] times; the last cause.
    GaveUp(String),
}

#[derive(Clone, Debug)]
enum Step {
    Start,
    AskBootstrapped,
    AllocRegionId,
    AllocPeerId(RegionId),
    Prepare(Region),
    Tell(Region),
    Compare(Region),
    Clear(Region),
    Remove,
    Finished,
}

/// The decision, step by step.
#[derive(Debug)]
pub struct FirstRegion {
    store_id: StoreId,
    step: Step,
    failures: u32,
}

impl FirstRegion {
    /// For the store `store_id`, which has its ident.
    pub fn new(store_id: StoreId) -> Self {
        Self { store_id, step: Step::Start, failures: 0 }
    }

    /// Takes what happened, says what to do. Panics if the event does not answer the last action.
    pub fn next(&mut self, now: Instant, event: Event) -> Action {
        match (self.step.clone(), event) {
            (Step::Start, Event::Started { prepared: Some(region) }) => {
                self.go(Step::Prepare(region.clone()), Action::Prepare(region))
            }
            (Step::Start, Event::Started { prepared: None }) => {
                self.go(Step::AskBootstrapped, Action::AskBootstrapped)
            }
            (Step::AskBootstrapped, Event::Bootstrapped(true)) => self.finish(Outcome::Others),
            (Step::AskBootstrapped, Event::Bootstrapped(false)) => {
                self.go(Step::AllocRegionId, Action::AllocId)
            }
            (Step::AllocRegionId, Event::Id(id)) => {
                self.go(Step::AllocPeerId(RegionId(id)), Action::AllocId)
            }
            (Step::AllocPeerId(region), Event::Id(id)) => {
                let region = Region::first(region, Peer::voter(PeerId(id), self.store_id));
                self.go(Step::Prepare(region.clone()), Action::Prepare(region))
            }
            (Step::Prepare(region), Event::Written) => {
                self.go(Step::Tell(region.clone()), Action::Bootstrap(region))
            }
            (Step::Tell(region), Event::Accepted) => self.go(Step::Clear(region), Action::Clear),
            (Step::Tell(region), Event::AlreadyBootstrapped) => {
                self.go(Step::Compare(region), Action::AskFirstRegion)
            }
            (Step::Compare(ours), Event::PlacementRegion(theirs)) if ours == theirs => {
                self.go(Step::Clear(ours), Action::Clear)
            }
            (Step::Compare(ours), Event::PlacementRegion(_)) => {
                self.go(Step::Remove, Action::Remove(ours.id))
            }
            (Step::Clear(region), Event::Written) => self.finish(Outcome::Ours(region)),
            (Step::Remove, Event::Written) => self.finish(Outcome::Others),
            (step, Event::CallFailed(cause)) => self.failed(now, &step, cause),
            (step, Event::TimeHasCome) => self.again(&step),
            (step, event) => panic!("{event:?} does not answer {step:?}"),
        }
    }

    fn go(&mut self, step: Step, action: Action) -> Action {
        self.step = step;
        self.failures = 0;
        action
    }

    fn finish(&mut self, outcome: Outcome) -> Action {
        self.go(Step::Finished, Action::Finish(outcome))
    }

    fn failed(&mut self, now: Instant, step: &Step, cause: String) -> Action {
        assert!(self.again_action(step).is_some(), "{step:?} makes no call that could fail");
        self.failures += 1;
        if self.failures == TRIES_MAX {
            return self.finish(Outcome::GaveUp(cause));
        }
        Action::WaitUntil(now + TRY_INTERVAL)
    }

    fn again(&mut self, step: &Step) -> Action {
        self.again_action(step).expect("only a call that failed waits")
    }

    fn again_action(&self, step: &Step) -> Option<Action> {
        match step {
            Step::AskBootstrapped => Some(Action::AskBootstrapped),
            Step::AllocRegionId | Step::AllocPeerId(_) => Some(Action::AllocId),
            Step::Tell(region) => Some(Action::Bootstrap(region.clone())),
            Step::Compare(_) => Some(Action::AskFirstRegion),
            Step::Start | Step::Prepare(_) | Step::Clear(_) | Step::Remove | Step::Finished => None,
        }
    }
}
