//! The raw commands: from a request to its response, for single calls and for streams alike.
//!
//! ```text
//!   request ─ target (cluster, version, ─┬─ read:  guard ─ cache? ─ pool ─ response
//!             header, deadline)          └─ write: keys in range? ─ propose ─ response
//! ```
//!
//! A read takes a guard (the lease, or a round of the group if that ran out), its data, and then
//! looks again whether the guard still holds. Point reads look into the cache first, on the
//! caller's thread. All that may wait for the disk runs on the blocking pool.
//!
//! Writes with `for_cas` and compare-and-swaps hold the latches of their keys until they are
//! applied. They run on tasks of their own, which a client that goes away does not cut short: a
//! latch given back while its write is still on the way would protect nothing.

mod replies;
mod write;

use std::future::Future;
use std::time::{Duration, Instant};

use base::{PeerId, PeerRole, RegionId, StoreId, TimeStamp};
use bytes::Bytes;
use proto::kvrpcpb::{self, Context};
use storage::engine::{Cached, Cf};
use store::{Purpose, ReadFrom, ReadRefusal, RegionError, RequestHeader};
use tonic::Status;
use txn::raw::{Damaged, Pair, RawError, Scan, View};
use txn::{ApiVersion, RequestError};

pub(super) use write::{GROUP_BYTES_MAX, add, encoded_size};
pub(crate) use write::{Write, WriteGroup, WriteKind};

use crate::errors::{self, Refusal, raw_refusal, settle};
use crate::store_handle::{ReadGuard, StoreHandle};

/// A batch of at most so many keys is looked up in the cache before it goes to the pool.
const CACHED_KEYS_MAX: usize = 256;

/// The raw commands of one store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RawService {
    store: StoreHandle,
}

/// Where a request goes and until when it is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) header: RequestHeader,
    /// Who may answer, if it is a read.
    pub(crate) from: ReadFrom,
    /// When the client stops waiting.
    pub(crate) deadline: Option<Instant>,
}

/// One key to read.
struct Point {
    cf: Cf,
    /// Region form.
    key: Bytes,
}

impl RawService {
    pub(crate) fn new(store: StoreHandle) -> Self {
        Self { store }
    }

    pub(crate) fn store(&self) -> &StoreHandle {
        &self.store
    }

    fn api(&self) -> ApiVersion {
        self.store.api_version()
    }

    /// `RawGet`.
    pub(crate) async fn get(
        &self,
        request: kvrpcpb::RawGetRequest,
    ) -> Result<kvrpcpb::RawGetResponse, Status> {
        self.store.metrics().raw_reads(1);
        settle(self.try_get(&request).await)
    }

    async fn try_get(
        &self,
        request: &kvrpcpb::RawGetRequest,
    ) -> Result<kvrpcpb::RawGetResponse, Refusal> {
        let target = self.target(request.context.as_ref())?;
        let point = self.point(&request.cf, &request.key)?;
        let guard = self.guard(&target).await?;
        if let Some(value) = self.cached(&guard, &point)? {
            guard.check()?;
            return Ok(replies::value(value));
        }
        let service = self.clone();
        on_pool(move || {
            let stored = guard.get(point.cf, &point.key)?;
            guard.check()?;
            let value = service.live(stored, &guard, point.key)?;
            Ok(replies::value(value))
        })
        .await
    }

    /// The answer to a `RawGet` in the region of `guard`, if it can be given without waiting. Only
    /// good if [`ReadGuard::check`] is content afterwards. The request's target was checked.
    pub(crate) fn get_cached(
        &self,
        guard: &ReadGuard,
        request: &kvrpcpb::RawGetRequest,
    ) -> Option<Result<kvrpcpb::RawGetResponse, Status>> {
        let point = match self.point(&request.cf, &request.key) {
            Ok(point) => point,
            Err(error) => return Some(errors::refuse(error.into())),
        };
        let value = self.cached(guard, &point).transpose()?;
        Some(settle(value.map(replies::value)))
    }

    /// `RawBatchGet`.
    pub(crate) async fn batch_get(
        &self,
        request: kvrpcpb::RawBatchGetRequest,
    ) -> Result<kvrpcpb::RawBatchGetResponse, Status> {
        self.store.metrics().raw_reads(1);
        settle(self.try_batch_get(request).await)
    }

    async fn try_batch_get(
        &self,
        request: kvrpcpb::RawBatchGetRequest,
    ) -> Result<kvrpcpb::RawBatchGetResponse, Refusal> {
        let target = self.target(request.context.as_ref())?;
        let cf = self.api().raw_cf(&request.cf)?;
        let keys = request.keys;
        if keys.len() <= CACHED_KEYS_MAX {
            let guard = self.guard(&target).await?;
            if let Some(pairs) = self.batch_cached(&guard, cf, &keys)? {
                guard.check()?;
                return Ok(replies::batch_get(pairs));
            }
        }
        let pairs = self.read(&target, move |view| view.batch_get(cf, keys)).await?;
        self.count(&target, &pairs);
        Ok(replies::batch_get(pairs))
    }

