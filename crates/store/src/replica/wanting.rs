//! Snapshots that members of a region led here wait for.
//!
//! Each is made once the member's store has granted a credit for it, and that is asked for on and
//! on: until it is granted, so that no message need arrive, and after that, so that the store knows
//! that it is still used. Whoever does not ask any more has given it back (`snapshot/credits.rs`).

use base::rule::{Rule, keep};
use base::{Index, Peer, PeerId, Term};
use raft::{FlowStatus, SnapshotWanted};

use super::Replica;
use crate::apply::ApplyInput;
use crate::input::{Outbox, SnapshotCredit};
use crate::snapshot::CREDIT_ASK_TICKS;

/// A member that waits.
pub(super) struct Want {
    to: Peer,
    /// What the snapshot must cover.
    at_least: Index,
    /// When the credit was last asked for.
    asked: u64,
    granted: bool,
}

impl Replica {
    /// Raft wants a snapshot for a member.
    pub(super) fn want_snapshot(&mut self, wanted: SnapshotWanted, out: &mut Outbox) {
        let member = self.region.peer(wanted.to).or_else(|| self.contacts.peer(wanted.to));
        let Some(to) = member.copied() else { return self.node.snapshot_failed(wanted.to) };
        self.wants.retain(|want| want.to.id != to.id);
        let (at_least, asked) = (wanted.at_least, self.ticks);
        self.wants.push(Want { to, at_least, asked, granted: false });
        self.ask_for_credit(to, out);
    }

    /// A tick passed.
    pub(super) fn ask_for_credits(&mut self, out: &mut Outbox) {
        if self.wants.is_empty() {
            return;
        }
        self.forget_unwanted();
        let now = self.ticks;
        let mut due = Vec::new();
        for want in self.wants.iter_mut().filter(|want| now - want.asked >= CREDIT_ASK_TICKS) {
            want.asked = now;
            due.push(want.to);
        }
        due.into_iter().for_each(|to| self.ask_for_credit(to, out));
    }

    /// The store of the member has room. In an earlier term it was asked for what is not wanted any
    /// more.
    pub(crate) fn credit_granted(&mut self, to: PeerId, term: Term, out: &mut Outbox) {
        self.forget_unwanted();
        if term != self.node.term() || self.makes_no_snapshots() {
            return;
        }
        let region_id = self.region.id;
        if let Some(want) = self.wants.iter_mut().find(|want| want.to.id == to && !want.granted) {
            want.granted = true;
            out.apply.push(ApplyInput::Snapshot { region_id, to, at_least: want.at_least });
        }
    }

    /// The snapshot for `to` is over, one way or the other.
    pub(super) fn snapshot_is_over(&mut self, to: PeerId) {
        self.wants.retain(|want| want.to.id != to);
    }

    fn ask_for_credit(&self, to: Peer, out: &mut Outbox) {
        if !self.makes_no_snapshots() {
            let (region_id, from, term) = (self.region.id, self.peer, self.node.term());
            out.credits.push(SnapshotCredit { region_id, from, to, term, asks: true });
        }
    }

    /// A region that merges makes none before it is known what becomes of it, and holds no credit.
    fn makes_no_snapshots(&self) -> bool {
        self.is_merging() && keep(Rule::NoSnapshotWhileMerging)
    }

    /// A member may have found another way, be removed, or be somebody else's.
    fn forget_unwanted(&mut self) {
        let members = self.node.status().members;
        let waits = |to: PeerId| {
            let mut found = members.iter().filter(|member| member.id == to);
            found.any(|member| matches!(member.flow, FlowStatus::Snapshot(_)))
        };
        self.wants.retain(|want| waits(want.to.id));
    }
}
