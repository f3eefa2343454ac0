//! Reads: over the borders of regions, past the locks of others, with the own writes on top.

use bytes::Bytes;
use pontoon_client::{ClientError, Pair, StoreReply, StoreRequest, TxnOptions};
use proto::{kvrpcpb, metapb};

use crate::script::{Script, get_locked, lock, not_leader, resolved, run, status, value};

fn rows(keys: &[&'static str]) -> StoreReply {
    let pair = |key: &&'static str| kvrpcpb::KvPair {
        key: Bytes::from(*key),
        value: "v".into(),
        ..Default::default()
    };
    let pairs = keys.iter().map(pair).collect();
    StoreReply::KvScan(kvrpcpb::ScanResponse { pairs, ..Default::default() })
}

fn keys(pairs: &[Pair]) -> Vec<&str> {
    pairs.iter().map(|pair| std::str::from_utf8(&pair.key).expect("text")).collect()
}

#[test]
fn a_new_leader_is_followed() {
    let (script, db) = Script::with_borders(&[]);
    let leader = metapb::Peer { id: 11, store_id: 9, ..Default::default() };
    script.reply(StoreReply::KvGet(kvrpcpb::GetResponse {
        region_error: Some(not_leader(Some(leader))),
        ..Default::default()
    }));
    script.reply(value(Some("1")));
    let got = run(async { db.snapshot().await?.get(b"a").await });
    assert_eq!(got, Ok(Some("1".into())));
    let stores: Vec<_> = script.sent().iter().map(|(store, _)| *store).collect();
    assert_eq!(stores, [1, 9]);
}

#[test]
fn a_reader_passes_a_writer_that_it_has_pushed() {
    let (script, db) = Script::with_borders(&[]);
    let other = lock("a", "p", 900, 60_000);
    script.reply(get_locked(&other));
    script.reply(StoreReply::KvCheckTxnStatus(kvrpcpb::CheckTxnStatusResponse {
        lock_ttl: 60_000,
        lock_info: Some(lock("p", "p", 900, 60_000)),
        action: kvrpcpb::Action::MinCommitTsPushed.into(),
        ..Default::default()
    }));
    script.reply(value(Some("old")));
    let got = run(async { db.snapshot().await?.get(b"a").await });
    assert_eq!(got, Ok(Some("old".into())));
    let sent = script.sent();
    let (_, StoreRequest::KvGet(again)) = &sent[2] else { panic!("{sent:?}") };
    let passed = again.context.as_ref().map(|context| &context.resolved_locks[..]);
    assert_eq!(passed, Some(&[900 << 18][..]));
}

#[test]
fn a_reader_waits_for_a_writer_that_lives_and_not_for_ever() {
    let (script, db) = Script::with_borders(&[]);
    let other = lock("a", "p", 900, 60_000);
    let answer = || {
        script.reply(get_locked(&other));
        script.reply(status(60_000, 0, Some(lock("p", "p", 900, 60_000))));
    };
    answer();
    script.reply(value(None));
    assert_eq!(run(async { db.snapshot().await?.get(b"a").await }), Ok(None));
    (0..200).for_each(|_| answer());
    let error = run(async { db.snapshot().await?.get(b"a").await });
    assert!(matches!(error, Err(ClientError::Locked { .. })), "{error:?}");
}

#[test]
fn a_primary_that_may_still_come_is_waited_for_until_its_time_is_over() {
    let (script, db) = Script::with_borders(&[]);
    let other = lock("a", "p", 1_000, 30);
    let missing = || {
        StoreReply::KvCheckTxnStatus(kvrpcpb::CheckTxnStatusResponse {
            error: Some(kvrpcpb::KeyError {
                txn_not_found: Some(kvrpcpb::TxnNotFound::default()),
                ..Default::default()
            }),
            ..Default::default()
        })
    };
    script.reply(get_locked(&other));
    script.reply(missing());
    let pass = script.clone();
    let met = get_locked(&other);
    script.answer(move |_| {
        pass.pass(std::time::Duration::from_millis(100));
        Ok(met)
    });
    script.answer(|request| {
        let StoreRequest::KvCheckTxnStatus(check) = request else { panic!("{request:?}") };
        assert!(check.rollback_if_not_exist, "its time is over");
        Ok(status(0, 0, None))
    });
    script.reply(resolved());
    script.reply(value(None));
    assert_eq!(run(async { db.snapshot().await?.get(b"a").await }), Ok(None));
    let sent = script.sent();
    let (_, StoreRequest::KvCheckTxnStatus(first)) = &sent[1] else { panic!("{sent:?}") };
    assert!(!first.rollback_if_not_exist);
    assert!(script.is_used_up());
}

