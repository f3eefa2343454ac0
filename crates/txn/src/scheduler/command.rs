//! A command as the scheduler sees it: which keys it latches, what it reads as of, how it runs.

use std::slice;

use base::{Instant, TimeStamp};
use bytes::Bytes;

use crate::TxnError;
use crate::actions::{
    Assertion, BatchRollback, CheckSecondaryLocks, CheckTxnStatus, Cleanup, Commit, DeleteRange,
    Flush, HeartBeat, LockOutcome, Op, Outcome, PessimisticLock, PessimisticRollback, Prewrite,
    PrewriteKey, PrewritePlan, PrewriteReply, ResolveLock, SecondaryStatus, StatusAction,
    TxnStatus,
};
use crate::mvcc::{Key, Reader};
use crate::{KeyError, actions};

/// A command that may write.
#[derive(Clone, Debug)]
pub enum Command {
    /// See [`Prewrite`].
    Prewrite(Prewrite),
    /// See [`PessimisticLock`].
    Lock(LockCommand),
    /// See [`PessimisticRollback`], with keys.
    Unlock(PessimisticRollback),
    /// See [`HeartBeat`].
    HeartBeat(HeartBeat),
    /// See [`CheckTxnStatus`].
    CheckTxnStatus(CheckTxnStatus),
    /// See [`CheckSecondaryLocks`].
    CheckSecondaryLocks(CheckSecondaryLocks),
    /// See [`Commit`].
    Commit(Commit),
    /// See [`BatchRollback`].
    Rollback(BatchRollback),
    /// See [`Cleanup`].
    Cleanup(Cleanup),
    /// See [`ResolveLock`]: the whole of a lite request, or one step of another.
    Resolve(ResolveLock),
    /// See [`Flush`].
    Flush(Flush),
    /// See [`DeleteRange`].
    DeleteRange(DeleteRange),
    /// One step of a command that goes through a region.
    Step(Step),
}

/// A step of a flashback.
#[derive(Clone, Debug)]
pub enum Step {
    /// Clears locks that [`actions::PrepareFlashback::find_locks`] found.
    ClearLocks(actions::PrepareFlashback, Vec<(Key, crate::mvcc::Lock)>),
    /// Locks the first key of the range.
    LockFirst(actions::PrepareFlashback),
    /// Rewrites keys that [`actions::Flashback::find_keys`] found.
    Rewrite(actions::Flashback, Vec<Key>),
    /// Commits the first key of the range.
    CommitFirst(actions::Flashback),
}

/// A request for pessimistic locks, and what becomes of it if somebody else has one.
#[derive(Clone, Debug)]
pub struct LockCommand {
    /// What it does.
    pub action: PessimisticLock,
    /// It waits no longer than until then. `None`: not at all.
    pub wait_until: Option<Instant>,
    /// Its transaction holds no lock yet: nobody can wait for it, so it closes no cycle.
    pub is_first_lock: bool,
    /// A label of the client, for diagnostics.
    pub resource_group_tag: Bytes,
}

/// What a command answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Of a prewrite.
    Prewrite(PrewriteReply),
    /// Of a request for pessimistic locks.
    Lock(LockOutcome),
    /// Of a command that has nothing to say.
    Done,
    /// Of a heart beat: the time to live.
    Ttl(u64),
    /// Of a question for a transaction's status.
    Status(TxnStatus, StatusAction),
    /// Of a question for secondary locks.
    Secondaries(SecondaryStatus),
    /// Of a commit or a cleanup; zero: rolled back.
    CommittedAt(TimeStamp),
    /// Of a step: where to go on, if it did not do all of its keys.
    Next(Option<Key>),
    /// Of a flush.
    Errors(Vec<KeyError>),
}

/// What a command came to when it ran.
#[derive(Debug)]
pub enum Ran {
    /// A prewrite that passed or was refused; its timestamp is chosen by [`Scheduler::ran`].
    ///
    /// [`Scheduler::ran`]: super::Scheduler::ran
    Plan(PrewritePlan),
    /// All others.
    Outcome(Outcome<Reply>),
}

