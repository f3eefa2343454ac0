//! The writing half of the raw commands.

use std::sync::Arc;

use base::limits::RAFT_ENTRY_SIZE_MAX;
use base::{KeyRange, Term};
use bytes::Bytes;
use proto::kvrpcpb;
use proto::tikvpb::batch_commands_response::response::Cmd;
use store::{
    Proposal, ReadFrom, RegionError, RegionView, ReplyTo, RequestHeader, ShardInput, WriteResult,
    Writes,
};
use tokio::sync::oneshot;
use tonic::Status;
use txn::Mutation;
use txn::raw::{CompareAndSwap, Writer};

use super::{RawService, Target, replies, to_the_end};
use crate::errors::{Refusable, Refusal, settle};
use crate::store_handle::reply_into;

/// Writes of a stream's message are joined up to so many bytes, so that a proposal stays far below
/// the largest entry.
pub(in crate::services) const GROUP_BYTES_MAX: usize = 1 << 20;
const _: () = assert!(2 * GROUP_BYTES_MAX <= RAFT_ENTRY_SIZE_MAX);

/// A write whose keys were not yet compared with any region.
pub(crate) struct Write {
    pub(crate) target: Target,
    pub(crate) mutations: Vec<Mutation>,
}

impl RawService {
    fn writer(&self) -> Writer {
        Writer { api: self.store.api_version(), now_s: self.store.clock().unix_seconds() }
    }

    /// What `RawPut` writes.
    pub(crate) fn put_write(&self, request: kvrpcpb::RawPutRequest) -> Result<Write, Refusal> {
        let target = self.target(request.context.as_ref())?;
        let cf = self.api().raw_cf(&request.cf)?;
        let put = self.writer().put(cf, &request.key, request.value, request.ttl)?;
        Ok(Write { target, mutations: vec![put] })
    }

    /// What `RawBatchPut` writes. Its old field for one ttl is not looked at.
    pub(crate) fn batch_put_write(
        &self,
        request: kvrpcpb::RawBatchPutRequest,
    ) -> Result<Write, Refusal> {
        let target = self.target(request.context.as_ref())?;
        let cf = self.api().raw_cf(&request.cf)?;
        let pairs = request.pairs.into_iter().map(|pair| (pair.key, pair.value));
        let mutations = self.writer().batch_put(cf, pairs, &request.ttls)?;
        Ok(Write { target, mutations })
    }

    /// What `RawDelete` writes.
    pub(crate) fn delete_write(
        &self,
        request: kvrpcpb::RawDeleteRequest,
    ) -> Result<Write, Refusal> {
        let target = self.target(request.context.as_ref())?;
        let cf = self.api().raw_cf(&request.cf)?;
        Ok(Write { target, mutations: vec![self.writer().delete(cf, &request.key)?] })
    }

    /// What `RawBatchDelete` writes.
    pub(crate) fn batch_delete_write(
        &self,
        request: kvrpcpb::RawBatchDeleteRequest,
    ) -> Result<Write, Refusal> {
        let target = self.target(request.context.as_ref())?;
        let cf = self.api().raw_cf(&request.cf)?;
        Ok(Write { target, mutations: self.writer().batch_delete(cf, &request.keys)? })
    }

    fn delete_range_write(
        &self,
        request: kvrpcpb::RawDeleteRangeRequest,
    ) -> Result<Write, Refusal> {
        let target = self.target(request.context.as_ref())?;
        let cf = self.api().raw_cf(&request.cf)?;
        let range = self.writer().delete_range(cf, &request.start_key, &request.end_key)?;
        Ok(Write { target, mutations: range.into_iter().collect() })
    }

    /// `RawPut`.
    pub(crate) async fn put(
        &self,
        request: kvrpcpb::RawPutRequest,
    ) -> Result<kvrpcpb::RawPutResponse, Status> {
        let for_cas = request.for_cas;
        self.write(self.put_write(request), for_cas).await
    }

    /// `RawBatchPut`.
    pub(crate) async fn batch_put(
        &self,
        request: kvrpcpb::RawBatchPutRequest,
    ) -> Result<kvrpcpb::RawBatchPutResponse, Status> {
        let for_cas = request.for_cas;
        self.write(self.batch_put_write(request), for_cas).await
    }

