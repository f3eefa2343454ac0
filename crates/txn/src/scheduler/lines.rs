//! Commands that wait in line for a pessimistic lock: how they get there and how they leave.
//!
//! ```text
//!   park ──► in line ─┬─ released, turn ─┬─ mode retry: Answer (a conflict: try again)
//!                     │                  └─ mode force: latches again ─► Granted ─► as if new
//!                     ├─ time is up ────── Answer (the lock that is there)
//!                     ├─ deadlock ──────── Answer (the cycle)
//!                     ├─ region lost ───── Lost
//!                     └─ cancel ────────── nobody is there to be answered
//! ```

use base::{Instant, RegionId, TimeStamp};
use bytes::Bytes;

use super::{Effect, LockCommand, Reply, Scheduler, Ticket};
use crate::actions::{LockOutcome, LockRefused, PessimisticLock, Released};
use crate::latches::{Acquired, CommandId};
use crate::mvcc::{Key, Lock};
use crate::waiting::{WaitFor, WaitMode, Waiter, Woken, WokenWhy};
use crate::{DeadlockFound, KeyError, LockInfo};

/// A command in line.
#[derive(Debug)]
pub(super) struct Parked {
    action: PessimisticLock,
    region: RegionId,
    /// What it waits at, and what the detector was told when that began.
    key: Key,
    edge: Option<WaitFor>,
    bytes: usize,
}

impl Scheduler {
    /// Puts a command into the line of the lock that it met, and takes its latches away. False if
    /// there is no room.
    pub(super) fn park(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        region: RegionId,
        (lock, deadline): (&LockCommand, Instant),
        info: &LockInfo,
    ) -> bool {
        let action = &lock.action;
        let mut keys = action.latch_keys();
        let key = keys.find(|key| key.user() == &info.key).expect("it met a lock on its key");
        let (start_ts, holder) = (action.start_ts, info.lock.start_ts);
        let tag = lock.resource_group_tag.clone();
        let mode = if action.allow_conflict { WaitMode::Force } else { WaitMode::Retry };
        let id = ticket.id;
        let waiter = Waiter { id, start_ts, mode, deadline, resource_group_tag: tag.clone() };
        if !self.waits.enqueue(now, key, holder, waiter) {
            return false;
        }
        self.awaited.insert(key.clone(), info.clone());
        let edge = WaitFor {
            txn: start_ts,
            holder,
            key: key.user().clone(),
            resource_group_tag: tag,
            waited_ms: 0,
        };
        let edge = (!lock.is_first_lock).then_some(edge);
        self.effects.extend(edge.clone().map(Effect::Detect));
        let (action, key, bytes) = (action.clone(), key.clone(), ticket.bytes);
        self.parked.insert(id, Parked { action, region, key, edge, bytes });
        self.leave(bytes);
        self.give_back(id);
        true
    }

    /// A lock is gone: the first in its line is woken.
    pub(super) fn released(&mut self, now: Instant, gone: &Released) {
        if self.waits.is_empty() {
            return;
        }
        let woken = self.waits.released(now, &gone.key, gone.start_ts, gone.commit_ts);
        if let Some(woken) = woken {
            self.woken(woken);
            self.forget_unless_awaited(&gone.key);
        }
    }

    /// Locks are held now: whoever is in their lines waits for the new holder.
    pub(super) fn acquired(
        &mut self,
        now: Instant,
        acquired: Option<(TimeStamp, Vec<(Key, Lock)>)>,
    ) {
        let Some((holder, locks)) = acquired.filter(|_| !self.waits.is_empty()) else { return };
        for (key, lock) in locks {
            let Some(known) = self.awaited.get_mut(&key) else { continue };
            let before = known.lock.start_ts;
            *known = LockInfo::new(&key, lock);
            self.waits.acquired(now, &key, holder);
            if before != holder {
                self.effects.push(Effect::HolderChanged(key, holder));
            }
        }
    }

    /// Time has passed: some waited long enough, and some lines are woken further because nobody
    /// took the lock.
    pub fn expire(&mut self, now: Instant) {
        // All of them have left their lines already.
        let mut keys = Vec::new();
        for woken in self.waits.expire(now) {
            if keys.last() != Some(&woken.key) {
                keys.push(woken.key.clone());
            }
            self.woken(woken);
        }
        keys.iter().for_each(|key| self.forget_unless_awaited(key));
    }

