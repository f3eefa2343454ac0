//! The rules by name, so that a test can break one and see that the checks find it.
//!
//! Where a rule is kept the code asks [`Rules::keep`]. That is always true, and costs nothing, but
//! in builds with the feature `mutations`: there `Config::breaks` names one rule that the node
//! breaks. Nobody should ever ship such a build; the model check of the simulator walks through all
//! of them and must find each.

/// A rule that keeps a group safe. Each names where it comes from ("paper" is Ongaro and
/// Ousterhout's, "dissertation" is Ongaro's).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Only entries of the own term are committed by counting (paper 5.4.2, figure 8).
    CountOwnTermOnly,
    /// The vote is remembered over a restart (paper, figure 2, persistent state).
    RememberVote,
    /// A vote leaves when it is durable.
    VoteWhenDurable,
    /// Entries are acknowledged when they are durable.
    MatchWhenDurable,
    /// Only a log that is up to date is voted for (paper 5.4.1).
    VoteForUpToDateLogs,
    /// Whoever heard from a leader votes for nobody within an election timeout (dissertation
    /// 6.4.1): what a lease rests on.
    NoVoteWithinLease,
    /// Nor does it after a restart, when it may have heard from one before.
    NoVoteAfterRestart,
    /// A leader that asks a successor to campaign gives up its lease first.
    ReleaseLeaseToSuccessor,
    /// Each read keeps the commit index of the moment at which it came.
    ReadKeepsItsIndex,
    /// A read waits for a round that began after it came (dissertation 6.4).
    ReadByLaterRound,
    /// A new leader answers reads when an entry of its own term is committed (paper 8).
    ReadAfterOwnCommit,
    /// Entries attach only where both logs agree (paper 5.3).
    AttachWhereLogsAgree,
    /// Entries that the log has already cut nothing off (paper, figure 2, AppendEntries 3).
    KeepWhatMatches,
    /// A follower commits no further than the message proves its log equal (figure 2,
    /// AppendEntries 5).
    CommitWhatIsProved,
    /// A heartbeat's commit index is cut to what the follower is known to hold.
    HeartbeatCommitsMatched,
    /// An acknowledgement makes nothing durable that was replaced since it was written.
    LateWritesProveNothing,
    /// Only durable entries are handed out.
    HandOutWhenDurable,
    /// During a joint change both majorities decide (dissertation 4.3).
    BothMajoritiesDecide,
    /// Learners are not counted (dissertation 4.2.1).
    LearnersDoNotCount,
    /// One change of members at a time (dissertation 4.1).
    OneChangeAtATime,
    /// A change of members takes effect when it is applied.
    ChangeWhenApplied,
    /// Nobody campaigns before it applied the changes that it knows to be committed.
    CampaignWithChangesApplied,
    /// A snapshot behind the commit index is not taken over.
    NoSnapshotBehindCommit,
    /// A snapshot that is taken over replaces the whole log.
    SnapshotReplacesLog,
    /// A snapshot brings all members, learners too.
    SnapshotBringsLearners,
    /// A snapshot is acknowledged when it is installed.
    SnapshotWhenInstalled,
}

#[cfg(feature = "mutations")]
impl Rule {
    /// All of them.
    pub const ALL: [Self; 26] = [
        Self::CountOwnTermOnly,
        Self::RememberVote,
        Self::VoteWhenDurable,
        Self::MatchWhenDurable,
        Self::VoteForUpToDateLogs,
        Self::NoVoteWithinLease,
        Self::NoVoteAfterRestart,
        Self::ReleaseLeaseToSuccessor,
        Self::ReadKeepsItsIndex,
        Self::ReadByLaterRound,
        Self::ReadAfterOwnCommit,
        Self::AttachWhereLogsAgree,
        Self::KeepWhatMatches,
        Self::CommitWhatIsProved,
        Self::HeartbeatCommitsMatched,
        Self::LateWritesProveNothing,
        Self::HandOutWhenDurable,
        Self::BothMajoritiesDecide,
        Self::LearnersDoNotCount,
        Self::OneChangeAtATime,
        Self::ChangeWhenApplied,
        Self::CampaignWithChangesApplied,
        Self::NoSnapshotBehindCommit,
        Self::SnapshotReplacesLog,
        Self::SnapshotBringsLearners,
        Self::SnapshotWhenInstalled,
    ];
}

/// Which rules a node keeps: all, but for the one that a test asked it to break.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    #[cfg(feature = "mutations")]
    pub(crate) broken: Option<Rule>,
}

impl Rules {
    /// Whether `rule` is kept.
    #[cfg(not(feature = "mutations"))]
    pub(crate) const fn keep(self, _rule: Rule) -> bool {
        true
    }

    /// Whether `rule` is kept.
    #[cfg(feature = "mutations")]
    pub(crate) fn keep(self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }
}
