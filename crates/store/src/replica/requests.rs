//! What callers want of a replica: writes, reads, a split.

use base::limits::RAFT_ENTRY_SIZE_MAX;
use base::rule::{Rule, keep};
use raft::ProposeError;

use super::Replica;
use crate::RegionError;
use crate::apply::Waiting;
use crate::command;
use crate::input::{FlashbackRequest, Outbox, Proposal, SplitRequest};
use crate::reply::ReplyTo;
use crate::view::{RequestHeader, check_flashback};

/// Proposals are joined into one entry up to this size; a single larger one is an entry of its own.
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Writes are refused while more than this waits to be applied: the engine cannot keep up.
const APPLYING_BYTES_MAX: usize = 64 << 20;

impl Replica {
    /// Takes a proposal or gives back the refusal.
    pub(crate) fn propose(&mut self, proposal: Proposal, out: &mut Outbox) {
        match self.check(&proposal) {
            Ok(()) => self.queue.push(proposal),
            Err(error) => out.replies.push((proposal.reply, Err(error))),
        }
    }

    fn check(&self, proposal: &Proposal) -> Result<(), RegionError> {
        self.check_header(&proposal.header)?;
        let other_term = proposal.only_in_term.is_some_and(|term| term != self.node.term());
        if other_term && keep(Rule::OnlyInTerm) {
            return Err(RegionError::StaleCommand(self.region.id));
        }
        let size = proposal.writes.byte_size();
        if size > RAFT_ENTRY_SIZE_MAX {
            let region = self.region.id;
            return Err(RegionError::RaftEntryTooLarge { region, size: size as u64 });
        }
        if self.applying_bytes > APPLYING_BYTES_MAX {
            let reason = format!("region {}: too much waits to be applied", self.region.id);
            return Err(RegionError::ServerIsBusy { reason });
        }
        Ok(())
    }

    pub(super) fn check_header(&self, header: &RequestHeader) -> Result<(), RegionError> {
        self.check_leader(header)?;
        check_flashback(&self.region, header.purpose.of_change())
    }

    /// Like `check_header`, for what has nothing to do with the data.
    pub(super) fn check_leader(&self, header: &RequestHeader) -> Result<(), RegionError> {
        let view = self.view().ok_or(RegionError::RegionNotFound(self.region.id))?;
        view.check_leader(header)?;
        match self.is_merging() {
            // Clients hand "server is busy" to their users; this they try again.
            true => Err(RegionError::ProposalInMergingMode(self.region.id)),
            false => Ok(()),
        }
    }

    /// Proposes the cut or gives back the refusal. Until it is applied nobody reads here without
    /// asking: its parts may be led, and written, elsewhere before this store knows.
    pub(crate) fn split(&mut self, request: SplitRequest, out: &mut Outbox) {
        let SplitRequest { header, cuts, reply } = request;
        let fits = || self.region.split(&cuts).is_some();
        let checked = self.check_header(&header).and_then(|()| match fits() {
            true => Ok(()),
            false => Err(RegionError::EpochNotMatch { current: vec![self.region.clone()] }),
        });
        if let Err(error) = checked {
            out.replies.push((reply, Err(error)));
            return;
        }
        match self.node.propose(command::encode_split(self.region.epoch, &cuts)) {
            Ok((term, index)) => {
                if keep(Rule::SplitFencesReads) {
                    self.fence = (term, index);
                }
                self.wait(Waiting { index, term, replies: vec![reply] }, out);
            }
            Err(error) => self.refuse(vec![reply], &error, out),
        }
    }

    /// Proposes that the region be closed for a flashback, or opened again. As for a split nobody
    /// reads here without asking until it is known whom the region lets in.
    pub(crate) fn flashback(&mut self, request: FlashbackRequest, out: &mut Outbox) {
        let FlashbackRequest { header, began, reply } = request;
        self.wake();
        // What came before is written before.
        self.flush_proposals(out);
        if let Err(error) = self.check_leader(&header) {
            return out.replies.push((reply, Err(error)));
        }
        match self.node.propose(command::encode_flashback(self.region.epoch, began)) {
            Ok((term, index)) => {
                self.fence = (term, index);
                self.wait(Waiting { index, term, replies: vec![reply] }, out);
            }
            Err(error) => self.refuse(vec![reply], &error, out),
        }
    }

