//! What clients do: transfers between accounts, and the resolving of locks they meet.

use std::collections::{BTreeMap, BTreeSet};

use base::{Prng, TimeStamp};
use bytes::Bytes;
use pontoon_txn as txn;
use txn::actions::{
    BatchRollback, CheckSecondaryLocks, CheckTxnStatus, Commit, LockOutcome, LockRefused, Op,
    PessimisticAction, PessimisticLock, PessimisticRollback, Prewrite, PrewriteKey, PrewriteReply,
    ResolveLock, SecondaryStatus, StatusAction, TxnStatus, WhatToRead,
};
use txn::mvcc::{Key, Row};
use txn::{Abort, KeyError, LockInfo};

pub const ACCOUNTS: u64 = 4;
const TTL_MS: u64 = 100;

pub fn account(i: u64) -> Key {
    Key::new(format!("account{i}"))
}

/// A request on its way.
#[derive(Clone)]
pub enum Rpc {
    Get { keys: Vec<Key>, ts: TimeStamp },
    Lock(PessimisticLock),
    Prewrite(Prewrite),
    Commit(Commit),
    Rollback(BatchRollback),
    Unlock(PessimisticRollback),
    Status(CheckTxnStatus),
    Secondaries(CheckSecondaryLocks),
    Resolve(ResolveLock),
}

/// An answer on its way.
#[derive(Clone)]
pub enum Answer {
    Rows(Vec<Row>),
    Lock(LockOutcome),
    Prewrite(PrewriteReply),
    Done,
    Status(TxnStatus, StatusAction),
    Secondaries(SecondaryStatus),
    Failed(Box<KeyError>),
}

/// What a client was told about its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Committed(TimeStamp),
    RolledBack,
}

/// What a task may do.
pub struct Around<'a> {
    pub prng: &'a mut Prng,
    pub tso: &'a mut dyn FnMut() -> TimeStamp,
    /// Requests to be sent. The answer to the last one is waited for, unless it is to be forgotten.
    pub send: Vec<Rpc>,
    /// Requests whose answers nobody waits for.
    pub forget: Vec<Rpc>,
    pub spawn: Vec<Resolver>,
}

impl Around<'_> {
    fn meet(&mut self, info: &LockInfo) {
        self.spawn.push(Resolver::new(info.clone()));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Reading,
    Prewriting,
    Committing,
    RollingBack,
    Over,
}

/// One transfer.
pub struct Transfer {
    pub start_ts: TimeStamp,
    pub pessimistic: bool,
    pub async_commit: bool,
    pub one_pc: bool,
    /// The two accounts, and keys that nobody else writes.
    pub keys: Vec<Key>,
    /// How many of them are accounts: two, or none at all for a transaction that only writes keys
    /// which it never locked.
    accounts: usize,
    /// When the accounts were read.
    pub read_ts: BTreeMap<Key, TimeStamp>,
    pub told: Option<Told>,
    values: BTreeMap<Key, i64>,
    amount: i64,
    for_update_ts: TimeStamp,
    phase: Phase,
    /// Prewrite requests that were not answered yet; the first has the primary.
    batches: Vec<Prewrite>,
    min_commit_ts: TimeStamp,
    commit_ts: TimeStamp,
    tries: u32,
}

impl Transfer {
    pub fn begin(around: &mut Around<'_>) -> Self {
        let start_ts = (around.tso)();
        let (from, step) = (around.prng.below(ACCOUNTS), around.prng.below(ACCOUNTS - 1) + 1);
        let log = |name: &str| Key::new(format!("{name}{}", start_ts.0));
        let is_lone = around.prng.one_in(6);
        let both = vec![account(from), account((from + step) % ACCOUNTS), log("log")];
        let mut transfer = Self {
            start_ts,
            pessimistic: is_lone || around.prng.one_in(2),
            async_commit: around.prng.one_in(2),
            one_pc: around.prng.one_in(3),
            keys: if is_lone { vec![log("log"), log("other")] } else { both },
            accounts: if is_lone { 0 } else { 2 },
            read_ts: BTreeMap::new(),
            told: None,
            values: BTreeMap::new(),
            amount: around.prng.below(20) as i64,
            for_update_ts: TimeStamp(0),
            phase: Phase::Reading,
            batches: Vec::new(),
            min_commit_ts: TimeStamp(0),
            commit_ts: TimeStamp(0),
            tries: 0,
        };
        if is_lone {
            transfer.for_update_ts = (around.tso)();
            transfer.prewrite(around);
        } else {
            transfer.read(around);
        }
        transfer
    }