    /// `RawDelete`.
    pub(crate) async fn delete(
        &self,
        request: kvrpcpb::RawDeleteRequest,
    ) -> Result<kvrpcpb::RawDeleteResponse, Status> {
        let for_cas = request.for_cas;
        self.write(self.delete_write(request), for_cas).await
    }

    /// `RawBatchDelete`.
    pub(crate) async fn batch_delete(
        &self,
        request: kvrpcpb::RawBatchDeleteRequest,
    ) -> Result<kvrpcpb::RawBatchDeleteResponse, Status> {
        let for_cas = request.for_cas;
        self.write(self.batch_delete_write(request), for_cas).await
    }

    /// `RawDeleteRange`.
    pub(crate) async fn delete_range(
        &self,
        request: kvrpcpb::RawDeleteRangeRequest,
    ) -> Result<kvrpcpb::RawDeleteRangeResponse, Status> {
        self.write(self.delete_range_write(request), false).await
    }

    /// `RawCompareAndSwap`.
    pub(crate) async fn compare_and_swap(
        &self,
        request: kvrpcpb::RawCasRequest,
    ) -> Result<kvrpcpb::RawCasResponse, Status> {
        self.store.metrics().raw_writes(1);
        let service = self.clone();
        settle(to_the_end(async move { service.try_compare_and_swap(request).await }).await)
    }

    async fn try_compare_and_swap(
        &self,
        request: kvrpcpb::RawCasRequest,
    ) -> Result<kvrpcpb::RawCasResponse, Refusal> {
        let target = self.target(request.context.as_ref())?;
        let target = Target { from: ReadFrom::Leader, ..target };
        let cf = self.api().raw_cf(&request.cf)?;
        let latched = self.api().region_key(&request.key);
        let command = CompareAndSwap {
            cf,
            key: request.key,
            previous: (!request.previous_not_exist).then_some(request.previous_value),
            value: request.value,
            ttl_s: request.ttl,
            delete: request.delete,
        };
        let _latch = self.store.latch([&latched[..]]).await;
        self.store.settled(target.header.region_id).await;
        // What is read is good in this term only: another leader might write in between.
        let term = self.store.views().route(&target.header)?.term;
        let swapped = self.read(&target, move |view| view.compare_and_swap(command)).await?;
        let succeed = swapped.mutation.is_some();
        if let Some(mutation) = swapped.mutation {
            self.write_in_term(&target.header, &[mutation], term).await?;
        }
        Ok(replies::swapped(succeed, swapped.previous))
    }

    /// Writes, with the latches of its keys if `for_cas`.
    async fn write<T: Refusable + Default>(
        &self,
        write: Result<Write, Refusal>,
        for_cas: bool,
    ) -> Result<T, Status> {
        self.store.metrics().raw_writes(1);
        let written = match write {
            Err(refusal) => Err(refusal),
            Ok(write) if for_cas => {
                let service = self.clone();
                to_the_end(async move {
                    let _latch = service.store.latch(write.mutations.iter().filter_map(key)).await;
                    service.write_now(&write).await
                })
                .await
            }
            Ok(write) => self.write_now(&write).await,
        };
        settle(written.map(|()| T::default()))
    }

    async fn write_now(&self, write: &Write) -> Result<(), Refusal> {
        let header = &write.target.header;
        self.store.settled(header.region_id).await;
        let view = self.store.views().route(header)?;
        let Some(writes) = encode(&view, &write.mutations)? else { return Ok(()) };
        Ok(self.store.write(header, writes).await?)
    }

    /// Writes unless the region's leader is in another term.
    async fn write_in_term(
        &self,
        header: &RequestHeader,
        mutations: &[Mutation],
        term: Term,
    ) -> Result<(), Refusal> {
        let view = self.store.views().route(header)?;
        let Some(writes) = encode(&view, mutations)? else { return Ok(()) };
        let (send, receive) = oneshot::channel();
        let reply = reply_into(send);
        let proposal = Proposal { header: *header, writes, only_in_term: Some(term), reply };
        self.store.request(ShardInput::Propose(proposal));
        Ok(receive.await.unwrap_or(Err(RegionError::Undetermined))?)
    }
}

fn key(mutation: &Mutation) -> Option<&[u8]> {
    match mutation {
        Mutation::Put { key, .. } | Mutation::Delete { key, .. } => Some(key),
        Mutation::DeleteRange { .. } => None,
    }
}

