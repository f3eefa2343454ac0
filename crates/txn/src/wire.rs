//! What clients see, as protobuf: errors about keys, locks, records. The one place of this crate
//! that knows the generated types.

pub mod replies;
pub mod requests;

use proto::{deadlock, kvrpcpb};

use crate::actions::{Assertion, MvccInfo, StatusAction};
use crate::mvcc::{Lock, LockKind, Write, WriteKind};
use crate::waiting::{WaitFor, key_hash};
use crate::{Conflict, ConflictReason, DeadlockFound, KeyError, LockInfo};

/// The error as clients know it. One kind is set; a conflict and a missing lock also set
/// `retryable`, since old clients look only there.
pub fn key_error(error: &KeyError) -> kvrpcpb::KeyError {
    let mut out = kvrpcpb::KeyError::default();
    match error {
        KeyError::Locked(info) => out.locked = Some(lock_info(info)),
        KeyError::Conflict(conflict) => {
            out.retryable = error.to_string();
            out.conflict = Some(write_conflict(conflict));
        }
        KeyError::AlreadyExist { key } => {
            out.already_exist = Some(kvrpcpb::AlreadyExist { key: key.clone() });
        }
        KeyError::Deadlock(found) => out.deadlock = Some(deadlock_error(found)),
        KeyError::CommitTsExpired { start_ts, attempted_commit_ts, key, min_commit_ts } => {
            out.commit_ts_expired = Some(kvrpcpb::CommitTsExpired {
                start_ts: start_ts.0,
                attempted_commit_ts: attempted_commit_ts.0,
                key: key.clone(),
                min_commit_ts: min_commit_ts.0,
            });
        }
        KeyError::TxnNotFound { start_ts, primary } => {
            let primary_key = primary.clone();
            out.txn_not_found = Some(kvrpcpb::TxnNotFound { start_ts: start_ts.0, primary_key });
        }
        KeyError::AssertionFailed {
            start_ts,
            key,
            assertion,
            existing_start_ts,
            existing_commit_ts,
        } => {
            out.assertion_failed = Some(kvrpcpb::AssertionFailed {
                start_ts: start_ts.0,
                key: key.clone(),
                assertion: assertion_number(*assertion) as i32,
                existing_start_ts: existing_start_ts.0,
                existing_commit_ts: existing_commit_ts.0,
            });
        }
        KeyError::PrimaryMismatch(info) => {
            let lock_info = Some(lock_info(info));
            out.primary_mismatch = Some(kvrpcpb::PrimaryMismatch { lock_info });
        }
        KeyError::LockNotFound { key, .. } => {
            out.retryable = error.to_string();
            out.txn_lock_not_found = Some(kvrpcpb::TxnLockNotFound { key: key.clone() });
        }
        KeyError::Abort(abort) => out.abort = abort.to_string(),
    }
    out
}

/// The lock as clients know it.
pub fn lock_info(info: &LockInfo) -> kvrpcpb::LockInfo {
    let lock = &info.lock;
    kvrpcpb::LockInfo {
        primary_lock: lock.primary.clone(),
        lock_version: lock.start_ts.0,
        key: info.key.clone(),
        lock_ttl: lock.ttl_ms,
        txn_size: lock.txn_size,
        lock_type: lock_op(lock.kind) as i32,
        lock_for_update_ts: lock.for_update_ts.0,
        use_async_commit: lock.is_async_commit(),
        min_commit_ts: lock.min_commit_ts.0,
        secondaries: lock.secondaries.clone().unwrap_or_default(),
        duration_to_last_update_ms: info.unchanged_for_ms,
        ..Default::default()
    }
}

fn write_conflict(conflict: &Conflict) -> kvrpcpb::WriteConflict {
    use kvrpcpb::write_conflict::Reason;
    let reason = match conflict.reason {
        ConflictReason::Optimistic => Reason::Optimistic,
        ConflictReason::PessimisticRetry => Reason::PessimisticRetry,
        ConflictReason::SelfRolledBack => Reason::SelfRolledBack,
        ConflictReason::RcCheckTs => Reason::RcCheckTs,
        ConflictReason::LazyUniquenessCheck => Reason::LazyUniquenessCheck,
    };
    kvrpcpb::WriteConflict {
        start_ts: conflict.start_ts.0,
        conflict_ts: conflict.conflict_ts.0,
        key: conflict.key.clone(),
        primary: conflict.primary.clone(),
        conflict_commit_ts: conflict.conflict_commit_ts.0,
        reason: reason as i32,
    }
}

