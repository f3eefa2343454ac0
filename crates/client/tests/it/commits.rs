//! Commits: which phase is sent when, and what is told about failures.

use pontoon_client::{ClientError, LinkError, StoreReply, StoreRequest, TxnOptions};
use proto::kvrpcpb;

use crate::script::{
    Script, commit_error, committed, conflict, lock, locked, not_leader, prewrite_error,
    prewritten, resolved, rolled_back, run, status,
};

fn lost() -> Result<StoreReply, LinkError> {
    Err(LinkError::Lost("the connection broke".to_owned()))
}

#[test]
fn one_region_commits_in_one_phase() {
    let (script, db) = Script::with_borders(&[]);
    script.reply(prewritten(0, 77));
    let at = run(async {
        let mut txn = db.begin(TxnOptions::optimistic()).await?;
        txn.put(b"a", "1").await?;
        txn.put(b"b", "2").await?;
        txn.commit().await
    });
    assert_eq!(at.expect("committed").map(|at| at.0), Some(77));
    let sent = script.sent();
    let [(1, StoreRequest::KvPrewrite(request))] = &sent[..] else { panic!("{sent:?}") };
    assert!(request.try_one_pc && request.use_async_commit);
    assert_eq!((request.primary_lock.as_ref(), request.secondaries.len()), (&b"a"[..], 1));
    assert!(request.min_commit_ts > request.start_version, "above all that was given out");
    assert_eq!(script.spawned(), 0);
}

#[test]
fn two_regions_commit_when_all_locks_are_there() {
    let (script, db) = Script::with_borders(&["m"]);
    script.reply(prewritten(90, 0));
    script.reply(prewritten(80, 0));
    let at = run(async {
        let mut txn = db.begin(TxnOptions::optimistic()).await?;
        txn.put(b"a", "1").await?;
        txn.delete(b"z").await?;
        txn.commit().await
    });
    assert_eq!(at.expect("committed").map(|at| at.0), Some(90));
    script.sent();
    script.reply(committed());
    script.reply(committed());
    script.run_spawned();
    assert_eq!(script.names(), ["KvCommit", "KvCommit"]);
}

#[test]
fn a_store_that_falls_back_gets_the_second_phase() {
    let (script, db) = Script::with_borders(&["m"]);
    script.reply(prewritten(90, 0));
    script.reply(prewritten(0, 0));
    script.reply(committed());
    let at = run(async {
        let mut txn = db.begin(TxnOptions::optimistic()).await?;
        txn.put(b"a", "1").await?;
        txn.put(b"z", "2").await?;
        txn.commit().await
    });
    let at = at.expect("committed").expect("something was written");
    let sent = script.sent();
    let (1, StoreRequest::KvCommit(commit)) = &sent[2] else { panic!("{sent:?}") };
    assert_eq!((commit.commit_version, &commit.keys[..]), (at.0, &["a".into()][..]));
    assert_eq!(script.spawned(), 1, "the other region follows later");
}

#[test]
fn the_second_phase_follows_a_pushed_primary() {
    let (script, db) = Script::with_borders(&[]);
    script.reply(prewritten(0, 0));
    let expired = kvrpcpb::CommitTsExpired::default();
    script.reply(commit_error(kvrpcpb::KeyError {
        commit_ts_expired: Some(expired),
        ..Default::default()
    }));
    script.reply(committed());
    let at = run(async {
        let mut txn = db.begin(TxnOptions::optimistic().two_phases()).await?;
        txn.put(b"a", "1").await?;
        txn.commit().await
    });
    let at = at.expect("committed").expect("something was written").0;
    let sent = script.sent();
    let versions = sent.iter().filter_map(|(_, request)| match request {
        StoreRequest::KvCommit(commit) => Some(commit.commit_version),
        _ => None,
    });
    let versions: Vec<_> = versions.collect();
    assert!(versions[0] < versions[1] && versions[1] == at, "{versions:?}");
}

