//! Requests that write, many at once: each is planned on top of those before it, and the rows of
//! all of them are one proposal.

use base::{ClusterId, Instant};
use proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, PutResponse, ResponseHeader, TxnRequest,
    TxnResponse,
};

use super::draft::Draft;
use super::lease::Terms;
use super::{
    BATCH_BYTES_MAX, EVENT_BYTES, EtcdError, LEASE_TTL_MAX, LEASE_TTL_MIN, WRITE_BYTES_MAX, txn,
};
use crate::{Change, Placement};

/// A request that may write.
#[derive(Clone, Debug, PartialEq)]
pub enum EtcdWrite {
    /// KV.Put.
    Put(PutRequest),
    /// KV.DeleteRange.
    DeleteRange(DeleteRangeRequest),
    /// KV.Txn.
    Txn(TxnRequest),
    /// KV.Compact.
    Compact(CompactionRequest),
    /// Lease.LeaseGrant.
    Grant(LeaseGrantRequest),
    /// Lease.LeaseRevoke.
    Revoke(LeaseRevokeRequest),
    /// One message of Lease.LeaseKeepAlive.
    KeepAlive(LeaseKeepAliveRequest),
}

/// The answer to an [`EtcdWrite`] of the same name.
#[derive(Clone, Debug, PartialEq)]
pub enum EtcdReply {
    /// To a put.
    Put(PutResponse),
    /// To a deletion.
    DeleteRange(DeleteRangeResponse),
    /// To a transaction.
    Txn(TxnResponse),
    /// To a compaction. The rows are swept later.
    Compact(CompactionResponse),
    /// To a grant.
    Grant(LeaseGrantResponse),
    /// To a revocation.
    Revoke(LeaseRevokeResponse),
    /// To a renewal. A lease that is not there has a time to live of 0.
    KeepAlive(LeaseKeepAliveResponse),
}

/// The answers of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EtcdBatch {
    /// In the order of the requests. There may be fewer than requests: the last ones did not fit,
    /// and have to be planned again. There is at least one.
    pub replies: Vec<Result<EtcdReply, EtcdError>>,
    /// Leases that begin their time anew once the batch is committed: see
    /// [`Placement::etcd_settle`].
    pub renewed: Vec<i64>,
    /// The last lease id that was made up.
    last_lease: i64,
}

impl Placement {
    /// Plans requests that write, in their order. `wall_ms` gives ids to leases that ask for one.
    pub fn plan_etcd(&self, writes: &[EtcdWrite], now: Instant, wall_ms: u64) -> Change<EtcdBatch> {
        let mut planner = Planner {
            draft: Draft::new(&self.etcd),
            cluster_id: self.cluster_id,
            now,
            wall_ms,
            renewed: Vec::new(),
        };
        let mut replies = Vec::with_capacity(writes.len());
        for write in writes {
            if planner.draft.bytes() >= BATCH_BYTES_MAX {
                break;
            }
            replies.push(planner.plan(write));
        }
        assert!(replies.len() == writes.len() || !replies.is_empty(), "no progress");
        let (renewed, last_lease) = (planner.renewed, planner.draft.last_lease);
        let reply = EtcdBatch { replies, renewed, last_lease };
        Change { rows: planner.draft.into_rows(), reply }
    }

    /// To be called once a batch is committed, or found to need no commit: leases that were
    /// renewed, granted or read from rows begin their time.
    pub fn etcd_settle(&mut self, batch: &EtcdBatch, now: Instant) {
        self.etcd.last_lease = self.etcd.last_lease.max(batch.last_lease);
        for id in &batch.renewed {
            if let Some(lease) = self.etcd.leases.get_mut(id) {
                lease.renew(now);
            }
        }
        self.etcd.start_leases(now);
    }

    /// The revision of the last write.
    pub fn etcd_revision(&self) -> i64 {
        self.etcd.revision
    }

    /// The header of an answer. Who answers, in which term, is the host's to add.
    pub(crate) fn etcd_header(&self, revision: i64) -> ResponseHeader {
        header(self.cluster_id, revision)
    }
}

pub(super) fn header(cluster_id: ClusterId, revision: i64) -> ResponseHeader {
    assert!(revision > 0, "the first revision is 1");
    ResponseHeader { cluster_id: cluster_id.0, revision, ..Default::default() }
}

struct Planner<'a> {
    draft: Draft<'a>,
    cluster_id: ClusterId,
    now: Instant,
    wall_ms: u64,
    renewed: Vec<i64>,
}

