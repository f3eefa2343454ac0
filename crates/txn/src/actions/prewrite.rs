//! Prewrite: checks the keys of a transaction and locks them, with their values. The first phase of
//! a commit, and with one-phase commit the only one.
//!
//! ```text
//!   plan(Reader) ──► PrewritePlan ──► publish(Concurrency) ──► Outcome
//!     what each key        │            two-phase: nothing to do
//!     would get            │            async, one-phase: min_commit_ts is chosen and the locks
//!                          │            are shown to readers, in one step; or, above
//!                          │            max_commit_ts, it becomes a two-phase commit
//!                          └─► refused, already locked or already committed: nothing to write
//! ```

use std::collections::BTreeMap;

use base::TimeStamp;
use base::rule::{Rule, keep};
use bytes::Bytes;

use super::constraints::{Asker, Seen, check_absent, check_assertion};
use super::{Assertion, AssertionLevel, Changes, Op, Outcome, check_start_ts, place_value};
use crate::concurrency::Concurrency;
use crate::mvcc::{Key, LastChange, Lock, LockKind, Reader, TxnRecord, Write};
use crate::{Abort, ConflictReason, KeyError, LockInfo, TxnError};

/// What a pessimistic transaction says about a key's lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PessimisticAction {
    /// It never locked the key and needs no check.
    #[default]
    Skip,
    /// It holds a pessimistic lock.
    Locked,
    /// It did not lock the key: check it now as an optimistic transaction would.
    CheckConstraint,
}

/// One key of a prewrite.
#[derive(Clone, Debug)]
pub struct PrewriteKey {
    /// What happens to it.
    pub op: Op,
    /// The key.
    pub key: Key,
    /// For puts.
    pub value: Bytes,
    /// What the client knows of it.
    pub assertion: Assertion,
    /// Of pessimistic transactions.
    pub action: PessimisticAction,
    /// The `for_update_ts` that its pessimistic lock must still have.
    pub expected_for_update_ts: Option<TimeStamp>,
}

impl PrewriteKey {
    /// A key without demands.
    pub fn new(op: Op, key: Key, value: Bytes) -> Self {
        let (assertion, action) = (Assertion::None, PessimisticAction::Skip);
        Self { op, key, value, assertion, action, expected_for_update_ts: None }
    }
}

/// The request.
#[derive(Clone, Debug, Default)]
pub struct Prewrite {
    /// The keys, in any order. Of a key that is there twice the last one counts.
    pub keys: Vec<PrewriteKey>,
    /// User form. Need not be among the keys.
    pub primary: Bytes,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// Of the locks.
    pub ttl_ms: u64,
    /// For bulk loading.
    pub skip_constraint_check: bool,
    /// A hint for the locks.
    pub txn_size: u64,
    /// 0: an optimistic transaction.
    pub for_update_ts: TimeStamp,
    /// The commit must not be below.
    pub min_commit_ts: TimeStamp,
    /// Asks for an async commit; all keys but the primary.
    pub secondaries: Option<Vec<Bytes>>,
    /// Asks for a one-phase commit.
    pub try_one_pc: bool,
    /// Neither may commit above; 0: no bound.
    pub max_commit_ts: TimeStamp,
    /// How assertions are checked.
    pub assertion_level: AssertionLevel,
    /// The request was sent before.
    pub is_retry: bool,
    /// Kept in the records.
    pub source: u64,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrewriteReply {
    /// If there are any, nothing was written.
    pub errors: Vec<KeyError>,
    /// Async commit: at least this. 0: it became a two-phase commit.
    pub min_commit_ts: TimeStamp,
    /// One-phase commit: done, at this. 0: go on with two phases.
    pub one_pc_commit_ts: TimeStamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    TwoPhase,
    Async,
    OnePhase,
}

/// What a key is going to get.
#[derive(Clone, Debug)]
struct Planned {
    lock: Lock,
    /// For family `default`.
    long_value: Option<Bytes>,
    /// A pessimistic lock that it replaces.
    replaces: Option<Lock>,
}

/// What became of one key.
enum KeyPlan {
    Lock(Box<Planned>),
    /// A check that holds.
    NothingToWrite,
    /// Locked by an earlier copy of the request; its `min_commit_ts` if it is an async commit's.
    Repeated(Option<TimeStamp>),
    /// The transaction is committed.
    Committed(TimeStamp),
}

/// A prewrite that passed all checks, or the answer.
#[derive(Clone, Debug)]
pub struct PrewritePlan {
    start_ts: TimeStamp,
    mode: Mode,
    keys: BTreeMap<Key, Planned>,
    /// The commit may not be below, whatever was read.
    floor: TimeStamp,
    max_commit_ts: TimeStamp,
    /// The largest bound of locks that are there already.
    repeated: TimeStamp,
    /// Known before anything is published: refused, or committed.
    answer: Option<PrewriteReply>,
}

impl Prewrite {
    /// What the scheduler latches.
    pub fn latch_keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().map(|key| &key.key)
    }

