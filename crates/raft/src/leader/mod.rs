//! The leader: appends, replicates, commits, and proves that it still leads.

mod members;
mod replicate;
mod transfer;

use base::{Entry, EntryKind, Index, PeerId};
use bytes::Bytes;

use self::replicate::replicate;
use self::transfer::Transfer;
use crate::common::{Common, Next};
use crate::error::{ProposeError, ReadIndexError, StepError};
use crate::log::entry_size;
use crate::message::{Body, LogPos, Message};
use crate::progress::{Flow, Progress};
use crate::read_only::Reads;
use crate::ready::ReadState;
use crate::rules::Rule;
use crate::storage::Failure;

/// Read requests that may wait at a leader.
const READS_MAX: usize = 1 << 16;

pub(crate) struct Leader {
    /// All members but itself, by id.
    pub(crate) progress: Vec<Progress>,
    /// Index of the empty entry with which its term begins. From here on all entries are of its own
    /// term.
    term_start: Index,
    /// Own proposals that were not yet handed out as committed.
    uncommitted_bytes: usize,
    /// A change of members may lie in the log up to here.
    conf_change: Index,
    reads: Reads,
    /// A read waits for a round that has not begun.
    round_wanted: bool,
    /// Something changed that may let messages or answers leave.
    stirred: bool,
    heartbeat_elapsed: u32,
    quorum_elapsed: u32,
    /// Leadership is being handed over.
    transfer: Option<Transfer>,
    /// Rounds up to this one prove no lease any more: whoever was asked to succeed may be elected
    /// in spite of them.
    released: u64,
}

impl Leader {
    /// The leader of the present term. Its first act is an empty entry: with it, everything before
    /// is committed.
    pub(crate) fn new(common: &mut Common) -> Self {
        let LogPos { index: last, term } = common.log.last();
        assert!(term < common.term(), "somebody else led term {term} and wrote entry {last}");
        let mut progress: Vec<_> = others(common).map(|id| Progress::new(id, last + 1)).collect();
        progress.shrink_to_fit();
        common.round += 1;
        let mut leader = Self {
            progress,
            term_start: last + 1,
            uncommitted_bytes: 0,
            // Its predecessors may have changed the members without its knowledge, but not once an
            // entry of its own term is committed.
            conf_change: last + 1,
            reads: Reads::default(),
            round_wanted: false,
            stirred: true,
            heartbeat_elapsed: 0,
            quorum_elapsed: 0,
            transfer: None,
            released: 0,
        };
        leader.append(common, EntryKind::Normal, Bytes::new());
        leader
    }

    pub(crate) fn has_ready(&self) -> bool {
        self.stirred || (self.round_wanted && !self.has_asked())
    }

    pub(crate) fn tick(&mut self, common: &mut Common) -> Next {
        self.quorum_elapsed += 1;
        if self.quorum_elapsed >= common.config.election_ticks {
            self.quorum_elapsed = 0;
            // One that leaves by its predecessor's proposal leads on so long that the others hear
            // of it.
            let is_voter = common.conf.is_voter(common.id());
            if !is_voter || (common.config.check_quorum && !self.hears_quorum(common)) {
                return Next::Follow { leader: PeerId::NONE };
            }
        }
        self.tick_transfer(common);
        self.heartbeat_elapsed += 1;
        if self.heartbeat_elapsed >= common.config.heartbeat_ticks {
            self.begin_round(common);
            self.rest(common);
        }
        Next::Stay
    }

    /// The group may sleep: everybody has everything, and nothing waits. Tells the others.
    pub(crate) fn quiesce(&mut self, common: &mut Common) -> bool {
        let last = common.log.last().index;
        let idle = self.transfer.is_none()
            && self.reads.len() == 0
            && !self.has_ready()
            && !common.has_ready()
            && !common.conf.is_joint()
            && common.conf.is_voter(common.id())
            && common.log.is_at_rest();
        let is_level = |member: &Progress| match &member.flow {
            Flow::Replicate(inflights) => inflights.count() == 0 && member.matched == last,
            _ => false,
        };
        if !idle || !self.progress.iter().all(is_level) {
            return false;
        }
        // They are all alike, so nothing need be remembered of them.
        for member in std::mem::take(&mut self.progress) {
            common.send(member.id, Body::Quiesce { commit: last });
        }
        true
    }

