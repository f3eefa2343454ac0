//! Reads as of one timestamp.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use base::TimeStamp;
use bytes::Bytes;
use proto::kvrpcpb::{self, KeyError, LockInfo};

use crate::backoff::Backoff;
use crate::calls::{StoreReply, StoreRequest};
use crate::core::{Core, other_kind};
use crate::error::ClientError;
use crate::key_error;
use crate::keys::Keys;
use crate::link::Link;
use crate::pages::Pages;
use crate::raw::Pair;
use crate::region_cache::CachedRegion;
use crate::resolver::Reader;

/// Rows asked for at once.
const ROWS_A_PAGE: usize = 1024;

/// What all keys were at one point of time. Readers never wait for writers that push their commit
/// above a reader, and for others as long as their locks live.
pub struct Snapshot<L> {
    core: Arc<Core<L>>,
    pub(crate) keys: Keys,
    ts: TimeStamp,
    /// Transactions that will commit above this one, if they do.
    passed_by: Arc<Mutex<BTreeSet<u64>>>,
}

impl<L> Clone for Snapshot<L> {
    fn clone(&self) -> Self {
        let (core, passed_by) = (self.core.clone(), self.passed_by.clone());
        Self { core, keys: self.keys, ts: self.ts, passed_by }
    }
}

impl<L: Link> Snapshot<L> {
    pub(crate) fn new(core: Arc<Core<L>>, ts: TimeStamp) -> Self {
        let keys = Keys::of_transactions(core.version);
        Self { core, keys, ts, passed_by: Arc::default() }
    }

    /// What it reads as of.
    pub fn timestamp(&self) -> TimeStamp {
        self.ts
    }

