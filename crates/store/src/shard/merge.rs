//! The shard's part in merges: it sees both regions. See the page of `crate::merge`.
//!
//! With every tick: the region that a source waits for takes it over, if it is led here, or has
//! moved past the point at which it could, or asks for the lead if nothing comes of it; a source
//! whose end its target carries learns it; and a source that is told that it is gone goes, once its
//! target here cannot need its log any more.

use std::sync::Arc;

use base::rule::{Rule, keep};
use base::{Epoch, KeyRange, PeerId, Region, RegionId};
use raft::{Body, Snapshot};

use super::Shard;
use crate::apply::Applied;
use crate::input::{Outbox, RaftMessage};
use crate::replica::{Learnt, Replica};
use crate::snapshot::SnapshotData;

/// After so many election timeouts a source that is only in the log counts as gone.
const PATIENCE_TIMEOUTS: u64 = 20;

impl Shard {
    /// The replica may have something to do with a merge from now on.
    pub(super) fn watch_merges(&mut self, id: RegionId) {
        if self.replicas.get(&id).is_some_and(Replica::has_merge_to_do) {
            self.merging.insert(id);
        }
    }

    pub(super) fn tick_merges(&mut self, out: &mut Outbox) {
        for id in self.merging.clone() {
            self.replicas.get_mut(&id).into_iter().for_each(Replica::waits_on);
            self.settle_told(id, out);
            self.look_at_target(id, out);
            self.catch_up(id);
            if !self.replicas.get(&id).is_some_and(Replica::has_merge_to_do) {
                self.merging.remove(&id);
            }
        }
    }

    /// A source that waits: its target takes it over, or never will.
    fn look_at_target(&mut self, id: RegionId, out: &mut Outbox) {
        let Some(source) = self.replicas.get(&id).filter(|source| !source.is_leaving()) else {
            return;
        };
        let Some(state) = source.merge_state().cloned() else { return };
        let target = self.replicas.get(&state.target.id);
        let takes = target.is_some_and(|target| target.may_take_over(&state.target));
        let off = match target.filter(|target| target.is_initialised()) {
            Some(target) => {
                let (expected, epoch) = (state.target.epoch, target.region().epoch);
                target.absorbed().rules_out(id, expected, epoch)
            }
            // It became a part of a third one itself.
            None => self
                .replicas
                .values()
                .any(|other| other.absorbed().rules_out_with(state.target.id, id)),
        };
        let patience = u64::from(self.config.election_ticks);
        if takes && let Some(merge) = source.to_be_taken() {
            let target = self.replica(state.target.id).expect("it was just there");
            target.take_over(&merge, out);
        } else if off {
            let source = self.replica(id).expect("it was just there");
            source.roll_back(patience, out);
        } else if self.replica(id).is_some_and(|source| source.waited_for_end(patience * 2))
            && let Some(target) = self.replica(state.target.id)
        {
            target.ask_for_lead(&state.target);
        }
    }

    /// A target whose applier waits for the end of a source's log.
    pub(super) fn catch_up(&mut self, id: RegionId) {
        let Some((merge, waited)) = self.replicas.get(&id).and_then(Replica::waits_for) else {
            return;
        };
        let source = merge.source.id;
        let unborn = self.unborn.contains_key(&source);
        let learnt = match self.replica(source) {
            Some(source) => source.learn(&merge),
            None if unborn => Learnt::All,
            None => Learnt::Unusable,
        };
        if learnt == Learnt::All {
            return;
        }
        // The engine may have forgotten the split that made it, and will do it again.
        let may_come = self.log.last_index(source) > 0
            && !self.graves.contains_key(&source)
            && !self.leaving.contains_key(&source);
        let patience = u64::from(self.config.election_ticks) * PATIENCE_TIMEOUTS;
        let Some(target) = self.replica(id) else { return };
        // Nobody leads a region that is itself a part of another one by now: that one's snapshot
        // brings it all.
        let is_of_use = target.knows_leader() || target.told_merged().is_some();
        if !may_come || waited >= patience && is_of_use {
            tracing::warn!(region = %id, %source, "what it takes over is not here");
            target.do_without();
        }
    }

    /// Regions were taken over by entries of another one: their replicas go, their data stay.
    pub(super) fn taken(&mut self, applied: &Applied, out: &mut Outbox) {
        let Some(target) = &applied.region else { return };
        for &id in &applied.merge.taken {
            // Whoever was about to leave had data to destroy; now they are another region's.
            self.leaving.insert(id, None);
            let Some(replica) = self.replicas.get_mut(&id) else { continue };
            if !replica.is_leaving() {
                replica.leave(out);
            }
            let (region, peer) = (replica.region().clone(), replica.peer().id);
            self.touched.insert(id);
            self.merging.remove(&id);
            self.bury(&region, peer).merged = Some(Box::new((**target).clone()));
        }
    }

