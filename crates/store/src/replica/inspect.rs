//! What a replica tells about itself.

use std::sync::Arc;
use std::time::Duration;

use base::rule::{Rule, keep};
use base::{Index, Instant, KeyRange, Peer, PeerId, Region, Term};
use raft::HardState;

use super::Replica;
use crate::RegionError;
use crate::inspection::{Activity, MemberProgress, ReplicaStatus};
use crate::view::RegionView;

impl Replica {
    /// Up to where the log may be cut once the engine is synced, if that is further than it was cut
    /// already.
    pub(crate) fn wants_cut(&self) -> Option<(Index, Term)> {
        let idle = self.install.is_none() && !self.leaving;
        (idle && self.truncated.0 > self.cut).then_some(self.truncated)
    }

    /// Whether the log may be cut up to `index`, and if so, it is.
    pub(crate) fn cut(&mut self, index: Index) -> bool {
        if self.leaving || self.install.is_some() || index <= self.cut {
            return false;
        }
        assert!(index <= self.applied.0, "region {}: cut beyond applied", self.region.id);
        self.cut = index;
        true
    }

    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    pub(crate) fn peer(&self) -> Peer {
        self.peer
    }

    /// Whether it knows its region, or is a name without one.
    pub(crate) fn is_initialised(&self) -> bool {
        !self.region.peers.is_empty()
    }

    /// The keys that it has, or will have when a snapshot is installed.
    pub(crate) fn coming_range(&self) -> Option<&KeyRange> {
        self.install.as_ref().map(|install| &install.what.region.range)
    }

    /// Whether a snapshot is being installed, or arrived in this turn: raft counts on it already.
    pub(crate) fn takes_snapshot(&self) -> bool {
        self.install.is_some() || self.arrived.is_some()
    }

    pub(crate) fn life(&self) -> u64 {
        self.life
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving
    }

    pub(crate) fn applied_term(&self) -> Term {
        self.applied.1
    }

    /// Whether the world thinks that this replica leads.
    pub(crate) fn was_reported(&self) -> bool {
        self.reported.is_some()
    }

    /// A snapshot for `to` is there. `Err`: raft does not want it any more.
    pub(crate) fn snapshot_made(
        &mut self,
        to: PeerId,
        snapshot: raft::Snapshot,
    ) -> Result<(), raft::SnapshotError> {
        self.node.snapshot_made(to, snapshot)
    }

    /// A snapshot for `to` arrived there, or is lost.
    pub(crate) fn snapshot_sent(&mut self, to: PeerId, arrived: bool) {
        self.snapshot_is_over(to);
        match arrived {
            true => self.node.snapshot_sent(to),
            false => self.node.snapshot_failed(to),
        }
    }

    /// Everything that people may want to know.
    pub(crate) fn status(&self, now: Instant, log_bytes: u64) -> ReplicaStatus {
        let status = self.node.status();
        let progress = |member: &raft::MemberStatus| MemberProgress {
            peer: member.id,
            matched: member.matched,
            flow: member.flow,
            alive: self.is_alive(member.id),
        };
        let view = self.view().filter(|view| view.has_lease(now));
        ReplicaStatus {
            region: self.region.clone(),
            peer: self.peer,
            activity: self.activity(),
            leader: self.leader(),
            term: status.term,
            last: status.last,
            committed: status.committed,
            applied: self.applied.0,
            truncated: self.truncated,
            log_bytes,
            lease_left: view.map_or(Duration::ZERO, |view| view.lease_until.since(now)),
            quiet: status.quiet,
            check: self.check_status(),
            members: match self.is_quiet() && self.node.is_leader() {
                true => self.level_members(status.last),
                false => status.members.iter().map(progress).collect(),
            },
        }
    }

    /// In a group that sleeps everybody has everything.
    fn level_members(&self, last: Index) -> Vec<MemberProgress> {
        let others = self.region.peers.iter().filter(|peer| peer.id != self.peer.id);
        let flow = raft::FlowStatus::Replicate(0);
        let level =
            |peer: &Peer| MemberProgress { peer: peer.id, matched: last, flow, alive: true };
        others.map(level).collect()
    }

    fn activity(&self) -> Activity {
        if self.leaving {
            Activity::Leaving
        } else if self.install.is_some() {
            Activity::Installing
        } else if self.lost {
            Activity::Lost
        } else if !self.is_initialised() {
            Activity::Uninitialised
        } else if self.is_merging() {
            Activity::Merging
        } else {
            Activity::Serving
        }
    }

    pub(crate) fn hard_state(&self) -> HardState {
        self.node.hard_state()
    }

    pub(crate) fn term(&self) -> Term {
        self.node.term()
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.node.is_leader()
    }

    pub(crate) fn awaits_applied(&self) -> bool {
        self.reads.awaits_applied()
            || (self.node.is_leader() && !self.serves_reads())
            || self.is_fenced()
            || self.install.is_some()
            || self.leaving
    }

    /// Whether it takes no part: it goes, or a restart found it without its data.
    pub(crate) fn takes_no_part(&self) -> bool {
        self.leaving || self.install.as_ref().is_some_and(|install| install.is_resumed())
    }

    /// Whether a split is on its way, or a merge that is not off.
    pub(super) fn is_fenced(&self) -> bool {
        self.fence.0 == self.node.term() && self.fence.1 > self.applied.0 || self.is_merging()
    }

    pub(super) fn serves_reads(&self) -> bool {
        let own = self.applied.1 == self.node.term() || !keep(Rule::ReadInOwnTerm);
        self.node.is_leader() && own
    }

    fn leader(&self) -> Option<Peer> {
        self.region.peer(self.node.leader().unwrap_or(PeerId::NONE)).copied()
    }

    pub(super) fn not_leader(&self) -> RegionError {
        RegionError::NotLeader { region: self.region.id, leader: self.leader() }
    }

    /// Whether what is in the engine is what the applied index says.
    pub(super) fn has_data(&self) -> bool {
        self.install.is_none() && !self.lost
    }

    /// Whoever decides alone needs nobody to confirm that it leads, and no ticks.
    fn lease_until(&self) -> Instant {
        match self.is_fenced() {
            true => Instant::ZERO,
            false if self.decides_alone() && self.node.confirmed_round() > 0 => Instant::MAX,
            false => self.lease.until(),
        }
    }

    /// What others may know of this replica now; nothing of one that has nothing.
    pub(crate) fn view(&self) -> Option<RegionView> {
        (self.is_initialised() && !self.leaving).then(|| RegionView {
            region: self.region.clone(),
            peer: self.peer,
            leader: self.leader(),
            term: self.node.term(),
            applied: self.applied.0,
            serves_reads: self.serves_reads() && !self.is_fenced(),
            lease_until: self.lease_until(),
            generation: (self.life, self.installs),
            has_data: self.has_data(),
            traffic: self.traffic.clone(),
        })
    }
}
