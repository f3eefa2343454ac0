//! What callers want of a replica: writes, reads, a split.

use base::Index;
use base::limits::RAFT_ENTRY_SIZE_MAX;
use raft::ProposeError;

use super::Replica;
use crate::RegionError;
use crate::apply::Waiting;
use crate::command;
use crate::input::{Outbox, Proposal, SplitRequest};
use crate::reply::ReplyTo;
use crate::view::RequestHeader;

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
        if proposal.only_in_term.is_some_and(|term| term != self.node.term()) {
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
        let view = self.view().ok_or(RegionError::RegionNotFound(self.region.id))?;
        view.check(header)
    }

    /// Takes a read or gives back the refusal.
    pub(crate) fn read_index(&mut self, header: &RequestHeader, reply: ReplyTo, out: &mut Outbox) {
        match self.check_header(header) {
            Ok(()) => self.reads.push(reply),
            Err(error) => out.replies.push((reply, Err(error))),
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
                self.fence = (term, index);
                self.wait(Waiting { index, term, replies: vec![reply] }, out);
            }
            Err(error) => self.refuse(vec![reply], &error, out),
        }
    }

    pub(super) fn flush_proposals(&mut self, out: &mut Outbox) {
        let mut queue = std::mem::take(&mut self.queue);
        // A split may have been applied since they were checked.
        let version = self.region.epoch.version;
        let late = |p: &mut Proposal| p.header.epoch.is_none_or(|epoch| epoch.version != version);
        for Proposal { reply, .. } in queue.extract_if(.., late) {
            let current = vec![self.region.clone()];
            out.replies.push((reply, Err(RegionError::EpochNotMatch { current })));
        }
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
            let entry = command::encode_writes(self.region.epoch, pieces);
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

    /// All reads of a turn share one index.
    pub(super) fn flush_reads(&mut self, out: &mut Outbox) {
        if self.reads.is_empty() {
            return;
        }
        self.next_context += 1;
        let reads = std::mem::take(&mut self.reads);
        match self.node.read_index(self.next_context) {
            Ok(()) => self.reads_asked.push_back((self.next_context, reads)),
            Err(error) => {
                let error = RegionError::ServerIsBusy { reason: error.to_string() };
                out.replies.extend(reads.into_iter().map(|reply| (reply, Err(error.clone()))));
            }
        }
    }

    pub(super) fn reads_found(&mut self, context: u64, index: Index, out: &mut Outbox) {
        while let Some((_, replies)) = self.reads_asked.pop_front_if(|(asked, _)| *asked <= context)
        {
            self.reads_at.push((index, replies));
        }
        self.answer_reads(out);
    }

    pub(super) fn answer_reads(&mut self, out: &mut Outbox) {
        let applied = self.applied.0;
        for (_, replies) in self.reads_at.extract_if(.., |(index, _)| *index <= applied) {
            out.replies.extend(replies.into_iter().map(|reply| (reply, Ok(()))));
        }
    }

    /// The replica is to do nothing any more. Of a write that was proposed nobody can tell what
    /// becomes of it; the others did not happen.
    pub(crate) fn leave(&mut self, out: &mut Outbox) {
        self.leaving = true;
        let error = || Err(RegionError::RegionNotFound(self.region.id));
        let queue = std::mem::take(&mut self.queue).into_iter().map(|proposal| proposal.reply);
        let asked = std::mem::take(&mut self.reads_asked).into_iter().map(|(_, replies)| replies);
        let at = std::mem::take(&mut self.reads_at).into_iter().map(|(_, replies)| replies);
        let reads = asked.chain(at).flatten().chain(std::mem::take(&mut self.reads));
        out.replies.extend(queue.chain(reads).map(|reply| (reply, error())));
        for waiting in self.waiting.drain(..) {
            let replies = waiting.replies.into_iter();
            out.replies.extend(replies.map(|reply| (reply, Err(RegionError::Undetermined))));
        }
    }
}
