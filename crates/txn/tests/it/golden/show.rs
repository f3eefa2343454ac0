//! What scripts print.

use base::TimeStamp;
use pontoon_txn as txn;
use storage::engine::Cf;
use txn::actions::Changes;
use txn::mvcc::{Key, LastChange, Lock, Row, Write, split_versioned};
use txn::{KeyError, LockInfo, Mutation, TxnError};

pub fn ts(ts: TimeStamp) -> String {
    match (ts, ts.physical_ms(), ts.logical()) {
        (TimeStamp::MAX, ..) => "max".to_owned(),
        (_, 0, logical) => logical.to_string(),
        (_, physical, 0) => format!("{physical}ms"),
        (_, physical, logical) => format!("{physical}ms.{logical}"),
    }
}

pub fn text(bytes: &[u8]) -> String {
    match bytes {
        [] => "''".to_owned(),
        _ if bytes.len() > 40 => format!("{} bytes", bytes.len()),
        _ => bytes.escape_ascii().to_string(),
    }
}

pub fn lock(lock: &Lock) -> String {
    let mut out = format!("{:?} start={}", lock.kind, ts(lock.start_ts));
    out += &format!(" primary={} ttl={}", text(&lock.primary), lock.ttl_ms);
    if let Some(value) = &lock.short_value {
        out += &format!(" value={}", text(value));
    }
    for (name, field) in [("fut", lock.for_update_ts), ("min_commit", lock.min_commit_ts)] {
        if field.0 != 0 {
            out += &format!(" {name}={}", ts(field));
        }
    }
    for (name, field) in
        [("size", lock.txn_size), ("gen", lock.generation), ("source", lock.source)]
    {
        if field != 0 {
            out += &format!(" {name}={field}");
        }
    }
    if let Some(secondaries) = &lock.secondaries {
        let all: Vec<_> = secondaries.iter().map(|key| text(key)).collect();
        out += &format!(" async=[{}]", all.join(","));
    }
    if !lock.rollback_ts.is_empty() {
        let all: Vec<_> = lock.rollback_ts.iter().map(|at| ts(*at)).collect();
        out += &format!(" rollbacks=[{}]", all.join(","));
    }
    if lock.with_conflict {
        out += " with-conflict";
    }
    out + &last_change(lock.last_change)
}

fn last_change(last: LastChange) -> String {
    match last {
        LastChange::Unknown => String::new(),
        LastChange::None => " last=none".to_owned(),
        LastChange::At { commit_ts, versions } => format!(" last={}/{versions}", ts(commit_ts)),
    }
}

pub fn write(write: &Write) -> String {
    let mut out = format!("{:?} start={}", write.kind, ts(write.start_ts));
    match &write.short_value {
        Some(_) if write.is_protected() => out += " protected",
        Some(value) => out += &format!(" value={}", text(value)),
        None => {}
    }
    if write.has_overlapped_rollback {
        out += " +rollback";
    }
    if let Some(fence) = write.gc_fence {
        out += &format!(" fence={}", ts(fence));
    }
    if write.source != 0 {
        out += &format!(" source={}", write.source);
    }
    out + &last_change(write.last_change)
}

fn region_key(key: &[u8]) -> String {
    let mut data = vec![storage::keys::DATA_PREFIX];
    data.extend_from_slice(key);
    text(Key::from_data(&data).expect("an encoded key").user())
}

/// A stored pair, key in region form.
pub fn record(cf: Cf, key: &[u8], value: Option<&[u8]>) -> String {
    let shown = |decoded: String| if value.is_some() { format!(" = {decoded}") } else { decoded };
    let value_bytes = value.unwrap_or_default();
    if cf == Cf::Lock {
        let decoded = value.map(|value| lock(&Lock::decode(value).expect("a lock")));
        return format!("lock {}{}", region_key(key), shown(decoded.unwrap_or_default()));
    }
    let (key, at) = split_versioned(key).expect("a versioned key");
    let place = format!("{}@{}", region_key(key), ts(at));
    match (cf, value) {
        (Cf::Write, None) => format!("write {place}"),
        (Cf::Write, Some(value)) => {
            format!("write {place}{}", shown(write(&Write::decode(value).expect("a write"))))
        }
        (_, None) => format!("value {place}"),
        (_, Some(_)) => format!("value {place}{}", shown(text(value_bytes))),
    }
}

