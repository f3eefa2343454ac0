//! Pessimistic locks: taken, waited for, handed on.

use std::time::{Duration, Instant};

use proto::kvrpcpb::{self, Op};

use super::bench::{Client, lock, mutation, one_node, prewrite, waiting};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pessimistic_transaction() {
    let (node, mut client) = one_node("pessimistic").await;
    let old = client.put("a", "1").await;
    let start = client.ts().await;
    let mut request = lock(start, start, &["a", "b"]);
    request.return_values = true;
    let locked = client.lock(request).await;
    assert_eq!(locked.errors, []);
    assert_eq!((&locked.values[0][..], &locked.values[1][..]), (&b"1"[..], &b""[..]));
    assert_eq!(locked.not_founds, [false, true]);
    assert_eq!(client.value("a", old).await.as_deref(), Some("1"), "no reader is blocked");
    let mut other = lock(client.ts().await, client.ts().await, &["b"]);
    other.wait_timeout = -1;
    let refused = client.lock(other).await;
    assert_eq!(refused.errors[0].locked.as_ref().unwrap().lock_version, start);
    let mut request = prewrite(start, &[("a", "2")]);
    request.mutations.push(mutation(Op::Del, "b", ""));
    request.for_update_ts = start;
    request.pessimistic_actions = vec![1, 1];
    assert_eq!(client.prewrite(request).await.errors, []);
    let at = client.ts().await;
    assert_eq!(client.commit(&["a", "b"], start, at).await.error, None);
    assert_eq!(client.value("a", at).await.as_deref(), Some("2"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_is_told_to_try_again() {
    let (node, mut client) = one_node("wait").await;
    let holder = client.ts().await;
    assert_eq!(client.lock(lock(holder, holder, &["k"])).await.errors, []);
    let waiter = client.ts().await;
    let mut other = client.clone();
    let waits = tokio::spawn(async move { other.lock(lock(waiter, waiter, &["k"])).await });
    waiting(&mut client, 1).await;
    client.unlock(&["k"], holder, holder).await;
    let told = waits.await.unwrap();
    let conflict = told.errors[0].conflict.as_ref().unwrap();
    assert_eq!((conflict.start_ts, conflict.conflict_ts), (waiter, holder));
    assert_eq!(conflict.reason, i32::from(kvrpcpb::write_conflict::Reason::PessimisticRetry));
    let again = client.ts().await;
    assert_eq!(client.lock(lock(waiter, again, &["k"])).await.errors, []);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forced_waiter_gets_the_lock_itself() {
    let (node, mut client) = one_node("force").await;
    let holder = client.ts().await;
    assert_eq!(client.lock(lock(holder, holder, &["k"])).await.errors, []);
    let waiter = client.ts().await;
    let mut other = client.clone();
    let waits = tokio::spawn(async move {
        let mut request = lock(waiter, waiter, &["k"]);
        request.wake_up_mode = kvrpcpb::PessimisticLockWakeUpMode::WakeUpModeForceLock.into();
        other.lock(request).await
    });
    waiting(&mut client, 1).await;
    // Whatever is committed now is above what the waiter has seen.
    let reader = client.ts().await;
    assert_eq!(client.value("x", reader).await, None);
    let mut request = prewrite(holder, &[("k", "v")]);
    request.for_update_ts = holder;
    request.pessimistic_actions = vec![1];
    request.try_one_pc = true;
    let done = client.prewrite(request).await;
    assert_eq!(done.errors, []);
    let granted = waits.await.unwrap();
    assert_eq!(granted.errors, []);
    let result = &granted.results[0];
    assert_eq!(result.locked_with_conflict_ts, done.one_pc_commit_ts);
    assert_eq!(&result.value[..], b"v");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_has_an_end() {
    let (node, mut client) = one_node("time-out").await;
    let holder = client.ts().await;
    assert_eq!(client.lock(lock(holder, holder, &["k"])).await.errors, []);
    let waiter = client.ts().await;
    let mut request = lock(waiter, waiter, &["k"]);
    request.wait_timeout = 100;
    let begun = Instant::now();
    let told = client.lock(request).await;
    let locked = told.errors[0].locked.as_ref().unwrap();
    assert_eq!(locked.lock_version, holder);
    assert!(locked.duration_to_last_update_ms >= 90, "{locked:?}");
    assert!(begun.elapsed() >= Duration::from_millis(100));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_in_memory_survive_a_split() {
    let (node, mut client) = one_node("split-lock").await;
    let holder = client.ts().await;
    assert_eq!(client.lock(lock(holder, holder, &["a", "x"])).await.errors, []);
    let split = kvrpcpb::SplitRegionRequest {
        context: client.context(),
        split_keys: vec!["m".into()],
        ..Default::default()
    };
    let split = client.kv.split_region(split).await.unwrap().into_inner();
    assert_eq!(split.regions.len(), 2, "{split:?}");
    for key in ["a", "x"] {
        let region_key = base::codec::encode_bytes(key.as_bytes());
        let mut client = Client::of(&node, &node, &region_key).await;
        let other = client.ts().await;
        let mut request = lock(other, other, &[key]);
        request.wait_timeout = -1;
        let refused = client.lock(request).await;
        let locked = refused.errors.first().and_then(|error| error.locked.as_ref());
        assert_eq!(locked.unwrap().lock_version, holder, "{refused:?}");
    }
    node.stop().await;
}
