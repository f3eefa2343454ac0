//! What a store finds when it starts again: one replica for each region state in the engine.
//!
//! The raft log and the engine are synced at different times, so after a power loss the engine may
//! be behind what was applied, never behind what left the log (rules in docs/ARCHITECTURE.md).
//! Recovery brings the two together: the commit index is the larger of the two that were written,
//! and the entries between `applied` and `commit` go through the ordinary applier again. There is
//! no second code path that replays.
//!
//! The scan reads region states and apply states and asks the log for positions only: its cost is
//! in regions, not in entries.

use std::sync::Arc;

use base::rule::{Rule, keep};
use base::{Index, KeyRange, Region, RegionId, StoreId, Term};
use raft::HardState;
use storage::engine::{Cf, Engine, EngineError, IterOptions, WriteBatch};
use storage::keys;
use storage::log::{LogBatch, LogError, LogReader};

use crate::bootstrap::{self, BootstrapError};
use crate::input::Birth;
use crate::shard::begin_log;
use crate::states::{self, ApplyState, LocalState, RegionRecord, StateError};

/// Why a store refuses to start. Nothing of any region was written.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A record does not decode.
    #[error(transparent)]
    State(#[from] StateError),
    /// The region exists, but a part of its state does not.
    #[error("region {region}: {missing} is missing")]
    Missing {
        /// The region.
        region: RegionId,
        /// Which part.
        missing: &'static str,
    },
    /// Engine and log contradict each other: entries that were acknowledged are lost.
    #[error(
        "region {region}: entry {index} of term {term} was committed and is not in the log \
         (log holds {first}..={last})"
    )]
    LostEntry {
        /// The region.
        region: RegionId,
        /// The missing entry.
        index: Index,
        /// Its term.
        term: Term,
        /// First index the log holds.
        first: Index,
        /// Last index the log holds.
        last: Index,
    },
    /// The region has no replica on this store: the folder is another store's.
    #[error("region {region} has no peer on store {store}")]
    NotOurs {
        /// The region.
        region: RegionId,
        /// This store.
        store: StoreId,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The bootstrap's records cannot be read.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
}

/// What was found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// What the shard must be told: replicas to create, some of them with a snapshot to install
    /// first, and behind them those that left.
    pub births: Vec<Birth>,
    /// What the log must be brought up to before the replicas run: groups of regions that left this
    /// store for ever go, and regions that were cut off another one right before the store stopped
    /// get the beginning of theirs.
    pub log_repairs: LogBatch,
    /// The region of an unfinished bootstrap: not among `births`.
    pub prepared: Option<Region>,
}

/// Scans the region states of `store_id`.
pub fn recover(
    engine: &dyn Engine,
    log: &LogReader,
    store_id: StoreId,
) -> Result<Recovered, RecoverError> {
    let mut found =
        Recovered { prepared: bootstrap::prepared_region(engine)?, ..Default::default() };
    let prepared = found.prepared.as_ref().map(|region| region.id);
    let snapshot = engine.snapshot();
    let options = IterOptions::within(keys::region_state_range());
    let mut cursor = snapshot.iter(Cf::Raft, options)?;
    let mut valid = cursor.seek_to_first()?;
    while valid {
        let id = keys::decode_region_state_key(cursor.key()).ok_or_else(|| StateError {
            what: "a region state's key".to_owned(),
            cause: format!("{:?}", cursor.key()),
        })?;
        let record = states::decode_region_state(id, cursor.value())?;
        if prepared != Some(id) || record.local == LocalState::Tombstone {
            found.take(engine, log, store_id, record)?;
        }
        valid = cursor.next()?;
    }
    found.births.sort_by_key(|birth| birth.local == LocalState::Tombstone);
    if found.prepared.is_none() {
        clear_gaps(engine, &found.births)?;
    }
    Ok(found)
}