    fn primary(&self) -> &Bytes {
        self.keys[0].user()
    }

    fn read(&mut self, around: &mut Around<'_>) {
        let keys = self.keys[..2].to_vec();
        if !self.pessimistic {
            around.send.push(Rpc::Get { keys, ts: self.start_ts });
            return;
        }
        self.for_update_ts = (around.tso)();
        around.send.push(Rpc::Lock(PessimisticLock {
            keys: keys.into_iter().map(|key| (key, false)).collect(),
            primary: self.primary().clone(),
            start_ts: self.start_ts,
            ttl_ms: TTL_MS,
            for_update_ts: self.for_update_ts,
            min_commit_ts: TimeStamp(0),
            read: WhatToRead::Values,
            only_if_exists: false,
            allow_conflict: false,
        }));
    }

    pub fn on_answer(&mut self, answer: Answer, around: &mut Around<'_>) {
        match (self.phase, answer) {
            (Phase::Reading, Answer::Rows(rows)) => self.on_rows(rows, around),
            (Phase::Reading, Answer::Lock(outcome)) => self.on_lock(outcome, around),
            (Phase::Prewriting, Answer::Prewrite(reply)) => self.on_prewrite(reply, around),
            (Phase::Committing, Answer::Done) => {
                self.told = Some(Told::Committed(self.commit_ts));
                self.phase = Phase::Over;
                self.commit_rest(around);
            }
            (Phase::RollingBack, Answer::Done) => {
                self.told = Some(Told::RolledBack);
                self.phase = Phase::Over;
            }
            (_, Answer::Failed(error)) => self.on_failed(&error, around),
            _ => panic!("an answer of another kind in {:?}", self.phase),
        }
    }

    fn on_failed(&mut self, error: &KeyError, around: &mut Around<'_>) {
        match (self.phase, error) {
            (Phase::Committing, KeyError::CommitTsExpired { .. }) => self.commit(around),
            (Phase::Committing, KeyError::LockNotFound { .. }) => {
                self.told = Some(Told::RolledBack);
                self.phase = Phase::Over;
            }
            (Phase::RollingBack, KeyError::Abort(Abort::Committed { commit_ts, .. })) => {
                // An earlier copy of a prewrite got through, and somebody found all locks there.
                self.told = Some(Told::Committed(*commit_ts));
                self.phase = Phase::Over;
            }
            _ => self.give_up(around),
        }
    }

    fn try_again(&mut self, around: &mut Around<'_>) -> bool {
        self.tries += 1;
        if self.tries > 6 {
            self.give_up(around);
        }
        self.tries <= 6
    }

    fn on_rows(&mut self, rows: Vec<Row>, around: &mut Around<'_>) {
        for row in &rows {
            match &row.outcome {
                Ok(value) => {
                    let amount = std::str::from_utf8(&value.value).expect("digits");
                    let amount = amount.parse().expect("a number");
                    self.values.insert(Key::new(row.key.clone()), amount);
                }
                Err(error) => {
                    let KeyError::Locked(info) = &**error else { panic!("{error}") };
                    around.meet(info);
                }
            }
        }
        if rows.iter().any(|row| row.outcome.is_err()) {
            if self.try_again(around) {
                self.read(around);
            }
            return;
        }
        for key in &self.keys[..2] {
            self.read_ts.insert(key.clone(), self.start_ts);
        }
        self.prewrite(around);
    }

    fn on_lock(&mut self, outcome: LockOutcome, around: &mut Around<'_>) {
        match outcome {
            LockOutcome::Granted(results) => {
                for (key, result) in self.keys.iter().zip(results) {
                    let value = result.value.expect("accounts exist");
                    let value = std::str::from_utf8(&value).expect("digits").parse();
                    self.values.insert(key.clone(), value.expect("a number"));
                    self.read_ts.insert(key.clone(), self.for_update_ts);
                }
                self.prewrite(around);
            }
            LockOutcome::Refused(LockRefused::Held(info)) => {
                around.meet(&info);
                if self.try_again(around) {
                    self.read(around);
                }
            }
            LockOutcome::Refused(LockRefused::Error(error)) => match *error {
                KeyError::Conflict(_) => {
                    if self.try_again(around) {
                        self.read(around);
                    }
                }
                _ => self.give_up(around),
            },
        }
    }

