//! Who waits for whom in the cluster: stores tell the one that leads the first region, and it tells
//! them of circles. Any of these messages may be lost: then a wait ends by its time.

use base::TimeStamp;
use bytes::Bytes;
use txn::DeadlockFound;
use txn::waiting::WaitFor;

use crate::cluster::event::{Event, Slot};
use crate::cluster::world::World;

/// What a store tells the detector.
#[derive(Clone, Debug)]
pub(crate) enum Detection {
    /// Does this wait close a circle?
    Detect(WaitFor),
    /// It is over.
    Over(WaitFor),
    /// Who waits at the key waits for this one now.
    Holder(Bytes, TimeStamp),
}

impl World {
    /// Where the detector is now, as a look at the placement driver would tell.
    fn detector(&self) -> Option<Slot> {
        let leads = |slot: &Slot| {
            let views = self.nodes[*slot].views()?;
            let view = views.get(views.region_of(b"")?)?;
            view.serves_reads.then_some(())
        };
        (0..self.nodes.len()).find(|slot| leads(slot).is_some())
    }

    pub(super) fn ask_detector(&mut self, slot: Slot, detection: Detection) {
        let Some(to) = self.detector() else { return };
        let life = self.nodes[slot].life;
        if let (Some(delay), _) = self.network.between(slot, to) {
            self.queue.after(delay, Event::Detect(to, slot, life, Box::new(detection)));
        }
    }

    /// The detector hears.
    pub(crate) fn detect(&mut self, slot: Slot, from: Slot, life: u64, detection: Detection) {
        let local = self.local(slot);
        let Some(core) = self.nodes[slot].core() else { return };
        let detector = &mut core.txn.detector;
        match detection {
            Detection::Over(wait) => detector.clean_up_wait(wait.txn, &wait.key),
            Detection::Holder(key, new) => detector.replace_holder(&key, new),
            Detection::Detect(wait) => {
                let Some(found) = detector.detect(local, &wait) else { return };
                if let (Some(delay), _) = self.network.between(slot, from) {
                    let told = Box::new((wait, found));
                    self.queue.after(delay, Event::Deadlock(from, life, told));
                }
            }
        }
    }

    /// A wait closes a circle.
    pub(crate) fn deadlock(&mut self, slot: Slot, wait: &WaitFor, found: &DeadlockFound) {
        let Some(core) = self.nodes[slot].core() else { return };
        self.totals.deadlocks += 1;
        core.txn.scheduler.deadlock(wait.txn, &wait.key, found);
        self.txn_effects(slot);
    }
}