    /// The value of `key`.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ClientError> {
        self.get_data(&self.keys.data_key(key)).await
    }

    /// The values of those of `keys` that have one, by key.
    pub async fn batch_get<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
    ) -> Result<BTreeMap<Bytes, Bytes>, ClientError> {
        let keys = keys.iter().map(|key| self.keys.data_key(key.as_ref())).collect();
        let found = self.batch_get_data(keys).await?;
        Ok(found.into_iter().map(|(key, value)| (self.keys.user_key(&key), value)).collect())
    }

    /// The first `limit` pairs of `[start, end)`; an empty end is the end of all keys.
    pub async fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, ClientError> {
        self.scan_all(Pages::new(self.keys, self.keys.data_range(start, end), false), limit).await
    }

    /// The last `limit` pairs of `[start, end)`, the last one first.
    pub async fn scan_reverse(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, ClientError> {
        self.scan_all(Pages::new(self.keys, self.keys.data_range(start, end), true), limit).await
    }

    async fn scan_all(&self, mut pages: Pages, limit: usize) -> Result<Vec<Pair>, ClientError> {
        let mut pairs = Vec::new();
        while pairs.len() < limit && !pages.is_done() {
            let page = self.scan_page(&mut pages, limit - pairs.len()).await?;
            pairs.extend(page.into_iter().map(|pair| self.to_user(pair)));
        }
        Ok(pairs)
    }

    pub(crate) fn to_user(&self, pair: Pair) -> Pair {
        Pair { key: self.keys.user_key(&pair.key), value: pair.value }
    }

    pub(crate) async fn get_data(&self, key: &Bytes) -> Result<Option<Bytes>, ClientError> {
        let mut backoff = self.core.backoff();
        loop {
            let mut request = StoreRequest::KvGet(kvrpcpb::GetRequest {
                key: key.clone(),
                version: self.ts.0,
                ..Default::default()
            });
            self.pass_by(&mut request);
            let reply = self.core.call_key(self.keys, key, request).await?;
            let StoreReply::KvGet(reply) = reply else { return Err(other_kind("KvGet")) };
            match reply.error {
                None => return Ok((!reply.not_found).then_some(reply.value)),
                Some(error) => self.clear_way("KvGet", vec![error], &mut backoff).await?,
            }
        }
    }

    pub(crate) async fn batch_get_data(
        &self,
        mut keys: Vec<Bytes>,
    ) -> Result<BTreeMap<Bytes, Bytes>, ClientError> {
        keys.sort();
        keys.dedup();
        let (mut found, mut backoff) = (BTreeMap::new(), self.core.backoff());
        while !keys.is_empty() {
            let build = |keys: &[Bytes]| {
                let mut request = StoreRequest::KvBatchGet(kvrpcpb::BatchGetRequest {
                    keys: keys.to_vec(),
                    version: self.ts.0,
                    ..Default::default()
                });
                self.pass_by(&mut request);
                request
            };
            let replies = self.core.all_regions(self.keys, &keys, &build).await?;
            let (mut again, mut errors) = (Vec::new(), Vec::new());
            for (asked, reply) in replies {
                let StoreReply::KvBatchGet(reply) = reply else {
                    return Err(other_kind("KvBatchGet"));
                };
                if let Some(error) = reply.error {
                    errors.push(error);
                    again.extend(asked);
                    continue;
                }
                for pair in reply.pairs {
                    match pair.error {
                        None => drop(found.insert(pair.key, pair.value)),
                        Some(error) => {
                            let lock = error.locked.as_ref();
                            again.push(lock.map_or(pair.key, |lock| lock.key.clone()));
                            errors.push(error);
                        }
                    }
                }
            }
            if !errors.is_empty() {
                self.clear_way("KvBatchGet", errors, &mut backoff).await?;
            }
            again.sort();
            again.dedup();
            keys = again;
        }
        Ok(found)
    }

    /// The next page of at most `limit` rows, with data keys.
    pub(crate) async fn scan_page(
        &self,
        pages: &mut Pages,
        limit: usize,
    ) -> Result<Vec<Pair>, ClientError> {
        let rows = limit.min(ROWS_A_PAGE);
        let mut backoff = self.core.backoff();
        loop {
            let build = |region: &CachedRegion| {
                let (start_key, end_key) = pages.bounds(&region.range);
                let mut request = StoreRequest::KvScan(kvrpcpb::ScanRequest {
                    start_key,
                    end_key,
                    limit: u32::try_from(rows).expect("a page has few rows"),
                    version: self.ts.0,
                    reverse: pages.is_reverse(),
                    ..Default::default()
                });
                self.pass_by(&mut request);
                request
            };
            let (key, side) = pages.next();
            let (reply, region) = self.core.run(self.keys, key, side, build).await?;
            let StoreReply::KvScan(reply) = reply else { return Err(other_kind("KvScan")) };
            let (mut pairs, mut errors) = (Vec::new(), Vec::from_iter(reply.error));
            for pair in reply.pairs {
                match pair.error {
                    None => pairs.push(Pair { key: pair.key, value: pair.value }),
                    Some(error) => errors.push(error),
                }
            }
            if errors.is_empty() {
                let last = pairs.last().map(|pair| &pair.key);
                pages.advance(&region.range, last.filter(|_| pairs.len() >= rows));
                return Ok(pairs);
            }
            self.clear_way("KvScan", errors, &mut backoff).await?;
        }
    }

    fn pass_by(&self, request: &mut StoreRequest) {
        let passed_by = self.passed_by.lock().expect("no holder of this lock panics");
        request.context_mut().resolved_locks = passed_by.iter().copied().collect();
    }

    /// Resolves the locks that a read met, or waits for them; other errors end the read.
    async fn clear_way(
        &self,
        call: &'static str,
        errors: Vec<KeyError>,
        backoff: &mut Backoff,
    ) -> Result<(), ClientError> {
        let locks: Result<Vec<LockInfo>, ClientError> = errors
            .into_iter()
            .map(|mut error| error.locked.take().ok_or_else(|| key_error::typed(call, error)))
            .collect();
        let met = Box::pin(self.core.meet(self.keys, locks?, Reader::At(self.ts))).await?;
        self.passed_by.lock().expect("no holder of this lock panics").extend(met.pushed);
        let Some(lock) = met.alive else { return Ok(()) };
        let locked =
            || ClientError::Locked { key: lock.key.clone(), holder: TimeStamp(lock.lock_version) };
        let paused = self.core.pause(backoff, call, String::new()).await;
        paused.map_err(|_| locked())
    }
}
