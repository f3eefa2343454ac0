//! Flashback: a range of a region goes back to what it was at `version`, as one transaction. The
//! region is closed to everybody else meanwhile (the store sees to that), so latches matter little.
//!
//! ```text
//!   prepare   find_locks ─► roll_back ─► ... ─► lock_first      its first key is locked: the
//!   flash     find_keys  ─► rewrite   ─► ... ─► commit_first    transaction's primary
//! ```
//!
//! Every step may be repeated.

use base::{KeyRange, TimeStamp};
use bytes::Bytes;
use storage::engine::Cf;

use super::commit::committed_record;
use super::rollback::roll_back_lock;
use super::{Changes, Outcome, check_commit_ts, check_start_ts};
use crate::mvcc::{
    Key, Lock, LockKind, LockScan, Reader, Write, WriteKind, damaged, decode_key, split_versioned,
};
use crate::{Abort, KeyError, TxnError};

/// Keys or locks of one step.
const STEP_KEYS: usize = 256;

/// Bytes of writes after which a step ends.
const STEP_BYTES: usize = 32 << 10;

/// The first half: locks are cleared, the first key is locked.
#[derive(Clone, Debug)]
pub struct PrepareFlashback {
    /// What goes back, region form.
    pub range: KeyRange,
    /// Of the flashback.
    pub start_ts: TimeStamp,
    /// Where it goes back to.
    pub version: TimeStamp,
}

impl PrepareFlashback {
    fn check_request(&self) -> Result<(), TxnError> {
        check_start_ts(self.start_ts)?;
        check_version(self.version, self.start_ts)
    }

    /// The next locks to be cleared, from the start of `from` on.
    pub fn find_locks(&self, reader: &Reader<'_>, from: &KeyRange) -> Result<LockScan, TxnError> {
        self.check_request()?;
        reader.scan_locks(&self.range.intersect(from), STEP_KEYS, |_, lock| {
            lock.start_ts != self.start_ts
        })
    }

    /// Clears locks. The reply is the first one that did not fit into the step.
    pub fn roll_back(
        &self,
        reader: &mut Reader<'_>,
        locks: &[(Key, Lock)],
    ) -> Result<Outcome<Option<Key>>, TxnError> {
        let mut changes = Changes::default();
        for (key, lock) in locks {
            if changes.byte_size() >= STEP_BYTES {
                return Ok(Outcome { reply: Some(key.clone()), changes });
            }
            match roll_back_lock(reader, &mut changes, key, lock, true) {
                // Of a late copy of a request: the transaction is committed, the lock means
                // nothing.
                Err(TxnError::Key(error))
                    if matches!(*error, KeyError::Abort(Abort::Committed { .. })) =>
                {
                    changes.remove_lock(key, lock, TimeStamp(0));
                }
                other => other?,
            }
        }
        Ok(Outcome { reply: None, changes })
    }

    /// Locks the first key of the range with what it was at `version`. The reply is that key;
    /// `None`: there is nothing in the range.
    pub fn lock_first(&self, reader: &mut Reader<'_>) -> Result<Outcome<Option<Key>>, TxnError> {
        self.check_request()?;
        let Some(key) = first_key(reader, &self.range)? else {
            return Ok(Outcome::unchanged(None));
        };
        let mut changes = Changes::default();
        match reader.load_lock(&key)? {
            Some(lock) if lock.start_ts == self.start_ts => {
                return Ok(Outcome::unchanged(Some(key)));
            }
            Some(lock) => return Err(KeyError::locked(&key, lock).into()),
            None => {}
        }
        let old = reader.newest_put(&key, self.version)?;
        let kind = if old.is_some() { LockKind::Put } else { LockKind::Delete };
        let mut lock = Lock::new(kind, key.user().clone(), self.start_ts, 0);
        lock.txn_size = 1;
        if let Some((_, write)) = old {
            lock.short_value.clone_from(&write.short_value);
            copy_long_value(reader, &mut changes, &key, &write, self.start_ts)?;
        }
        changes.put_lock(&key, &lock);
        Ok(Outcome { reply: Some(key), changes })
    }
}

/// The second half: all keys are rewritten, the first one last.
#[derive(Clone, Debug)]
pub struct Flashback {
    /// What goes back, region form.
    pub range: KeyRange,
    /// As prepared.
    pub start_ts: TimeStamp,
    /// As prepared.
    pub version: TimeStamp,
    /// Of the new versions.
    pub commit_ts: TimeStamp,
}

