//! Pessimistic locks: a key is reserved when it is touched, and read as of that moment.
//!
//! Each try carries a fresh `for_update_ts`, and a key whose newest version is not above it is
//! locked. Whoever waited for somebody's lock is told of a conflict when that one has gone, since a
//! newer version may be there now, and tries again with the next timestamp.

use base::TimeStamp;
use bytes::Bytes;
use proto::kvrpcpb::{self, Assertion, KeyError, LockInfo, Op};

use super::heart::Heart;
use super::{Txn, buffer};
use crate::calls::{StoreReply, StoreRequest};
use crate::core::other_kind;
use crate::error::ClientError;
use crate::key_error;
use crate::link::Link;
use crate::resolver::Reader;

/// Keys in one request.
const KEYS_A_REQUEST: usize = 256;

/// What a lock is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// To have it.
    Lock,
    /// To read the newest value.
    Values,
    /// To be sure that there is no value.
    Absence,
}

impl<L: Link> Txn<L> {
    /// Locks all of `keys` or, with an error, none that was not locked before.
    pub(super) async fn lock_data(
        &mut self,
        mut keys: Vec<Bytes>,
        want: Want,
    ) -> Result<(), ClientError> {
        keys.sort();
        keys.dedup();
        let is_done = |key: &Bytes| {
            self.buffer.is_locked(key) && (want == Want::Lock || self.buffer.value(key).is_some())
        };
        keys.retain(|key| !is_done(key));
        let Some(first) = keys.first() else { return Ok(()) };
        let is_first = self.life.primary.is_empty();
        if is_first {
            self.life.primary = first.clone();
        }
        let new: Vec<_> = keys.iter().filter(|key| !self.buffer.is_locked(key)).cloned().collect();
        let outcome = self.lock_regions(&keys, want).await;
        if outcome.is_err() {
            self.unlock_later(new);
            if is_first {
                self.life.primary = Bytes::new();
            }
            return outcome;
        }
        if self.heart.is_none() {
            self.heart = Some(Heart::start(&self.core, self.life.clone()));
        }
        match want {
            Want::Absence => self.check_absence(&keys),
            Want::Lock | Want::Values => Ok(()),
        }
    }

