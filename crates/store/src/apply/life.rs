//! The steps of a replica's life that are not in its log: a snapshot is made, one is installed, the
//! replica goes.

use std::sync::Arc;

use base::{Epoch, Index, PeerId, Region, RegionId};
use bytes::Bytes;
use raft::LogPos;
use storage::engine::{Cf, Engine};
use storage::keys;

use super::stage::put_tombstone;
use super::{Applied, Applier, ApplyOutbox, ApplyRegion, Milestone};
use crate::job::Job;
use crate::snapshot::BuildSnapshot;
use crate::states::{self, ApplyState, LocalState};
use crate::{Fatal, bootstrap, members};

/// A snapshot that replaces what a replica holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The region as the snapshot describes it.
    pub region: Arc<Region>,
    /// The replica here.
    pub peer: PeerId,
    /// The last entry that the snapshot covers.
    pub pos: LogPos,
    /// The raft state with which the log begins behind it, encoded.
    pub raft_state: Bytes,
}

impl Installation {
    fn apply_state(&self) -> ApplyState {
        let pos = (self.pos.index, self.pos.term);
        ApplyState { applied: self.pos.index, commit: pos, truncated: pos }
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
    fn milestone(region_id: RegionId, milestone: Milestone) -> Self {
        Self {
            region_id,
            index: 0,
            term: 0,
            truncated: (0, 0),
            written_bytes: 0,
            written_keys: 0,
            region: None,
            births: Vec::new(),
            conf_changes: Vec::new(),
            milestone: Some(milestone),
        }
    }
}

impl Applier {
    /// The engine's snapshot is taken between two batches, so that it holds what the apply state
    /// says and nothing else.
    pub(super) fn snapshot(
        &mut self,
        region: RegionId,
        to: PeerId,
        at_least: Index,
        out: &mut ApplyOutbox,
    ) -> Result<(), Fatal> {
        self.write(out)?;
        // Whoever asked is gone if the region is.
        if let Some(region) = self.regions.get_mut(&region) {
            region.wanted.retain(|(other, _)| *other != to);
            region.wanted.push((to, at_least));
            out.jobs.extend(region.snapshots(&*self.engine));
        }
        Ok(())
    }

    /// From here on the region's data is the snapshot's or nothing: a restart installs it.
    pub(super) fn begin_install(
        &mut self,
        installation: &Installation,
        out: &mut ApplyOutbox,
    ) -> Result<(), Fatal> {
        self.write(out)?;
        let id = installation.region.id;
        if let Some(old) = self.regions.remove(&id) {
            let (old, new) = (old.state.applied, installation.pos.index);
            assert!(old <= new, "region {id}: a snapshot at {new} where {old} is applied");
        }
        let region = states::encode_region_state(&installation.region, LocalState::Applying);
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
        bootstrap::put_region_state(&mut self.batch, &installation.region);
        self.batch.delete(Cf::Raft, &keys::snapshot_raft_state_key(id));
        self.unsynced.push(installation.milestone(Milestone::Installed));
        let state = installation.apply_state();
        let Installation { region, peer, pos, .. } = installation;
        self.create(ApplyRegion::new(region, state, pos.term, peer));
        self.write(out)
    }

    /// The replica goes, if `peer` is still the one that is here.
    pub(super) fn destroy(
        &mut self,
        region: &Region,
        peer: PeerId,
        out: &mut ApplyOutbox,
    ) -> Result<(), Fatal> {
        self.write(out)?;
        match self.regions.remove(&region.id) {
            None => put_tombstone(&mut self.batch, region, peer),
            Some(old) => {
                assert_eq!(old.peer, peer, "region {}: another replica is here", region.id);
                // Its keys may be fewer than the shard knew when it asked.
                let conf_ver = region.epoch.conf_ver.max(old.region.epoch.conf_ver);
                let epoch = Epoch { conf_ver, ..old.region.epoch };
                put_tombstone(&mut self.batch, &Region { epoch, ..(*old.region).clone() }, peer);
            }
        }
        let milestone = Milestone::Destroyed(peer);
        self.unsynced.push(Applied::milestone(region.id, milestone));
        self.write(out)
    }

    /// Makes durable what must be before anybody goes on with it. One sync serves all steps of a
    /// turn.
    pub(super) fn sync(&mut self, out: &mut ApplyOutbox) -> Result<(), Fatal> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
        self.engine.sync().map_err(|cause| Fatal::engine(&cause))?;
        out.applied.append(&mut self.unsynced);
        Ok(())
    }
}

impl ApplyRegion {
    /// The snapshots that wait for no entry any more. Everything staged must be written.
    pub(super) fn snapshots(&mut self, engine: &dyn Engine) -> Vec<Job> {
        let applied = self.state.applied;
        if self.removed || self.wanted.iter().all(|(_, at_least)| *at_least > applied) {
            return Vec::new();
        }
        let (region, pos, conf) = (self.region.clone(), self.pos(), members::conf_of(&self.region));
        let snapshot = engine.snapshot();
        let due = self.wanted.extract_if(.., |(_, at_least)| *at_least <= applied);
        let build = due.map(|(to, _)| BuildSnapshot {
            region: region.clone(),
            to,
            pos,
            conf: conf.clone(),
            snapshot: snapshot.clone(),
        });
        build.map(Job::BuildSnapshot).collect()
    }
}
