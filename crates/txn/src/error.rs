//! Why a transactional command has no answer, and who must act.

use base::TimeStamp;
use bytes::Bytes;
use storage::engine::{Cf, EngineError};
use thiserror::Error;

use crate::RequestError;
use crate::mvcc::{BadRecord, Key, Lock};
use crate::waiting::WaitFor;

/// Why a command or a read failed as a whole.
#[derive(Debug, Error)]
pub enum TxnError {
    /// The client: it resolves a lock, retries or gives its transaction up.
    #[error(transparent)]
    Key(#[from] Box<KeyError>),
    /// The client must change its request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The client must ask another region.
    #[error("a key of the request is not in the region")]
    KeyNotInRegion {
        /// Region form.
        key: Bytes,
    },
    /// The operator: what is stored cannot be read.
    #[error("a record in family {} is damaged: {cause}", cf.name())]
    Damaged {
        /// Where.
        cf: Cf,
        /// Engine form, as found.
        key: Bytes,
        /// What is wrong.
        cause: BadRecord,
    },
    /// The operator: a write record names a long value that is not there.
    #[error("the value of version {start_ts} of a key is missing")]
    ValueMissing {
        /// Engine form.
        key: Bytes,
        /// Of the transaction that wrote it.
        start_ts: TimeStamp,
    },
    /// The caller said so.
    #[error("interrupted")]
    Interrupted,
    /// The engine could not read.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<KeyError> for TxnError {
    fn from(error: KeyError) -> Self {
        Self::Key(Box::new(error))
    }
}

/// What a client is told about a key. One variant for each kind of `kvrpcpb.KeyError` that this
/// store produces; `crate::wire` turns one into the other.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// Somebody else's lock is in the way.
    #[error("key {:?} is locked by {}", .0.key, .0.lock.start_ts)]
    Locked(LockInfo),
    /// Somebody wrote the key in between, or the transaction is rolled back.
    #[error("write conflict ({:?}) of {} with {} on {:?}", .0.reason, .0.start_ts,
        .0.conflict_ts, .0.key)]
    Conflict(Conflict),
    /// The key has a value although it must not.
    #[error("key {key:?} already exists")]
    AlreadyExist {
        /// User form.
        key: Bytes,
    },
    /// Waiting for the lock would close a cycle.
    #[error("deadlock of {} on {:?}", .0.lock_ts, .0.lock_key)]
    Deadlock(DeadlockFound),
    /// A reader has pushed the lower bound of the commit timestamp.
    #[error("commit of {start_ts} at {attempted_commit_ts} must be at {min_commit_ts} or later")]
    CommitTsExpired {
        /// Of the transaction.
        start_ts: TimeStamp,
        /// As asked for.
        attempted_commit_ts: TimeStamp,
        /// User form.
        key: Bytes,
        /// The bound.
        min_commit_ts: TimeStamp,
    },
    /// Neither lock nor record of the transaction on its primary.
    #[error("transaction {start_ts} not found on {primary:?}")]
    TxnNotFound {
        /// Of the transaction.
        start_ts: TimeStamp,
        /// User form.
        primary: Bytes,
    },
    /// What the client said about the key's presence is not so.
    #[error("assertion {assertion:?} of {start_ts} fails on {key:?}")]
    AssertionFailed {
        /// Of the transaction.
        start_ts: TimeStamp,
        /// User form.
        key: Bytes,
        /// As asked for.
        assertion: crate::actions::Assertion,
        /// Of the version that contradicts it; 0: there is none.
        existing_start_ts: TimeStamp,
        /// Of the same.
        existing_commit_ts: TimeStamp,
    },
    /// The key's lock names another primary.
    #[error("the primary of {} is {:?}", .0.lock.start_ts, .0.lock.primary)]
    PrimaryMismatch(LockInfo),
    /// The lock to be committed is not there. The text contains `TxnLockNotFound`: clients search
    /// for it.
    #[error("TxnLockNotFound: no lock of {start_ts} on {key:?} to commit at {commit_ts}")]
    LockNotFound {
        /// Of the transaction.
        start_ts: TimeStamp,
        /// As asked for.
        commit_ts: TimeStamp,
        /// User form.
        key: Bytes,
    },
    /// The transaction cannot go on, for a reason that clients know by its text only.
    #[error(transparent)]
    Abort(#[from] Abort),
}

