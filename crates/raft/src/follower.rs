//! The follower: takes the leader's log, answers, and waits for the day when it hears nothing.

use base::{Entry, Index, PeerId, Term};

use crate::common::{Common, Next};
use crate::error::StepError;
use crate::message::{AppendOutcome, Body, LogPos, Message};
use crate::ready::ReadState;
use crate::rules::Rule;
use crate::snapshot::Snapshot;
use crate::storage::Failure;

pub(crate) struct Follower {
    /// The leader of the present term, as far as it is known; else nobody.
    pub(crate) leader: PeerId,
    /// Ticks since the leader was heard, or since a vote was given.
    pub(crate) elapsed: u32,
    /// The latest round that this leader began, as far as it was heard.
    pub(crate) round: u64,
    /// Campaign when `elapsed` reaches it.
    timeout: u32,
    /// The timeout is a short one, for a leader that seemed to be gone.
    hurries: bool,
}

/// What an `Append` brings.
struct Appended {
    prev: LogPos,
    entries: Vec<Entry>,
    commit: u64,
    round: u64,
}

impl Follower {
    /// A follower of `leader` (nobody, if none is known) that has waited for `elapsed` ticks
    /// already.
    pub(crate) fn new(leader: PeerId, elapsed: u32, common: &mut Common) -> Self {
        Self { leader, elapsed, round: 0, timeout: common.draw_timeout(), hurries: false }
    }

    /// Messages to a peer are being lost. If it leads, its process has probably ended: then this
    /// node waits no longer than the lease of that leader may last.
    pub(crate) fn on_unreachable(&mut self, peer: PeerId, common: &mut Common) {
        if peer == self.leader {
            self.timeout = self.timeout.min(common.draw_short_timeout());
            self.hurries = true;
            let refused = common.config.election_ticks;
            assert!(self.timeout > refused, "others refuse their votes for so long");
        }
    }

    pub(crate) fn tick(&mut self, common: &mut Common) -> Next {
        self.elapsed = self.elapsed.saturating_add(1);
        common.rest();
        if self.elapsed >= self.timeout && common.needs_snapshot && self.leader != PeerId::NONE {
            // The leader may sleep, and not know.
            self.elapsed = 0;
            common.ask_snapshot(self.leader);
        }
        if self.elapsed < self.timeout {
            return Next::Stay;
        }
        if !common.conf.is_voter(common.id()) {
            // It cannot wake the others by a campaign. If the leader sleeps this wakes it.
            self.elapsed = 0;
            if self.leader != PeerId::NONE {
                common.respond(self.leader, Body::HeartbeatResponse { round: self.round });
            }
            return Next::Stay;
        }
        self.elapsed = 0;
        Next::Elect
    }

    pub(crate) fn step(
        &mut self,
        common: &mut Common,
        message: Message,
    ) -> Result<Result<Next, StepError>, Failure> {
        let from = message.from;
        if message.body.is_from_leader() {
            return match self.hear(common, from, message.term) {
                Ok(()) => self.obey(common, from, message.body),
                Err(error) => Ok(Err(error)),
            };
        }
        match message.body {
            Body::ReadIndexResponse { context, index } => {
                common.outbox().read_states.push(ReadState { context, index });
                Ok(Ok(Next::Stay))
            }
            Body::TransferLeader { to } if self.leader != PeerId::NONE => {
                // Asked of the wrong one. Passed on once: the leader of a term passes nothing on.
                common.send(self.leader, Body::TransferLeader { to });
                Ok(Ok(Next::Stay))
            }
            Body::TimeoutNow { round } => {
                let obey = self.leader == from && round >= self.round;
                Ok(Ok(match obey && common.conf.is_voter(common.id()) {
                    true => Next::Succeed { released: round },
                    false => Next::Stay,
                }))
            }
            // Late answers to what it asked in another role, and requests to a leader that it is
            // not.
            _ => Ok(Ok(Next::Stay)),
        }
    }

    /// Takes what only a leader says.
    fn obey(
        &mut self,
        common: &mut Common,
        from: PeerId,
        body: Body,
    ) -> Result<Result<Next, StepError>, Failure> {
        match body {
            Body::Append { prev, entries, commit, round } => {
                self.round = self.round.max(round);
                return self.on_append(common, from, Appended { prev, entries, commit, round });
            }
            Body::Heartbeat { commit, .. } if commit > common.log.last().index => {
                return Ok(Err(StepError::Malformed("a heartbeat commits past the log's end")));
            }
            Body::Heartbeat { commit, round } => {
                self.round = self.round.max(round);
                common.log.commit_to(commit);
                common.respond(from, Body::HeartbeatResponse { round });
                if common.needs_snapshot {
                    common.ask_snapshot(from);
                }
            }
            Body::Snapshot { snapshot, round } => {
                self.round = self.round.max(round);
                return on_snapshot(common, from, snapshot, round);
            }
            Body::Quiesce { commit } => self.on_quiesce(common, commit),
            other => panic!("only a leader says what comes here, and not {other:?}"),
        }
        Ok(Ok(Next::Stay))
    }