fn deadlock_error(found: &DeadlockFound) -> kvrpcpb::Deadlock {
    kvrpcpb::Deadlock {
        lock_ts: found.lock_ts.0,
        lock_key: found.lock_key.clone(),
        deadlock_key_hash: found.deadlock_key_hash,
        wait_chain: found.chain.iter().map(wait_for_entry).collect(),
        deadlock_key: found.deadlock_key.clone(),
    }
}

/// A wait as stores and clients know it.
pub fn wait_for_entry(wait: &WaitFor) -> deadlock::WaitForEntry {
    deadlock::WaitForEntry {
        txn: wait.txn.0,
        wait_for_txn: wait.holder.0,
        key_hash: key_hash(&wait.key),
        key: wait.key.clone(),
        resource_group_tag: wait.resource_group_tag.clone(),
        wait_time: wait.waited_ms,
    }
}

/// What CheckTxnStatus did, as clients know it.
pub fn status_action(action: StatusAction) -> kvrpcpb::Action {
    use kvrpcpb::Action;
    match action {
        StatusAction::None => Action::NoAction,
        StatusAction::TtlExpireRollback => Action::TtlExpireRollback,
        StatusAction::LockNotExistRollback => Action::LockNotExistRollback,
        StatusAction::MinCommitTsPushed => Action::MinCommitTsPushed,
        StatusAction::TtlExpirePessimisticRollback => Action::TtlExpirePessimisticRollback,
        StatusAction::LockNotExistDoNothing => Action::LockNotExistDoNothing,
    }
}

/// All that is stored of a key, as debug calls answer it.
pub fn mvcc_info(info: &MvccInfo) -> kvrpcpb::MvccInfo {
    let write = |(commit_ts, write): &(base::TimeStamp, Write)| mvcc_write(commit_ts.0, write);
    let value = |(start_ts, value): &(base::TimeStamp, bytes::Bytes)| kvrpcpb::MvccValue {
        start_ts: start_ts.0,
        value: value.clone(),
    };
    kvrpcpb::MvccInfo {
        lock: info.lock.as_ref().map(mvcc_lock),
        writes: info.writes.iter().map(write).collect(),
        values: info.values.iter().map(value).collect(),
    }
}

fn mvcc_lock(lock: &Lock) -> kvrpcpb::MvccLock {
    let (last_change_ts, versions_to_last_change) = lock.last_change.parts();
    kvrpcpb::MvccLock {
        r#type: lock_op(lock.kind) as i32,
        start_ts: lock.start_ts.0,
        primary: lock.primary.clone(),
        short_value: lock.short_value.clone().unwrap_or_default(),
        ttl: lock.ttl_ms,
        for_update_ts: lock.for_update_ts.0,
        txn_size: lock.txn_size,
        use_async_commit: lock.is_async_commit(),
        secondaries: lock.secondaries.clone().unwrap_or_default(),
        rollback_ts: lock.rollback_ts.iter().map(|ts| ts.0).collect(),
        last_change_ts,
        versions_to_last_change,
    }
}

fn mvcc_write(commit_ts: u64, write: &Write) -> kvrpcpb::MvccWrite {
    let op = match write.kind {
        WriteKind::Put => kvrpcpb::Op::Put,
        WriteKind::Delete => kvrpcpb::Op::Del,
        WriteKind::Lock => kvrpcpb::Op::Lock,
        WriteKind::Rollback => kvrpcpb::Op::Rollback,
    };
    let (last_change_ts, versions_to_last_change) = write.last_change.parts();
    kvrpcpb::MvccWrite {
        r#type: op as i32,
        start_ts: write.start_ts.0,
        commit_ts,
        short_value: write.short_value.clone().unwrap_or_default(),
        has_overlapped_rollback: write.has_overlapped_rollback,
        has_gc_fence: write.gc_fence.is_some(),
        gc_fence: write.gc_fence.unwrap_or_default().0,
        last_change_ts,
        versions_to_last_change,
    }
}

fn lock_op(kind: LockKind) -> kvrpcpb::Op {
    match kind {
        LockKind::Put => kvrpcpb::Op::Put,
        LockKind::Delete => kvrpcpb::Op::Del,
        LockKind::Lock => kvrpcpb::Op::Lock,
        LockKind::Pessimistic => kvrpcpb::Op::PessimisticLock,
    }
}