#[test]
fn a_lost_commit_is_sent_again_and_ends_undetermined_if_need_be() {
    let (script, db) = Script::with_borders(&[]);
    let commit = || async {
        let mut txn = db.begin(TxnOptions::optimistic().two_phases()).await?;
        txn.put(b"a", "1").await?;
        txn.commit().await
    };
    script.reply(prewritten(0, 0));
    script.answer(|_| lost());
    script.reply(committed());
    assert!(run(commit()).is_ok());

    script.reply(prewritten(0, 0));
    for _ in 0..200 {
        script.answer(|_| lost());
    }
    let error = run(commit()).expect_err("nobody answers");
    assert!(error.is_undetermined(), "{error}");
    assert_eq!(script.spawned(), 0, "its locks must not be rolled back");
}

#[test]
fn a_commit_that_nobody_got_is_rolled_back() {
    let (script, db) = Script::with_borders(&[]);
    script.reply(prewritten(0, 0));
    for _ in 0..200 {
        script.answer(|_| Err(LinkError::Unsent("nobody is there".to_owned())));
    }
    let error = run(async {
        let mut txn = db.begin(TxnOptions::optimistic().two_phases()).await?;
        txn.put(b"a", "1").await?;
        txn.commit().await
    });
    assert!(matches!(error, Err(ClientError::GaveUp { .. })), "{error:?}");
    assert_eq!(script.spawned(), 1);
}

#[test]
fn a_lock_that_others_took_away_ends_the_commit() {
    let (script, db) = Script::with_borders(&[]);
    script.reply(prewritten(0, 0));
    // The first copy got lost; that there is no lock now says that it did not commit either.
    script.answer(|_| lost());
    script.reply(commit_error(kvrpcpb::KeyError {
        txn_lock_not_found: Some(kvrpcpb::TxnLockNotFound { key: "a".into() }),
        ..Default::default()
    }));
    let error = run(async {
        let mut txn = db.begin(TxnOptions::optimistic().two_phases()).await?;
        txn.put(b"a", "1").await?;
        txn.commit().await
    });
    assert!(matches!(error, Err(ClientError::RolledBack { .. })), "{error:?}");
}

#[test]
fn a_conflict_is_told_at_once() {
    let (script, db) = Script::with_borders(&[]);
    script.reply(prewrite_error(conflict("a")));
    let error = run(async {
        let mut txn = db.begin(TxnOptions::optimistic()).await?;
        txn.put(b"a", "1").await?;
        txn.commit().await
    })
    .expect_err("somebody was faster");
    assert!(matches!(&error, ClientError::Conflict { key, .. } if key == "a"), "{error}");
    assert!(error.may_be_run_again());
    script.reply(rolled_back());
    script.run_spawned();
    assert_eq!(script.names(), ["KvPrewrite", "KvBatchRollback"]);
}

#[test]
fn a_failure_that_others_may_complete_is_settled() {
    // The answer to an async prewrite is lost for good; its lock turns out to be there, and so the
    // transaction is committed.
    let (script, db) = Script::with_borders(&[]);
    let aborted = kvrpcpb::KeyError { abort: "busy".to_owned(), ..Default::default() };
    script.answer(|_| lost());
    script.reply(prewrite_error(aborted.clone()));
    script.reply(status(0, 99, None));
    let commit = || async {
        let mut txn = db.begin(TxnOptions::optimistic()).await?;
        txn.put(b"a", "1").await?;
        txn.commit().await
    };
    let at = run(commit()).expect("others committed it");
    assert_eq!(at.map(|at| at.0), Some(99));
    assert_eq!(script.names(), ["KvPrewrite", "KvPrewrite", "KvCheckTxnStatus"]);
    script.reply(committed());
    script.run_spawned();
    script.sent();

    // It is not there, and never will be: there is a record now.
    script.reply(prewrite_error(aborted.clone()));
    script.reply(status(0, 0, None));
    let error = run(commit()).expect_err("it was refused");
    assert!(matches!(error, ClientError::Aborted { .. }), "{error}");
    let sent = script.sent();
    let (_, StoreRequest::KvCheckTxnStatus(check)) = &sent[1] else { panic!("{sent:?}") };
    assert!(check.rollback_if_not_exist && check.current_ts == u64::MAX);

    // Nobody can say.
    script.reply(prewrite_error(aborted));
    for _ in 0..200 {
        script.answer(|_| lost());
    }
    assert!(run(commit()).expect_err("nobody answers").is_undetermined());
}

