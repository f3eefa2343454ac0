//! The concurrency manager: what a store must remember about reads, so that transactions which
//! choose their own commit timestamp choose one above every read that did not see them.
//!
//! An async commit and a one-phase commit do not ask placement for a commit timestamp: the store
//! computes one above `max_ts`, the largest timestamp that anybody has read at. Between that
//! computation and the moment its write is applied, the transaction shows its locks here.
//!
//! ```text
//!   read at T                                  async prewrite, one-phase commit (keys latched)
//!   1. max_ts := max(max_ts, T)                1. check the snapshot, plan the locks
//!   2. a lock here with min_commit_ts <= T?    2. in one step: min_commit_ts := max_ts + 1 (or a
//!      then "locked"                              higher bound), locks are shown here
//!   3. take the snapshot, read                 3. propose; applied; locks are taken away
//! ```
//!
//! If the read's step 1 comes before the writer's step 2, the commit is above T and the read need
//! not see it. If it comes after, the read's step 2 meets the lock, or the lock is gone because
//! the write is applied, and then the snapshot of step 3 has it.
//!
//! Sharing. This is a plain structure. A store has one, for all its regions, behind a mutex (or
//! owned by one actor): steps 1 and 2 of a read are one call, and so is step 2 of a writer; each
//! holds the mutex for a map look-up and no longer. What must not happen is a read that takes its
//! snapshot before its call here.
//!
//! `max_ts` is lost with the process and unknown to a new leader. Until a region has it synced (a
//! timestamp from placement, asked for after the leader's term began, is above all reads under
//! former leaders), neither kind of commit is allowed there: [`Concurrency::is_synced`].
//!
//! Invariants:
//! 1. `max_ts` never falls, and never rises above the limit that was set: one client with a made-up
//!    timestamp must not push the commits of all others into the future.
//! 2. A lock that is shown has a `min_commit_ts` above `max_ts` at the moment it appeared.
//! 3. A key has at most one lock here; its writer holds the key's latch.

mod pessimistic;

use std::collections::BTreeMap;

use base::rule::{Rule, keep};
use base::{KeyRange, RegionId, TimeStamp};
use thiserror::Error;

pub use pessimistic::{HandOver, PessimisticLocks, Refused};

use crate::mvcc::{Isolation, Key, Lock, ReadOptions};
use crate::{KeyError, TxnError};

/// A timestamp that no placement driver can have handed out yet.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("invalid max_ts update: {ts} is above the limit {limit}")]
pub struct TsTooLarge {
    /// As asked for.
    pub ts: TimeStamp,
    /// The largest that is believed.
    pub limit: TimeStamp,
}

