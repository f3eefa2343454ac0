//! The checkers that PD has by name, and which of them somebody has paused.
//!
//! Importers and people pause checkers so that nothing moves under their hands. A pause ends by
//! itself; it is memory, and a placement driver that takes over knows nothing of it.

use std::collections::BTreeMap;
use std::time::Duration;

use base::Instant;

use crate::Placement;
use crate::replicas::Need;

/// What looks after regions. The work of PD's six is done here by one, `replicas`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checker {
    /// Leaves joint states.
    JointState,
    /// Makes voters of learners.
    Learner,
    /// Merges small regions.
    Merge,
    /// Adds and removes copies.
    Replica,
    /// The same by rules: another name of it here.
    Rule,
    /// Splits regions at the borders of rules: there are none.
    Split,
}

impl Checker {
    /// All of them.
    pub const ALL: [Checker; 6] =
        [Self::JointState, Self::Learner, Self::Merge, Self::Replica, Self::Rule, Self::Split];

    /// As PD spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::JointState => "joint-state",
            Self::Learner => "learner",
            Self::Merge => "merge",
            Self::Replica => "replica",
            Self::Rule => "rule",
            Self::Split => "split",
        }
    }

    /// The checker of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|checker| checker.name() == name)
    }
}

/// Until when each is paused.
#[derive(Debug, Default)]
pub(crate) struct Pauses(BTreeMap<Checker, Instant>);

impl Pauses {
    fn is_paused(&self, checker: Checker, now: Instant) -> bool {
        self.0.get(&checker).is_some_and(|until| now < *until)
    }

    /// Whether nobody may do anything about it now.
    pub(crate) fn forbid(&self, need: Need, now: Instant) -> bool {
        let by = match need {
            Need::LeaveJoint => &[Checker::JointState][..],
            Need::Promote(_) => &[Checker::Learner, Checker::Replica, Checker::Rule],
            Need::AddLearner(_) | Need::Remove(_) | Need::TransferLeader(_) => {
                &[Checker::Replica, Checker::Rule]
            }
        };
        by.iter().any(|checker| self.is_paused(*checker, now))
    }
}

impl Placement {
    /// Pauses a checker for so long; for no time: resumes it. Orders that were given stand.
    pub fn pause_checker(&mut self, checker: Checker, time: Duration, now: Instant) {
        match time {
            Duration::ZERO => self.operators.pauses.0.remove(&checker),
            time => self.operators.pauses.0.insert(checker, now + time),
        };
        assert_eq!(self.is_checker_paused(checker, now), time > Duration::ZERO, "{checker:?}");
    }

    /// Whether it is paused.
    pub fn is_checker_paused(&self, checker: Checker, now: Instant) -> bool {
        self.operators.pauses.is_paused(checker, now)
    }
}
