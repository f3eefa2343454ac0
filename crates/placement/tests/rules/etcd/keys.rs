//! Put, Range, DeleteRange: revisions, versions, options, refusals.

use pontoon_placement::etcd::{
    EtcdCode, EtcdError, EtcdReply, REQUEST_BYTES_MAX, SPACE_BYTES_MAX, WRITE_BYTES_MAX,
};
use proto::etcdserverpb::RangeRequest;
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};

use super::{EtcdWrite, bytes, delete, delete_request, put, put_request, range, text};
use crate::host::Host;

#[test]
fn each_write_that_changes_something_has_the_next_revision() {
    let mut host = Host::new();
    let empty = host.range(&range("/tidb/store/gcworker/saved_safe_point", "")).unwrap();
    assert!(empty.kvs.is_empty() && empty.count == 0 && !empty.more);
    assert_eq!(empty.header.unwrap().revision, 1);

    assert_eq!(host.put("a", "1"), 2);
    assert_eq!(host.put("b", "1"), 3);
    assert_eq!(host.put("a", "2"), 4);
    let a = host.get("a").unwrap();
    assert_eq!((a.create_revision, a.mod_revision, a.version), (2, 4, 2));
    assert_eq!(host.delete("x", ""), 0);
    assert_eq!(host.placement.etcd_revision(), 4, "nothing changed");
    assert_eq!(host.delete("a", "c"), 2);
    assert_eq!(host.put("a", "3"), 6);
    host.restart();
    let a = host.get("a").unwrap();
    assert_eq!((a.create_revision, a.mod_revision, a.version), (6, 6, 1), "it began anew");
    assert_eq!(host.placement.etcd_revision(), 6);
}

#[test]
fn a_batch_is_planned_request_upon_request() {
    let mut host = Host::new();
    let replies = host.batch(&[put("a", "1"), put("", "x"), put("a", "2"), delete("a", "")]);
    let revision = |reply: &Result<EtcdReply, EtcdError>| match reply {
        Ok(EtcdReply::Put(response)) => response.header.unwrap().revision,
        Ok(EtcdReply::DeleteRange(response)) => response.header.unwrap().revision,
        other => panic!("{other:?}"),
    };
    assert_eq!(replies[1], Err(EtcdError::EmptyKey));
    assert_eq!([0, 2, 3].map(|i| revision(&replies[i])), [2, 3, 4]);
    for _ in 0..2 {
        assert_eq!(host.get_at("a", 2).unwrap().unwrap().version, 1);
        assert_eq!(host.get_at("a", 3).unwrap().unwrap().version, 2);
        assert_eq!(host.get("a"), None);
        host.restart();
    }
}

#[test]
fn reads_of_the_past_and_of_the_future() {
    let mut host = Host::new();
    host.put("a", "1");
    host.put("a", "2");
    host.delete("a", "");
    assert_eq!(host.get_at("a", 1).unwrap(), None);
    assert_eq!(host.get_at("a", 2).unwrap().unwrap().value, "1");
    assert_eq!(host.get_at("a", 3).unwrap().unwrap().value, "2");
    assert_eq!(host.get_at("a", 4).unwrap(), None);
    assert_eq!(host.get_at("a", 5), Err(EtcdError::FutureRevision));
    assert_eq!(EtcdError::FutureRevision.code(), EtcdCode::OutOfRange);
    let old = host.range(&RangeRequest { revision: 2, ..range("a", "") }).unwrap();
    assert_eq!(old.header.unwrap().revision, 4, "the header tells the present");
}

#[test]
fn ranges() {
    let mut host = Host::new();
    for key in ["a", "b", "ba", "bb", "c"] {
        host.put(key, key);
    }
    let keys = |key: &str, end: &str| -> Vec<String> {
        let response = host.range(&range(key, end)).unwrap();
        assert_eq!(response.count, response.kvs.len() as i64);
        response.kvs.iter().map(|kv| text(&kv.key)).collect()
    };
    assert_eq!(keys("b", ""), ["b"]);
    assert_eq!(keys("b", "c"), ["b", "ba", "bb"]);
    assert_eq!(keys("ba", "\0"), ["ba", "bb", "c"]);
    assert_eq!(keys("\0", "\0"), ["a", "b", "ba", "bb", "c"]);
    assert!(keys("c", "b").is_empty() && keys("b", "b").is_empty());
    assert_eq!(host.range(&range("", "\0")), Err(EtcdError::EmptyKey));
}

