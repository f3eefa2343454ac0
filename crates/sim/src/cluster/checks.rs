//! What must hold after every step.
//!
//! After each turn of a shard: one leader a term; nobody has a lease of an earlier term, or one on
//! keys that were cut off, when it is elected. After some turns: no key has two leases; views and
//! range map name the same regions, none of which overlap.
//!
//! When entries go to an applier: a position of the log holds one entry on all stores (log
//! matching, state machine safety).
//!
//! After turns of an applier and at each start: descriptor and data are what the log says at the
//! applied index (`model` executes it), and the same on every store that ever stood there: running,
//! restarted, after a power loss, from a snapshot. Of a region that merges all members have the log
//! that its merge counts on, and keep its end, and nobody copies it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{Entry, Index, Instant, KeyRange, PeerId, Region, RegionId, StoreId, Term};
use prost::Message;
use proto::raft_serverpb;
use storage::engine::{Cf, Engine, Snapshot};
use storage::keys;
use storage::log::LogReader;
use store::{
    Applied, ApplyInput, ApplyOutbox, Job, LocalState, Milestone, Outbox, Recovered, RegionView,
    RegionViews,
};

use super::event::Slot;
use super::model::{End, Model, hash_descriptor, hash_pair};
use super::process::{Machine, Node};
use super::promises::Promises;

/// Of so many turns of a shard one has its leases compared with everybody's.
const LEASE_TURNS: u64 = 8;

#[derive(Default)]
pub(crate) struct Checks {
    /// States at one index in so many are compared.
    every: u64,
    collects: bool,
    turns: u64,
    leaders: BTreeMap<(RegionId, Term), PeerId>,
    /// In which life of its process, and after how many changes, all views of a node were seen.
    seen: BTreeMap<Slot, (u64, u64)>,
    entries: BTreeMap<RegionId, BTreeMap<Index, u64>>,
    states: BTreeMap<(RegionId, Index), (u64, Slot)>,
    /// How far stores have applied regions, as they told.
    applied: BTreeMap<(StoreId, RegionId), Index>,
    /// The last snapshots that stores took in.
    installed: BTreeMap<(StoreId, RegionId), Index>,
    model: Model,
    pub(crate) promises: Promises,
    pub(crate) states_compared: u64,
    pub(crate) leases_compared: u64,
}

/// A number for some bytes. Not for strangers.
pub(crate) fn mix(hash: u64, bytes: &[u8]) -> u64 {
    let add = |hash: u64, word: u64| {
        let hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^ (hash >> 29)
    };
    let (words, rest) = bytes.as_chunks();
    let hash = words
        .iter()
        .fold(hash ^ bytes.len() as u64, |hash, word| add(hash, u64::from_le_bytes(*word)));
    match rest {
        [] => hash,
        rest => add(hash, rest.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte))),
    }
}

/// A region begins to merge: what that counts on no power loss can take from any member.
fn end_is_durable(region: RegionId, end: &End, nodes: &[Node]) {
    for peer in &end.peers {
        let node = nodes.iter().find(|node| node.store_id == Some(peer.store_id));
        let core = node.and_then(|node| node.process.as_ref()?.core.as_ref());
        // Of one that does not run it is seen when it starts.
        let Some(core) = core else { continue };
        let (last, counted) = (core.log.last_index(region), end.min_index);
        assert!(
            last >= counted,
            "a merge counts on what is durable: region {region} on store {}: up to {counted}, and \
             its log ends at {last}",
            peer.store_id
        );
    }
}

fn hash_entry(entry: &Entry) -> u64 {
    mix(entry.term ^ ((entry.kind as u64) << 60), &entry.data)
}