    /// What it reads as of: to be given to the concurrency manager before the snapshot. A check of
    /// absence is a read.
    pub fn reads_at(&self) -> Option<TimeStamp> {
        let reads = self.keys.iter().any(|key| key.op.demands_absence());
        reads.then_some(self.start_ts)
    }

    /// Whether it needs a region whose `max_ts` is synced.
    pub fn needs_synced_max_ts(&self) -> bool {
        self.mode() != Mode::TwoPhase
    }

    fn mode(&self) -> Mode {
        match (self.try_one_pc, &self.secondaries) {
            (true, _) => Mode::OnePhase,
            (false, Some(_)) => Mode::Async,
            (false, None) => Mode::TwoPhase,
        }
    }

    fn is_pessimistic(&self) -> bool {
        self.for_update_ts.0 != 0
    }

    fn asker(&self) -> Asker<'_> {
        Asker { start_ts: self.start_ts, primary: &self.primary }
    }

    fn check_request(&self, reader: &Reader<'_>) -> Result<(), TxnError> {
        check_start_ts(self.start_ts)?;
        if self.is_pessimistic() && self.for_update_ts < self.start_ts {
            let (start_ts, other_ts) = (self.start_ts, self.for_update_ts);
            let what = "for_update_ts is not below the start";
            return Err(Abort::Timestamps { what, start_ts, other_ts }.into());
        }
        if self.for_update_ts.max(self.min_commit_ts) == TimeStamp::MAX {
            let (start_ts, other_ts) = (self.start_ts, TimeStamp::MAX);
            let what = "a commit comes before the last timestamp";
            return Err(Abort::Timestamps { what, start_ts, other_ts }.into());
        }
        if self.is_pessimistic() && self.keys.iter().any(|key| key.op == Op::CheckNotExists) {
            let number = 6;
            return Err(Abort::MutationKind { number }.into());
        }
        super::changes::check_keys(reader, self.latch_keys())
    }

    /// Checks every key and plans its lock. Errors other than locks of others end it at once.
    pub fn plan(&self, reader: &mut Reader<'_>) -> Result<PrewritePlan, TxnError> {
        self.check_request(reader)?;
        let next = self.start_ts.max(self.for_update_ts).0.saturating_add(1);
        let mut plan = PrewritePlan {
            start_ts: self.start_ts,
            mode: self.mode(),
            keys: BTreeMap::new(),
            floor: self.min_commit_ts.max(TimeStamp(next)),
            max_commit_ts: self.max_commit_ts,
            repeated: TimeStamp(0),
            answer: None,
        };
        let (mut locked, mut assertion) = (Vec::new(), None);
        for (i, item) in self.keys.iter().enumerate() {
            if i % 256 == 255 {
                reader.check_interrupt()?;
            }
            match self.plan_key(reader, item, &mut assertion) {
                Ok(KeyPlan::Lock(planned)) => {
                    plan.floor = plan.floor.max(planned.lock.min_commit_ts);
                    plan.keys.insert(item.key.clone(), *planned);
                }
                Ok(KeyPlan::NothingToWrite) => {}
                Ok(KeyPlan::Repeated(Some(ts))) if plan.mode != Mode::OnePhase => {
                    plan.repeated = plan.repeated.max(ts);
                }
                Ok(KeyPlan::Repeated(_)) => plan.mode = Mode::TwoPhase,
                Ok(KeyPlan::Committed(commit_ts)) => return Ok(plan.committed(commit_ts)),
                Err(TxnError::Key(error)) => match *error {
                    KeyError::Locked(info) => locked.push(KeyError::Locked(info)),
                    other => return Ok(plan.refused(vec![other])),
                },
                Err(other) => return Err(other),
            }
        }
        if locked.is_empty() {
            locked.extend(assertion);
        }
        Ok(if locked.is_empty() { plan } else { plan.refused(locked) })
    }

    fn plan_key(
        &self,
        reader: &mut Reader<'_>,
        item: &PrewriteKey,
        assertion: &mut Option<KeyError>,
    ) -> Result<KeyPlan, TxnError> {
        let own = match reader.load_lock(&item.key)? {
            None => None,
            Some(lock) if lock.start_ts != self.start_ts && keep(Rule::PrewriteSeesLocks) => {
                return self.met_other_lock(reader, item, lock);
            }
            Some(lock) if lock.start_ts != self.start_ts => None,
            Some(lock) if lock.kind != LockKind::Pessimistic => {
                let min_commit_ts = lock.is_async_commit().then_some(lock.min_commit_ts);
                return Ok(KeyPlan::Repeated(min_commit_ts));
            }
            Some(lock) => Some(self.check_own_pessimistic(item, lock)?),
        };
        let seen = match self.check_versions(reader, item, own.is_some()) {
            Ok(seen) => seen,
            Err(error) => return self.unless_committed(reader, item, error),
        };
        if assertion.is_none() {
            let wanted = (item.assertion, self.assertion_level);
            *assertion = check_assertion(reader, self.start_ts, &item.key, wanted, &seen)?;
        }
        if item.op == Op::CheckNotExists {
            return Ok(KeyPlan::NothingToWrite);
        }
        Ok(KeyPlan::Lock(Box::new(self.planned(item, own, &seen))))
    }

    fn met_other_lock(
        &self,
        reader: &mut Reader<'_>,
        item: &PrewriteKey,
        mut lock: Lock,
    ) -> Result<KeyPlan, TxnError> {
        if self.is_pessimistic() && item.action == PessimisticAction::Locked {
            let error = self.asker().lock_not_found(&item.key);
            return self.unless_committed(reader, item, error);
        }
        if self.is_pessimistic() {
            // The key's row is locked, so this lock is a leftover: the client resolves it at once.
            lock.ttl_ms = 0;
        }
        Err(KeyError::Locked(LockInfo::new(&item.key, lock)).into())
    }

    fn check_own_pessimistic(&self, item: &PrewriteKey, lock: Lock) -> Result<Lock, TxnError> {
        if !self.is_pessimistic() {
            let (start_ts, key) = (self.start_ts, item.key.user().clone());
            return Err(Abort::LockType { start_ts, key, found: lock.kind }.into());
        }
        if item.expected_for_update_ts.is_some_and(|expected| expected != lock.for_update_ts) {
            return Err(self.asker().lock_not_found(&item.key));
        }
        Ok(lock)
    }

    /// The checks against what is committed. With an own pessimistic lock nothing can have changed.
    fn check_versions(
        &self,
        reader: &mut Reader<'_>,
        item: &PrewriteKey,
        has_pessimistic_lock: bool,
    ) -> Result<Seen, TxnError> {
        let (asker, key) = (self.asker(), &item.key);
        let mut seen = Seen::default();
        if has_pessimistic_lock || self.needs_no_look(reader, item) {
            return Ok(seen);
        }
        let reason = match (self.is_pessimistic(), item.action) {
            (false, _) if self.skip_constraint_check => return Ok(seen),
            (false, _) => ConflictReason::Optimistic,
            (true, PessimisticAction::CheckConstraint) => ConflictReason::LazyUniquenessCheck,
            (true, PessimisticAction::Locked) => {
                seen.newest = Some(self.amend(reader, item)?);
                return Ok(seen);
            }
            (true, PessimisticAction::Skip) => {
                // What decides about the commit must not happen twice, even if the client does not
                // know that it repeats itself: the primary, and every key of a commit that needs no
                // second phase.
                let decides = self.mode() != Mode::TwoPhase || self.primary == key.user();
                if self.is_retry || decides {
                    let bound = self.is_retry.then_some(self.for_update_ts);
                    asker.check_own_record(reader, key, bound)?;
                }
                return Ok(seen);
            }
        };
        seen.newest = Some(asker.newest_unless_newer(reader, key, reason)?);
        if item.op.demands_absence() {
            check_absent(reader, key)?;
        }
        Ok(seen)
    }

    /// Whether there is nothing that could stand in its way, and the newest record is of no use to
    /// it either: to see whether there is a value, or to point to it from a record that has none.
    fn needs_no_look(&self, reader: &Reader<'_>, item: &PrewriteKey) -> bool {
        let asserts =
            item.assertion != Assertion::None && self.assertion_level != AssertionLevel::Off;
        reader.is_unwritten()
            && matches!(item.op, Op::Put | Op::Delete)
            && !asserts
            && item.action != PessimisticAction::Locked
    }

    /// The pessimistic lock is lost. It may be taken as held if nobody wrote the key since the
    /// transaction began; that it was written and not seen in between is then impossible too.
    fn amend(
        &self,
        reader: &mut Reader<'_>,
        item: &PrewriteKey,
    ) -> Result<Option<(TimeStamp, Write)>, TxnError> {
        let newest = reader.seek_write(&item.key, TimeStamp::MAX)?;
        let is_untouched = newest.as_ref().is_none_or(|(ts, _)| *ts < self.start_ts);
        let may_amend = is_untouched || !keep(Rule::AmendUnwritten);
        if item.expected_for_update_ts.is_some() || !may_amend {
            return Err(self.asker().lock_not_found(&item.key));
        }
        Ok(newest)
    }

    /// A check failed. If that is because an earlier copy of this request did its work and the
    /// transaction is committed since, then all is well.
    fn unless_committed(
        &self,
        reader: &mut Reader<'_>,
        item: &PrewriteKey,
        error: TxnError,
    ) -> Result<KeyPlan, TxnError> {
        let may_be_committed = matches!(&error, TxnError::Key(error) if matches!(**error,
            KeyError::Conflict(_) | KeyError::Abort(Abort::PessimisticLockNotFound { .. })));
        if may_be_committed
            && let TxnRecord::Committed { commit_ts, .. } =
                reader.txn_record(&item.key, self.start_ts)?
        {
            return Ok(KeyPlan::Committed(commit_ts));
        }
        Err(error)
    }

    fn planned(&self, item: &PrewriteKey, replaces: Option<Lock>, seen: &Seen) -> Planned {
        let kind = match item.op {
            Op::Put | Op::Insert => LockKind::Put,
            Op::Delete => LockKind::Delete,
            Op::Lock => LockKind::Lock,
            Op::CheckNotExists => unreachable!("a check writes no lock"),
        };
        let mut lock = Lock::new(kind, self.primary.clone(), self.start_ts, self.ttl_ms);
        lock.for_update_ts = self.for_update_ts;
        lock.txn_size = self.txn_size;
        lock.min_commit_ts = self.min_commit_ts;
        lock.source = self.source;
        lock.last_change = seen.last_change();
        if let Some(held) = &replaces {
            lock.ttl_ms = lock.ttl_ms.max(held.ttl_ms);
            lock.min_commit_ts = lock.min_commit_ts.max(held.min_commit_ts);
            lock.last_change = held.last_change;
        }
        if kind != LockKind::Lock {
            // Only records that change nothing are stepped over.
            lock.last_change = LastChange::Unknown;
        }
        let mut long_value = None;
        if kind == LockKind::Put {
            (lock.short_value, long_value) = place_value(&item.value);
        }
        if let Some(secondaries) = &self.secondaries {
            let is_primary = lock.is_primary(&item.key);
            lock.secondaries = Some(if is_primary { secondaries.clone() } else { Vec::new() });
        }
        Planned { lock, long_value, replaces }
    }
}

