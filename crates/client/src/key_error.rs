//! What is wrong with a key, as the client's own errors.

use base::TimeStamp;
use proto::kvrpcpb::KeyError;

use crate::error::ClientError;

/// The error for a caller. A lock is not among them: whoever met it resolves it.
pub(crate) fn typed(call: &'static str, error: KeyError) -> ClientError {
    if let Some(conflict) = error.conflict {
        let conflict_commit_ts = TimeStamp(conflict.conflict_commit_ts);
        return match conflict.reason() {
            proto::kvrpcpb::write_conflict::Reason::SelfRolledBack => {
                ClientError::RolledBack { message: "its rollback record was found".to_owned() }
            }
            _ => ClientError::Conflict { key: conflict.key, conflict_commit_ts },
        };
    }
    if let Some(exists) = error.already_exist {
        return ClientError::AlreadyExists { key: exists.key };
    }
    if let Some(deadlock) = error.deadlock {
        let key = match deadlock.deadlock_key.is_empty() {
            true => deadlock.lock_key,
            false => deadlock.deadlock_key,
        };
        return ClientError::Deadlock { key };
    }
    if let Some(lock) = error.locked {
        return ClientError::Locked { key: lock.key, holder: TimeStamp(lock.lock_version) };
    }
    let is_gone = error.txn_lock_not_found.is_some() || error.txn_not_found.is_some();
    if is_gone || error.retryable.contains("TxnLockNotFound") {
        return ClientError::RolledBack { message: words(&error) };
    }
    if !error.abort.is_empty() || !error.retryable.is_empty() || error.assertion_failed.is_some() {
        return ClientError::Aborted { message: words(&error) };
    }
    ClientError::Refused { call, message: words(&error) }
}

fn words(error: &KeyError) -> String {
    match () {
        () if !error.abort.is_empty() => error.abort.clone(),
        () if !error.retryable.is_empty() => error.retryable.clone(),
        () => format!("{error:?}"),
    }
}
