//! The entries of a merge.
//!
//! An entry that takes a region over needs all of that region's log applied here. If it is not,
//! because its entries or their commitment are not known yet, what comes behind the entry waits,
//! and the shard is asked to see to it.

use std::collections::VecDeque;
use std::sync::Arc;

use base::rule::{Rule, keep};
use base::{Entry, Epoch, Index, Region, RegionId};
use storage::engine::{Cf, WriteBatch};
use storage::keys;

use super::stage::put_tombstone;
use super::{Applied, Applier, ApplyOutbox, ApplyRegion, ApplyTask, Milestone};
use crate::command::Merge;
use crate::merge::{Absorbed, MergeState};
use crate::states::{self, LocalState, RegionRecord};
use crate::{Fatal, RegionError};

/// What entries did to a merge of their region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergeNews {
    /// It waits for its end from now on, or not any more.
    pub state: Option<Option<Arc<MergeState>>>,
    /// Regions that it took over, whose replicas here are gone.
    pub taken: Vec<RegionId>,
    /// Then all that it ever absorbed.
    pub absorbed: Option<Arc<Absorbed>>,
    /// The next entry takes over a region whose log is not all applied here.
    pub(crate) waits: Option<Arc<Merge>>,
}

/// Entries that wait until a source can be taken over.
pub(super) struct Paused {
    merge: Merge,
    pub(super) tasks: VecDeque<ApplyTask>,
}

impl ApplyRegion {
    /// The region takes no writes any more, and keeps its log, until it is taken over.
    pub(super) fn prepare_merge(
        &mut self,
        entry: &Entry,
        epoch: Epoch,
        (min_index, target): (Index, Region),
        batch: &mut WriteBatch,
    ) -> Result<(), RegionError> {
        // Not by how far the log goes back here: that is not the same on all stores.
        let next = self.region.prepare_merge();
        let fits = epoch == self.region.epoch || !keep(Rule::MergeOfThisEpoch);
        if !fits || target.commit_merge(&next).is_none() {
            return Err(self.epoch_not_match());
        }
        assert!(min_index < entry.index, "region {}: merges at {}", next.id, entry.index);
        assert!(self.merge.is_none(), "region {}: one merge at a time", next.id);
        let state = Arc::new(MergeState { min_index, commit: entry.index, target });
        self.merge = Some(state.clone());
        self.news.state = Some(Some(state));
        self.set_region(next);
        self.put_state(batch);
        Ok(())
    }

    /// The region goes on as before, if entry `commit` began the merge that it waits for: not an
    /// earlier one, which is off already.
    pub(super) fn rollback_merge(
        &mut self,
        epoch: Epoch,
        commit: Index,
        batch: &mut WriteBatch,
    ) -> Result<(), RegionError> {
        let waits = self.merge.as_ref().is_some_and(|merge| merge.commit == commit);
        if !waits || epoch != self.region.epoch {
            return Err(self.epoch_not_match());
        }
        self.merge = None;
        self.news.state = Some(None);
        self.set_region(self.region.rollback_merge());
        self.put_state(batch);
        Ok(())
    }

    /// Whether its log is applied up to its end at `commit`, which began the merge.
    fn has_ended(&self, merge: &Merge) -> bool {
        let (id, (commit, _)) = (self.region.id, merge.commit());
        let ours = merge.source.peer(self.peer).is_some();
        let at = self.merge.as_ref().map(|state| state.commit);
        if !keep(Rule::EndOfThisMerge) {
            return ours && at.is_some();
        }
        let is_behind = self.state.applied < commit && keep(Rule::CatchUpBeforeMerge);
        if self.removed || !ours || is_behind {
            return false;
        }
        if self.state.applied < commit {
            return true;
        }
        // It could not be off: for that the target would have to have another epoch.
        assert_eq!(at, Some(commit), "region {id} is taken over, but it does not merge there");
        assert_eq!(self.region.epoch, merge.source.epoch, "region {id}: the end of its log");
        true
    }
}

