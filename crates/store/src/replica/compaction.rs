//! How a region's log shrinks: the leader proposes what it may forget, and every replica forgets it
//! once its engine is synced past it (`Shard::sync_engine`).
//!
//! ```text
//!   the region's own limits:  over one   up to what every living member has
//!                             over two   up to what is applied here
//!   the store's budget:       over half  as over one, the largest logs of the store first
//!                             over all   as over two
//! ```
//!
//! A member that lacks what the log forgot gets a snapshot. One that is not heard of any more holds
//! nothing back.

use base::Index;
use base::rule::{Rule, keep};
use raft::{FlowStatus, MemberStatus};

use super::Replica;
use crate::apply::Waiting;
use crate::command;
use crate::input::{Outbox, RegionRequest};
use crate::reply::ReplyTo;
use crate::shard::ShardConfig;

/// Whom a compaction leaves what they lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// Every living member.
    Living,
    /// Only this store.
    Nobody,
}

impl Replica {
    /// Proposes a compaction if the log holds more than the limits say.
    pub(crate) fn compact_log(&mut self, config: &ShardConfig, out: &mut Outbox) {
        let entries = self.applied.0.saturating_sub(self.truncated.0);
        let over = |factor| {
            entries >= config.log_entries_max * factor
                || self.log_bytes >= config.log_bytes_max * factor
        };
        if !over(1) || !self.serves_reads() {
            return;
        }
        let index = self.compactable(if over(2) { Leave::Nobody } else { Leave::Living });
        let freed = index.saturating_sub(self.truncated.0);
        if freed > 0 && index > self.compact_asked() && freed * 2 >= entries {
            self.propose_compaction(index, Vec::new(), out);
        }
    }

    /// About how many of the log's `bytes` would go by a compaction for the sake of the store's
    /// budget, or will by one that is on its way. None if it is less than half of them.
    pub(crate) fn forgettable(&self, leave: Leave, bytes: u64) -> u64 {
        let entries = self.node.last_index().saturating_sub(self.cut);
        let index = self.compactable(leave).max(self.compact_asked());
        let freed = index.saturating_sub(self.cut);
        if freed * 2 < entries || entries == 0 || !self.serves_reads() {
            return 0;
        }
        u64::try_from(u128::from(bytes) * u128::from(freed) / u128::from(entries)).unwrap_or(bytes)
    }

    /// Proposes that compaction, unless the one that is on its way does nearly the same.
    pub(crate) fn compact_for_store(&mut self, leave: Leave, out: &mut Outbox) {
        let (index, done) = (self.compactable(leave), self.cut.max(self.compact_asked()));
        let entries = self.node.last_index().saturating_sub(self.cut);
        if index > done && (index - done) * 2 >= entries && index > self.truncated.0 {
            self.propose_compaction(index, Vec::new(), out);
        }
    }

    /// Proposes one because somebody asks for it.
    pub(crate) fn compact_on_request(&mut self, request: RegionRequest, out: &mut Outbox) {
        let RegionRequest { header, reply } = request;
        self.wake();
        if let Err(error) = self.check_leader(&header) {
            out.replies.push((reply, Err(error)));
            return;
        }
        let index = self.compactable(Leave::Living);
        match self.serves_reads() && index > self.truncated.0 {
            true => self.propose_compaction(index, vec![reply], out),
            false => out.replies.push((reply, Ok(()))),
        }
    }

    /// Up to where the log may be forgotten now.
    fn compactable(&self, leave: Leave) -> Index {
        match leave {
            // The end of its log may be wanted yet.
            _ if self.is_merging() && keep(Rule::MergeKeepsLog) => self.truncated.0,
            Leave::Living => self.applied.0.min(self.slowest()),
            Leave::Nobody => self.applied.0,
        }
    }

    /// Up to where it was asked to in this term.
    fn compact_asked(&self) -> Index {
        let (term, index) = self.compact_asked;
        if term == self.node.term() { index } else { 0 }
    }

    fn propose_compaction(&mut self, index: Index, replies: Vec<ReplyTo>, out: &mut Outbox) {
        let id = self.region.id;
        assert!(index <= self.applied.0, "region {id}: the log would forget {index}, not applied");
        let Some(term) = self.node.term_at(index) else {
            out.replies.extend(replies.into_iter().map(|reply| (reply, Ok(()))));
            return;
        };
        let entry = command::encode_compact_log(self.region.epoch, index, term);
        match self.node.propose(entry) {
            Ok((term, at)) => {
                self.wait(Waiting { index: at, term, replies }, out);
                self.compact_asked = (term, index);
                self.log_bytes = 0;
            }
            Err(error) => self.refuse(replies, &error, out),
        }
    }

    /// The last entry that all members have which are alive. One that is getting a snapshot will
    /// need what comes behind it.
    fn slowest(&self) -> Index {
        let members = self.node.status().members;
        let alive = members.iter().filter(|member| self.is_alive(member.id));
        let has = |member: &MemberStatus| match member.flow {
            FlowStatus::Snapshot(index) => index.unwrap_or(self.truncated.0),
            _ => member.matched,
        };
        alive.map(has).min().unwrap_or(Index::MAX)
    }
}
