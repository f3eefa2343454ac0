//! What a write demands of the versions that are there.

use base::TimeStamp;
use base::rule::{Rule, keep};
use bytes::Bytes;

use super::{Assertion, AssertionLevel};
use crate::mvcc::{Key, LastChange, Reader, TxnRecord, Write, WriteKind};
use crate::{Abort, Conflict, ConflictReason, KeyError, TxnError};

/// Who asks.
pub(super) struct Asker<'a> {
    pub(super) start_ts: TimeStamp,
    pub(super) primary: &'a Bytes,
}

impl Asker<'_> {
    pub(super) fn conflict(
        &self,
        key: &Key,
        write: &Write,
        commit_ts: TimeStamp,
        reason: ConflictReason,
    ) -> KeyError {
        KeyError::Conflict(Conflict {
            start_ts: self.start_ts,
            conflict_ts: write.start_ts,
            conflict_commit_ts: commit_ts,
            key: key.user().clone(),
            primary: self.primary.clone(),
            reason,
        })
    }

    /// The newest record of the key, unless it stands in the way of a transaction that reads as of
    /// its start. Records of any kind count: a rollback above may have swallowed ours.
    pub(super) fn newest_unless_newer(
        &self,
        reader: &mut Reader<'_>,
        key: &Key,
        reason: ConflictReason,
    ) -> Result<Option<(TimeStamp, Write)>, TxnError> {
        let Some((commit_ts, write)) = reader.seek_write(key, TimeStamp::MAX)? else {
            return Ok(None);
        };
        if write.rolls_back(commit_ts, self.start_ts) {
            let reason = ConflictReason::SelfRolledBack;
            return Err(self.conflict(key, &write, commit_ts, reason).into());
        }
        if commit_ts > self.start_ts && keep(Rule::PrewriteSeesConflicts) {
            return Err(self.conflict(key, &write, commit_ts, reason).into());
        }
        Ok(Some((commit_ts, write)))
    }

    /// What becomes of a prewrite of a key that a pessimistic transaction never locked: its own
    /// earlier outcome counts. With `conflicts_above`, commits above that timestamp do too.
    pub(super) fn check_own_record(
        &self,
        reader: &mut Reader<'_>,
        key: &Key,
        conflicts_above: Option<TimeStamp>,
    ) -> Result<(), TxnError> {
        if !keep(Rule::PrewriteOnce) {
            return Ok(());
        }
        match reader.txn_record(key, self.start_ts)? {
            TxnRecord::RolledBack { .. } => {
                let own = Write::rollback(self.start_ts, true);
                let reason = ConflictReason::SelfRolledBack;
                return Err(self.conflict(key, &own, self.start_ts, reason).into());
            }
            TxnRecord::Committed { .. } => return Err(self.lock_not_found(key)),
            TxnRecord::Nothing { .. } => {}
        }
        let Some(bound) = conflicts_above else { return Ok(()) };
        let mut ts = TimeStamp::MAX;
        while let Some((commit_ts, write)) = reader.seek_write(key, ts)? {
            if commit_ts <= bound {
                break;
            }
            if write.kind != WriteKind::Rollback {
                return Err(self.lock_not_found(key));
            }
            ts = TimeStamp(commit_ts.0 - 1);
        }
        Ok(())
    }

    pub(super) fn lock_not_found(&self, key: &Key) -> TxnError {
        let (start_ts, key) = (self.start_ts, key.user().clone());
        Abort::PessimisticLockNotFound { start_ts, key }.into()
    }
}

/// What was read of a key on the way.
#[derive(Default)]
pub(super) struct Seen {
    /// The newest record, if it was read: `Some(None)` means that there is none.
    pub(super) newest: Option<Option<(TimeStamp, Write)>>,
}

impl Seen {
    pub(super) fn last_change(&self) -> LastChange {
        match &self.newest {
            Some(newest) => LastChange::above(newest.as_ref().map(|(ts, write)| (*ts, write))),
            None => LastChange::Unknown,
        }
    }
}

/// Refuses a key that has a value.
pub(super) fn check_absent(reader: &mut Reader<'_>, key: &Key) -> Result<(), TxnError> {
    match reader.newest_put(key, TimeStamp::MAX)? {
        Some(_) => Err(KeyError::AlreadyExist { key: key.user().clone() }.into()),
        None => Ok(()),
    }
}

/// Checks what the client said about the key; the error if it is not so.
pub(super) fn check_assertion(
    reader: &mut Reader<'_>,
    start_ts: TimeStamp,
    key: &Key,
    (assertion, level): (Assertion, AssertionLevel),
    seen: &Seen,
) -> Result<Option<KeyError>, TxnError> {
    let newest = match (assertion, level, &seen.newest) {
        (Assertion::None, ..) | (_, AssertionLevel::Off, _) => return Ok(None),
        (_, AssertionLevel::Fast, None) => return Ok(None),
        (_, AssertionLevel::Fast, Some(newest)) => match newest {
            Some((_, write)) if !write.kind.is_change() => return Ok(None),
            known => known.clone(),
        },
        (_, AssertionLevel::Strict, _) => reader.newest_change(key, TimeStamp::MAX)?,
    };
    let visible = |(_, write): &&(TimeStamp, Write)| {
        write.kind == WriteKind::Put && write.passes_gc_fence(TimeStamp::MAX)
    };
    let exists = newest.as_ref().filter(visible).is_some();
    if exists == (assertion == Assertion::Exist) {
        return Ok(None);
    }
    let (existing_commit_ts, existing_start_ts) =
        newest.map_or_else(Default::default, |(commit_ts, write)| (commit_ts, write.start_ts));
    let key = key.user().clone();
    let error = KeyError::AssertionFailed {
        start_ts,
        key,
        assertion,
        existing_start_ts,
        existing_commit_ts,
    };
    Ok(Some(error))
}
