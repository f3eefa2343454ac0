//! What was said stays said: votes over a restart, that a replica left, what is committed, and what
//! the placement driver tells of regions. What was computed from what was read in one term is
//! written in that term.
//!
//! A run that breaks one of these hardly ever comes to harm by it: somebody else would have to be
//! elected by the vote that was given twice, at the right moment. So they are looked at themselves.

use std::collections::{BTreeMap, BTreeSet};

use base::{Entry, EntryKind, Epoch, Index, PeerId, Region, RegionId, StoreId, Term};
use prost::Message;
use proto::{eraftpb, raft_cmdpb, raft_serverpb};
use raft::Body;
use storage::engine::{Cf, Engine};
use storage::keys;
use storage::log::LogReader;
use store::{ApplyOutbox, Milestone, RaftMessage, Recovered};
use txn::Mutation;

use super::checks::{mix, takes_part};
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
    /// Puts that were computed from what was read, and in which terms.
    computed: BTreeMap<u64, BTreeSet<Term>>,
}

/// A number for a put.
fn hash_put(cf: &str, key: &[u8], value: &[u8]) -> u64 {
    mix(mix(mix(0x77, cf.as_bytes()), key), value)
}

impl Promises {
    /// What somebody computed from what was read in this term is proposed.
    pub(crate) fn computed(&mut self, mutations: &[Mutation], term: Term) {
        for mutation in mutations {
            if let Mutation::Put { cf, key, value } = mutation {
                let number = hash_put(cf.name(), key, value);
                self.computed.entry(number).or_default().insert(term);
            }
        }
    }

    /// An entry is committed: between the read and the write nobody else led.
    pub(crate) fn committed(&self, region: RegionId, entry: &Entry) {
        if self.computed.is_empty() || entry.kind != EntryKind::Normal {
            return;
        }
        let Ok(command) = raft_cmdpb::RaftCmdRequest::decode(entry.data.clone()) else { return };
        for put in command.requests.into_iter().filter_map(|request| request.put) {
            let cf = if put.cf.is_empty() { "default" } else { &put.cf };
            let terms = self.computed.get(&hash_put(cf, &put.key, &put.value));
            assert!(
                terms.is_none_or(|terms| terms.contains(&entry.term)),
                "what is computed in one term is written in it: region {region} at {} of term {}, \
                 computed in {terms:?}: {put:?}",
                entry.index,
                entry.term
            );
        }
    }

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
            for birth in &applied.births {
                let of_region = (store, birth.id, PeerId(0))..=(store, birth.id, PeerId(u64::MAX));
                let left = self.left.range(of_region).next().map(|((_, _, peer), _)| peer);
                assert!(left.is_none(), "who left stays away: {left:?} left, and now {birth:?}");
            }
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

    /// A store starts: it knows the members of which it was told, what is committed, and how it
    /// voted, unless the region is no more.
    pub(crate) fn recovered(
        &self,
        store: StoreId,
        machine: &Machine,
        log: &LogReader,
        recovered: &Recovered,
    ) {
        commits_are_known(store, log, recovered);
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
            let known = saved(log, *region);
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

/// What the log says that it holds of a region.
fn saved(log: &LogReader, region: RegionId) -> eraftpb::HardState {
    let state = log.state(region).unwrap_or_default();
    let state = raft_serverpb::RaftLocalState::decode(state).expect("sound");
    state.hard_state.unwrap_or_default()
}

/// A store starts: what it knew to be committed it knows. Else it might ask for votes by members of
/// long ago, while changes of them that are committed wait in its log.
fn commits_are_known(store: StoreId, log: &LogReader, recovered: &Recovered) {
    for birth in recovered.births.iter().filter(|birth| takes_part(birth.local)) {
        let (id, commit) = (birth.region.id, birth.hard_state.commit);
        let known: Index = saved(log, id).commit.max(birth.apply.applied);
        assert!(
            commit >= known,
            "what is committed is known: store {store}, region {id}: {known}, and now {commit}"
        );
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
