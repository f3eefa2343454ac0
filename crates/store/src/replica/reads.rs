//! Reads that need an answer of the group: up to where must be applied what a reader wants to see?
//!
//! ```text
//!   reads of a turn ── one context ──> raft ── (a follower: to the leader and back) ── index
//!                                                         replies <── applied here <────┘
//! ```
//!
//! Contexts begin at a random number, so that an answer to a question of before a restart, or of a
//! replica of before, is nobody's. A follower's question may get lost; it is asked again, under
//! another context: an index that was found later is good for all who asked before.

use std::collections::VecDeque;

use base::rule::{Rule, keep};
use base::{Index, PeerId, Term};

use super::Replica;
use crate::RegionError;
use crate::input::{Outbox, ReadRequest};
use crate::reply::ReplyTo;
use crate::shard::ShardConfig;

/// A question that was not answered for so many election timeouts is given up.
const TIMEOUTS: u32 = 3;

/// A caller that waits to read.
#[derive(Debug)]
struct Reader {
    /// Whether it may read where nobody leads.
    any_replica: bool,
    reply: ReplyTo,
}

/// Callers that ask at the same time.
type Together = Vec<Reader>;

/// The callers that wait to read.
#[derive(Debug, Default)]
pub(super) struct ReadQueue {
    /// Of this turn.
    new: Together,
    /// Whose index raft is finding out, by the context they were asked under.
    asked: VecDeque<Asked>,
    /// Who wait for their index to be applied.
    found: Vec<(Index, Together)>,
}

#[derive(Debug)]
struct Asked {
    context: u64,
    /// When this began.
    since: u64,
    /// When it was asked for the last time, and whom.
    at: u64,
    of: (Term, PeerId),
    readers: Together,
}

impl ReadQueue {
    pub(super) fn is_idle(&self) -> bool {
        self.new.is_empty() && self.asked.is_empty() && self.found.is_empty()
    }

    /// Whether somebody waits for something to be applied.
    pub(super) fn awaits_applied(&self) -> bool {
        !self.found.is_empty()
    }

    /// All of them: nobody will answer.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = ReplyTo> {
        let Self { new, asked, found } = std::mem::take(self);
        let asked = asked.into_iter().flat_map(|asked| asked.readers);
        let found = found.into_iter().flat_map(|(_, readers)| readers);
        new.into_iter().chain(asked).chain(found).map(|reader| reader.reply)
    }
}

impl Replica {
    /// Takes a read or gives back the refusal.
    pub(crate) fn read_index(&mut self, request: ReadRequest, out: &mut Outbox) {
        let ReadRequest { header, any_replica, reply } = request;
        let view = self.view().ok_or(RegionError::RegionNotFound(self.region.id));
        let checked = view.and_then(|view| match any_replica {
            true => view.check_replica(&header),
            false => view.check(&header),
        });
        let checked = checked.and_then(|()| match self.is_merging() {
            true => {
                let (region, reason) = (self.region.id, "it merges into its neighbour");
                Err(RegionError::ReadIndexNotReady { region, reason })
            }
            false => Ok(()),
        });
        match checked {
            Ok(()) => self.reads.new.push(Reader { any_replica, reply }),
            Err(error) => out.replies.push((reply, Err(error))),
        }
    }

    /// All reads of a turn share one index.
    pub(super) fn flush_reads(&mut self, out: &mut Outbox) {
        if !self.reads.new.is_empty() {
            let readers = std::mem::take(&mut self.reads.new);
            let (since, at) = (self.ticks, self.ticks);
            let asked = Asked { context: 0, since, at, of: (0, PeerId::NONE), readers };
            self.ask(asked, out);
        }
        self.ask_again(out);
    }

