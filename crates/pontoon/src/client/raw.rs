//! The raw calls, one at a time, over as many regions as they touch.

use std::sync::Arc;
use std::time::Duration;

use base::KeyRange;
use bytes::Bytes;
use proto::kvrpcpb;
use tonic::{Code, Status};

use super::backoff::Backoff;
use super::calls::RawCall;
use super::error::describe;
use super::region_cache::CachedRegion;
use super::region_error::{self, Remedy};
use super::router::{Router, Side};
use super::stores::Stores;
use super::{ApiVersion, CALL_TIMEOUT, ClientError, Placement};

/// How long the waits between tries may be in all.
const BUDGET: Duration = Duration::from_secs(10);

/// Rows asked for at once: an answer stays of a size that any server sends.
const ROWS_A_PAGE: usize = 1024;

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
}

/// What a compare-and-swap must find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// No value.
    Absent,
    /// This value.
    Value(Bytes),
}

/// What a compare-and-swap leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewValue {
    /// No value.
    Absent,
    /// This value, for so many seconds; 0 is for ever.
    Value(Bytes, u64),
}

/// How a compare-and-swap ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CasOutcome {
    /// Whether the key was as expected, and so was changed.
    pub swapped: bool,
    /// What was there before.
    pub found: Option<Bytes>,
}

/// A client of the raw calls.
#[derive(Debug)]
pub struct RawClient {
    router: Router,
    stores: Stores,
}

impl RawClient {
    /// Connects to the placement driver at `address`; stores are connected to when they are needed.
    pub async fn connect(address: &str, version: ApiVersion) -> Result<RawClient, ClientError> {
        Ok(RawClient {
            router: Router::connect(address, version).await?,
            stores: Stores::default(),
        })
    }

    /// The placement driver, for what concerns the cluster and not the data.
    pub fn placement(&self) -> &Placement {
        &self.router.placement
    }

