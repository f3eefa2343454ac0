//! The end of a transaction: what is decided when, and what is done about failures.
//!
//! | prewritten | committed when | told the caller |
//! | --- | --- | --- |
//! | in one phase | the one proposal is applied | its timestamp |
//! | async | the last lock is there | the largest `min_commit_ts` |
//! | otherwise | the primary's commit is applied | a timestamp of after all prewrites |
//!
//! Secondaries are committed in the background. Failing is harder than it looks: once a request of
//! an async or one-phase commit has been sent, others may complete the transaction. So a failure
//! that leaves that open is settled first, in the way in which anybody would settle it who met the
//! locks: the outcome is then found, not assumed. If even that fails it is [undetermined]
//! (ClientError::Undetermined).

use std::sync::Arc;

use base::TimeStamp;
use bytes::Bytes;
use proto::kvrpcpb::{self, CommitRole};

use super::heart::Heart;
use super::prewrite::{Failure, Plan, prewrite, writes_lock};
use super::{Txn, unlock_request};
use crate::calls::{StoreReply, StoreRequest};
use crate::core::{Core, Passing, other_kind};
use crate::error::ClientError;
use crate::key_error;
use crate::link::Link;
use crate::resolver::Fate;

/// A commit of so many keys may outlast its locks, so that they are kept alive.
const MANY_KEYS: usize = 1024;

const CALL: &str = "KvCommit";

/// Keys in one request to commit.
const KEYS_A_REQUEST: usize = 1024;

impl<L: Link> Txn<L> {
    /// Commits, and returns the timestamp at which everybody sees what was written; none if
    /// nothing was.
    ///
    /// On any error but [`ClientError::Undetermined`] nothing took effect and never will. A future
    /// that is dropped before it is ready leaves the outcome open.
    pub async fn commit(mut self) -> Result<Option<TimeStamp>, ClientError> {
        if self.options.pessimistic && !self.buffer.has_writes() {
            self.release_later();
            return Ok(None);
        }
        let Some(plan) = self.plan().await? else { return Ok(None) };
        if self.heart.is_none() && plan.mutations.len() > MANY_KEYS {
            self.heart = Some(Heart::start(&self.core, plan.life.clone()));
        }
        let committer = Committer { core: self.core.clone(), plan: Arc::new(plan) };
        let outcome = committer.run().await;
        // Whatever came of it, what is left is dealt with.
        self.is_over = true;
        outcome
    }

    /// What there is to commit; none if there is nothing.
    async fn plan(&mut self) -> Result<Option<Plan>, ClientError> {
        let pessimistic = self.options.pessimistic;
        let mutations = self.buffer.mutations(pessimistic);
        let mut life = self.life.clone();
        if life.primary.is_empty() {
            let first = mutations.iter().find(|(mutation, _)| writes_lock(mutation));
            let Some((first, _)) = first.or(mutations.first()) else { return Ok(None) };
            life.primary = first.key.clone();
        }
        let async_commit = self.options.async_commit && Plan::fits_async(&mutations);
        let one_pc = self.options.one_pc;
        let mut min_commit_ts = life.start_ts.max(self.for_update_ts);
        if (async_commit || one_pc) && !self.options.causal {
            min_commit_ts = min_commit_ts.max(self.core.timestamp().await?);
        }
        Ok(Some(Plan {
            keys: self.keys,
            life,
            sorted: mutations.iter().map(|(mutation, _)| mutation.key.clone()).collect(),
            mutations,
            for_update_ts: self.for_update_ts,
            pessimistic,
            async_commit,
            one_pc,
            min_commit_ts: TimeStamp(min_commit_ts.0 + 1),
        }))
    }

    /// Gives pessimistic locks back that guarded nothing that is written.
    fn release_later(&mut self) {
        self.is_over = true;
        let locked = self.buffer.locked();
        if locked.is_empty() {
            return;
        }
        let (core, keys) = (self.core.clone(), self.keys);
        let build = unlock_request(self.life.start_ts);
        self.core.link.spawn(Box::pin(async move {
            let _ = core.all_regions(keys, &locked, &build).await;
        }));
    }
}

/// Brings a plan to its end.
struct Committer<L> {
    core: Arc<Core<L>>,
    plan: Arc<Plan>,
}

impl<L: Link> Committer<L> {
    async fn run(&self) -> Result<Option<TimeStamp>, ClientError> {
        let prewritten = match Box::pin(prewrite(&self.core, &self.plan)).await {
            Ok(prewritten) => prewritten,
            Err(failure) => return self.fail(failure).await.map(Some),
        };
        let locked = self.plan.locked_keys();
        if locked.is_empty() {
            return Ok(None);
        }
        if let Some(at) = prewritten.one_pc {
            return Ok(Some(at));
        }
        if let Some(at) = prewritten.async_at {
            self.commit_later(locked, at);
            return Ok(Some(at));
        }
        let at = Box::pin(self.commit_primary(&locked)).await?;
        if prewritten.lost && self.plan.one_pc {
            // A first try whose answer was lost may have committed it, at its own timestamp.
            let fate = self.core.settle(self.plan.keys, &self.plan.life.primary, self.start_ts());
            if let Ok(Fate::Committed(at)) = Box::pin(fate).await {
                return Ok(Some(at));
            }
        }
        Ok(Some(at))
    }