    /// When [`Self::expire`] has something to do.
    pub fn next_timer(&self) -> Option<Instant> {
        self.waits.next_timer()
    }

    fn woken(&mut self, woken: Woken) {
        let Woken { key, waiter, why } = woken;
        let id = waiter.id;
        let info = self.awaited.get(&key).cloned();
        let parked = self.unpark(id);
        match (why, waiter.mode) {
            (WokenWhy::TimedOut { unchanged_for_ms }, _) => {
                let mut info = info.expect("a lock that is waited for is known");
                info.unchanged_for_ms = unchanged_for_ms;
                let held = LockRefused::Held(Box::new(info));
                self.effects.push(Effect::Answer(id, refused(held)));
            }
            (WokenWhy::Released { holder, commit_ts }, WaitMode::Retry) => {
                let error = parked.action.woken(&key, holder, commit_ts);
                self.effects.push(answer_error(id, error));
            }
            (WokenWhy::Released { .. }, WaitMode::Force) => {
                self.commands += 1;
                self.bytes += parked.bytes;
                let names = parked.action.latch_keys().map(Key::region_slice);
                if self.latches.acquire(id, names) == Acquired::Granted {
                    self.effects.push(Effect::Granted(id));
                }
            }
        }
    }

    /// Forgets that a command is in line; it left its line already.
    fn unpark(&mut self, id: CommandId) -> Parked {
        let parked = self.parked.remove(&id).expect("who waits in line is parked");
        self.effects.extend(parked.edge.clone().map(Effect::WaitOver));
        parked
    }

    fn forget_unless_awaited(&mut self, key: &Key) {
        if !self.waits.is_awaited(key) {
            self.awaited.remove(key);
        }
    }

    /// Takes a command out of its line, for good. False if it is in none.
    fn take_out(&mut self, id: CommandId) -> bool {
        if self.waits.cancel(id).is_none() {
            return false;
        }
        let parked = self.unpark(id);
        self.forget_unless_awaited(&parked.key);
        true
    }

    /// The detector found that the wait of `txn` at `key` (user form) closes a cycle.
    pub fn deadlock(&mut self, txn: TimeStamp, key: &Bytes, found: &DeadlockFound) {
        let closes = |(id, parked): (&CommandId, &Parked)| {
            let edge = parked.edge.as_ref().filter(|edge| edge.txn == txn && edge.key == *key);
            edge.map(|_| *id)
        };
        let ids: Vec<CommandId> = self.parked.iter().filter_map(closes).collect();
        for id in ids {
            assert!(self.take_out(id), "who is parked waits in line");
            self.effects.push(answer_error(id, KeyError::Deadlock(found.clone())));
        }
    }

    /// The waits that the detector is told of: for one that knows none of them yet.
    pub fn edges(&self) -> Vec<WaitFor> {
        let edge = |parked: &Parked| {
            let holder = self.awaited.get(&parked.key)?.lock.start_ts;
            Some(WaitFor { holder, ..parked.edge.clone()? })
        };
        self.parked.values().filter_map(edge).collect()
    }

    /// Nobody waits for the answer of a command any more. Only one in line for a lock ends by that:
    /// true.
    pub fn cancel(&mut self, id: CommandId) -> bool {
        self.take_out(id)
    }

    /// The commands in line in a region that is led elsewhere are at their end.
    pub(super) fn drop_lines(&mut self, region: RegionId) {
        let of_region =
            |(id, parked): (&CommandId, &Parked)| (parked.region == region).then_some(*id);
        let ids: Vec<CommandId> = self.parked.iter().filter_map(of_region).collect();
        for id in ids {
            assert!(self.take_out(id), "who is parked waits in line");
            self.effects.push(Effect::Lost(id));
        }
    }
}

fn refused(refused: LockRefused) -> Reply {
    Reply::Lock(LockOutcome::Refused(refused))
}

fn answer_error(id: CommandId, error: KeyError) -> Effect {
    Effect::Answer(id, refused(LockRefused::Error(Box::new(error))))
}