    /// The group sleeps no more. The others hear of it by a round.
    pub(crate) fn wake(&mut self, common: &Common) {
        assert!(self.progress.is_empty(), "nobody joins a group that sleeps");
        let last = common.log.last().index;
        self.progress = others(common).map(|id| Progress::level(id, last)).collect();
        self.quorum_elapsed = 0;
        self.round_wanted = true;
    }

    /// Entries behind `before` were applied: what waits for that goes on, be it the end of a joint
    /// configuration, or a lease.
    pub(crate) fn on_applied(&mut self, common: &Common, before: Index) {
        let settles = before < self.conf_change && self.conf_change <= common.log.applied();
        self.stirred |= settles || common.conf.is_joint();
    }

    /// Whether a quorum was heard since the last time this was asked.
    fn hears_quorum(&mut self, common: &Common) -> bool {
        let heard = |id| id == common.id() || self.get(id).is_some_and(|member| member.heard);
        let answer = common.conf.has_quorum(heard);
        self.progress.iter_mut().for_each(|member| member.heard = false);
        answer
    }

    /// Gives memory back if nobody needs it.
    fn rest(&mut self, common: &mut Common) {
        let last = common.log.last().index;
        if self.progress.iter().any(|member| member.matched < last) {
            return common.log.trim();
        }
        self.progress.iter_mut().for_each(Progress::rest);
        common.rest();
    }

    fn get(&self, id: PeerId) -> Option<&Progress> {
        self.progress.iter().find(|member| member.id == id)
    }

    fn get_mut(&mut self, id: PeerId) -> Option<&mut Progress> {
        self.progress.iter_mut().find(|member| member.id == id)
    }

    pub(crate) fn propose(
        &mut self,
        common: &mut Common,
        kind: EntryKind,
        data: Bytes,
    ) -> Result<Index, ProposeError> {
        if self.transfer.is_some() {
            return Err(ProposeError::Transferring);
        }
        if !common.conf.is_voter(common.id()) {
            return Err(ProposeError::NotLeader { leader: None });
        }
        let waiting = self.uncommitted_bytes;
        if waiting > 0 && waiting + data.len() > common.config.uncommitted_bytes_max {
            return Err(ProposeError::Busy);
        }
        Ok(self.append(common, kind, data))
    }

    fn append(&mut self, common: &mut Common, kind: EntryKind, data: Bytes) -> Index {
        let index = common.log.last().index + 1;
        let entry = Entry { index, term: common.term(), kind, data };
        self.uncommitted_bytes += entry_size(&entry);
        common.log.push(entry);
        self.stirred = true;
        index
    }

    /// Entries leave for the applier.
    pub(crate) fn handed_out(&mut self, committed: &[Entry]) {
        let own = committed.iter().filter(|entry| entry.index >= self.term_start);
        let bytes: usize = own.map(entry_size).sum();
        assert!(bytes <= self.uncommitted_bytes, "more of the own proposals left than came");
        self.uncommitted_bytes -= bytes;
    }

    pub(crate) fn read_index(
        &mut self,
        common: &mut Common,
        from: PeerId,
        context: u64,
    ) -> Result<(), ReadIndexError> {
        if self.reads.len() >= READS_MAX {
            return Err(ReadIndexError::Busy);
        }
        let known = self.has_committed_own(common) || !common.keeps(Rule::ReadAfterOwnCommit);
        let mut index = known.then(|| common.log.committed());
        if !common.keeps(Rule::ReadKeepsItsIndex) {
            index = self.reads.last_index().or(index);
        }
        let next =
            if common.keeps(Rule::ReadByLaterRound) { common.round + 1 } else { common.round };
        self.reads.ask(from, context, next, index);
        self.round_wanted = true;
        Ok(())
    }

    /// Whether an entry of the own term is committed, so that the commit index is not an old one.
    fn has_committed_own(&self, common: &Common) -> bool {
        common.log.committed() >= self.term_start
    }

    /// A numbered broadcast: whoever answers it still follows. After a successor was asked to
    /// campaign the number stays.
    fn begin_round(&mut self, common: &mut Common) {
        if !self.has_asked() {
            common.round += 1;
            self.round_wanted = false;
        }
        self.heartbeat_elapsed = 0;
        for member in &self.progress {
            let committed = common.log.committed();
            let commit = match common.keeps(Rule::HeartbeatCommitsMatched) {
                true => committed.min(member.matched),
                false => committed,
            };
            common.send(member.id, Body::Heartbeat { commit, round: common.round });
        }
    }