#[test]
fn limits_counts_orders_and_bounds_of_revisions() {
    let mut host = Host::new();
    for (key, value) in [("a", "3"), ("b", "2"), ("c", "1"), ("b", "9")] {
        host.put(key, value);
    }
    let ask = |request: RangeRequest| {
        let response = host.range(&request).unwrap();
        let keys: String = response.kvs.iter().map(|kv| text(&kv.key)).collect();
        (keys, response.more, response.count)
    };
    let all = || range("a", "z");
    let by = |order: SortOrder, target: SortTarget| RangeRequest {
        sort_order: order.into(),
        sort_target: target.into(),
        ..all()
    };
    let found = |keys: &str, more, count| (keys.to_owned(), more, count);
    assert_eq!(ask(RangeRequest { limit: 2, ..all() }), found("ab", true, 3));
    assert_eq!(ask(RangeRequest { limit: 3, ..all() }), found("abc", false, 3));
    assert_eq!(ask(RangeRequest { count_only: true, limit: 1, ..all() }), found("", false, 3));
    assert_eq!(ask(by(SortOrder::Descend, SortTarget::Key)), found("cba", false, 3));
    assert_eq!(ask(by(SortOrder::None, SortTarget::Value)), found("cab", false, 3));
    assert_eq!(ask(by(SortOrder::Descend, SortTarget::Mod)), found("bca", false, 3));
    assert_eq!(ask(by(SortOrder::Ascend, SortTarget::Create)), found("abc", false, 3));
    let newest = RangeRequest { limit: 1, ..by(SortOrder::Descend, SortTarget::Version) };
    assert_eq!(ask(newest), found("b", true, 3));
    assert_eq!(ask(RangeRequest { min_mod_revision: 4, ..all() }), found("bc", false, 3));
    assert_eq!(ask(RangeRequest { max_mod_revision: 4, ..all() }), found("ac", false, 3));
    assert_eq!(ask(RangeRequest { min_create_revision: 3, ..all() }), found("bc", false, 3));
    assert_eq!(ask(RangeRequest { max_create_revision: 3, ..all() }), found("ab", false, 3));
    let keys_only = host.range(&RangeRequest { keys_only: true, ..all() }).unwrap();
    assert!(keys_only.kvs.iter().all(|kv| kv.value.is_empty() && kv.mod_revision > 0));
    let nonsense = RangeRequest { sort_order: 9, ..all() };
    assert_eq!(host.range(&nonsense), Err(EtcdError::InvalidSort));
}

#[test]
fn what_was_there_before_is_told_if_it_is_asked_for() {
    let mut host = Host::new();
    let mut request = put_request("a", "1");
    request.prev_kv = true;
    let prev = |host: &mut Host, request| match host.etcd(EtcdWrite::Put(request)).unwrap() {
        EtcdReply::Put(response) => response.prev_kv,
        other => panic!("{other:?}"),
    };
    assert_eq!(prev(&mut host, request.clone()), None);
    request.value = bytes("2");
    assert_eq!(prev(&mut host, request.clone()).unwrap().value, "1");
    request.prev_kv = false;
    assert_eq!(prev(&mut host, request), None);
    let mut request = delete_request("a", "b");
    request.prev_kv = true;
    let EtcdReply::DeleteRange(response) = host.etcd(EtcdWrite::DeleteRange(request)).unwrap()
    else {
        panic!("another kind");
    };
    assert_eq!((response.deleted, response.prev_kvs[0].value.as_ref()), (1, b"2".as_ref()));
}