/// The proposal of `mutations`; `None` if there are none.
fn encode(view: &RegionView, mutations: &[Mutation]) -> Result<Option<Writes>, RegionError> {
    check_keys(view, mutations)?;
    if mutations.is_empty() {
        return Ok(None);
    }
    let mut writes = Writes::with_capacity(encoded_size(mutations));
    mutations.iter().for_each(|mutation| add(&mut writes, mutation));
    Ok(Some(writes))
}

fn check_keys(view: &RegionView, mutations: &[Mutation]) -> Result<(), RegionError> {
    let region: &KeyRange = &view.region.range;
    match mutations.iter().find_map(|mutation| mutation.key_outside(region)) {
        None => Ok(()),
        Some(key) => {
            let (key, region): (Bytes, _) = (key.clone(), view.region.clone());
            Err(RegionError::KeyNotInRegion { key, region })
        }
    }
}

/// Bytes in a proposal, a little generous.
pub(in crate::services) fn encoded_size(mutations: &[Mutation]) -> usize {
    const FRAMING: usize = 24;
    mutations.iter().map(|mutation| mutation.byte_size() + FRAMING).sum()
}

pub(in crate::services) fn add(writes: &mut Writes, mutation: &Mutation) {
    match mutation {
        Mutation::Put { cf, key, value } => writes.put(*cf, key, value),
        Mutation::Delete { cf, key } => writes.delete(*cf, key),
        Mutation::DeleteRange { cf, start, end } => writes.delete_range(*cf, start, end),
    }
}

/// Which response a joined write gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteKind {
    Put,
    BatchPut,
    Delete,
    BatchDelete,
}

impl WriteKind {
    /// The response to a write that was applied or refused.
    pub(crate) fn response(self, outcome: Result<(), Refusal>) -> Result<Cmd, Status> {
        match self {
            Self::Put => written(outcome).map(Cmd::RawPut),
            Self::BatchPut => written(outcome).map(Cmd::RawBatchPut),
            Self::Delete => written(outcome).map(Cmd::RawDelete),
            Self::BatchDelete => written(outcome).map(Cmd::RawBatchDelete),
        }
    }
}

fn written<T: Refusable + Default>(outcome: Result<(), Refusal>) -> Result<T, Status> {
    settle(outcome.map(|()| T::default()))
}

/// Writes of one message of a stream to one region, joined into one proposal.
pub(crate) struct WriteGroup {
    header: RequestHeader,
    /// The region when the first one joined. The proposal is refused if its range has changed by
    /// then.
    view: Arc<RegionView>,
    writes: Writes,
    waiting: Vec<(u64, WriteKind)>,
}

impl WriteGroup {
    /// A group for the region that `header` names.
    pub(crate) fn open(service: &RawService, header: RequestHeader) -> Result<Self, RegionError> {
        let view = service.store.views().route(&header)?;
        Ok(Self { header, view, writes: Writes::new(), waiting: Vec::new() })
    }

    /// Whether `write` may join: it goes to the same region, and all together are not too much for
    /// one proposal.
    pub(crate) fn takes(&self, write: &Write) -> bool {
        let size = self.writes.byte_size() + encoded_size(&write.mutations);
        self.header == write.target.header && (self.writes.is_empty() || size <= GROUP_BYTES_MAX)
    }

    /// Adds the write of request `id`. Refused if a key lies outside; then the others are not
    /// touched.
    pub(crate) fn join(
        &mut self,
        id: u64,
        kind: WriteKind,
        write: &Write,
    ) -> Result<(), RegionError> {
        check_keys(&self.view, &write.mutations)?;
        write.mutations.iter().for_each(|mutation| add(&mut self.writes, mutation));
        self.waiting.push((id, kind));
        Ok(())
    }

    /// How many requests wait for this group.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Proposes. `done` is called once, with all that waited, possibly before this returns.
    pub(crate) fn propose(
        self,
        service: &RawService,
        done: impl FnOnce(Vec<(u64, WriteKind)>, WriteResult) + Send + 'static,
    ) {
        let Self { header, writes, waiting, .. } = self;
        if writes.is_empty() {
            return done(waiting, Ok(()));
        }
        let reply = ReplyTo::new(move |result| done(waiting, result));
        service.store.propose(&header, writes, reply);
    }
}
