//! The first phase: every key gets a lock with its new value, or the commit fails.

use std::ops::Range;
use std::sync::Arc;

use base::TimeStamp;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use proto::kvrpcpb::prewrite_request::PessimisticAction;
use proto::kvrpcpb::{self, KeyError, LockInfo, Mutation, Op};

use super::heart::Life;
use crate::backoff::Backoff;
use crate::calls::{StoreReply, StoreRequest};
use crate::core::{Core, other_kind};
use crate::error::ClientError;
use crate::key_error;
use crate::keys::Keys;
use crate::link::Link;
use crate::resolver::Reader;

/// Bytes and keys of one request, so that no proposal is large.
const PART_BYTES_MAX: usize = 256 << 10;
const PART_KEYS_MAX: usize = 1024;

/// Requests under way at a time.
const PARTS_AT_ONCE: usize = 16;

/// An async commit lists all its keys in one lock: not more than these, nor bytes of them.
const ASYNC_KEYS_MAX: usize = 256;
const ASYNC_BYTES_MAX: usize = 4096;

const CALL: &str = "KvPrewrite";

/// What is to be committed, and how.
pub(super) struct Plan {
    pub(super) keys: Keys,
    pub(super) life: Life,
    /// In key order, and for each whether it is under a pessimistic lock.
    pub(super) mutations: Vec<(Mutation, bool)>,
    /// Their keys.
    pub(super) sorted: Vec<Bytes>,
    pub(super) for_update_ts: TimeStamp,
    pub(super) pessimistic: bool,
    pub(super) async_commit: bool,
    pub(super) one_pc: bool,
    /// The commit will not be below this.
    pub(super) min_commit_ts: TimeStamp,
}

/// All keys are locked, or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prewritten {
    /// Committed by one phase.
    pub(super) one_pc: Option<TimeStamp>,
    /// Committed at this timestamp, as an async commit.
    pub(super) async_at: Option<TimeStamp>,
    /// An answer was lost on the way, so a part may have been served more than once.
    pub(super) lost: bool,
}

/// The commit fails.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: ClientError,
    /// A key of it can never be locked any more, not even by a request that is still under way.
    pub(super) is_final: bool,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        // A newer version and a rollback record stay.
        let is_final =
            matches!(error, ClientError::Conflict { .. } | ClientError::RolledBack { .. });
        Failure { error, is_final }
    }
}

impl Plan {
    /// Whether few enough keys are written for one lock to list them.
    pub(super) fn fits_async(mutations: &[(Mutation, bool)]) -> bool {
        let bytes: usize = mutations.iter().map(|(mutation, _)| mutation.key.len()).sum();
        mutations.len() <= ASYNC_KEYS_MAX && bytes <= ASYNC_BYTES_MAX
    }

    /// The keys that get locks.
    pub(super) fn locked_keys(&self) -> Vec<Bytes> {
        let locked = self.mutations.iter().filter(|(mutation, _)| writes_lock(mutation));
        locked.map(|(mutation, _)| mutation.key.clone()).collect()
    }

    /// How many mutations from `from` on fit into one request.
    fn fits(&self, from: usize) -> usize {
        let mut bytes = 0;
        let sizes = self.mutations[from..].iter().map(|(m, _)| m.key.len() + m.value.len());
        let fitting = sizes.take(PART_KEYS_MAX).take_while(|size| {
            bytes += size;
            bytes <= PART_BYTES_MAX
        });
        fitting.count().max(1)
    }

    fn request(&self, part: Range<usize>, is_all: bool, now: base::Instant) -> StoreRequest {
        let part = &self.mutations[part];
        let has_primary = part.iter().any(|(mutation, _)| mutation.key == self.life.primary);
        let action = |(_, is_locked): &(Mutation, bool)| match is_locked {
            true => PessimisticAction::DoPessimisticCheck.into(),
            false => PessimisticAction::SkipPessimisticCheck.into(),
        };
        let actions = part.iter().map(action).collect();
        let secondaries = match self.async_commit && has_primary {
            true => {
                self.locked_keys().into_iter().filter(|key| *key != self.life.primary).collect()
            }
            false => Vec::new(),
        };
        StoreRequest::KvPrewrite(kvrpcpb::PrewriteRequest {
            mutations: part.iter().map(|(mutation, _)| mutation.clone()).collect(),
            primary_lock: self.life.primary.clone(),
            start_version: self.life.start_ts.0,
            lock_ttl: self.life.ttl_ms(now),
            pessimistic_actions: if self.pessimistic { actions } else { Vec::new() },
            txn_size: self.mutations.len() as u64,
            for_update_ts: if self.pessimistic { self.for_update_ts.0 } else { 0 },
            min_commit_ts: self.min_commit_ts.0,
            use_async_commit: self.async_commit,
            secondaries,
            try_one_pc: self.one_pc && is_all,
            ..Default::default()
        })
    }
}

