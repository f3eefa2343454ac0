//! Finding records: the lock of a key, its versions, what became of a transaction on it.
//!
//! A reader walks the versions of keys with one cursor that it keeps. A short way (a few records
//! forward) is stepped, a long one is a seek. So a commit that looks at the newest version does one
//! seek, and a reader above a million records that change nothing follows the hint in the first one
//! that has it.

use std::collections::BTreeMap;

use base::{KeyRange, Region, TimeStamp};
use bytes::Bytes;
use storage::engine::{Cf, Cursor, IterOptions, Snapshot};
use storage::keys;

use super::{BadRecord, Key, LastChange, Lock, Write, WriteKind, split_versioned};
use crate::TxnError;

/// So many records are stepped over before a seek is thought to be cheaper.
pub(super) const NEAR_STEPS: usize = 8;

/// How locks and newer versions meet a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// All of one moment: locks that may commit below it are in the way.
    #[default]
    Snapshot,
    /// What is committed. Locks are not looked at.
    ReadCommitted,
    /// As above, and the read fails if anything newer than its timestamp is there.
    RcCheckTs,
}

/// What is recorded of a transaction on a key where it has no lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnRecord {
    /// It is committed.
    Committed {
        /// When.
        commit_ts: TimeStamp,
        /// The record.
        write: Write,
    },
    /// It is rolled back: by a record of its own, or by a flag on another's.
    RolledBack {
        /// Whether that stays for ever. A flag does.
        is_protected: bool,
    },
    /// Nothing.
    Nothing {
        /// Another transaction's commit at this one's start timestamp, where a rollback record
        /// would stand.
        overlapped: Option<Overlapped>,
    },
}

/// A commit record in the place of a rollback that does not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlapped {
    /// As stored.
    pub write: Write,
    /// Commit timestamp of the next change above it; 0: there is none.
    pub gc_fence: TimeStamp,
}

/// A part of the locks of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockScan {
    /// In key order.
    pub locks: Vec<(Key, Lock)>,
    /// The first lock that matched but was one too many.
    pub next: Option<Key>,
}

/// Reads the transactional data of one region.
pub struct Reader<'a> {
    pub(super) snapshot: &'a dyn Snapshot,
    region: &'a Region,
    /// Pessimistic locks that live in the leader's memory alone. The engine's lock wins: it is the
    /// newer one where both are there.
    memory: Option<&'a BTreeMap<Key, Lock>>,
    is_unwritten: bool,
    interrupted: &'a dyn Fn() -> bool,
    fill_cache: bool,
    writes: Option<Box<dyn Cursor + 'a>>,
}

impl<'a> Reader<'a> {
    /// Reads `region` as of `snapshot`.
    pub fn new(snapshot: &'a dyn Snapshot, region: &'a Region) -> Self {
        let interrupted = &|| false;
        let (memory, writes) = (None, None);
        let (is_unwritten, fill_cache) = (false, true);
        Self { snapshot, region, memory, is_unwritten, interrupted, fill_cache, writes }
    }

    /// Sees these pessimistic locks too: those of the keys that the command has latched, or all of
    /// the region for commands that look for locks.
    #[must_use]
    pub fn with_memory_locks(mut self, locks: &'a BTreeMap<Key, Lock>) -> Self {
        self.memory = Some(locks);
        self
    }

    /// Whether none of the keys of the command at hand has a record at or above its start
    /// timestamp. False: nobody knows.
    pub fn set_unwritten(&mut self, is_unwritten: bool) {
        self.is_unwritten = is_unwritten;
    }

    pub(crate) fn is_unwritten(&self) -> bool {
        self.is_unwritten
    }

    /// Asks this now and then, and gives up with [`TxnError::Interrupted`] if told so.
    #[must_use]
    pub fn interrupted_by(mut self, interrupted: &'a dyn Fn() -> bool) -> Self {
        self.interrupted = interrupted;
        self
    }

    /// Leaves the block cache as it is.
    #[must_use]
    pub fn without_filling_cache(mut self) -> Self {
        self.fill_cache = false;
        self
    }

