//! The same store for programs that do not use async: every call returns when it is done.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let dir = folder.path().join("db");
//! use pontoon::blocking;
//!
//! let store = blocking::open(&dir)?;
//! store.transaction(|txn| {
//!     let visits = txn.get(b"visits")?.map_or(0, |text| text.len());
//!     txn.put(b"visits", "x".repeat(visits + 1))
//! })?;
//! assert_eq!(store.get(b"visits")?, Some("x".into()));
//! store.close();
//! # Ok(())
//! # }
//! ```

use std::path::Path;

use base::TimeStamp;
use bytes::Bytes;
use client::{ClientError, Db, Pair, Txn, TxnOptions};
use tokio::runtime::Runtime;

use super::{Embedded, LocalLink, OpenOptions, StartError};

/// How often [`Store::transaction`] tries.
const TRIES_MAX: u32 = 100;

/// Threads that serve the store besides its own: callers wait in theirs.
const THREADS: usize = 2;

/// An open store with threads of its own.
pub struct Store {
    runtime: Runtime,
    /// None only while it is closed.
    store: Option<Embedded>,
    db: Db<LocalLink>,
}

/// Opens the store in a folder, and creates it if it is not there.
pub fn open(dir: impl AsRef<Path>) -> Result<Store, StartError> {
    Store::open(OpenOptions::new(dir))
}

/// An empty store that lives in memory, for tests.
pub fn memory() -> Result<Store, StartError> {
    Store::open(OpenOptions { dir: None, ..OpenOptions::new("") })
}

impl Store {
    /// Opens a store with options. Must not be called from async code.
    pub fn open(options: OpenOptions) -> Result<Store, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .enable_all()
            .thread_name("pontoon")
            .build()
            .map_err(StartError::Threads)?;
        let store = runtime.block_on(Box::pin(options.open()))?;
        let db = store.db();
        Ok(Store { runtime, store: Some(store), db })
    }

    /// The newest value of a key of transactions.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ClientError> {
        self.wait(async { self.db.snapshot().await?.get(key).await })
    }

    /// The first `limit` pairs of `[start, end)` as they are now; an empty end is the end of all
    /// keys.
    pub fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>, ClientError> {
        self.wait(async { self.db.snapshot().await?.scan(start, end, limit).await })
    }

    /// Runs `work` as one transaction: all of what it writes takes effect or nothing. It is run
    /// again if another transaction was faster, and rolled back if it returns an error. Returns
    /// when it committed; none if it wrote nothing.
    pub fn transaction(
        &self,
        mut work: impl FnMut(&mut Transaction<'_>) -> Result<(), ClientError>,
    ) -> Result<Option<TimeStamp>, ClientError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let txn = self.wait(self.db.begin(TxnOptions::pessimistic()))?;
            let mut txn = Transaction { store: self, txn };
            let outcome = match work(&mut txn) {
                Ok(()) => self.wait(txn.txn.commit()),
                Err(error) => {
                    self.wait(txn.txn.rollback())?;
                    Err(error)
                }
            };
            match outcome {
                Err(error) if error.may_be_run_again() && tries < TRIES_MAX => {}
                outcome => return outcome,
            }
        }
    }

    /// Waits for anything async about the store, such as a call of [`Db::raw`].
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The async client of the same store.
    pub fn db(&self) -> Db<LocalLink> {
        self.db.clone()
    }

    /// Ends in order, as [`Embedded::close`]; dropping the store does the same.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(store) = self.store.take() {
            self.runtime.block_on(Box::pin(store.close()));
        }
    }
}

/// A transaction in progress. Reads lock what they read, so that it still holds when the
/// transaction commits.
pub struct Transaction<'a> {
    store: &'a Store,
    txn: Txn<LocalLink>,
}

impl Transaction<'_> {
    /// The value of `key`, which nobody else changes from now on.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, ClientError> {
        self.store.wait(self.txn.get_for_update(key))
    }

    /// The first `limit` pairs of `[start, end)` as they were when the transaction began, not
    /// locked.
    pub fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>, ClientError> {
        self.store.wait(self.txn.scan(start, end, limit))
    }

    /// Writes `value`.
    pub fn put(&mut self, key: &[u8], value: impl Into<Bytes>) -> Result<(), ClientError> {
        self.store.wait(self.txn.put(key, value))
    }

    /// Deletes a key; that it is not there is no error.
    pub fn delete(&mut self, key: &[u8]) -> Result<(), ClientError> {
        self.store.wait(self.txn.delete(key))
    }
}