/// Whether a mutation leaves a lock.
pub(super) fn writes_lock(mutation: &Mutation) -> bool {
    mutation.op() != Op::CheckNotExists
}

/// Prewrites everything, region beside region.
pub(super) async fn prewrite<L: Link>(
    core: &Arc<Core<L>>,
    plan: &Plan,
) -> Result<Prewritten, Failure> {
    let (mut at, mut parts) = (0, Vec::new());
    while at < plan.sorted.len() {
        let group = core.first_group(plan.keys, &plan.sorted[at..], plan.fits(at)).await?;
        parts.push(at..at + group.count);
        at += group.count;
    }
    let mut parts = parts.into_iter();
    let mut running: FuturesUnordered<_> =
        parts.by_ref().take(PARTS_AT_ONCE).map(|part| prewrite_part(core, plan, part)).collect();
    let (mut sum, mut is_async) = (Done::default(), plan.async_commit);
    while let Some(done) = running.next().await {
        let done = done?;
        is_async &= done.min_commit_ts != 0;
        sum.min_commit_ts = sum.min_commit_ts.max(done.min_commit_ts);
        sum.one_pc_commit_ts = sum.one_pc_commit_ts.max(done.one_pc_commit_ts);
        sum.lost |= done.lost;
        running.extend(parts.next().map(|part| prewrite_part(core, plan, part)));
    }
    Ok(Prewritten {
        one_pc: (sum.one_pc_commit_ts != 0).then_some(TimeStamp(sum.one_pc_commit_ts)),
        async_at: is_async.then_some(TimeStamp(sum.min_commit_ts)),
        lost: sum.lost,
    })
}

/// What the answers of a part said.
#[derive(Default)]
struct Done {
    /// 0 if one of them is no async commit.
    min_commit_ts: u64,
    one_pc_commit_ts: u64,
    lost: bool,
}

/// Prewrites a part, which lay in one region when it was cut off.
async fn prewrite_part<L: Link>(
    core: &Arc<Core<L>>,
    plan: &Plan,
    part: Range<usize>,
) -> Result<Done, Failure> {
    let (mut at, mut done, mut is_async) = (part.start, Done::default(), true);
    let (mut backoff, mut is_retry) = (core.backoff(), false);
    while at < part.end {
        let group = core.first_group(plan.keys, &plan.sorted[at..part.end], plan.fits(at)).await?;
        let these = at..at + group.count;
        let is_all = these.len() == plan.mutations.len();
        let mut request = plan.request(these.clone(), is_all, core.link.now());
        request.context_mut().is_retry_request = is_retry;
        let reply = match core.send(&group.region, request).await? {
            Ok(StoreReply::KvPrewrite(reply)) => reply,
            Ok(_) => return Err(other_kind(CALL).into()),
            Err(passing) => {
                is_retry = true;
                done.lost |= passing.lost;
                core.pause(&mut backoff, CALL, passing.why).await?;
                continue;
            }
        };
        if !reply.errors.is_empty() {
            clear_way(core, plan, reply.errors, &mut backoff).await?;
            continue;
        }
        is_async &= reply.min_commit_ts != 0;
        done.min_commit_ts = done.min_commit_ts.max(reply.min_commit_ts);
        done.one_pc_commit_ts = done.one_pc_commit_ts.max(reply.one_pc_commit_ts);
        at = these.end;
        (backoff, is_retry) = (core.backoff(), false);
    }
    if !is_async {
        done.min_commit_ts = 0;
    }
    Ok(done)
}

/// Resolves the locks in the way, or waits for them; other errors end the commit.
async fn clear_way<L: Link>(
    core: &Arc<Core<L>>,
    plan: &Plan,
    errors: Vec<KeyError>,
    backoff: &mut Backoff,
) -> Result<(), ClientError> {
    let (locked, others): (Vec<_>, Vec<_>) =
        errors.into_iter().partition(|error| error.locked.is_some());
    if let Some(error) = others.into_iter().next() {
        return Err(key_error::typed(CALL, error));
    }
    let locks: Vec<LockInfo> = locked.into_iter().filter_map(|error| error.locked).collect();
    let met = Box::pin(core.meet(plan.keys, locks, Reader::None)).await?;
    let Some(lock) = met.alive else { return Ok(()) };
    let paused = core.pause(backoff, CALL, String::new()).await;
    paused.map_err(|_| ClientError::Locked {
        key: plan.keys.user_key(&lock.key),
        holder: TimeStamp(lock.lock_version),
    })
}
