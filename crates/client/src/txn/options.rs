//! How a transaction behaves.

use std::time::Duration;

/// How long an optimistic transaction's locks live without a heart beat: the time that a commit
/// takes at most, usually.
const OPTIMISTIC_TTL: Duration = Duration::from_secs(3);

/// How long a pessimistic transaction's locks outlive its last heart beat.
const PESSIMISTIC_TTL: Duration = Duration::from_secs(20);

/// How long to wait for a key that another transaction has locked.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// How a transaction behaves. Begin with [`TxnOptions::optimistic`] or
/// [`TxnOptions::pessimistic`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnOptions {
    /// Keys are locked when they are written, so that a commit fails only when the transaction was
    /// too slow. Otherwise they are locked by the commit, which fails if somebody else was faster.
    pub pessimistic: bool,
    /// The commit returns as soon as all locks are there, if there are few enough of them.
    pub async_commit: bool,
    /// A transaction within one region is committed by one proposal.
    pub one_pc: bool,
    /// Commit timestamps of transactions that know nothing of each other need not be in the order
    /// in which their commits returned. Saves a timestamp with async or one-phase commit.
    pub causal: bool,
    /// How long its locks live from a heart beat, or from the commit's begin, on. Whoever meets
    /// them later rolls it back.
    pub lock_ttl: Duration,
    /// How long to wait for a key that another transaction has locked, in pessimistic ones. Zero:
    /// not at all.
    pub lock_wait: Duration,
}

impl TxnOptions {
    /// Locks are taken by the commit.
    pub fn optimistic() -> Self {
        Self {
            pessimistic: false,
            async_commit: true,
            one_pc: true,
            causal: false,
            lock_ttl: OPTIMISTIC_TTL,
            lock_wait: LOCK_WAIT,
        }
    }

    /// Locks are taken by each write.
    pub fn pessimistic() -> Self {
        Self { pessimistic: true, lock_ttl: PESSIMISTIC_TTL, ..Self::optimistic() }
    }

    /// Commits in two phases, whatever the transaction is.
    pub fn two_phases(self) -> Self {
        Self { async_commit: false, one_pc: false, ..self }
    }
}

impl Default for TxnOptions {
    fn default() -> Self {
        Self::optimistic()
    }
}
