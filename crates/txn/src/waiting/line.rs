//! The lines of transactions that wait for a lock.
//!
//! One line a key, oldest transaction (smallest start timestamp) first. When the lock is released
//! the first one is woken. In the normal mode it is not given the lock: it is told to try again,
//! and may never do so. So unless the key is locked again, the next one is woken after a short
//! delay, and so on: one at a time, never the whole line. In the mode "force lock" the woken
//! request is run again by the scheduler, which gives it the lock.
//!
//! ```text
//!   enqueue ──► [ 5 | 8 | 9 ]   released ──► 5 woken, 8 due in 20 ms
//!                                 acquired ──► nobody due: 8 and 9 wait for the new holder
//!                                 expire   ──► 8 woken, 9 due in 20 ms; or a waiter's time is up
//! ```
//!
//! The scheduler enqueues while it holds the key's latch, under which it saw the lock: so no
//! release can come between.
//!
//! Invariants:
//! 1. A waiter stands in one line, and leaves it by exactly one of: woken, timed out, cancelled.
//! 2. At most [`WAITERS_MAX`] wait; the next one is refused, and its client told of the lock at
//!    once.
//! 3. A hand-over costs the same however long the line is (a few ordered-map operations).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::{Instant, TimeStamp};
use bytes::Bytes;

use super::WaitFor;
use crate::mvcc::Key;

/// Most waiters of a store.
pub const WAITERS_MAX: usize = 1 << 18;

/// After a release that led to nothing, the next in line is woken after this time.
pub const WAKE_DELAY: Duration = Duration::from_millis(20);

/// A waiting request, numbered by whoever owns the lines.
pub type WaiterId = u64;

/// What a waiter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitMode {
    /// It is told to try again.
    Retry,
    /// It is given the lock.
    Force,
}

/// Who stands in line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Its number.
    pub id: WaiterId,
    /// Its transaction.
    pub start_ts: TimeStamp,
    /// What it is for.
    pub mode: WaitMode,
    /// When it gives up.
    pub deadline: Instant,
    /// A label of the client.
    pub resource_group_tag: Bytes,
}

/// Why a waiter left the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WokenWhy {
    /// The lock of `holder` was released; its transaction committed at `commit_ts`, or not (0).
    Released {
        /// Who held it.
        holder: TimeStamp,
        /// 0: rolled back.
        commit_ts: TimeStamp,
    },
    /// Its time is up: answer with the lock that is there.
    TimedOut {
        /// Milliseconds since the lock last changed hands, as far as the line knows.
        unchanged_for_ms: u64,
    },
}

/// A waiter that left the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Woken {
    /// The key it waited for.
    pub key: Key,
    /// Who. Its mode says what is done.
    pub waiter: Waiter,
    /// Why.
    pub why: WokenWhy,
}

#[derive(Debug)]
struct Line {
    queue: BTreeMap<(TimeStamp, WaiterId), Waiting>,
    holder: TimeStamp,
    /// When the lock last changed hands.
    changed: Instant,
    /// Of the last release.
    commit_ts: TimeStamp,
    /// When the next one is woken if nothing happens.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    waiter: Waiter,
    since: Instant,
}

/// The lines of a store.
#[derive(Debug, Default)]
pub struct LockWaits {
    lines: BTreeMap<Key, Line>,
    /// Where each waiter stands.
    places: BTreeMap<WaiterId, (Key, TimeStamp)>,
    deadlines: BTreeSet<(Instant, WaiterId)>,
    dues: BTreeSet<(Instant, Key)>,
}

impl LockWaits {
    /// Nobody waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// `waiter` waits for the lock of `holder` on `key`. False if there is no room.
    #[must_use = "a waiter without room must be answered"]
    pub fn enqueue(&mut self, now: Instant, key: &Key, holder: TimeStamp, waiter: Waiter) -> bool {
        assert!(waiter.start_ts != holder, "nobody waits for itself");
        if self.places.len() >= WAITERS_MAX {
            return false;
        }
        let line = self.lines.entry(key.clone()).or_insert_with(|| Line {
            queue: BTreeMap::new(),
            holder,
            changed: now,
            commit_ts: TimeStamp(0),
            due: None,
        });
        let (id, start_ts) = (waiter.id, waiter.start_ts);
        self.deadlines.insert((waiter.deadline, id));
        line.queue.insert((start_ts, id), Waiting { waiter, since: now });
        let before = self.places.insert(id, (key.clone(), start_ts));
        assert!(before.is_none(), "waiter {id} waits already");
        self.acquired(now, key, holder);
        true
    }

