//! The rules of `storage`, `store`, `placement` and `txn` by name, so that a test can break one and
//! see that the checks find it.
//!
//! Where a rule is kept the code asks [`keep`]. That is always true, and costs nothing, but in
//! builds with the feature `mutations`: there a thread can be told to break one rule
//! (`break_rule`). Nobody should ever ship such a build. (The rules of `raft` are in that crate.)

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// What a message promises is synced before it leaves.
    SyncBeforeAcknowledging,
    /// Nothing leaves the log before the engine was synced past it (W1).
    SyncBeforeLogShrinks,
    /// Steps of a replica's life are synced before the next one (W3).
    SyncLifeSteps,
    /// An entry's data and the applied index are in one batch.
    StateWithData,
    /// A snapshot replaces what was there.
    ClearBeforeIngest,
    /// Files that arrive have the checksum that was promised.
    CheckReceivedFiles,
    /// A lease runs from the begin of its round.
    RoundBeginsOnce,
    /// A lease is shorter than an election timeout.
    LeaseEndsBeforeTimeout,
    /// Nobody reads under a lease while a split is on its way.
    SplitFencesReads,
    /// Writes are void when the range changed since they were proposed.
    WritesOfThisRange,
    /// A split is void when the region changed since it was proposed.
    SplitOfThisEpoch,
    /// A change of members is void when they changed since it was proposed.
    ChangeOfThisEpoch,
    /// A replica that left is remembered over a restart.
    TombstoneStays,
    /// The vote of a replica without keys is saved.
    VoteWithoutKeys,
    /// A snapshot is taken when all that is applied is written.
    SnapshotBetweenBatches,
    /// A read waits until its index is applied.
    ReadWhenApplied,
    /// A new leader reads when an entry of its term is applied.
    ReadInOwnTerm,
    /// A reader looks again after it took its data.
    SecondLook,
    /// A proposal is answered by its own entry, not by one in its place.
    AnswerOwnTerm,
    /// What was computed in one term is not written in another.
    OnlyInTerm,
    /// Proposals are checked again if the range changed in the same turn.
    CheckAgainWhenProposing,
    /// A snapshot whose keys belong to another region is not taken.
    SnapshotIntoFreeKeys,
    /// A snapshot that was being installed goes on after a restart.
    ResumeInstall,
    /// Nothing is written behind a snapshot before it is installed.
    HoldWhileInstalling,
    /// A split that is applied again does not bring back what left.
    OldSplitsMakeNothing,
    /// What the log knew to be committed is known after a restart, applied or not.
    CommitFromLog,
    /// The log of a region that was just born is begun at the next start.
    BeginLogAfterSplit,
    /// A new placement driver gives out timestamps above the saved bound.
    StampsAboveBound,
    /// A new placement driver gives out ids above the saved one.
    IdsAboveSaved,
    /// A report that is older than what is known is refused.
    StaleReports,
    /// Nobody reads under a lease while a merge is on its way.
    MergeFencesReads,
    /// What a leader has not synced it may lose: it counts among those who merge.
    MergeCountsLeader,
    /// A region that merges keeps the end of its log.
    MergeKeepsLog,
    /// A merge is void when the source changed since it was proposed.
    MergeOfThisEpoch,
    /// Nobody is taken over when the target changed since the source named it.
    TakeOverOfThisEpoch,
    /// A source ends with the entry that began this merge, not an earlier one that was off.
    EndOfThisMerge,
    /// A source is taken over when its whole log is applied.
    CatchUpBeforeMerge,
    /// A merge is off when its target is known not to have done it.
    ProofBeforeRollback,
    /// No snapshot is made of a region that merges.
    NoSnapshotWhileMerging,
    /// Whoever speaks to a region that is gone is told what became of it.
    MergeIsTold,
    /// A region that is closed takes no writes, whenever they were proposed.
    ClosedTakesNothing,
    /// A change of members is told when the engine is synced behind it.
    SyncBeforeMembersAreTold,
    /// A store that is silent wakes the groups that sleep with it.
    SilenceWakes,
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
    /// A leader notes the records that it writes, for prewrites that do not look.
    NoteRecords,
    /// Such a prewrite is of a time after everything that others wrote.
    RecordsBelowFloor,
}

#[cfg(feature = "mutations")]
impl Rule {
    /// Those of `storage`, `store` and `placement`.
    pub const OF_STORE: &[Self] = &[
        Self::SyncBeforeAcknowledging,
        Self::SyncBeforeLogShrinks,
        Self::SyncLifeSteps,
        Self::StateWithData,
        Self::ClearBeforeIngest,
        Self::CheckReceivedFiles,
        Self::RoundBeginsOnce,
        Self::LeaseEndsBeforeTimeout,
        Self::SplitFencesReads,
        Self::WritesOfThisRange,
        Self::SplitOfThisEpoch,
        Self::ChangeOfThisEpoch,
        Self::TombstoneStays,
        Self::VoteWithoutKeys,
        Self::SnapshotBetweenBatches,
        Self::ReadWhenApplied,
        Self::ReadInOwnTerm,
        Self::SecondLook,
        Self::AnswerOwnTerm,
        Self::OnlyInTerm,
        Self::CheckAgainWhenProposing,
        Self::SnapshotIntoFreeKeys,
        Self::ResumeInstall,
        Self::HoldWhileInstalling,
        Self::OldSplitsMakeNothing,
        Self::CommitFromLog,
        Self::BeginLogAfterSplit,
        Self::StampsAboveBound,
        Self::IdsAboveSaved,
        Self::StaleReports,
        Self::MergeFencesReads,
        Self::MergeCountsLeader,
        Self::MergeKeepsLog,
        Self::MergeOfThisEpoch,
        Self::TakeOverOfThisEpoch,
        Self::EndOfThisMerge,
        Self::CatchUpBeforeMerge,
        Self::ProofBeforeRollback,
        Self::NoSnapshotWhileMerging,
        Self::MergeIsTold,
        Self::ClosedTakesNothing,
        Self::SyncBeforeMembersAreTold,
        Self::SilenceWakes,
    ];

    /// Those of `txn`.
    pub const OF_TXN: &[Self] = &[
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
        Self::NoteRecords,
        Self::RecordsBelowFloor,
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