impl PrewritePlan {
    fn refused(mut self, errors: Vec<KeyError>) -> Self {
        assert!(!errors.is_empty(), "refused without a reason");
        self.answer = Some(PrewriteReply { errors, ..Default::default() });
        self
    }

    fn committed(mut self, commit_ts: TimeStamp) -> Self {
        let mut reply = PrewriteReply::default();
        match self.mode {
            Mode::TwoPhase => {}
            Mode::Async => reply.min_commit_ts = commit_ts,
            Mode::OnePhase => reply.one_pc_commit_ts = commit_ts,
        }
        self.answer = Some(reply);
        self
    }

    /// Chooses the timestamp, shows the locks, and says what to write. Between this and the end of
    /// the writes the locks are in `published`.
    pub fn publish(self, concurrency: &mut Concurrency) -> Outcome<PrewriteReply> {
        if let Some(reply) = self.answer {
            return Outcome::unchanged(reply);
        }
        if self.mode == Mode::TwoPhase {
            return self.into_locks(None);
        }
        let locks = self.keys.iter().map(|(key, planned)| (key, &planned.lock));
        let min_commit_ts = match locks.len() {
            // Nothing to show. The bound of checks alone does not depend on who read what.
            0 => Some(self.floor),
            _ => concurrency.publish(locks, self.floor, self.max_commit_ts),
        };
        match (min_commit_ts, self.mode) {
            (None, _) => self.into_locks(None),
            (Some(ts), Mode::OnePhase) => self.into_commits(ts),
            (Some(ts), _) => self.into_locks(Some(ts)),
        }
    }

