//! The steps of a replica's life that are not in its log: a snapshot is made, one is installed, the
//! replica goes.

use std::sync::Arc;

use base::rule::{Rule, keep};
use base::{Epoch, Index, PeerId, Region, RegionId};
use bytes::Bytes;
use raft::LogPos;
use storage::engine::{Cf, Engine};
use storage::keys;

use super::stage::put_tombstone;
use super::{Applied, Applier, ApplyOutbox, ApplyRegion, MergeNews, Milestone};
use crate::consistency::ComputeHash;
use crate::job::Job;
use crate::merge::{Absorbed, MergeState};
use crate::snapshot::{BUILDS_MAX, BuildSnapshot};
use crate::states::{self, ApplyState, LocalState};
use crate::{Fatal, members};

/// A snapshot that replaces what a replica holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The region as the snapshot describes it.
    pub region: Arc<Region>,
    /// The replica here.
    pub peer: PeerId,
    /// The last entry that the snapshot covers.
    pub pos: LogPos,
    /// The regions that it absorbed by then.
    pub absorbed: Arc<Absorbed>,
    /// The raft state with which the log begins behind it, encoded.
    pub raft_state: Bytes,
}

impl Installation {
    fn apply_state(&self) -> ApplyState {
        let pos = (self.pos.index, self.pos.term);
        ApplyState { applied: self.pos.index, commit: pos, truncated: pos }
    }

    fn record(&self, local: LocalState) -> Vec<u8> {
        states::encode_region_state(&self.region, local, None, &self.absorbed)
    }

    fn milestone(&self, milestone: Milestone) -> Applied {
        Applied {
            index: self.pos.index,
            term: self.pos.term,
            truncated: (self.pos.index, self.pos.term),
            ..Applied::milestone(self.region.id, milestone)
        }
    }
}

impl Applied {
    pub(super) fn milestone(region_id: RegionId, milestone: Milestone) -> Self {
        Self {
            region_id,
            index: 0,
            term: 0,
            truncated: (0, 0),
            written_bytes: 0,
            written_keys: 0,
            sampled_keys: Vec::new(),
            region: None,
            births: Vec::new(),
            conf_changes: Vec::new(),
            verify: None,
            merge: MergeNews::default(),
            milestone: Some(milestone),
        }
    }
}

impl Applier {
    /// The engine's snapshot is taken between two batches, so that it holds what the apply state
    /// says and nothing else.
    pub(super) fn snapshot(
        &mut self,
        id: RegionId,
        to: PeerId,
        at_least: Index,
        out: &mut ApplyOutbox,
    ) -> Result<(), Fatal> {
        if keep(Rule::SnapshotBetweenBatches) {
            self.write(out)?;
        }
        // Whoever asked is gone if the region is.
        if let Some(region) = self.regions.get_mut(&id) {
            region.wanted.retain(|(other, _)| *other != to);
            region.wanted.push((to, at_least));
            if !self.wanted.contains(&id) {
                self.wanted.push_back(id);
            }
        }
        self.begin_snapshots(out);
        Ok(())
    }

    /// Begins snapshots that wait for no entry any more, as many as may be made at once: each keeps
    /// the engine from forgetting what it sees. Everything staged must be written.
    pub(super) fn begin_snapshots(&mut self, out: &mut ApplyOutbox) {
        for _ in 0..self.wanted.len() {
            let free = BUILDS_MAX - self.building;
            if free == 0 {
                return;
            }
            let id = self.wanted.pop_front().expect("so many are there");
            let Some(region) = self.regions.get_mut(&id) else { continue };
            let jobs = region.snapshots(&*self.engine, free);
            self.building += jobs.len();
            out.jobs.extend(jobs);
            if !region.wanted.is_empty() {
                self.wanted.push_back(id);
            }
        }
    }

    /// From here on the region's data is the snapshot's or nothing: a restart installs it.
    pub(super) fn begin_install(
        &mut self,
        installation: &Installation,
        out: &mut ApplyOutbox,
    ) -> Result<(), Fatal> {
        self.write(out)?;
        let id = installation.region.id;
        if let Some(mut old) = self.regions.remove(&id) {
            self.forget_paused(&mut old);
            let (old, new) = (old.state.applied, installation.pos.index);
            assert!(old <= new, "region {id}: a snapshot at {new} where {old} is applied");
        }
        let region = installation.record(LocalState::Applying);
        let state = installation.apply_state().encode();
        self.batch.put(Cf::Raft, &keys::region_state_key(id), &region);
        self.batch.put(Cf::Raft, &keys::apply_state_key(id), &state);
        self.batch.put(Cf::Raft, &keys::snapshot_raft_state_key(id), &installation.raft_state);
        self.unsynced.push(installation.milestone(Milestone::Applying));
        self.write(out)
    }