#[test]
fn the_old_value_or_lease_may_be_kept() {
    let mut host = Host::new();
    let keep_value = || {
        let mut request = put_request("a", "");
        request.ignore_value = true;
        request
    };
    assert_eq!(host.etcd(EtcdWrite::Put(keep_value())), Err(EtcdError::KeyNotFound));
    host.put("a", "1");
    host.grant(7, 100).unwrap();
    let mut request = keep_value();
    request.lease = 7;
    host.etcd(EtcdWrite::Put(request)).unwrap();
    let a = host.get("a").unwrap();
    assert_eq!((a.value.as_ref(), a.lease, a.version), (b"1".as_ref(), 7, 2));
    let mut request = put_request("a", "2");
    request.ignore_lease = true;
    host.etcd(EtcdWrite::Put(request.clone())).unwrap();
    assert_eq!(host.get("a").unwrap().lease, 7);
    request.lease = 7;
    assert_eq!(host.etcd(EtcdWrite::Put(request)), Err(EtcdError::LeaseProvided));
    let mut request = keep_value();
    request.value = bytes("x");
    assert_eq!(host.etcd(EtcdWrite::Put(request)), Err(EtcdError::ValueProvided));
    host.put("a", "3");
    assert_eq!(host.get("a").unwrap().lease, 0, "a put without a lease takes it off");
}

#[test]
fn texts_and_codes_are_those_that_clients_compare() {
    use EtcdCode::{FailedPrecondition, InvalidArgument, NotFound, OutOfRange, ResourceExhausted};
    let golden = [
        (EtcdError::EmptyKey, InvalidArgument, "key is not provided"),
        (EtcdError::KeyNotFound, InvalidArgument, "key not found"),
        (EtcdError::ValueProvided, InvalidArgument, "value is provided"),
        (EtcdError::LeaseProvided, InvalidArgument, "lease is provided"),
        (EtcdError::TooManyOps, InvalidArgument, "too many operations in txn request"),
        (EtcdError::DuplicateKey, InvalidArgument, "duplicate key given in txn request"),
        (EtcdError::InvalidSort, InvalidArgument, "invalid sort option"),
        (EtcdError::TooLarge, InvalidArgument, "request is too large"),
        (EtcdError::Compacted, OutOfRange, "mvcc: required revision has been compacted"),
        (EtcdError::FutureRevision, OutOfRange, "mvcc: required revision is a future revision"),
        (EtcdError::NoSpace, ResourceExhausted, "mvcc: database space exceeded"),
        (EtcdError::LeaseNotFound, NotFound, "requested lease not found"),
        (EtcdError::LeaseExists, FailedPrecondition, "lease already exists"),
        (EtcdError::LeaseTtlTooLarge, OutOfRange, "too large lease TTL"),
    ];
    for (error, code, text) in golden {
        assert_eq!((error.code(), error.to_string()), (code, format!("etcdserver: {text}")));
    }
}

#[test]
fn a_full_store_takes_deletions_and_nothing_else() {
    let mut host = Host::new();
    let big = "x".repeat(REQUEST_BYTES_MAX - 1_000);
    let mut count = 0;
    let refusal = loop {
        match host.etcd(put(&format!("{count:04}"), &big)) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refusal, EtcdError::NoSpace);
    let taken = host.placement.etcd_size().bytes;
    assert!(taken <= SPACE_BYTES_MAX && taken > SPACE_BYTES_MAX - big.len() - 1_000, "{taken}");
    host.restart();
    assert_eq!(host.placement.etcd_size().bytes, taken);
    assert_eq!(host.etcd(put("y", &big)), Err(EtcdError::NoSpace));
    assert_eq!(host.delete("0000", "0010"), 10);
    while host.placement.etcd_chores_wait().is_some() {
        host.chores();
    }
    assert_eq!(host.etcd(put("y", &big)), Err(EtcdError::NoSpace), "their history is there");
    let revision = host.placement.etcd_revision();
    host.compact(revision).unwrap();
    while host.placement.etcd_chores_wait().is_some() {
        host.chores();
    }
    host.put("y", &big);
}

#[test]
fn no_proposal_becomes_too_large() {
    let mut host = Host::new();
    let value = "x".repeat(1 << 20);
    let writes: Vec<_> = (0..6).map(|i| put(&format!("big{i}"), &value)).collect();
    let replies = host.batch(&writes);
    assert_eq!(replies.len(), 2, "the others are planned in the next batch");
    let keys = WRITE_BYTES_MAX / 128 + 1;
    for first in (0..keys).step_by(1_000) {
        let last = keys.min(first + 1_000);
        let writes: Vec<_> = (first..last).map(|i| put(&format!("k{i:06}"), "")).collect();
        assert_eq!(host.batch(&writes).len(), writes.len());
    }
    assert_eq!(host.etcd(delete("k", "l")), Err(EtcdError::TooLarge));
    assert_eq!(host.delete("k000000", "k010000"), 10_000);
}
