//! The applier: turns committed entries into engine writes, and is the only one that changes a
//! region.
//!
//! ```text
//!   shard ──ApplyTask──> applier ──one batch: data + apply states of all regions──> engine
//!     ^                     │ then, and only then
//!     └──────Applied────────┴──replies──> callers
//! ```
//!
//! Invariants: 1. An entry's data and the applied index that covers it are in the same batch. 2.
//! The applied index only grows, by one an entry. 3. Nobody is answered, and no `Applied` leaves,
//! before the batch is written. 4. What is held in memory of a region changes only after its entry
//! was staged without error. 5. Steps of a replica's life (a snapshot comes, the replica goes) are
//! told once the engine is synced behind them: what follows may destroy the log. A change of
//! members too: whoever is told of it may take away a store that the group needed before, and the
//! group would need it again if a power loss took the change back on the others.
//!
//! `stage` says what each entry does, `merge` the entries of a merge, `life` what is not in the
//! log.

mod life;
mod merge;
mod stage;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use base::rule::{Rule, keep};
use base::{Entry, Epoch, Index, KeyRange, PeerId, Region, RegionId, Term};
use raft::{ConfChange, LogPos};
use storage::engine::{Cf, Engine, WriteBatch};
use storage::keys;

use crate::command::Merge;
use crate::consistency::RegionHash;
use crate::job::Job;
use crate::merge::{Absorbed, MergeState};
use crate::reply::{ReplyTo, WriteResult};
use crate::states::ApplyState;
use crate::{Fatal, RegionError};

use self::merge::Paused;
pub use life::Installation;
pub use merge::MergeNews;

/// A batch over this size is written before more is staged.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Proposals of one entry that wait for it to be applied.
#[derive(Debug)]
pub struct Waiting {
    /// Where their entry was put.
    pub index: Index,
    /// Under which term. Another term at this index: another entry took its place.
    pub term: Term,
    /// Whom to answer.
    pub replies: Vec<ReplyTo>,
}

/// Committed entries of one region, with the callers that wait for them.
#[derive(Debug)]
pub struct ApplyTask {
    /// The region.
    pub region_id: RegionId,
    /// In order, beginning right after the applied index. Committed, and persisted here.
    pub entries: Vec<Entry>,
    /// In the order of their indexes, none beyond the last entry's.
    pub waiting: Vec<Waiting>,
}

/// What the applier is told.
#[derive(Debug)]
pub enum ApplyInput {
    /// A region's replica exists from now on.
    Create {
        /// Its descriptor.
        region: Arc<Region>,
        /// How far it is applied.
        state: ApplyState,
        /// Term of the last entry applied.
        term: Term,
        /// The replica here.
        peer: PeerId,
        /// If it waits to become a part of a neighbour.
        merge: Option<Arc<MergeState>>,
        /// The regions that it absorbed.
        absorbed: Arc<Absorbed>,
    },
    /// Entries to apply.
    Apply(ApplyTask),
    /// A member needs a snapshot that covers at least this entry: made once that is applied.
    Snapshot {
        /// Of this region.
        region_id: RegionId,
        /// For this peer.
        to: PeerId,
        /// What it must cover.
        at_least: Index,
    },
    /// A snapshot that was asked for is made, or failed: another one may be begun.
    SnapshotBuilt,
    /// A snapshot is about to replace what the replica holds, if it holds anything: the region is
    /// Applying from now on, and nothing of it is applied until it is installed.
    BeginInstall(Installation),
    /// The snapshot's data are in the engine: the region is Normal again.
    FinishInstall(Installation),
    /// The replica goes for ever. Its epoch is the one as of which it is no member any more, or the
    /// region became a part of another one.
    Destroy(Arc<Region>, PeerId, Option<Box<Region>>),
    /// The data of a region that went are gone too.
    Forget(RegionId),
}

/// What happened to a replica beside entries. Durable when it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// The region is Applying: its log may be replaced.
    Applying,
    /// The snapshot is installed.
    Installed,
    /// The region is a Tombstone of this peer: its log may go, and its data.
    Destroyed(PeerId),
}

