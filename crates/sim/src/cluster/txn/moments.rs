//! What meets transactions at the worst moment, in some of the rough runs.
//!
//! | moment | what meets it |
//! | --- | --- |
//! | somebody has looked | another one leads, and hears late what may have been read |
//! | a commit without a second phase is on its way | the logs of all others stand still |
//!
//! The latter is shown for long then, and reads at replicas come meanwhile.

use std::time::Duration;

use base::RegionId;

use crate::cluster::admin::AdminKind;
use crate::cluster::event::{Actor, Slot};
use crate::cluster::faults::Fault;
use crate::cluster::world::{World, ms};

/// Of so many commits that need no second phase one is shown for long.
const SHOWN: u64 = 6;

impl World {
    /// After how many looks one is followed by another leader; never if zero.
    fn restless(&self) -> u64 {
        self.plan.txn.filter(|_| !self.healing).map_or(0, |plan| plan.restless)
    }

    /// How late a new leader asks the placement driver what anybody may have read.
    pub(super) fn late_to_sync(&mut self) -> Duration {
        match self.restless() {
            0 => Duration::ZERO,
            _ => ms(self.prng.below(400)),
        }
    }

    /// Somebody looked at a region that is led here, and may rely on what he saw: often another one
    /// leads it from now on, who knows nothing of that.
    pub(super) fn looked_at(&mut self, slot: Slot, region: RegionId) {
        let restless = self.restless();
        let may = self.plan.options.admin.contains(&AdminKind::Transfer) && restless > 0;
        if !may || !self.prng.one_in(restless) {
            return;
        }
        let view = self.nodes[slot].views().and_then(|views| views.get(region));
        let Some(view) = view.filter(|view| view.is_leader()) else { return };
        let others = view.region.peers.iter().filter(|peer| peer.id != view.peer.id);
        let others: Vec<_> = others.map(|peer| peer.id).collect();
        if !others.is_empty() {
            let to = others[self.prng.below(others.len() as u64) as usize];
            self.transfer_to(slot, &view, to);
        }
    }

    /// Somebody shows locks from now on until they are applied: often that takes long.
    pub(super) fn shows_locks(&mut self, slot: Slot) {
        let anywhere = self.plan.txn.is_some_and(|plan| plan.anywhere > 0);
        let may = anywhere && !self.healing && self.plan.faults.contains(&Fault::Stall);
        if !may || !self.prng.one_in(SHOWN) {
            return;
        }
        let until = self.now() + ms(10 + self.prng.below(150));
        for other in (0..self.nodes.len()).filter(|other| *other != slot) {
            self.nodes[other].stalled = Some((Actor::Log, until));
        }
    }
}
