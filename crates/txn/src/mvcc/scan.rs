//! Scans: rows in key order, forwards or backwards, as of a timestamp.
//!
//! Two cursors walk side by side, one over locks and one over versions; the nearer key of the two
//! is the next to be looked at. A key can have a lock and no version (its first write), or versions
//! and no lock.
//!
//! Bounds are as everywhere: `start` is the near one, inclusive forwards and exclusive in reverse,
//! and must lie in the region (its end included); `end` is the far one and is cut to the region.
//! Empty means unbounded on either side, as for raw scans.

use base::KeyRange;
use bytes::Bytes;
use storage::engine::{Cf, Cursor};

use super::reader::{NEAR_STEPS, damaged, decode_key, decode_lock, decode_write};
use super::{Isolation, Key, ReadOptions, Reader, Value, WriteKind, split_versioned};
use crate::{KeyError, TxnError};

/// A row of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// User form.
    pub key: Bytes,
    /// The value, or why it could not be read; the rows beside it count all the same.
    pub outcome: Result<Value, Box<KeyError>>,
}

/// What to scan. Bounds in user form.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Where to begin: the first key, or in reverse the first key above.
    pub start: Bytes,
    /// Where to end: the first key above, or in reverse the last key. Empty: unbounded.
    pub end: Bytes,
    /// Most rows, those with an error included; 0 gives none.
    pub limit: usize,
    /// Leave values out.
    pub key_only: bool,
    /// From high to low keys.
    pub reverse: bool,
    /// n > 0: only rows 1, n + 1, 2n + 1, ... are returned, and only they count.
    pub sample_step: usize,
}

impl Reader<'_> {
    /// The rows of a range. Locks in the concurrency manager are the caller's business.
    pub fn scan(&mut self, scan: &Scan, read: &ReadOptions) -> Result<Vec<Row>, TxnError> {
        let bounds = self.scan_bounds(scan)?;
        let mut rows = Vec::new();
        if scan.limit == 0 || bounds.is_empty() {
            return Ok(rows);
        }
        let mut walk = Walk::begin(self, &bounds, scan.reverse, read)?;
        let step = scan.sample_step.max(1);
        let mut found = 0usize;
        for seen in 1usize.. {
            if seen.is_multiple_of(256) {
                self.check_interrupt()?;
            }
            let Some(key) = walk.nearest()? else { break };
            let outcome = match walk.row(self, &key, read, scan.key_only) {
                Ok(None) => None,
                Ok(Some(value)) => Some(Ok(value)),
                Err(TxnError::Key(error)) if matches!(*error, KeyError::Locked(_)) => {
                    Some(Err(error))
                }
                Err(other) => return Err(other),
            };
            walk.pass(&key)?;
            let Some(outcome) = outcome else { continue };
            if found.is_multiple_of(step) {
                rows.push(Row { key: key.user().clone(), outcome });
            }
            found += 1;
            if rows.len() == scan.limit {
                break;
            }
        }
        assert!(rows.len() <= scan.limit, "more rows than asked for");
        Ok(rows)
    }

    /// The keys of the region, in region form, that a scan covers.
    pub fn scan_bounds(&self, scan: &Scan) -> Result<KeyRange, TxnError> {
        let bound = |user: &Bytes| {
            if user.is_empty() { Bytes::new() } else { Key::new(user.clone()).region() }
        };
        let (near, far) = (bound(&scan.start), bound(&scan.end));
        let range = &self.region().range;
        let inside = match (near.is_empty(), scan.reverse) {
            (true, true) => range.end.is_empty(),
            (true, false) => range.start.is_empty(),
            (false, _) => range.contains_or_ends_at(&near),
        };
        if !inside {
            return Err(TxnError::KeyNotInRegion { key: near });
        }
        let asked = if scan.reverse { KeyRange::new(far, near) } else { KeyRange::new(near, far) };
        Ok(range.intersect(&asked))
    }
}

/// Where a scan is.
struct Walk<'a> {
    /// `None` if locks do not matter.
    locks: Option<Box<dyn Cursor + 'a>>,
    /// Stands on the newest version of the next key, in reverse on its oldest one.
    versions: Box<dyn Cursor + 'a>,
    reverse: bool,
}

