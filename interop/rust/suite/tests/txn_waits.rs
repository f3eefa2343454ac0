//! Pessimistic transactions that wait for each other, and locks that are kept alive.

use std::time::{Duration, Instant};

use interop_suite::{
    PATIENCE, TXN_API_VERSIONS, commit_pairs, is_key_error, key, locks, now, open_txn, pairs,
    start, until_no_locks,
};
use tikv_client::transaction::HeartbeatOption;
use tikv_client::{
    Backoff, Error, RetryOptions, Transaction, TransactionClient, TransactionOptions,
};

/// Waits for a lock for as long as the holder may take.
fn patient() -> TransactionOptions {
    let backoff = Backoff::no_jitter_backoff(2, 500, 100);
    TransactionOptions::new_pessimistic()
        .retry_options(RetryOptions { region_backoff: backoff.clone(), lock_backoff: backoff })
}

/// Locks a key for itself, reads it and writes it one larger. A conflict is tried again, as the
/// protocol wants it: a waiter that is woken is told of the conflict.
async fn increment(client: &TransactionClient, key: &[u8]) {
    loop {
        let mut txn = client.begin_with_options(patient()).await.unwrap();
        match try_increment(&mut txn, key).await {
            Ok(()) => return,
            Err(error) => {
                txn.rollback().await.unwrap();
                let again = is_key_error(&error, |error| {
                    error.conflict.is_some() || error.deadlock.is_some()
                });
                assert!(again || matches!(error, Error::ResolveLockError(_)), "{error:?}");
            }
        }
    }
}

async fn try_increment(txn: &mut Transaction, key: &[u8]) -> Result<(), Error> {
    let value = txn.get_for_update(key.to_vec()).await?.unwrap_or_default();
    let count: u64 = String::from_utf8(value).unwrap().parse().unwrap_or(0);
    txn.put(key.to_vec(), (count + 1).to_string()).await?;
    txn.commit().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_increment_one_counter() {
    const CALLERS: usize = 16;
    const EACH: usize = 10;
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..CALLERS {
            let client = open_txn(&server, api).await;
            callers.spawn(async move {
                for _ in 0..EACH {
                    increment(&client, b"counter").await;
                }
            });
        }
        callers.join_all().await;
        let client = open_txn(&server, api).await;
        let count = now(&client).await.get(b"counter".to_vec()).await.unwrap().unwrap();
        assert_eq!(count, (CALLERS * EACH).to_string().into_bytes());
    }
}

#[tokio::test]
async fn a_writer_waits_for_the_one_before_it() {
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        let mut first = client.begin_with_options(patient()).await.unwrap();
        first.put(b"k".to_vec(), b"first".to_vec()).await.unwrap();
        let other = open_txn(&server, api).await;
        let second = tokio::spawn(async move { increment(&other, b"k").await });
        // It cannot be done before the first is.
        for _ in 0..20 {
            assert_eq!(locks(&client).await.len(), 1);
        }
        assert!(!second.is_finished());
        first.put(b"k".to_vec(), b"41".to_vec()).await.unwrap();
        first.commit().await.unwrap();
        second.await.unwrap();
        assert_eq!(now(&client).await.get(b"k".to_vec()).await.unwrap(), Some(b"42".to_vec()));
    }
}

#[tokio::test]
async fn who_is_locked_out_for_good_is_told() {
    let server = start("1");
    let client = open_txn(&server, "1").await;
    let mut first = client.begin_pessimistic().await.unwrap();
    first.lock_keys([b"k".to_vec()]).await.unwrap();
    let options = TransactionOptions::new_pessimistic().no_resolve_locks();
    let mut second = client.begin_with_options(options).await.unwrap();
    let began = Instant::now();
    let error = second.lock_keys([b"k".to_vec()]).await.expect_err("it is locked");
    assert!(format!("{error:?}").contains("ResolveLockError"), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "the server waits a second at most");
    second.rollback().await.unwrap();
    first.rollback().await.unwrap();
    until_no_locks(&client).await;
}

