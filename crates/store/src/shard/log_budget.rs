//! The store's budget for its log: what all regions together may hold back.
//!
//! A region's own limits do not bound a store of ten thousand regions. So the store looks at the
//! sum, and while it is over, the regions led here whose logs are largest are asked to forget:
//! first what every living member has, and if the sum is over the budget itself, what is applied
//! here. What is led elsewhere is the business of the store that leads it, whose log holds the
//! same.
//!
//! How much goes is known when the engine is synced past it (rule W1); until then a compaction that
//! was proposed counts as done.

use base::RegionId;

use super::Shard;
use crate::input::Outbox;
use crate::replica::{Leave, Replica};

/// Logs below this are not worth a compaction, unless nothing else helps.
const WORTH_BYTES: u64 = 4 << 10;

impl Shard {
    /// Keeps the log within its budget.
    pub(super) fn keep_log_budget(&mut self, out: &mut Outbox) {
        let (live, budget) = (self.log.live_bytes(), self.config.log_store_bytes_max);
        let goal = budget / 2;
        if live <= goal {
            return;
        }
        let size = |(id, replica): (&RegionId, &Replica)| {
            let bytes = self.log.live_bytes_of(*id);
            (replica.is_leader() && bytes >= WORTH_BYTES).then_some((bytes, *id))
        };
        let mut logs: Vec<(u64, RegionId)> = self.replicas.iter().filter_map(size).collect();
        logs.sort_unstable_by(|a, b| b.cmp(a));
        let gentle =
            |(bytes, id): &(u64, RegionId)| self.replicas[id].forgettable(Leave::Living, *bytes);
        let gentle: u64 = logs.iter().map(gentle).sum();
        let leave = if live - gentle.min(live) > budget { Leave::Nobody } else { Leave::Living };
        self.shrink(&logs, live - goal, leave, out);
    }

    /// Compacts the largest logs until about `excess` bytes will go.
    fn shrink(
        &mut self,
        logs: &[(u64, RegionId)],
        mut excess: u64,
        leave: Leave,
        out: &mut Outbox,
    ) {
        for (bytes, id) in logs {
            if excess == 0 {
                return;
            }
            let replica = self.replicas.get_mut(id).expect("it was listed from here");
            let freed = replica.forgettable(leave, *bytes);
            if freed > 0 {
                replica.compact_for_store(leave, out);
                self.touched.insert(*id);
                excess = excess.saturating_sub(freed);
            }
        }
    }
}
