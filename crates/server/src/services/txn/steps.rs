//! Commands that go through a region in steps: some keys are found without latches, then each step
//! is a command of its own on those keys, on a new snapshot.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{KeyRange, TimeStamp};
use bytes::Bytes;
use proto::kvrpcpb;
use store::{FlashbackRequest, Purpose, RegionError, RequestHeader, ShardInput};
use tokio::sync::oneshot;
use tonic::Status;
use txn::TxnError;
use txn::actions::ResolveLock;
use txn::mvcc::{Key, Lock, LockScan, Reader};
use txn::scheduler::{Command, Reply, Step};

use super::{Target, TxnService, context_of};
use crate::errors::{Refusal, settle, txn_refusal};
use crate::services::raw::on_pool;
use crate::store_handle::{ReadGuard, reply_into};
use txn::wire::requests::region_range;

/// Locks of one step of a rollback without keys.
const UNLOCK_BATCH: usize = 256;

/// How often, and how long, is looked for a change that the store has applied.
const VIEW_LOOK_INTERVAL: Duration = Duration::from_millis(1);
const VIEW_TIMEOUT: Duration = Duration::from_secs(1);

impl TxnService {
    /// `KvResolveLock`.
    pub(crate) async fn resolve_lock(
        &self,
        request: kvrpcpb::ResolveLockRequest,
    ) -> Result<kvrpcpb::ResolveLockResponse, Status> {
        self.store().metrics().txn_commands(1);
        settle(self.try_resolve_lock(request).await.map(|()| Default::default()))
    }