    /// Region by region, so that the primary's lock is there first.
    async fn lock_regions(&mut self, keys: &[Bytes], want: Want) -> Result<(), ClientError> {
        let mut left = keys;
        let core = self.core.clone();
        let mut backoff = core.backoff();
        let deadline = core.link.now() + self.options.lock_wait;
        self.for_update_ts = core.timestamp().await?;
        while !left.is_empty() {
            let group = core.first_group(self.keys, left, KEYS_A_REQUEST).await?;
            let (these, rest) = left.split_at(group.count);
            let wait = deadline.since(core.link.now());
            let request = StoreRequest::KvPessimisticLock(self.lock_request(these, want, wait));
            let mut reply = match core.send(&group.region, request).await? {
                Ok(StoreReply::KvPessimisticLock(reply)) => reply,
                Ok(_) => return Err(other_kind("KvPessimisticLock")),
                Err(passing) => {
                    core.pause(&mut backoff, "KvPessimisticLock", passing.why).await?;
                    continue;
                }
            };
            let errors = std::mem::take(&mut reply.errors);
            if errors.is_empty() {
                self.take_locks(these, want, reply)?;
                left = rest;
                backoff = core.backoff();
                continue;
            }
            match self.clear_way(errors).await? {
                None => self.for_update_ts = core.timestamp().await?,
                Some(lock) if core.link.now() >= deadline => {
                    return Err(ClientError::Locked {
                        key: self.keys.user_key(&lock.key),
                        holder: TimeStamp(lock.lock_version),
                    });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn lock_request(
        &self,
        keys: &[Bytes],
        want: Want,
        wait: std::time::Duration,
    ) -> kvrpcpb::PessimisticLockRequest {
        let is_unlocked = |key: &Bytes| !self.buffer.is_locked(key);
        let mutation = |key: &Bytes| kvrpcpb::Mutation {
            op: Op::PessimisticLock.into(),
            key: key.clone(),
            assertion: match want {
                Want::Absence if is_unlocked(key) => Assertion::NotExist.into(),
                _ => Assertion::None.into(),
            },
            ..Default::default()
        };
        // A negative time to wait is none, and 0 is whatever the store is used to.
        let wait_timeout = match i64::try_from(wait.as_millis()) {
            Ok(0) => -1,
            Ok(ms) => ms,
            Err(_) => i64::MAX,
        };
        kvrpcpb::PessimisticLockRequest {
            mutations: keys.iter().map(mutation).collect(),
            primary_lock: self.life.primary.clone(),
            start_version: self.life.start_ts.0,
            lock_ttl: self.life.ttl_ms(self.core.link.now()),
            for_update_ts: self.for_update_ts.0,
            is_first_lock: self.heart.is_none(),
            wait_timeout,
            return_values: want != Want::Lock,
            min_commit_ts: self.for_update_ts.0 + 1,
            ..Default::default()
        }
    }

    fn take_locks(
        &mut self,
        keys: &[Bytes],
        want: Want,
        reply: kvrpcpb::PessimisticLockResponse,
    ) -> Result<(), ClientError> {
        if want != Want::Lock && reply.values.len() != keys.len() {
            let (call, what) = ("KvPessimisticLock", "value for each key");
            return Err(ClientError::Malformed { call, what });
        }
        for (i, key) in keys.iter().enumerate() {
            let entry: &mut buffer::Entry = self.buffer.entry(key);
            entry.is_locked = true;
            if want != Want::Lock {
                let is_missing = reply.not_founds.get(i).copied().unwrap_or(false);
                entry.seen = Some((!is_missing).then(|| reply.values[i].clone()));
            }
        }
        Ok(())
    }

    /// Deals with what was in the way: a lock whose holder lives, or nothing any more, so that
    /// another try with a new timestamp may succeed.
    async fn clear_way(&self, errors: Vec<KeyError>) -> Result<Option<LockInfo>, ClientError> {
        let mut locks: Vec<LockInfo> = Vec::new();
        for mut error in errors {
            match error.locked.take() {
                Some(lock) => locks.push(lock),
                None if is_newer_version(&error) => return Ok(None),
                None => return Err(key_error::typed("KvPessimisticLock", error)),
            }
        }
        Ok(Box::pin(self.core.meet(self.keys, locks, Reader::None)).await?.alive)
    }

    fn check_absence(&self, keys: &[Bytes]) -> Result<(), ClientError> {
        let found = keys.iter().find(|key| matches!(self.buffer.value(key), Some(Some(_))));
        match found {
            Some(key) => Err(ClientError::AlreadyExists { key: self.keys.user_key(key) }),
            None => Ok(()),
        }
    }

    /// Gives locks back that were taken, or may have been, up to this `for_update_ts`: later tries
    /// have a later one.
    fn unlock_later(&mut self, keys: Vec<Bytes>) {
        for key in &keys {
            self.buffer.unlock(key);
        }
        let (core, form) = (self.core.clone(), self.keys);
        let (start_version, for_update_ts) = (self.life.start_ts.0, self.for_update_ts.0);
        self.core.link.spawn(Box::pin(async move {
            let build = |keys: &[Bytes]| {
                let keys = keys.to_vec();
                StoreRequest::KvPessimisticRollback(kvrpcpb::PessimisticRollbackRequest {
                    start_version,
                    for_update_ts,
                    keys,
                    ..Default::default()
                })
            };
            // What cannot be reached now is resolved by whoever meets it.
            let _ = core.all_regions(form, &keys, &build).await;
        }));
    }
}

/// The key has a version above the timestamp of this try.
fn is_newer_version(error: &KeyError) -> bool {
    use kvrpcpb::write_conflict::Reason;
    let reason = error.conflict.as_ref().map(|conflict| conflict.reason());
    reason.is_some_and(|reason| reason != Reason::SelfRolledBack)
}