impl Planner<'_> {
    fn plan(&mut self, write: &EtcdWrite) -> Result<EtcdReply, EtcdError> {
        let mut reply = match write {
            EtcdWrite::Put(request) => EtcdReply::Put(txn::put(&mut self.draft, request)?),
            EtcdWrite::DeleteRange(request) => {
                EtcdReply::DeleteRange(txn::delete(&mut self.draft, request)?)
            }
            EtcdWrite::Txn(request) => EtcdReply::Txn(txn::txn(&mut self.draft, request)?),
            EtcdWrite::Compact(request) => EtcdReply::Compact(self.compact(request)?),
            EtcdWrite::Grant(request) => EtcdReply::Grant(self.grant(request)?),
            EtcdWrite::Revoke(request) => EtcdReply::Revoke(self.revoke(request)?),
            EtcdWrite::KeepAlive(request) => EtcdReply::KeepAlive(self.keep_alive(request)),
        };
        let header = Some(header(self.cluster_id, self.draft.end_write()));
        match &mut reply {
            EtcdReply::Put(response) => response.header = header,
            EtcdReply::DeleteRange(response) => response.header = header,
            EtcdReply::Txn(response) => response.header = header,
            EtcdReply::Compact(response) => response.header = header,
            EtcdReply::Grant(response) => response.header = header,
            EtcdReply::Revoke(response) => response.header = header,
            EtcdReply::KeepAlive(response) => response.header = header,
        }
        Ok(reply)
    }

    fn compact(&mut self, request: &CompactionRequest) -> Result<CompactionResponse, EtcdError> {
        if request.revision <= self.draft.compacted() {
            return Err(EtcdError::Compacted);
        }
        if request.revision > self.draft.revision() {
            return Err(EtcdError::FutureRevision);
        }
        self.draft.compact(request.revision);
        Ok(CompactionResponse::default())
    }

    fn grant(&mut self, request: &LeaseGrantRequest) -> Result<LeaseGrantResponse, EtcdError> {
        if request.ttl > LEASE_TTL_MAX {
            return Err(EtcdError::LeaseTtlTooLarge);
        }
        let id = match request.id {
            0 => self.new_id(),
            id if self.draft.lease(id).is_some() => return Err(EtcdError::LeaseExists),
            id => id,
        };
        self.draft.check_room(EVENT_BYTES)?;
        let ttl = request.ttl.max(LEASE_TTL_MIN);
        self.draft.put_lease(id, Terms::new(ttl));
        Ok(LeaseGrantResponse { id, ttl, ..Default::default() })
    }

    /// An id that no lease has and that this leader gave to none. Other leaders gave theirs at
    /// other times.
    fn new_id(&mut self) -> i64 {
        let from_clock = i64::try_from(self.wall_ms % (1 << 42)).expect("42 bits") << 20;
        let mut id = from_clock.max(self.draft.last_lease + 1);
        while id <= 0 || self.draft.lease(id).is_some() {
            id = id.wrapping_add(1);
        }
        self.draft.last_lease = id;
        id
    }

    fn revoke(&mut self, request: &LeaseRevokeRequest) -> Result<LeaseRevokeResponse, EtcdError> {
        self.draft.lease(request.id).ok_or(EtcdError::LeaseNotFound)?;
        let keys = self.draft.keys_of(request.id);
        let bytes: usize = keys.iter().map(|key| key.len() + EVENT_BYTES).sum();
        if bytes > WRITE_BYTES_MAX {
            return Err(EtcdError::TooLarge);
        }
        keys.iter().for_each(|key| self.draft.delete(key));
        self.draft.delete_lease(request.id);
        Ok(LeaseRevokeResponse::default())
    }

    /// One that has run out and is not taken away yet is not to be saved: others may have been told
    /// that it ended.
    fn keep_alive(&mut self, request: &LeaseKeepAliveRequest) -> LeaseKeepAliveResponse {
        let id = request.id;
        let ended = self.draft.store.leases.get(&id).is_some_and(|l| l.has_ended(self.now));
        let Some(terms) = self.draft.lease(id).filter(|_| !ended) else {
            return LeaseKeepAliveResponse { id, ..Default::default() };
        };
        if terms.left < terms.ttl {
            self.draft.put_lease(id, Terms::new(terms.ttl));
        }
        self.renewed.push(id);
        LeaseKeepAliveResponse { id, ttl: terms.ttl, ..Default::default() }
    }
}