    async fn try_resolve_lock(
        &self,
        mut request: kvrpcpb::ResolveLockRequest,
    ) -> Result<(), Refusal> {
        let context = context_of(&mut request.context);
        let target = self.target(&context)?;
        let resolve = self.requests().resolve(&context, request)?;
        if resolve.is_lite {
            return self.execute(target, Command::Resolve(resolve)).await.map(drop);
        }
        let mut from = KeyRange::all();
        loop {
            let (this, range) = (resolve.clone(), from.clone());
            let find = move |reader: &mut Reader<'_>| {
                this.check_request()?;
                this.find(reader, &range)
            };
            let LockScan { locks, next } = self.find(&target, find).await?;
            if locks.is_empty() {
                return Ok(());
            }
            let keys = locks.into_iter().map(|(key, _)| key).collect();
            let step = ResolveLock { keys, ..resolve.clone() };
            let rest = self.execute(target, Command::Resolve(step)).await?;
            let Some(rest) = where_to_go_on(rest, next) else { return Ok(()) };
            from.start = rest.region();
        }
    }

    /// `KVPessimisticRollback`.
    pub(crate) async fn pessimistic_rollback(
        &self,
        request: kvrpcpb::PessimisticRollbackRequest,
    ) -> Result<kvrpcpb::PessimisticRollbackResponse, Status> {
        self.store().metrics().txn_commands(1);
        settle(self.try_pessimistic_rollback(request).await.map(|()| Default::default()))
    }

    async fn try_pessimistic_rollback(
        &self,
        mut request: kvrpcpb::PessimisticRollbackRequest,
    ) -> Result<(), Refusal> {
        let context = context_of(&mut request.context);
        let target = self.target(&context)?;
        let unlock = self.requests().unlock(&context, request)?;
        if !unlock.keys.is_empty() {
            return self.execute(target, Command::Unlock(unlock)).await.map(drop);
        }
        let mut from = KeyRange::all();
        loop {
            let (this, range) = (unlock.clone(), from.clone());
            let find = move |reader: &mut Reader<'_>| this.find(reader, &range, UNLOCK_BATCH);
            let LockScan { locks, next } = self.find(&target, find).await?;
            let mut step = unlock.clone();
            step.keys = locks.into_iter().map(|(key, _)| key).collect();
            if !step.keys.is_empty() {
                self.execute(target, Command::Unlock(step)).await?;
            }
            let Some(next) = next else { return Ok(()) };
            from.start = next.region();
        }
    }

    /// `KvPrepareFlashbackToVersion`.
    pub(crate) async fn prepare_flashback(
        &self,
        request: kvrpcpb::PrepareFlashbackToVersionRequest,
    ) -> Result<kvrpcpb::PrepareFlashbackToVersionResponse, Status> {
        settle(self.try_prepare_flashback(request).await.map(|()| Default::default()))
    }

    async fn try_prepare_flashback(
        &self,
        mut request: kvrpcpb::PrepareFlashbackToVersionRequest,
    ) -> Result<(), Refusal> {
        let context = context_of(&mut request.context);
        let target = self.target(&context)?;
        let prepare = self.requests().prepare_flashback(&context, &request)?;
        self.close_for_flashback(&target, Some(prepare.start_ts)).await?;
        let target = for_flashback(target);
        let mut from = KeyRange::all();
        loop {
            let (this, range) = (prepare.clone(), from.clone());
            let find = move |reader: &mut Reader<'_>| this.find_locks(reader, &range);
            let LockScan { locks, next } = self.find(&target, find).await?;
            if locks.is_empty() {
                break;
            }
            let step = Step::ClearLocks(prepare.clone(), locks);
            let rest = self.execute(target, Command::Step(step)).await?;
            let Some(rest) = where_to_go_on(rest, next) else { break };
            from.start = rest.region();
        }
        self.execute(target, Command::Step(Step::LockFirst(prepare))).await.map(drop)
    }

    /// `KvFlashbackToVersion`.
    pub(crate) async fn flashback(
        &self,
        request: kvrpcpb::FlashbackToVersionRequest,
    ) -> Result<kvrpcpb::FlashbackToVersionResponse, Status> {
        settle(self.try_flashback(request).await.map(|()| Default::default()))
    }

    async fn try_flashback(
        &self,
        mut request: kvrpcpb::FlashbackToVersionRequest,
    ) -> Result<(), Refusal> {
        let context = context_of(&mut request.context);
        let target = for_flashback(self.target(&context)?);
        let flashback = self.requests().flashback(&context, &request)?;
        let mut from = KeyRange::all();
        loop {
            let (this, range) = (flashback.clone(), from.clone());
            let find = move |reader: &mut Reader<'_>| this.find_keys(reader, &range);
            let (keys, next) = self.find(&target, find).await?;
            let mut rest = Reply::Next(None);
            if !keys.is_empty() {
                let step = Step::Rewrite(flashback.clone(), keys);
                rest = self.execute(target, Command::Step(step)).await?;
            }
            let Some(rest) = where_to_go_on(rest, next) else { break };
            from.start = rest.region();
        }
        self.execute(target, Command::Step(Step::CommitFirst(flashback))).await?;
        self.close_for_flashback(&target, None).await
    }

    /// Closes the region for all but a flashback that begins then, or opens it again.
    async fn close_for_flashback(
        &self,
        target: &Target,
        began: Option<TimeStamp>,
    ) -> Result<(), Refusal> {
        let (send, receive) = oneshot::channel();
        let (header, reply) = (target.header, reply_into(send));
        self.store().request(ShardInput::Flashback(FlashbackRequest { header, began, reply }));
        receive.await.unwrap_or(Err(RegionError::Undetermined))?;
        // The answer comes from the applier; what is looked at here is told a moment later.
        let told = async {
            let flashback = || self.store().views().get(header.region_id)?.region.flashback;
            while flashback() != began {
                tokio::time::sleep(VIEW_LOOK_INTERVAL).await;
            }
        };
        let _ = tokio::time::timeout(VIEW_TIMEOUT, told).await;
        Ok(())
    }

    /// Looks for something at the leader, with all its locks in memory.
    async fn find<T: Send + 'static>(
        &self,
        target: &Target,
        find: impl FnOnce(&mut Reader<'_>) -> Result<T, TxnError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let guard = self.plain_guard(target).await?;
        let under = super::course::under(guard.view());
        let memory = self.state().scheduler.all_memory_locks(under);
        self.read_with_memory(target, guard, memory, find).await
    }

    /// Reads where it may take long, with these locks in memory, which were looked up before.
    pub(super) async fn read_with_memory<T: Send + 'static>(
        &self,
        target: &Target,
        guard: ReadGuard,
        memory: BTreeMap<Key, Lock>,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, TxnError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let snapshot = guard.snapshot();
        guard.check()?;
        let (target, region) = (*target, guard.region().clone());
        on_pool(move || {
            let late = || super::course::is_late(&target);
            let reader = Reader::new(&*snapshot, &region).interrupted_by(&late);
            let mut reader = reader.with_memory_locks(&memory);
            read(&mut reader).map_err(|error| txn_refusal(error, &region))
        })
        .await
    }

    /// `UnsafeDestroyRange`: the data of a range on this store alone, whatever its regions.
    pub(crate) async fn unsafe_destroy_range(
        &self,
        mut request: kvrpcpb::UnsafeDestroyRangeRequest,
    ) -> Result<kvrpcpb::UnsafeDestroyRangeResponse, Status> {
        let context = context_of(&mut request.context);
        let (start, end) = (request.start_key, request.end_key);
        settle(match self.target(&context) {
            Ok(_) => self.destroy(start, end).await.map(|()| Default::default()),
            Err(refusal) => Err(refusal),
        })
    }

    async fn destroy(&self, start: Bytes, end: Bytes) -> Result<(), Refusal> {
        let range = region_range(&start, &end);
        self.state().scheduler.destroy_in_memory(&range);
        let store = self.store().clone();
        on_pool(move || Ok(store.gc().destroy_range(&**store.engine(), &start, &end)?)).await
    }
}

/// What the flashback itself does in the region.
fn for_flashback(target: Target) -> Target {
    let header = RequestHeader { purpose: Purpose::Flashback, ..target.header };
    Target { header, ..target }
}

/// The earlier of where a step ended and where the search before it did.
fn where_to_go_on(step: Reply, found: Option<Key>) -> Option<Key> {
    let Reply::Next(rest) = step else { unreachable!("a step answers where to go on") };
    rest.or(found)
}
