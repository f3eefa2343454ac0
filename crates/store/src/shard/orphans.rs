//! Logs without a replica.
//!
//! A power loss may take a split from the engine whose part has a log already. As a rule the split
//! is applied again and goes on with that log (rule W4), or the part's leader speaks to it and
//! sends a snapshot. If the part was taken away from this store meanwhile, and the region that it
//! was cut off as well, neither happens, and the log would stay for ever.
//!
//! It may not just go: as long as this store is a member its entries count, and so do its votes.
//! But it was a member when the part began. So whoever knows the part without this store knows it
//! from after the removal, and then the log goes as that of any replica that leaves: a Tombstone,
//! synced, first (W2), so that the split, if it comes after all, makes nothing.
//!
//! A part that was taken away, and then became a part of another region, nobody can know any more.
//! But all stores that saw it end remember that. So they are asked, in words that say nothing to
//! anybody else, and whoever remembers answers as he answers all that speak to such a region
//! (`tell_of_merge`). It is gone for everybody then.

use std::sync::Arc;

use base::{Epoch, Instant, Peer, PeerId, Region, RegionId, StoreId};
use raft::Body;

use super::Shard;
use crate::apply::ApplyInput;
use crate::input::{Outbox, RaftMessage, Report};
use crate::log_writer::LogStep;
use crate::states;

/// Peers in whose names stores speak of a region of which they know no peer.
const ANYBODY: PeerId = PeerId(u64::MAX);

impl Shard {
    /// Once in a while asks for the owners of logs that nobody here owns.
    pub(super) fn look_for_orphans(&mut self, now: Instant, out: &mut Outbox) {
        if now < self.next_orphans {
            return;
        }
        // Not right after the start: splits that are applied again come first.
        let is_first = self.next_orphans == Instant::ZERO;
        self.next_orphans = now + self.config.report_interval;
        if is_first {
            return;
        }
        for id in self.log.regions() {
            if !self.is_orphan(id) {
                continue;
            }
            let absorbs = |target: &&Arc<Region>| self.replicas[&target.id].absorbed().holds(id);
            let target = self.replicas.values().map(|replica| replica.region()).find(absorbs);
            match target.cloned() {
                Some(target) => {
                    let gone = Region { id, peers: Vec::new(), ..(*target).clone() };
                    self.bury_orphan(gone, Some(Box::new((*target).clone())), out);
                }
                None => out.reports.push(Report::Orphan(id)),
            }
        }
    }

    /// Whether the log has entries and there is neither a replica nor one that comes or goes.
    fn is_orphan(&self, id: RegionId) -> bool {
        let owned = self.replicas.contains_key(&id)
            || self.unborn.contains_key(&id)
            || self.leaving.contains_key(&id)
            || self.graves.contains_key(&id);
        !owned && !id.is_system() && self.log.last_index(id) > 0
    }

    /// The region of an orphan as placement knows it.
    pub(super) fn orphan_known(&mut self, region: Region, out: &mut Outbox) {
        let is_member = region.peer_on(self.store_id).is_some();
        if !is_member && !region.peers.is_empty() && self.is_orphan(region.id) {
            self.bury_orphan(region, None, out);
        }
    }

    /// Nobody has told placement of the region: perhaps one of the stores saw it end.
    pub(super) fn orphan_unknown(&self, id: RegionId, stores: &[StoreId], out: &mut Outbox) {
        if !self.is_orphan(id) {
            return;
        }
        // It answers nothing that anybody asked.
        let body = Body::PreVoteResponse { granted: false };
        let others = stores.iter().filter(|store| **store != self.store_id);
        out.send.extend(others.map(|store| RaftMessage {
            region_id: id,
            from: Peer::voter(ANYBODY, self.store_id),
            to: Peer::voter(ANYBODY, *store),
            epoch: Epoch::default(),
            message: raft::Message { from: ANYBODY, to: ANYBODY, term: 1, body: body.clone() },
            range: None,
            tombstone: false,
            merged_into: None,
        }));
    }

    /// Somebody saw the region become a part of `target`.
    pub(super) fn orphan_merged(&mut self, id: RegionId, target: Box<Region>, out: &mut Outbox) {
        if self.is_orphan(id) {
            let gone = Region { id, peers: Vec::new(), ..(*target).clone() };
            self.bury_orphan(gone, Some(target), out);
        }
    }

    fn bury_orphan(&mut self, gone: Region, merged: Option<Box<Region>>, out: &mut Outbox) {
        tracing::info!(region = %gone.id, "the log here is that of a replica that was removed");
        self.leaving.insert(gone.id, None);
        self.bury(&gone, PeerId::NONE).merged = merged.clone();
        out.apply.push(ApplyInput::Destroy(Arc::new(gone), PeerId::NONE, merged));
    }

    /// The region is durably a Tombstone: the log goes, term and vote stay.
    pub(super) fn drop_orphan(&mut self, id: RegionId, out: &mut Outbox) {
        let hard_state = match self.stored_hard_state(id) {
            Ok(hard_state) => hard_state.unwrap_or_default(),
            Err(fatal) => return out.fatal = Some(fatal),
        };
        let hard_state = raft::HardState { commit: 0, ..hard_state };
        out.log.batch.remove(id);
        out.log.batch.put_state(id, states::encode_raft_state(&hard_state, 0));
        out.log.tickets.push((id, LogStep::Removed));
        out.log.purge = true;
    }
}
