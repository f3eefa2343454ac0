//! What was said stays said: votes over a restart, that a replica left, and what the placement
//! driver tells of regions.
//!
//! A run that breaks one of these hardly ever comes to harm by it: somebody else would have to be
//! elected by the vote that was given twice, at the right moment. So they are looked at themselves.

use std::collections::BTreeMap;

use base::{Epoch, PeerId, Region, RegionId, StoreId, Term};
use prost::Message;
use proto::raft_serverpb;
use raft::Body;
use storage::engine::{Cf, Engine};
use storage::keys;
use storage::log::LogReader;
use store::{ApplyOutbox, Milestone, RaftMessage};

use super::process::{Machine, Node};

#[derive(Default)]
pub(crate) struct Promises {
    /// The last vote that left a store, of a region: its term, and for whom.
    votes: BTreeMap<(StoreId, RegionId), (Term, PeerId)>,
    /// Replicas that left a store, durably, and in which life of its process.
    left: BTreeMap<(StoreId, RegionId, PeerId), u64>,
    /// The members of which a store's shard was told, by the count of their changes.
    members: BTreeMap<(StoreId, RegionId), u64>,
    /// What was told of a region, in which term of the placement driver.
    told: BTreeMap<RegionId, (Term, Epoch)>,
}

impl Promises {
    /// A message leaves a process, which is in this life.
    pub(crate) fn sent(&mut self, life: u64, message: &RaftMessage) {
        let (store, region, from) = (message.from.store_id, message.region_id, message.from.id);
        let says_over = message.tombstone || message.message.body == Body::TermOver;
        if let Some(left) = self.left.get(&(store, region, from)).filter(|_| !says_over) {
            assert!(*left == life, "who left stays away: {from} of region {region}: {message:?}");
        }
        if message.message.body == (Body::VoteResponse { granted: true }) {
            let (term, to) = (message.message.term, message.to.id);
            let (last, vote) = self.votes.entry((store, region)).or_insert((term, to));
            let other = *last == term && *vote != to;
            assert!(!other, "one vote a term: region {region} term {term}: {vote} and {to}");
            if term > *last {
                (*last, *vote) = (term, to);
            }
        }
    }

    /// An applier has taken its turn.
    pub(crate) fn after_applier(&mut self, node: &Node, out: &ApplyOutbox) {
        let Some(store) = node.store_id else { return };
        for applied in &out.applied {
            if let Some(Milestone::Destroyed(peer)) = applied.milestone {
                self.left.insert((store, applied.region_id, peer), node.life);
            }
            if let Some(region) =
                applied.region.as_ref().filter(|_| !applied.conf_changes.is_empty())
            {
                self.members.insert((store, region.id), region.epoch.conf_ver);
            }
        }
    }

    /// A store starts: it knows the members of which it was told, and how it voted, unless the
    /// region is no more.
    pub(crate) fn recovered(&self, store: StoreId, machine: &Machine, log: &LogReader) {
        let members = self.members.range((store, RegionId(0))..=(store, RegionId(u64::MAX)));
        for ((_, region), told) in members {
            let known = conf_ver(machine, *region);
            assert!(
                known >= *told,
                "members are remembered: store {store}, region {region}: {told}, and now {known}"
            );
        }
        let votes = self.votes.range((store, RegionId(0))..=(store, RegionId(u64::MAX)));
        for ((_, region), (term, vote)) in votes {
            if is_merged(machine, *region) {
                continue;
            }
            let state = log.state(*region).unwrap_or_default();
            let state = raft_serverpb::RaftLocalState::decode(state).expect("sound");
            let known = state.hard_state.unwrap_or_default();
            let remembers = known.term > *term || (known.term == *term && known.vote == vote.0);
            assert!(
                remembers,
                "a vote is remembered: store {store}, region {region}: for {vote} in term {term}, \
                 and now {known:?}"
            );
        }
    }

    /// The placement driver of this term told somebody of a region.
    pub(crate) fn told_of_region(&mut self, term: Term, region: Option<&Region>) {
        let Some(region) = region else { return };
        let now = (term, region.epoch);
        let (last, epoch) = self.told.entry(region.id).or_insert(now);
        let back = *last == term && region.epoch.is_behind(epoch);
        assert!(!back, "the region map does not go back: from {epoch} to {region:?}");
        if term >= *last {
            (*last, *epoch) = now;
        }
    }
}

/// How often the members of the region changed, as far as the store knows.
fn conf_ver(machine: &Machine, region: RegionId) -> u64 {
    let record = machine.engine.get(Cf::Raft, &keys::region_state_key(region)).expect("readable");
    let record = record.map(|r| raft_serverpb::RegionLocalState::decode(r).expect("sound"));
    let epoch = record.and_then(|record| record.region?.region_epoch);
    epoch.map_or(0, |epoch| epoch.conf_ver)
}

/// Whether the region became a part of another one, as far as the store knows.
fn is_merged(machine: &Machine, region: RegionId) -> bool {
    let record = machine.engine.get(Cf::Raft, &keys::region_state_key(region)).expect("readable");
    let Some(record) = record else { return false };
    let record = raft_serverpb::RegionLocalState::decode(record).expect("sound");
    record.state() == raft_serverpb::PeerState::Tombstone && record.merge_state.is_some()
}