/// Somebody was elected: nobody reads these keys under a lease of an earlier term, nor under that
/// of a region that they were a part of.
fn check_no_lease(now: Instant, elected: &RegionView, nodes: &[Node]) {
    let (region, term) = (&elected.region, elected.term);
    for (slot, node) in nodes.iter().enumerate() {
        let Some(views) = node.views() else { continue };
        let local = node.clock.local(now);
        for held in views.all().into_iter().filter(|held| held.has_lease(local)) {
            let same = held.region.id == region.id && held.term < term;
            let system = held.region.id.is_system() || region.id.is_system();
            // Whoever was cut off or taken over has a higher version; who lags behind a merge
            // may be elected, and reads nothing.
            let older = held.region.epoch.version < region.epoch.version;
            let other = held.region.id != region.id && !system && older;
            let meets = same || (other && held.region.range.overlaps(&region.range));
            assert!(
                !meets,
                "a lease ends before the next leader: {elected:?}, node {slot} {held:?}"
            );
        }
    }
}

/// The views with a lease on a node.
fn leases(now: Instant, node: &Node, views: &RegionViews) -> Vec<Arc<RegionView>> {
    let (local, mut held) = (node.clock.local(now), Vec::new());
    views.for_each(|view| {
        if view.has_lease(local) {
            held.push(view.clone());
        }
    });
    held
}

/// The range map names the keys of each region that has a view.
fn check_ranges(slot: Slot, views: &RegionViews) {
    let ranges = views.ranges();
    views.for_each(|view| {
        let known = ranges.binary_search_by_key(&view.region.id, |(id, _)| *id);
        let same = known.is_ok_and(|at| ranges[at].1 == view.region.range);
        assert!(
            view.region.id.is_system() || same,
            "range map: {:?} on node {slot} is not in {ranges:?}",
            view.region
        );
    });
}

impl Checks {
    /// `collects`: each store drops old versions of transactions in its own time.
    pub(crate) fn new(thorough: bool, collects: bool) -> Self {
        let model = Model::new(collects);
        Self { every: if thorough { 2 } else { 16 }, collects, model, ..Self::default() }
    }

    /// A shard has taken its turn.
    pub(crate) fn after_shard(&mut self, now: Instant, slot: Slot, nodes: &[Node], out: &Outbox) {
        for input in &out.apply {
            if let ApplyInput::Apply(task) = input {
                if !self.model.knows(task.region_id)
                    && let Some(view) = nodes[slot].views().and_then(|v| v.get(task.region_id))
                {
                    self.model.first(&view.region);
                }
                self.committed(slot, task.region_id, &task.entries, nodes);
            }
        }
        let Some(views) = nodes[slot].views() else { return };
        let seen = (nodes[slot].life, views.changes());
        if self.seen.insert(slot, seen) != Some(seen) {
            self.one_leader_a_term(now, views, nodes);
        }
        self.turns += 1;
        if self.turns.is_multiple_of(LEASE_TURNS) {
            check_ranges(slot, views);
            self.one_lease_a_key(now, slot, views, nodes);
        }
    }

    fn one_leader_a_term(&mut self, now: Instant, views: &RegionViews, nodes: &[Node]) {
        let mut elected = Vec::new();
        views.for_each(|view| {
            if !view.is_leader() {
                return;
            }
            let (region, term) = (view.region.id, view.term);
            match self.leaders.get(&(region, term)) {
                Some(leader) => assert_eq!(
                    *leader, view.peer.id,
                    "one leader a term: region {region} term {term}"
                ),
                None => elected.push(view.clone()),
            }
        });
        for view in elected {
            check_no_lease(now, &view, nodes);
            self.leaders.insert((view.region.id, view.term), view.peer.id);
        }
    }

    fn one_lease_a_key(&mut self, now: Instant, slot: Slot, views: &RegionViews, nodes: &[Node]) {
        let ours = leases(now, &nodes[slot], views);
        self.leases_compared += ours.len() as u64;
        if ours.is_empty() {
            return;
        }
        for (other, node) in nodes.iter().enumerate().filter(|(other, _)| *other != slot) {
            let Some(views) = node.views() else { continue };
            for held in leases(now, node, views) {
                let meets = ours.iter().find(|view| {
                    let system = held.region.id.is_system() == view.region.id.is_system();
                    system && held.region.range.overlaps(&view.region.range)
                });
                assert!(
                    meets.is_none(),
                    "one lease a key: node {slot} {meets:?} and node {other} {held:?}"
                );
            }
        }
    }

