//! What to do about a lock in the way: find out what became of its transaction, and clear the lock
//! away if that is decided.
//!
//! ```text
//!   a lock ─► known to be decided? ─────────────────────────────────────────┐
//!        └──► ask its primary (CheckTxnStatus)                              ▼
//!               ├─ committed, rolled back, or its time is over ───► resolve the key
//!               ├─ alive, now above the reader ───────────────────► the read may pass it by
//!               ├─ alive ─────────────────────────────────────────► wait, ask again
//!               └─ an async commit whose time is over ─► ask all its keys (CheckSecondaryLocks):
//!                    all locked ─► committed at the largest min_commit_ts; else as found
//! ```
//!
//! Time is that of the placement driver: a lock is out of date when its own start and its time to
//! live lie before a fresh timestamp. The client's clock only decides how long to wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::TimeStamp;
use bytes::Bytes;
use proto::kvrpcpb::{self, LockInfo, Op};

use crate::calls::{StoreReply, StoreRequest};
use crate::core::{Core, other_kind};
use crate::error::ClientError;
use crate::key_error;
use crate::keys::Keys;
use crate::link::Link;

/// Transactions whose end is remembered.
const DECIDED_MAX: usize = 2048;

/// A transaction of so many keys in a region is cleared out of the region at once.
const MANY_KEYS: u64 = 16;

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Committed(TimeStamp),
    RolledBack,
    /// It lives, and will not commit at or below the reader's timestamp.
    Pushed,
    Alive,
}

impl Fate {
    /// As a request to resolve has it: 0 is rolled back.
    fn commit_version(self) -> Option<u64> {
        match self {
            Fate::Committed(at) => Some(at.0),
            Fate::RolledBack => Some(0),
            Fate::Pushed | Fate::Alive => None,
        }
    }
}

/// Transactions whose end is known, the oldest of which are forgotten.
#[derive(Default)]
pub(crate) struct Decided {
    fates: BTreeMap<u64, Fate>,
    order: VecDeque<u64>,
}

impl Decided {
    fn get(&self, start_ts: u64) -> Option<Fate> {
        self.fates.get(&start_ts).copied()
    }

    fn remember(&mut self, start_ts: u64, fate: Fate) {
        if self.fates.insert(start_ts, fate).is_some() {
            return;
        }
        self.order.push_back(start_ts);
        if self.order.len() > DECIDED_MAX {
            let oldest = self.order.pop_front().expect("there are more than none");
            self.fates.remove(&oldest);
        }
    }
}

/// What came of all locks that were met.
#[derive(Debug, Default)]
pub(crate) struct Met {
    /// Starts of transactions that a read may pass by.
    pub(crate) pushed: Vec<u64>,
    /// One that lives and is in the way.
    pub(crate) alive: Option<LockInfo>,
}

/// Who met the locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A read at this timestamp, which locks may be pushed above.
    At(TimeStamp),
    /// A write: nothing is gained by pushing.
    None,
}

/// How to ask a primary.
#[derive(Clone, Copy)]
struct Question {
    caller_start_ts: TimeStamp,
    current_ts: TimeStamp,
    force_sync_commit: bool,
}

/// A primary's answer.
enum Status {
    Decided(Fate),
    Locked(Box<LockInfo>, Fate),
    /// Neither a lock nor a record: the primary may still come.
    Nothing,
}

impl<L: Link> Core<L> {
    /// Finds out about every lock, and clears away those whose transaction is decided.
    pub(crate) async fn meet(
        &self,
        keys: Keys,
        locks: Vec<LockInfo>,
        reader: Reader,
    ) -> Result<Met, ClientError> {
        let mut met = Met::default();
        // Region and transaction of those that were cleared out of a region at once.
        let mut cleared = BTreeSet::new();
        let mut now = None;
        for lock in locks.into_iter().flat_map(single_locks) {
            let known = self.decided().get(lock.lock_version);
            let fate = match known {
                Some(fate) => fate,
                None => {
                    let now = match now {
                        Some(now) => now,
                        None => *now.insert(self.timestamp().await?),
                    };
                    self.fate_of(keys, &lock, reader, now).await?
                }
            };
            match fate {
                Fate::Pushed => met.pushed.push(lock.lock_version),
                Fate::Alive => met.alive = Some(lock),
                fate => self.clear(keys, &lock, fate, &mut cleared).await?,
            }
        }
        Ok(met)
    }