/// Removes data of no region: left behind by a snapshot that was being installed, of fewer keys
/// than the region had before.
fn clear_gaps(engine: &dyn Engine, births: &[Birth]) -> Result<(), RecoverError> {
    let live =
        births.iter().filter(|b| b.local != LocalState::Tombstone && !b.region.id.is_system());
    let mut ranges: Vec<&KeyRange> = live.map(|birth| &birth.region.range).collect();
    ranges.sort_unstable();
    let mut start = vec![keys::DATA_PREFIX];
    let mut batch = WriteBatch::new();
    let last = keys::data_range(RegionId(0), &KeyRange::all()).1;
    let data_ranges = ranges.iter().map(|range| keys::data_range(RegionId(0), range));
    for (from, to) in data_ranges.chain([(last.clone(), last)]) {
        assert!(start <= from, "two regions of this store share keys before {from:?}");
        for cf in Cf::DATA {
            let gap = KeyRange::new(start.clone(), from.clone());
            if !gap.is_empty() && holds_any(engine, cf, gap)? {
                batch.delete_range(cf, &start, &from);
            }
        }
        start = to;
    }
    if !batch.is_empty() {
        engine.write(&batch)?;
    }
    Ok(())
}

fn holds_any(engine: &dyn Engine, cf: Cf, range: KeyRange) -> Result<bool, RecoverError> {
    let snapshot = engine.snapshot();
    let mut cursor = snapshot.iter(cf, IterOptions::within(range))?;
    Ok(cursor.seek_to_first()?)
}

impl Recovered {
    fn take(
        &mut self,
        engine: &dyn Engine,
        log: &LogReader,
        store_id: StoreId,
        record: RegionRecord,
    ) -> Result<(), RecoverError> {
        let id = record.region.id;
        if record.local == LocalState::Tombstone {
            self.births.push(left(engine, log, record, &mut self.log_repairs)?);
            return Ok(());
        }
        let RegionRecord { region, local, merge, absorbed } = record;
        let (merge, absorbed) = (merge.map(Arc::new), Arc::new(absorbed));
        if region.peer_on(store_id).is_none() {
            return Err(RecoverError::NotOurs { region: id, store: store_id });
        }
        let apply = apply_state(engine, id)?
            .ok_or(RecoverError::Missing { region: id, missing: "its apply state" })?;
        let birth = Birth { apply, local, merge, absorbed, ..Birth::initial(region) };
        self.births.push(match local {
            LocalState::Applying => resume(engine, log, birth, &mut self.log_repairs)?,
            _ => recover_region(log, birth, &mut self.log_repairs)?,
        });
        Ok(())
    }
}

fn apply_state(engine: &dyn Engine, id: RegionId) -> Result<Option<ApplyState>, RecoverError> {
    let Some(data) = engine.get(Cf::Raft, &keys::apply_state_key(id))? else { return Ok(None) };
    Ok(Some(ApplyState::decode(id, &data)?))
}

fn raft_state(log: &LogReader, id: RegionId) -> Result<Option<HardState>, RecoverError> {
    let Some(state) = log.state(id) else { return Ok(None) };
    Ok(Some(states::decode_raft_state(id, &state)?))
}

/// A replica that left. As long as there is an apply state its log and its data may be there.
/// Without one the log's entries are those of a part whose split was lost before (later replicas
/// have none before they have a record of their own); term and vote may be a later replica's. Of a
/// region that merged nothing comes later.
fn left(
    engine: &dyn Engine,
    log: &LogReader,
    record: RegionRecord,
    repairs: &mut LogBatch,
) -> Result<Birth, RecoverError> {
    let RegionRecord { region, merge, absorbed, .. } = record;
    let id = region.id;
    let apply = apply_state(engine, id)?;
    if merge.is_some() && (log.last_index(id) > 0 || log.state(id).is_some()) {
        repairs.remove(id);
    } else if apply.is_some() || log.last_index(id) > 0 {
        // Term and vote stay, for later replicas.
        let hard_state = raft_state(log, id)?;
        repairs.remove(id);
        if let Some(hard_state) = hard_state {
            let hard_state = HardState { commit: 0, ..hard_state };
            repairs.put_state(id, states::encode_raft_state(&hard_state, 0));
        }
    }
    let (apply, local) = (apply.unwrap_or_default(), LocalState::Tombstone);
    let (merge, absorbed) = (merge.map(Arc::new), Arc::new(absorbed));
    Ok(Birth { apply, local, merge, absorbed, ..Birth::initial(region) })
}