    fn committed(&mut self, slot: Slot, region: RegionId, entries: &[Entry], nodes: &[Node]) {
        let known = self.entries.entry(region).or_default();
        for entry in entries {
            self.model.commit(region, entry);
            let hash = hash_entry(entry);
            let first = *known.entry(entry.index).or_insert_with(|| {
                self.promises.committed(region, entry);
                if let Some(end) = self.model.end(region).filter(|end| end.commit == entry.index) {
                    end_is_durable(region, end, nodes);
                }
                hash
            });
            assert_eq!(
                first, hash,
                "one entry a position: region {region} index {} on node {slot}",
                entry.index
            );
        }
    }

    /// An applier has taken its turn.
    pub(crate) fn after_applier(&mut self, slot: Slot, node: &Node, out: &ApplyOutbox) {
        self.promises.after_applier(node, out);
        self.ends_where_its_log_does(node, out);
        merges_are_not_copied(slot, out);
        let machine = &node.machine;
        let mut seen = BTreeSet::new();
        for applied in out.applied.iter().rev() {
            let id = applied.region_id;
            if !seen.insert(id) || matches!(applied.milestone, Some(Milestone::Destroyed(_))) {
                continue;
            }
            if applied.milestone == Some(Milestone::Installed)
                && let Some(store) = node.store_id
            {
                self.installed.insert((store, id), applied.index);
            }
            if applied.milestone.is_none() {
                let whole = region_on_disk(machine, id).is_some();
                assert!(whole, "entries are applied to a whole: region {id} on node {slot}");
            }
            self.end_is_kept(node, applied);
            let special = applied.region.is_some() || applied.milestone.is_some();
            if special || applied.index.is_multiple_of(self.every) {
                self.compare(slot, machine, id);
            }
        }
    }

    /// What was taken over had been applied up to the entry that began the merge, the last one
    /// that it began: on each store by itself.
    fn ends_where_its_log_does(&mut self, node: &Node, out: &ApplyOutbox) {
        let Some(store) = node.store_id else { return };
        for applied in &out.applied {
            if matches!(applied.milestone, None | Some(Milestone::Installed)) {
                self.applied.insert((store, applied.region_id), applied.index);
            }
            for source in &applied.merge.taken {
                let at = self.applied.remove(&(store, *source));
                let (Some(at), Some(end)) = (at, self.model.end(*source)) else { continue };
                assert!(
                    at >= end.commit,
                    "a region ends where its log does: region {source} on store {store} was taken \
                     over at {at}, and its last merge began at {}",
                    end.commit
                );
            }
        }
    }

    /// A region that merges keeps the end of its log, for those who lack it.
    fn end_is_kept(&self, node: &Node, applied: &Applied) {
        let id = applied.region_id;
        let end = self.model.end(id).filter(|end| applied.index >= end.commit);
        let (Some(end), Some(store)) = (end, node.store_id) else { return };
        let came = self.installed.get(&(store, id)).is_some_and(|at| *at > end.min_index);
        if !came && merges_since(&*node.machine.engine.snapshot(), id) == Some(end.commit) {
            let (forgets, keeps) = (applied.truncated.0, end.min_index);
            assert!(forgets <= keeps, "the end of a log: region {id} forgets {forgets} > {keeps}");
        }
    }

    /// A store starts: what the merges of its regions count on is in its log.
    pub(crate) fn ends_are_there(&self, store: StoreId, recovered: &Recovered, log: &LogReader) {
        for birth in recovered.births.iter().filter(|b| takes_part(b.local)) {
            let id = birth.region.id;
            let (Some(end), Some(peer)) = (self.model.end(id), birth.region.peer_on(store)) else {
                continue;
            };
            if end.peers.iter().any(|member| member.id == peer.id) {
                let (last, counted) = (log.last_index(id), end.min_index);
                assert!(
                    last >= counted,
                    "a merge counts on what is durable: region {id} on store {store}: up to \
                     {counted}, and its log ends at {last}"
                );
            }
        }
    }