    /// The pairs of `keys` if all are in the cache.
    fn batch_cached(
        &self,
        guard: &ReadGuard,
        cf: Cf,
        keys: &[Bytes],
    ) -> Result<Option<Vec<Pair>>, Refusal> {
        let mut pairs = Vec::with_capacity(keys.len());
        for key in keys {
            self.api().check_raw_key(key)?;
            let point = Point { cf, key: self.api().region_key(key) };
            match self.cached(guard, &point)? {
                Some(Some(value)) => pairs.push(Pair { key: key.clone(), value }),
                Some(None) => {}
                None => return Ok(None),
            }
        }
        Ok(Some(pairs))
    }

    /// `RawGetKeyTTL`.
    pub(crate) async fn key_ttl(
        &self,
        request: kvrpcpb::RawGetKeyTtlRequest,
    ) -> Result<kvrpcpb::RawGetKeyTtlResponse, Status> {
        self.store.metrics().raw_reads(1);
        settle(self.try_key_ttl(request).await)
    }

    async fn try_key_ttl(
        &self,
        request: kvrpcpb::RawGetKeyTtlRequest,
    ) -> Result<kvrpcpb::RawGetKeyTtlResponse, Refusal> {
        let target = self.target(request.context.as_ref())?;
        let cf = self.api().raw_cf(&request.cf)?;
        let ttl = self.read(&target, move |view| view.key_ttl(cf, &request.key)).await?;
        Ok(replies::key_ttl(ttl))
    }

    /// `RawScan`.
    pub(crate) async fn scan(
        &self,
        request: kvrpcpb::RawScanRequest,
    ) -> Result<kvrpcpb::RawScanResponse, Status> {
        self.store.metrics().raw_reads(1);
        settle(self.try_scan(request).await)
    }

    async fn try_scan(
        &self,
        request: kvrpcpb::RawScanRequest,
    ) -> Result<kvrpcpb::RawScanResponse, Refusal> {
        let target = self.target(request.context.as_ref())?;
        let scan = Scan {
            cf: self.api().raw_cf(&request.cf)?,
            start: request.start_key,
            end: request.end_key,
            limit: request.limit as usize,
            key_only: request.key_only,
            reverse: request.reverse,
        };
        let pairs = self.read(&target, move |view| view.scan(&scan)).await?;
        self.count(&target, &pairs);
        Ok(replies::scan(pairs))
    }

    /// `RawBatchScan`.
    pub(crate) async fn batch_scan(
        &self,
        request: kvrpcpb::RawBatchScanRequest,
    ) -> Result<kvrpcpb::RawBatchScanResponse, Status> {
        self.store.metrics().raw_reads(1);
        settle(self.try_batch_scan(request).await)
    }

    async fn try_batch_scan(
        &self,
        request: kvrpcpb::RawBatchScanRequest,
    ) -> Result<kvrpcpb::RawBatchScanResponse, Refusal> {
        let target = self.target(request.context.as_ref())?;
        let cf = self.api().raw_cf(&request.cf)?;
        let (key_only, reverse) = (request.key_only, request.reverse);
        let limit = request.each_limit as usize;
        let scans = request.ranges.into_iter().map(move |range| {
            let (start, end) = (range.start_key, range.end_key);
            Scan { cf, start, end, limit, key_only, reverse }
        });
        let pairs = self.read(&target, move |view| view.batch_scan(scans)).await?;
        Ok(replies::batch_scan(pairs))
    }

    /// `RawChecksum`.
    pub(crate) async fn checksum(
        &self,
        request: kvrpcpb::RawChecksumRequest,
    ) -> Result<kvrpcpb::RawChecksumResponse, Status> {
        self.store.metrics().raw_reads(1);
        settle(self.try_checksum(request).await)
    }

    async fn try_checksum(
        &self,
        request: kvrpcpb::RawChecksumRequest,
    ) -> Result<kvrpcpb::RawChecksumResponse, Refusal> {
        let target = self.target(request.context.as_ref())?;
        if request.algorithm != kvrpcpb::ChecksumAlgorithm::Crc64Xor as i32 {
            return Err(RequestError::ChecksumAlgorithm { number: request.algorithm }.into());
        }
        let ranges = request.ranges.into_iter().map(|range| (range.start_key, range.end_key));
        let sum = self.read(&target, move |view| view.checksum(Cf::Default, ranges)).await?;
        Ok(replies::checksum(sum))
    }

    /// Whether the request is for this cluster and this kind of store, and what its context asks
    /// for.
    pub(crate) fn target(&self, context: Option<&Context>) -> Result<Target, Refusal> {
        let Some(context) = context else { return self.target(Some(&Context::default())) };
        let cluster_id = self.store.cluster_id().0;
        if context.cluster_id != 0 && context.cluster_id != cluster_id {
            return Err(errors::cluster_mismatch(context.cluster_id, cluster_id));
        }
        self.api().check_raw_request(context.api_version)?;
        let wait_ms = context.max_execution_duration_ms;
        let deadline = Instant::now().checked_add(Duration::from_millis(wait_ms));
        let deadline = deadline.filter(|_| wait_ms != 0);
        Ok(Target { header: request_header(context), from: read_from(context), deadline })
    }

