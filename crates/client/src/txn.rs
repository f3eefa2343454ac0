//! Transactions.
//!
//! ```text
//!   begin ─► start_ts ─► reads: the buffer first, then a snapshot at start_ts
//!                    ─► writes: the buffer; in pessimistic ones the key is locked first
//!                    ─► commit: prewrite all ─┬─► one phase: committed by it
//!                                             ├─► async: committed when all locks are there
//!                                             └─► two phases: commit_ts, then the primary decides
//! ```
//!
//! The files: `buffer` what was written; `lock` pessimistic locks; `heart` keeps them alive;
//! `commit` and `prewrite` the two phases; `options`.

mod buffer;
mod commit;
mod heart;
mod lock;
mod options;
mod prewrite;

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Instant, TimeStamp};
use bytes::Bytes;
use proto::kvrpcpb;

use self::buffer::{Buffer, Write};
use self::heart::{Heart, Life};
pub use self::options::TxnOptions;
use crate::calls::StoreRequest;
use crate::core::Core;
use crate::error::ClientError;
use crate::keys::Keys;
use crate::link::Link;
use crate::pages::Pages;
use crate::raw::Pair;
use crate::snapshot::Snapshot;

/// A transaction in progress. It ends with [`commit`](Txn::commit) or
/// [`rollback`](Txn::rollback); one that is dropped is rolled back in the background.
///
/// Reads see the cluster as of [`start_ts`](Txn::start_ts) and the transaction's own writes. A key
/// that was read [for update](Txn::get_for_update) reads as it was when it was locked, which may be
/// later: nobody else can have changed it since.
pub struct Txn<L: Link> {
    core: Arc<Core<L>>,
    keys: Keys,
    options: TxnOptions,
    snapshot: Snapshot<L>,
    buffer: Buffer,
    life: Life,
    /// The latest time as of which a key was locked.
    for_update_ts: TimeStamp,
    /// Beats once something is locked.
    heart: Option<Heart>,
    is_over: bool,
}

impl<L: Link> Txn<L> {
    pub(crate) fn new(
        core: Arc<Core<L>>,
        options: TxnOptions,
        start_ts: TimeStamp,
        begun: Instant,
    ) -> Self {
        let keys = Keys::of_transactions(core.version);
        let snapshot = Snapshot::new(core.clone(), start_ts);
        let (primary, ttl) = (Bytes::new(), options.lock_ttl);
        let life = Life { keys, primary, start_ts, begun, ttl };
        Self {
            core,
            keys,
            options,
            snapshot,
            buffer: Buffer::default(),
            life,
            for_update_ts: TimeStamp(0),
            heart: None,
            is_over: false,
        }
    }

    /// What it reads as of.
    pub fn start_ts(&self) -> TimeStamp {
        self.life.start_ts
    }