    /// The region it reads.
    pub fn region(&self) -> &'a Region {
        self.region
    }

    /// Gives up if the caller wants that.
    pub(crate) fn check_interrupt(&self) -> Result<(), TxnError> {
        if (self.interrupted)() { Err(TxnError::Interrupted) } else { Ok(()) }
    }

    /// Refuses a key that is not in the region.
    pub fn check_key(&self, key: &Key) -> Result<(), TxnError> {
        if self.region.range.contains(key.region_slice()) {
            return Ok(());
        }
        Err(TxnError::KeyNotInRegion { key: key.region() })
    }

    /// The lock of `key`, be it in the engine or in memory.
    pub fn load_lock(&self, key: &Key) -> Result<Option<Lock>, TxnError> {
        self.check_key(key)?;
        match self.snapshot.get(Cf::Lock, key.data())? {
            Some(record) => decode_lock(key.data(), &record).map(Some),
            None => Ok(self.memory.and_then(|locks| locks.get(key)).cloned()),
        }
    }

    /// The newest record of `key` at or below `ts`.
    pub fn seek_write(
        &mut self,
        key: &Key,
        ts: TimeStamp,
    ) -> Result<Option<(TimeStamp, Write)>, TxnError> {
        self.check_key(key)?;
        let cursor = self.write_cursor()?;
        if !go_forward_to(cursor, &key.versioned_data(ts))? || !key.is_of(cursor.key()) {
            return Ok(None);
        }
        let found = decode_write(&*cursor)?;
        assert!(found.0 <= ts, "a seek to {ts} found the newer {}", found.0);
        Ok(Some(found))
    }

    /// The newest put or deletion of `key` at or below `ts`.
    pub fn newest_change(
        &mut self,
        key: &Key,
        ts: TimeStamp,
    ) -> Result<Option<(TimeStamp, Write)>, TxnError> {
        let mut found = self.seek_write(key, ts)?;
        while let Some((commit_ts, write)) = found {
            if write.kind.is_change() {
                return Ok(Some((commit_ts, write)));
            }
            found = match (write.last_change, before(commit_ts)) {
                (LastChange::None, _) | (_, None) => None,
                (LastChange::At { commit_ts, versions }, _) if versions > NEAR_STEPS as u64 => {
                    return self.change_at(key, commit_ts);
                }
                (_, Some(ts)) => self.seek_write(key, ts)?,
            };
        }
        Ok(None)
    }

    /// The change that a hint names. It may be gone: only a deletion that was collected as garbage
    /// can be, and then nothing is below it.
    fn change_at(
        &mut self,
        key: &Key,
        commit_ts: TimeStamp,
    ) -> Result<Option<(TimeStamp, Write)>, TxnError> {
        let place = key.versioned_data(commit_ts);
        let Some(record) = self.snapshot.get(Cf::Write, &place)? else { return Ok(None) };
        let write = Write::decode(&record).map_err(|cause| damaged(Cf::Write, &place, cause))?;
        assert!(write.kind.is_change(), "a hint points to a record that changes nothing");
        Ok(Some((commit_ts, write)))
    }

    /// The put that a read at `ts` sees.
    pub fn newest_put(
        &mut self,
        key: &Key,
        ts: TimeStamp,
    ) -> Result<Option<(TimeStamp, Write)>, TxnError> {
        let change = self.newest_change(key, ts)?;
        Ok(change.filter(|(_, write)| write.kind == WriteKind::Put && write.passes_gc_fence(ts)))
    }

    /// The value of a put record.
    pub fn load_value(&self, key: &Key, write: &Write) -> Result<Bytes, TxnError> {
        assert!(write.kind == WriteKind::Put, "only puts have values");
        match &write.short_value {
            Some(value) => Ok(value.clone()),
            None => self.load_long_value(key, write.start_ts),
        }
    }

    /// The value that a lock of kind `Put` will give the key.
    pub fn load_lock_value(&self, key: &Key, lock: &Lock) -> Result<Bytes, TxnError> {
        match &lock.short_value {
            Some(value) => Ok(value.clone()),
            None => self.load_long_value(key, lock.start_ts),
        }
    }

    fn load_long_value(&self, key: &Key, start_ts: TimeStamp) -> Result<Bytes, TxnError> {
        let value = self.snapshot.get(Cf::Default, &key.versioned_data(start_ts))?;
        value.ok_or_else(|| TxnError::ValueMissing {
            key: Bytes::copy_from_slice(key.data()),
            start_ts,
        })
    }

    /// The value of `key` at `ts`, without a look at locks.
    pub fn committed_value(&mut self, key: &Key, ts: TimeStamp) -> Result<Option<Bytes>, TxnError> {
        match self.newest_put(key, ts)? {
            Some((_, write)) => self.load_value(key, &write).map(Some),
            None => Ok(None),
        }
    }

    /// What is recorded of the transaction `start_ts` on `key`. Looks at every record from the
    /// newest down to `start_ts`: commits are never below it.
    pub fn txn_record(&mut self, key: &Key, start_ts: TimeStamp) -> Result<TxnRecord, TxnError> {
        let mut gc_fence = TimeStamp(0);
        let mut found = self.seek_write(key, TimeStamp::MAX)?;
        while let Some((commit_ts, write)) = found {
            if write.start_ts == start_ts {
                return Ok(match write.kind {
                    WriteKind::Rollback => {
                        TxnRecord::RolledBack { is_protected: write.is_protected() }
                    }
                    _ => TxnRecord::Committed { commit_ts, write },
                });
            }
            if commit_ts == start_ts {
                if write.has_overlapped_rollback {
                    return Ok(TxnRecord::RolledBack { is_protected: true });
                }
                let overlapped = Some(Overlapped { write, gc_fence });
                return Ok(TxnRecord::Nothing { overlapped });
            }
            if commit_ts < start_ts {
                break;
            }
            if write.kind.is_change() {
                gc_fence = commit_ts;
            }
            found = match before(commit_ts) {
                Some(ts) => self.seek_write(key, ts)?,
                None => None,
            };
        }
        Ok(TxnRecord::Nothing { overlapped: None })
    }

    /// Locks in `range` (region form, cut to the region) that `wanted` accepts, in key order, at
    /// most `limit` of them (0: all).
    pub fn scan_locks(
        &self,
        range: &KeyRange,
        limit: usize,
        mut wanted: impl FnMut(&Key, &Lock) -> bool,
    ) -> Result<LockScan, TxnError> {
        let mut scan = LockScan::default();
        let mut in_memory = self.memory_locks(range);
        let mut cursor = self.cursor(Cf::Lock, range)?;
        let mut valid = cursor.seek_to_first()?;
        for seen in 0usize.. {
            if seen % 256 == 255 {
                self.check_interrupt()?;
            }
            let stored = valid.then(|| cursor.key());
            let first = in_memory.first().map(|(key, _)| key.data());
            let (key, lock) = match (stored, first) {
                (None, None) => break,
                (Some(stored), first) if first.is_none_or(|first| stored <= first) => {
                    if first == Some(stored) {
                        in_memory.remove(0);
                    }
                    let lock = decode_lock(cursor.key(), cursor.value())?;
                    let key = decode_key(Cf::Lock, cursor.key())?;
                    valid = cursor.next()?;
                    (key, lock)
                }
                _ => in_memory.remove(0),
            };
            if !wanted(&key, &lock) {
                continue;
            }
            if limit > 0 && scan.locks.len() == limit {
                scan.next = Some(key);
                break;
            }
            scan.locks.push((key, lock));
        }
        Ok(scan)
    }

    fn memory_locks(&self, range: &KeyRange) -> Vec<(Key, Lock)> {
        let all = self.memory.into_iter().flatten();
        let range = self.region.range.intersect(range);
        let inside = all.filter(|(key, _)| range.contains(key.region_slice()));
        inside.map(|(key, lock)| (key.clone(), lock.clone())).collect()
    }

    /// A cursor over the part of `range` (region form) that lies in the region.
    pub(crate) fn cursor(
        &self,
        cf: Cf,
        range: &KeyRange,
    ) -> Result<Box<dyn Cursor + 'a>, TxnError> {
        let range = self.region.range.intersect(range);
        let (start, end) = if range.is_empty() {
            (range.start.to_vec(), range.start.to_vec())
        } else {
            keys::data_range(self.region.id, &range)
        };
        let mut options = IterOptions::within(KeyRange::new(start, end));
        options.fill_cache = self.fill_cache;
        Ok(self.snapshot.iter(cf, options)?)
    }

    /// The cursor over all versions of the region. Where it stands is nobody's promise.
    pub(super) fn write_cursor(&mut self) -> Result<&mut (dyn Cursor + 'a), TxnError> {
        if self.writes.is_none() {
            self.writes = Some(self.cursor(Cf::Write, &KeyRange::all())?);
        }
        Ok(self.writes.as_deref_mut().expect("it was made just now"))
    }
}

