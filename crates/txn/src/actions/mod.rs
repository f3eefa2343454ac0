//! Actions: what each transactional command does, as a function from what is stored to what is
//! written.
//!
//! ```text
//!   Concurrency::raise_max_ts ─┐
//!   Latches on latch_keys() ───┤
//!                              ▼
//!   request ──────────────► run(Reader) ──► Outcome { reply, changes }
//!   snapshot + locks in memory ──▲                        │
//!                                                         ├─ writes       one proposal
//!                                                         ├─ released     wake who waits for them
//!                                                         ├─ pessimistic  to memory, or writes
//!                                                         └─ published    withdraw when applied
//! ```
//!
//! Every action holds the latches of its keys from before its snapshot until its writes are
//! applied, so nobody else writes them in between. It has no clock: time is in the request.
//!
//! | command | file | keys to latch |
//! | --- | --- | --- |
//! | Prewrite | `prewrite.rs`, `constraints.rs` | of the mutations |
//! | PessimisticLock | `pessimistic_lock.rs` | of the mutations |
//! | PessimisticRollback | `pessimistic_rollback.rs` | given, or found by `find` |
//! | TxnHeartBeat | `heart_beat.rs` | the primary |
//! | CheckTxnStatus | `check_txn_status.rs` | the primary |
//! | CheckSecondaryLocks | `check_secondary_locks.rs` | given |
//! | Commit | `commit.rs` | given |
//! | BatchRollback, Cleanup | `rollback.rs` | given |
//! | ResolveLock | `resolve_lock.rs` | given, or found by `find` |
//! | Flush, BufferBatchGet | `flush.rs` | of the mutations; none |
//! | flashback | `flashback.rs` | found by `find_*`; the region is closed to others |
//! | DeleteRange, UnsafeDestroyRange | `delete_range.rs` | none: no regard to transactions |
//! | MvccGetByKey, MvccGetByStartTs, ScanLock | `inspect.rs` | none, they only read |
//! | Get, BatchGet, Scan | [`crate::mvcc`] | none |
//!
//! Rules of all:
//! 1. A command that was run before answers as it did then, or says what became of it; it never
//!    writes something else. A command that comes too late (its transaction is rolled back) fails.
//! 2. A refused command writes nothing at all.
//! 3. What a client was told about a transaction's outcome is recorded before it is told.

mod changes;
mod check_secondary_locks;
mod check_txn_status;
mod commit;
mod constraints;
mod delete_range;
mod flashback;
mod flush;
mod heart_beat;
mod inspect;
mod pessimistic_lock;
mod pessimistic_rollback;
mod prewrite;
mod resolve_lock;
mod rollback;

use base::TimeStamp;
use bytes::Bytes;

pub use changes::{Changes, Outcome, Released};
pub use check_secondary_locks::{CheckSecondaryLocks, SecondaryStatus};
pub use check_txn_status::{CheckTxnStatus, StatusAction, TxnStatus};
pub use commit::Commit;
pub use delete_range::{DeleteRange, destroyed_ranges};
pub use flashback::{Flashback, PrepareFlashback};
pub use flush::{BufferBatchGet, Flush};
pub use heart_beat::HeartBeat;
pub use inspect::{MvccInfo, mvcc_by_key, mvcc_by_start_ts, scan_lock};
pub use pessimistic_lock::{
    KeyLocked, LockOutcome, LockRefused, PessimisticLock, WhatToRead, wait_limit,
};
pub use pessimistic_rollback::PessimisticRollback;
pub use prewrite::{PessimisticAction, Prewrite, PrewriteKey, PrewritePlan, PrewriteReply};
pub use resolve_lock::{ResolveLock, TxnOutcomes};
pub use rollback::{BatchRollback, Cleanup};

use crate::Abort;

/// What a mutation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A new value.
    Put,
    /// No value any more.
    Delete,
    /// A lock that leaves the value alone.
    Lock,
    /// A put that demands that there is no value.
    Insert,
    /// Demands the same and writes nothing.
    CheckNotExists,
}

impl Op {
    /// The meaning of a number of `kvrpcpb.Op` in a prewrite or a flush.
    pub fn from_number(number: i32) -> Result<Self, Abort> {
        match number {
            0 => Ok(Self::Put),
            1 => Ok(Self::Delete),
            2 => Ok(Self::Lock),
            4 => Ok(Self::Insert),
            6 => Ok(Self::CheckNotExists),
            _ => Err(Abort::MutationKind { number }),
        }
    }

    /// Whether it demands that the key has no value.
    pub fn demands_absence(self) -> bool {
        matches!(self, Self::Insert | Self::CheckNotExists)
    }
}

/// What a client knows about a key before it writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assertion {
    /// Nothing.
    #[default]
    None,
    /// It has a value.
    Exist,
    /// It has none.
    NotExist,
}

/// How eagerly assertions are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AssertionLevel {
    /// Never.
    #[default]
    Off,
    /// If the newest record was read anyway and says it.
    Fast,
    /// Always.
    Strict,
}

/// Refuses start timestamps that no transaction can have.
fn check_start_ts(start_ts: TimeStamp) -> Result<(), Abort> {
    if start_ts.0 == 0 || start_ts == TimeStamp::MAX {
        let what = "a transaction starts between the first and the last timestamp";
        return Err(Abort::Timestamps { what, start_ts, other_ts: start_ts });
    }
    Ok(())
}

/// Refuses commits that are not after the start.
fn check_commit_ts(start_ts: TimeStamp, commit_ts: TimeStamp) -> Result<(), Abort> {
    if commit_ts <= start_ts || commit_ts == TimeStamp::MAX {
        let what = "a commit comes after its start";
        return Err(Abort::Timestamps { what, start_ts, other_ts: commit_ts });
    }
    Ok(())
}

/// A value as it goes into a record: inside it, or into family `default`.
fn place_value(value: &Bytes) -> (Option<Bytes>, Option<Bytes>) {
    if value.len() <= crate::mvcc::SHORT_VALUE_MAX {
        (Some(value.clone()), None)
    } else {
        (None, Some(value.clone()))
    }
}
