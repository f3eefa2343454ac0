//! Credits for snapshots: none is made for a store that has no room for it.
//!
//! ```text
//!   leader's store                               member's store
//!   raft wants a snapshot ──── asks ───────────> room? then the region holds a credit
//!   it is made <────────────── grants ─────────┘
//!   asks on, again and again: the credit stays   nothing was heard for a while: it is free again
//!   files ─────────────────────────────────────> here: it is free again, and an install takes room
//! ```
//!
//! The member's store owns the credits, and answers nothing if it has none: whoever asks asks
//! again. So nobody gives one back, and none is lost with a sender or with a message. A credit too
//! many after a loss costs a refusal of the transport, which has a limit of its own.

use std::collections::BTreeMap;

use base::RegionId;

/// Who wants a snapshot received asks again after so many ticks.
pub(crate) const CREDIT_ASK_TICKS: u64 = 10;

/// A credit is free again when nobody has asked for it for so many ticks.
const CREDIT_LAPSE_TICKS: u64 = 6 * CREDIT_ASK_TICKS;

/// The credits that a store gives: one a region. Time is in ticks of the shard.
#[derive(Debug)]
pub(crate) struct Credits {
    max: usize,
    /// When each was last asked for.
    granted: BTreeMap<RegionId, u64>,
}

impl Credits {
    /// So many snapshots are received or installed at once.
    pub(crate) fn new(max: usize) -> Self {
        assert!(max > 0, "no snapshot would ever come");
        Self { max, granted: BTreeMap::new() }
    }

    /// Whether a snapshot of the region may be made, asked at tick `now`, when so many that came
    /// are not installed yet. The placement driver's region never waits: it is small, and all need
    /// it.
    pub(crate) fn ask(&mut self, region: RegionId, now: u64, installing: usize) -> bool {
        self.granted.retain(|_, asked| now.saturating_sub(*asked) < CREDIT_LAPSE_TICKS);
        let holds = self.granted.contains_key(&region);
        let has_room = self.granted.len() + installing < self.max;
        let granted = holds || has_room || region.is_system();
        if granted {
            self.granted.insert(region, now);
            let count = self.granted.len();
            assert!(count <= self.max + 1, "{count} credits: so many, and the placement driver's");
        }
        granted
    }

    /// The region's snapshot came.
    pub(crate) fn close(&mut self, region: RegionId) {
        self.granted.remove(&region);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: RegionId = RegionId(7);
    const B: RegionId = RegionId(8);
    const C: RegionId = RegionId(9);

    #[test]
    fn so_many_and_no_more() {
        let mut credits = Credits::new(2);
        assert!(credits.ask(A, 1, 0) && credits.ask(B, 1, 0));
        assert!(!credits.ask(C, 2, 0), "both are taken");
        assert!(credits.ask(A, 2, 0), "who has one keeps it");
        assert!(credits.ask(RegionId::SYSTEM, 2, 0));
        credits.close(RegionId::SYSTEM);
        credits.close(A);
        assert!(!credits.ask(C, 3, 1), "what came takes room until it is installed");
        assert!(credits.ask(C, 4, 0));
    }

    #[test]
    fn who_asks_no_more_gives_it_back() {
        let mut credits = Credits::new(2);
        assert!(credits.ask(A, 1, 0) && credits.ask(B, 1, 0));
        assert!(credits.ask(A, CREDIT_LAPSE_TICKS, 0));
        assert!(!credits.ask(C, CREDIT_LAPSE_TICKS, 0));
        assert!(credits.ask(C, CREDIT_LAPSE_TICKS + 1, 0), "nothing was heard of {B}");
        assert!(!credits.ask(B, CREDIT_LAPSE_TICKS + 2, 0));
    }
}
