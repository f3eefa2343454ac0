//! Two-phase commits, and what others see of them.

use proto::kvrpcpb::{self, Action, Op};

use super::bench::{keys, mutation, one_node, prewrite};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_seen_from_its_timestamp_on() {
    let (node, mut client) = one_node("two-phase").await;
    let before = client.ts().await;
    let at = client.put("a", "1").await;
    assert_eq!(client.value("a", before).await, None);
    assert_eq!(client.value("a", at - 1).await, None);
    assert_eq!(client.value("a", at).await.as_deref(), Some("1"));
    assert_eq!(client.value("a", u64::MAX).await.as_deref(), Some("1"));
    client.put("b", "2").await;
    let now = client.ts().await;
    let request = kvrpcpb::BatchGetRequest {
        context: client.context(),
        keys: keys(&["b", "x", "a"]),
        version: now,
        need_commit_ts: true,
    };
    let pairs = client.kv.kv_batch_get(request).await.unwrap().into_inner().pairs;
    let found: Vec<_> = pairs.iter().map(|pair| (&pair.key[..], &pair.value[..])).collect();
    assert_eq!(found, [(&b"b"[..], &b"2"[..]), (b"a", b"1")]);
    assert_eq!(pairs[1].commit_ts, at);
    for (reverse, expected) in [(false, [&b"a"[..], b"b"]), (true, [b"b", b"a"])] {
        let (start, end) = if reverse { ("z", "a") } else { ("a", "z") };
        let request = kvrpcpb::ScanRequest {
            context: client.context(),
            start_key: start.into(),
            end_key: end.into(),
            limit: 10,
            version: now,
            reverse,
            ..Default::default()
        };
        let pairs = client.kv.kv_scan(request).await.unwrap().into_inner().pairs;
        assert_eq!(pairs.iter().map(|pair| &pair.key[..]).collect::<Vec<_>>(), expected);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_resolves_what_a_dead_client_left() {
    let (node, mut client) = one_node("dead-client").await;
    let start = client.ts().await;
    let mut request = prewrite(start, &[("p", "1"), ("s", "2")]);
    request.lock_ttl = 1;
    assert_eq!(client.prewrite(request).await.errors, []);
    let reader = client.ts().await;
    let locked = client.get("s", reader).await.error.unwrap().locked.unwrap();
    assert_eq!((&locked.primary_lock[..], locked.lock_version), (&b"p"[..], start));
    let status = kvrpcpb::CheckTxnStatusRequest {
        context: client.context(),
        primary_key: locked.primary_lock,
        lock_ts: start,
        caller_start_ts: reader,
        current_ts: u64::MAX,
        rollback_if_not_exist: true,
        ..Default::default()
    };
    let answer = client.kv.kv_check_txn_status(status).await.unwrap().into_inner();
    assert_eq!(answer.action, i32::from(Action::TtlExpireRollback));
    // A collection that finds nothing but reservations names nobody.
    let nobody = kvrpcpb::ResolveLockRequest { context: client.context(), ..Default::default() };
    let answer = client.kv.kv_resolve_lock(nobody).await.unwrap().into_inner();
    assert_eq!(answer, kvrpcpb::ResolveLockResponse::default());
    assert!(client.get("s", reader).await.error.unwrap().locked.is_some());
    let resolve = kvrpcpb::ResolveLockRequest {
        context: client.context(),
        start_version: start,
        ..Default::default()
    };
    let answer = client.kv.kv_resolve_lock(resolve).await.unwrap().into_inner();
    assert_eq!(answer, kvrpcpb::ResolveLockResponse::default());
    assert_eq!(client.value("s", reader).await, None);
    let at = client.ts().await;
    let late = client.commit(&["p"], start, at).await.error.unwrap();
    assert!(late.retryable.contains("TxnLockNotFound"), "{late:?}");
    let again = client.prewrite(prewrite(start, &[("p", "1")])).await;
    assert!(again.errors[0].conflict.is_some(), "{again:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_are_listed_and_conflicts_are_told() {
    let (node, mut client) = one_node("conflicts").await;
    let first = client.ts().await;
    let second = client.ts().await;
    assert_eq!(client.prewrite(prewrite(first, &[("a", "1"), ("b", "1")])).await.errors, []);
    let refused = client.prewrite(prewrite(second, &[("b", "2"), ("a", "2")])).await;
    assert_eq!(refused.errors.iter().filter(|error| error.locked.is_some()).count(), 2);
    let request = kvrpcpb::ScanLockRequest {
        context: client.context(),
        max_version: second,
        ..Default::default()
    };
    let locks = client.kv.kv_scan_lock(request).await.unwrap().into_inner().locks;
    assert_eq!(locks.iter().map(|lock| &lock.key[..]).collect::<Vec<_>>(), [b"a", b"b"]);
    let at = client.ts().await;
    assert_eq!(client.commit(&["a", "b"], first, at).await.commit_version, at);
    let refused = client.prewrite(prewrite(second, &[("b", "2")])).await;
    let error = &refused.errors[0];
    assert_eq!(error.conflict.as_ref().unwrap().conflict_commit_ts, at);
    assert!(!error.retryable.is_empty());
    let mut insert = prewrite(client.ts().await, &[("a", "2")]);
    insert.mutations = vec![mutation(Op::Insert, "a", "2")];
    let refused = client.prewrite(insert).await;
    assert_eq!(&refused.errors[0].already_exist.as_ref().unwrap().key[..], b"a");
    node.stop().await;
}