fn assertion_number(assertion: Assertion) -> kvrpcpb::Assertion {
    match assertion {
        Assertion::None => kvrpcpb::Assertion::None,
        Assertion::Exist => kvrpcpb::Assertion::Exist,
        Assertion::NotExist => kvrpcpb::Assertion::NotExist,
    }
}

#[cfg(test)]
mod tests {
    use base::TimeStamp;

    use super::*;
    use crate::mvcc::{Key, LastChange};

    fn lock() -> Lock {
        let mut lock = Lock::new(LockKind::Put, "p".into(), TimeStamp(7), 30);
        lock.for_update_ts = TimeStamp(8);
        lock.min_commit_ts = TimeStamp(9);
        lock.txn_size = 2;
        lock.secondaries = Some(vec!["s".into()]);
        lock
    }

    #[test]
    fn a_lock_has_all_its_fields() {
        let mut info = LockInfo::new(&Key::new("k"), lock());
        info.unchanged_for_ms = 40;
        let expected = kvrpcpb::LockInfo {
            primary_lock: "p".into(),
            lock_version: 7,
            key: "k".into(),
            lock_ttl: 30,
            txn_size: 2,
            lock_type: kvrpcpb::Op::Put as i32,
            lock_for_update_ts: 8,
            use_async_commit: true,
            min_commit_ts: 9,
            secondaries: vec!["s".into()],
            duration_to_last_update_ms: 40,
            ..Default::default()
        };
        assert_eq!(lock_info(&info), expected);
    }

    #[test]
    fn a_deadlock_carries_its_cycle() {
        let wait = WaitFor {
            txn: TimeStamp(1),
            holder: TimeStamp(2),
            key: "k".into(),
            resource_group_tag: "tag".into(),
            waited_ms: 3,
        };
        let found = DeadlockFound {
            lock_ts: TimeStamp(1),
            lock_key: "l".into(),
            deadlock_key_hash: key_hash(b"k"),
            deadlock_key: "k".into(),
            chain: vec![wait],
        };
        let wire = key_error(&KeyError::Deadlock(found)).deadlock.expect("a deadlock");
        assert_eq!(
            (wire.lock_ts, &wire.lock_key[..], &wire.deadlock_key[..]),
            (1, &b"l"[..], &b"k"[..])
        );
        let entry = &wire.wait_chain[0];
        assert_eq!((entry.txn, entry.wait_for_txn, entry.wait_time), (1, 2, 3));
        assert_eq!(entry.key_hash, wire.deadlock_key_hash);
    }

    #[test]
    fn texts_that_clients_search_for() {
        let (start_ts, commit_ts, key) = (TimeStamp(1), TimeStamp(2), bytes::Bytes::from("k"));
        let missing = key_error(&KeyError::LockNotFound { start_ts, commit_ts, key });
        assert!(missing.retryable.contains("TxnLockNotFound"));
        let conflict = Conflict {
            start_ts,
            conflict_ts: TimeStamp(3),
            conflict_commit_ts: TimeStamp(4),
            key: "k".into(),
            primary: "p".into(),
            reason: ConflictReason::Optimistic,
        };
        let conflict = key_error(&KeyError::Conflict(conflict));
        assert!(conflict.retryable.contains("write conflict"));
        let reason = conflict.conflict.expect("a conflict").reason;
        assert_eq!(reason, kvrpcpb::write_conflict::Reason::Optimistic as i32);
    }

    #[test]
    fn records_of_a_key() {
        let mut write = Write::new(WriteKind::Delete, TimeStamp(1), None);
        write.gc_fence = Some(TimeStamp(5));
        write.has_overlapped_rollback = true;
        write.last_change = LastChange::At { commit_ts: TimeStamp(3), versions: 4 };
        let info = MvccInfo {
            lock: Some(lock()),
            writes: vec![(TimeStamp(2), write)],
            values: vec![(TimeStamp(1), "v".into())],
        };
        let wire = mvcc_info(&info);
        assert_eq!(wire.lock.expect("a lock").secondaries.len(), 1);
        let write = &wire.writes[0];
        assert_eq!((write.r#type, write.commit_ts), (kvrpcpb::Op::Del as i32, 2));
        assert_eq!(
            (write.gc_fence, write.has_gc_fence, write.has_overlapped_rollback),
            (5, true, true)
        );
        assert_eq!((write.last_change_ts, write.versions_to_last_change), (3, 4));
        assert_eq!(wire.values[0].start_ts, 1);
    }
}
