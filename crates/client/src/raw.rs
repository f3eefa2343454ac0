//! The raw calls, one at a time, over as many regions as they touch.

use std::sync::Arc;

use bytes::Bytes;
use proto::kvrpcpb;

use crate::calls::{StoreReply, StoreRequest};
use crate::core::{Core, Side, other_kind};
use crate::error::ClientError;
use crate::keys::Keys;
use crate::link::Link;
use crate::pages::Pages;
use crate::region_cache::CachedRegion;

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
pub struct Raw<L> {
    core: Arc<Core<L>>,
    keys: Keys,
}

impl<L> Clone for Raw<L> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone(), keys: self.keys }
    }
}

impl<L: Link> Raw<L> {
    pub(crate) fn new(core: Arc<Core<L>>) -> Self {
        let keys = Keys::raw(core.version);
        Self { core, keys }
    }

    /// The value of `key`.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ClientError> {
        let key = self.keys.data_key(key);
        let request = kvrpcpb::RawGetRequest { key: key.clone(), ..Default::default() };
        match self.run(&key, StoreRequest::RawGet(request)).await? {
            StoreReply::RawGet(reply) => Ok((!reply.not_found).then_some(reply.value)),
            _ => Err(other_kind("RawGet")),
        }
    }

    /// Writes `value`, to expire after so many seconds; 0 is never.
    pub async fn put(
        &self,
        key: &[u8],
        value: impl Into<Bytes>,
        ttl_s: u64,
    ) -> Result<(), ClientError> {
        let key = self.keys.data_key(key);
        let request = kvrpcpb::RawPutRequest {
            key: key.clone(),
            value: value.into(),
            ttl: ttl_s,
            ..Default::default()
        };
        self.run(&key, StoreRequest::RawPut(request)).await?;
        Ok(())
    }

    /// Writes pairs, region by region: all of those of one region or none, in the order given
    /// where a key comes twice.
    pub async fn batch_put(&self, pairs: &[Pair]) -> Result<(), ClientError> {
        let pair = |pair: &Pair| kvrpcpb::KvPair {
            key: self.keys.data_key(&pair.key),
            value: pair.value.clone(),
            ..Default::default()
        };
        let mut pairs: Vec<_> = pairs.iter().map(pair).collect();
        pairs.sort_by(|a, b| a.key.cmp(&b.key));
        let mut left = &pairs[..];
        let mut backoff = self.core.backoff();
        while !left.is_empty() {
            let sorted: Vec<Bytes> = left.iter().map(|pair| pair.key.clone()).collect();
            let group = self.core.first_group(self.keys, &sorted, ROWS_A_PAGE).await?;
            let (these, rest) = left.split_at(group.count);
            let pairs = these.to_vec();
            let request = kvrpcpb::RawBatchPutRequest { pairs, ..Default::default() };
            match self.core.send(&group.region, StoreRequest::RawBatchPut(request)).await? {
                Ok(_) => left = rest,
                Err(passing) => {
                    self.core.pause(&mut backoff, "RawBatchPut", passing.why).await?;
                }
            }
        }
        Ok(())
    }

    /// Deletes `key`; that it is not there is no error.
    pub async fn delete(&self, key: &[u8]) -> Result<(), ClientError> {
        let key = self.keys.data_key(key);
        let request = kvrpcpb::RawDeleteRequest { key: key.clone(), ..Default::default() };
        self.run(&key, StoreRequest::RawDelete(request)).await?;
        Ok(())
    }

    /// Seconds until the value of `key` expires: none if there is no value, 0 if it never does.
    pub async fn ttl(&self, key: &[u8]) -> Result<Option<u64>, ClientError> {
        let key = self.keys.data_key(key);
        let request = kvrpcpb::RawGetKeyTtlRequest { key: key.clone(), ..Default::default() };
        match self.run(&key, StoreRequest::RawGetKeyTtl(request)).await? {
            StoreReply::RawGetKeyTtl(reply) => Ok((!reply.not_found).then_some(reply.ttl)),
            _ => Err(other_kind("RawGetKeyTTL")),
        }
    }

    /// Changes `key` to `new` if it is as `expected`.
    pub async fn compare_and_swap(
        &self,
        key: &[u8],
        expected: Expected,
        new: NewValue,
    ) -> Result<CasOutcome, ClientError> {
        let key = self.keys.data_key(key);
        let mut request = kvrpcpb::RawCasRequest { key: key.clone(), ..Default::default() };
        match expected {
            Expected::Absent => request.previous_not_exist = true,
            Expected::Value(value) => request.previous_value = value,
        }
        match new {
            NewValue::Absent => request.delete = true,
            NewValue::Value(value, ttl) => (request.value, request.ttl) = (value, ttl),
        }
        match self.run(&key, StoreRequest::RawCompareAndSwap(request)).await? {
            StoreReply::RawCompareAndSwap(reply) => {
                let found = (!reply.previous_not_exist).then_some(reply.previous_value);
                Ok(CasOutcome { swapped: reply.succeed, found })
            }
            _ => Err(other_kind("RawCompareAndSwap")),
        }
    }

    /// Deletes the keys of `[start, end)`, region by region; an empty end is the end of all keys.
    pub async fn delete_range(&self, start: &[u8], end: &[u8]) -> Result<(), ClientError> {
        let mut left = self.keys.data_range(start, end);
        while !left.is_empty() {
            let build = |region: &CachedRegion| {
                let part = self.keys.within(&region.range, &left);
                StoreRequest::RawDeleteRange(kvrpcpb::RawDeleteRangeRequest {
                    start_key: part.start,
                    end_key: part.end,
                    ..Default::default()
                })
            };
            let (_, region) = self.core.run(self.keys, &left.start, Side::Holding, build).await?;
            let part = self.keys.within(&region.range, &left);
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
        let mut pages = Pages::new(self.keys, self.keys.data_range(start, end), false);
        self.gather(&mut pages, limit).await
    }

    /// The last `limit` pairs of `[start, end)`, the last one first.
    pub async fn scan_reverse(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, ClientError> {
        let mut pages = Pages::new(self.keys, self.keys.data_range(start, end), true);
        self.gather(&mut pages, limit).await
    }

    async fn gather(&self, pages: &mut Pages, limit: usize) -> Result<Vec<Pair>, ClientError> {
        let mut pairs = Vec::new();
        while pairs.len() < limit && !pages.is_done() {
            let rows = (limit - pairs.len()).min(ROWS_A_PAGE);
            let build = |region: &CachedRegion| {
                let (start_key, end_key) = pages.bounds(&region.range);
                let limit = u32::try_from(rows).expect("a page has few rows");
                let reverse = pages.is_reverse();
                StoreRequest::RawScan(kvrpcpb::RawScanRequest {
                    start_key,
                    end_key,
                    limit,
                    reverse,
                    ..Default::default()
                })
            };
            let (key, side) = pages.next();
            let (reply, region) = self.core.run(self.keys, key, side, build).await?;
            let StoreReply::RawScan(reply) = reply else { return Err(other_kind("RawScan")) };
            let last = reply.kvs.last().map(|pair| &pair.key);
            pages.advance(&region.range, last.filter(|_| reply.kvs.len() >= rows));
            let user =
                |row: kvrpcpb::KvPair| Pair { key: self.keys.user_key(&row.key), value: row.value };
            pairs.extend(reply.kvs.into_iter().map(user));
        }
        Ok(pairs)
    }

    async fn run(&self, key: &[u8], request: StoreRequest) -> Result<StoreReply, ClientError> {
        let build = |_: &CachedRegion| request.clone();
        Ok(self.core.run(self.keys, key, Side::Holding, build).await?.0)
    }
}
