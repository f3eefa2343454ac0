//! Calls that only look: at locks, for those who resolve them, and at everything, for people.

use base::TimeStamp;
use proto::kvrpcpb;
use tonic::Status;
use txn::actions::{mvcc_by_key, mvcc_by_start_ts, scan_lock};
use txn::mvcc::ReadOptions;
use txn::wire;

use super::{TxnService, context_of, replies};
use crate::errors::{Refusal, settle};

impl TxnService {
    /// `KvScanLock`.
    pub(crate) async fn scan_lock(
        &self,
        request: kvrpcpb::ScanLockRequest,
    ) -> Result<kvrpcpb::ScanLockResponse, Status> {
        settle(self.try_scan_lock(request).await)
    }

    async fn try_scan_lock(
        &self,
        mut request: kvrpcpb::ScanLockRequest,
    ) -> Result<kvrpcpb::ScanLockResponse, Refusal> {
        let context = context_of(&mut request.context);
        let target = self.target(&context)?;
        self.requests().check_api(&context)?;
        let (start, end) = (request.start_key, request.end_key);
        let max_version = TimeStamp(request.max_version);
        self.begin_range_read(&ReadOptions::at(max_version), &start, &end).await?;
        let guard = self.plain_guard(&target).await?;
        let under = super::course::under(guard.view());
        let memory = self.state().scheduler.all_memory_locks(under);
        let limit = request.limit as usize;
        let scan = move |reader: &mut txn::mvcc::Reader<'_>| {
            scan_lock(reader, (&start, &end), max_version, limit)
        };
        let locks = self.read_with_memory(&target, guard, memory, scan).await?;
        let locks = replies::lock_infos(&locks);
        Ok(kvrpcpb::ScanLockResponse { locks, ..Default::default() })
    }

    /// `MvccGetByKey`.
    pub(crate) async fn mvcc_get_by_key(
        &self,
        request: kvrpcpb::MvccGetByKeyRequest,
    ) -> Result<kvrpcpb::MvccGetByKeyResponse, Status> {
        settle(self.try_mvcc_get_by_key(request).await)
    }

    async fn try_mvcc_get_by_key(
        &self,
        mut request: kvrpcpb::MvccGetByKeyRequest,
    ) -> Result<kvrpcpb::MvccGetByKeyResponse, Refusal> {
        let context = context_of(&mut request.context);
        let target = self.target(&context)?;
        let key = self.requests().key(&context, request.key)?;
        let guard = self.plain_guard(&target).await?;
        let under = super::course::under(guard.view());
        let memory = self.state().scheduler.all_memory_locks(under);
        let look = move |reader: &mut txn::mvcc::Reader<'_>| mvcc_by_key(reader, &key);
        let info = self.read_with_memory(&target, guard, memory, look).await?;
        let info = Some(wire::mvcc_info(&info));
        Ok(kvrpcpb::MvccGetByKeyResponse { info, ..Default::default() })
    }

    /// `MvccGetByStartTs`.
    pub(crate) async fn mvcc_get_by_start_ts(
        &self,
        request: kvrpcpb::MvccGetByStartTsRequest,
    ) -> Result<kvrpcpb::MvccGetByStartTsResponse, Status> {
        settle(self.try_mvcc_get_by_start_ts(request).await)
    }

    async fn try_mvcc_get_by_start_ts(
        &self,
        mut request: kvrpcpb::MvccGetByStartTsRequest,
    ) -> Result<kvrpcpb::MvccGetByStartTsResponse, Refusal> {
        let context = context_of(&mut request.context);
        let target = self.target(&context)?;
        self.requests().check_api(&context)?;
        let start_ts = TimeStamp(request.start_ts);
        let guard = self.plain_guard(&target).await?;
        let under = super::course::under(guard.view());
        let memory = self.state().scheduler.all_memory_locks(under);
        let look = move |reader: &mut txn::mvcc::Reader<'_>| mvcc_by_start_ts(reader, start_ts);
        let found = self.read_with_memory(&target, guard, memory, look).await?;
        let mut response = kvrpcpb::MvccGetByStartTsResponse::default();
        match found {
            Some((key, info)) => {
                response.key = key.user().clone();
                response.info = Some(wire::mvcc_info(&info));
            }
            None => response.info = Some(kvrpcpb::MvccInfo::default()),
        }
        Ok(response)
    }

    /// `GetLockWaitInfo`.
    pub(crate) fn lock_wait_info(&self) -> kvrpcpb::GetLockWaitInfoResponse {
        let now = self.store().clock().now();
        let waits = self.state().scheduler.waits(now);
        let entries = waits.iter().map(wire::wait_for_entry).collect();
        kvrpcpb::GetLockWaitInfoResponse { entries, ..Default::default() }
    }
}
