//! Looking at locks and versions: ScanLock for those who resolve, the rest for people.

use base::{KeyRange, TimeStamp};
use bytes::Bytes;
use storage::engine::Cf;

use crate::mvcc::{Key, Lock, Reader, Write, damaged, decode_key, decode_write, split_versioned};
use crate::{LockInfo, TxnError};

/// Everything that is stored of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MvccInfo {
    /// Its lock.
    pub lock: Option<Lock>,
    /// Its records, newest first.
    pub writes: Vec<(TimeStamp, Write)>,
    /// Its long values by start timestamp, newest first.
    pub values: Vec<(TimeStamp, Bytes)>,
}

/// Locks of transactions that started at `max_version` or before, of any kind, with keys in
/// `[start, end)` (user form, cut to the region), in key order, at most `limit` (0: all). The
/// caller raised max_ts to `max_version` and looked at the locks in the concurrency manager.
pub fn scan_lock(
    reader: &Reader<'_>,
    (start, end): (&Bytes, &Bytes),
    max_version: TimeStamp,
    limit: usize,
) -> Result<Vec<LockInfo>, TxnError> {
    let bound = |user: &Bytes| {
        if user.is_empty() { Bytes::new() } else { Key::new(user.clone()).region() }
    };
    let range = KeyRange::new(bound(start), bound(end));
    let found = reader.scan_locks(&range, limit, |_, lock| lock.start_ts <= max_version)?;
    Ok(found.locks.into_iter().map(|(key, lock)| LockInfo::new(&key, lock)).collect())
}

/// What is stored of `key`.
pub fn mvcc_by_key(reader: &Reader<'_>, key: &Key) -> Result<MvccInfo, TxnError> {
    let mut info = MvccInfo { lock: reader.load_lock(key)?, ..MvccInfo::default() };
    let range = KeyRange::new(key.region(), super::flashback::behind(key));
    let mut cursor = reader.cursor(Cf::Write, &range)?;
    let mut valid = cursor.seek_to_first()?;
    while valid {
        info.writes.push(decode_write(&*cursor)?);
        valid = cursor.next()?;
    }
    let mut cursor = reader.cursor(Cf::Default, &range)?;
    let mut valid = cursor.seek_to_first()?;
    while valid {
        let place = cursor.key();
        let (_, start_ts) =
            split_versioned(place).map_err(|cause| damaged(Cf::Default, place, cause))?;
        info.values.push((start_ts, Bytes::copy_from_slice(cursor.value())));
        valid = cursor.next()?;
    }
    Ok(info)
}

/// The first key of the region that the transaction of `start_ts` has a lock or a record on.
/// Looks at everything in the region, if need be.
pub fn mvcc_by_start_ts(
    reader: &Reader<'_>,
    start_ts: TimeStamp,
) -> Result<Option<(Key, MvccInfo)>, TxnError> {
    let all = KeyRange::all();
    let locked = reader.scan_locks(&all, 1, |_, lock| lock.start_ts == start_ts)?;
    let locked = locked.locks.into_iter().next().map(|(key, _)| key);
    let mut cursor = reader.cursor(Cf::Write, &all)?;
    let mut valid = cursor.seek_to_first()?;
    let mut written = None;
    for seen in 1usize.. {
        if !valid || written.is_some() {
            break;
        }
        if seen.is_multiple_of(1024) {
            reader.check_interrupt()?;
        }
        if decode_write(&*cursor)?.1.start_ts == start_ts {
            let place = cursor.key();
            let (data, _) =
                split_versioned(place).map_err(|cause| damaged(Cf::Write, place, cause))?;
            written = Some(decode_key(Cf::Write, data)?);
        }
        valid = cursor.next()?;
    }
    let first = match (locked, written) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let Some(key) = first else { return Ok(None) };
    let info = mvcc_by_key(reader, &key)?;
    Ok(Some((key, info)))
}