impl Applier {
    /// Region `id` takes over what `takes` says: both change in the batch of the entry that says
    /// so. `None`: the source's log is not all applied here.
    pub(super) fn take_over(
        &mut self,
        id: RegionId,
        (epoch, merge): &(Epoch, Merge),
        out: &mut ApplyOutbox,
    ) -> Result<Option<Result<(), RegionError>>, Fatal> {
        let target = &self.regions[&id];
        let fits = *epoch == target.region.epoch && merge.is_into(&target.region);
        let fits = fits || !keep(Rule::TakeOverOfThisEpoch);
        let next = fits.then(|| target.region.commit_merge(&merge.source)).flatten();
        let Some(next) = next else { return Ok(Some(Err(target.epoch_not_match()))) };
        let source_id = merge.source.id;
        if !self.regions.get(&source_id).is_some_and(|source| source.has_ended(merge)) {
            return Ok(None);
        }
        // What else the two did is told first.
        self.staged.push(id);
        self.write(out)?;
        let mut source = self.regions.remove(&source_id).expect("its log has ended");
        self.forget_paused(&mut source);
        let merged = MergeState { min_index: 0, commit: merge.commit().0, target: next.clone() };
        let (tombstone, peer) = ((&*source.region, source.peer), source.peer);
        put_tombstone(&mut self.batch, tombstone, Some(&merged), &source.absorbed);
        self.batch.delete(Cf::Raft, &keys::apply_state_key(source_id));
        self.taken.push(Applied::milestone(source_id, Milestone::Destroyed(peer)));
        let target = self.regions.get_mut(&id).expect("it is another one");
        let version = next.epoch.version;
        target.absorbed = Arc::new(target.absorbed.with(source_id, &source.absorbed, version));
        target.news.absorbed = Some(target.absorbed.clone());
        target.news.taken.push(source_id);
        target.news.waits = None;
        target.set_region(next);
        target.put_state(&mut self.batch);
        Ok(Some(Ok(())))
    }

    /// The entries of `rest`, and all behind them, wait for the source of `merge`.
    pub(super) fn pause(&mut self, rest: ApplyTask, merge: Merge) {
        let id = rest.region_id;
        let region = self.regions.get_mut(&id).expect("these are its entries");
        region.news.waits = Some(Arc::new(merge.clone()));
        region.paused = Some(Box::new(Paused { merge, tasks: VecDeque::from([rest]) }));
        self.paused.insert(id);
        self.staged.push(id);
    }

    /// Goes on with regions whose source is there by now.
    pub(super) fn resume(&mut self, out: &mut ApplyOutbox) -> Result<(), Fatal> {
        let mut ready = self.paused.iter().copied().filter(|id| {
            let merge = &self.regions[id].paused.as_ref().expect("it is paused").merge;
            self.regions.get(&merge.source.id).is_some_and(|source| source.has_ended(merge))
        });
        let Some(id) = ready.next() else { return Ok(()) };
        self.paused.remove(&id);
        let paused = self.regions.get_mut(&id).expect("it was just there").paused.take();
        for task in paused.expect("it was paused").tasks {
            self.apply(task, out)?;
        }
        // One may have waited for what this one was waiting for.
        self.resume(out)
    }

    /// The region goes, or a snapshot replaces it: nobody knows what became of what waited.
    pub(super) fn forget_paused(&mut self, region: &mut ApplyRegion) {
        self.paused.remove(&region.region.id);
        let tasks = region.paused.take().into_iter().flat_map(|paused| paused.tasks);
        let replies = tasks.flat_map(|task| task.waiting).flat_map(|waiting| waiting.replies);
        self.replies.extend(replies.map(|reply| (reply, Err(RegionError::Undetermined))));
    }

    /// What is remembered of a replica that left. An engine that cannot be read fails the write
    /// that follows.
    pub(super) fn tombstone(&self, region: RegionId) -> Option<RegionRecord> {
        let record = self.engine.get(Cf::Raft, &keys::region_state_key(region)).ok().flatten()?;
        let record = states::decode_region_state(region, &record).ok()?;
        (record.local == LocalState::Tombstone).then_some(record)
    }
}
