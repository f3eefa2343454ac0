//! The oldest locks: how far the past reaches in which nothing can be committed any more.
//!
//! Nothing is kept up to date as locks come and go. Whoever wants to know takes a snapshot and
//! reads family `lock` through, which holds no more than what is in progress: so there is no state
//! that a split, a merge or a new leader could leave wrong, and a write pays nothing.

use base::{Region, TimeStamp};
use storage::engine::{Cf, EngineError, IterOptions, Snapshot};
use storage::keys;

use super::{Lock, LockKind};

/// For each of `regions` the smallest start timestamp among the locks in `snapshot` that may still
/// become a change; [`TimeStamp::MAX`] if there are none. Zero if something there is no lock: who
/// cannot be read may be anything.
///
/// One pass over the locks of the store, in the order of keys. Locks that reserve a key do not
/// count: their owner has yet to prewrite, and commits later than that.
pub fn oldest_locks(
    snapshot: &dyn Snapshot,
    regions: &[&Region],
) -> Result<Vec<TimeStamp>, EngineError> {
    let mut oldest = vec![TimeStamp::MAX; regions.len()];
    let bounds = |region: &Region| keys::data_range(region.id, &region.range);
    let mut order: Vec<_> = regions.iter().map(|region| bounds(region)).enumerate().collect();
    order.sort_by(|(_, a), (_, b)| a.cmp(b));
    let options = IterOptions { fill_cache: false, ..IterOptions::default() };
    let mut cursor = snapshot.iter(Cf::Lock, options)?;
    // The cursor stands on the first lock at or after this key, or there is none.
    let mut from: Option<Vec<u8>> = None;
    for (at, (start, end)) in order {
        let stands = from.as_ref().is_some_and(|from| *from <= start)
            && (!cursor.valid() || cursor.key() >= &start[..]);
        if !stands {
            cursor.seek(&start)?;
        }
        while cursor.valid() && cursor.key() < &end[..] {
            oldest[at] = oldest[at].min(bound(cursor.value()));
            cursor.next()?;
        }
        from = Some(end);
    }
    Ok(oldest)
}

/// Below which a commit of the lock cannot be.
fn bound(record: &[u8]) -> TimeStamp {
    match Lock::peek(record) {
        Ok((LockKind::Put | LockKind::Delete, start_ts)) => start_ts,
        Ok((LockKind::Lock | LockKind::Pessimistic, _)) => TimeStamp::MAX,
        Err(_) => TimeStamp(0),
    }
}
