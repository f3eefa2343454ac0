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
//! was staged without error.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Cut, Entry, EntryKind, Epoch, Index, Region, RegionId, Term};
use storage::engine::{Cf, Engine, WriteBatch};
use storage::keys;

use crate::bootstrap;
use crate::command::{self, Command, CommandError, Write, WriteIter};
use crate::reply::{ReplyTo, WriteResult};
use crate::states::ApplyState;
use crate::{Fatal, RegionError};

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
    Create(Arc<Region>, ApplyState),
    /// Entries to apply.
    Apply(ApplyTask),
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
    /// The descriptor, if these entries changed it.
    pub region: Option<Arc<Region>>,
    /// Regions that these entries cut off this one. Their states are written, their logs are not.
    pub births: Vec<Arc<Region>>,
}

/// What leaves a turn of the applier, in the order in which the driver takes it.
#[derive(Debug, Default)]
pub struct ApplyOutbox {
    /// Answers to callers.
    pub replies: Vec<(ReplyTo, WriteResult)>,
    /// For the shards.
    pub applied: Vec<Applied>,
    /// The node must stop: the engine failed or an entry cannot be read.
    pub fatal: Option<Fatal>,
}

struct ApplyRegion {
    region: Arc<Region>,
    state: ApplyState,
    term: Term,
    written_bytes: u64,
    written_keys: u64,
    /// The descriptor changed and the shard does not know yet.
    changed: bool,
    births: Vec<Arc<Region>>,
}

impl ApplyRegion {
    fn new(region: Arc<Region>, state: ApplyState) -> Self {
        let (term, written_bytes, written_keys) = (0, 0, 0);
        let (changed, births) = (false, Vec::new());
        Self { region, state, term, written_bytes, written_keys, changed, births }
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
            let result = match input {
                ApplyInput::Create(region, state) => {
                    self.create(region, state);
                    Ok(())
                }
                ApplyInput::Apply(task) => self.apply(task),
            };
            let result = result.and_then(|()| match self.batch.byte_size() > BATCH_BYTES_MAX {
                true => self.write(out),
                false => Ok(()),
            });
            if let Err(fatal) = result {
                out.fatal = Some(fatal);
                return;
            }
        }
        out.fatal = self.write(out).err();
    }

    fn create(&mut self, region: Arc<Region>, state: ApplyState) {
        let id = region.id;
        let old = self.regions.insert(id, ApplyRegion::new(region, state));
        assert!(old.is_none(), "region {id} is applied already");
    }

    fn apply(&mut self, task: ApplyTask) -> Result<(), Fatal> {
        let id = task.region_id;
        let region = self.regions.get_mut(&id).expect("tasks come for regions that were created");
        let mut waiting = task.waiting.into_iter().peekable();
        for entry in &task.entries {
            let next = region.state.applied + 1;
            assert_eq!(entry.index, next, "region {id}: entries are applied in order");
            let result = region
                .stage(entry, &mut self.batch)
                .map_err(|cause| Fatal::entry(id, entry.index, &cause))?;
            region.state.applied = entry.index;
            region.term = entry.term;
            while let Some(proposal) = waiting.next_if(|w| w.index <= entry.index) {
                let ours = proposal.index == entry.index && proposal.term == entry.term;
                let result = if ours { result.clone() } else { Err(RegionError::StaleCommand(id)) };
                let answers = proposal.replies.into_iter().map(|reply| (reply, result.clone()));
                self.replies.extend(answers);
            }
        }
        assert!(
            waiting.peek().is_none(),
            "region {id}: a caller waits for an entry not in its task"
        );
        if let Some(last) = task.entries.last() {
            region.state.commit = (last.index, last.term);
            if self.staged.last() != Some(&id) {
                self.staged.push(id);
            }
        }
        Ok(())
    }

    /// Puts the apply states behind the data, writes the batch, then lets answers and notices go.
    fn write(&mut self, out: &mut ApplyOutbox) -> Result<(), Fatal> {
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
        for id in self.staged.drain(..) {
            let region = self.regions.get_mut(&id).expect("it was staged");
            self.keys_written += region.written_keys;
            out.applied.push(region.applied(id));
        }
        Ok(())
    }
}

impl ApplyRegion {
    /// Stages what `entry` says. `Ok(Err(_))`: the entry takes effect as nothing, on every replica
    /// alike.
    fn stage(
        &mut self,
        entry: &Entry,
        batch: &mut WriteBatch,
    ) -> Result<Result<(), RegionError>, CommandError> {
        assert_eq!(entry.kind, EntryKind::Normal, "members do not change in this version");
        if entry.data.is_empty() {
            return Ok(Ok(()));
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
            Command::Split { epoch, cuts } => Ok(self.split(epoch, &cuts, batch)),
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
        batch: &mut WriteBatch,
    ) -> Result<(), RegionError> {
        let current = || vec![self.region.clone()];
        let parts = (epoch == self.region.epoch).then(|| self.region.split(cuts)).flatten();
        let Some((region, births)) = parts else {
            return Err(RegionError::EpochNotMatch { current: current() });
        };
        for birth in &births {
            bootstrap::put_initial_states(batch, birth);
        }
        bootstrap::put_region_state(batch, &region);
        self.births.extend(births.into_iter().map(Arc::new));
        self.region = Arc::new(region);
        self.changed = true;
        Ok(())
    }

    fn applied(&mut self, region_id: RegionId) -> Applied {
        Applied {
            region: std::mem::take(&mut self.changed).then(|| self.region.clone()),
            births: std::mem::take(&mut self.births),
            region_id,
            index: self.state.applied,
            term: self.term,
            truncated: self.state.truncated,
            written_bytes: std::mem::take(&mut self.written_bytes),
            written_keys: std::mem::take(&mut self.written_keys),
        }
    }
}