impl<'a> Walk<'a> {
    fn begin(
        reader: &Reader<'a>,
        bounds: &KeyRange,
        reverse: bool,
        read: &ReadOptions,
    ) -> Result<Self, TxnError> {
        let first = |mut cursor: Box<dyn Cursor + 'a>| {
            if reverse {
                cursor.seek_to_last()?
            } else {
                cursor.seek_to_first()?
            };
            Ok::<_, TxnError>(cursor)
        };
        let locks = match read.isolation {
            Isolation::ReadCommitted => None,
            _ => Some(first(reader.cursor(Cf::Lock, bounds)?)?),
        };
        Ok(Self { locks, versions: first(reader.cursor(Cf::Write, bounds)?)?, reverse })
    }

    fn lock_key(&self) -> Option<&[u8]> {
        self.locks.as_ref().filter(|cursor| cursor.valid()).map(|cursor| cursor.key())
    }

    /// The next key that has a lock or a version.
    fn nearest(&self) -> Result<Option<Key>, TxnError> {
        let version = match self.versions.valid() {
            true => {
                let place = self.versions.key();
                let split = split_versioned(place);
                Some(split.map_err(|cause| damaged(Cf::Write, place, cause))?.0)
            }
            false => None,
        };
        let nearest = match (self.lock_key(), version) {
            (None, other) | (other, None) => other,
            (Some(a), Some(b)) => Some(if (a < b) != self.reverse { a } else { b }),
        };
        nearest.map(|data| decode_key(Cf::Write, data)).transpose()
    }

    /// What the read sees of `key`, which is the nearest.
    fn row(
        &mut self,
        reader: &mut Reader<'a>,
        key: &Key,
        read: &ReadOptions,
        key_only: bool,
    ) -> Result<Option<Value>, TxnError> {
        if self.lock_key() == Some(key.data()) {
            let cursor = self.locks.as_ref().expect("it has a key");
            let lock = decode_lock(cursor.key(), cursor.value())?;
            if let Some(lock) = read.judge(key, lock, false)? {
                return reader.accessed_value(key, &lock, key_only);
            }
        }
        if !self.versions.valid() || !key.is_of(self.versions.key()) {
            return Ok(None);
        }
        if read.isolation == Isolation::RcCheckTs {
            return reader.visible_value(key, read, key_only);
        }
        let near = if self.reverse {
            self.near_from_oldest(key, read)?
        } else {
            self.near_from_newest(key, read)?
        };
        let (commit_ts, write) = match near {
            Near::Unknown => return reader.visible_value(key, read, key_only),
            Near::Nothing => return Ok(None),
            Near::Change(commit_ts, write) => (commit_ts, write),
        };
        if write.kind != WriteKind::Put || !write.passes_gc_fence(read.ts) {
            return Ok(None);
        }
        let value = if key_only { Bytes::new() } else { reader.load_value(key, &write)? };
        Ok(Some(Value { value, commit_ts }))
    }

    /// Looks at a few versions from the newest down for the change that the read sees.
    fn near_from_newest(&mut self, key: &Key, read: &ReadOptions) -> Result<Near, TxnError> {
        for _ in 0..NEAR_STEPS {
            let (commit_ts, write) = decode_write(&*self.versions)?;
            if commit_ts <= read.ts && write.kind.is_change() {
                return Ok(Near::Change(commit_ts, write));
            }
            if !self.versions.next()? || !key.is_of(self.versions.key()) {
                return Ok(Near::Nothing);
            }
        }
        Ok(Near::Unknown)
    }

    /// The same from the oldest up.
    fn near_from_oldest(&mut self, key: &Key, read: &ReadOptions) -> Result<Near, TxnError> {
        let mut best = Near::Nothing;
        for _ in 0..NEAR_STEPS {
            let (commit_ts, write) = decode_write(&*self.versions)?;
            if commit_ts > read.ts {
                return Ok(best);
            }
            if write.kind.is_change() {
                best = Near::Change(commit_ts, write);
            }
            if !self.versions.prev()? || !key.is_of(self.versions.key()) {
                return Ok(best);
            }
        }
        Ok(Near::Unknown)
    }

    /// Leaves `key` behind on both sides.
    fn pass(&mut self, key: &Key) -> Result<(), TxnError> {
        if self.lock_key() == Some(key.data()) {
            let cursor = self.locks.as_mut().expect("it has a key");
            if self.reverse {
                cursor.prev()?
            } else {
                cursor.next()?
            };
        }
        let cursor = &mut self.versions;
        for _ in 0..NEAR_STEPS {
            if !cursor.valid() || !key.is_of(cursor.key()) {
                return Ok(());
            }
            if self.reverse {
                cursor.prev()?
            } else {
                cursor.next()?
            };
        }
        if cursor.valid() && key.is_of(cursor.key()) {
            if self.reverse {
                cursor.seek_for_prev(key.data())?;
            } else {
                // The key's oldest possible version; a zero byte more is behind it.
                let mut behind = key.versioned_data(base::TimeStamp(0));
                behind.push(0);
                cursor.seek(&behind)?;
            }
        }
        Ok(())
    }
}

/// What a look at a few versions found.
enum Near {
    /// The change that the read sees.
    Change(base::TimeStamp, super::Write),
    /// There is none.
    Nothing,
    /// It is further away.
    Unknown,
}
