//! The library in process: raw keys, transactions, closing and opening again.

use std::collections::BTreeMap;
use std::time::Duration;

use pontoon::{ApiVersion, ClientError, Embedded, OpenOptions, TxnOptions};

async fn memory() -> Embedded {
    pontoon::memory().await.expect("nothing can refuse")
}

/// Every way to commit.
fn all_options() -> [TxnOptions; 6] {
    let (optimistic, pessimistic) = (TxnOptions::optimistic(), TxnOptions::pessimistic());
    [
        optimistic.clone(),
        TxnOptions { one_pc: false, ..optimistic.clone() },
        optimistic.two_phases(),
        pessimistic.clone(),
        TxnOptions { one_pc: false, ..pessimistic.clone() },
        pessimistic.two_phases(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_keys_and_transactions_lie_apart() {
    let store = memory().await;
    store.raw().put(b"k", "raw", 0).await.expect("written");
    let mut txn = store.begin(TxnOptions::optimistic()).await.expect("begun");
    assert_eq!(txn.get(b"k").await, Ok(None));
    txn.put(b"k", "txn").await.expect("kept");
    txn.commit().await.expect("committed");
    assert_eq!(store.raw().get(b"k").await, Ok(Some("raw".into())));
    let raw = store.raw();
    let swapped = raw.compare_and_swap(
        b"k",
        pontoon::Expected::Value("raw".into()),
        pontoon::NewValue::Value("new".into(), 60),
    );
    assert!(swapped.await.expect("compared").swapped);
    assert!(store.raw().ttl(b"k").await.expect("asked").is_some_and(|seconds| seconds > 50));
    let pairs = store.raw().scan(b"", b"", 10).await.expect("scanned");
    assert_eq!(pairs.len(), 1);
    store.raw().delete_range(b"", b"").await.expect("deleted");
    assert_eq!(store.raw().get(b"k").await, Ok(None));
    let snapshot = store.snapshot().await.expect("a timestamp");
    assert_eq!(snapshot.get(b"k").await, Ok(Some("txn".into())));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_commit_does_the_same() {
    let store = memory().await;
    let mut expected = BTreeMap::new();
    for (i, options) in all_options().into_iter().enumerate() {
        let mut txn = store.begin(options).await.expect("begun");
        for n in 0..5 {
            let (key, value) = (format!("{i}/{n}"), format!("{i}"));
            txn.put(key.as_bytes(), value.clone()).await.expect("written");
            expected.insert(key.into_bytes(), value.into_bytes());
        }
        let gone = format!("{i}/3").into_bytes();
        txn.delete(&gone).await.expect("deleted");
        expected.remove(&gone);
        let at = txn.commit().await.expect("committed").expect("something was written");
        let seen = store.snapshot_at(at).scan(b"", b"", 100).await.expect("scanned");
        let seen: BTreeMap<_, _> =
            seen.into_iter().map(|pair| (pair.key.to_vec(), pair.value.to_vec())).collect();
        assert_eq!(seen, expected, "{i}");
    }
    let last = store.snapshot().await.expect("a timestamp");
    let last = last.scan_reverse(b"1", b"2", 2).await.expect("scanned");
    assert_eq!(last.iter().map(|pair| &pair.key[..]).collect::<Vec<_>>(), [b"1/4", b"1/2"]);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_of_two_writers_wins() {
    let store = memory().await;
    for options in [TxnOptions::optimistic(), TxnOptions::optimistic().two_phases()] {
        let mut first = store.begin(options.clone()).await.expect("begun");
        let mut second = store.begin(options).await.expect("begun");
        first.put(b"k", "1").await.expect("kept");
        second.put(b"k", "2").await.expect("kept");
        first.commit().await.expect("committed");
        let error = second.commit().await.expect_err("it was too late");
        assert!(matches!(error, ClientError::Conflict { .. }), "{error}");
    }
    // Who locks first wins in a pessimistic one, and the other one waits.
    let mut first = store.begin(TxnOptions::pessimistic()).await.expect("begun");
    let mut second = store.begin(TxnOptions::pessimistic()).await.expect("begun");
    assert_eq!(first.get_for_update(b"k").await, Ok(Some("1".into())));
    let waits = tokio::spawn(async move {
        let got = second.get_for_update(b"k").await;
        second.put(b"k", "second").await.expect("locked");
        (got, second.commit().await)
    });
    first.put(b"k", "first").await.expect("locked");
    first.commit().await.expect("committed");
    let (got, committed) = waits.await.expect("no panic");
    assert_eq!(got, Ok(Some("first".into())), "the newest value");
    assert!(committed.is_ok(), "{committed:?}");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circle_of_waiters_is_broken() {
    let store = memory().await;
    // Where nobody sees the circle, the first to lose patience breaks it.
    let options = TxnOptions { lock_wait: Duration::from_secs(2), ..TxnOptions::pessimistic() };
    let mut first = store.begin(options.clone()).await.expect("begun");
    let mut second = store.begin(options).await.expect("begun");
    first.put(b"a", "1").await.expect("locked");
    second.put(b"b", "2").await.expect("locked");
    let waits = tokio::spawn(async move {
        let outcome = first.put(b"b", "1").await;
        (first, outcome)
    });
    let mut outcome = second.put(b"a", "2").await;
    if outcome.is_err() {
        second.rollback().await.expect("unlocked");
    }
    let (first, other) = waits.await.expect("no panic");
    if other.is_err() {
        outcome = other;
        first.rollback().await.expect("unlocked");
    }
    let broken = matches!(outcome, Err(ClientError::Deadlock { .. } | ClientError::Locked { .. }));
    assert!(broken, "{outcome:?}");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inserts_refuse_what_is_there() {
    let store = memory().await;
    for options in [TxnOptions::optimistic(), TxnOptions::pessimistic()] {
        let key = format!("k{}", options.pessimistic);
        let key = key.as_bytes();
        let mut txn = store.begin(options.clone()).await.expect("begun");
        txn.insert(key, "1").await.expect("it is new");
        txn.commit().await.expect("committed");
        let mut txn = store.begin(options).await.expect("begun");
        let outcome = match txn.insert(key, "2").await {
            Ok(()) => txn.commit().await.map(drop),
            Err(error) => Err(error),
        };
        let is_there = ClientError::AlreadyExists { key: outcome_key(&outcome) };
        assert_eq!(outcome, Err(is_there));
    }
    store.close().await;
}

/// The key that an error names, in whatever form.
fn outcome_key(outcome: &Result<(), ClientError>) -> bytes::Bytes {
    match outcome {
        Err(ClientError::AlreadyExists { key }) => key.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_neither_made_nor_lost() {
    const ACCOUNTS: u64 = 8;
    let store = memory().await;
    let mut txn = store.begin(TxnOptions::optimistic()).await.expect("begun");
    for n in 0..ACCOUNTS {
        txn.put(format!("a{n}").as_bytes(), "100").await.expect("kept");
    }
    txn.commit().await.expect("committed");
    let mut tellers = Vec::new();
    for (seed, options) in all_options().into_iter().enumerate() {
        let db = store.db();
        tellers.push(tokio::spawn(async move {
            let mut prng = base::Prng::new(seed as u64);
            let mut done = 0;
            while done < 20 {
                let from = prng.below(ACCOUNTS);
                let to = (from + 1 + prng.below(ACCOUNTS - 1)) % ACCOUNTS;
                let (from, to) = (format!("a{from}"), format!("a{to}"));
                let moved = async {
                    let mut txn = db.begin(options.clone()).await?;
                    let found = txn.lock_for_update(&[&from, &to]).await?;
                    let of = |key: &str| -> i64 {
                        let text = std::str::from_utf8(&found[key.as_bytes()]).expect("digits");
                        text.parse().expect("a number")
                    };
                    let (of_from, of_to) = (of(&from), of(&to));
                    txn.put(from.as_bytes(), (of_from - 1).to_string()).await?;
                    txn.put(to.as_bytes(), (of_to + 1).to_string()).await?;
                    txn.commit().await
                };
                match moved.await {
                    Ok(_) => done += 1,
                    Err(error) => assert!(error.may_be_run_again(), "{error}"),
                }
            }
        }));
    }
    let sum = || async {
        let snapshot = store.snapshot().await.expect("a timestamp");
        let all = snapshot.scan(b"", b"", 100).await.expect("scanned");
        let text = |value: &bytes::Bytes| String::from_utf8(value.to_vec()).expect("digits");
        all.iter().map(|pair| text(&pair.value).parse::<i64>().expect("a number")).sum::<i64>()
    };
    while tellers.iter().any(|teller| !teller.is_finished()) {
        assert_eq!(sum().await, 100 * ACCOUNTS as i64);
    }
    for teller in tellers {
        teller.await.expect("no panic");
    }
    assert_eq!(sum().await, 100 * ACCOUNTS as i64);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_opened_again_and_has_everything() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("db");
    for round in 0..3 {
        let store = pontoon::open(&dir).await.expect("opened");
        let kept = store.db();
        let snapshot = store.snapshot().await.expect("a timestamp");
        let found = snapshot.scan(b"", b"", 100).await.expect("scanned");
        assert_eq!(found.len(), round);
        let mut txn = store.begin(TxnOptions::optimistic().two_phases()).await.expect("begun");
        txn.put(format!("{round}").as_bytes(), "x".repeat(300)).await.expect("kept");
        txn.commit().await.expect("committed");
        let busy = pontoon::open(&dir).await;
        assert!(busy.is_err(), "one process, and one store in it, at a time");
        store.close().await;
        assert!(kept.raw().get(b"k").await.is_err(), "closed is closed");
    }
    let other = OpenOptions::new(&dir).api_version(ApiVersion::V1).open().await;
    assert!(other.is_err(), "it was created with version 2");
}

#[test]
fn without_async() {
    let store = pontoon::blocking::memory().expect("nothing can refuse");
    let count = |store: &pontoon::blocking::Store| {
        store.transaction(|txn| {
            let count = txn.get(b"n")?.map_or(0, |text| text.len());
            txn.put(b"n", "x".repeat(count + 1))
        })
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..5).all(|_| count(&store).expect("committed").is_some()));
        }
    });
    assert_eq!(store.get(b"n").expect("read").map(|text| text.len()), Some(20));
    let failed = store.transaction(|txn| {
        txn.delete(b"n")?;
        Err(ClientError::Refused { call: "work", message: "changed my mind".to_owned() })
    });
    assert!(failed.is_err());
    assert_eq!(store.scan(b"", b"", 10).expect("scanned").len(), 1);
    store.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_memory_is_ready_at_once() {
    let begun = std::time::Instant::now();
    let store = memory().await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    store.close().await;
}