/// The first locks `a` and then wants `b`, the second the other way round.
#[tokio::test]
async fn of_two_that_wait_for_each_other_one_gives_up() {
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        for round in 0..5 {
            let key = |name: &str| format!("{round}/{name}").into_bytes();
            let mut first = client.begin_with_options(patient()).await.unwrap();
            let mut second = client.begin_with_options(patient()).await.unwrap();
            first.lock_keys([key("a")]).await.unwrap();
            second.lock_keys([key("b")]).await.unwrap();
            let began = Instant::now();
            let first = tokio::spawn(finish(first, key("b")));
            let second = tokio::spawn(finish(second, key("a")));
            let results = [first.await.unwrap(), second.await.unwrap()];
            assert!(began.elapsed() < PATIENCE);
            let errors: Vec<_> =
                results.iter().filter_map(|result| result.as_ref().err()).collect();
            assert_eq!(errors.len(), 1, "one of the two: {results:?}");
            let is_deadlock = is_key_error(errors[0], |error| {
                let deadlock = error.deadlock.as_ref();
                deadlock.is_some_and(|deadlock| deadlock.deadlock_key_hash != 0)
            });
            assert!(is_deadlock, "{errors:?}");
        }
        until_no_locks(&client).await;
    }
}

/// Locks another key and commits, or rolls back.
async fn finish(mut txn: Transaction, key: Vec<u8>) -> Result<(), Error> {
    let mut locked = txn.lock_keys([key.clone()]).await;
    // Who waited is told so once the other is gone, and asks again.
    while locked.as_ref().is_err_and(interop_suite::is_conflict) {
        locked = txn.lock_keys([key.clone()]).await;
    }
    match locked {
        Ok(()) => txn.commit().await.map(drop),
        Err(error) => {
            txn.rollback().await.unwrap();
            Err(error)
        }
    }
}

#[tokio::test]
async fn a_heart_beat_keeps_a_lock_alive() {
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        let beats = HeartbeatOption::FixedTime(Duration::from_millis(100));
        let options = TransactionOptions::new_pessimistic().heartbeat_option(beats);
        let mut txn = client.begin_with_options(options).await.unwrap();
        txn.put(b"primary".to_vec(), b"1".to_vec()).await.unwrap();
        txn.put(b"secondary".to_vec(), b"1".to_vec()).await.unwrap();
        let ttl = async || {
            let locks = locks(&client).await;
            locks.iter().find(|lock| lock.key == b"primary").expect("it is locked").lock_ttl
        };
        let first = ttl().await;
        let began = Instant::now();
        while ttl().await <= first + 500 {
            assert!(began.elapsed() < PATIENCE, "no heart beat lengthens the lock");
        }
        let beaten = txn.send_heart_beat().await.unwrap();
        assert!(beaten >= first + 500, "{beaten} ms after {first} ms");
        txn.commit().await.unwrap();
        assert_eq!(
            now(&client).await.get(b"secondary".to_vec()).await.unwrap(),
            Some(b"1".to_vec())
        );
        until_no_locks(&client).await;
    }
}

#[tokio::test]
async fn no_heart_beat_for_who_has_no_lock() {
    let server = start("1");
    let client = open_txn(&server, "1").await;
    let mut txn = client.begin_optimistic().await.unwrap();
    assert!(matches!(txn.send_heart_beat().await, Err(Error::NoPrimaryKey)));
    txn.put(b"k".to_vec(), b"1".to_vec()).await.unwrap();
    let error = txn.send_heart_beat().await.expect_err("nothing is locked yet");
    let text = format!("{error:?}");
    assert!(text.contains("TxnNotFound") || text.contains("txn_not_found"), "{text}");
    txn.rollback().await.unwrap();
}

/// All locks of a transaction of many keys are taken at once, over region borders, or none.
#[tokio::test]
async fn many_keys_are_locked_at_once_over_region_borders() {
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        let borders = [250, 500, 750].map(|i| interop_suite::stored_key(api, &key(i)));
        interop_suite::placement::split_at(server.address(), borders).await;
        commit_pairs(&client, pairs(0..1_000)).await;
        let keys = || (0..1_000).map(key);
        let mut txn = client.begin_pessimistic().await.unwrap();
        let found = txn.batch_get_for_update(keys()).await.unwrap();
        assert_eq!(found.len(), 1_000);
        assert_eq!(locks(&client).await.len(), 1_000);
        let options = TransactionOptions::new_pessimistic().no_resolve_locks();
        let mut other = client.begin_with_options(options).await.unwrap();
        other.lock_keys([key(1_500), key(999)]).await.expect_err("the second is locked");
        other.rollback().await.unwrap();
        assert_eq!(locks(&client).await.len(), 1_000);
        txn.rollback().await.unwrap();
        until_no_locks(&client).await;
    }
}