/// How far a region's replica has got: written to the engine, visible to readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The region.
    pub region_id: RegionId,
    /// Index of the last entry applied.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// Up to where the log may be cut once the engine is synced.
    pub truncated: (Index, Term),
    /// Bytes of keys and values written by these entries, as a measure of the region's growth.
    pub written_bytes: u64,
    /// Keys written by these entries.
    pub written_keys: u64,
    /// Some of them, one in many, to see where the region is hot.
    pub sampled_keys: Vec<bytes::Bytes>,
    /// The descriptor, if these entries changed it.
    pub region: Option<Arc<Region>>,
    /// Regions that these entries cut off this one. Their states are written, their logs are not.
    pub births: Vec<Arc<Region>>,
    /// Changes of members among these entries, with their indexes.
    pub conf_changes: Vec<(Index, ConfChange)>,
    /// The leader's hash of the region, if one of these entries says it.
    pub verify: Option<RegionHash>,
    /// What they did to a merge.
    pub merge: MergeNews,
    /// A step in the replica's life that follows these entries, if there are any.
    pub milestone: Option<Milestone>,
}

/// What leaves a turn of the applier, in the order in which the driver takes it.
#[derive(Debug, Default)]
pub struct ApplyOutbox {
    /// Answers to callers.
    pub replies: Vec<(ReplyTo, WriteResult)>,
    /// For the shards.
    pub applied: Vec<Applied>,
    /// For the pool.
    pub jobs: Vec<Job>,
    /// The node must stop: the engine failed or an entry cannot be read.
    pub fatal: Option<Fatal>,
}

struct ApplyRegion {
    region: Arc<Region>,
    /// The replica here.
    peer: PeerId,
    state: ApplyState,
    term: Term,
    written_bytes: u64,
    written_keys: u64,
    /// Keys written since one was taken as a sample, and the samples.
    unsampled_keys: u64,
    sampled_keys: Vec<bytes::Bytes>,
    /// The descriptor changed and the shard does not know yet.
    changed: bool,
    births: Vec<Arc<Region>>,
    conf_changes: Vec<(Index, ConfChange)>,
    verify: Option<RegionHash>,
    /// The entry just staged asks for the hash of what it leaves behind, but for what stores may
    /// have collected up to this horizon.
    hash_asked: Option<bytes::Bytes>,
    /// Ranges that were deleted, engine form.
    deleted: Vec<(Cf, KeyRange)>,
    /// It waits to become a part of a neighbour.
    merge: Option<Arc<MergeState>>,
    absorbed: Arc<Absorbed>,
    news: MergeNews,
    /// The entry just staged takes another region over.
    takes_over: Option<Box<(Epoch, Merge)>>,
    /// Entries that wait until a source can be taken over.
    paused: Option<Box<Paused>>,
    /// Members that wait for a snapshot of at least this entry.
    wanted: Vec<(PeerId, Index)>,
    /// An entry has removed the replica: those behind it are nobody's.
    removed: bool,
}

impl ApplyRegion {
    fn new(region: Arc<Region>, state: ApplyState, term: Term, peer: PeerId) -> Self {
        Self {
            region,
            peer,
            state,
            term,
            written_bytes: 0,
            written_keys: 0,
            unsampled_keys: 0,
            sampled_keys: Vec::new(),
            changed: false,
            births: Vec::new(),
            conf_changes: Vec::new(),
            verify: None,
            hash_asked: None,
            deleted: Vec::new(),
            merge: None,
            absorbed: Arc::default(),
            news: MergeNews::default(),
            takes_over: None,
            paused: None,
            wanted: Vec::new(),
            removed: false,
        }
    }

    fn pos(&self) -> LogPos {
        LogPos { index: self.state.applied, term: self.term }
    }
}