    /// Makes the requests and sends the first.
    fn prewrite(&mut self, around: &mut Around<'_>) {
        self.phase = Phase::Prewriting;
        let new = [-self.amount, self.amount];
        let mut items: Vec<PrewriteKey> = Vec::new();
        for (key, change) in self.keys[..self.accounts].iter().zip(new) {
            let value = Bytes::from((self.values[key] + change).to_string());
            let mut item = PrewriteKey::new(Op::Put, key.clone(), value);
            item.action =
                if self.pessimistic { PessimisticAction::Locked } else { PessimisticAction::Skip };
            items.push(item);
        }
        // A long value now and then, or a lock without one.
        for log in self.keys[self.accounts..].iter().cloned() {
            items.push(match around.prng.below(3) {
                0 => PrewriteKey::new(Op::Lock, log, Bytes::new()),
                1 => PrewriteKey::new(Op::Put, log, "done".into()),
                _ => PrewriteKey::new(Op::Put, log, "x".repeat(300).into()),
            });
        }
        let secondaries: Vec<Bytes> = self.keys[1..].iter().map(|key| key.user().clone()).collect();
        let whole = Prewrite {
            keys: items,
            primary: self.primary().clone(),
            start_ts: self.start_ts,
            ttl_ms: TTL_MS,
            txn_size: 3,
            for_update_ts: self.for_update_ts,
            // With a bound, readers push it instead of waiting.
            min_commit_ts: TimeStamp(around.prng.below(2) * (self.start_ts.0 + 1)),
            secondaries: self.async_commit.then_some(secondaries),
            try_one_pc: self.one_pc,
            ..Prewrite::default()
        };
        self.batches = if self.one_pc || around.prng.one_in(2) {
            vec![whole]
        } else {
            let mut second = whole.clone();
            let mut first = whole;
            second.keys = first.keys.split_off(1);
            vec![first, second]
        };
        around.send.push(Rpc::Prewrite(self.batches[0].clone()));
    }

    fn on_prewrite(&mut self, reply: PrewriteReply, around: &mut Around<'_>) {
        let mut locked = false;
        for error in &reply.errors {
            match error {
                KeyError::Locked(info) => {
                    around.meet(info);
                    locked = true;
                }
                _ => return self.give_up(around),
            }
        }
        if locked {
            if self.try_again(around) {
                around.send.push(Rpc::Prewrite(self.batches[0].clone()));
            }
            return;
        }
        let done = self.batches.remove(0);
        if reply.one_pc_commit_ts.0 != 0 {
            assert!(done.try_one_pc);
            self.told = Some(Told::Committed(reply.one_pc_commit_ts));
            self.phase = Phase::Over;
            return;
        }
        // Zero: this batch is no async commit, so none is.
        self.async_commit &= reply.min_commit_ts.0 != 0;
        self.min_commit_ts = self.min_commit_ts.max(reply.min_commit_ts);
        if let Some(next) = self.batches.first() {
            around.send.push(Rpc::Prewrite(next.clone()));
            return;
        }
        if self.async_commit {
            self.commit_ts = self.min_commit_ts;
            self.told = Some(Told::Committed(self.commit_ts));
            self.phase = Phase::Over;
            let (start_ts, commit_ts) = (self.start_ts, self.commit_ts);
            let first = Commit { keys: vec![self.keys[0].clone()], start_ts, commit_ts };
            around.forget.push(Rpc::Commit(first));
            self.commit_rest(around);
            return;
        }
        self.commit(around);
    }

    fn commit(&mut self, around: &mut Around<'_>) {
        self.phase = Phase::Committing;
        self.commit_ts = (around.tso)();
        let (start_ts, commit_ts) = (self.start_ts, self.commit_ts);
        let keys = vec![self.keys[0].clone()];
        around.send.push(Rpc::Commit(Commit { keys, start_ts, commit_ts }));
    }

    fn commit_rest(&mut self, around: &mut Around<'_>) {
        let (start_ts, commit_ts) = (self.start_ts, self.commit_ts);
        let keys = self.keys[1..].to_vec();
        around.forget.push(Rpc::Commit(Commit { keys, start_ts, commit_ts }));
    }

    fn give_up(&mut self, around: &mut Around<'_>) {
        self.phase = Phase::RollingBack;
        let (start_ts, keys) = (self.start_ts, self.keys.clone());
        if self.pessimistic && around.prng.one_in(2) {
            let for_update_ts = self.for_update_ts;
            let keys = keys[..2].to_vec();
            around.forget.push(Rpc::Unlock(PessimisticRollback { keys, start_ts, for_update_ts }));
        }
        around.send.push(Rpc::Rollback(BatchRollback { keys, start_ts }));
    }
}