    /// The latest round that a quorum has echoed; zero if no lease may rest on it.
    pub(crate) fn lease_round(&self, common: &Common) -> u64 {
        // Those who stay after a change of members may decide without this one as soon as they
        // know of it.
        let settled = self.conf_change <= common.log.applied();
        if !settled || !common.conf.is_voter(common.id()) {
            return 0;
        }
        let round = self.confirmed_round(common);
        let rests = round > self.released || !common.keeps(Rule::ReleaseLeaseToSuccessor);
        if rests { round } else { 0 }
    }

    fn confirmed_round(&self, common: &Common) -> u64 {
        common.quorum_value(|id| match id == common.id() {
            true => common.round,
            false => self.get(id).map_or(0, |member| member.round),
        })
    }

    pub(crate) fn step(
        &mut self,
        common: &mut Common,
        message: Message,
    ) -> Result<Result<Next, StepError>, Failure> {
        let from = message.from;
        match message.body {
            Body::AppendResponse { outcome, round } => {
                self.on_append_response(common, from, outcome, round)
            }
            Body::HeartbeatResponse { round } => {
                self.on_heartbeat_response(common, from, round).map(|()| Ok(Next::Stay))
            }
            Body::ReadIndex { context } if self.get(from).is_some() => {
                // If it cannot be taken it is lost, as if on the way; the follower asks again.
                let _ = self.read_index(common, from, context);
                Ok(Ok(Next::Stay))
            }
            Body::Propose { data } if self.get(from).is_some() => {
                // The same holds for a proposal.
                let _ = self.propose(common, EntryKind::Normal, data);
                Ok(Ok(Next::Stay))
            }
            Body::SnapshotRequest { at_least } => {
                self.on_snapshot_request(common, from, at_least);
                Ok(Ok(Next::Stay))
            }
            Body::TransferLeader { to } => {
                // Whoever asks learns from the roles what became of it.
                let _ = self.transfer_to(common, to);
                Ok(Ok(Next::Stay))
            }
            body if body.is_from_leader() => {
                let (term, known) = (common.term(), common.id());
                Ok(Err(StepError::TwoLeaders { term, known, other: from }))
            }
            _ => Ok(Ok(Next::Stay)),
        }
    }

    /// A member spoke in the present term. `None` if it is not a member.
    fn hear(&mut self, common: &Common, from: PeerId, round: u64) -> Option<&mut Progress> {
        let member = self.get_mut(from)?;
        member.heard = true;
        member.round = member.round.max(round.min(common.round));
        Some(member)
    }

    /// Commits what a quorum has made durable. Only entries of the own term are counted; those
    /// before them are committed with them (Raft paper, section 5.4.2 and figure 8).
    pub(crate) fn commit(&mut self, common: &mut Common) {
        let matched = common.quorum_value(|id| match id == common.id() {
            true => common.log.stable(),
            false => self.get(id).map_or(0, |member| member.matched),
        });
        assert!(matched <= common.log.last().index, "a quorum has {matched}, which nobody wrote");
        if matched < self.term_start && common.keeps(Rule::CountOwnTermOnly) {
            return;
        }
        let first = !self.has_committed_own(common);
        if common.log.commit_to(matched) {
            self.stirred = true;
        }
        if first && self.has_committed_own(common) {
            self.reads.settle(common.log.committed());
        }
    }

    /// Lets leave what may leave: entries, the commit index, a round that reads wait for, answers.
    pub(crate) fn flush(&mut self, common: &mut Common) -> Result<(), Failure> {
        if !self.has_ready() {
            return Ok(());
        }
        if self.round_wanted && !self.has_asked() {
            self.begin_round(common);
        }
        self.leave_joint(common);
        self.stirred = false;
        for member in &mut self.progress {
            replicate(common, member)?;
        }
        self.ask_successor(common);
        let confirmed = self.confirmed_round(common);
        while let Some(answer) = self.reads.pop(confirmed) {
            let (context, index) = (answer.context, answer.index);
            match answer.from == common.id() {
                true => common.outbox().read_states.push(ReadState { context, index }),
                false => common.send(answer.from, Body::ReadIndexResponse { context, index }),
            }
        }
        Ok(())
    }
}

/// All members but this one, by id.
fn others(common: &Common) -> impl Iterator<Item = PeerId> {
    let me = common.id();
    common.conf.members().into_iter().filter(move |id| *id != me)
}