    /// The value of `key`.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ClientError> {
        let key = self.keys.data_key(key);
        match self.buffer.value(&key) {
            Some(value) => Ok(value),
            None => self.snapshot.get_data(&key).await,
        }
    }

    /// The values of those of `keys` that have one, by key.
    pub async fn batch_get<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
    ) -> Result<BTreeMap<Bytes, Bytes>, ClientError> {
        let (mut found, mut asked) = (BTreeMap::new(), Vec::new());
        for key in keys {
            let key = self.keys.data_key(key.as_ref());
            match self.buffer.value(&key) {
                Some(Some(value)) => drop(found.insert(key, value)),
                Some(None) => {}
                None => asked.push(key),
            }
        }
        found.extend(self.snapshot.batch_get_data(asked).await?);
        Ok(found.into_iter().map(|(key, value)| (self.keys.user_key(&key), value)).collect())
    }

    /// The first `limit` pairs of `[start, end)`; an empty end is the end of all keys.
    pub async fn scan(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, ClientError> {
        self.scan_over(start, end, limit, false).await
    }

    /// The last `limit` pairs of `[start, end)`, the last one first.
    pub async fn scan_reverse(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, ClientError> {
        self.scan_over(start, end, limit, true).await
    }

    /// Rows of the snapshot, with its own in their places.
    async fn scan_over(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Pair>, ClientError> {
        let range = self.keys.data_range(start, end);
        let own = if range.is_empty() { Vec::new() } else { self.buffer.values_in(&range) };
        let before = |a: &Bytes, b: &Bytes| if reverse { a > b } else { a < b };
        let mut own: Vec<_> = if reverse { own.into_iter().rev().collect() } else { own };
        own.reverse(); // the next one is the last
        let mut pages = Pages::new(self.keys, range, reverse);
        let mut pairs = Vec::new();
        while pairs.len() < limit && !pages.is_done() {
            // Own deletions may take rows away, but no more than there are.
            let rows = limit - pairs.len() + own.len();
            for row in self.snapshot.scan_page(&mut pages, rows).await? {
                while let Some((key, value)) = own.pop_if(|(key, _)| before(key, &row.key)) {
                    pairs.extend(value.map(|value| Pair { key, value }));
                }
                match own.pop_if(|(key, _)| *key == row.key) {
                    Some((key, value)) => pairs.extend(value.map(|value| Pair { key, value })),
                    None => pairs.push(row),
                }
            }
        }
        if pages.is_done() {
            let rest = own.into_iter().rev();
            pairs.extend(rest.filter_map(|(key, value)| Some(Pair { key, value: value? })));
        }
        pairs.truncate(limit);
        Ok(pairs.into_iter().map(|pair| self.snapshot.to_user(pair)).collect())
    }

    /// Writes `value`.
    pub async fn put(&mut self, key: &[u8], value: impl Into<Bytes>) -> Result<(), ClientError> {
        let (key, value) = (self.keys.data_key(key), value.into());
        self.lock_to_write(&key, false).await?;
        self.buffer.entry(&key).write = Some(Write::Put(value));
        Ok(())
    }

    /// Writes `value` to a key that needs no lock of its own, because nobody writes it who has not
    /// locked another key that this transaction has locked too: an entry of an index, say, and its
    /// row. In a pessimistic transaction it is not locked before the commit, and what was written
    /// to it meanwhile is not looked at; an optimistic one makes no difference.
    pub fn put_unlocked(&mut self, key: &[u8], value: impl Into<Bytes>) {
        let key = self.keys.data_key(key);
        self.buffer.entry(&key).write = Some(Write::Put(value.into()));
    }

    /// Writes `value` to a key that must have none: found out now in a pessimistic transaction, by
    /// the commit in an optimistic one.
    pub async fn insert(&mut self, key: &[u8], value: impl Into<Bytes>) -> Result<(), ClientError> {
        let (key, value) = (self.keys.data_key(key), value.into());
        match self.buffer.value(&key) {
            Some(Some(_)) => {
                return Err(ClientError::AlreadyExists { key: self.keys.user_key(&key) });
            }
            // Known to have no value: from a lock, or because it was deleted here.
            Some(None) => self.lock_to_write(&key, false).await?,
            None => {
                self.lock_to_write(&key, true).await?;
                self.buffer.entry(&key).is_insert = true;
            }
        }
        self.buffer.entry(&key).write = Some(Write::Put(value));
        Ok(())
    }

    /// Deletes a key; that it is not there is no error.
    pub async fn delete(&mut self, key: &[u8]) -> Result<(), ClientError> {
        let key = self.keys.data_key(key);
        self.lock_to_write(&key, false).await?;
        self.buffer.entry(&key).write = Some(Write::Delete);
        Ok(())
    }

    /// Makes sure that nobody changes `keys` while the transaction is in progress: at once in a
    /// pessimistic one. In an optimistic one the commit fails if somebody did since its begin.
    pub async fn lock<K: AsRef<[u8]>>(&mut self, keys: &[K]) -> Result<(), ClientError> {
        let keys: Vec<_> = keys.iter().map(|key| self.keys.data_key(key.as_ref())).collect();
        if self.options.pessimistic {
            return Box::pin(self.lock_data(keys, lock::Want::Lock)).await;
        }
        for key in &keys {
            self.buffer.entry(key).is_guarded = true;
        }
        Ok(())
    }

    /// The newest values of those of `keys` that have one, [locked](Txn::lock).
    pub async fn lock_for_update<K: AsRef<[u8]>>(
        &mut self,
        keys: &[K],
    ) -> Result<BTreeMap<Bytes, Bytes>, ClientError> {
        if self.options.pessimistic {
            let data = keys.iter().map(|key| self.keys.data_key(key.as_ref())).collect();
            Box::pin(self.lock_data(data, lock::Want::Values)).await?;
        } else {
            self.lock(keys).await?;
        }
        self.batch_get(keys).await
    }

    /// The newest value of `key`, [locked](Txn::lock).
    pub async fn get_for_update(&mut self, key: &[u8]) -> Result<Option<Bytes>, ClientError> {
        Ok(self.lock_for_update(&[key]).await?.into_values().next())
    }

    async fn lock_to_write(&mut self, key: &Bytes, must_be_new: bool) -> Result<(), ClientError> {
        if !self.options.pessimistic || (self.buffer.is_locked(key) && !must_be_new) {
            return Ok(());
        }
        let want = if must_be_new { lock::Want::Absence } else { lock::Want::Lock };
        Box::pin(self.lock_data(vec![key.clone()], want)).await
    }

    /// Gives up everything. Its locks are gone when this returns, as far as they could be reached.
    pub async fn rollback(mut self) -> Result<(), ClientError> {
        self.is_over = true;
        self.heart = None;
        let locked = self.buffer.locked();
        if locked.is_empty() {
            return Ok(());
        }
        let build = unlock_request(self.life.start_ts);
        self.core.all_regions(self.keys, &locked, &build).await.map(drop)
    }
}

/// Takes pessimistic locks of a transaction away, whenever they were taken.
fn unlock_request(start_ts: TimeStamp) -> impl Fn(&[Bytes]) -> StoreRequest + Send + Sync {
    move |keys: &[Bytes]| {
        StoreRequest::KvPessimisticRollback(kvrpcpb::PessimisticRollbackRequest {
            start_version: start_ts.0,
            for_update_ts: u64::MAX,
            keys: keys.to_vec(),
            ..Default::default()
        })
    }
}

impl<L: Link> Drop for Txn<L> {
    fn drop(&mut self) {
        let locked = if self.is_over { Vec::new() } else { self.buffer.locked() };
        if locked.is_empty() {
            return;
        }
        let (core, keys) = (self.core.clone(), self.keys);
        let build = unlock_request(self.life.start_ts);
        self.core.link.spawn(Box::pin(async move {
            // What cannot be reached now is resolved by whoever meets it.
            let _ = core.all_regions(keys, &locked, &build).await;
        }));
    }
}
