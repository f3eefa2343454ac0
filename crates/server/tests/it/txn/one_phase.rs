//! Commits without a second phase: async commits and one-phase commits.

use proto::kvrpcpb;

use super::bench::{keys, one_node, prewrite};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_phase_commits_are_above_every_read() {
    let (node, mut client) = one_node("one-phase").await;
    let start = client.ts().await;
    let reader = client.ts().await;
    assert_eq!(client.value("a", reader).await, None);
    let mut request = prewrite(start, &[("a", "1"), ("b", "2")]);
    request.try_one_pc = true;
    let done = client.prewrite(request.clone()).await;
    assert_eq!((&done.region_error, &done.errors[..]), (&None, &[][..]));
    assert!(done.one_pc_commit_ts > reader, "{done:?}");
    assert_eq!(client.value("a", reader).await, None);
    assert_eq!(client.value("b", done.one_pc_commit_ts).await.as_deref(), Some("2"));
    let again = client.prewrite(request.clone()).await;
    assert_eq!(again.one_pc_commit_ts, done.one_pc_commit_ts, "a repeat answers the same");
    // What the client cannot accept becomes a commit in two phases, silently.
    request.start_version = client.ts().await;
    request.max_commit_ts = request.start_version;
    let fallen_back = client.prewrite(request).await;
    assert_eq!(fallen_back, kvrpcpb::PrewriteResponse::default());
    let now = client.ts().await;
    assert!(client.get("a", now).await.error.unwrap().locked.is_some());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_async_commit_is_decided_by_its_locks() {
    let (node, mut client) = one_node("async").await;
    let start = client.ts().await;
    let reader = client.ts().await;
    assert_eq!(client.value("s", reader).await, None);
    let mut request = prewrite(start, &[("p", "1"), ("s", "2")]);
    request.use_async_commit = true;
    request.secondaries = keys(&["s"]);
    let done = client.prewrite(request).await;
    assert!(done.min_commit_ts > reader, "{done:?}");
    let status = kvrpcpb::CheckTxnStatusRequest {
        context: client.context(),
        primary_key: "p".into(),
        lock_ts: start,
        current_ts: u64::MAX,
        ..Default::default()
    };
    let lock = client.kv.kv_check_txn_status(status).await.unwrap().into_inner().lock_info.unwrap();
    assert!(lock.use_async_commit && lock.secondaries == keys(&["s"]), "{lock:?}");
    let check = kvrpcpb::CheckSecondaryLocksRequest {
        context: client.context(),
        keys: keys(&["s"]),
        start_version: start,
    };
    let locks = client.kv.kv_check_secondary_locks(check).await.unwrap().into_inner().locks;
    assert_eq!(locks.len(), 1);
    assert_eq!(locks[0].min_commit_ts.max(lock.min_commit_ts), done.min_commit_ts);
    let done = client.commit(&["p", "s"], start, done.min_commit_ts).await;
    assert_eq!(done.error, None);
    assert_eq!(client.value("s", u64::MAX).await.as_deref(), Some("2"));
    node.stop().await;
}
