//! Gets and scans at a timestamp.
//!
//! ```text
//!   leader:   max_ts raised, locks in memory ── lease, or the group is asked ── data ── lease?
//!   follower: the leader does the first part (ReadIndex) ── applied that far ── data
//!   stale:    the replica here knows everything up to the timestamp ── data
//! ```
//!
//! A read below the safe point is refused, before its data is taken and again after: versions that
//! it needed may have gone meanwhile.
//!
//! The first part comes before the data is taken: see [`txn::concurrency`].

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use base::{KeyRange, StoreId, TimeStamp};
use bytes::Bytes;
use proto::kvrpcpb::{self, Context};
use proto::tikvpb::tikv_client::TikvClient;
use store::{ReadFrom, ReadRefusal, RegionError};
use tonic::transport::Channel;
use tonic::{Request, Status};
use txn::TxnError;
use txn::actions::BufferBatchGet;
use txn::concurrency::ReadRefused;
use txn::mvcc::{Isolation, Key, ReadOptions, Reader};

use super::replies;
use super::{Target, TxnService, context_of};
use crate::errors::{self, Refusal, settle, txn_refusal};
use crate::services::raw::{on_pool, request_header};
use crate::store_handle::ReadGuard;
use crate::transport::{connect_to, sign};
use txn::wire::requests::region_range;

/// A batch of at most so many keys is read on the caller's thread.
const INLINE_KEYS_MAX: usize = 64;

/// One key to read.
pub(crate) struct Point {
    target: Target,
    read: ReadOptions,
    key: Key,
    need_commit_ts: bool,
}

impl Point {
    fn get(
        &self,
        reader: &mut Reader<'_>,
        guard: &ReadGuard,
    ) -> Result<kvrpcpb::GetResponse, TxnError> {
        let found = reader.get(&self.key, &self.read)?;
        let Some(found) = found else {
            return Ok(kvrpcpb::GetResponse { not_found: true, ..Default::default() });
        };
        let bytes = self.key.data().len() + found.value.len();
        guard.view().traffic.read(self.key.region_slice(), bytes);
        let commit_ts = if self.need_commit_ts { found.commit_ts.0 } else { 0 };
        Ok(kvrpcpb::GetResponse { value: found.value, commit_ts, ..Default::default() })
    }
}

/// Keys that a read is about: what is looked for among the locks in memory.
enum Wanted<'a> {
    Keys(&'a [Key]),
    /// Region form.
    Range(&'a KeyRange),
}

impl Wanted<'_> {
    fn ranges(&self) -> Vec<kvrpcpb::KeyRange> {
        let range = |start_key, end_key| kvrpcpb::KeyRange { start_key, end_key };
        match self {
            Self::Range(keys) => vec![range(keys.start.clone(), keys.end.clone())],
            Self::Keys(keys) => {
                let only =
                    |key: &Key| range(key.region(), [key.region_slice(), &[0]].concat().into());
                keys.iter().map(only).collect()
            }
        }
    }
}

impl TxnService {
    /// `KvGet`.
    pub(crate) async fn get(
        &self,
        request: kvrpcpb::GetRequest,
    ) -> Result<kvrpcpb::GetResponse, Status> {
        self.store().metrics().txn_reads(1);
        settle(self.try_get(request).await)
    }

    async fn try_get(&self, request: kvrpcpb::GetRequest) -> Result<kvrpcpb::GetResponse, Refusal> {
        self.get_point(self.point(request)?).await
    }

    fn point(&self, mut request: kvrpcpb::GetRequest) -> Result<Point, Refusal> {
        let context = context_of(&mut request.context);
        Ok(Point {
            target: self.read_target(&context, TimeStamp(request.version))?,
            read: self.requests().read_options(&context, request.version),
            key: self.requests().key(&context, request.key)?,
            need_commit_ts: request.need_commit_ts,
        })
    }

    async fn get_point(&self, mut point: Point) -> Result<kvrpcpb::GetResponse, Refusal> {
        let wanted = Wanted::Keys(std::slice::from_ref(&point.key));
        let guard = self.guard(&point.target, &mut point.read, &wanted).await?;
        let found = self.read_now(&point.target, &guard, |reader| point.get(reader, &guard))?;
        self.store().gc().check(&point.key, point.read.ts)?;
        Ok(found)
    }

