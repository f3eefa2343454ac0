//! Txn: comparisons, branches, one revision for all, all or nothing.

use pontoon_placement::etcd::{EtcdError, EtcdReply, EtcdWrite, TXN_OPS_MAX, only_reads};
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::response_op::Response;
use proto::etcdserverpb::{Compare, RequestOp, TxnRequest, TxnResponse};

use super::{bytes, delete_request, put_request, range};
use crate::host::Host;

pub(super) fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn put(key: &str, value: &str) -> RequestOp {
    op(Request::RequestPut(put_request(key, value)))
}

fn delete(key: &str, end: &str) -> RequestOp {
    op(Request::RequestDeleteRange(delete_request(key, end)))
}

fn get(key: &str, end: &str) -> RequestOp {
    op(Request::RequestRange(range(key, end)))
}

fn nested(txn: TxnRequest) -> RequestOp {
    op(Request::RequestTxn(txn))
}

fn then(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, ..Default::default() }
}

fn compare(key: &str, result: CompareResult, target: TargetUnion) -> Compare {
    let kind = match target {
        TargetUnion::Version(_) => CompareTarget::Version,
        TargetUnion::CreateRevision(_) => CompareTarget::Create,
        TargetUnion::ModRevision(_) => CompareTarget::Mod,
        TargetUnion::Value(_) => CompareTarget::Value,
        TargetUnion::Lease(_) => CompareTarget::Lease,
    };
    Compare {
        result: result.into(),
        target: kind.into(),
        key: bytes(key),
        target_union: Some(target),
        range_end: bytes(""),
    }
}

fn txn(host: &mut Host, request: TxnRequest) -> Result<TxnResponse, EtcdError> {
    match host.etcd(EtcdWrite::Txn(request))? {
        EtcdReply::Txn(response) => Ok(response),
        other => panic!("{other:?}"),
    }
}

fn succeeds(host: &mut Host, compare: Compare) -> bool {
    let request = TxnRequest { compare: vec![compare], ..Default::default() };
    assert!(only_reads(&request));
    let read = host.placement.etcd_read_txn(&request).unwrap().succeeded;
    assert_eq!(txn(host, request).unwrap().succeeded, read);
    read
}

#[test]
fn comparisons_of_every_target_in_every_way() {
    let mut host = Host::new();
    host.grant(5, 100).unwrap();
    host.put("a", "0");
    host.put("b", "1");
    let mut request = put_request("a", "m");
    request.lease = 5;
    host.etcd(EtcdWrite::Put(request)).unwrap();
    type Target = fn(i64) -> TargetUnion;
    let numbers: [(Target, i64); 4] = [
        (TargetUnion::Version, 2),
        (TargetUnion::CreateRevision, 2),
        (TargetUnion::ModRevision, 4),
        (TargetUnion::Lease, 5),
    ];
    for (target, is) in numbers {
        for with in [is - 1, is, is + 1] {
            let mut holds = |result| succeeds(&mut host, compare("a", result, target(with)));
            assert_eq!(holds(CompareResult::Equal), is == with);
            assert_eq!(holds(CompareResult::NotEqual), is != with);
            assert_eq!(holds(CompareResult::Greater), is > with);
            assert_eq!(holds(CompareResult::Less), is < with);
        }
    }
    for with in ["l", "m", "n"] {
        let value = || TargetUnion::Value(bytes(with));
        let mut holds = |result| succeeds(&mut host, compare("a", result, value()));
        assert_eq!(holds(CompareResult::Equal), "m" == with);
        assert_eq!(holds(CompareResult::Greater), "m" > with);
        assert_eq!(holds(CompareResult::Less), "m" < with);
    }
}

#[test]
fn a_key_that_is_not_there_has_version_zero_and_no_value() {
    let mut host = Host::new();
    let zero = compare("x", CompareResult::Equal, TargetUnion::CreateRevision(0));
    assert!(succeeds(&mut host, zero));
    for result in [CompareResult::Equal, CompareResult::NotEqual] {
        let value = compare("x", result, TargetUnion::Value(bytes("")));
        assert!(!succeeds(&mut host, value), "{result:?}");
    }
    // A target without its number is compared with zero.
    let mut without = compare("x", CompareResult::Equal, TargetUnion::Version(0));
    without.target_union = None;
    assert!(succeeds(&mut host, without));
}

#[test]
fn a_comparison_of_a_range_holds_for_all_of_it() {
    let mut host = Host::new();
    host.put("a", "1");
    host.put("b", "1");
    let mut all = compare("a", CompareResult::Equal, TargetUnion::Version(1));
    all.range_end = bytes("z");
    assert!(succeeds(&mut host, all.clone()));
    host.put("b", "2");
    assert!(!succeeds(&mut host, all));
}