/// Why a read must not go on.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ReadRefused {
    /// A region error with this message.
    #[error(transparent)]
    Ts(#[from] TsTooLarge),
    /// A lock that is only in memory is in the way.
    #[error(transparent)]
    Key(#[from] Box<KeyError>),
}

/// Names one attempt to sync `max_ts` for a leader's term and a region's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncTicket(u64);

#[derive(Clone, Copy, Debug)]
struct Sync {
    ticket: u64,
    done: bool,
}

/// See the page of this module.
#[derive(Debug, Default)]
pub struct Concurrency {
    max_ts: TimeStamp,
    /// `None`: every timestamp is believed.
    limit: Option<TimeStamp>,
    /// Locks whose writes are on their way.
    locks: BTreeMap<Key, Lock>,
    /// Regions led here whose `max_ts` is synced, or is being synced.
    syncs: BTreeMap<RegionId, Sync>,
    last_ticket: u64,
}

impl Concurrency {
    /// Knows of no read.
    pub fn new() -> Self {
        Self::default()
    }

    /// The largest timestamp of a read so far.
    pub fn max_ts(&self) -> TimeStamp {
        self.max_ts
    }

    /// Timestamps above `limit` are refused from now on: the newest one known from placement plus
    /// what clocks may drift until the next call.
    pub fn set_limit(&mut self, limit: TimeStamp) {
        self.limit = Some(limit);
    }

    /// Somebody reads at `ts`. [`TimeStamp::MAX`] means "the newest" and raises nothing.
    pub fn raise_max_ts(&mut self, ts: TimeStamp) -> Result<(), TsTooLarge> {
        if ts == TimeStamp::MAX {
            return Ok(());
        }
        self.believe(ts)?;
        self.max_ts = self.max_ts.max(ts);
        Ok(())
    }

    /// Refuses what placement cannot have given out.
    pub fn believe(&self, ts: TimeStamp) -> Result<(), TsTooLarge> {
        match self.limit.filter(|limit| ts > *limit) {
            Some(limit) => Err(TsTooLarge { ts, limit }),
            None => Ok(()),
        }
    }

    /// The part of a read of `keys` that comes before its snapshot. Not for stale reads.
    pub fn begin_read<'a>(
        &mut self,
        keys: impl IntoIterator<Item = &'a Key>,
        read: &ReadOptions,
    ) -> Result<(), ReadRefused> {
        if keep(Rule::ReadsRaiseMaxTs) {
            self.raise_max_ts(read.ts)?;
        }
        for key in keys {
            if let Some(lock) = self.locks.get(key) {
                meet(key, lock, read)?;
            }
        }
        Ok(())
    }

    /// The same for a range in region form, and for the ranges of a read index request.
    pub fn begin_read_range(
        &mut self,
        range: &KeyRange,
        read: &ReadOptions,
    ) -> Result<(), ReadRefused> {
        if keep(Rule::ReadsRaiseMaxTs) {
            self.raise_max_ts(read.ts)?;
        }
        let mut inside = self.locks.iter().filter(|(key, _)| range.contains(key.region_slice()));
        inside.try_for_each(|(key, lock)| meet(key, lock, read))
    }

    /// Chooses a commit timestamp's lower bound that is at least `floor` and above every read, and
    /// shows `locks` with it. `None`, and nothing is shown, if it would be above `max_commit_ts`
    /// (0: no bound).
    pub(crate) fn publish<'a>(
        &mut self,
        locks: impl Iterator<Item = (&'a Key, &'a Lock)>,
        floor: TimeStamp,
        max_commit_ts: TimeStamp,
    ) -> Option<TimeStamp> {
        let next = self.max_ts.0.checked_add(1).expect("max_ts is never the last timestamp");
        let min_commit_ts = match keep(Rule::ComputedAboveReads) {
            true => floor.max(TimeStamp(next)),
            false => floor,
        };
        if max_commit_ts.0 != 0 && min_commit_ts > max_commit_ts {
            return None;
        }
        for (key, lock) in locks {
            if !keep(Rule::ShowLocks) {
                break;
            }
            let shown = Lock { min_commit_ts, ..lock.clone() };
            let before = self.locks.insert(key.clone(), shown);
            assert!(before.is_none(), "{key:?} has a lock here already: its latch was not held");
        }
        let is_above = min_commit_ts > self.max_ts || !keep(Rule::ComputedAboveReads);
        assert!(is_above, "a commit must be above every read");
        Some(min_commit_ts)
    }

    /// The writes of these locks are applied, or it is certain that they never will be by this
    /// leader: readers find out from the snapshot again.
    pub fn withdraw<'a>(&mut self, keys: impl IntoIterator<Item = &'a Key>) {
        for key in keys {
            let lock = self.locks.remove(key);
            assert!(lock.is_some() || !keep(Rule::ShowLocks), "{key:?} was not shown");
        }
    }

    /// The locks that are shown, in key order.
    pub fn locks(&self) -> impl Iterator<Item = (&Key, &Lock)> {
        self.locks.iter()
    }

    /// A leader's term begins, or a merge gave the region keys that were read under another leader:
    /// `max_ts` is to be synced. Whoever asks placement hands the ticket back.
    pub fn begin_sync(&mut self, region: RegionId) -> SyncTicket {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        self.syncs.insert(region, Sync { ticket, done: false });
        SyncTicket(ticket)
    }

    /// Placement answered with `ts`. False if a later attempt has begun: this answer may be too old
    /// for it.
    pub fn finish_sync(&mut self, region: RegionId, ticket: SyncTicket, ts: TimeStamp) -> bool {
        let Some(sync) = self.syncs.get_mut(&region).filter(|sync| sync.ticket == ticket.0) else {
            return false;
        };
        sync.done = true;
        // From placement itself: no limit applies.
        self.max_ts = self.max_ts.max(ts);
        self.limit = self.limit.map(|limit| limit.max(ts));
        true
    }

    /// The region is led elsewhere, or gone.
    pub fn forget(&mut self, region: RegionId) {
        self.syncs.remove(&region);
    }

    /// Whether async commit and one-phase commit are allowed in the region.
    pub fn is_synced(&self, region: RegionId) -> bool {
        self.syncs.get(&region).is_some_and(|sync| sync.done) || !keep(Rule::SyncMaxTs)
    }
}

fn meet(key: &Key, lock: &Lock, read: &ReadOptions) -> Result<(), ReadRefused> {
    let is_blind = read.is_replica_read && !keep(Rule::ReplicasMeetShownLocks);
    if read.isolation == Isolation::ReadCommitted || is_blind {
        return Ok(());
    }
    match read.judge(key, lock.clone(), true) {
        Ok(None) => Ok(()),
        // Its value may not be in the snapshot that is taken next: wait until it is.
        Ok(Some(lock)) => Err(Box::new(KeyError::locked(key, lock)).into()),
        Err(error) => Err(error.into()),
    }
}

impl ReadRefused {
    /// For reads whose answer has a place for errors about keys only.
    pub fn into_key_error(self) -> Result<TxnError, TsTooLarge> {
        match self {
            Self::Ts(error) => Err(error),
            Self::Key(error) => Ok(TxnError::Key(error)),
        }
    }
}

#[cfg(test)]
mod tests;
