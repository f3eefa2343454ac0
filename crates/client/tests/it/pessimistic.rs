//! Pessimistic locks: taken with each write, given back when the rest fails, kept alive.

use std::time::Duration;

use pontoon_client::{ClientError, StoreReply, StoreRequest, TxnOptions};
use proto::kvrpcpb;
use proto::kvrpcpb::prewrite_request::PessimisticAction;

use crate::script::{Script, conflict, lock, locked, prewritten, run, status};

fn granted(values: &[Option<&'static str>]) -> StoreReply {
    StoreReply::KvPessimisticLock(kvrpcpb::PessimisticLockResponse {
        values: values.iter().map(|value| value.unwrap_or_default().into()).collect(),
        not_founds: values.iter().map(Option::is_none).collect(),
        ..Default::default()
    })
}

fn refused(error: kvrpcpb::KeyError) -> StoreReply {
    StoreReply::KvPessimisticLock(kvrpcpb::PessimisticLockResponse {
        errors: vec![error],
        ..Default::default()
    })
}

fn unlocked() -> StoreReply {
    StoreReply::KvPessimisticRollback(kvrpcpb::PessimisticRollbackResponse::default())
}

#[test]
fn a_write_locks_first_and_the_commit_checks_the_lock() {
    let (script, db) = Script::with_borders(&[]);
    script.reply(granted(&[]));
    script.reply(granted(&[Some("5")]));
    script.reply(prewritten(0, 99 << 18));
    run(async {
        let mut txn = db.begin(TxnOptions::pessimistic()).await?;
        txn.put(b"b", "1").await?;
        assert_eq!(txn.get_for_update(b"a").await?, Some("5".into()));
        assert_eq!(txn.get(b"a").await?, Some("5".into()), "as it was when it was locked");
        txn.put(b"a", "6").await?;
        txn.commit().await
    })
    .expect("committed");
    let sent = script.sent();
    let (_, StoreRequest::KvPessimisticLock(first)) = &sent[0] else { panic!("{sent:?}") };
    assert!(first.is_first_lock && !first.return_values && first.wait_timeout > 1_000);
    assert!(first.for_update_ts > first.start_version);
    let (_, StoreRequest::KvPrewrite(prewrite)) = &sent[2] else { panic!("{sent:?}") };
    assert_eq!(prewrite.primary_lock, "b", "the key that was locked first");
    let check = PessimisticAction::DoPessimisticCheck as i32;
    assert_eq!(prewrite.pessimistic_actions, [check, check]);
    assert!(prewrite.for_update_ts > first.for_update_ts);
}

#[test]
fn what_another_lock_guards_is_written_without_one() {
    let (script, db) = Script::with_borders(&[]);
    script.reply(granted(&[]));
    script.reply(prewritten(0, 99 << 18));
    run(async {
        let mut txn = db.begin(TxnOptions::pessimistic()).await?;
        txn.put(b"row", "1").await?;
        txn.put_unlocked(b"index", "1");
        txn.commit().await
    })
    .expect("committed");
    let sent = script.sent();
    let (_, StoreRequest::KvPrewrite(prewrite)) = &sent[1] else { panic!("{sent:?}") };
    assert_eq!(prewrite.primary_lock, "row");
    let (skip, check) =
        (PessimisticAction::SkipPessimisticCheck, PessimisticAction::DoPessimisticCheck);
    assert_eq!(prewrite.pessimistic_actions, [skip as i32, check as i32]);
}

#[test]
fn a_newer_version_is_locked_with_a_newer_timestamp() {
    let (script, db) = Script::with_borders(&[]);
    script.reply(refused(conflict("a")));
    script.reply(granted(&[Some("new")]));
    let got = run(async {
        let mut txn = db.begin(TxnOptions::pessimistic()).await?;
        let got = txn.get_for_update(b"a").await?;
        script.reply(unlocked());
        txn.rollback().await?;
        Ok::<_, ClientError>(got)
    });
    assert_eq!(got, Ok(Some("new".into())));
    let sent = script.sent();
    let tried: Vec<_> = sent
        .iter()
        .filter_map(|(_, request)| match request {
            StoreRequest::KvPessimisticLock(request) => Some(request.for_update_ts),
            _ => None,
        })
        .collect();
    assert!(tried[0] < tried[1], "{tried:?}");
    let (_, StoreRequest::KvPessimisticRollback(rollback)) = &sent[2] else { panic!("{sent:?}") };
    assert_eq!(rollback.keys, ["a"]);
}

#[test]
fn with_one_key_held_by_another_none_is_kept() {
    let (script, db) = Script::with_borders(&["m"]);
    let other = lock("z", "p", 900, 60_000);
    script.reply(granted(&[]));
    script.reply(refused(locked(&other)));
    script.reply(status(60_000, 0, Some(lock("p", "p", 900, 60_000))));
    let options = TxnOptions { lock_wait: Duration::ZERO, ..TxnOptions::pessimistic() };
    run(async {
        let mut txn = db.begin(options).await.expect("begun");
        let error = txn.lock(&["a", "z"]).await.expect_err("z is held");
        assert!(matches!(error, ClientError::Locked { .. }), "{error}");
        script.reply(unlocked());
        script.reply(unlocked());
        script.run_spawned();
        let sent = script.sent();
        let (_, StoreRequest::KvPessimisticLock(no_wait)) = &sent[0] else { panic!("{sent:?}") };
        assert!(no_wait.wait_timeout < 0);
        let rollbacks = sent.iter().filter(|(_, r)| r.name() == "KVPessimisticRollback");
        assert_eq!(rollbacks.count(), 2);
        assert_eq!(txn.commit().await, Ok(None), "nothing is left to be done");
    });
    assert!(script.is_used_up());
}

#[test]
fn a_deadlock_is_told() {
    let (script, db) = Script::with_borders(&[]);
    let deadlock = kvrpcpb::Deadlock { deadlock_key: "a".into(), ..Default::default() };
    script.reply(refused(kvrpcpb::KeyError { deadlock: Some(deadlock), ..Default::default() }));
    let error = run(async {
        let mut txn = db.begin(TxnOptions::pessimistic()).await?;
        txn.put(b"a", "1").await
    });
    assert!(matches!(&error, Err(ClientError::Deadlock { key }) if key == "a"), "{error:?}");
}

#[test]
fn an_insert_finds_the_value_at_once() {
    let (script, db) = Script::with_borders(&[]);
    script.answer(|request| {
        let StoreRequest::KvPessimisticLock(request) = request else { panic!("{request:?}") };
        assert_eq!(request.mutations[0].assertion(), kvrpcpb::Assertion::NotExist);
        let exists = kvrpcpb::AlreadyExist { key: "a".into() };
        Ok(refused(kvrpcpb::KeyError { already_exist: Some(exists), ..Default::default() }))
    });
    let error = run(async {
        let mut txn = db.begin(TxnOptions::pessimistic()).await?;
        txn.insert(b"a", "1").await
    });
    assert!(matches!(&error, Err(ClientError::AlreadyExists { key }) if key == "a"), "{error:?}");
}

#[test]
fn the_primary_is_kept_alive_until_the_end() {
    let (script, db) = Script::with_borders(&[]);
    script.reply(granted(&[]));
    run(async {
        let mut txn = db.begin(TxnOptions::pessimistic()).await.expect("begun");
        txn.put(b"a", "1").await.expect("locked");
        script.sent();
        let alive = kvrpcpb::TxnHeartBeatResponse { lock_ttl: 1, ..Default::default() };
        script.reply(StoreReply::KvTxnHeartBeat(alive));
        let gone = kvrpcpb::KeyError {
            txn_not_found: Some(kvrpcpb::TxnNotFound::default()),
            ..Default::default()
        };
        script.reply(StoreReply::KvTxnHeartBeat(kvrpcpb::TxnHeartBeatResponse {
            error: Some(gone),
            ..Default::default()
        }));
        script.run_spawned();
        let sent = script.sent();
        let ttls: Vec<_> = sent
            .iter()
            .filter_map(|(_, request)| match request {
                StoreRequest::KvTxnHeartBeat(beat) => Some(beat.advise_lock_ttl),
                _ => None,
            })
            .collect();
        assert_eq!(ttls.len(), 2, "it stops when there is nothing left");
        assert!(ttls[0] > 20_000 && ttls[1] > ttls[0], "counted from the start: {ttls:?}");
        script.reply(unlocked());
        txn.rollback().await.expect("unlocked");
    });
}

#[test]
fn a_dropped_transaction_gives_its_locks_back() {
    let (script, db) = Script::with_borders(&[]);
    script.reply(granted(&[]));
    run(async {
        let mut txn = db.begin(TxnOptions::pessimistic()).await.expect("begun");
        txn.put(b"a", "1").await.expect("locked");
    });
    script.reply(unlocked());
    script.run_spawned();
    assert_eq!(script.names(), ["KvPessimisticLock", "KVPessimisticRollback"]);
}