    /// The lock of `holder` on `key` is gone. Wakes the first in line.
    pub fn released(
        &mut self,
        now: Instant,
        key: &Key,
        holder: TimeStamp,
        commit_ts: TimeStamp,
    ) -> Option<Woken> {
        let line = self.lines.get_mut(key)?;
        line.holder = holder;
        line.commit_ts = commit_ts;
        line.changed = now;
        self.wake_first(now, key)
    }

    /// `holder` has the lock on `key` now: who waits, waits for it.
    pub fn acquired(&mut self, now: Instant, key: &Key, holder: TimeStamp) {
        let Some(line) = self.lines.get_mut(key) else { return };
        if line.holder != holder {
            line.holder = holder;
            line.changed = now;
        }
        if let Some(due) = line.due.take() {
            self.dues.remove(&(due, key.clone()));
        }
    }

    /// The waiter leaves without an answer from here: its client is gone, or told of a deadlock.
    pub fn cancel(&mut self, id: WaiterId) -> Option<Waiter> {
        let (key, start_ts) = self.places.get(&id)?.clone();
        Some(self.take_out(&key, start_ts, id))
    }

    /// Those whose time is up, and those whose turn has come because nothing happened.
    pub fn expire(&mut self, now: Instant) -> Vec<Woken> {
        let mut woken = Vec::new();
        while let Some((due, key)) = self.dues.first().filter(|(due, _)| *due <= now).cloned() {
            self.dues.remove(&(due, key.clone()));
            self.lines.get_mut(&key).expect("a line that is due has waiters").due = None;
            woken.extend(self.wake_first(now, &key));
        }
        while let Some((_, id)) = self.deadlines.first().filter(|(at, _)| *at <= now).copied() {
            let (key, start_ts) = self.places[&id].clone();
            let unchanged_for_ms = now.since(self.lines[&key].changed).as_millis() as u64;
            let waiter = self.take_out(&key, start_ts, id);
            woken.push(Woken { key, waiter, why: WokenWhy::TimedOut { unchanged_for_ms } });
        }
        woken
    }

    /// When [`Self::expire`] has something to do.
    pub fn next_timer(&self) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let due = self.dues.first().map(|(at, _)| *at);
        deadline.into_iter().chain(due).min()
    }

    /// Who waits for whom, for people and for the detector.
    pub fn waits(&self, now: Instant) -> Vec<WaitFor> {
        let mut all = Vec::with_capacity(self.places.len());
        for (key, line) in &self.lines {
            for waiting in line.queue.values() {
                all.push(WaitFor {
                    txn: waiting.waiter.start_ts,
                    holder: line.holder,
                    key: key.user().clone(),
                    resource_group_tag: waiting.waiter.resource_group_tag.clone(),
                    waited_ms: now.since(waiting.since).as_millis() as u64,
                });
            }
        }
        all
    }

    /// Whether somebody waits at `key`.
    pub fn is_awaited(&self, key: &Key) -> bool {
        self.lines.contains_key(key)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn wake_first(&mut self, now: Instant, key: &Key) -> Option<Woken> {
        let line = self.lines.get(key)?;
        let ((start_ts, id), _) = line.queue.first_key_value().expect("no line is empty");
        let (start_ts, id) = (*start_ts, *id);
        let why = WokenWhy::Released { holder: line.holder, commit_ts: line.commit_ts };
        let waiter = self.take_out(key, start_ts, id);
        if let Some(line) = self.lines.get_mut(key) {
            let due = now + WAKE_DELAY;
            if let Some(before) = line.due.replace(due) {
                self.dues.remove(&(before, key.clone()));
            }
            self.dues.insert((due, key.clone()));
        }
        Some(Woken { key: key.clone(), waiter, why })
    }

    fn take_out(&mut self, key: &Key, start_ts: TimeStamp, id: WaiterId) -> Waiter {
        let line = self.lines.get_mut(key).expect("a waiter stands in a line");
        let waiting = line.queue.remove(&(start_ts, id)).expect("it stands there once");
        if line.queue.is_empty() {
            let line = self.lines.remove(key).expect("it was there");
            if let Some(due) = line.due {
                self.dues.remove(&(due, key.clone()));
            }
        }
        self.places.remove(&id);
        let had_deadline = self.deadlines.remove(&(waiting.waiter.deadline, id));
        assert!(had_deadline, "waiter {id} had no deadline");
        waiting.waiter
    }
}
