//! What the scheduler knows of the regions that are led here: pessimistic locks in memory, and
//! whether `max_ts` is synced.
//!
//! Both belong to a leader's term and a version of the region's keys, and are worth nothing under
//! another one: each command says under what it runs.
//!
//! ```text
//!   leads ──► locks open, a sync begins ──► hand_over ──► (writes applied) ──► handed_over
//!     ▲                 │                                                           │
//!     └── new keys: sync│again        leads: the step is over or came to nothing ◄──┘
//!                       ▼
//!                     lost
//! ```

use std::collections::BTreeMap;

use base::rule::{Rule, keep};
use base::{KeyRange, RegionId, Term, TimeStamp};

use super::{Scheduler, Under};
use crate::Mutation;
use crate::actions::Changes;
use crate::concurrency::{PessimisticLocks, SyncTicket};
use crate::mvcc::{Key, Lock};

/// A region that is led here.
#[derive(Debug)]
pub(super) struct Led {
    under: Under,
    locks: PessimisticLocks,
    handing: Handing,
    /// Records that were written before are not newer than this. `None`: nobody knows yet.
    floor: Option<TimeStamp>,
}

/// Whether the locks are being handed over to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handing {
    No,
    /// Their writes are under way, asked for with this ticket.
    UnderWay {
        ticket: u64,
        step: Step,
    },
    /// The fate of the writes is known, that of the step not.
    Done {
        applied: bool,
    },
}

/// What the locks were handed over for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Not over, or another one waits already.
    Waits,
    /// It came to nothing.
    Failed,
    /// The keys are others now.
    Taken,
}

impl Scheduler {
    /// A region is led here, under these circumstances: at the begin of a term, when its keys
    /// changed, and when a step before which was handed over is over. Pessimistic locks go to
    /// memory from now on. If `max_ts` is to be synced, because the term or the keys are new: ask
    /// placement for a timestamp, and hand it in with the ticket ([`Self::synced`]).
    pub fn leads(&mut self, under: Under) -> Option<SyncTicket> {
        if let Some(led) =
            self.led.get_mut(&under.region).filter(|led| led.under.term == under.term)
        {
            let is_news = led.under.version != under.version;
            led.lead_on(under, self.limits.region_locks_bytes);
            return is_news.then(|| self.concurrency.begin_sync(under.region));
        }
        let led = Led::new(under, self.limits.region_locks_bytes);
        self.led.insert(under.region, led);
        Some(self.concurrency.begin_sync(under.region))
    }

    /// Placement gave out `ts` after [`Self::leads`] was called.
    pub fn synced(&mut self, region: RegionId, ticket: SyncTicket, ts: TimeStamp) {
        let led = self.led.get_mut(&region);
        if self.concurrency.finish_sync(region, ticket, ts)
            && let Some(led) = led
        {
            let ahead_ms = ts.physical_ms().saturating_add(self.limits.ahead_ms);
            led.floor = Some(TimeStamp::compose(ahead_ms, 0).max(ts));
        }
    }

    /// Up to which timestamp there may be records that were not written under these circumstances.
    pub(super) fn floor(&self, under: Under) -> Option<TimeStamp> {
        let led = self.led.get(&under.region).filter(|led| led.under == under)?;
        if keep(Rule::RecordsBelowFloor) { led.floor } else { Some(TimeStamp(0)) }
    }

    /// Whether async commit and one-phase commit are allowed under these circumstances.
    pub fn is_synced(&self, under: Under) -> bool {
        let known = self.led.get(&under.region);
        known.is_some_and(|led| led.under == under) && self.concurrency.is_synced(under.region)
    }

    /// A region is led here no longer: what waits in line there is at its end, and the locks in
    /// memory are gone.
    pub fn lost(&mut self, region: RegionId) {
        self.led.remove(&region);
        self.concurrency.forget(region);
        self.drop_lines(region);
    }

    /// Leadership or the keys are about to move: the locks in memory as writes, to be proposed in
    /// the term *before* anything that runs after this call is. Then [`Self::handed_over`] with the
    /// same `ticket`, which no other call of the term has. `None`: there are none, or those of an
    /// earlier call are still under way, and so before whatever is proposed from now on.
    pub fn hand_over(
        &mut self,
        region: RegionId,
        term: Term,
        ticket: u64,
    ) -> Option<Vec<Mutation>> {
        let led = self.led.get_mut(&region).filter(|led| led.under.term == term)?;
        if let Handing::UnderWay { step: step @ Step::Failed, .. } = &mut led.handing {
            *step = Step::Waits;
        }
        let writes = led.locks.hand_over()?.writes;
        led.handing = match writes.is_empty() {
            true => Handing::Done { applied: true },
            false => Handing::UnderWay { ticket, step: Step::Waits },
        };
        (!writes.is_empty()).then_some(writes)
    }

