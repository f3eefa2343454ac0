//! The scheduler: what happens to a command between its arrival and its answer.
//!
//! ```text
//!   submit ──► latches ──► start ──► (snapshot, Command::run) ──► ran ─┬─► Next::Answer
//!                 ▲          │                                         ├─► Next::Propose ► applied
//!                 │          └─► NotSynced                             │             or failed
//!                 │                                                    └─► Next::Wait
//!   force-lock    └────────── woken ◄── released, expire, deadlock ◄────────┘   │ else: Answer
//!                                                                               ▼
//!   whatever concerns other commands than the one at hand:  take_effects ──► Effect
//! ```
//!
//! It is a plain structure, one for each store: no clock, no thread, no lock. Its driver (crate
//! `server` behind a mutex, the simulator directly) takes snapshots, runs actions and proposes
//! writes *outside* of it, and tells it what came of that; each call here takes a few map
//! look-ups. The driver keeps the [`Command`] and its caller under the command's id while it waits;
//! what must not be lost is a value: [`Ticket`] while latches are held or waited for, [`Flight`]
//! while writes are under way.
//!
//! Reads go past all that: [`Scheduler::begin_read`], a snapshot, done.
//!
//! Order of the steps, and why:
//!
//! 1. Latches before anything is looked at: what an action read is still so when its writes are
//!    applied.
//! 2. Then the leader is found to lead, in a term ([`Under`]) in which alone the writes may be
//!    proposed. Pessimistic locks in memory belong to a term too; [`Scheduler::start`] gives copies
//!    of them *before* the snapshot is taken: a lock that is handed over to the engine in between
//!    is seen twice, never not at all.
//! 3. `max_ts` is raised at [`Scheduler::submit`], before the snapshot.
//! 4. [`Scheduler::ran`] chooses the timestamp of a commit without a second phase and shows its
//!    locks to readers, in one step.
//! 5. Latches go after the writes are applied, or will never be.
//!
//! Invariants:
//! 1. Every id that was submitted ends by exactly one of: `Next::Answer`, `applied`, `failed`,
//!    `abandon`, `cancel`, or an effect that answers it.
//! 2. A command that waits in line for a lock holds no latch.
//! 3. Memory: at most [`Limits::commands_max`] commands and [`Limits::bytes_max`] bytes of them; a
//!    bounded line ([`LockWaits`]); a bounded number of locks in memory.

mod command;
mod lines;
mod newest;
mod regions;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use base::{Instant, KeyRange, RegionId, Term, TimeStamp};
use thiserror::Error;

pub use command::{Command, Keys, LockCommand, Ran, Reply, Step};

use crate::actions::{Changes, LockOutcome, LockRefused, Outcome, Released};
use crate::concurrency::{Concurrency, ReadRefused, TsTooLarge};
use crate::latches::{Acquired, CommandId, Latches};
use crate::mvcc::{Key, Lock, ReadOptions};
use crate::waiting::{LockWaits, WaitFor};
use crate::{LockInfo, Mutation};
use lines::Parked;
use newest::Newest;
use regions::Led;

/// Bounds of a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Commands between `submit` and their end, those in line for a lock aside.
    pub commands_max: usize,
    /// Bytes of these commands.
    pub bytes_max: usize,
    /// Bytes of pessimistic locks in memory, in one region. Zero: all go through the log.
    pub region_locks_bytes: usize,
    /// Timestamps of clients are believed here, and on the stores that led a region before, up to
    /// so many milliseconds above what placement has given out.
    pub ahead_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            commands_max: 64 << 10,
            bytes_max: 100 << 20,
            region_locks_bytes: 512 << 10,
            ahead_ms: 10_000,
        }
    }
}

/// Under which leadership, and over which keys, a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Under {
    /// The region.
    pub region: RegionId,
    /// The leader's term: what is proposed must not be applied in another one.
    pub term: Term,
    /// Version of the region's epoch.
    pub version: u64,
}

/// What a command that begins is to know beside its snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Started {
    /// Copies of the pessimistic locks in memory on its keys.
    pub memory: BTreeMap<Key, Lock>,
    /// None of its keys has a record at or above its start timestamp.
    pub is_unwritten: bool,
}

/// A command that holds its latches or waits for them.
#[derive(Debug)]
#[must_use = "latches are held until the scheduler gets it back"]
pub struct Ticket {
    id: CommandId,
    bytes: usize,
}

impl Ticket {
    /// Names the command to the effects.
    pub fn id(&self) -> CommandId {
        self.id
    }
}

/// A command that was taken.
#[derive(Debug)]
pub struct Submitted {
    /// To be handed back.
    pub ticket: Ticket,
    /// Whether it holds its latches: go on with [`Scheduler::start`]. If not, an
    /// [`Effect::Granted`] will say so.
    pub granted: bool,
}