impl Command {
    /// What it latches. Commands that nobody can disturb latch nothing.
    pub fn latch_keys(&self) -> Keys<'_> {
        match self {
            Self::Prewrite(prewrite) => Keys::Prewrite(prewrite.keys.iter()),
            Self::Lock(lock) => Keys::Lock(lock.action.keys.iter()),
            Self::Unlock(unlock) => Keys::Keys(unlock.keys.iter()),
            Self::HeartBeat(beat) => Keys::One(Some(&beat.primary)),
            Self::CheckTxnStatus(check) => Keys::One(Some(&check.primary)),
            Self::CheckSecondaryLocks(check) => Keys::Keys(check.keys.iter()),
            Self::Commit(commit) => Keys::Keys(commit.keys.iter()),
            Self::Rollback(rollback) => Keys::Keys(rollback.keys.iter()),
            Self::Cleanup(cleanup) => Keys::One(Some(&cleanup.key)),
            Self::Resolve(resolve) => Keys::Keys(resolve.keys.iter()),
            Self::Flush(flush) => Keys::Flush(flush.keys.iter()),
            Self::DeleteRange(_) => Keys::One(None),
            Self::Step(Step::ClearLocks(_, locks)) => Keys::Found(locks.iter()),
            Self::Step(Step::Rewrite(_, keys)) => Keys::Keys(keys.iter()),
            // The region is closed to others.
            Self::Step(Step::LockFirst(_) | Step::CommitFirst(_)) => Keys::One(None),
        }
    }

    /// What it reads as of.
    pub(super) fn reads_at(&self) -> Option<TimeStamp> {
        match self {
            Self::Prewrite(prewrite) => prewrite.reads_at(),
            Self::Lock(lock) => lock.action.reads_at(),
            Self::CheckTxnStatus(check) => check.reads_at(),
            Self::CheckSecondaryLocks(check) => check.reads_at(),
            Self::Flush(flush) => flush.reads_at(),
            _ => None,
        }
    }

    /// When it commits: a timestamp that the client has from placement.
    pub(super) fn commits_at(&self) -> Option<TimeStamp> {
        match self {
            Self::Commit(commit) => Some(commit.commit_ts),
            Self::Resolve(resolve) => resolve.outcomes.values().copied().max(),
            _ => None,
        }
    }

    /// When its transaction began, and one of its keys, if it takes locks: refused below the safe
    /// point, where it would find neither commits nor rollbacks of others, or of itself.
    pub fn locks_since(&self) -> Option<(TimeStamp, &Key)> {
        let start_ts = match self {
            Self::Prewrite(prewrite) => prewrite.start_ts,
            Self::Lock(lock) => lock.action.start_ts,
            Self::Flush(flush) => flush.start_ts,
            _ => return None,
        };
        Some((start_ts, self.latch_keys().next()?))
    }

    /// Whether it needs a region whose `max_ts` is synced.
    pub fn needs_synced_max_ts(&self) -> bool {
        matches!(self, Self::Prewrite(prewrite) if prewrite.needs_synced_max_ts())
    }

    /// Runs it on a snapshot that was taken after its latches were granted.
    pub fn run(&self, reader: &mut Reader<'_>) -> Result<Ran, TxnError> {
        Ok(Ran::Outcome(match self {
            Self::Prewrite(prewrite) => return prewrite.plan(reader).map(Ran::Plan),
            Self::Lock(lock) => map(lock.action.run(reader)?, Reply::Lock),
            Self::Unlock(unlock) => done(unlock.run(reader)?),
            Self::HeartBeat(beat) => map(beat.run(reader)?, Reply::Ttl),
            Self::CheckTxnStatus(check) => {
                map(check.run(reader)?, |(status, action)| Reply::Status(status, action))
            }
            Self::CheckSecondaryLocks(check) => map(check.run(reader)?, Reply::Secondaries),
            Self::Commit(commit) => map(commit.run(reader)?, Reply::CommittedAt),
            Self::Rollback(rollback) => done(rollback.run(reader)?),
            Self::Cleanup(cleanup) => map(cleanup.run(reader)?, Reply::CommittedAt),
            Self::Resolve(resolve) => map(resolve.run(reader)?, Reply::Next),
            Self::Flush(flush) => map(flush.run(reader)?, Reply::Errors),
            Self::DeleteRange(delete) => done(delete.run(reader)?),
            Self::Step(step) => step.run(reader)?,
        }))
    }

    /// Bytes that it keeps in memory while it is on its way, about.
    pub(super) fn byte_size(&self) -> usize {
        const FIXED: usize = 256;
        let keys: usize = self.latch_keys().map(|key| 2 * key.data().len()).sum();
        let values: usize = match self {
            Self::Prewrite(prewrite) => prewrite.keys.iter().map(|key| key.value.len()).sum(),
            Self::Flush(flush) => flush.keys.iter().map(|(_, _, value, _)| value.len()).sum(),
            _ => 0,
        };
        FIXED + keys + values
    }
}

impl Step {
    fn run(&self, reader: &mut Reader<'_>) -> Result<Outcome<Reply>, TxnError> {
        Ok(match self {
            Self::ClearLocks(prepare, locks) => map(prepare.roll_back(reader, locks)?, Reply::Next),
            Self::LockFirst(prepare) => map(prepare.lock_first(reader)?, Reply::Next),
            Self::Rewrite(flashback, keys) => map(flashback.rewrite(reader, keys)?, Reply::Next),
            Self::CommitFirst(flashback) => done(flashback.commit_first(reader)?),
        })
    }
}

fn map<R>(outcome: Outcome<R>, reply: impl FnOnce(R) -> Reply) -> Outcome<Reply> {
    Outcome { reply: reply(outcome.reply), changes: outcome.changes }
}

fn done(outcome: Outcome<()>) -> Outcome<Reply> {
    map(outcome, |()| Reply::Done)
}

/// The keys of a command.
#[derive(Clone, Debug)]
pub enum Keys<'a> {
    /// Of a prewrite.
    Prewrite(slice::Iter<'a, PrewriteKey>),
    /// Of a request for locks.
    Lock(slice::Iter<'a, (Key, bool)>),
    /// Of a flush.
    Flush(slice::Iter<'a, (Op, Key, Bytes, Assertion)>),
    /// Of a step on locks.
    Found(slice::Iter<'a, (Key, crate::mvcc::Lock)>),
    /// Of others.
    Keys(slice::Iter<'a, Key>),
    /// One or none.
    One(Option<&'a Key>),
}

impl<'a> Iterator for Keys<'a> {
    type Item = &'a Key;

    fn next(&mut self) -> Option<&'a Key> {
        match self {
            Self::Prewrite(keys) => keys.next().map(|key| &key.key),
            Self::Lock(keys) => keys.next().map(|(key, _)| key),
            Self::Flush(keys) => keys.next().map(|(_, key, ..)| key),
            Self::Found(keys) => keys.next().map(|(key, _)| key),
            Self::Keys(keys) => keys.next(),
            Self::One(key) => key.take(),
        }
    }
}