    fn ask(&mut self, mut asked: Asked, out: &mut Outbox) {
        self.next_context = self.next_context.wrapping_add(1);
        match self.node.read_index(self.next_context) {
            Ok(()) => {
                asked.context = self.next_context;
                asked.at = self.ticks;
                asked.of = self.whom_to_ask();
                self.reads.asked.push_back(asked);
            }
            Err(raft::ReadIndexError::NoLeader) => {
                let error = RegionError::NotLeader { region: self.region.id, leader: None };
                refuse(asked.readers, &error, out);
            }
            Err(error) => {
                let error = RegionError::ServerIsBusy { reason: error.to_string() };
                refuse(asked.readers, &error, out);
            }
        }
    }

    fn whom_to_ask(&self) -> (Term, PeerId) {
        (self.node.term(), self.node.leader().unwrap_or(PeerId::NONE))
    }

    /// Questions that went to a leader of before, or got lost, are asked again as one. A leader
    /// asks itself: its questions do not get lost as long as it leads.
    fn ask_again(&mut self, out: &mut Outbox) {
        let now = self.whom_to_ask();
        let is_lost = |asked: &Asked, ticks: u64, retry: u64| {
            asked.of != now || (now.1 != self.peer.id && ticks - asked.at >= retry)
        };
        let Some(first) = self.reads.asked.front() else { return };
        if !is_lost(first, self.ticks, self.read_retry) {
            return;
        }
        if now.1 == PeerId::NONE {
            // Somebody may be elected; `give_up_reads` sees to it that nobody waits for ever.
            return;
        }
        let since = first.since;
        let all = std::mem::take(&mut self.reads.asked).into_iter();
        let readers = all.flat_map(|asked| asked.readers).collect();
        let at = self.ticks;
        self.ask(Asked { context: 0, since, at, of: now, readers }, out);
    }

    /// Whoever waits too long for an answer of the leader gets another one.
    pub(super) fn give_up_reads(&mut self, config: &ShardConfig, out: &mut Outbox) {
        let patience = u64::from(config.election_ticks * TIMEOUTS);
        let region = self.region.id;
        let reason = "the leader does not answer";
        let error = RegionError::ReadIndexNotReady { region, reason };
        while let Some(late) =
            self.reads.asked.pop_front_if(|asked| self.ticks - asked.since >= patience)
        {
            refuse(late.readers, &error, out);
        }
    }

    /// Raft found the index of a question. One that nobody asked here is another replica's, or of
    /// before a restart.
    pub(super) fn reads_found(&mut self, context: u64, index: Index, out: &mut Outbox) {
        let Some(place) = self.reads.asked.iter().position(|asked| asked.context == context) else {
            return;
        };
        for asked in self.reads.asked.drain(..=place) {
            self.reads.found.push((index, asked.readers));
        }
        self.answer_reads(out);
    }

    /// Those whose index is applied may read; not while the data are replaced.
    pub(super) fn answer_reads(&mut self, out: &mut Outbox) {
        if !self.has_data() {
            return;
        }
        let applied = self.applied.0;
        let may =
            |(index, _): &mut (Index, Together)| *index <= applied || !keep(Rule::ReadWhenApplied);
        for (_, readers) in self.reads.found.extract_if(.., may) {
            out.replies.extend(readers.into_iter().map(|reader| (reader.reply, Ok(()))));
        }
    }

    /// The replica does not lead: who wants to read at the leader is told who does.
    pub(super) fn refuse_leaders_readers(&mut self, out: &mut Outbox) {
        if self.reads.asked.is_empty() {
            return;
        }
        let error = self.not_leader();
        for asked in &mut self.reads.asked {
            let moved = asked.readers.extract_if(.., |reader| !reader.any_replica);
            out.replies.extend(moved.map(|reader| (reader.reply, Err(error.clone()))));
        }
        self.reads.asked.retain(|asked| !asked.readers.is_empty());
    }
}

fn refuse(readers: Together, error: &RegionError, out: &mut Outbox) {
    out.replies.extend(readers.into_iter().map(|reader| (reader.reply, Err(error.clone()))));
}