    /// Where a request goes that is for the region and not for raw keys in it.
    pub(crate) fn address(&self, context: Option<&Context>) -> Result<RequestHeader, Refusal> {
        let Some(context) = context else { return self.address(Some(&Context::default())) };
        let cluster_id = self.store.cluster_id().0;
        if context.cluster_id != 0 && context.cluster_id != cluster_id {
            return Err(errors::cluster_mismatch(context.cluster_id, cluster_id));
        }
        Ok(request_header(context))
    }

    fn point(&self, cf: &str, key: &Bytes) -> Result<Point, RequestError> {
        let cf = self.api().raw_cf(cf)?;
        self.api().check_raw_key(key)?;
        Ok(Point { cf, key: self.api().region_key(key) })
    }

    /// Leave to read, asked of the group if the lease ran out.
    async fn guard(&self, target: &Target) -> Result<ReadGuard, RegionError> {
        let Target { header, from, .. } = target;
        self.store.settled(header.region_id).await;
        match self.store.read(header, *from) {
            Ok(guard) => Ok(guard),
            Err(ReadRefusal::Region(error)) => Err(error),
            Err(ReadRefusal::NeedsReadIndex) => self.store.read_after_index(header, *from).await,
        }
    }

    /// The live value of a key, or that it has none; `None` if only the disk can tell.
    fn cached(&self, guard: &ReadGuard, point: &Point) -> Result<Option<Option<Bytes>>, Refusal> {
        guard.check_key(&point.key)?;
        match guard.get_if_cached(point.cf, &point.key)? {
            Cached::Unknown => Ok(None),
            Cached::Known(stored) => self.live(stored, guard, point.key.clone()).map(Some),
        }
    }

    fn live(
        &self,
        stored: Option<Bytes>,
        guard: &ReadGuard,
        key: Bytes,
    ) -> Result<Option<Bytes>, Refusal> {
        let bytes = key.len() + stored.as_ref().map_or(0, Bytes::len);
        guard.view().traffic.read(&key, bytes);
        let value = self.api().live_raw_value(stored, self.store.clock().unix_seconds());
        value.map_err(|Damaged| raw_refusal(RawError::Damaged { key }, guard.region()))
    }

    /// Counts what was read of a region, to see where it is hot.
    fn count(&self, target: &Target, pairs: &[Pair]) {
        let Some(view) = self.store.views().get(target.header.region_id) else { return };
        let (Some(first), Some(last)) = (pairs.first(), pairs.last()) else { return };
        let bytes = pairs.iter().map(|pair| pair.key.len() + pair.value.len()).sum();
        let (first, last) = (self.api().region_key(&first.key), self.api().region_key(&last.key));
        let (first, last) = (first.clone().min(last.clone()), first.max(last));
        view.traffic.scanned(&first, &last, pairs.len(), bytes);
    }

    /// Runs `read` on the pool, on a view of the region.
    async fn read<T: Send + 'static>(
        &self,
        target: &Target,
        read: impl FnOnce(&View<'_>) -> Result<T, RawError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let guard = self.guard(target).await?;
        let snapshot = guard.snapshot();
        guard.check()?;
        // From here on nothing that happens to the region matters: the snapshot was taken in time.
        let region = guard.region().clone();
        let (api, now_s) = (self.api(), self.store.clock().unix_seconds());
        let deadline = target.deadline;
        on_pool(move || {
            let late = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let view =
                View { snapshot: &*snapshot, region: &region, api, now_s, interrupted: &late };
            read(&view).map_err(|error| raw_refusal(error, &region))
        })
        .await
    }
}

/// The address of a request. What a client left out matches nothing.
pub(super) fn request_header(context: &Context) -> RequestHeader {
    let peer = context.peer.unwrap_or_default();
    let role = PeerRole::Voter;
    RequestHeader {
        region_id: RegionId(context.region_id),
        peer: base::Peer { id: PeerId(peer.id), store_id: StoreId(peer.store_id), role },
        epoch: context.region_epoch.as_ref().map(proto::epoch_from_proto),
        term: context.term,
        purpose: Purpose::Any,
    }
}

/// Who may answer. Raw reads name no timestamp: a read of the past is content with any state that
/// was complete at some time.
fn read_from(context: &Context) -> ReadFrom {
    match context {
        Context { stale_read: true, .. } => ReadFrom::Past(TimeStamp::default()),
        Context { replica_read: true, .. } => ReadFrom::Replica,
        _ => ReadFrom::Leader,
    }
}

/// Runs `work` where it may wait for the disk.
pub(super) async fn on_pool<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(broken(&error)))
}

/// Runs `work` to its end even if nobody waits for it any more.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(broken(&error)))
}

/// A bug, or the node stops: the client shall not wait.
fn broken(error: &tokio::task::JoinError) -> Refusal {
    tracing::error!(%error, "a request was not finished");
    Refusal::Call(Status::internal("the request was not finished"))
}