    /// What became of the transaction of a lock.
    async fn fate_of(
        &self,
        keys: Keys,
        lock: &LockInfo,
        reader: Reader,
        now: TimeStamp,
    ) -> Result<Fate, ClientError> {
        // A time to live of 0 is how a store says: this one has no business here any more.
        let is_over = lock.lock_ttl == 0;
        let caller_start_ts = match reader {
            Reader::At(ts) => ts,
            Reader::None => TimeStamp(0),
        };
        let current_ts = if is_over { TimeStamp::MAX } else { now };
        let question = Question { caller_start_ts, current_ts, force_sync_commit: false };
        let is_expired = is_over || is_out_of_date(lock.lock_version, lock.lock_ttl, now);
        let status = self.ask_primary(keys, lock, question, is_expired).await?;
        match status {
            Status::Decided(fate) => Ok(fate),
            Status::Nothing => Ok(Fate::Alive),
            Status::Locked(primary, fate) => {
                let expired =
                    is_over || is_out_of_date(primary.lock_version, primary.lock_ttl, now);
                if !primary.use_async_commit || !expired {
                    return Ok(fate);
                }
                self.settle_async(keys, lock, *primary, question).await
            }
        }
    }

    /// Asks the primary of a lock. With `must_exist` a transaction of which nothing is found is
    /// rolled back, so that its primary cannot come any more.
    async fn ask_primary(
        &self,
        keys: Keys,
        lock: &LockInfo,
        question: Question,
        must_exist: bool,
    ) -> Result<Status, ClientError> {
        let is_pessimistic = lock.lock_type() == Op::PessimisticLock;
        let request = kvrpcpb::CheckTxnStatusRequest {
            primary_key: lock.primary_lock.clone(),
            lock_ts: lock.lock_version,
            caller_start_ts: question.caller_start_ts.0,
            current_ts: question.current_ts.0,
            rollback_if_not_exist: must_exist,
            force_sync_commit: question.force_sync_commit,
            resolving_pessimistic_lock: is_pessimistic,
            verify_is_primary: true,
            ..Default::default()
        };
        let reply =
            self.call_key(keys, &lock.primary_lock, StoreRequest::KvCheckTxnStatus(request));
        let StoreReply::KvCheckTxnStatus(reply) = reply.await? else {
            return Err(other_kind("KvCheckTxnStatus"));
        };
        if let Some(error) = reply.error {
            return match () {
                () if error.txn_not_found.is_some() => Ok(Status::Nothing),
                // The transaction named another key its primary since: this lock is a left-over.
                () if error.primary_mismatch.is_some() && is_pessimistic => {
                    Ok(Status::Decided(Fate::RolledBack))
                }
                () => Err(key_error::typed("KvCheckTxnStatus", error)),
            };
        }
        if reply.lock_ttl == 0 {
            let fate = match reply.commit_version {
                0 => Fate::RolledBack,
                at => Fate::Committed(TimeStamp(at)),
            };
            // What is said of a pessimistic lock alone says nothing of the transaction.
            if !is_pessimistic || fate != Fate::RolledBack {
                self.decided().remember(lock.lock_version, fate);
            }
            return Ok(Status::Decided(fate));
        }
        let pushed = reply.action() == kvrpcpb::Action::MinCommitTsPushed;
        let is_read = question.caller_start_ts != TimeStamp(0);
        let fate = if pushed && is_read { Fate::Pushed } else { Fate::Alive };
        let missing = ClientError::Malformed { call: "KvCheckTxnStatus", what: "lock" };
        Ok(Status::Locked(Box::new(reply.lock_info.ok_or(missing)?), fate))
    }