    fn start_ts(&self) -> TimeStamp {
        self.plan.life.start_ts
    }

    /// The prewrite failed. The timestamp is that of a commit that others have completed.
    async fn fail(&self, failure: Failure) -> Result<TimeStamp, ClientError> {
        let others_may_commit = self.plan.async_commit || self.plan.one_pc;
        if !others_may_commit || failure.is_final {
            self.roll_back_later();
            return Err(failure.error);
        }
        let (core, keys, start_ts) = (&self.core, self.plan.keys, self.start_ts());
        match Box::pin(core.settle(keys, &self.plan.life.primary, start_ts)).await {
            Ok(Fate::Committed(at)) => {
                self.commit_later(self.plan.locked_keys(), at);
                Ok(at)
            }
            Ok(_) => {
                self.roll_back_later();
                Err(failure.error)
            }
            Err(_) => {
                let cause = failure.error.to_string();
                Err(ClientError::Undetermined { call: "KvPrewrite", cause })
            }
        }
    }

    /// Commits the primary, with what lies next to it, and sees to the rest later.
    async fn commit_primary(&self, locked: &[Bytes]) -> Result<TimeStamp, ClientError> {
        let mut lost = false;
        match self.try_commit_primary(locked, &mut lost).await {
            Ok((at, done)) => {
                let rest = locked.iter().filter(|key| !done.contains(*key)).cloned().collect();
                self.commit_later(rest, at);
                Ok(at)
            }
            // A rollback record, or no lock, stays: whatever was sent, nothing is committed.
            Err(error @ ClientError::RolledBack { .. }) => {
                self.roll_back_later();
                Err(error)
            }
            Err(error) if lost => {
                Err(ClientError::Undetermined { call: CALL, cause: error.to_string() })
            }
            Err(error) => {
                self.roll_back_later();
                Err(error)
            }
        }
    }

    async fn try_commit_primary(
        &self,
        locked: &[Bytes],
        lost: &mut bool,
    ) -> Result<(TimeStamp, Vec<Bytes>), ClientError> {
        let (core, primary) = (&self.core, &self.plan.life.primary);
        let from = locked.binary_search(primary).expect("the primary is one of the keys");
        let mut backoff = core.backoff();
        let mut at = core.timestamp().await?;
        loop {
            let group = core.first_group(self.plan.keys, &locked[from..], KEYS_A_REQUEST).await?;
            let these = locked[from..from + group.count].to_vec();
            let request = self.commit_request(these.clone(), at, CommitRole::Primary);
            let reply = match core.send(&group.region, request).await? {
                Ok(StoreReply::KvCommit(reply)) => reply,
                Ok(_) => return Err(other_kind(CALL)),
                Err(Passing { why, lost: is_lost }) => {
                    *lost |= is_lost;
                    core.pause(&mut backoff, CALL, why).await?;
                    continue;
                }
            };
            match reply.error {
                None => return Ok((at, these)),
                // A reader pushed it: earlier tries at the old timestamp cannot succeed either.
                Some(error) if error.commit_ts_expired.is_some() => {
                    let why = "the commit was pushed".to_owned();
                    core.pause(&mut backoff, CALL, why).await?;
                    at = core.timestamp().await?;
                }
                Some(error) => return Err(key_error::typed(CALL, error)),
            }
        }
    }

    fn commit_request(&self, keys: Vec<Bytes>, at: TimeStamp, role: CommitRole) -> StoreRequest {
        StoreRequest::KvCommit(kvrpcpb::CommitRequest {
            start_version: self.start_ts().0,
            keys,
            commit_version: at.0,
            commit_role: role.into(),
            primary_key: self.plan.life.primary.clone(),
            use_async_commit: self.plan.async_commit,
            ..Default::default()
        })
    }

    /// It is committed: turns what is still a lock into a record, in the background. Whoever meets
    /// one before finds out for himself.
    fn commit_later(&self, keys: Vec<Bytes>, at: TimeStamp) {
        if keys.is_empty() {
            return;
        }
        let of = Committer { core: self.core.clone(), plan: self.plan.clone() };
        self.core.link.spawn(Box::pin(async move {
            let role = CommitRole::Secondary;
            let build = |keys: &[Bytes]| of.commit_request(keys.to_vec(), at, role);
            let _ = of.core.all_regions(of.plan.keys, &keys, &build).await;
        }));
    }

    /// It is not committed and will not be: clears its locks away, in the background. The records
    /// that this leaves keep late requests out.
    fn roll_back_later(&self) {
        let (core, plan, start_version) = (self.core.clone(), self.plan.clone(), self.start_ts().0);
        self.core.link.spawn(Box::pin(async move {
            let build = |keys: &[Bytes]| {
                let keys = keys.to_vec();
                StoreRequest::KvBatchRollback(kvrpcpb::BatchRollbackRequest {
                    start_version,
                    keys,
                    ..Default::default()
                })
            };
            let _ = core.all_regions(plan.keys, &plan.locked_keys(), &build).await;
        }));
    }
}