/// Why a command was not taken.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SubmitRefused {
    /// Too many commands are under way: try later.
    #[error("scheduler is busy")]
    Busy,
    /// It reads at a timestamp that nobody can have.
    #[error(transparent)]
    Ts(#[from] TsTooLarge),
}

/// The command needs a synced `max_ts`, and the region has none: see [`Scheduler::leads`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("max timestamp is not synced")]
pub struct NotSynced;

/// What a command that ran does next.
#[derive(Debug)]
pub enum Next {
    /// It is at its end: answer.
    Answer(Reply),
    /// Propose these writes under the term it ran in. When they are applied, answer.
    Propose(Vec<Mutation>, Reply, Flight),
    /// It waits in line for a lock, and holds no latches. An effect says how that ends.
    Wait(Ticket),
}

/// Writes under way: to be handed back when their fate is known.
#[derive(Debug)]
#[must_use = "latches are held until the scheduler gets it back"]
pub struct Flight {
    ticket: Ticket,
    region: RegionId,
    released: Vec<Released>,
    published: Vec<Key>,
    lock_keys: Vec<Key>,
    /// Pessimistic locks that became writes.
    acquired: Option<(TimeStamp, Vec<(Key, Lock)>)>,
}

/// What concerns other commands than the one at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// This command holds its latches now: start it, on a new snapshot.
    Granted(CommandId),
    /// This command, which waited in line, is at its end.
    Answer(CommandId, Reply),
    /// This command, which waited in line, is at its end: its region is led elsewhere.
    Lost(CommandId),
    /// Ask the detector whether this wait closes a cycle; if so, [`Scheduler::deadlock`].
    Detect(WaitFor),
    /// Tell the detector that this wait is over.
    WaitOver(WaitFor),
    /// Tell the detector that who waits at the key waits for this transaction now.
    HolderChanged(Key, TimeStamp),
}

/// See the page of this module.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    latches: Latches,
    concurrency: Concurrency,
    waits: LockWaits,
    parked: BTreeMap<CommandId, Parked>,
    /// What is known of locks that somebody waits for.
    awaited: BTreeMap<Key, LockInfo>,
    led: BTreeMap<RegionId, Led>,
    newest: Newest,
    last_id: CommandId,
    commands: usize,
    bytes: usize,
    effects: Vec<Effect>,
}

