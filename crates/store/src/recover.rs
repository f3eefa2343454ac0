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

use base::{Index, Region, RegionId, StoreId, Term};
use raft::HardState;
use storage::engine::{Cf, Engine, EngineError, IterOptions};
use storage::keys;
use storage::log::{LogBatch, LogError, LogReader};

use crate::bootstrap::{self, BootstrapError};
use crate::input::Birth;
use crate::states::{self, ApplyState, LocalState, StateError};

/// Why a store refuses to start. Nothing was written.
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
    /// Replicas to create.
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
        let (region, state) = states::decode_region_state(id, cursor.value())?;
        match state {
            LocalState::Tombstone => found.log_repairs.remove(id),
            LocalState::Normal if prepared == Some(id) => {}
            LocalState::Normal => {
                let birth = recover_region(engine, log, store_id, region)?;
                if log.state(id).is_none() {
                    bootstrap::initial_log(&mut found.log_repairs, id);
                }
                found.births.push(birth);
            }
        }
        valid = cursor.next()?;
    }
    Ok(found)
}

fn recover_region(
    engine: &dyn Engine,
    log: &LogReader,
    store_id: StoreId,
    region: Region,
) -> Result<Birth, RecoverError> {
    let id = region.id;
    if region.peer_on(store_id).is_none() {
        return Err(RecoverError::NotOurs { region: id, store: store_id });
    }
    let apply = engine
        .get(Cf::Raft, &keys::apply_state_key(id))?
        .ok_or(RecoverError::Missing { region: id, missing: "its apply state" })?;
    let apply = ApplyState::decode(id, &apply)?;
    let mut birth = Birth { apply, ..Birth::initial(region) };
    match log.state(id) {
        Some(state) => birth.hard_state = states::decode_raft_state(id, &state)?,
        // Its split was the last thing that happened: it has not begun.
        None if apply == ApplyState::initial() => return Ok(birth),
        None => return Err(RecoverError::Missing { region: id, missing: "its raft state" }),
    }
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
    hard_state.commit = hard_state.commit.max(commit);
    hard_state.term = hard_state.term.max(commit_term);
    Ok(())
}
