//! Range: keys as they are, or as they were.

use std::cmp::Ordering;

use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::{RangeRequest, RangeResponse};
use proto::mvccpb::KeyValue;

use super::EtcdError;
use super::draft::Draft;
use super::span::Span;
use crate::Placement;

impl Placement {
    /// Range, over what is committed.
    pub fn etcd_range(&self, request: &RangeRequest) -> Result<RangeResponse, EtcdError> {
        check(request)?;
        let draft = Draft::new(&self.etcd);
        draft.checked_revision(request.revision)?;
        let mut response = range(&draft, request);
        response.header = Some(self.etcd_header(self.etcd.revision));
        Ok(response)
    }
}

/// What can be told of a request without the keys.
pub(super) fn check(request: &RangeRequest) -> Result<(), EtcdError> {
    if request.key.is_empty() {
        return Err(EtcdError::EmptyKey);
    }
    let order = SortOrder::try_from(request.sort_order);
    let target = SortTarget::try_from(request.sort_target);
    if order.is_err() || target.is_err() { Err(EtcdError::InvalidSort) } else { Ok(()) }
}

/// The answer without a header. The request and its revision have been checked.
pub(super) fn range(draft: &Draft<'_>, request: &RangeRequest) -> RangeResponse {
    let revision = draft.checked_revision(request.revision).expect("checked");
    let span = Span::new(&request.key, &request.range_end);
    let mut found = match &span {
        Span::One(key) => draft.at(key, revision).into_iter().collect(),
        span => draft.in_span(span, revision),
    };
    let count = i64::try_from(found.len()).expect("they are in memory");
    if request.count_only {
        return RangeResponse { count, ..Default::default() };
    }
    found.retain(|kv| is_wanted(request, kv));
    sort(request, &mut found);
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
    let more = limit.is_some_and(|limit| found.len() > limit);
    found.truncate(limit.unwrap_or(usize::MAX));
    let kvs = found.into_iter().cloned().map(|mut kv| {
        if request.keys_only {
            kv.value.clear();
        }
        kv
    });
    RangeResponse { header: None, kvs: kvs.collect(), more, count }
}

/// Whether the bounds of revisions let a key through. 0 is no bound.
fn is_wanted(request: &RangeRequest, kv: &KeyValue) -> bool {
    let within = |revision: i64, min: i64, max: i64| {
        (min == 0 || revision >= min) && (max == 0 || revision <= max)
    };
    within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
}

/// An order by anything but the key is ascending if the request does not say which.
fn sort(request: &RangeRequest, found: &mut [&KeyValue]) {
    let by: fn(&KeyValue, &KeyValue) -> Ordering = match request.sort_target() {
        SortTarget::Key => |a, b| a.key.cmp(&b.key),
        SortTarget::Version => |a, b| a.version.cmp(&b.version),
        SortTarget::Create => |a, b| a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => |a, b| a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => |a, b| a.value.cmp(&b.value),
    };
    match request.sort_order() {
        SortOrder::None if request.sort_target() == SortTarget::Key => {}
        SortOrder::None | SortOrder::Ascend => found.sort_by(|a, b| by(a, b)),
        SortOrder::Descend => found.sort_by(|a, b| by(b, a)),
    }
}