    /// The fate of what [`Self::hand_over`] gave for the ticket is known. Nothing if it gave
    /// nothing.
    pub fn handed_over(&mut self, region: RegionId, term: Term, ticket: u64, applied: bool) {
        let bytes_max = self.limits.region_locks_bytes;
        let led = self.led.get_mut(&region).filter(|led| led.under.term == term);
        let Some(led) = led else { return };
        match led.handing {
            Handing::UnderWay { ticket: asked, step } if asked == ticket => match step {
                Step::Waits => led.handing = Handing::Done { applied },
                Step::Failed => led.resume(applied),
                Step::Taken => led.begin_anew(bytes_max),
            },
            _ => {}
        }
    }

    /// All pessimistic locks in memory, for a command that looks for locks.
    pub fn all_memory_locks(&self, under: Under) -> BTreeMap<Key, Lock> {
        self.locks_of(under).map(PessimisticLocks::all).unwrap_or_default()
    }

    pub(super) fn memory_locks<'a>(
        &self,
        under: Under,
        keys: impl Iterator<Item = &'a Key>,
    ) -> BTreeMap<Key, Lock> {
        match self.locks_of(under) {
            Some(locks) if !locks.is_empty() => locks.of_keys(keys),
            _ => BTreeMap::new(),
        }
    }

    fn locks_of(&self, under: Under) -> Option<&PessimisticLocks> {
        let led = self.led.get(&under.region).filter(|led| led.under == under);
        led.map(|led| &led.locks)
    }

    /// Puts the pessimistic locks of `changes` into memory, or makes them writes.
    pub(super) fn hold_in_memory(&mut self, under: Under, changes: &mut Changes) {
        if changes.pessimistic.is_empty() {
            return;
        }
        let led = self.led.get_mut(&under.region);
        let led = led.filter(|led| led.under == under && changes.writes.is_empty());
        let held = led.is_some_and(|led| {
            led.locks.insert(under.term, under.version, &changes.pessimistic).is_ok()
        });
        if held {
            changes.pessimistic.clear();
        } else {
            changes.persist();
        }
    }

    /// Writes that remove or replace the locks of `keys` are about to be proposed.
    pub(super) fn mark(&mut self, region: RegionId, keys: &[Key]) {
        if let Some(led) = self.led.get_mut(&region).filter(|led| !led.locks.is_empty()) {
            led.locks.mark(keys);
        }
    }

    pub(super) fn unmark(&mut self, region: RegionId, keys: &[Key]) {
        if let Some(led) = self.led.get_mut(&region).filter(|led| !led.locks.is_empty()) {
            led.locks.unmark(keys);
        }
    }

    /// The engine has what counts.
    pub(super) fn forget_in_memory(&mut self, region: RegionId, keys: &[Key]) {
        if let Some(led) = self.led.get_mut(&region).filter(|led| !led.locks.is_empty()) {
            led.locks.remove(keys);
        }
    }

    /// How many pessimistic locks are in memory.
    pub fn memory_lock_count(&self) -> usize {
        self.led.values().map(|led| led.locks.len()).sum()
    }

    /// A range of keys (region form) is destroyed: so are the locks in memory there.
    pub fn destroy_in_memory(&mut self, range: &KeyRange) {
        for led in self.led.values_mut() {
            let all = led.locks.all();
            let inside: Vec<&Key> =
                all.keys().filter(|key| range.contains(key.region_slice())).collect();
            led.locks.remove(inside);
        }
    }
}

impl Led {
    fn new(under: Under, bytes_max: usize) -> Self {
        let mut locks = PessimisticLocks::new(bytes_max);
        locks.open(under.term, under.version);
        Self { under, locks, handing: Handing::No, floor: None }
    }

    /// The region is led on in the same term, perhaps with other keys.
    fn lead_on(&mut self, under: Under, bytes_max: usize) {
        let moved = self.under.version != under.version;
        self.under = under;
        if moved {
            self.floor = None;
        }
        match self.handing {
            // Nobody asked for the locks: the region took over another one's keys.
            Handing::No if moved => self.locks.renew(under.version),
            Handing::No => {}
            // Should the writes be applied after all, they bring back locks that the memory has
            // forgotten: nothing but these, as nothing gets in before they are settled.
            Handing::UnderWay { ticket, step } => {
                let taken = moved || step == Step::Taken;
                let step = if taken { Step::Taken } else { Step::Failed };
                self.handing = Handing::UnderWay { ticket, step };
            }
            Handing::Done { .. } if moved => self.begin_anew(bytes_max),
            Handing::Done { applied } => self.resume(applied),
        }
    }

    fn resume(&mut self, applied: bool) {
        self.handing = Handing::No;
        self.locks.resume(self.under.version, applied);
    }

    /// Some keys are another region's now. Either the engine has their locks, or they are lost.
    fn begin_anew(&mut self, bytes_max: usize) {
        let floor = self.floor;
        *self = Self { floor, ..Self::new(self.under, bytes_max) };
    }
}
