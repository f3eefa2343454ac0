//! What each entry does to data and descriptor.

use std::sync::Arc;

use base::{Cut, Entry, EntryKind, Epoch, Index, Peer, PeerId, Region, RegionId, StoreId, Term};
use storage::engine::{Cf, Engine, WriteBatch};
use storage::keys;

use super::ApplyRegion;
use crate::command::{self, Command, CommandError, Write, WriteIter};
use crate::states::{self, LocalState};
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
            Command::Writes { epoch, .. } if epoch.version != self.region.epoch.version => {
                let current = vec![self.region.clone()];
                Ok(Err(RegionError::EpochNotMatch { current }))
            }
            Command::Writes { writes, .. } => self.stage_writes(writes, batch).map(Ok),
            Command::CompactLog { index, term } => {
                self.compact_log(entry, index, term);
                Ok(Ok(()))
            }
            Command::Split { epoch, cuts } => Ok(self.split(epoch, &cuts, engine, batch)),
        }
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
            match write.expect("checked above") {
                Write::Put { cf, key, value } => batch.put_parts(cf, &[&prefix, key], &[value]),
                Write::Delete { cf, key } => batch.delete_parts(cf, &[&prefix, key]),
                Write::DeleteRange { cf, start, end } => {
                    let (start, end) = keys::data_bounds(self.region.id, start, end);
                    batch.delete_range(cf, &start, &end);
                }
            }
            self.written_keys += 1;
        }
        self.written_bytes += (batch.byte_size() - before) as u64;
        Ok(())
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
        let parts = (epoch == self.region.epoch).then(|| self.region.split(cuts)).flatten();
        let Some((region, births)) = parts else { return Err(self.epoch_not_match()) };
        for birth in births {
            if was_here(engine, birth.id) {
                // This split is an old one, and the replica that it makes has left since.
                let (start, end) = keys::data_range(birth.id, &birth.range);
                Cf::DATA.iter().for_each(|cf| batch.delete_range(*cf, &start, &end));
            } else {
                bootstrap::put_initial_states(batch, &birth);
                self.births.push(Arc::new(birth));
            }
        }
        bootstrap::put_region_state(batch, &region);
        self.set_region(region);
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
                let fits = epoch == self.region.epoch;
                (fits.then(|| self.region.change_peers(&changes)).flatten(), changes)
            }
        };
        let Some(next) = next else { return Ok(Err(self.epoch_not_match())) };
        assert!(next.epoch.conf_ver > self.region.epoch.conf_ver, "a change of members counts");
        self.removed = next.peer(self.peer).is_none();
        match self.removed {
            true => put_tombstone(batch, &next, self.peer),
            false => bootstrap::put_region_state(batch, &next),
        }
        self.conf_changes.push((entry.index, members::conf_change(&self.region, &changes)));
        self.set_region(next);
        Ok(Ok(()))
    }

    fn set_region(&mut self, region: Region) {
        assert!(!region.epoch.is_behind(&self.region.epoch), "the epoch of a region only grows");
        self.region = Arc::new(region);
        self.changed = true;
    }

    fn epoch_not_match(&self) -> RegionError {
        RegionError::EpochNotMatch { current: vec![self.region.clone()] }
    }
}

/// Whether the region had a replica here that left.
fn was_here(engine: &dyn Engine, region: RegionId) -> bool {
    // An engine that cannot be read fails the write that follows.
    matches!(engine.get(Cf::Raft, &keys::region_state_key(region)), Ok(Some(_)))
}

/// The record that `peer` left, as of the region's epoch, and that no message may bring it back.
/// The apply state stays as long as there may be data. It is named before the other members, of
/// whom others may want to know.
pub(super) fn put_tombstone(batch: &mut WriteBatch, region: &Region, peer: PeerId) {
    let gone = region.peer(peer).copied().unwrap_or(Peer::voter(peer, StoreId(0)));
    let others = region.peers.iter().filter(|other| other.id != peer).copied();
    let peers = std::iter::once(gone).chain(others).collect();
    let region = Region { peers, ..region.clone() };
    let state = states::encode_region_state(&region, LocalState::Tombstone);
    batch.put(Cf::Raft, &keys::region_state_key(region.id), &state);
}