    /// Decides an async commit whose time is over by asking all its keys, and clears it away.
    async fn settle_async(
        &self,
        keys: Keys,
        lock: &LockInfo,
        primary: LockInfo,
        question: Question,
    ) -> Result<Fate, ClientError> {
        let mut all = primary.secondaries.clone();
        all.sort();
        let fate = match self.ask_secondaries(keys, &all, &primary).await? {
            Some(fate) => fate,
            None => {
                // Not all of its locks are of the async kind: the primary decides, as it always
                // did.
                let question = Question { force_sync_commit: true, ..question };
                return match self.ask_primary(keys, lock, question, true).await? {
                    Status::Decided(fate) => Ok(fate),
                    Status::Locked(_, fate) => Ok(fate),
                    Status::Nothing => Ok(Fate::Alive),
                };
            }
        };
        all.push(primary.key.clone());
        all.sort();
        all.dedup();
        self.resolve_keys(keys, lock.lock_version, &all, fate).await?;
        self.decided().remember(lock.lock_version, fate);
        Ok(fate)
    }

    /// What all keys of an async commit say; none if one of their locks is of another kind.
    async fn ask_secondaries(
        &self,
        keys: Keys,
        sorted: &[Bytes],
        primary: &LockInfo,
    ) -> Result<Option<Fate>, ClientError> {
        let start_version = primary.lock_version;
        let build = |keys: &[Bytes]| {
            let keys = keys.to_vec();
            StoreRequest::KvCheckSecondaryLocks(kvrpcpb::CheckSecondaryLocksRequest {
                keys,
                start_version,
                ..Default::default()
            })
        };
        let mut commit_ts = primary.min_commit_ts;
        for (asked, reply) in self.all_regions(keys, sorted, &build).await? {
            let StoreReply::KvCheckSecondaryLocks(reply) = reply else {
                return Err(other_kind("KvCheckSecondaryLocks"));
            };
            if let Some(error) = reply.error {
                return Err(key_error::typed("KvCheckSecondaryLocks", error));
            }
            if reply.locks.len() < asked.len() {
                let at = TimeStamp(reply.commit_ts);
                let fate = if at.0 == 0 { Fate::RolledBack } else { Fate::Committed(at) };
                return Ok(Some(fate));
            }
            if reply.locks.iter().any(|lock| !lock.use_async_commit) {
                return Ok(None);
            }
            let bounds = reply.locks.iter().map(|lock| lock.min_commit_ts);
            commit_ts = bounds.fold(commit_ts, u64::max);
        }
        Ok(Some(Fate::Committed(TimeStamp(commit_ts))))
    }

    /// Clears a lock away whose transaction is decided.
    async fn clear(
        &self,
        keys: Keys,
        lock: &LockInfo,
        fate: Fate,
        cleared: &mut BTreeSet<(u64, u64)>,
    ) -> Result<(), ClientError> {
        if lock.lock_type() == Op::PessimisticLock {
            return self.clear_pessimistic(keys, lock).await;
        }
        if lock.txn_size < MANY_KEYS {
            return self
                .resolve_keys(keys, lock.lock_version, std::slice::from_ref(&lock.key), fate)
                .await;
        }
        let region = self.locate(keys, &lock.key, crate::core::Side::Holding).await?;
        if !cleared.insert((region.id, lock.lock_version)) {
            return Ok(());
        }
        let commit_version = fate.commit_version().expect("only what is decided is cleared");
        let request = kvrpcpb::ResolveLockRequest {
            start_version: lock.lock_version,
            commit_version,
            ..Default::default()
        };
        let reply = self.call_key(keys, &lock.key, StoreRequest::KvResolveLock(request)).await?;
        resolved(reply)
    }

