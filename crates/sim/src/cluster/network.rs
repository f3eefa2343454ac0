//! What becomes of what is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::Prng;
use raft::Body;

use super::event::Slot;

/// Kinds of raft messages that a filter can take out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Append,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    Vote,
    VoteResponse,
    Snapshot,
    TimeoutNow,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::Append,
        Self::AppendResponse,
        Self::Heartbeat,
        Self::HeartbeatResponse,
        Self::Vote,
        Self::VoteResponse,
        Self::Snapshot,
        Self::TimeoutNow,
    ];

    pub(crate) fn of(body: &Body) -> Option<Self> {
        Some(match body {
            Body::Append { .. } => Self::Append,
            Body::AppendResponse { .. } => Self::AppendResponse,
            Body::Heartbeat { .. } => Self::Heartbeat,
            Body::HeartbeatResponse { .. } => Self::HeartbeatResponse,
            Body::Vote { .. } | Body::PreVote { .. } => Self::Vote,
            Body::VoteResponse { .. } | Body::PreVoteResponse { .. } => Self::VoteResponse,
            Body::Snapshot { .. } => Self::Snapshot,
            Body::TimeoutNow { .. } => Self::TimeoutNow,
            _ => return None,
        })
    }
}

/// The network between nodes, and between clients and nodes.
pub(crate) struct Network {
    prng: Prng,
    delay: Duration,
    /// From where nothing comes through to where.
    pub(crate) cut: BTreeSet<(Slot, Slot)>,
    pub(crate) slow: BTreeMap<(Slot, Slot), Duration>,
    /// One in so many is lost.
    pub(crate) loss: Option<u64>,
    /// One in so many comes twice.
    pub(crate) duplicates: Option<u64>,
    /// One in so many comes very late.
    pub(crate) stragglers: Option<u64>,
    /// Messages of this kind to this node do not arrive.
    pub(crate) filter: Option<(Slot, Kind)>,
    /// The next file on its way is cut short, or arrives with a flipped bit.
    pub(crate) damage: Option<Damage>,
}

/// What happens to the files of a snapshot on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    Cut,
    Flip,
    /// After they have arrived.
    Rot,
}

/// When what was sent arrives; not at all, once, or twice.
pub(crate) type Arrivals = (Option<Duration>, Option<Duration>);

impl Network {
    pub(crate) fn new(prng: Prng, delay: Duration) -> Self {
        Self {
            prng,
            delay,
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            loss: None,
            duplicates: None,
            stragglers: None,
            filter: None,
            damage: None,
        }
    }

    /// Everything works.
    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.slow.clear();
        (self.loss, self.duplicates, self.stragglers) = (None, None, None);
        (self.filter, self.damage) = (None, None);
    }

    pub(crate) fn is_cut(&self, from: Slot, to: Slot) -> bool {
        self.cut.contains(&(from, to))
    }

    /// The fate of what goes from one node to another.
    pub(crate) fn between(&mut self, from: Slot, to: Slot) -> Arrivals {
        if from == to {
            return (Some(self.inside()), None);
        }
        if self.is_cut(from, to) {
            return (None, None);
        }
        let slow = self.slow.get(&(from, to)).copied().unwrap_or_default();
        let (first, second) = self.anywhere();
        (first.map(|delay| delay + slow), second)
    }

    /// The fate of what goes from a client to a node or back.
    pub(crate) fn anywhere(&mut self) -> Arrivals {
        if self.loss.is_some_and(|n| self.prng.one_in(n)) {
            return (None, None);
        }
        let twice = self.duplicates.is_some_and(|n| self.prng.one_in(n));
        let second = twice.then(|| self.some_delay() * 4);
        (Some(self.some_delay()), second)
    }

    fn some_delay(&mut self) -> Duration {
        let mean = self.delay.as_nanos() as u64;
        let mut nanos = mean / 2 + self.prng.below(mean);
        if self.stragglers.is_some_and(|n| self.prng.one_in(n)) {
            nanos += self.prng.below(2_000_000_000);
        } else if self.prng.one_in(64) {
            nanos *= 8;
        }
        Duration::from_nanos(nanos)
    }

    /// From one thread of a node to another.
    pub(crate) fn inside(&mut self) -> Duration {
        Duration::from_nanos(1_000 + self.prng.below(20_000))
    }
}