    /// Answers gets that came together: those that a leader's lease covers at once, all others are
    /// given back, to be asked for by [`get_later`](Self::get_later).
    pub(crate) fn get_together(
        &self,
        requests: Vec<(u64, kvrpcpb::GetRequest)>,
        mut answer: impl FnMut(u64, Result<kvrpcpb::GetResponse, Status>),
    ) -> Vec<(u64, Point)> {
        self.store().metrics().txn_reads(requests.len() as u64);
        let (mut points, mut later) = (Vec::with_capacity(requests.len()), Vec::new());
        for (id, request) in requests {
            match self.point(request) {
                Ok(point) if self.is_plain(&point) => points.push((id, point)),
                Ok(point) => later.push((id, point)),
                Err(refusal) => answer(id, errors::refuse(refusal)),
            }
        }
        while let Some((_, first)) = points.first() {
            let header = first.target.header;
            let others = points.extract_if(.., |(_, point)| point.target.header != header);
            let others = others.collect();
            let together = std::mem::replace(&mut points, others);
            match self.store().read(&header, ReadFrom::Leader) {
                Ok(guard) => self.get_under(&guard, together, &mut answer),
                Err(ReadRefusal::NeedsReadIndex) => later.extend(together),
                Err(ReadRefusal::Region(error)) => {
                    for (id, _) in together {
                        answer(id, errors::refuse(error.clone().into()));
                    }
                }
            }
        }
        later
    }

    fn is_plain(&self, point: &Point) -> bool {
        point.target.from == ReadFrom::Leader
            && !self.store().views().is_newborn(point.target.header.region_id)
    }

    /// Gets of one region, on one snapshot.
    fn get_under(
        &self,
        guard: &ReadGuard,
        points: Vec<(u64, Point)>,
        answer: &mut impl FnMut(u64, Result<kvrpcpb::GetResponse, Status>),
    ) {
        let mut begun = Vec::with_capacity(points.len());
        let mut state = self.state();
        for (id, point) in points {
            match state.scheduler.begin_read([&point.key], &point.read) {
                Ok(()) => begun.push((id, point, None)),
                Err(refused) => begun.push((id, point, Some(Refusal::from(refused)))),
            }
        }
        drop(state);
        let snapshot = guard.snapshot();
        let checked = guard.check();
        let mut reader = Reader::new(&*snapshot, guard.region());
        for (id, point, refused) in begun {
            let found = match (&checked, refused) {
                (Err(error), _) => Err(error.clone().into()),
                (Ok(()), Some(refused)) => Err(refused),
                (Ok(()), None) => {
                    let found = point.get(&mut reader, guard);
                    let found = found.map_err(|error| txn_refusal(error, guard.region()));
                    let in_time = self.store().gc().check(&point.key, point.read.ts);
                    found.and_then(|found| in_time.map(|()| found))
                }
            };
            answer(id, settle(found));
        }
    }

    /// The answer to a get that could not be answered at once.
    pub(crate) async fn get_later(&self, point: Point) -> Result<kvrpcpb::GetResponse, Status> {
        settle(self.get_point(point).await)
    }

    /// `KvBatchGet`.
    pub(crate) async fn batch_get(
        &self,
        request: kvrpcpb::BatchGetRequest,
    ) -> Result<kvrpcpb::BatchGetResponse, Status> {
        self.store().metrics().txn_reads(1);
        settle(self.try_batch_get(request).await)
    }

    async fn try_batch_get(
        &self,
        mut request: kvrpcpb::BatchGetRequest,
    ) -> Result<kvrpcpb::BatchGetResponse, Refusal> {
        let context = context_of(&mut request.context);
        let target = self.read_target(&context, TimeStamp(request.version))?;
        let mut read = self.requests().read_options(&context, request.version);
        let keys = self.requests().keys(&context, request.keys)?;
        let guard = self.guard(&target, &mut read, &Wanted::Keys(&keys)).await?;
        let (first, kept) = (keys.first().cloned(), read.clone());
        let rows = if keys.len() <= INLINE_KEYS_MAX {
            self.read_now(&target, &guard, |reader| reader.batch_get(&keys, &read))?
        } else {
            self.read_later(&target, guard, move |reader| reader.batch_get(&keys, &read)).await?
        };
        self.check_safe_point(&kept, &Wanted::Keys(first.as_slice()))?;
        let pairs = replies::pairs(rows, request.need_commit_ts);
        Ok(kvrpcpb::BatchGetResponse { pairs, ..Default::default() })
    }

    /// `KvScan`.
    pub(crate) async fn scan(
        &self,
        request: kvrpcpb::ScanRequest,
    ) -> Result<kvrpcpb::ScanResponse, Status> {
        self.store().metrics().txn_reads(1);
        settle(self.try_scan(request).await)
    }

