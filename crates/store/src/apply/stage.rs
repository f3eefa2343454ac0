//! What each entry does to data and descriptor.

use std::sync::Arc;

use base::rule::{Rule, keep};
use base::{
    Cut, Entry, EntryKind, Epoch, Index, KeyRange, Peer, PeerId, Region, RegionId, StoreId, Term,
    TimeStamp,
};
use bytes::Bytes;
use storage::engine::{Cf, Engine, WriteBatch};
use storage::keys;

use super::ApplyRegion;
use crate::command::{self, Admin, Command, CommandError, Write, WriteIter};
use crate::merge::{Absorbed, MergeState};
use crate::split_check::load::SAMPLE_EVERY;
use crate::states::{self, LocalState};
use crate::view::{Purpose, check_flashback};
use crate::{RegionError, bootstrap, members};

impl ApplyRegion {
    /// Stages what `entry` says. `Ok(Err(_))`: the entry takes effect as nothing, on every replica
    /// alike.
    pub(super) fn stage(
        &mut self,
        entry: &Entry,
        engine: &dyn Engine,
        batch: &mut WriteBatch,
    ) -> Result<Result<(), RegionError>, CommandError> {
        match entry.kind {
            EntryKind::Normal if entry.data.is_empty() => return Ok(Ok(())),
            EntryKind::Normal => {}
            EntryKind::ConfChangeV2 => return self.change_peers(entry, batch),
            EntryKind::ConfChange => {
                return Err(CommandError { what: "a change of members", offset: 0 });
            }
        }
        match command::decode(&entry.data)? {
            // Whoever merges takes nothing more, whatever was proposed.
            Command::Writes { epoch, .. }
                if (epoch.version != self.region.epoch.version
                    && keep(Rule::WritesOfThisRange))
                    || self.merge.is_some() =>
            {
                Ok(Err(self.epoch_not_match()))
            }
            Command::Writes { flashback, .. }
                if flashback != self.region.flashback.is_some()
                    && keep(Rule::ClosedTakesNothing) =>
            {
                let purpose = if flashback { Purpose::Flashback } else { Purpose::Any };
                Ok(check_flashback(&self.region, purpose))
            }
            Command::Writes { writes, .. } => self.stage_writes(writes, batch).map(Ok),
            Command::Admin { epoch, admin } => Ok(self.admin(entry, epoch, admin, engine, batch)),
        }
    }

    fn admin(
        &mut self,
        entry: &Entry,
        epoch: Epoch,
        admin: Admin,
        engine: &dyn Engine,
        batch: &mut WriteBatch,
    ) -> Result<(), RegionError> {
        match admin {
            Admin::RollbackMerge { commit } => return self.rollback_merge(epoch, commit, batch),
            ref other if self.merge.is_some() && !is_let_in(other) => {
                return Err(self.epoch_not_match());
            }
            Admin::Flashback(began) => return self.flashback(epoch, began, batch),
            Admin::PrepareMerge { .. } | Admin::CommitMerge(_) | Admin::Split(_)
                if self.region.flashback.is_some() =>
            {
                return check_flashback(&self.region, Purpose::Any);
            }
            Admin::PrepareMerge { min_index, target } => {
                return self.prepare_merge(entry, epoch, (min_index, target), batch);
            }
            Admin::CommitMerge(merge) => self.takes_over = Some(Box::new((epoch, merge))),
            Admin::CompactLog { index, term } => self.compact_log(entry, index, term),
            Admin::ComputeHash { horizon } => self.hash_asked = Some(horizon),
            Admin::VerifyHash(hash) => self.verify = Some(hash),
            Admin::Split(cuts) => return self.split(epoch, &cuts, engine, batch),
        }
        Ok(())
    }

    fn stage_writes(
        &mut self,
        writes: WriteIter<'_>,
        batch: &mut WriteBatch,
    ) -> Result<(), CommandError> {
        // All or nothing: a damaged write must not leave those before it staged.
        for write in writes.clone() {
            write?;
        }
        let prefix = [keys::data_prefix(self.region.id)];
        let before = batch.byte_size();
        for write in writes {
            let write = write.expect("checked above");
            self.sample(&write);
            debug_assert!(self.is_inside(&write), "{:?}: {write:?}", self.region);
            match write {
                Write::Put { cf, key, value } => batch.put_parts(cf, &[&prefix, key], &[value]),
                Write::Delete { cf, key } => batch.delete_parts(cf, &[&prefix, key]),
                Write::DeleteRange { cf, start, end } => {
                    let (start, end) = keys::data_bounds(self.region.id, start, end);
                    batch.delete_range(cf, &start, &end);
                    self.deleted.push((cf, KeyRange::new(start, end)));
                }
            }
            self.written_keys += 1;
        }
        self.written_bytes += (batch.byte_size() - before) as u64;
        Ok(())
    }

    /// A write elsewhere would change another region's data, past its log.
    fn is_inside(&self, write: &Write<'_>) -> bool {
        let (range, copy) = (&self.region.range, Bytes::copy_from_slice);
        match write {
            Write::Put { key, .. } | Write::Delete { key, .. } => range.contains(key),
            Write::DeleteRange { start, end, .. } => {
                range.covers(&KeyRange::new(copy(start), copy(end)))
            }
        }
    }

    /// One key in many is told to whoever wants to know where the region is hot.
    fn sample(&mut self, write: &Write<'_>) {
        self.unsampled_keys += 1;
        if self.unsampled_keys < SAMPLE_EVERY {
            return;
        }
        self.unsampled_keys = 0;
        if let Write::Put { key, .. } | Write::Delete { key, .. } = write {
            self.sampled_keys.push(Bytes::copy_from_slice(key));
        }
    }