/// Somebody met a lock.
pub struct Resolver {
    met: LockInfo,
    force_sync: bool,
    /// Locks of the async commit that is being looked at, the primary's first.
    primary: Option<LockInfo>,
    pub resolved: bool,
}

impl Resolver {
    pub fn new(met: LockInfo) -> Self {
        Self { met, force_sync: false, primary: None, resolved: false }
    }

    pub fn begin(&mut self, around: &mut Around<'_>, now: TimeStamp) {
        let is_pessimistic = self.met.lock.kind == txn::mvcc::LockKind::Pessimistic;
        around.send.push(Rpc::Status(CheckTxnStatus {
            primary: Key::new(self.met.lock.primary.clone()),
            lock_ts: self.met.lock.start_ts,
            caller_start_ts: (around.tso)(),
            current_ts: now,
            rollback_if_not_exist: true,
            force_sync_commit: self.force_sync,
            resolving_pessimistic_lock: is_pessimistic,
            verify_is_primary: around.prng.one_in(2),
        }));
    }

    /// Goes on; `now` is the time by which locks are judged.
    pub fn on_answer(&mut self, answer: Answer, around: &mut Around<'_>, now: TimeStamp) {
        match answer {
            Answer::Status(TxnStatus::Locked(info), _) => {
                let is_async = info.lock.is_async_commit() && !self.force_sync;
                if is_async && (now == TimeStamp::MAX || info.lock.is_expired(now)) {
                    let keys = info.lock.secondaries.iter().flatten();
                    let keys = keys.map(|key| Key::new(key.clone())).collect();
                    let start_ts = info.lock.start_ts;
                    self.primary = Some(*info);
                    around.send.push(Rpc::Secondaries(CheckSecondaryLocks { keys, start_ts }));
                }
            }
            Answer::Status(TxnStatus::Committed(at), _) => self.resolve(at, around),
            Answer::Status(TxnStatus::RolledBack, action) => {
                if self.met.lock.kind == txn::mvcc::LockKind::Pessimistic {
                    let (start_ts, for_update_ts) = (self.met.lock.start_ts, TimeStamp::MAX);
                    let keys = vec![Key::new(self.met.key.clone())];
                    let unlock = PessimisticRollback { keys, start_ts, for_update_ts };
                    around.forget.push(Rpc::Unlock(unlock));
                } else {
                    assert!(action != StatusAction::TtlExpirePessimisticRollback);
                    self.resolve(TimeStamp(0), around);
                }
            }
            Answer::Secondaries(SecondaryStatus::Locked(locks)) => {
                let primary = self.primary.clone().expect("asked about its secondaries");
                if locks.iter().any(|info| !info.lock.is_async_commit()) {
                    self.force_sync = true;
                    return self.begin(around, now);
                }
                let all = locks.iter().chain([&primary]);
                let at = all.map(|info| info.lock.min_commit_ts).max().expect("the primary's");
                self.resolve_all(at, around);
            }
            Answer::Secondaries(SecondaryStatus::Committed(at)) => self.resolve_all(at, around),
            Answer::Secondaries(SecondaryStatus::RolledBack) => {
                self.resolve_all(TimeStamp(0), around);
            }
            Answer::Failed(_) => {}
            _ => panic!("an answer of another kind"),
        }
    }

    fn resolve(&mut self, at: TimeStamp, around: &mut Around<'_>) {
        self.resolved = true;
        let keys = vec![Key::new(self.met.key.clone())];
        self.send_resolve(keys, at, around);
    }

    /// Of an async commit: every key, since nobody else will know the outcome.
    fn resolve_all(&mut self, at: TimeStamp, around: &mut Around<'_>) {
        self.resolved = true;
        let primary = self.primary.take().expect("an async commit is asked about by its primary");
        let secondaries = primary.lock.secondaries.iter().flatten();
        let keys: BTreeSet<Key> =
            secondaries.chain([&primary.key]).map(|key| Key::new(key.clone())).collect();
        self.send_resolve(keys.into_iter().collect(), at, around);
    }

    fn send_resolve(&self, keys: Vec<Key>, at: TimeStamp, around: &mut Around<'_>) {
        let outcomes = [(self.met.lock.start_ts, at)].into();
        // By keys, or by what is found there: the node knows.
        let is_lite = around.prng.one_in(2);
        around.forget.push(Rpc::Resolve(ResolveLock { outcomes, keys, is_lite }));
    }
}
