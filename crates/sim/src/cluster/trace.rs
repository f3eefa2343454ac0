//! A run as text, one line an effect, and as one number that differs when runs do.

use base::{Instant, RegionId};
use store::{ApplyOutbox, Outbox, RaftMessage};

use super::event::Slot;
use crate::raft::Said;

/// Which lines are printed.
#[derive(Clone, Debug, Default)]
pub struct TraceFilter {
    /// Of this node only.
    pub node: Option<usize>,
    /// Of this region only.
    pub region: Option<RegionId>,
    /// Of these kinds only; none: all.
    pub kinds: Vec<String>,
}

pub(crate) struct Trace {
    hash: u64,
    filter: Option<TraceFilter>,
}

impl Trace {
    pub(crate) fn new(filter: Option<TraceFilter>) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, filter }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    fn count(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    /// Something happened.
    pub(crate) fn line(
        &mut self,
        now: Instant,
        node: Option<Slot>,
        region: Option<RegionId>,
        kind: &str,
        text: impl FnOnce() -> String,
    ) {
        self.count(now.0);
        self.count(node.map_or(0, |node| node as u64 + 1) ^ region.map_or(0, |id| id.0 << 8));
        self.count(kind.bytes().fold(0, |sum, byte| sum * 31 + u64::from(byte)));
        let Some(filter) = &self.filter else { return };
        let wanted = filter.node.is_none_or(|wanted| node == Some(wanted))
            && filter.region.is_none_or(|wanted| region.is_none_or(|region| region == wanted))
            && (filter.kinds.is_empty() || filter.kinds.iter().any(|wanted| wanted == kind));
        if wanted {
            let node = node.map_or_else(|| "-".to_owned(), |node| format!("n{node}"));
            let region = region.map_or_else(String::new, |id| match id.is_system() {
                true => " rS".to_owned(),
                false => format!(" r{id}"),
            });
            println!("{:>12.3} {node}{region} {kind} {}", now.0 as f64 / 1e6, text());
        }
    }

    /// A message left.
    pub(crate) fn sent(
        &mut self,
        now: Instant,
        from: Slot,
        to: Option<Slot>,
        message: &RaftMessage,
    ) {
        self.count(message.message.term ^ (message.to.id.0 << 20));
        let region = Some(message.region_id);
        self.line(now, Some(from), region, "send", || {
            let to = to.map_or_else(|| "nobody".to_owned(), |to| format!("n{to}"));
            let what = if message.tombstone { " tombstone" } else { "" };
            let peers = (message.from.id, message.to.id);
            format!(
                "-> {to} {}>{} e{}{what} {}",
                peers.0,
                peers.1,
                message.epoch,
                Said(&message.message)
            )
        });
    }

    /// A shard took its turn.
    pub(crate) fn shard(&mut self, now: Instant, slot: Slot, out: &Outbox) {
        self.count(out.apply.len() as u64 ^ ((out.replies.len() as u64) << 32));
        if self.filter.is_none() {
            return;
        }
        for input in &out.apply {
            self.line(now, Some(slot), None, "commit", || format!("{input:?}"));
        }
        for report in &out.reports {
            self.line(now, Some(slot), None, "report", || format!("{report:?}"));
        }
        for (_, result) in &out.replies {
            self.line(now, Some(slot), None, "reply", || format!("{result:?}"));
        }
        if !out.log.is_empty() {
            let log = &out.log;
            self.line(now, Some(slot), None, "write", || {
                format!("{:?} births {:?}", log.tickets, log.births)
            });
        }
    }

    /// An applier took its turn.
    pub(crate) fn applied(&mut self, now: Instant, slot: Slot, out: &ApplyOutbox) {
        for applied in &out.applied {
            self.count(applied.index ^ (applied.region_id.0 << 32));
            let region = Some(applied.region_id);
            self.line(now, Some(slot), region, "applied", || format!("{applied:?}"));
        }
    }
}