    /// A repeated or older command is a no-op; one that reaches beyond what is applied breaks an
    /// invariant.
    fn compact_log(&mut self, entry: &Entry, index: Index, term: Term) {
        let id = self.region.id;
        if index <= self.state.truncated.0 {
            return;
        }
        assert!(index < entry.index, "region {id}: entry {} truncates up to {index}", entry.index);
        assert!(term > 0 && term <= entry.term, "region {id}: truncation to term {term}");
        self.state.truncated = (index, term);
    }

    /// Cuts the region: the new regions' states and the region's own go into the batch of the entry
    /// that says so. A split proposed under another epoch takes effect as nothing.
    fn split(
        &mut self,
        epoch: Epoch,
        cuts: &[Cut],
        engine: &dyn Engine,
        batch: &mut WriteBatch,
    ) -> Result<(), RegionError> {
        let fits = epoch == self.region.epoch || !keep(Rule::SplitOfThisEpoch);
        let parts = fits.then(|| self.region.split(cuts)).flatten();
        let Some((region, births)) = parts else { return Err(self.epoch_not_match()) };
        for birth in births {
            if was_here(engine, birth.id) && keep(Rule::OldSplitsMakeNothing) {
                // This split is an old one, and the replica that it makes has left since.
                let (start, end) = keys::data_range(birth.id, &birth.range);
                Cf::DATA.iter().for_each(|cf| batch.delete_range(*cf, &start, &end));
            } else {
                bootstrap::put_initial_states(batch, &birth);
                self.births.push(Arc::new(birth));
            }
        }
        self.set_region(region);
        self.put_state(batch);
        Ok(())
    }

    /// From here on the region lets nothing in but its flashback, or everything again.
    fn flashback(
        &mut self,
        epoch: Epoch,
        began: Option<TimeStamp>,
        batch: &mut WriteBatch,
    ) -> Result<(), RegionError> {
        if epoch.version != self.region.epoch.version {
            return Err(self.epoch_not_match());
        }
        if self.region.flashback != began {
            self.set_region(Region { flashback: began, ..(*self.region).clone() });
            self.put_state(batch);
        }
        Ok(())
    }

    /// Changes the members, or leaves a joint change. What does not fit the region as it is by now
    /// takes effect as nothing. A replica that is removed ends as a Tombstone.
    fn change_peers(
        &mut self,
        entry: &Entry,
        batch: &mut WriteBatch,
    ) -> Result<Result<(), RegionError>, CommandError> {
        let (next, changes) = match members::decode(&entry.data)? {
            None => (self.region.leave_joint(), Vec::new()),
            Some((epoch, changes)) => {
                let fits = epoch == self.region.epoch || !keep(Rule::ChangeOfThisEpoch);
                (fits.then(|| self.region.change_peers(&changes)).flatten(), changes)
            }
        };
        let next = next.filter(|_| self.merge.is_none());
        let Some(next) = next else { return Ok(Err(self.epoch_not_match())) };
        assert!(next.epoch.conf_ver > self.region.epoch.conf_ver, "a change of members counts");
        self.removed = next.peer(self.peer).is_none();
        self.conf_changes.push((entry.index, members::conf_change(&self.region, &changes)));
        self.set_region(next);
        match self.removed {
            true => put_tombstone(batch, (&self.region, self.peer), None, &self.absorbed),
            false => self.put_state(batch),
        }
        Ok(Ok(()))
    }

    /// Writes down what the region is by now.
    pub(super) fn put_state(&self, batch: &mut WriteBatch) {
        let merge = self.merge.as_deref();
        let local = if merge.is_some() { LocalState::Merging } else { LocalState::Normal };
        let state = states::encode_region_state(&self.region, local, merge, &self.absorbed);
        batch.put(Cf::Raft, &keys::region_state_key(self.region.id), &state);
    }

    pub(super) fn set_region(&mut self, region: Region) {
        assert!(!region.epoch.is_behind(&self.region.epoch), "the epoch of a region only grows");
        self.region = Arc::new(region);
        self.changed = true;
    }

    pub(super) fn epoch_not_match(&self) -> RegionError {
        RegionError::EpochNotMatch { current: vec![self.region.clone()] }
    }
}

/// Whether a region that merges does what the entry says: its log stays as it is, too.
fn is_let_in(admin: &Admin) -> bool {
    matches!(admin, Admin::CompactLog { .. }) && !keep(Rule::MergeKeepsLog)
}

/// Whether the region had a replica here that left.
fn was_here(engine: &dyn Engine, region: RegionId) -> bool {
    // An engine that cannot be read fails the write that follows.
    matches!(engine.get(Cf::Raft, &keys::region_state_key(region)), Ok(Some(_)))
}

/// The record that `peer` left, as of the region's epoch, and that no message may bring it back.
/// The apply state stays as long as there may be data. It is named before the other members, of
/// whom others may want to know.
pub(super) fn put_tombstone(
    batch: &mut WriteBatch,
    (region, peer): (&Region, PeerId),
    merge: Option<&MergeState>,
    absorbed: &Absorbed,
) {
    if !keep(Rule::TombstoneStays) {
        return batch.delete(Cf::Raft, &keys::region_state_key(region.id));
    }
    let gone = region.peer(peer).copied().unwrap_or(Peer::voter(peer, StoreId(0)));
    let others = region.peers.iter().filter(|other| other.id != peer).copied();
    let peers = std::iter::once(gone).chain(others).collect();
    let region = Region { peers, ..region.clone() };
    let state = states::encode_region_state(&region, LocalState::Tombstone, merge, absorbed);
    batch.put(Cf::Raft, &keys::region_state_key(region.id), &state);
}
