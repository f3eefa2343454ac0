//! Txn: compare, then do the one or the other list of operations, as one write.
//!
//! ```text
//!   request ── check: sizes, keys, no key written twice      says nothing of the keys there are
//!           ── choose: all comparisons, nested ones too, on the keys as they are before
//!           ── admit: what was chosen, on the same keys      the last point of a refusal
//!           ── carry out, operation by operation             each sees those before it
//! ```

use std::collections::BTreeSet;

use bytes::Bytes;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::response_op::Response;
use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use proto::mvccpb::KeyValue;

use super::draft::Draft;
use super::span::Span;
use super::{EVENT_BYTES, EtcdError, TXN_OPS_MAX, WRITE_BYTES_MAX, range};
use crate::Placement;

impl Placement {
    /// Txn, of operations that only read, over what is committed.
    pub fn etcd_read_txn(&self, request: &TxnRequest) -> Result<TxnResponse, EtcdError> {
        assert!(only_reads(request), "a write needs a plan");
        let mut draft = Draft::new(&self.etcd);
        let mut response = txn(&mut draft, request)?;
        response.header = Some(self.etcd_header(self.etcd.revision));
        Ok(response)
    }
}

/// Whether no operation of either branch can change anything.
pub fn only_reads(request: &TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).all(|op| match &op.request {
        Some(Request::RequestTxn(nested)) => only_reads(nested),
        Some(Request::RequestRange(_)) | None => true,
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) => false,
    })
}

/// Plans a transaction on the draft, or refuses it and leaves the draft as it is. The answer lacks
/// its header.
pub(super) fn txn(draft: &mut Draft<'_>, request: &TxnRequest) -> Result<TxnResponse, EtcdError> {
    check(request, TXN_OPS_MAX)?;
    Written::of_branch(&request.success)?;
    Written::of_branch(&request.failure)?;
    let chosen = Chosen::choose(draft, request);
    let mut weight = Weight::default();
    chosen.admit(draft, &mut weight)?;
    weight.admit(draft)?;
    Ok(chosen.carry_out(draft))
}

/// Put, as a write of its own.
pub(super) fn put(draft: &mut Draft<'_>, request: &PutRequest) -> Result<PutResponse, EtcdError> {
    check_put(request)?;
    admit_put(draft, request)?;
    Weight::of_put(request).admit(draft)?;
    Ok(carry_out_put(draft, request))
}

/// DeleteRange, as a write of its own.
pub(super) fn delete(
    draft: &mut Draft<'_>,
    request: &DeleteRangeRequest,
) -> Result<DeleteRangeResponse, EtcdError> {
    check_delete(request)?;
    Weight::of_delete(draft, request).admit(draft)?;
    Ok(carry_out_delete(draft, request))
}

fn check(request: &TxnRequest, ops_max: usize) -> Result<(), EtcdError> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let nested_max = ops_max.checked_sub(ops).ok_or(EtcdError::TooManyOps)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(EtcdError::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(range)) => range::check(range)?,
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) => check_delete(delete)?,
            Some(Request::RequestTxn(nested)) => check(nested, nested_max)?,
            None => return Err(EtcdError::KeyNotFound),
        }
    }
    Ok(())
}