    /// The value of `key`.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ClientError> {
        let key = self.router.api.data_key(key);
        let request = kvrpcpb::RawGetRequest { key: key.clone(), ..Default::default() };
        let (reply, _) = self.run(&key, Side::Holding, |_| request.clone()).await?;
        Ok((!reply.not_found).then_some(reply.value))
    }

    /// Writes `value`, to expire after so many seconds; 0 is never.
    pub async fn put(&self, key: &[u8], value: Bytes, ttl_s: u64) -> Result<(), ClientError> {
        let key = self.router.api.data_key(key);
        let request =
            kvrpcpb::RawPutRequest { key: key.clone(), value, ttl: ttl_s, ..Default::default() };
        self.run(&key, Side::Holding, |_| request.clone()).await?;
        Ok(())
    }

    /// Deletes `key`; that it is not there is no error.
    pub async fn delete(&self, key: &[u8]) -> Result<(), ClientError> {
        let key = self.router.api.data_key(key);
        let request = kvrpcpb::RawDeleteRequest { key: key.clone(), ..Default::default() };
        self.run(&key, Side::Holding, |_| request.clone()).await?;
        Ok(())
    }

    /// Seconds until the value of `key` expires: none if there is no value, 0 if it never does.
    pub async fn ttl(&self, key: &[u8]) -> Result<Option<u64>, ClientError> {
        let key = self.router.api.data_key(key);
        let request = kvrpcpb::RawGetKeyTtlRequest { key: key.clone(), ..Default::default() };
        let (reply, _) = self.run(&key, Side::Holding, |_| request.clone()).await?;
        Ok((!reply.not_found).then_some(reply.ttl))
    }

    /// Changes `key` to `new` if it is as `expected`.
    pub async fn compare_and_swap(
        &self,
        key: &[u8],
        expected: Expected,
        new: NewValue,
    ) -> Result<CasOutcome, ClientError> {
        let key = self.router.api.data_key(key);
        let mut request = kvrpcpb::RawCasRequest { key: key.clone(), ..Default::default() };
        match expected {
            Expected::Absent => request.previous_not_exist = true,
            Expected::Value(value) => request.previous_value = value,
        }
        match new {
            NewValue::Absent => request.delete = true,
            NewValue::Value(value, ttl) => (request.value, request.ttl) = (value, ttl),
        }
        let (reply, _) = self.run(&key, Side::Holding, |_| request.clone()).await?;
        let found = (!reply.previous_not_exist).then_some(reply.previous_value);
        Ok(CasOutcome { swapped: reply.succeed, found })
    }

    /// Deletes the keys of `[start, end)`, region by region; an empty end is the end of all keys.
    pub async fn delete_range(&self, start: &[u8], end: &[u8]) -> Result<(), ClientError> {
        let mut left = self.router.api.data_range(start, end);
        while !left.is_empty() {
            let build = |region: &CachedRegion| {
                let part = self.within(region, &left);
                kvrpcpb::RawDeleteRangeRequest {
                    start_key: part.start,
                    end_key: part.end,
                    ..Default::default()
                }
            };
            let (_, region) = self.run(&left.start, Side::Holding, build).await?;
            let part = self.within(&region, &left);
            if part.end.is_empty() || part.end == left.end {
                break;
            }
            left.start = part.end;
        }
        Ok(())
    }

    /// The first `limit` pairs of `[start, end)`; an empty end is the end of all keys.
    pub async fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, ClientError> {
        let mut left = self.router.api.data_range(start, end);
        let mut pairs = Vec::new();
        while pairs.len() < limit && !left.is_empty() {
            let rows = (limit - pairs.len()).min(ROWS_A_PAGE);
            let build = |region: &CachedRegion| {
                let part = self.within(region, &left);
                scan_request(part.start, part.end, rows, false)
            };
            let (reply, region) = self.run(&left.start, Side::Holding, build).await?;
            let part = self.within(&region, &left);
            let full = reply.kvs.len() >= rows;
            match reply.kvs.last() {
                Some(last) if full => left.start = successor(&last.key),
                _ if part.end.is_empty() || part.end == left.end => left = nothing(),
                _ => left.start = part.end,
            }
            self.take(reply.kvs, &mut pairs);
        }
        Ok(pairs)
    }

    /// The last `limit` pairs of `[start, end)`, the last one first.
    pub async fn reverse_scan(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, ClientError> {
        let mut left = self.router.api.data_range(start, end);
        let mut pairs = Vec::new();
        while pairs.len() < limit && !left.is_empty() {
            let rows = (limit - pairs.len()).min(ROWS_A_PAGE);
            let build = |region: &CachedRegion| {
                let part = self.within(region, &left);
                scan_request(part.end, part.start, rows, true)
            };
            let (reply, region) = self.run(&left.end, Side::Below, build).await?;
            let part = self.within(&region, &left);
            let full = reply.kvs.len() >= rows;
            match reply.kvs.last() {
                Some(last) if full => left.end = last.key.clone(),
                _ if part.start == left.start => left = nothing(),
                _ => left.end = part.start,
            }
            self.take(reply.kvs, &mut pairs);
        }
        Ok(pairs)
    }

    /// The data keys that lie both in the region and in `range`. A bound of the region that is not
    /// a whole encoded key belongs to others, and so bounds nothing here.
    fn within(&self, region: &CachedRegion, range: &KeyRange) -> KeyRange {
        let bound = |key: &Bytes| self.router.api.data_bound(key).unwrap_or_default();
        let of_region = KeyRange::new(bound(&region.range.start), bound(&region.range.end));
        of_region.intersect(range)
    }

    fn take(&self, rows: Vec<kvrpcpb::KvPair>, pairs: &mut Vec<Pair>) {
        let user = |row: kvrpcpb::KvPair| Pair {
            key: self.router.api.user_key(&row.key),
            value: row.value,
        };
        pairs.extend(rows.into_iter().map(user));
    }

    /// Sends what `build` makes for the region of `key`, as often as it takes. Returns the region
    /// that answered.
    async fn run<C: RawCall>(
        &self,
        key: &[u8],
        side: Side,
        build: impl Fn(&CachedRegion) -> C,
    ) -> Result<(C::Reply, Arc<CachedRegion>), ClientError> {
        let mut backoff = Backoff::new(BUDGET);
        loop {
            let region = self.router.locate(key, side).await?;
            let last = match self.send(&region, build(&region)).await? {
                Ok(reply) => return Ok((reply, region)),
                Err(passing) => passing,
            };
            let tries = backoff.tries() + 1;
            let Some(wait) = backoff.next_wait() else {
                return Err(ClientError::GaveUp { call: C::NAME, tries, last });
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// One try: the answer, or why to try again.
    async fn send<C: RawCall>(
        &self,
        region: &Arc<CachedRegion>,
        call: C,
    ) -> Result<Result<C::Reply, String>, ClientError> {
        let store_id = region.leader.store_id;
        let store = match self.stores.client(&self.router.placement, store_id).await {
            Ok(store) => store,
            Err(ClientError::Unreachable { cause, .. }) => {
                self.router.forget(region);
                return Ok(Err(cause));
            }
            Err(error) => return Err(error),
        };
        let sent = call.send(self.router.context(region), store);
        let outcome = match tokio::time::timeout(CALL_TIMEOUT, sent).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        };
        match outcome {
            Ok(reply) => self.read_errors::<C>(region, reply.into_inner()),
            Err(status) => self.on_status::<C>(region, &status).map(Err),
        }
    }

    fn read_errors<C: RawCall>(
        &self,
        region: &Arc<CachedRegion>,
        mut reply: C::Reply,
    ) -> Result<Result<C::Reply, String>, ClientError> {
        let errors = C::errors(&mut reply);
        if let Some(error) = errors.region {
            let message = region_error::describe(&error);
            return match self.router.learn(region, &error) {
                Remedy::GiveUp => Err(ClientError::Refused { call: C::NAME, message }),
                Remedy::Undetermined if !C::REPEATABLE => {
                    Err(ClientError::Undetermined { call: C::NAME, cause: message })
                }
                _ => {
                    if error.store_not_match.is_some() {
                        self.stores.forget(region.leader.store_id);
                    }
                    Ok(Err(message))
                }
            };
        }
        if !errors.request.is_empty() {
            return Err(ClientError::Refused { call: C::NAME, message: errors.request });
        }
        Ok(Ok(reply))
    }

    /// The call ended without an answer of its own: why to try again, or the error to end with.
    fn on_status<C: RawCall>(
        &self,
        region: &Arc<CachedRegion>,
        status: &Status,
    ) -> Result<String, ClientError> {
        let message = describe(status);
        match status.code() {
            Code::Unavailable | Code::Cancelled | Code::Unknown | Code::DeadlineExceeded
                if C::REPEATABLE =>
            {
                self.router.forget(region);
                self.stores.forget(region.leader.store_id);
                Ok(message)
            }
            Code::InvalidArgument | Code::Unimplemented | Code::FailedPrecondition => {
                Err(ClientError::Refused { call: C::NAME, message })
            }
            _ if C::REPEATABLE => Err(ClientError::Refused { call: C::NAME, message }),
            _ => Err(ClientError::Undetermined { call: C::NAME, cause: message }),
        }
    }
}

fn scan_request(
    start_key: Bytes,
    end_key: Bytes,
    limit: usize,
    reverse: bool,
) -> kvrpcpb::RawScanRequest {
    let limit = u32::try_from(limit).expect("a page has few rows");
    kvrpcpb::RawScanRequest { start_key, end_key, limit, reverse, ..Default::default() }
}

/// The smallest key above `key`.
fn successor(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

/// A range without a key.
fn nothing() -> KeyRange {
    KeyRange::new(&b"\0"[..], &b"\0"[..])
}