    /// Notes that `from` leads.
    fn hear(&mut self, common: &mut Common, from: PeerId, term: Term) -> Result<(), StepError> {
        if self.leader != PeerId::NONE && self.leader != from {
            return Err(StepError::TwoLeaders { term, known: self.leader, other: from });
        }
        self.leader = from;
        self.elapsed = 0;
        if std::mem::take(&mut self.hurries) {
            self.timeout = common.draw_timeout();
        }
        common.heard_leader();
        Ok(())
    }

    /// Sleeps with the leader, if it has the leader's whole log. Else the answer wakes the leader.
    fn on_quiesce(&mut self, common: &mut Common, commit: Index) {
        let last = common.log.last();
        if last.index == commit && last.term <= common.term() && !common.needs_snapshot {
            common.log.commit_to(commit);
            common.quiet = true;
            common.log.rest();
        } else {
            common.quiet = false;
            common.respond(self.leader, Body::HeartbeatResponse { round: self.round });
        }
    }

    /// Raft paper, figure 2, "AppendEntries RPC".
    fn on_append(
        &mut self,
        common: &mut Common,
        from: PeerId,
        append: Appended,
    ) -> Result<Result<Next, StepError>, Failure> {
        let Appended { prev, entries, commit, round } = append;
        if let Err(rule) = check_entries(prev, &entries, common.term()) {
            return Ok(Err(StepError::Malformed(rule)));
        }
        let committed = common.log.committed();
        let attaches = match common.keeps(Rule::AttachWhereLogsAgree) {
            true => common.log.has(prev)?,
            false => prev.index <= common.log.last().index,
        };
        if prev.index < committed {
            // An old message, or a leader that does not know yet how far this log agrees: this far
            // at least.
            common.respond_matched(from, committed, round);
        } else if attaches && common.needs_snapshot && is_settled(common) {
            // What is coming must cover the whole log, so the log grows no more. Before it is all
            // committed, in the leader's term, it must: else perhaps it never would be.
            common.log.cut_conflicts(&entries)?;
            let last = common.log.last().index.min(prev.index + entries.len() as u64);
            common.respond_matched(from, last, round);
        } else if attaches {
            let last = prev.index + entries.len() as u64;
            common.log.merge(entries)?;
            let proved = match common.keeps(Rule::CommitWhatIsProved) {
                true => last,
                false => common.log.last().index,
            };
            common.log.commit_to(commit.min(proved));
            common.respond_matched(from, last, round);
        } else {
            let hint = common.log.last_agreeable(prev)?;
            let outcome = AppendOutcome::Conflict { prev: prev.index, hint };
            common.respond(from, Body::AppendResponse { outcome, round });
        }
        Ok(Ok(Next::Stay))
    }
}

/// Whether the whole log is committed, and the leader knows that too.
fn is_settled(common: &Common) -> bool {
    let last = common.log.last();
    last.index == common.log.committed() && last.term == common.term()
}

/// Raft paper, figure 13, "InstallSnapshot RPC".
fn on_snapshot(
    common: &mut Common,
    from: PeerId,
    snapshot: Box<Snapshot>,
    round: u64,
) -> Result<Result<Next, StepError>, Failure> {
    let pos = snapshot.pos;
    if pos.index == 0 || pos.term == 0 || pos.term > common.term() {
        return Ok(Err(StepError::Malformed("a snapshot at nothing, or of a later term")));
    }
    if !snapshot.conf.is_sound() {
        return Ok(Err(StepError::Malformed("a snapshot of a group without voters")));
    }
    let committed = common.log.committed();
    let asked_for = common.needs_snapshot && pos.index >= common.log.last().index;
    if pos.index <= committed && !asked_for && common.keeps(Rule::NoSnapshotBehindCommit) {
        common.respond_matched(from, committed, round);
    } else if !asked_for && common.log.has(pos)? {
        // The log has it all, and is worth more.
        common.log.commit_to(pos.index);
        common.respond_matched(from, pos.index, round);
    } else {
        common.restore(snapshot);
        common.respond_matched(from, pos.index, round);
    }
    Ok(Ok(Next::Stay))
}

/// Which rule an `Append` breaks, if any: its entries are consecutive, and terms grow up to the
/// leader's.
fn check_entries(prev: LogPos, entries: &[Entry], term: Term) -> Result<(), &'static str> {
    let mut last = prev;
    if prev.index.checked_add(entries.len() as u64).is_none() {
        return Err("an append's indexes overflow");
    }
    for entry in entries {
        if entry.index != last.index + 1 {
            return Err("an append's entries are not consecutive");
        }
        if entry.term < last.term || entry.term > term {
            return Err("an append's terms go back, or beyond the leader's");
        }
        last = LogPos { index: entry.index, term: entry.term };
    }
    Ok(())
}
