//! The leader: appends, replicates, commits, and proves that it still leads.

use base::{Entry, EntryKind, Index, PeerId};
use bytes::Bytes;

use crate::common::{Common, Next};
use crate::conf_change::{ConfChange, ConfChangeError};
use crate::error::{ProposeError, ReadIndexError, StepError, TransferError};
use crate::log::entry_size;
use crate::message::{AppendOutcome, Body, LogPos, Message};
use crate::progress::{Flow, Progress};
use crate::read_only::Reads;
use crate::ready::ReadState;
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

/// A hand-over that is pending. It is given up after an election timeout.
struct Transfer {
    to: PeerId,
    elapsed: u32,
    /// The successor has everything and was asked to campaign. Until the hand-over is given up no
    /// round begins, since that would keep others from voting for it.
    asked: bool,
}

impl Leader {
    /// The leader of the present term. Its first act is an empty entry: with it, everything before
    /// is committed.
    pub(crate) fn new(common: &mut Common) -> Self {
        let last = common.log.last().index;
        let others = common.conf.members().into_iter().filter(|id| *id != common.id());
        let progress = others.map(|id| Progress::new(id, last + 1)).collect();
        common.round += 1;
        let mut leader = Self {
            progress,
            term_start: last + 1,
            uncommitted_bytes: 0,
            conf_change: last,
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

    /// Whether a quorum was heard since the last time this was asked.
    fn hears_quorum(&mut self, common: &Common) -> bool {
        let heard = |id| id == common.id() || self.get(id).is_some_and(|member| member.heard);
        let answer = common.conf.has_quorum(heard);
        self.progress.iter_mut().for_each(|member| member.heard = false);
        answer
    }

    /// Gives memory back if nobody needs it.
    fn rest(&self, common: &mut Common) {
        let last = common.log.last().index;
        let all_match = self.progress.iter().all(|member| member.matched == last);
        if all_match {
            common.log.rest();
        }
    }

    fn get(&self, id: PeerId) -> Option<&Progress> {
        self.progress.iter().find(|member| member.id == id)
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

    pub(crate) fn propose_conf_change(
        &mut self,
        common: &mut Common,
        kind: EntryKind,
        data: Bytes,
        change: ConfChange,
    ) -> Result<Index, ProposeError> {
        if self.conf_change > common.log.applied() {
            return Err(ConfChangeError::Pending.into());
        }
        if !common.conf.after(change)?.is_voter(common.id()) {
            return Err(ConfChangeError::Leader.into());
        }
        self.conf_change = self.propose(common, kind, data)?;
        Ok(self.conf_change)
    }

    /// The members have changed.
    pub(crate) fn on_members(&mut self, common: &mut Common) {
        let (me, next) = (common.id(), common.log.last().index + 1);
        self.progress.retain(|member| common.conf.contains(member.id));
        for id in common.conf.members() {
            if id != me && self.get(id).is_none() {
                // It had no occasion to be heard yet.
                self.progress.push(Progress { heard: true, ..Progress::new(id, next) });
            }
        }
        self.progress.sort_unstable_by_key(|member| member.id);
        if self.successor().is_some_and(|to| !common.conf.is_voter(to)) {
            self.give_up_transfer();
        }
        // A smaller quorum may have what the larger one lacked.
        self.commit(common);
        self.stirred = true;
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
        let index = self.has_committed_own(common).then(|| common.log.committed());
        self.reads.ask(from, context, common.round + 1, index);
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
            let commit = common.log.committed().min(member.matched);
            common.send(member.id, Body::Heartbeat { commit, round: common.round });
        }
    }

    /// The latest round that a quorum has echoed; zero if no lease may rest on it.
    pub(crate) fn lease_round(&self, common: &Common) -> u64 {
        let round = self.confirmed_round(common);
        if round > self.released { round } else { 0 }
    }

    fn confirmed_round(&self, common: &Common) -> u64 {
        common.conf.quorum_value(|id| match id == common.id() {
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
            Body::TransferLeader { to } => {
                // Whoever asks learns from the roles what became of it.
                let _ = self.transfer_to(common, to);
                Ok(Ok(Next::Stay))
            }
            Body::Append { .. } | Body::Heartbeat { .. } => Ok(Err(StepError::TwoLeaders {
                term: common.term(),
                known: common.id(),
                other: from,
            })),
            _ => Ok(Ok(Next::Stay)),
        }
    }

    fn on_append_response(
        &mut self,
        common: &mut Common,
        from: PeerId,
        outcome: AppendOutcome,
        round: u64,
    ) -> Result<Result<Next, StepError>, Failure> {
        let Some(member) = self.hear(common, from, round) else { return Ok(Ok(Next::Stay)) };
        let news = match outcome {
            AppendOutcome::Matched(index) if index > common.log.last().index => {
                return Ok(Err(StepError::Malformed("a match past the leader's log")));
            }
            AppendOutcome::Matched(index) => member.matches(index),
            AppendOutcome::Conflict { prev, hint } => {
                member.refused(prev, common.log.last_agreeable(hint)?.index);
                false
            }
        };
        if news {
            self.commit(common);
        }
        self.stirred = true;
        Ok(Ok(Next::Stay))
    }

    fn on_heartbeat_response(
        &mut self,
        common: &mut Common,
        from: PeerId,
        round: u64,
    ) -> Result<(), Failure> {
        let Some(member) = self.hear(common, from, round) else { return Ok(()) };
        let behind = member.matched < common.log.last().index;
        match &mut member.flow {
            Flow::Probe { waiting } => *waiting = false,
            // What is on the way may be lost. An append without entries behind it is refused if so.
            Flow::Replicate(inflights) if inflights.count() > 0 => {
                let (id, prev) = (member.id, member.next - 1);
                send_append(common, id, prev, 0)?;
            }
            Flow::Replicate(_) => {}
        }
        self.stirred |= behind || self.reads.len() > 0;
        Ok(())
    }

    /// What is on the way to `peer` is lost.
    pub(crate) fn on_unreachable(&mut self, peer: PeerId) {
        if let Some(member) = self.progress.iter_mut().find(|member| member.id == peer)
            && matches!(member.flow, Flow::Replicate(_))
        {
            member.probe();
        }
    }

    /// A member spoke in the present term. `None` if it is not a member.
    fn hear(&mut self, common: &Common, from: PeerId, round: u64) -> Option<&mut Progress> {
        let member = self.progress.iter_mut().find(|member| member.id == from)?;
        member.heard = true;
        member.round = member.round.max(round.min(common.round));
        Some(member)
    }

    /// Commits what a quorum has made durable. Only entries of the own term are counted; those
    /// before them are committed with them (Raft paper, section 5.4.2 and figure 8).
    pub(crate) fn commit(&mut self, common: &mut Common) {
        let matched = common.conf.quorum_value(|id| match id == common.id() {
            true => common.log.stable(),
            false => self.get(id).map_or(0, |member| member.matched),
        });
        if matched < self.term_start {
            return;
        }
        let first = !self.has_committed_own(common);
        if common.log.commit_to(matched) {
            self.stirred = true;
        }
        if first {
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
        self.stirred = false;
        for member in &mut self.progress {
            replicate(common, member)?;
        }
        self.ask_successor(common);
        let confirmed = self.confirmed_round(common);
        while let Some(answer) = self.reads.pop(confirmed) {
            let (context, index) = (answer.context, answer.index);
            match answer.from == common.id() {
                true => common.read_states.push(ReadState { context, index }),
                false => common.send(answer.from, Body::ReadIndexResponse { context, index }),
            }
        }
        Ok(())
    }
}

/// Handing over to a successor of choice (Raft dissertation, section 3.10).
impl Leader {
    /// Begins to hand over to `to`; to itself: gives up what is pending.
    pub(crate) fn transfer_to(&mut self, common: &Common, to: PeerId) -> Result<(), TransferError> {
        if !common.conf.is_voter(to) {
            return Err(TransferError::NotVoter { to });
        }
        let pending = self.transfer.as_ref().map(|transfer| transfer.to);
        if to == common.id() {
            self.give_up_transfer();
        } else if pending != Some(to) {
            self.transfer = Some(Transfer { to, elapsed: 0, asked: false });
            self.stirred = true;
        }
        Ok(())
    }

    /// To whom it is handing over.
    pub(crate) fn successor(&self) -> Option<PeerId> {
        self.transfer.as_ref().map(|transfer| transfer.to)
    }

    /// Whether a successor may be campaigning at this moment by this leader's wish.
    pub(crate) fn has_asked(&self) -> bool {
        self.transfer.as_ref().is_some_and(|transfer| transfer.asked)
    }

    fn tick_transfer(&mut self, common: &Common) {
        let Some(transfer) = &mut self.transfer else { return };
        transfer.elapsed += 1;
        if transfer.elapsed >= common.config.election_ticks {
            self.give_up_transfer();
        }
    }

    /// Goes on leading. A late successor finds that others have seen a round which began after
    /// this.
    fn give_up_transfer(&mut self) {
        if self.transfer.take().is_some_and(|transfer| transfer.asked) {
            self.round_wanted = true;
        }
    }

    /// Asks the successor to campaign, once it has the whole log.
    fn ask_successor(&mut self, common: &mut Common) {
        let Some(to) = self.successor().filter(|_| !self.has_asked()) else { return };
        let last = common.log.last().index;
        if self.get(to).is_none_or(|member| member.matched < last) {
            return;
        }
        self.transfer.as_mut().expect("it has a successor").asked = true;
        self.released = common.round;
        common.send(to, Body::TimeoutNow { round: common.round });
    }
}

/// Sends a member what it lacks, as far as the flow allows.
fn replicate(common: &mut Common, member: &mut Progress) -> Result<(), Failure> {
    let (count_max, bytes_max) = (common.config.inflight_max, common.config.inflight_bytes_max);
    while member.may_send(count_max, bytes_max) {
        let last = common.log.last().index;
        let lacks_commit = member.commit_sent < common.log.committed().min(member.next - 1);
        if member.next > last && !lacks_commit {
            break;
        }
        let Some((sent, bytes)) =
            send_append(common, member.id, member.next - 1, common.config.append_bytes_max)?
        else {
            break;
        };
        member.sent(sent, bytes, common.log.committed().min(sent));
    }
    Ok(())
}

/// Sends entries behind `prev`, none if `bytes_max` is zero. Returns the index of the last and
/// their bytes; `None` if the log does not reach back so far.
fn send_append(
    common: &mut Common,
    to: PeerId,
    prev: Index,
    bytes_max: usize,
) -> Result<Option<(Index, usize)>, Failure> {
    let Some(term) = common.log.term(prev)? else { return Ok(None) };
    let last = common.log.last().index;
    let mut entries = Vec::new();
    if bytes_max > 0 && prev < last {
        match common.log.entries(prev + 1, last, bytes_max)? {
            Some(found) => entries = found,
            None => return Ok(None),
        }
    }
    let sent = (prev + entries.len() as Index, entries.iter().map(entry_size).sum());
    let (commit, round) = (common.log.committed(), common.round);
    let prev = LogPos { index: prev, term };
    common.send(to, Body::Append { prev, entries, commit, round });
    Ok(Some(sent))
}
