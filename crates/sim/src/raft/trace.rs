//! A run as text: one line for each effect.

use std::fmt;

use base::Entry;
use raft::{AppendOutcome, Body, ConfState, Message, Persist};

/// A message as `kind, what it says`, without who sends it to whom.
pub(crate) struct Said<'a>(pub(crate) &'a Message);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{} ", self.0.term)?;
        match &self.0.body {
            Body::Append { prev, entries, commit, round } => {
                write!(f, "append {prev} + {} commit {commit} round {round}", Range(entries))
            }
            Body::AppendResponse { outcome: AppendOutcome::Matched(index), round } => {
                write!(f, "matched {index} round {round}")
            }
            Body::AppendResponse { outcome: AppendOutcome::Conflict { prev, hint }, round } => {
                write!(f, "conflict at {prev} hint {hint} round {round}")
            }
            Body::Snapshot { snapshot, round } => {
                let members = Members(&snapshot.conf);
                write!(f, "snapshot at {} {members} round {round}", snapshot.pos)
            }
            other => write!(f, "{other:?}"),
        }
    }
}

/// Entries as `first@term..last@term`.
pub(crate) struct Range<'a>(pub(crate) &'a [Entry]);

impl fmt::Display for Range<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => write!(f, "nothing"),
            [only] => write!(f, "{}@{}", only.index, only.term),
            [first, .., last] => {
                write!(f, "{}@{}..{}@{}", first.index, first.term, last.index, last.term)
            }
        }
    }
}

/// A write.
pub(crate) struct Write<'a>(pub(crate) &'a Persist);

impl fmt::Display for Write<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let persist = self.0;
        write!(f, "#{}", persist.ticket)?;
        if let Some(snapshot) = &persist.snapshot {
            write!(f, " snapshot at {} {}", snapshot.pos, Members(&snapshot.conf))?;
        }
        if let Some(state) = persist.hard_state {
            write!(f, " term {} vote {} commit {}", state.term, state.vote, state.commit)?;
        }
        if !persist.entries.is_empty() {
            write!(f, " entries {}", Range(&persist.entries))?;
        }
        match persist.then.len() {
            0 => Ok(()),
            count => write!(f, " then {count} messages"),
        }
    }
}

/// Members.
pub(crate) struct Members<'a>(pub(crate) &'a ConfState);

impl fmt::Display for Members<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = |ids: &[base::PeerId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
        write!(f, "voters {:?}", ids(&self.0.voters))?;
        if let Some(joint) = &self.0.joint {
            let (outgoing, next) = (ids(&joint.voters_outgoing), ids(&joint.learners_next));
            write!(f, " outgoing {outgoing:?} next learners {next:?}, {:?}", joint.leave)?;
        }
        if !self.0.learners.is_empty() {
            write!(f, " learners {:?}", ids(&self.0.learners))?;
        }
        Ok(())
    }
}
