//! What a scheduler keeps for the regions that are led here: what was read when, and pessimistic
//! locks in memory, which are proposed before the leadership or the keys move.

use std::time::Duration;

use base::{RegionId, Term};
use store::{LeaderEvent, Proposal, RequestHeader, ShardInput};
use txn::scheduler::Under;

use super::host::writes_of;
use crate::cluster::event::{Event, Purpose, Reply, Request, Slot, Timer};
use crate::cluster::process::reply_to;
use crate::cluster::world::{Wait, World};

/// Between two questions for a timestamp.
const AGAIN: Duration = Duration::from_millis(100);

impl World {
    /// Something happens to a leadership.
    pub(crate) fn leading(&mut self, slot: Slot, event: LeaderEvent) {
        let (now, region) = (self.now(), Some(event.region_id()));
        self.trace.line(now, Some(slot), region, "leading", || format!("{event:?}"));
        match event {
            LeaderEvent::Leads { region, term } => {
                let under = Under { region: region.id, term, version: region.epoch.version };
                self.leads(slot, under);
            }
            LeaderEvent::HandOver { region_id, term, ticket } => {
                self.propose_locks(slot, region_id, (term, ticket));
            }
            LeaderEvent::Lost { region_id, .. } => {
                let Some(core) = self.nodes[slot].core() else { return };
                core.txn.syncs.remove(&region_id);
                core.txn.scheduler.lost(region_id);
            }
        }
        self.txn_effects(slot);
    }

    /// A region is led here: what was read under earlier leaders is to be known, and locks may be
    /// kept in memory.
    fn leads(&mut self, slot: Slot, under: Under) {
        let Some(core) = self.nodes[slot].core() else { return };
        if let Some(ticket) = core.txn.scheduler.leads(under) {
            core.txn.syncs.insert(under.region, ticket);
            let late = self.late_to_sync();
            if late.is_zero() {
                return self.ask_max_ts(slot, under.region);
            }
            let (life, timer) = (self.nodes[slot].life, Timer::MaxTs(under.region));
            self.queue.after(late, Event::Timer(slot, life, timer));
        }
    }

    /// Locks in memory are proposed; then the step that waits for that may be taken.
    fn propose_locks(&mut self, slot: Slot, region: RegionId, (term, ticket): (Term, u64)) {
        let Some(core) = self.nodes[slot].core() else { return };
        let view = core.views.get(region);
        let writes = core.txn.scheduler.hand_over(region, term, ticket);
        let (Some(writes), Some(view)) = (writes, view) else {
            return self.handed_over(slot, region, (term, ticket), false);
        };
        self.totals.locks_handed_over += writes.len() as u64;
        let header = RequestHeader::new(region, view.peer, view.region.epoch);
        let number = self.wait(slot, Wait::HandOver(region, term, ticket));
        let reply = reply_to(&self.results, number);
        let (writes, only_in_term) = (writes_of(&writes), Some(term));
        self.tell(slot, ShardInput::Propose(Proposal { header, writes, only_in_term, reply }));
    }

    /// Whether they are in the engine now or never will be.
    pub(crate) fn handed_over(
        &mut self,
        slot: Slot,
        region_id: RegionId,
        (term, ticket): (Term, u64),
        applied: bool,
    ) {
        let now = self.now();
        self.trace.line(now, Some(slot), Some(region_id), "leading", || {
            format!("handed over in {term}, ticket {ticket}: {applied}")
        });
        if let Some(core) = self.nodes[slot].core() {
            core.txn.scheduler.handed_over(region_id, term, ticket, applied);
        }
        self.tell(slot, ShardInput::HandedOver { region_id, term, ticket });
    }

    /// Asks the placement driver for a timestamp that is above all reads under earlier leaders.
    pub(crate) fn ask_max_ts(&mut self, slot: Slot, region: RegionId) {
        self.ask_placement(slot, Request::Timestamps(1), Purpose::MaxTs(region));
    }

    pub(crate) fn max_ts_reply(&mut self, slot: Slot, region: RegionId, reply: Option<Reply>) {
        let life = self.nodes[slot].life;
        let Some(core) = self.nodes[slot].core() else { return };
        let Some(ticket) = core.txn.syncs.get(&region).copied() else { return };
        match reply {
            Some(Reply::Timestamp(ts)) => {
                core.txn.syncs.remove(&region);
                core.txn.scheduler.synced(region, ticket, ts);
            }
            _ => self.queue.after(AGAIN, Event::Timer(slot, life, Timer::MaxTs(region))),
        }
    }
}
