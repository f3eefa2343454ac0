//! What a node hears beside its group's leader: entries that are committed for sure, and questions
//! to whoever may know more.

use base::{Entry, PeerId};

use super::{RawNode, State};
use crate::error::LearnError;
use crate::message::{LogPos, NUMBER_MAX};
use crate::storage::Failure;

impl RawNode {
    /// Takes over consecutive entries of this group's log that somebody vouches for: all of them
    /// are committed, and so is whatever this log holds before the first of them. They go the way
    /// of all entries: written, then handed out to be applied, and what differs is replaced.
    ///
    /// For a group that ends: another one carries the end of its log, because its own leader and
    /// quorum may be gone already. So a node that lacks some of the entries, or did not know them
    /// to be committed, ceases to lead or to campaign. To learn what is known changes nothing.
    pub fn learn(&mut self, entries: Vec<Entry>) -> Result<(), LearnError> {
        if self.stopped {
            return Err(LearnError::Stopped);
        }
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
        let (first, last) = (first.index, LogPos { index: last.index, term: last.term });
        if last.index <= self.common.log.committed() {
            return Ok(());
        }
        if self.common.needs_snapshot || self.common.log.is_restoring() {
            return Err(LearnError::Restoring);
        }
        let own = self.common.log.last().index;
        if first > own + 1 {
            return Err(LearnError::Gap { last: own });
        }
        match self.contradiction(&entries) {
            Ok(None) => {}
            Ok(Some(rule)) => return Err(LearnError::Contradiction(rule)),
            Err(failure) => {
                self.fail(failure);
                return Err(LearnError::Stopped);
            }
        }
        self.wake();
        // A leader that lacks them was overtaken, and does not know yet.
        let follows = matches!(self.state, State::Follower(_)) && last.term <= self.common.term();
        if !follows {
            self.become_follower(self.common.term().max(last.term), PeerId::NONE);
        }
        let committed = self.common.log.committed();
        let news = entries.into_iter().skip_while(|entry| entry.index <= committed).collect();
        match self.common.log.merge(news) {
            Ok(()) => {
                self.common.log.commit_to(last.index);
                let known = self.common.log.committed();
                assert!(known >= last.index, "learned up to {last:?}, committed up to {known}");
            }
            Err(failure) => self.fail(failure),
        }
        Ok(())
    }

    /// What shows that the entries are not a piece of this group's log.
    fn contradiction(&self, entries: &[Entry]) -> Result<Option<&'static str>, Failure> {
        let log = &self.common.log;
        let committed = log.committed();
        let mut before: Option<LogPos> = None;
        for entry in entries {
            let pos = LogPos { index: entry.index, term: entry.term };
            if pos.index == 0 || pos.index >= NUMBER_MAX || pos.term >= NUMBER_MAX {
                return Ok(Some("a position that no group reaches"));
            }
            if before.is_some_and(|before| pos.index != before.index + 1) {
                return Ok(Some("they are not consecutive"));
            }
            let prev = match before {
                None => log.term(pos.index - 1)?,
                Some(before) => Some(before.term),
            };
            if prev.is_some_and(|prev| pos.term < prev) {
                return Ok(Some("their terms go back"));
            }
            let known = log.term(pos.index)?;
            if pos.index <= committed && known.is_some_and(|known| known != pos.term) {
                return Ok(Some("another entry is committed in the place of one of them"));
            }
            before = Some(pos);
        }
        Ok(None)
    }

    /// Asks each of `others`, members or not, whether it would vote for this node in the next term,
    /// whatever this node's role is. The answers change nothing here, and the question changes
    /// nothing there; but whoever drives one of them and knows more of this node's fate may speak
    /// up.
    pub fn inquire(&mut self, others: &[PeerId]) {
        let last = self.common.log.last();
        // Before anything was said in the group there is nothing to ask.
        if self.stopped || last.index == 0 {
            return;
        }
        let id = self.id();
        for &to in others.iter().filter(|to| **to != id) {
            self.common.ask_pre_vote(to, last);
        }
    }
}
