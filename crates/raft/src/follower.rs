//! The follower: takes the leader's log, answers, and waits for the day when it hears nothing.

use base::{Entry, PeerId, Term};

use crate::common::{Common, Next};
use crate::error::StepError;
use crate::message::{AppendOutcome, Body, LogPos, Message};
use crate::ready::ReadState;
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
        Self { leader, elapsed, round: 0, timeout: common.draw_timeout() }
    }

    pub(crate) fn tick(&mut self, common: &mut Common) -> Next {
        self.elapsed = self.elapsed.saturating_add(1);
        common.log.rest();
        if self.elapsed < self.timeout || !common.conf.is_voter(common.id()) {
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
        match message.body {
            Body::Append { prev, entries, commit, round } => {
                if let Err(error) = self.hear(common, from, message.term, round) {
                    return Ok(Err(error));
                }
                self.on_append(common, from, Appended { prev, entries, commit, round })
            }
            Body::Heartbeat { commit, round } => {
                if let Err(error) = self.hear(common, from, message.term, round) {
                    return Ok(Err(error));
                }
                if commit > common.log.last().index {
                    return Ok(Err(StepError::Malformed("a heartbeat commits past the log's end")));
                }
                common.log.commit_to(commit);
                common.respond(from, Body::HeartbeatResponse { round });
                Ok(Ok(Next::Stay))
            }
            Body::ReadIndexResponse { context, index } => {
                common.read_states.push(ReadState { context, index });
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

    /// Notes that `from` leads.
    fn hear(
        &mut self,
        common: &mut Common,
        from: PeerId,
        term: Term,
        round: u64,
    ) -> Result<(), StepError> {
        if self.leader != PeerId::NONE && self.leader != from {
            return Err(StepError::TwoLeaders { term, known: self.leader, other: from });
        }
        self.leader = from;
        self.round = self.round.max(round);
        self.elapsed = 0;
        common.heard_leader();
        Ok(())
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
        if prev.index < committed {
            // An old message, or a leader that does not know yet how far this log agrees: this far
            // at least.
            common.respond_matched(from, committed, round);
        } else if common.log.has(prev)? {
            let last = prev.index + entries.len() as u64;
            common.log.merge(entries)?;
            common.log.commit_to(commit.min(last));
            common.respond_matched(from, last, round);
        } else {
            let hint = common.log.last_agreeable(prev)?;
            let outcome = AppendOutcome::Conflict { prev: prev.index, hint };
            common.respond(from, Body::AppendResponse { outcome, round });
        }
        Ok(Ok(Next::Stay))
    }
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
