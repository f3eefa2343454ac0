//! Snapshots and sleep: the calls that a driver makes beside the usual ones.

use base::PeerId;

use super::{RawNode, State};
use crate::error::{SnapshotError, SnapshotRequestError};
use crate::snapshot::Snapshot;

/// Snapshots.
impl RawNode {
    /// The snapshot is there that [`Ready::snapshots_wanted`](crate::Ready::snapshots_wanted) asked
    /// for. It leaves as a message to `to` with the next `Ready`; tell then how that went with
    /// [`snapshot_sent`](Self::snapshot_sent) or [`snapshot_failed`](Self::snapshot_failed).
    pub fn snapshot_made(&mut self, to: PeerId, snapshot: Snapshot) -> Result<(), SnapshotError> {
        let State::Leader(leader) = &mut self.state else {
            return Err(SnapshotError::NotWanted { to });
        };
        if self.stopped {
            return Err(SnapshotError::NotWanted { to });
        }
        match leader.on_snapshot_made(&mut self.common, to, snapshot) {
            Ok(answer) => answer,
            Err(failure) => {
                self.fail(failure);
                Err(SnapshotError::NotWanted { to })
            }
        }
    }

    /// The snapshot reached `to` as a whole. Nothing if none was on the way.
    pub fn snapshot_sent(&mut self, to: PeerId) {
        if let State::Leader(leader) = &mut self.state {
            leader.on_snapshot_over(to, true);
        }
    }

    /// The snapshot for `to` could not be made, or got lost. If it is still needed another is asked
    /// for once `to` is heard. Nothing if none was wanted.
    pub fn snapshot_failed(&mut self, to: PeerId) {
        if let State::Leader(leader) = &mut self.state {
            leader.on_snapshot_over(to, false);
        }
    }

    /// The state machine of this follower is damaged: asks the leader for a snapshot of at least
    /// what the log holds, again with each heartbeat until it comes. Meanwhile the node
    /// does not campaign, and its log grows no further once all of it is committed in the leader's
    /// term; it still votes. So it is half dead: with many others down the group may need the
    /// request to be forgotten, as it is in a restart.
    pub fn request_snapshot(&mut self) -> Result<(), SnapshotRequestError> {
        self.wake();
        if self.is_leader() {
            return Err(SnapshotRequestError::Leader);
        }
        if self.common.conf.is_sole_voter(self.id()) {
            return Err(SnapshotRequestError::SoleVoter);
        }
        self.common.needs_snapshot = true;
        if matches!(self.state, State::Candidate(_)) {
            // It must not be elected any more.
            self.become_follower(self.common.term(), PeerId::NONE);
        }
        if let Some(leader) = self.leader() {
            self.common.ask_snapshot(leader);
        }
        Ok(())
    }
}

/// Sleep, so that a million idle groups cost nothing.
impl RawNode {
    /// Leader: puts the group to sleep, and says whether it did: if everybody has, and it has
    /// applied, every entry, and nothing waits. From then on nobody ticks, heartbeats or campaigns,
    /// and a lease runs out. Any message or call that wants something wakes the group again; so
    /// does [`wake`](Self::wake). A member that misses it wakes the others by its next election
    /// timeout.
    ///
    /// Nobody in a sleeping group notices that its leader is gone: whoever does must wake it.
    pub fn quiesce(&mut self) -> bool {
        if self.stopped || self.common.quiet {
            return self.common.quiet;
        }
        let State::Leader(leader) = &mut self.state else { return false };
        self.common.quiet = leader.quiesce(&mut self.common);
        if self.common.quiet {
            self.common.rest();
        }
        self.common.quiet
    }

    /// Ticks count again. A leader tells the others by a round of heartbeats; a follower that hears
    /// of no leader campaigns after an election timeout.
    pub fn wake(&mut self) {
        if !self.common.quiet {
            return;
        }
        self.common.quiet = false;
        if let State::Leader(leader) = &mut self.state {
            leader.wake(&self.common);
        }
    }

    /// So many ticks passed while it slept. What it promised to its leader runs out by them, and a
    /// follower that is woken since its leader is dead need not wait for as long again. Does
    /// nothing if it is awake.
    pub fn slept(&mut self, ticks: u32) {
        if !self.common.quiet {
            return;
        }
        self.common.voteless_ticks = self.common.voteless_ticks.saturating_sub(ticks);
        if let State::Follower(follower) = &mut self.state {
            let most = self.common.config.election_ticks;
            follower.elapsed = follower.elapsed.saturating_add(ticks).min(most);
        }
    }

    /// Who should lead, see [`Config::priority`](crate::Config::priority).
    pub fn set_priority(&mut self, priority: i64) {
        self.common.config.priority = priority;
    }
}