    async fn try_scan(
        &self,
        mut request: kvrpcpb::ScanRequest,
    ) -> Result<kvrpcpb::ScanResponse, Refusal> {
        let context = context_of(&mut request.context);
        let target = self.read_target(&context, TimeStamp(request.version))?;
        let mut read = self.requests().read_options(&context, request.version);
        let (scan, range) = self.requests().scan(&context, request)?;
        let guard = self.guard(&target, &mut read, &Wanted::Range(&range)).await?;
        let kept = read.clone();
        let rows = if scan.limit <= INLINE_KEYS_MAX {
            self.read_now(&target, &guard, |reader| reader.scan(&scan, &read))?
        } else {
            self.read_later(&target, guard, move |reader| reader.scan(&scan, &read)).await?
        };
        self.check_safe_point(&kept, &Wanted::Range(&range))?;
        let pairs = replies::pairs(rows, false);
        Ok(kvrpcpb::ScanResponse { pairs, ..Default::default() })
    }

    /// `KvBufferBatchGet`.
    pub(crate) async fn buffer_batch_get(
        &self,
        request: kvrpcpb::BufferBatchGetRequest,
    ) -> Result<kvrpcpb::BufferBatchGetResponse, Status> {
        self.store().metrics().txn_reads(1);
        settle(self.try_buffer_batch_get(request).await)
    }

    async fn try_buffer_batch_get(
        &self,
        mut request: kvrpcpb::BufferBatchGetRequest,
    ) -> Result<kvrpcpb::BufferBatchGetResponse, Refusal> {
        let context = context_of(&mut request.context);
        let start_ts = TimeStamp(request.version);
        let target = self.target(&context)?;
        let keys = self.requests().keys(&context, request.keys)?;
        let get = BufferBatchGet { keys, start_ts };
        let guard = self.plain_guard(&target).await?;
        let found = self.read_later(&target, guard, move |reader| get.run(reader)).await?;
        let pair = |(key, value)| kvrpcpb::KvPair { key, value, ..Default::default() };
        let pairs = found.into_iter().map(pair).collect();
        Ok(kvrpcpb::BufferBatchGetResponse { pairs, ..Default::default() })
    }

    /// Leave to read at the leader, for what does not depend on locks in memory.
    pub(super) async fn plain_guard(&self, target: &Target) -> Result<ReadGuard, RegionError> {
        let Target { header, from, .. } = target;
        self.store().settled(header.region_id).await;
        match self.store().read(header, *from) {
            Ok(guard) => Ok(guard),
            Err(ReadRefusal::Region(error)) => Err(error),
            Err(ReadRefusal::NeedsReadIndex) => self.store().read_after_index(header, *from).await,
        }
    }

    /// Leave to read at a timestamp: reads are made known, locks in memory are looked at, then the
    /// lease is or the group is asked.
    async fn guard(
        &self,
        target: &Target,
        read: &mut ReadOptions,
        wanted: &Wanted<'_>,
    ) -> Result<ReadGuard, Refusal> {
        let header = &target.header;
        self.check_safe_point(read, wanted)?;
        self.store().settled(header.region_id).await;
        let leads = self.store().views().get(header.region_id).is_some_and(|view| view.is_leader());
        read.is_replica_read = !leads && target.from == ReadFrom::Replica;
        let from = if leads { ReadFrom::Leader } else { target.from };
        match from {
            // Who leads by the time of the read has to have heard of it. To others it is nothing:
            // the locks in memory here are of regions that are led here.
            ReadFrom::Past(_) => self.begin_believed(read, wanted).await?,
            ReadFrom::Replica => self.ask_leader(target, read, wanted).await?,
            ReadFrom::Leader => self.begin_believed(read, wanted).await?,
        }
        Ok(self.plain_guard(&Target { from, ..*target }).await?)
    }

    /// Whether nothing that the read sees is collected.
    fn check_safe_point(&self, read: &ReadOptions, wanted: &Wanted<'_>) -> Result<(), Refusal> {
        let gc = self.store().gc();
        match wanted {
            Wanted::Keys([key, ..]) => gc.check(key, read.ts),
            Wanted::Keys([]) => Ok(()),
            Wanted::Range(range) => gc.check_range(&range.start, read.ts),
        }
    }

    fn begin_read(&self, read: &ReadOptions, wanted: &Wanted<'_>) -> Result<(), ReadRefused> {
        let mut state = self.state();
        match wanted {
            Wanted::Keys(keys) => state.scheduler.begin_read(*keys, read),
            Wanted::Range(range) => state.scheduler.begin_read_range(range, read),
        }
    }

    /// The same; before a timestamp is not believed, placement is asked how late it is.
    async fn begin_believed(
        &self,
        read: &ReadOptions,
        wanted: &Wanted<'_>,
    ) -> Result<(), ReadRefused> {
        match self.begin_read(read, wanted) {
            Err(ReadRefused::Ts(_)) => {
                self.ask_for_timestamps().await;
                self.begin_read(read, wanted)
            }
            other => other,
        }
    }

