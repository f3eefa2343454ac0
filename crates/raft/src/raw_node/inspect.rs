//! What a node tells about itself.

use base::{Entry, Index, PeerId, Term};

use super::{RawNode, State};
use crate::log::entry_size;
use crate::ready::HardState;
use crate::status::{MemberStatus, Role, Status};

/// What it tells about itself.
impl RawNode {
    /// The node's own id.
    pub fn id(&self) -> PeerId {
        self.common.id()
    }

    /// Its role.
    pub fn role(&self) -> Role {
        match &self.state {
            State::Follower(_) => Role::Follower,
            State::Candidate(candidate) if candidate.pre => Role::PreCandidate,
            State::Candidate(_) => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    /// Whether it leads its term, as far as it knows. Only a lease or a confirmed round proves it
    /// to others.
    pub fn is_leader(&self) -> bool {
        matches!(self.state, State::Leader(_))
    }

    /// The latest term it has seen.
    pub fn term(&self) -> Term {
        self.common.term()
    }

    /// The leader of the term, if it is known.
    pub fn leader(&self) -> Option<PeerId> {
        match &self.state {
            State::Follower(follower) => {
                (follower.leader != PeerId::NONE).then_some(follower.leader)
            }
            State::Candidate(_) => None,
            State::Leader(_) => Some(self.id()),
        }
    }

    /// The last entry known to be committed.
    pub fn committed(&self) -> Index {
        self.common.log.committed()
    }

    /// The last entry that was reported as applied.
    pub fn applied_index(&self) -> Index {
        self.common.log.applied()
    }

    /// The last entry of the log, durable or not.
    pub fn last_index(&self) -> Index {
        self.common.log.last().index
    }

    /// The term at `index`, as far as the log can tell: `None` above its end, below its start, or
    /// when storage fails.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.common.log.term(index).ok().flatten()
    }

    /// The entries `first..=last`, durable or not: those from the front that fit into `bytes_max`,
    /// but at least one. `None` if the log does not have them all, or storage fails.
    pub fn entries(&self, first: Index, last: Index, bytes_max: usize) -> Option<Vec<Entry>> {
        let log = &self.common.log;
        if first == 0 || first > last || last > log.last().index || log.is_restoring() {
            return None;
        }
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        loop {
            let low = entries.last().map_or(first, |entry| entry.index + 1);
            if low > last || bytes >= bytes_max {
                return Some(entries);
            }
            let page = log.entries(low, last, bytes_max - bytes).ok().flatten()?;
            for entry in page {
                bytes += entry_size(&entry);
                if bytes > bytes_max && !entries.is_empty() {
                    return Some(entries);
                }
                entries.push(entry);
            }
        }
    }

    /// The hard state at this moment, durable or not.
    pub fn hard_state(&self) -> HardState {
        self.common.hard_state()
    }

    /// The latest round that this node began as leader. Grows in `tick` and in `ready`, and when it
    /// is elected. A number never comes back while this node lives, whatever roles it has.
    pub fn round(&self) -> u64 {
        self.common.round
    }

    /// The latest of its rounds that a quorum answered, so that nobody else led, and nobody else
    /// will be elected within an election timeout, counted from when that round began. Zero if it
    /// does not lead, if no round was answered yet, and from the moment at which it asks a
    /// successor to campaign until a later round is answered.
    pub fn confirmed_round(&self) -> u64 {
        match &self.state {
            State::Leader(leader) => leader.lease_round(&self.common),
            _ => 0,
        }
    }

    /// Whether it sleeps: `tick` does nothing, and need not be called, until something happens.
    pub fn is_quiet(&self) -> bool {
        self.common.quiet
    }

    /// Everything of interest.
    pub fn status(&self) -> Status {
        let log = &self.common.log;
        let (tail_entries, tail_capacity) = log.tail_len();
        let members = match &self.state {
            State::Leader(leader) => leader.progress.iter().map(MemberStatus::of).collect(),
            _ => Vec::new(),
        };
        Status {
            id: self.id(),
            role: self.role(),
            term: self.term(),
            vote: self.common.vote(),
            leader: self.leader(),
            last: log.last().index,
            stable: log.stable(),
            committed: log.committed(),
            applied: log.applied(),
            quiet: self.is_quiet(),
            tail_entries,
            tail_capacity,
            conf: self.common.conf.clone(),
            transferring_to: match &self.state {
                State::Leader(leader) => leader.successor(),
                _ => None,
            },
            members,
        }
    }
}