    /// `async_at`: an async commit's lower bound; `None`: a two-phase commit.
    fn into_locks(self, async_at: Option<TimeStamp>) -> Outcome<PrewriteReply> {
        let mut changes = Changes::default();
        let repeated_only = self.keys.is_empty() && self.repeated.0 != 0;
        for (key, mut planned) in self.keys {
            match async_at {
                Some(ts) => {
                    assert!(planned.lock.is_async_commit(), "{key:?} must say how it commits");
                    planned.lock.min_commit_ts = ts;
                    changes.published.push(key.clone());
                }
                None => planned.lock.secondaries = None,
            }
            if let Some(value) = planned.long_value {
                changes.put_value(&key, self.start_ts, value);
            }
            changes.put_lock(&key, &planned.lock);
        }
        let fresh = async_at.filter(|_| !repeated_only).unwrap_or_default();
        let min_commit_ts = async_at.map_or(TimeStamp(0), |_| fresh.max(self.repeated));
        let reply = PrewriteReply { min_commit_ts, ..Default::default() };
        Outcome { reply, changes }
    }

    fn into_commits(self, commit_ts: TimeStamp) -> Outcome<PrewriteReply> {
        assert!(commit_ts > self.start_ts, "a commit comes after its start");
        let mut changes = Changes::default();
        for (key, planned) in self.keys {
            let lock = planned.lock;
            if let Some(value) = planned.long_value {
                changes.put_value(&key, self.start_ts, value);
            }
            let kind = lock.write_kind().expect("a planned lock is not pessimistic");
            let mut write = Write::new(kind, self.start_ts, lock.short_value);
            write.last_change = lock.last_change;
            write.source = lock.source;
            changes.put_write(&key, commit_ts, &write);
            if let Some(held) = planned.replaces {
                changes.remove_lock(&key, &held, commit_ts);
            }
            changes.published.push(key);
        }
        let reply = PrewriteReply { one_pc_commit_ts: commit_ts, ..Default::default() };
        Outcome { reply, changes }
    }
}