    /// Those that must not be proposed any more are refused: since they were checked the region may
    /// have been cut, or closed.
    fn refuse_late(&self, queue: &mut Vec<Proposal>, out: &mut Outbox) {
        let version = self.region.epoch.version;
        let late = |p: &mut Proposal| p.header.epoch.is_none_or(|epoch| epoch.version != version);
        let again = if keep(Rule::CheckAgainWhenProposing) { queue.len() } else { 0 };
        for Proposal { reply, .. } in queue.extract_if(..again, late) {
            let current = vec![self.region.clone()];
            out.replies.push((reply, Err(RegionError::EpochNotMatch { current })));
        }
        let check = |p: &Proposal| check_flashback(&self.region, p.header.purpose.of_change());
        for proposal in queue.extract_if(.., |p| check(p).is_err()) {
            let refused = check(&proposal);
            out.replies.push((proposal.reply, refused));
        }
    }

    pub(super) fn flush_proposals(&mut self, out: &mut Outbox) {
        if self.queue.is_empty() {
            return;
        }
        let mut queue = std::mem::take(&mut self.queue);
        self.refuse_late(&mut queue, out);
        // All of them are parts of a flashback, or none is.
        let flashback = self.region.flashback.is_some();
        let mut queue = queue.into_iter().peekable();
        while let Some(first) = queue.next() {
            let mut size = first.writes.byte_size();
            let mut together = vec![first];
            while let Some(next) = queue.next_if(|p| size + p.writes.byte_size() <= ENTRY_BYTES_MAX)
            {
                size += next.writes.byte_size();
                together.push(next);
            }
            let pieces = together.iter().map(|proposal| &proposal.writes);
            let entry = command::encode_writes(self.region.epoch, flashback, pieces);
            let replies = together.into_iter().map(|proposal| proposal.reply).collect();
            match self.node.propose(entry) {
                Ok((term, index)) => self.wait(Waiting { index, term, replies }, out),
                Err(error) => self.refuse(replies, &error, out),
            }
        }
    }

    pub(super) fn refuse(&self, replies: Vec<ReplyTo>, error: &ProposeError, out: &mut Outbox) {
        let error = match error {
            ProposeError::NotLeader { .. } => self.not_leader(),
            // Soon; whom it names might not know yet, and would send the client back at once.
            ProposeError::Transferring => {
                RegionError::NotLeader { region: self.region.id, leader: None }
            }
            other => RegionError::ServerIsBusy { reason: other.to_string() },
        };
        out.replies.extend(replies.into_iter().map(|reply| (reply, Err(error.clone()))));
    }

    /// Our own entry now stands at `waiting.index`: whatever waits for that index or a later one
    /// was overwritten.
    pub(super) fn wait(&mut self, waiting: Waiting, out: &mut Outbox) {
        while let Some(stale) = self.waiting.pop_back_if(|w| w.index >= waiting.index) {
            self.answer_stale(stale, out);
        }
        self.waiting.push_back(waiting);
    }

    pub(super) fn answer_stale(&self, stale: Waiting, out: &mut Outbox) {
        let error = RegionError::StaleCommand(self.region.id);
        out.replies.extend(stale.replies.into_iter().map(|reply| (reply, Err(error.clone()))));
    }

    /// The replica is to do nothing any more. Of a write that was proposed nobody can tell what
    /// becomes of it; the others did not happen.
    pub(crate) fn leave(&mut self, out: &mut Outbox) {
        self.leaving = true;
        self.tell_lost(out);
        self.drop_comparison(out);
        let error = || Err(RegionError::RegionNotFound(self.region.id));
        let queue = std::mem::take(&mut self.queue).into_iter().map(|proposal| proposal.reply);
        let reads: Vec<_> = self.reads.drain().collect();
        out.replies.extend(queue.chain(reads).map(|reply| (reply, error())));
        for waiting in self.waiting.drain(..) {
            let replies = waiting.replies.into_iter();
            out.replies.extend(replies.map(|reply| (reply, Err(RegionError::Undetermined))));
        }
    }
}