#[test]
fn a_one_phase_commit_that_was_cut_by_a_split_goes_on_in_two_regions() {
    let (script, db) = Script::with_borders(&["m"]);
    script.answer(|request| {
        let StoreRequest::KvPrewrite(request) = request else { panic!("{request:?}") };
        assert!(!request.try_one_pc, "not all keys are in the request");
        Ok(prewritten(50, 0))
    });
    script.answer(|request| {
        let StoreRequest::KvPrewrite(request) = request else { panic!("{request:?}") };
        assert!(request.secondaries.is_empty(), "the primary's lock lists them");
        let region_error = Some(not_leader(None));
        let reply = kvrpcpb::PrewriteResponse { region_error, ..Default::default() };
        Ok(StoreReply::KvPrewrite(reply))
    });
    script.answer(|request| {
        let StoreRequest::KvPrewrite(request) = request else { panic!("{request:?}") };
        assert!(request.context.as_ref().is_some_and(|context| context.is_retry_request));
        Ok(prewritten(60, 0))
    });
    let at = run(async {
        let mut txn = db.begin(TxnOptions::optimistic()).await?;
        txn.put(b"a", "1").await?;
        txn.put(b"n", "2").await?;
        txn.commit().await
    });
    assert_eq!(at.expect("committed").map(|at| at.0), Some(60));
    assert!(script.is_used_up());
}

#[test]
fn a_lock_in_the_way_is_resolved_and_the_prewrite_sent_again() {
    let (script, db) = Script::with_borders(&[]);
    let other = lock("a", "p", 1, 10);
    script.reply(prewrite_error(locked(&other)));
    script.reply(status(0, 5 << 18, None));
    script.reply(resolved());
    script.reply(prewritten(0, 70 << 18));
    let at = run(async {
        let mut txn = db.begin(TxnOptions::optimistic()).await?;
        txn.put(b"a", "1").await?;
        txn.commit().await
    });
    assert!(at.is_ok(), "{at:?}");
    let sent = script.sent();
    let (_, StoreRequest::KvCheckTxnStatus(check)) = &sent[1] else { panic!("{sent:?}") };
    assert!(check.rollback_if_not_exist && check.caller_start_ts == 0, "{check:?}");
    let (_, StoreRequest::KvResolveLock(resolve)) = &sent[2] else { panic!("{sent:?}") };
    assert_eq!((resolve.commit_version, &resolve.keys[..]), (5 << 18, &["a".into()][..]));
}

#[test]
fn nothing_written_is_nothing_sent() {
    let (script, db) = Script::with_borders(&[]);
    let at = run(async { db.begin(TxnOptions::optimistic()).await?.commit().await });
    assert_eq!(at, Ok(None));
    // Keys that were inserted and deleted again are only checked.
    script.reply(prewritten(0, 0));
    let at = run(async {
        let mut txn = db.begin(TxnOptions::optimistic()).await?;
        txn.insert(b"a", "1").await?;
        txn.delete(b"a").await?;
        txn.commit().await
    });
    assert_eq!(at, Ok(None));
    assert_eq!(script.names(), ["KvPrewrite"]);
}

/// Clients run on runtimes with many threads.
#[test]
fn futures_may_move_between_threads() {
    fn is_send(_: &impl Send) {}
    let (_script, db) = Script::with_borders(&[]);
    let whole = async {
        let mut txn = db.begin(TxnOptions::pessimistic()).await?;
        txn.lock_for_update(&["a"]).await?;
        txn.insert(b"a", "1").await?;
        txn.batch_get(&["a"]).await?;
        txn.scan_reverse(b"", b"", 1).await?;
        txn.commit().await
    };
    is_send(&whole);
    drop(whole);
}