    /// The data is there.
    pub(super) fn finish_install(
        &mut self,
        installation: Installation,
        out: &mut ApplyOutbox,
    ) -> Result<(), Fatal> {
        let id = installation.region.id;
        let record = installation.record(LocalState::Normal);
        self.batch.put(Cf::Raft, &keys::region_state_key(id), &record);
        self.batch.delete(Cf::Raft, &keys::snapshot_raft_state_key(id));
        self.unsynced.push(installation.milestone(Milestone::Installed));
        let state = installation.apply_state();
        let Installation { region, peer, pos, absorbed, .. } = installation;
        let region = ApplyRegion::new(region, state, pos.term, peer);
        self.create(ApplyRegion { absorbed, ..region });
        self.write(out)
    }

    /// The replica goes, if `peer` is still the one that is here.
    pub(super) fn destroy(
        &mut self,
        region: &Region,
        peer: PeerId,
        merged_into: Option<Box<Region>>,
        out: &mut ApplyOutbox,
    ) -> Result<(), Fatal> {
        self.write(out)?;
        let merge =
            merged_into.map(|target| MergeState { min_index: 0, commit: 0, target: *target });
        let merge = merge.as_ref();
        match self.regions.remove(&region.id) {
            None => self.destroy_again(region, peer, merge),
            Some(mut old) => {
                self.forget_paused(&mut old);
                assert_eq!(old.peer, peer, "region {}: another replica is here", region.id);
                // Its keys may be fewer than the shard knew when it asked.
                let conf_ver = region.epoch.conf_ver.max(old.region.epoch.conf_ver);
                let epoch = Epoch { conf_ver, ..old.region.epoch };
                let region = Region { epoch, ..(*old.region).clone() };
                put_tombstone(&mut self.batch, (&region, peer), merge, &old.absorbed);
            }
        }
        let milestone = Milestone::Destroyed(peer);
        self.unsynced.push(Applied::milestone(region.id, milestone));
        self.write(out)
    }

    /// Nothing of the replica is here; there may be the record of one that left, which knows more.
    fn destroy_again(&mut self, region: &Region, peer: PeerId, merge: Option<&MergeState>) {
        match self.tombstone(region.id) {
            // It was taken over before this could be known.
            Some(left) if left.merge.is_some() => {}
            // An entry removed it before this could be known.
            Some(left) if left.region.epoch.conf_ver >= region.epoch.conf_ver => {
                let last = left.region.peers.first().map_or(peer, |peer| peer.id);
                put_tombstone(&mut self.batch, (&left.region, last), merge, &left.absorbed);
            }
            _ => put_tombstone(&mut self.batch, (region, peer), merge, &Absorbed::default()),
        }
    }

    /// Makes durable what must be before anybody goes on with it. One sync serves all steps of a
    /// turn.
    pub(super) fn sync(&mut self, out: &mut ApplyOutbox) -> Result<(), Fatal> {
        assert!(self.taken.is_empty(), "what was taken over is told when it is written");
        let members_changed = std::mem::take(&mut self.members_changed);
        let members_changed = members_changed && keep(Rule::SyncBeforeMembersAreTold);
        if self.unsynced.is_empty() && !members_changed {
            return Ok(());
        }
        if keep(Rule::SyncLifeSteps) {
            self.engine.sync().map_err(|cause| Fatal::engine(&cause))?;
        }
        out.applied.append(&mut self.unsynced);
        Ok(())
    }
}

impl ApplyRegion {
    /// The hash of what the last entry left, if it asked for it. Everything staged must be written,
    /// and nothing behind that entry.
    pub(super) fn hash(&mut self, engine: &dyn Engine) -> Option<Job> {
        let horizon = self.hash_asked.take().filter(|_| !self.removed)?;
        let (region, index) = (self.region.clone(), self.state.applied);
        let snapshot = engine.snapshot();
        Some(Job::ComputeHash(ComputeHash { region, index, horizon, snapshot }))
    }

    /// At most so many of the snapshots that wait for no entry any more.
    fn snapshots(&mut self, engine: &dyn Engine, at_most: usize) -> Vec<Job> {
        let applied = self.state.applied;
        if self.removed
            || self.merge.is_some() && keep(Rule::NoSnapshotWhileMerging)
            || self.wanted.iter().all(|(_, at_least)| *at_least > applied)
        {
            return Vec::new();
        }
        let (region, pos, conf) = (self.region.clone(), self.pos(), members::conf_of(&self.region));
        let snapshot = engine.snapshot();
        let due = self.wanted.extract_if(.., |(_, at_least)| *at_least <= applied);
        let build = due.take(at_most).map(|(to, _)| BuildSnapshot {
            region: region.clone(),
            absorbed: self.absorbed.clone(),
            to,
            pos,
            conf: conf.clone(),
            snapshot: snapshot.clone(),
        });
        build.map(Job::BuildSnapshot).collect()
    }
}