/// What an action changes, one line each.
pub fn changes(changes: &Changes) -> String {
    let mut lines = Vec::new();
    for (key, held) in &changes.pessimistic {
        lines.push(format!("  ~ lock {} = {}", text(key.user()), lock(held)));
    }
    for change in &changes.writes {
        lines.push(match change {
            Mutation::Put { cf, key, value } => format!("  + {}", record(*cf, key, Some(value))),
            Mutation::Delete { cf, key } => format!("  - {}", record(*cf, key, None)),
            Mutation::DeleteRange { cf, start, end } => {
                let bound = |key: &[u8]| if key.is_empty() { "''".into() } else { region_key(key) };
                format!("  - {} {}..{}", cf.name(), bound(start), bound(end))
            }
        });
    }
    for released in &changes.released {
        let how = match released.commit_ts.0 {
            0 => String::new(),
            _ => format!(", committed at {}", ts(released.commit_ts)),
        };
        let (key, start) = (text(released.key.user()), ts(released.start_ts));
        lines.push(format!("  released {key} of {start}{how}"));
    }
    lines.join("\n")
}

pub fn lock_info(info: &LockInfo) -> String {
    format!("{} = {}", text(&info.key), lock(&info.lock))
}

/// An error as the kind that clients see, and what is in it.
pub fn key_error(error: &KeyError) -> String {
    check_one_kind(error);
    match error {
        KeyError::Locked(info) => format!("locked: {}", lock_info(info)),
        KeyError::Conflict(conflict) => format!(
            "conflict {:?}: {} of {} with {} committed at {}",
            conflict.reason,
            text(&conflict.key),
            ts(conflict.start_ts),
            ts(conflict.conflict_ts),
            ts(conflict.conflict_commit_ts),
        ),
        KeyError::AlreadyExist { key } => format!("already exists: {}", text(key)),
        KeyError::CommitTsExpired { attempted_commit_ts, min_commit_ts, key, .. } => format!(
            "commit ts expired: {} at {}, at least {}",
            text(key),
            ts(*attempted_commit_ts),
            ts(*min_commit_ts)
        ),
        KeyError::TxnNotFound { start_ts, primary } => {
            format!("txn not found: {} on {}", ts(*start_ts), text(primary))
        }
        KeyError::AssertionFailed { key, assertion, existing_commit_ts, .. } => {
            let existing = ts(*existing_commit_ts);
            format!("assertion {assertion:?} failed: {}, there is {existing}", text(key))
        }
        KeyError::PrimaryMismatch(info) => format!("primary mismatch: {}", lock_info(info)),
        KeyError::LockNotFound { key, start_ts, .. } => {
            format!("lock not found: {} of {}", text(key), ts(*start_ts))
        }
        KeyError::Deadlock(found) => format!("deadlock: {}", text(&found.lock_key)),
        KeyError::Abort(abort) => format!("abort: {abort}"),
    }
}

/// On the wire an error is of one kind; `retryable` stands beside two of them.
fn check_one_kind(error: &KeyError) {
    let wire = txn::wire::key_error(error);
    let kinds = [
        wire.locked.is_some(),
        !wire.abort.is_empty(),
        wire.conflict.is_some(),
        wire.already_exist.is_some(),
        wire.deadlock.is_some(),
        wire.commit_ts_expired.is_some(),
        wire.txn_not_found.is_some(),
        wire.assertion_failed.is_some(),
        wire.primary_mismatch.is_some(),
        wire.txn_lock_not_found.is_some(),
    ];
    assert_eq!(kinds.iter().filter(|set| **set).count(), 1, "{wire:?}");
    let has_retryable = wire.conflict.is_some() || wire.txn_lock_not_found.is_some();
    assert_eq!(!wire.retryable.is_empty(), has_retryable, "{wire:?}");
    if wire.txn_lock_not_found.is_some() {
        assert!(wire.retryable.contains("TxnLockNotFound"), "{wire:?}");
    }
}

pub fn error(error: &TxnError) -> String {
    match error {
        TxnError::Key(error) => key_error(error),
        TxnError::KeyNotInRegion { key } if key.is_empty() => "key not in region: ''".to_owned(),
        TxnError::KeyNotInRegion { key } => format!("key not in region: {}", region_key(key)),
        other => format!("error: {other}"),
    }
}

pub fn row(row: &Row) -> String {
    match &row.outcome {
        Ok(found) if found.commit_ts.0 == 0 => {
            format!("{} = {} from its lock", text(&row.key), text(&found.value))
        }
        Ok(found) => format!("{} = {}", text(&row.key), text(&found.value)),
        Err(error) => format!("{}: {}", text(&row.key), key_error(error)),
    }
}