/// A snapshot was being installed: its log begins behind it, if it does not yet.
fn resume(
    engine: &dyn Engine,
    log: &LogReader,
    mut birth: Birth,
    repairs: &mut LogBatch,
) -> Result<Birth, RecoverError> {
    let (id, (index, term)) = (birth.region.id, birth.apply.truncated);
    let brought = engine
        .get(Cf::Raft, &keys::snapshot_raft_state_key(id))?
        .ok_or(RecoverError::Missing { region: id, missing: "the raft state of its snapshot" })?;
    let brought = states::decode_raft_state(id, &brought)?;
    // What was voted since is in the log.
    let latest = raft_state(log, id)?.unwrap_or_default();
    let newer = (latest.term, latest.vote) > (brought.term, brought.vote);
    let HardState { term: in_term, vote, .. } = if newer { latest } else { brought };
    let commit = brought.commit.max(index);
    birth.hard_state = HardState { term: in_term, vote, commit };
    if log.truncated(id) == (index, term) {
        birth.hard_state.commit = commit.max(latest.commit).min(log.last_index(id));
        return Ok(birth);
    }
    birth.hard_state.commit = index;
    repairs.truncate(id, index, term);
    repairs.put_state(id, states::encode_raft_state(&birth.hard_state, index));
    Ok(birth)
}

fn recover_region(
    log: &LogReader,
    mut birth: Birth,
    repairs: &mut LogBatch,
) -> Result<Birth, RecoverError> {
    let (id, apply) = (birth.region.id, birth.apply);
    let state = raft_state(log, id)?;
    let newborn = log.last_index(id) == 0 && apply == ApplyState::initial();
    if newborn && keep(Rule::BeginLogAfterSplit) {
        // Its split was the last thing that happened: its log has not begun. Perhaps it voted
        // before it knew its keys.
        birth.hard_state = begin_log(repairs, id, state);
        return Ok(birth);
    }
    birth.hard_state =
        state.ok_or(RecoverError::Missing { region: id, missing: "its raft state" })?;
    reconcile(log, id, &apply, &mut birth.hard_state)?;
    Ok(birth)
}

/// The commit index is the larger of log's and engine's, and everything from the applied index up
/// to it must be there.
fn reconcile(
    log: &LogReader,
    region: RegionId,
    apply: &ApplyState,
    hard_state: &mut HardState,
) -> Result<(), RecoverError> {
    let (first, last) = (log.first_index(region), log.last_index(region));
    let lost = |index, term| RecoverError::LostEntry { region, index, term, first, last };
    let (commit, commit_term) = apply.commit;
    if first > apply.applied + 1 {
        return Err(lost(apply.applied + 1, commit_term));
    }
    if last < commit || last < hard_state.commit {
        return Err(lost(commit.max(hard_state.commit), commit_term));
    }
    if log.term(region, commit).ok() != Some(commit_term) {
        return Err(lost(commit, commit_term));
    }
    // A replica that forgot which changes of members are committed could ask for votes by those of
    // before. What the engine knows, raft takes for committed because it is applied.
    hard_state.commit = match keep(Rule::CommitFromLog) {
        true => hard_state.commit.max(commit),
        false => commit,
    };
    hard_state.term = hard_state.term.max(commit_term);
    Ok(())
}