impl Flashback {
    fn check_request(&self) -> Result<(), TxnError> {
        check_version(self.version, self.start_ts)?;
        check_commit_ts(self.start_ts, self.commit_ts).map_err(TxnError::from)
    }

    /// Keys from the start of `from` on that changed after `version` and are not rewritten yet,
    /// without the locked one; and where to go on.
    pub fn find_keys(
        &self,
        reader: &mut Reader<'_>,
        from: &KeyRange,
    ) -> Result<(Vec<Key>, Option<Key>), TxnError> {
        self.check_request()?;
        let first = first_key(reader, &self.range)?;
        let mut rest = self.range.intersect(from);
        let mut keys = Vec::new();
        while let Some(key) = first_key(reader, &rest)? {
            if keys.len() == STEP_KEYS {
                return Ok((keys, Some(key)));
            }
            rest.start = behind(&key);
            let newest = reader.newest_change(&key, TimeStamp::MAX)?;
            let changed = newest.is_some_and(|(ts, _)| ts > self.version && ts != self.commit_ts);
            if changed && first.as_ref() != Some(&key) {
                keys.push(key);
            }
            if rest.is_empty() {
                break;
            }
        }
        Ok((keys, None))
    }

    /// Gives each key the value it had. The reply is the first key that did not fit into the step.
    pub fn rewrite(
        &self,
        reader: &mut Reader<'_>,
        keys: &[Key],
    ) -> Result<Outcome<Option<Key>>, TxnError> {
        self.check_request()?;
        let mut changes = Changes::default();
        for key in keys {
            if changes.byte_size() >= STEP_BYTES {
                return Ok(Outcome { reply: Some(key.clone()), changes });
            }
            let new = match reader.newest_put(key, self.version)? {
                Some((_, old)) => {
                    copy_long_value(reader, &mut changes, key, &old, self.start_ts)?;
                    Write::new(WriteKind::Put, self.start_ts, old.short_value)
                }
                None => Write::new(WriteKind::Delete, self.start_ts, None),
            };
            changes.put_write(key, self.commit_ts, &new);
        }
        Ok(Outcome { reply: None, changes })
    }

    /// Commits the locked key: the flashback is done. Nothing happens if it is done already.
    pub fn commit_first(&self, reader: &mut Reader<'_>) -> Result<Outcome<()>, TxnError> {
        self.check_request()?;
        let mut changes = Changes::default();
        if let Some(key) = first_key(reader, &self.range)?
            && let Some(lock) = reader.load_lock(&key)?
            && lock.start_ts == self.start_ts
        {
            let kind = lock.write_kind().expect("a flashback takes no pessimistic locks");
            let write = committed_record(&lock, kind, self.commit_ts);
            changes.put_write(&key, self.commit_ts, &write);
            changes.remove_lock(&key, &lock, self.commit_ts);
        }
        Ok(Outcome { reply: (), changes })
    }
}

fn check_version(version: TimeStamp, start_ts: TimeStamp) -> Result<(), TxnError> {
    if version >= start_ts {
        let what = "a flashback goes back to before its start";
        return Err(Abort::Timestamps { what, start_ts, other_ts: version }.into());
    }
    Ok(())
}

/// A value outside the record is stored under the transaction's start, so the new one needs a copy.
fn copy_long_value(
    reader: &Reader<'_>,
    changes: &mut Changes,
    key: &Key,
    old: &Write,
    start_ts: TimeStamp,
) -> Result<(), TxnError> {
    if old.has_long_value() {
        changes.put_value(key, start_ts, reader.load_value(key, old)?);
    }
    Ok(())
}

/// The first key of `range` (region form) that has a version.
fn first_key(reader: &Reader<'_>, range: &KeyRange) -> Result<Option<Key>, TxnError> {
    let mut cursor = reader.cursor(Cf::Write, range)?;
    if !cursor.seek_to_first()? {
        return Ok(None);
    }
    let place = cursor.key();
    let (data, _) = split_versioned(place).map_err(|cause| damaged(Cf::Write, place, cause))?;
    decode_key(Cf::Write, data).map(Some)
}

/// The first place behind all versions of `key`, region form.
pub(super) fn behind(key: &Key) -> Bytes {
    let mut behind = key.versioned_region(TimeStamp(0)).to_vec();
    behind.push(0);
    behind.into()
}
