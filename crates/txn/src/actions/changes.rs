//! What an action wants changed.

use base::TimeStamp;
use bytes::Bytes;
use storage::engine::Cf;

use crate::mvcc::{Key, Lock, LockKind, Write};
use crate::{Mutation, TxnError};

/// What an action came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<R> {
    /// For the client, once the writes are applied. May already say that the request is refused;
    /// then there are no changes.
    pub reply: R,
    /// For the scheduler.
    pub changes: Changes,
}

impl<R> Outcome<R> {
    /// An answer that changes nothing.
    pub fn unchanged(reply: R) -> Self {
        Self { reply, changes: Changes::default() }
    }
}

/// A lock that will be gone when the writes are applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// Where it was.
    pub key: Key,
    /// Whose it was.
    pub start_ts: TimeStamp,
    /// When its transaction was committed; 0: it was not, by this.
    pub commit_ts: TimeStamp,
}

/// Everything an action changes. Nothing of it happens before the scheduler makes it happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// To be proposed, in this order, together.
    pub writes: Vec<Mutation>,
    /// Locks that the writes remove. Their waiters may be woken, and a copy in the memory of the
    /// leader goes, when they are applied.
    pub released: Vec<Released>,
    /// Pessimistic locks to be held: in memory if there is room, else by [`Self::persist`].
    pub pessimistic: Vec<(Key, Lock)>,
    /// Locks that are shown to readers by the concurrency manager, until the writes are applied.
    pub published: Vec<Key>,
    /// Keys whose lock the writes put or delete. The leader's memory marks its copies when they are
    /// proposed and forgets them when they are applied.
    pub lock_keys: Vec<Key>,
}

impl Changes {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.pessimistic.is_empty()
    }

    /// Bytes of keys and values to be proposed.
    pub fn byte_size(&self) -> usize {
        self.writes.iter().map(Mutation::byte_size).sum()
    }

    /// Turns the pessimistic locks into writes: memory has no room, or may not be used.
    pub fn persist(&mut self) {
        for (key, lock) in std::mem::take(&mut self.pessimistic) {
            self.put_lock(&key, &lock);
        }
    }

    pub(super) fn put_lock(&mut self, key: &Key, lock: &Lock) {
        let value = lock.encode().into();
        self.writes.push(Mutation::Put { cf: Cf::Lock, key: key.region(), value });
        self.lock_keys.push(key.clone());
    }

    /// Removes `lock`, which is `key`'s. The deletion is written even if the lock is in memory
    /// alone: it may be on its way into the engine, handed over to the next leader.
    pub(super) fn remove_lock(&mut self, key: &Key, lock: &Lock, commit_ts: TimeStamp) {
        self.writes.push(Mutation::Delete { cf: Cf::Lock, key: key.region() });
        self.lock_keys.push(key.clone());
        let (key, start_ts) = (key.clone(), lock.start_ts);
        self.released.push(Released { key, start_ts, commit_ts });
    }

    pub(super) fn hold_pessimistic(&mut self, key: Key, lock: Lock) {
        assert!(lock.kind == LockKind::Pessimistic, "other locks go through the log");
        self.pessimistic.push((key, lock));
    }

    pub(super) fn put_value(&mut self, key: &Key, start_ts: TimeStamp, value: Bytes) {
        let key = key.versioned_region(start_ts);
        self.writes.push(Mutation::Put { cf: Cf::Default, key, value });
    }

    pub(super) fn delete_value(&mut self, key: &Key, start_ts: TimeStamp) {
        let key = key.versioned_region(start_ts);
        self.writes.push(Mutation::Delete { cf: Cf::Default, key });
    }

    pub(super) fn put_write(&mut self, key: &Key, commit_ts: TimeStamp, write: &Write) {
        assert!(write.start_ts <= commit_ts, "a record lies below its transaction's start");
        let value = write.encode().into();
        let key = key.versioned_region(commit_ts);
        self.writes.push(Mutation::Put { cf: Cf::Write, key, value });
    }

    pub(super) fn delete_write(&mut self, key: &Key, commit_ts: TimeStamp) {
        let key = key.versioned_region(commit_ts);
        self.writes.push(Mutation::Delete { cf: Cf::Write, key });
    }
}

/// Keys of a request that all lie in the region.
pub(super) fn check_keys<'a>(
    reader: &crate::mvcc::Reader<'_>,
    keys: impl IntoIterator<Item = &'a Key>,
) -> Result<(), TxnError> {
    keys.into_iter().try_for_each(|key| reader.check_key(key))
}

/// The same keys in order, each once.
pub(super) fn distinct_keys<'a>(
    reader: &crate::mvcc::Reader<'_>,
    keys: &'a [Key],
) -> Result<Vec<&'a Key>, TxnError> {
    check_keys(reader, keys)?;
    let mut keys: Vec<&Key> = keys.iter().collect();
    keys.sort();
    keys.dedup();
    Ok(keys)
}