    /// A store starts.
    pub(crate) fn recovered(
        &mut self,
        (slot, store): (Slot, StoreId),
        machine: &Machine,
        recovered: &Recovered,
    ) {
        for birth in recovered.births.iter().filter(|b| takes_part(b.local)) {
            self.applied.insert((store, birth.region.id), birth.apply.applied);
            self.compare(slot, machine, birth.region.id);
        }
    }

    /// What the store holds of a region, at the index where it stands.
    fn compare(&mut self, slot: Slot, machine: &Machine, id: RegionId) {
        let Some((region, applied)) = region_on_disk(machine, id) else { return };
        let hash = hash_region(machine, &region, self.collects);
        self.states_compared += 1;
        if let Some(expected) = self.model.state(id, applied) {
            assert_eq!(
                hash, expected,
                "what the log says: region {id} at {applied} on node {slot}: {region:?}"
            );
        }
        let (first, by) = self.states.entry((id, applied)).or_insert((hash, slot));
        assert_eq!(
            *first, hash,
            "the same data at the same index: region {id} at {applied}, nodes {by} and {slot}: \
             {region:?}"
        );
    }

    /// Regions that were taken over.
    pub(crate) fn merges(&self) -> u64 {
        self.model.merges
    }

    /// The largest index that any store applied of a region.
    pub(crate) fn last_committed(&self, region: RegionId) -> Index {
        let entries = self.entries.get(&region).and_then(|entries| entries.last_key_value());
        entries.map_or(0, |(index, _)| *index)
    }
}

pub(crate) fn takes_part(local: LocalState) -> bool {
    matches!(local, LocalState::Normal | LocalState::Merging)
}

/// No snapshot is made of a region that merges: whoever took it would lead a region that is about
/// to be somebody else's.
fn merges_are_not_copied(slot: Slot, out: &ApplyOutbox) {
    for job in &out.jobs {
        if let Job::BuildSnapshot(build) = job {
            let (id, since) = (build.region.id, merges_since(&*build.snapshot, build.region.id));
            assert!(since.is_none(), "what merges is not copied: region {id} on node {slot}");
        }
    }
}

/// The entry since which the region waits to become a part of another one.
fn merges_since(snapshot: &dyn Snapshot, id: RegionId) -> Option<Index> {
    let record = snapshot.get(Cf::Raft, &keys::region_state_key(id)).expect("readable")?;
    let record = raft_serverpb::RegionLocalState::decode(record).expect("sound");
    let waits = record.state() == raft_serverpb::PeerState::Merging;
    record.merge_state.filter(|_| waits).map(|merge| merge.commit)
}

/// The descriptor and the applied index of a region that takes part.
pub(crate) fn region_on_disk(machine: &Machine, id: RegionId) -> Option<(Region, Index)> {
    let get = |key: &[u8]| machine.engine.get(Cf::Raft, key).expect("readable");
    let local = get(&keys::region_state_key(id))?;
    let local = raft_serverpb::RegionLocalState::decode(local).expect("sound");
    let states = [raft_serverpb::PeerState::Normal, raft_serverpb::PeerState::Merging];
    if !states.contains(&local.state()) {
        return None;
    }
    let region = proto::region_from_proto(local.region.as_ref()?);
    let apply = raft_serverpb::RaftApplyState::decode(get(&keys::apply_state_key(id))?);
    Some((region, apply.expect("sound").applied_index))
}

/// A number for the descriptor and the data of a region, as the model reckons it.
pub(crate) fn hash_region(machine: &Machine, region: &Region, collects: bool) -> u64 {
    let mut sum = hash_descriptor(region);
    let (start, end) = keys::data_range(region.id, &region.range);
    let range = KeyRange::new(start, end);
    for cf in Cf::DATA {
        machine.engine.for_each(cf, &range, |key, value| {
            let key = keys::origin_key(key).expect("the range has the prefix");
            sum = sum.wrapping_add(hash_pair(collects, cf.name(), key, value));
        });
    }
    sum
}