impl KeyError {
    /// The lock `lock` is in the way on `key`.
    pub fn locked(key: &Key, lock: Lock) -> Self {
        Self::Locked(LockInfo::new(key, lock))
    }
}

/// A lock and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockInfo {
    /// User form.
    pub key: Bytes,
    /// The record, its time to live changed where the protocol asks for that.
    pub lock: Lock,
    /// How long ago it changed, in milliseconds: known only to who waited for it; 0: unknown.
    pub unchanged_for_ms: u64,
}

impl LockInfo {
    /// What is known of a lock that was read.
    pub fn new(key: &Key, lock: Lock) -> Self {
        Self { key: key.user().clone(), lock, unchanged_for_ms: 0 }
    }
}

/// The parts of a write conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Of the transaction that fails.
    pub start_ts: TimeStamp,
    /// Start timestamp of the record in the way.
    pub conflict_ts: TimeStamp,
    /// Its commit timestamp; 0: it is a lock.
    pub conflict_commit_ts: TimeStamp,
    /// User form.
    pub key: Bytes,
    /// The primary of the transaction that fails.
    pub primary: Bytes,
    /// Which rule found it.
    pub reason: ConflictReason,
}

/// Which rule found a write conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictReason {
    /// A prewrite of an optimistic transaction.
    Optimistic,
    /// A pessimistic lock: try again with a new for_update_ts.
    PessimisticRetry,
    /// The transaction itself was rolled back on the key.
    SelfRolledBack,
    /// A read that checks its timestamp.
    RcCheckTs,
    /// A prewrite that checks late what its pessimistic lock would have.
    LazyUniquenessCheck,
}

/// A cycle of waits, found when its last edge was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadlockFound {
    /// The transaction that holds the lock.
    pub lock_ts: TimeStamp,
    /// What the requester wanted to wait for, user form.
    pub lock_key: Bytes,
    /// Hash of the key at which the cycle closes.
    pub deadlock_key_hash: u64,
    /// That key, user form.
    pub deadlock_key: Bytes,
    /// The edges, from the holder back to the requester.
    pub chain: Vec<WaitFor>,
}

/// Reasons for which a client gives its transaction, or its request, up.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Abort {
    /// A rollback came too late.
    #[error("transaction {start_ts} is already committed at {commit_ts} on {key:?}")]
    Committed {
        /// Of the transaction.
        start_ts: TimeStamp,
        /// When.
        commit_ts: TimeStamp,
        /// User form.
        key: Bytes,
    },
    /// A prewrite relied on a pessimistic lock that is gone and cannot be had again.
    #[error("pessimistic lock of {start_ts} on {key:?} not found")]
    PessimisticLockNotFound {
        /// Of the transaction.
        start_ts: TimeStamp,
        /// User form.
        key: Bytes,
    },
    /// The transaction that wants a pessimistic lock is rolled back on the key.
    #[error("transaction {start_ts} was rolled back on {key:?}, it gets no pessimistic lock")]
    PessimisticLockRolledBack {
        /// Of the transaction.
        start_ts: TimeStamp,
        /// User form.
        key: Bytes,
    },
    /// The transaction's own lock is of the other kind than the request allows.
    #[error("the lock of {start_ts} on {key:?} is {found:?}, which the request does not allow")]
    LockType {
        /// Of the transaction.
        start_ts: TimeStamp,
        /// User form.
        key: Bytes,
        /// What is there.
        found: crate::mvcc::LockKind,
    },
    /// Timestamps of a request contradict each other.
    #[error("invalid timestamps: {what} (start {start_ts}, other {other_ts})")]
    Timestamps {
        /// What must hold.
        what: &'static str,
        /// Of the transaction.
        start_ts: TimeStamp,
        /// The other.
        other_ts: TimeStamp,
    },
    /// A request whose parts do not fit together.
    #[error("invalid request: {0}")]
    Request(&'static str),
    /// A kind of mutation that this command does not take.
    #[error("mutation kind {number} is not allowed here")]
    MutationKind {
        /// The number in `kvrpcpb.Op`.
        number: i32,
    },
    /// A key that must not be written in this store's mode, or is too long.
    #[error(transparent)]
    Key(#[from] RequestError),
}

impl From<Abort> for TxnError {
    fn from(abort: Abort) -> Self {
        KeyError::Abort(abort).into()
    }
}
