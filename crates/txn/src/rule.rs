//! The rules of this crate by name, so that a test can break one and see that the checks find it.
//!
//! Where a rule is kept the code asks [`keep`]. That is always true, and costs nothing, but in
//! builds with the feature `mutations`: there a thread can be told to break one rule
//! (`break_rule`). Nobody should ever ship such a build.

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A rollback leaves a record.
    RecordRollbacks,
    /// Rollbacks that decide a transaction's fate are protected.
    ProtectRollbacks,
    /// A rollback in the place of another one's commit is a flag there.
    FlagOverlapped,
    /// A reader that is told "it will commit above you" has raised the lock's bound.
    PushMinCommitTs,
    /// A commit is not below the bound that readers pushed.
    CommitAboveBound,
    /// Whoever commits holds the lock.
    CommitOwnLock,
    /// A prewrite fails if the key was written since the transaction began.
    PrewriteSeesConflicts,
    /// A prewrite fails if somebody else has the lock.
    PrewriteSeesLocks,
    /// A prewrite that comes again finds that its transaction is over.
    PrewriteOnce,
    /// A pessimistic lock that was lost is taken again only if nobody wrote the key.
    AmendUnwritten,
    /// A pessimistic lock is as of the newest version.
    LockNewest,
    /// An async commit is not rolled back by its primary alone.
    AsyncAsksAll,
    /// A secondary that is committed says so.
    SecondaryTellsCommit,
    /// A read meets the locks that are there.
    ReadsMeetLocks,
    /// A read raises `max_ts`.
    ReadsRaiseMaxTs,
    /// A status check raises `max_ts`.
    ChecksRaiseMaxTs,
    /// A computed commit timestamp is above all reads.
    ComputedAboveReads,
    /// Locks of computed commits are shown until they are applied.
    ShowLocks,
    /// A read of a replica meets the locks that its leader shows.
    ReplicasMeetShownLocks,
    /// `max_ts` is synced before a new leader computes timestamps.
    SyncMaxTs,
    /// Latches are held until the writes are applied.
    LatchUntilApplied,
}

#[cfg(feature = "mutations")]
impl Rule {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::RecordRollbacks,
        Self::ProtectRollbacks,
        Self::FlagOverlapped,
        Self::PushMinCommitTs,
        Self::CommitAboveBound,
        Self::CommitOwnLock,
        Self::PrewriteSeesConflicts,
        Self::PrewriteSeesLocks,
        Self::PrewriteOnce,
        Self::AmendUnwritten,
        Self::LockNewest,
        Self::AsyncAsksAll,
        Self::SecondaryTellsCommit,
        Self::ReadsMeetLocks,
        Self::ReadsRaiseMaxTs,
        Self::ChecksRaiseMaxTs,
        Self::ComputedAboveReads,
        Self::ShowLocks,
        Self::ReplicasMeetShownLocks,
        Self::SyncMaxTs,
        Self::LatchUntilApplied,
    ];
}

#[cfg(feature = "mutations")]
thread_local! {
    static BROKEN: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

/// Whether `rule` is kept.
#[cfg(not(feature = "mutations"))]
pub const fn keep(_rule: Rule) -> bool {
    true
}

/// Whether `rule` is kept.
#[cfg(feature = "mutations")]
pub fn keep(rule: Rule) -> bool {
    BROKEN.get() != Some(rule)
}

/// From now on this thread breaks this rule, or none.
#[cfg(feature = "mutations")]
pub fn break_rule(rule: Option<Rule>) {
    BROKEN.set(rule);
}