fn check_put(request: &PutRequest) -> Result<(), EtcdError> {
    if request.key.is_empty() {
        return Err(EtcdError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(EtcdError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(EtcdError::LeaseProvided);
    }
    Ok(())
}

fn check_delete(request: &DeleteRangeRequest) -> Result<(), EtcdError> {
    if request.key.is_empty() { Err(EtcdError::EmptyKey) } else { Ok(()) }
}

/// What a list of operations may write. No key is put twice, nor put and deleted, since all of it
/// has one revision; but only one branch of a nested transaction is carried out, so its branches
/// may write the same.
#[derive(Default)]
struct Written {
    puts: BTreeSet<Bytes>,
    deletes: Vec<Span>,
}

impl Written {
    fn of_branch(ops: &[RequestOp]) -> Result<Self, EtcdError> {
        let mut written = Self::default();
        for op in ops {
            if let Some(Request::RequestDeleteRange(delete)) = &op.request {
                written.deletes.push(Span::new(&delete.key, &delete.range_end));
            }
        }
        for op in ops {
            if let Some(Request::RequestTxn(nested)) = &op.request {
                let either = Self::either(nested)?;
                either.puts.into_iter().try_for_each(|key| written.put(key))?;
                written.deletes.extend(either.deletes);
            }
        }
        for op in ops {
            if let Some(Request::RequestPut(put)) = &op.request {
                written.put(put.key.clone())?;
            }
        }
        Ok(written)
    }

    fn either(request: &TxnRequest) -> Result<Self, EtcdError> {
        let mut either = Self::of_branch(&request.success)?;
        let other = Self::of_branch(&request.failure)?;
        either.puts.extend(other.puts);
        either.deletes.extend(other.deletes);
        Ok(either)
    }

    fn put(&mut self, key: Bytes) -> Result<(), EtcdError> {
        if self.deletes.iter().any(|span| span.contains(&key)) || !self.puts.insert(key) {
            return Err(EtcdError::DuplicateKey);
        }
        Ok(())
    }
}

/// A transaction whose comparisons are made.
struct Chosen<'r> {
    succeeded: bool,
    steps: Vec<Step<'r>>,
}

enum Step<'r> {
    Range(&'r RangeRequest),
    Put(&'r PutRequest),
    Delete(&'r DeleteRangeRequest),
    Txn(Chosen<'r>),
}

impl<'r> Chosen<'r> {
    fn choose(draft: &Draft<'_>, request: &'r TxnRequest) -> Self {
        let succeeded = request.compare.iter().all(|compare| holds(draft, compare));
        let ops = if succeeded { &request.success } else { &request.failure };
        let steps = ops.iter().map(|op| match op.request.as_ref().expect("checked") {
            Request::RequestRange(range) => Step::Range(range),
            Request::RequestPut(put) => Step::Put(put),
            Request::RequestDeleteRange(delete) => Step::Delete(delete),
            Request::RequestTxn(nested) => Step::Txn(Self::choose(draft, nested)),
        });
        Self { succeeded, steps: steps.collect() }
    }

    fn admit(&self, draft: &Draft<'_>, weight: &mut Weight) -> Result<(), EtcdError> {
        for step in &self.steps {
            match step {
                Step::Range(range) => drop(draft.checked_revision(range.revision)?),
                Step::Put(put) => {
                    admit_put(draft, put)?;
                    weight.add(&Weight::of_put(put));
                }
                Step::Delete(delete) => weight.add(&Weight::of_delete(draft, delete)),
                Step::Txn(nested) => nested.admit(draft, weight)?,
            }
        }
        Ok(())
    }

    fn carry_out(&self, draft: &mut Draft<'_>) -> TxnResponse {
        let responses = self.steps.iter().map(|step| step.carry_out(draft)).collect();
        TxnResponse { header: None, succeeded: self.succeeded, responses }
    }
}

impl Step<'_> {
    fn carry_out(&self, draft: &mut Draft<'_>) -> ResponseOp {
        let mut response = match self {
            Self::Range(request) => Response::ResponseRange(range::range(draft, request)),
            Self::Put(request) => Response::ResponsePut(carry_out_put(draft, request)),
            Self::Delete(request) => {
                Response::ResponseDeleteRange(carry_out_delete(draft, request))
            }
            Self::Txn(chosen) => Response::ResponseTxn(chosen.carry_out(draft)),
        };
        // Answers within a transaction tell the revision and nothing else.
        let revision = draft.revision();
        let header = Some(ResponseHeader { revision, ..Default::default() });
        match &mut response {
            Response::ResponseRange(response) => response.header = header,
            Response::ResponsePut(response) => response.header = header,
            Response::ResponseDeleteRange(response) => response.header = header,
            Response::ResponseTxn(response) => response.header = header,
        }
        ResponseOp { response: Some(response) }
    }
}

fn admit_put(draft: &Draft<'_>, request: &PutRequest) -> Result<(), EtcdError> {
    let keeps = request.ignore_value || request.ignore_lease;
    if keeps && draft.now(&request.key).is_none() {
        return Err(EtcdError::KeyNotFound);
    }
    if request.lease != 0 && draft.lease(request.lease).is_none() {
        return Err(EtcdError::LeaseNotFound);
    }
    Ok(())
}

fn carry_out_put(draft: &mut Draft<'_>, request: &PutRequest) -> PutResponse {
    let before = draft.now(&request.key).cloned();
    let kept = || before.as_ref().expect("admitted");
    let value = if request.ignore_value { kept().value.clone() } else { request.value.clone() };
    let lease = if request.ignore_lease { kept().lease } else { request.lease };
    draft.put(&request.key, &value, lease);
    PutResponse { header: None, prev_kv: before.filter(|_| request.prev_kv) }
}

fn carry_out_delete(draft: &mut Draft<'_>, request: &DeleteRangeRequest) -> DeleteRangeResponse {
    let span = Span::new(&request.key, &request.range_end);
    let there = draft.in_span(&span, draft.revision());
    let there: Vec<KeyValue> = there.into_iter().cloned().collect();
    there.iter().for_each(|kv| draft.delete(&kv.key));
    let deleted = i64::try_from(there.len()).expect("they are in memory");
    let prev_kvs = if request.prev_kv { there } else { Vec::new() };
    DeleteRangeResponse { header: None, deleted, prev_kvs }
}

/// What a write takes at most.
#[derive(Default)]
struct Weight {
    puts: usize,
    deletes: usize,
}

impl Weight {
    fn of_put(request: &PutRequest) -> Self {
        Self { puts: request.key.len() + request.value.len() + EVENT_BYTES, deletes: 0 }
    }

    fn of_delete(draft: &Draft<'_>, request: &DeleteRangeRequest) -> Self {
        let span = Span::new(&request.key, &request.range_end);
        let there = draft.in_span(&span, draft.revision());
        let deletes = there.into_iter().map(|kv| kv.key.len() + EVENT_BYTES).sum();
        Self { puts: 0, deletes }
    }

    fn add(&mut self, other: &Self) {
        self.puts += other.puts;
        self.deletes += other.deletes;
    }

    /// Deletions make room, so they are taken when there is none.
    fn admit(&self, draft: &Draft<'_>) -> Result<(), EtcdError> {
        if self.puts + self.deletes > WRITE_BYTES_MAX {
            return Err(EtcdError::TooLarge);
        }
        if self.puts == 0 { Ok(()) } else { draft.check_room(self.puts + self.deletes) }
    }
}

/// Whether a comparison holds for all keys that it names. Where there is none, it is made with a
/// key of version 0; but a value that is not there is like no other.
fn holds(draft: &Draft<'_>, compare: &Compare) -> bool {
    let span = Span::new(&compare.key, &compare.range_end);
    let there = draft.in_span(&span, draft.revision());
    if there.is_empty() {
        return compare.target() != CompareTarget::Value
            && holds_for(compare, &KeyValue::default());
    }
    there.into_iter().all(|kv| holds_for(compare, kv))
}

/// A target without its number, or with that of another target, is compared with zero.
fn holds_for(compare: &Compare, kv: &KeyValue) -> bool {
    let union = compare.target_union.as_ref();
    let number = |read: fn(&TargetUnion) -> Option<i64>| union.and_then(read).unwrap_or(0);
    let ordering = match compare.target() {
        CompareTarget::Version => kv.version.cmp(&number(|union| match union {
            TargetUnion::Version(version) => Some(*version),
            _ => None,
        })),
        CompareTarget::Create => kv.create_revision.cmp(&number(|union| match union {
            TargetUnion::CreateRevision(revision) => Some(*revision),
            _ => None,
        })),
        CompareTarget::Mod => kv.mod_revision.cmp(&number(|union| match union {
            TargetUnion::ModRevision(revision) => Some(*revision),
            _ => None,
        })),
        CompareTarget::Lease => kv.lease.cmp(&number(|union| match union {
            TargetUnion::Lease(lease) => Some(*lease),
            _ => None,
        })),
        CompareTarget::Value => kv.value.as_ref().cmp(match union {
            Some(TargetUnion::Value(value)) => value.as_ref(),
            _ => &[],
        }),
    };
    match compare.result() {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
        CompareResult::NotEqual => ordering.is_ne(),
    }
}
