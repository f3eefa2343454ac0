//! The leader's lease: until when it may answer reads without asking anyone.
//!
//! A heartbeat round that a quorum has echoed proves that nobody else can have won an election
//! before `begin of the round + election timeout`: whoever echoed refuses its vote that long, and
//! so does a voter that has just restarted (crate `raft`). So the lease runs from the *begin* of
//! the round, and is a little shorter than the timeout, because clocks drift. (Raft thesis, section
//! 6.4.1.)

use std::collections::VecDeque;
use std::time::Duration;

use base::Instant;
use base::rule::{Rule, keep};

/// Rounds that wait for their quorum; older ones are forgotten first, which only makes the lease
/// shorter.
const ROUNDS_MAX: usize = 64;

/// When each round began and how far the lease reaches. Owned by the shard, one for each peer.
#[derive(Debug)]
pub(crate) struct Lease {
    duration: Duration,
    begun: VecDeque<(u64, Instant)>,
    /// The last round whose begin was noted. A round is noted once, when it is first seen: later
    /// would make the lease too long.
    latest: u64,
    until: Instant,
}

impl Lease {
    /// No lease yet; each confirmed round will grant `duration` from its begin.
    pub(crate) fn new(duration: Duration) -> Self {
        Self { duration, begun: VecDeque::new(), latest: 0, until: Instant::ZERO }
    }

    /// The leader's current round is `round`, seen at `now` (not after the round's messages leave).
    /// To be told of every round, whether or not there is a lease.
    pub(crate) fn begin(&mut self, round: u64, now: Instant) {
        if round <= self.latest && keep(Rule::RoundBeginsOnce) {
            return;
        }
        self.latest = round;
        if self.begun.len() == ROUNDS_MAX {
            self.begun.pop_front();
        }
        self.begun.push_back((round, now));
    }

    /// A quorum has echoed `round` and all before it. Returns whether the lease grew.
    pub(crate) fn confirm(&mut self, round: u64) -> bool {
        let before = self.until;
        while let Some(&(begun, at)) = self.begun.front() {
            if begun > round {
                break;
            }
            self.until = self.until.max(at + self.duration);
            self.begun.pop_front();
        }
        self.until > before
    }

    /// Leadership ended, or is being handed over. What is confirmed after this counts again.
    pub(crate) fn expire(&mut self) {
        self.until = Instant::ZERO;
    }

    /// The lease holds before this instant.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_runs_from_the_begin_of_a_confirmed_round() {
        let mut lease = Lease::new(Duration::from_nanos(100));
        lease.begin(1, Instant(10));
        lease.begin(2, Instant(50));
        lease.begin(2, Instant(60));
        assert_eq!(lease.until(), Instant::ZERO);
        assert!(lease.confirm(1));
        assert_eq!(lease.until(), Instant(110));
        assert!(!lease.confirm(1));
        assert!(lease.confirm(2));
        assert_eq!(lease.until(), Instant(150));
        lease.expire();
        assert_eq!(lease.until(), Instant::ZERO);
        assert!(!lease.confirm(2), "what was confirmed before grants nothing");
    }

    /// Turns that come after a round was confirmed, or while nothing is, must not pass for its
    /// begin.
    #[test]
    fn a_round_begins_once() {
        let mut lease = Lease::new(Duration::from_nanos(100));
        lease.begin(1, Instant(10));
        assert!(lease.confirm(1));
        lease.begin(1, Instant(80));
        assert!(!lease.confirm(1));
        assert_eq!(lease.until(), Instant(110));
        lease.expire();
        lease.begin(2, Instant(200));
        lease.expire();
        lease.begin(2, Instant(290));
        assert!(lease.confirm(2));
        assert_eq!(lease.until(), Instant(300), "counted from when the round was first seen");
    }
}