    /// Somebody says that a region of which a replica is here, or a log, became a part of another
    /// one.
    pub(super) fn hear_merged(&mut self, id: RegionId, target: Box<Region>, out: &mut Outbox) {
        let Some(replica) = self.replica(id) else { return self.orphan_merged(id, target, out) };
        replica.tell_merged(target);
        self.merging.insert(id);
        self.settle_told(id, out);
    }

    /// A source that is gone elsewhere goes, unless its target here may still need its log.
    fn settle_told(&mut self, id: RegionId, out: &mut Outbox) {
        let Some(source) = self.replicas.get(&id).filter(|source| !source.is_leaving()) else {
            return;
        };
        let Some(told) = source.told_merged() else { return };
        let needs = match self.replicas.get(&told.id) {
            None => self.unborn.contains_key(&told.id),
            Some(target) => {
                let behind = target.region().epoch.version < told.epoch.version;
                let has_data = target.is_initialised() && !target.is_lost();
                // One that lost its data waits for a snapshot that nobody makes any more.
                let is_whole = source.is_initialised() && !source.is_lost();
                is_whole && has_data && behind && !target.is_leaving()
            }
        };
        if !needs {
            let epoch = Epoch { conf_ver: 0, version: 0 };
            let told = Box::new(told.clone());
            self.destroy(id, epoch, Some(told), out);
        }
    }

    /// A snapshot comes whose keys another region has here. If that one is known to be a part of
    /// the snapshot's region it goes, and the next snapshot is taken; else it asks what became of
    /// it.
    pub(super) fn make_room(&mut self, id: RegionId, snapshot: &Snapshot, out: &mut Outbox) {
        let Ok(data) = SnapshotData::decode(id, &snapshot.data) else { return };
        let others: Vec<RegionId> = self.overlapped(&data.region.range, id);
        for other in others {
            if data.absorbed.holds(other) {
                if let Some(target) = self.replica(id).filter(|target| target.is_initialised()) {
                    // By its log it does not get on.
                    target.do_without();
                }
                self.hear_merged(other, Box::new(data.region.clone()), out);
            } else if let Some(other) = self.replica(other) {
                other.ask_around_soon();
            }
        }
    }

    fn overlapped(&self, range: &KeyRange, but: RegionId) -> Vec<RegionId> {
        let others = self.replicas.iter().filter(|(id, _)| **id != but && !id.is_system());
        let overlap = others.filter(|(_, replica)| {
            replica.is_initialised() && replica.region().range.overlaps(range)
        });
        overlap.map(|(id, _)| *id).collect()
    }

    /// Whoever speaks to a region that is gone is told what became of it.
    pub(super) fn tell_of_merge(&self, message: &RaftMessage, out: &mut Outbox) -> bool {
        let id = message.region_id;
        let buried = self.graves.get(&id).and_then(|grave| grave.merged.clone());
        let target = buried.or_else(|| {
            let absorbs = |replica: &&Replica| replica.absorbed().holds(id);
            let target = self.replicas.values().find(absorbs)?;
            Some(Box::new((**target.region()).clone()))
        });
        let Some(target) = target.filter(|_| keep(Rule::MergeIsTold)) else { return false };
        if message.tombstone || message.from.id == PeerId::NONE {
            return true;
        }
        let (from, to) = (message.to, message.from);
        let body = Body::TermOver;
        out.send.push(RaftMessage {
            region_id: id,
            from,
            to,
            epoch: message.epoch,
            message: raft::Message { from: from.id, to: to.id, term: 1, body },
            range: None,
            tombstone: true,
            merged_into: Some(target),
        });
        true
    }

    /// The views change in one step: the target's grows by what the sources' lose.
    pub(super) fn publish_taken(&mut self, id: RegionId, applied: &Applied) {
        let region: Option<&Arc<Region>> = applied.region.as_ref();
        let view = self.replicas.get(&id).and_then(Replica::view);
        if let Some(view) = view.filter(|_| region.is_some()) {
            self.views.replace(view, &applied.births, &applied.merge.taken);
        } else {
            applied.merge.taken.iter().for_each(|taken| self.views.remove(*taken));
        }
    }
}
