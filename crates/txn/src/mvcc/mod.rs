//! MVCC: where versions, locks and values of a key lie, byte for byte as TiKV keeps them.
//!
//! ```text
//!   family   key                                value
//!   lock     region form                        Lock     at most one a key: who is writing it
//!   write    region form, commit ts descending  Write    what happened at that timestamp
//!   default  region form, start ts descending   value    only what is longer than 255 bytes
//!
//!   write family of key k, newest first:
//!     k@120  Lock      start 110   (no change; last change at 90)
//!     k@105  Rollback  start 105   (a late prewrite of 105 must fail)
//!     k@ 90  Put       start  80   short value "v"
//!     k@ 60  Delete    start  55
//! ```
//!
//! The region form of a key is its memcomparable encoding, whatever the store's mode. Timestamps
//! are stored as their complement, big endian, so that the newest version comes first.
//!
//! Invariants:
//! 1. A key has at most one lock. Its record names the transaction by its start timestamp.
//! 2. For a key and a start timestamp there is at most one record of an outcome: a commit, or a
//!    rollback. A rollback whose place (its start timestamp) is taken by another transaction's
//!    commit is a flag on that commit.
//! 3. A commit record never changes but for that flag.
//!
//! Where to start: [`Lock`] and [`Write`] for what is stored, [`Reader`] for how it is found again,
//! `scan.rs` for ranges.

mod get;
mod key;
mod lock;
mod oldest;
mod reader;
mod record;
mod scan;
mod write;

pub use get::{ReadOptions, Value};
pub use key::{Key, split_versioned};
pub use lock::{Lock, LockKind, LockVerdict};
pub use oldest::oldest_locks;
pub use reader::{Isolation, LockScan, Overlapped, Reader, TxnRecord};
pub(crate) use reader::{damaged, decode_key, decode_write};
pub use record::BadRecord;
pub use scan::{Row, Scan};
pub use write::{LastChange, Write, WriteKind};

/// Longest value that is kept inside a lock or write record.
pub const SHORT_VALUE_MAX: usize = 255;

#[cfg(test)]
mod tests;