/// The timestamp before `ts`.
pub(super) fn before(ts: TimeStamp) -> Option<TimeStamp> {
    ts.0.checked_sub(1).map(TimeStamp)
}

/// Goes to the first key at or after `target`: by steps if that is near, else by a seek.
fn go_forward_to(cursor: &mut dyn Cursor, target: &[u8]) -> Result<bool, TxnError> {
    if cursor.valid() && cursor.key() <= target {
        for _ in 0..NEAR_STEPS {
            if cursor.key() >= target {
                return Ok(true);
            }
            if !cursor.next()? {
                return Ok(false);
            }
        }
        if cursor.key() >= target {
            return Ok(true);
        }
    }
    Ok(cursor.seek(target)?)
}

pub(crate) fn damaged(cf: Cf, key: &[u8], cause: BadRecord) -> TxnError {
    TxnError::Damaged { cf, key: Bytes::copy_from_slice(key), cause }
}

pub(crate) fn decode_key(cf: Cf, data: &[u8]) -> Result<Key, TxnError> {
    Key::from_data(data).map_err(|cause| damaged(cf, data, cause))
}

pub(super) fn decode_lock(place: &[u8], record: &[u8]) -> Result<Lock, TxnError> {
    Lock::decode(record).map_err(|cause| damaged(Cf::Lock, place, cause))
}

/// Commit timestamp and record where a cursor of family `write` stands.
pub(crate) fn decode_write(cursor: &dyn Cursor) -> Result<(TimeStamp, Write), TxnError> {
    let bad = |cause| damaged(Cf::Write, cursor.key(), cause);
    let (_, commit_ts) = split_versioned(cursor.key()).map_err(bad)?;
    Ok((commit_ts, Write::decode(cursor.value()).map_err(bad)?))
}