#[test]
fn all_of_a_transaction_has_one_revision_and_sees_what_came_before_in_it() {
    let mut host = Host::new();
    host.put("old", "1");
    let inner = then(vec![put("c", "3"), get("a", "z")]);
    let request = then(vec![put("a", "1"), get("a", ""), delete("old", ""), nested(inner)]);
    let response = txn(&mut host, request).unwrap();
    assert_eq!(response.header.unwrap().revision, 3);
    let seen = |response: &Response| match response {
        Response::ResponseRange(range) => range.kvs.len(),
        other => panic!("{other:?}"),
    };
    let responses: Vec<_> = response.responses.iter().map(|r| r.response.as_ref()).collect();
    assert_eq!(seen(responses[1].unwrap()), 1);
    let Some(Response::ResponseTxn(inner)) = responses[3] else { panic!("{responses:?}") };
    assert!(inner.succeeded);
    assert_eq!(seen(inner.responses[1].response.as_ref().unwrap()), 2);
    for _ in 0..2 {
        assert_eq!(host.get("a").unwrap().mod_revision, 3);
        assert_eq!(host.get("c").unwrap().mod_revision, 3);
        assert_eq!(host.all(), ["a", "c"]);
        host.restart();
    }
}

#[test]
fn nested_comparisons_are_made_before_anything_changes() {
    let mut host = Host::new();
    let absent = compare("a", CompareResult::Equal, TargetUnion::Version(0));
    let inner = TxnRequest {
        compare: vec![absent],
        success: vec![put("was_absent", "1")],
        failure: vec![put("was_there", "1")],
    };
    txn(&mut host, then(vec![put("a", "1"), nested(inner)])).unwrap();
    assert_eq!(host.all(), ["a", "was_absent"]);
}

#[test]
fn no_key_is_written_twice() {
    let mut host = Host::new();
    let either = |success, failure| nested(TxnRequest { compare: vec![], success, failure });
    let wrong = [
        vec![put("a", "1"), put("a", "2")],
        vec![put("b", "1"), delete("a", "c")],
        vec![delete("a", "\0"), put("b", "1")],
        vec![put("a", "1"), nested(then(vec![put("a", "2")]))],
        vec![nested(then(vec![delete("a", "")])), put("a", "1")],
        vec![nested(then(vec![put("a", "1")])), nested(then(vec![put("a", "2")]))],
        vec![either(vec![], vec![put("a", "1"), put("a", "2")])],
    ];
    for ops in wrong {
        let refused = txn(&mut host, then(ops.clone()));
        assert_eq!(refused, Err(EtcdError::DuplicateKey), "{ops:?}");
        // Branches that are not taken are looked at, too.
        let request = TxnRequest { failure: ops, ..Default::default() };
        assert_eq!(txn(&mut host, request), Err(EtcdError::DuplicateKey));
    }
    assert_eq!(host.placement.etcd_revision(), 1);
    let right = [
        vec![either(vec![put("a", "1")], vec![put("a", "2")])],
        vec![put("a", "1"), put("b", "1"), delete("c", ""), delete("c", "d")],
    ];
    for ops in right {
        txn(&mut host, then(ops)).unwrap();
    }
}

#[test]
fn what_is_refused_leaves_no_trace() {
    let mut host = Host::new();
    host.put("a", "1");
    let mut lease = put_request("c", "1");
    lease.lease = 99;
    let mut keep = put_request("c", "");
    keep.ignore_value = true;
    let mut future = range("a", "");
    future.revision = 9;
    let wrong = [
        (op(Request::RequestPut(lease)), EtcdError::LeaseNotFound),
        (op(Request::RequestPut(keep)), EtcdError::KeyNotFound),
        (op(Request::RequestRange(future)), EtcdError::FutureRevision),
        (put("", "1"), EtcdError::EmptyKey),
        (RequestOp { request: None }, EtcdError::KeyNotFound),
    ];
    for (wrong, error) in wrong {
        let request = then(vec![put("b", "1"), delete("a", ""), nested(then(vec![wrong]))]);
        assert_eq!(txn(&mut host, request), Err(error));
        assert_eq!((host.all(), host.placement.etcd_revision()), (vec!["a".to_owned()], 2));
    }
}

#[test]
fn a_transaction_has_a_bounded_number_of_operations() {
    let mut host = Host::new();
    let gets = |count: usize| vec![get("a", ""); count];
    txn(&mut host, then(gets(TXN_OPS_MAX))).unwrap();
    assert_eq!(txn(&mut host, then(gets(TXN_OPS_MAX + 1))), Err(EtcdError::TooManyOps));
    let mut ops = gets(TXN_OPS_MAX / 2);
    ops[0] = nested(then(gets(TXN_OPS_MAX / 2)));
    txn(&mut host, then(ops.clone())).unwrap();
    ops[0] = nested(then(gets(TXN_OPS_MAX / 2 + 1)));
    assert_eq!(txn(&mut host, then(ops)), Err(EtcdError::TooManyOps));
}
