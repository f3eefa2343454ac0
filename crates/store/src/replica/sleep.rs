//! Sleep: a group with nothing to do costs nothing.
//!
//! The leader puts it to sleep once everybody has everything and nobody wanted anything for a
//! while; from then on nobody ticks. Any request and any message wakes it, and so does the store
//! when another store that matters to it is silent (`liveness`).

use base::StoreId;

use super::Replica;
use crate::members;
use crate::shard::ShardConfig;

/// What changes when something happens in a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Activity {
    last: base::Index,
    applied: base::Index,
    term: base::Term,
    asked: u64,
    read: u64,
}

impl Replica {
    /// Whether it need not tick until something happens.
    pub(crate) fn is_quiet(&self) -> bool {
        self.node.is_quiet()
    }

    /// The stores that must live for it to sleep on: those of all members if it leads, else the
    /// leader's. `None`: nobody knows the leader.
    pub(crate) fn sleeps_with(&self) -> Option<Vec<StoreId>> {
        if !self.node.is_leader() {
            return Some(vec![self.leader_heard()?.store_id]);
        }
        let others = self.region.peers.iter().filter(|peer| peer.id != self.peer.id);
        Some(others.map(|peer| peer.store_id).collect())
    }

    fn leader_heard(&self) -> Option<base::Peer> {
        let leader = self.node.leader()?;
        let known = self.region.peer(leader).or_else(|| self.contacts.peer(leader));
        known.copied().filter(|peer| peer.store_id != self.peer.store_id)
    }

    /// So many ticks of the store passed while it slept: what it promised to its leader runs out by
    /// them as if it had ticked.
    pub(crate) fn slept(&mut self, ticks: u64) {
        self.node.slept(u32::try_from(ticks).unwrap_or(u32::MAX));
    }

    /// Ticks count again.
    pub(crate) fn wake(&mut self) {
        self.idle_since = self.ticks;
        self.node.wake();
    }

    /// Puts the group to sleep if nothing happened in it for long enough.
    pub(super) fn fall_asleep(&mut self, config: &ShardConfig) {
        let activity = Activity {
            last: self.node.last_index(),
            applied: self.applied.0,
            term: self.node.term(),
            asked: self.next_context,
            // Those who read by the lease ask nobody.
            read: self.traffic.sums().requests,
        };
        if activity != self.activity || self.is_busy() {
            self.activity = activity;
            self.idle_since = self.ticks;
        }
        let patience = u64::from(config.sleep_ticks);
        if patience > 0 && self.ticks - self.idle_since >= patience && self.all_are_here(config) {
            self.node.quiesce();
        }
    }

    /// Whether something is under way, or waits for an answer.
    fn is_busy(&self) -> bool {
        let asks = !self.queue.is_empty() || !self.reads.is_idle() || !self.waiting.is_empty();
        asks || !self.applying.is_empty()
            || !self.held.is_empty()
            || self.takes_no_part()
            || self.lost
            || !self.serves_reads()
            || self.is_fenced()
            || self.moving.is_busy()
            || self.reported != Some(self.node.term())
    }

    /// Whether all members were heard just now. Those who sleep do not notice who is missing.
    fn all_are_here(&self, config: &ShardConfig) -> bool {
        let recent = u64::from(2 * config.heartbeat_ticks + 1);
        let is_here = |id| {
            let silence = self.contacts.silence(id, self.ticks);
            silence.is_some_and(|ticks| ticks <= recent)
        };
        let mut others = self.region.peers.iter().filter(|peer| peer.id != self.peer.id);
        others.all(|peer| is_here(peer.id))
    }

    /// Whether it is the only one who decides, so that nobody else can lead.
    pub(super) fn decides_alone(&self) -> bool {
        members::is_sole_voter(&self.region, self.peer.id)
    }
}