    /// Has the leader make the read known and look at its locks in memory.
    async fn ask_leader(
        &self,
        target: &Target,
        read: &ReadOptions,
        wanted: &Wanted<'_>,
    ) -> Result<(), Refusal> {
        if read.isolation == Isolation::ReadCommitted {
            return Ok(());
        }
        let region = target.header.region_id;
        let view = self.store().views().get(region).ok_or(RegionError::RegionNotFound(region))?;
        let leader = view.leader.ok_or(RegionError::NotLeader { region, leader: None })?;
        let context = Context {
            region_id: region.0,
            region_epoch: Some(proto::epoch_to_proto(view.region.epoch)),
            peer: Some(proto::peer_to_proto(&leader)),
            resolved_locks: read.bypass.iter().map(|ts| ts.0).collect(),
            committed_locks: read.access.iter().map(|ts| ts.0).collect(),
            ..Default::default()
        };
        let (start_ts, ranges) = (read.ts.0, wanted.ranges());
        let request = kvrpcpb::ReadIndexRequest { context: Some(context), start_ts, ranges };
        let reason = "the leader was not reached";
        let unreached = || RegionError::ReadIndexNotReady { region, reason };
        let mut client = self.client_of(leader.store_id).await.ok_or_else(unreached)?;
        let request = sign(Request::new(request), self.store().cluster_id());
        let answer = client.read_index(request).await.map_err(|_| {
            self.clients().remove(&leader.store_id);
            unreached()
        })?;
        let answer = answer.into_inner();
        match (answer.region_error, answer.locked) {
            (Some(_), _) => Err(unreached().into()),
            (None, locked @ Some(_)) => {
                Err(Refusal::Key(Box::new(kvrpcpb::KeyError { locked, ..Default::default() })))
            }
            (None, None) => Ok(()),
        }
    }

    /// A connection to another store, kept for the next call.
    async fn client_of(&self, store: StoreId) -> Option<TikvClient<Channel>> {
        if let Some(client) = self.clients().get(&store) {
            return Some(client.clone());
        }
        let client = connect_to(&self.shared.resolver, store).await.ok()?;
        self.clients().insert(store, client.clone());
        Some(client)
    }

    fn clients(&self) -> MutexGuard<'_, BTreeMap<StoreId, TikvClient<Channel>>> {
        self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `ReadIndex`, for a store that follows (or anybody else): makes a read at `start_ts` known,
    /// looks at the locks in memory, and then asks the group.
    pub(crate) async fn read_index(
        &self,
        mut request: kvrpcpb::ReadIndexRequest,
    ) -> Result<kvrpcpb::ReadIndexResponse, Status> {
        let context = context_of(&mut request.context);
        let header = request_header(&context);
        let mut response = kvrpcpb::ReadIndexResponse::default();
        let reads = request.start_ts != 0;
        if reads {
            let mut read = self.requests().read_options(&context, request.start_ts);
            read.is_replica_read = true;
            for range in request.ranges {
                let range = KeyRange::new(range.start_key, range.end_key);
                if let Err(refused) = self.begin_believed(&read, &Wanted::Range(&range)).await {
                    return errors::refuse(refused.into());
                }
            }
        }
        let from = if reads { ReadFrom::Leader } else { ReadFrom::Replica };
        match self.store().read_after_index(&header, from).await {
            Ok(guard) => response.read_index = guard.view().applied,
            Err(error) => response.region_error = Some(errors::region_error(&error)),
        }
        Ok(response)
    }

    /// Reads on the caller's thread.
    pub(super) fn read_now<T>(
        &self,
        target: &Target,
        guard: &ReadGuard,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, TxnError>,
    ) -> Result<T, Refusal> {
        let snapshot = guard.snapshot();
        guard.check()?;
        let late = || super::course::is_late(target);
        let mut reader = Reader::new(&*snapshot, guard.region()).interrupted_by(&late);
        read(&mut reader).map_err(|error| txn_refusal(error, guard.region()))
    }

    /// Reads where it may take long.
    pub(super) async fn read_later<T: Send + 'static>(
        &self,
        target: &Target,
        guard: ReadGuard,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, TxnError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let snapshot = guard.snapshot();
        guard.check()?;
        let (target, region) = (*target, guard.region().clone());
        on_pool(move || {
            let late = || super::course::is_late(&target);
            let mut reader = Reader::new(&*snapshot, &region).interrupted_by(&late);
            read(&mut reader).map_err(|error| txn_refusal(error, &region))
        })
        .await
    }

    /// All keys of a range in region form.
    pub(super) async fn begin_range_read(
        &self,
        read: &ReadOptions,
        start: &Bytes,
        end: &Bytes,
    ) -> Result<(), Refusal> {
        Ok(self.begin_believed(read, &Wanted::Range(&region_range(start, end))).await?)
    }
}