impl Scheduler {
    /// Nothing is under way.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            latches: Latches::new(),
            concurrency: Concurrency::new(),
            waits: LockWaits::new(),
            parked: BTreeMap::new(),
            awaited: BTreeMap::new(),
            led: BTreeMap::new(),
            newest: Newest::new(),
            last_id: 0,
            commands: 0,
            bytes: 0,
            effects: Vec::new(),
        }
    }

    /// What is to be done beside the command at hand. To be taken after every call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The part of a read of `keys` that comes before its snapshot. Not for stale reads.
    pub fn begin_read<'a>(
        &mut self,
        keys: impl IntoIterator<Item = &'a Key>,
        read: &ReadOptions,
    ) -> Result<(), ReadRefused> {
        self.concurrency.begin_read(keys, read)
    }

    /// The same for a range in region form.
    pub fn begin_read_range(
        &mut self,
        range: &KeyRange,
        read: &ReadOptions,
    ) -> Result<(), ReadRefused> {
        self.concurrency.begin_read_range(range, read)
    }

    /// What was read when, and the locks that are shown to readers.
    pub fn concurrency(&self) -> &Concurrency {
        &self.concurrency
    }

    /// A timestamp up to which nobody will commit without a second phase any more, at most `ts`:
    /// reads as of then are made known, and what is shown to readers at the moment stays above.
    /// Locks in the engine are not looked at here.
    pub fn close_up_to(&mut self, ts: TimeStamp) -> Result<TimeStamp, TsTooLarge> {
        self.concurrency.raise_max_ts(ts)?;
        let shown = self.concurrency.locks().map(|(_, lock)| TimeStamp(lock.min_commit_ts.0 - 1));
        Ok(shown.fold(ts, TimeStamp::min))
    }

    /// Timestamps above are refused from now on.
    pub fn set_ts_limit(&mut self, limit: TimeStamp) {
        self.concurrency.set_limit(limit);
    }

    /// Takes a command: it asks for its latches.
    pub fn submit(&mut self, command: &Command) -> Result<Submitted, SubmitRefused> {
        let bytes = command.byte_size();
        if self.commands >= self.limits.commands_max || self.bytes + bytes > self.limits.bytes_max {
            return Err(SubmitRefused::Busy);
        }
        if let Some(ts) = command.reads_at() {
            self.concurrency.raise_max_ts(ts)?;
        }
        if let Some(ts) = command.commits_at() {
            self.concurrency.believe(ts)?;
        }
        self.last_id += 1;
        let id = self.last_id;
        let names = command.latch_keys().map(Key::region_slice);
        let granted = self.latches.acquire(id, names) == Acquired::Granted;
        self.commands += 1;
        self.bytes += bytes;
        Ok(Submitted { ticket: Ticket { id, bytes }, granted })
    }

    /// A command that holds its latches begins under a leadership. To be asked for after the
    /// leadership was looked up and before the snapshot is taken; the leadership is looked at again
    /// after that.
    pub fn start(&mut self, under: Under, command: &Command) -> Result<Started, NotSynced> {
        if command.needs_synced_max_ts() && !self.is_synced(under) {
            return Err(NotSynced);
        }
        let memory = self.memory_locks(under, command.latch_keys());
        Ok(Started { memory, is_unwritten: self.is_unwritten(under, command) })
    }

    /// Whether no key of a prewrite can have a record that it would have to look at.
    fn is_unwritten(&self, under: Under, command: &Command) -> bool {
        let Command::Prewrite(prewrite) = command else { return false };
        let is_above = |ts| prewrite.start_ts > ts;
        self.floor(under).is_some_and(is_above)
            && command.latch_keys().all(|key| is_above(self.newest.bound(key.region_slice())))
    }

    /// A command ran, under the leadership that was checked after its snapshot was taken.
    pub fn ran(
        &mut self,
        now: Instant,
        ticket: Ticket,
        under: Under,
        command: &Command,
        ran: Ran,
    ) -> Next {
        let Outcome { reply, mut changes } = match ran {
            Ran::Outcome(outcome) => outcome,
            Ran::Plan(plan) => {
                let Outcome { reply, changes } = plan.publish(&mut self.concurrency);
                Outcome { reply: Reply::Prewrite(reply), changes }
            }
        };
        if let Reply::Lock(LockOutcome::Refused(LockRefused::Held(info))) = &reply
            && let Command::Lock(lock) = command
            && let Some(until) = lock.wait_until.filter(|until| *until > now)
        {
            return match self.park(now, &ticket, under.region, (lock, until), info) {
                true => Next::Wait(ticket),
                false => self.answer(ticket, reply),
            };
        }
        let acquired = match (command, changes.pessimistic.is_empty()) {
            (Command::Lock(lock), false) => {
                let locks = changes.pessimistic.clone();
                Some((lock.action.start_ts, locks))
            }
            _ => None,
        };
        self.hold_in_memory(under, &mut changes);
        if changes.is_empty() {
            assert!(changes.published.is_empty(), "locks are shown for writes only");
            self.acquired(now, acquired);
            return self.answer(ticket, reply);
        }
        let Changes { writes, released, published, lock_keys, .. } = changes;
        self.mark(under.region, &lock_keys);
        self.newest.note(&writes);
        let region = under.region;
        Next::Propose(
            writes,
            reply,
            Flight { ticket, region, released, published, lock_keys, acquired },
        )
    }

    fn answer(&mut self, ticket: Ticket, reply: Reply) -> Next {
        self.abandon(ticket);
        Next::Answer(reply)
    }

    /// The writes are applied.
    pub fn applied(&mut self, now: Instant, flight: Flight) {
        let Flight { ticket, region, released, published, lock_keys, acquired } = flight;
        self.concurrency.withdraw(&published);
        self.forget_in_memory(region, &lock_keys);
        for gone in &released {
            self.released(now, gone);
        }
        self.acquired(now, acquired);
        self.abandon(ticket);
    }

    /// The writes will never be applied, or leadership is lost with them.
    pub fn failed(&mut self, flight: Flight) {
        let Flight { ticket, region, published, lock_keys, .. } = flight;
        self.concurrency.withdraw(&published);
        self.unmark(region, &lock_keys);
        self.abandon(ticket);
    }

    /// A command is at its end without having written: whether it holds its latches or still waits
    /// for them. Not for one in line for a lock.
    pub fn abandon(&mut self, ticket: Ticket) {
        self.leave(ticket.bytes);
        self.give_back(ticket.id);
    }

    fn leave(&mut self, bytes: usize) {
        self.commands -= 1;
        self.bytes -= bytes;
    }

    fn give_back(&mut self, id: CommandId) {
        let granted = self.latches.release(id);
        self.effects.extend(granted.into_iter().map(Effect::Granted));
    }

    /// How many commands are under way, those in line for a lock aside.
    pub fn commands(&self) -> usize {
        self.commands
    }

    /// Who waits for whom.
    pub fn waits(&self, now: Instant) -> Vec<WaitFor> {
        self.waits.waits(now)
    }

    /// How many wait in line for a lock.
    pub fn waiting(&self) -> usize {
        self.waits.len()
    }
}