    /// A pessimistic lock guards nothing that is written: it goes, whatever became of the rest.
    async fn clear_pessimistic(&self, keys: Keys, lock: &LockInfo) -> Result<(), ClientError> {
        let for_update_ts = match lock.lock_for_update_ts {
            0 => u64::MAX,
            at => at,
        };
        let request = kvrpcpb::PessimisticRollbackRequest {
            start_version: lock.lock_version,
            for_update_ts,
            keys: vec![lock.key.clone()],
            ..Default::default()
        };
        self.call_key(keys, &lock.key, StoreRequest::KvPessimisticRollback(request)).await?;
        Ok(())
    }

    async fn resolve_keys(
        &self,
        keys: Keys,
        start_version: u64,
        sorted: &[Bytes],
        fate: Fate,
    ) -> Result<(), ClientError> {
        let commit_version = fate.commit_version().expect("only what is decided is resolved");
        let build = |keys: &[Bytes]| {
            let keys = keys.to_vec();
            StoreRequest::KvResolveLock(kvrpcpb::ResolveLockRequest {
                start_version,
                commit_version,
                keys,
                ..Default::default()
            })
        };
        let replies = self.all_regions(keys, sorted, &build).await?;
        replies.into_iter().try_for_each(|(_, reply)| resolved(reply))
    }

    /// Makes sure of a transaction that this client has begun to commit and lost sight of: when
    /// this returns it is committed or will never be.
    pub(crate) async fn settle(
        &self,
        keys: Keys,
        primary: &Bytes,
        start_ts: TimeStamp,
    ) -> Result<Fate, ClientError> {
        let own = LockInfo {
            primary_lock: primary.clone(),
            key: primary.clone(),
            lock_version: start_ts.0,
            ..Default::default()
        };
        let mut backoff = self.backoff();
        loop {
            match self.fate_of(keys, &own, Reader::None, TimeStamp::MAX).await? {
                Fate::Alive | Fate::Pushed => {
                    let why = "its primary is still locked".to_owned();
                    self.pause(&mut backoff, "KvCheckTxnStatus", why).await?;
                }
                fate => return Ok(fate),
            }
        }
    }

    /// One request for one key.
    pub(crate) async fn call_key(
        &self,
        keys: Keys,
        key: &Bytes,
        request: StoreRequest,
    ) -> Result<StoreReply, ClientError> {
        let side = crate::core::Side::Holding;
        Ok(self.run(keys, key, side, |_| request.clone()).await?.0)
    }

    fn decided(&self) -> std::sync::MutexGuard<'_, Decided> {
        self.decided.lock().expect("no holder of this lock panics")
    }
}

fn resolved(reply: StoreReply) -> Result<(), ClientError> {
    let StoreReply::KvResolveLock(reply) = reply else { return Err(other_kind("KvResolveLock")) };
    match reply.error {
        Some(error) => Err(key_error::typed("KvResolveLock", error)),
        None => Ok(()),
    }
}

/// A lock that several transactions share, as one of each.
fn single_locks(lock: LockInfo) -> Vec<LockInfo> {
    if lock.shared_lock_infos.is_empty() { vec![lock] } else { lock.shared_lock_infos }
}

/// Whether a lock's time is over at `now`.
pub(crate) fn is_out_of_date(start: u64, ttl_ms: u64, now: TimeStamp) -> bool {
    TimeStamp(start).physical_ms().saturating_add(ttl_ms) < now.physical_ms()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_ends_are_forgotten() {
        let mut decided = Decided::default();
        for start in 0..DECIDED_MAX as u64 + 1 {
            decided.remember(start, Fate::RolledBack);
            decided.remember(start, Fate::RolledBack);
        }
        assert_eq!(decided.get(0), None);
        assert_eq!(decided.get(1), Some(Fate::RolledBack));
        assert_eq!(decided.fates.len(), DECIDED_MAX);
    }
}
