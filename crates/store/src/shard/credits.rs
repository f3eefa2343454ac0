//! The shard's part in credits for snapshots: who may make one for a replica here, and what was
//! allowed to those that are led here.

use super::Shard;
use crate::input::{Outbox, SnapshotCredit};

impl Shard {
    /// Another store asks for a credit, or grants one. Who asks is answered at the end of the turn:
    /// until then it is not known what is being installed.
    pub(super) fn credit(&mut self, credit: SnapshotCredit, out: &mut Outbox) {
        let SnapshotCredit { region_id: id, from, to, term, asks } = credit;
        if asks {
            self.asks.push(credit);
        } else if let Some(replica) = self.replica(id).filter(|replica| replica.peer().id == to.id)
        {
            replica.credit_granted(from.id, term, out);
        }
    }

    pub(super) fn answer_asks(&mut self, out: &mut Outbox) {
        for ask in std::mem::take(&mut self.asks) {
            if self.has_use_for(&ask) && self.grants(&ask) {
                out.credits.push(SnapshotCredit { from: ask.to, to: ask.from, asks: false, ..ask });
            }
        }
    }

    /// Whether the snapshot would be taken if it came now.
    fn has_use_for(&self, ask: &SnapshotCredit) -> bool {
        let replica = self.replicas.get(&ask.region_id);
        replica.is_some_and(|replica| {
            replica.peer().id == ask.to.id
                && !replica.is_leaving()
                && replica.coming_range().is_none()
                && replica.term() <= ask.term
        })
    }

    fn grants(&mut self, ask: &SnapshotCredit) -> bool {
        let id = ask.region_id;
        let has_disk = !self.disk_full || id.is_system();
        has_disk && self.credits.ask(id, self.awake.ticks(), self.awake.installing())
    }
}