/// The applier of one store. Driven by messages; the one piece of the store that writes data to the
/// engine.
pub struct Applier {
    engine: Arc<dyn Engine>,
    regions: BTreeMap<RegionId, ApplyRegion>,
    batch: WriteBatch,
    /// Regions with something staged.
    staged: Vec<RegionId>,
    /// Snapshots that are being made.
    building: usize,
    /// Regions of which members wait for one, in the order in which they are served.
    wanted: VecDeque<RegionId>,
    /// Regions whose entries wait for another region's.
    paused: BTreeSet<RegionId>,
    /// Written, to be told once the engine is synced.
    unsynced: Vec<Applied>,
    /// Ends of regions that others of this batch have taken over: these are told first.
    taken: Vec<Applied>,
    /// Members changed in this turn: nobody is told before the engine is synced.
    members_changed: bool,
    replies: Vec<(ReplyTo, WriteResult)>,
    keys_written: u64,
}

impl Applier {
    /// An applier without regions.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self {
            engine,
            regions: BTreeMap::new(),
            batch: WriteBatch::new(),
            staged: Vec::new(),
            building: 0,
            wanted: VecDeque::new(),
            paused: BTreeSet::new(),
            unsynced: Vec::new(),
            taken: Vec::new(),
            members_changed: false,
            replies: Vec::new(),
            keys_written: 0,
        }
    }

    /// Keys written so far: a counter for the driver to export.
    pub fn keys_written(&self) -> u64 {
        self.keys_written
    }

    /// Takes everything in `inbox`, writes it, and only then hands out answers and notices. After a
    /// turn that set `fatal` the applier must not be used again.
    pub fn turn(&mut self, inbox: &mut Vec<ApplyInput>, out: &mut ApplyOutbox) {
        for input in inbox.drain(..) {
            let result = self.take(input, out).and_then(|()| self.resume(out));
            let result = result.and_then(|()| match self.batch.byte_size() > BATCH_BYTES_MAX {
                true => self.write(out),
                false => Ok(()),
            });
            if let Err(fatal) = result {
                out.fatal = Some(fatal);
                return;
            }
        }
        out.fatal = self.write(out).and_then(|()| self.sync(out)).err();
    }

    fn take(&mut self, input: ApplyInput, out: &mut ApplyOutbox) -> Result<(), Fatal> {
        match input {
            ApplyInput::Create { region, state, term, peer, merge, absorbed } => {
                let region = ApplyRegion::new(region, state, term, peer);
                self.create(ApplyRegion { merge, absorbed, ..region });
                Ok(())
            }
            ApplyInput::Apply(task) => self.apply(task, out),
            ApplyInput::Snapshot { region_id, to, at_least } => {
                self.snapshot(region_id, to, at_least, out)
            }
            ApplyInput::SnapshotBuilt => {
                assert!(self.building > 0, "a snapshot is made once");
                self.building -= 1;
                self.write(out)
            }
            ApplyInput::BeginInstall(installation) => self.begin_install(&installation, out),
            ApplyInput::FinishInstall(installation) => self.finish_install(installation, out),
            ApplyInput::Destroy(region, peer, merged_into) => {
                self.destroy(&region, peer, merged_into, out)
            }
            ApplyInput::Forget(region) => {
                self.batch.delete(Cf::Raft, &keys::apply_state_key(region));
                Ok(())
            }
        }
    }

    fn create(&mut self, region: ApplyRegion) {
        let id = region.region.id;
        let old = self.regions.insert(id, region);
        assert!(old.is_none(), "region {id} is applied already");
    }

    fn apply(&mut self, task: ApplyTask, out: &mut ApplyOutbox) -> Result<(), Fatal> {
        let id = task.region_id;
        let Some(mut region) = self.regions.get_mut(&id).filter(|region| !region.removed) else {
            // They are committed, and the others apply them: only what they do is not known here.
            let late = task.waiting.into_iter().flat_map(|waiting| waiting.replies);
            self.replies.extend(late.map(|reply| (reply, Err(RegionError::Undetermined))));
            return Ok(());
        };
        if let Some(paused) = &mut region.paused {
            paused.tasks.push_back(task);
            return Ok(());
        }
        let mut waiting = task.waiting.into_iter().peekable();
        for (at, entry) in task.entries.iter().enumerate() {
            let next = region.state.applied + 1;
            assert_eq!(entry.index, next, "region {id}: entries are applied in order");
            let mut result = region
                .stage(entry, &*self.engine, &mut self.batch)
                .map_err(|cause| Fatal::entry(id, entry.index, &cause))?;
            if let Some(takes) = region.takes_over.take() {
                let Some(taken) = self.take_over(id, &takes, out)? else {
                    let entries = task.entries[at..].to_vec();
                    let rest = ApplyTask { region_id: id, entries, waiting: waiting.collect() };
                    self.pause(rest, takes.1);
                    return Ok(());
                };
                result = taken;
                region = self.regions.get_mut(&id).expect("it takes over, and stays");
            }
            region.state.applied = entry.index;
            region.term = entry.term;
            while let Some(proposal) = waiting.next_if(|w| w.index <= entry.index) {
                let same_term = proposal.term == entry.term || !keep(Rule::AnswerOwnTerm);
                let ours = proposal.index == entry.index && same_term;
                let result = if ours { result.clone() } else { Err(RegionError::StaleCommand(id)) };
                let answers = proposal.replies.into_iter().map(|reply| (reply, result.clone()));
                self.replies.extend(answers);
            }
            region.state.commit = (entry.index, entry.term);
            if region.removed {
                let late = waiting.by_ref().flat_map(|waiting| waiting.replies);
                self.replies.extend(late.map(|reply| (reply, Err(RegionError::Undetermined))));
                break;
            }
            if region.hash_asked.is_some() {
                // What is behind this entry must not be seen.
                self.staged.push(id);
                self.write(out)?;
                region = self.regions.get_mut(&id).expect("no entry has removed it");
            }
        }
        assert!(
            waiting.peek().is_none(),
            "region {id}: a caller waits for an entry not in its task"
        );
        if !task.entries.is_empty() && self.staged.last() != Some(&id) {
            self.staged.push(id);
        }
        Ok(())
    }

    /// Puts the apply states behind the data, writes the batch, then lets answers and notices go.
    fn write(&mut self, out: &mut ApplyOutbox) -> Result<(), Fatal> {
        if !keep(Rule::StateWithData) && !self.batch.is_empty() {
            self.engine.write(&self.batch).map_err(|cause| Fatal::engine(&cause))?;
            self.batch.clear();
        }
        self.staged.sort_unstable();
        self.staged.dedup();
        for id in &self.staged {
            let state = self.regions[id].state.encode();
            self.batch.put(Cf::Raft, &keys::apply_state_key(*id), &state);
        }
        if !self.batch.is_empty() {
            self.engine.write(&self.batch).map_err(|cause| Fatal::engine(&cause))?;
            self.batch.clear();
        }
        out.replies.append(&mut self.replies);
        for id in std::mem::take(&mut self.staged) {
            let region = self.regions.get_mut(&id).expect("it was staged");
            self.keys_written += region.written_keys;
            let applied = region.applied();
            self.members_changed |= !applied.conf_changes.is_empty();
            out.jobs.extend(region.hash(&*self.engine));
            let deleted = std::mem::take(&mut region.deleted).into_iter();
            out.jobs.extend(deleted.map(|(cf, range)| Job::Reclaim(cf, range)));
            if region.removed {
                let milestone = Some(Milestone::Destroyed(region.peer));
                self.unsynced.push(Applied { milestone, ..applied });
                self.regions.remove(&id);
            } else {
                out.applied.push(applied);
            }
        }
        self.unsynced.append(&mut self.taken);
        self.begin_snapshots(out);
        Ok(())
    }
}

impl ApplyRegion {
    fn applied(&mut self) -> Applied {
        Applied {
            region_id: self.region.id,
            region: std::mem::take(&mut self.changed).then(|| self.region.clone()),
            births: std::mem::take(&mut self.births),
            conf_changes: std::mem::take(&mut self.conf_changes),
            verify: self.verify.take(),
            merge: std::mem::take(&mut self.news),
            milestone: None,
            index: self.state.applied,
            term: self.term,
            truncated: self.state.truncated,
            written_bytes: std::mem::take(&mut self.written_bytes),
            written_keys: std::mem::take(&mut self.written_keys),
            sampled_keys: std::mem::take(&mut self.sampled_keys),
        }
    }
}