#[test]
fn an_async_commit_out_of_date_is_decided_by_all_its_keys() {
    let (script, db) = Script::with_borders(&["m"]);
    let primary = kvrpcpb::LockInfo {
        use_async_commit: true,
        min_commit_ts: 50,
        secondaries: vec!["b".into(), "z".into()],
        ..lock("a", "a", 1, 10)
    };
    let secondary = |key, min_commit_ts| kvrpcpb::LockInfo {
        use_async_commit: true,
        min_commit_ts,
        ..lock(key, "a", 1, 10)
    };
    let locks = |locks| {
        StoreReply::KvCheckSecondaryLocks(kvrpcpb::CheckSecondaryLocksResponse {
            locks,
            ..Default::default()
        })
    };
    script.reply(get_locked(&secondary("z", 60)));
    script.reply(status(10, 0, Some(primary)));
    script.reply(locks(vec![secondary("b", 40)]));
    script.reply(locks(vec![secondary("z", 60)]));
    script.reply(resolved());
    script.reply(resolved());
    // The lock that was met is known to be decided; it may be gone.
    script.reply(resolved());
    script.reply(value(Some("1")));
    let got = run(async { db.snapshot().await?.get(b"z").await });
    assert_eq!(got, Ok(Some("1".into())));
    let resolves: Vec<_> = script
        .sent()
        .into_iter()
        .filter_map(|(_, request)| match request {
            StoreRequest::KvResolveLock(resolve) => Some((resolve.keys, resolve.commit_version)),
            _ => None,
        })
        .collect();
    assert_eq!(resolves[0], (vec!["a".into(), "b".into()], 60));
    assert_eq!(resolves[1], (vec!["z".into()], 60));
}

#[test]
fn scans_cross_borders_in_both_directions() {
    let (script, db) = Script::with_borders(&["m"]);
    script.reply(rows(&["a", "b"]));
    script.reply(rows(&["m"]));
    let forward = run(async { db.snapshot().await?.scan(b"", b"", 10).await });
    assert_eq!(keys(&forward.expect("scanned")), ["a", "b", "m"]);
    script.reply(rows(&["m"]));
    script.reply(rows(&["b"]));
    let reverse = run(async { db.snapshot().await?.scan_reverse(b"b", b"z", 10).await });
    assert_eq!(keys(&reverse.expect("scanned")), ["m", "b"]);
    let bounds: Vec<_> = script
        .sent()
        .into_iter()
        .map(|(store, request)| match request {
            StoreRequest::KvScan(scan) => (store, scan.start_key, scan.end_key),
            other => panic!("{other:?}"),
        })
        .collect();
    let bound = |store, start: &'static str, end: &'static str| (store, start.into(), end.into());
    assert_eq!(
        bounds,
        [bound(1, "", "m"), bound(2, "m", ""), bound(2, "z", "m"), bound(1, "m", "b")]
    );
}

#[test]
fn a_scan_shows_own_writes_in_their_places() {
    let (script, db) = Script::with_borders(&[]);
    let pairs = |reverse: bool, limit: usize| {
        let answers = if reverse { ["d", "b"] } else { ["b", "d"] };
        script.reply(rows(&answers));
        run(async {
            let mut txn = db.begin(TxnOptions::optimistic()).await?;
            for key in ["a", "c", "e"] {
                txn.put(key.as_bytes(), "own").await?;
            }
            txn.delete(b"b").await?;
            match reverse {
                false => txn.scan(b"a", b"z", limit).await,
                true => txn.scan_reverse(b"a", b"z", limit).await,
            }
        })
        .expect("scanned")
    };
    assert_eq!(keys(&pairs(false, 10)), ["a", "c", "d", "e"]);
    assert_eq!(keys(&pairs(true, 10)), ["e", "d", "c", "a"]);
    assert_eq!(keys(&pairs(false, 2)), ["a", "c"]);
}

#[test]
fn a_batch_is_asked_region_by_region_and_again_for_what_was_locked() {
    let (script, db) = Script::with_borders(&["m"]);
    let pair = |key: &'static str| kvrpcpb::KvPair {
        key: key.into(),
        value: "1".into(),
        ..Default::default()
    };
    let other = lock("z", "p", 1, 10);
    let error = Some(crate::script::locked(&other));
    let batch =
        |pairs| StoreReply::KvBatchGet(kvrpcpb::BatchGetResponse { pairs, ..Default::default() });
    script.reply(batch(vec![pair("a")]));
    script.reply(batch(vec![kvrpcpb::KvPair { error, ..pair("z") }]));
    script.reply(status(0, 0, None));
    script.reply(resolved());
    script.reply(batch(vec![pair("z")]));
    let found = run(async { db.snapshot().await?.batch_get(&["a", "b", "z"]).await });
    assert_eq!(found.expect("read").into_keys().collect::<Vec<_>>(), ["a", "z"]);
    let sent = script.sent();
    let (2, StoreRequest::KvBatchGet(again)) = &sent[4] else { panic!("{sent:?}") };
    assert_eq!(again.keys, ["z"]);
}
