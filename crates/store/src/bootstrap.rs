//! How a store and a cluster come to be, crash-safe at every step.
//!
//! ```text
//!   empty folder ── bootstrap_store ──> store ident                                 (synced)
//!        │ founder: the system region's log, then write_system_region               (synced)
//!   FirstRegion decides, the node acts: placement, "bootstrapped?" ── yes ──> nothing to do
//!        │ no: region id, peer id
//!   prepare ──> { prepare key, region state, apply state }                          (synced)
//!        │      then the log's initial state                                        (synced)
//!   tell placement ──> accepted, or it holds this very region: clear the key
//!        └───────────> it holds another region: remove ours, then the key
//! ```
//!
//! The prepare key is there exactly while phase one is done and placement has not acknowledged.
//! While it is there the region's peer does not run, so writing its initial states again is
//! harmless: a restart with the key present goes on with the same region and the same ids, and
//! never makes a second one.

use base::limits::{RAFT_INIT_LOG_INDEX, RAFT_INIT_LOG_TERM};
use base::{Peer, PeerId, Region, RegionId, StoreId};
use prost::Message;
use proto::metapb;
use raft::HardState;
use storage::engine::{Cf, Engine, EngineError, IterOptions, WriteBatch};
use storage::keys;
use storage::log::LogBatch;

use crate::merge::Absorbed;
use crate::states::{self, ApplyState, LocalState, StateError, StoreIdent};

pub use first_region::{Action, Event, FirstRegion, Outcome, TRIES_MAX, TRY_INTERVAL};

mod first_region;

/// Why a store cannot be founded or read.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// There is data, but no store ident: another program's folder, or one whose ident was lost.
    #[error("the engine holds data but no store ident (first key {first_key:?} in `{cf}`)")]
    NotEmpty {
        /// Family of the key.
        cf: &'static str,
        /// A key that is there.
        first_key: Vec<u8>,
    },
    /// The store has an ident already.
    #[error("store {} of cluster {} is bootstrapped already", .0.store_id, .0.cluster_id)]
    Bootstrapped(StoreIdent),
    /// A record does not decode.
    #[error(transparent)]
    State(#[from] StateError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The ident of the store, if it is bootstrapped.
pub fn store_ident(engine: &dyn Engine) -> Result<Option<StoreIdent>, BootstrapError> {
    let Some(data) = engine.get(Cf::Raft, &keys::STORE_IDENT)? else { return Ok(None) };
    Ok(Some(states::decode_store_ident(&data)?))
}

/// Gives an empty store its identity, durably. Fails if it has one, or if it holds anything else.
pub fn bootstrap_store(engine: &dyn Engine, ident: &StoreIdent) -> Result<(), BootstrapError> {
    if let Some(ident) = store_ident(engine)? {
        return Err(BootstrapError::Bootstrapped(ident));
    }
    let snapshot = engine.snapshot();
    for cf in Cf::ALL {
        let mut cursor = snapshot.iter(cf, IterOptions::default())?;
        if cursor.seek_to_first()? {
            return Err(BootstrapError::NotEmpty {
                cf: cf.name(),
                first_key: cursor.key().to_vec(),
            });
        }
    }
    let mut batch = WriteBatch::new();
    batch.put(Cf::Raft, &keys::STORE_IDENT, &states::encode_store_ident(ident));
    write_synced(engine, &batch)
}

/// The region that holds the placement driver's rows, as its founder bootstraps it.
pub fn system_region() -> Region {
    Region::first(RegionId::SYSTEM, Peer::voter(PeerId::SYSTEM_FOUNDER, StoreId::FOUNDER))
}

/// Whether the store holds a replica of the system region.
pub fn has_system_region(engine: &dyn Engine) -> Result<bool, BootstrapError> {
    Ok(engine.get(Cf::Raft, &keys::region_state_key(RegionId::SYSTEM))?.is_some())
}

/// Writes the system region's states, durably. Its initial log ([`initial_log`]) must be durable
/// already: until this returns the region does not exist, and a founder that stopped in between
/// starts over.
pub fn write_system_region(engine: &dyn Engine) -> Result<(), BootstrapError> {
    let mut batch = WriteBatch::new();
    put_initial_states(&mut batch, &system_region());
    write_synced(engine, &batch)
}

/// The region whose bootstrap placement has not acknowledged, if there is one.
pub fn prepared_region(engine: &dyn Engine) -> Result<Option<Region>, BootstrapError> {
    let Some(data) = engine.get(Cf::Raft, &keys::PREPARE_BOOTSTRAP)? else { return Ok(None) };
    let region = metapb::Region::decode(data).map_err(|error| StateError {
        what: "prepare-bootstrap region".to_owned(),
        cause: error.to_string(),
    })?;
    Ok(Some(proto::region_from_proto(&region)))
}

/// Phase one, first half: the prepare key and the region's states, durably. The second half is
/// [`initial_log`], through the log's writer.
pub fn prepare_region(engine: &dyn Engine, region: &Region) -> Result<(), BootstrapError> {
    let mut batch = WriteBatch::new();
    let prepared = proto::region_to_proto(region).encode_to_vec();
    batch.put(Cf::Raft, &keys::PREPARE_BOOTSTRAP, &prepared);
    put_initial_states(&mut batch, region);
    write_synced(engine, &batch)
}

/// Phase two is acknowledged: the key goes, durably, and the region may run.
pub fn clear_prepared(engine: &dyn Engine) -> Result<(), BootstrapError> {
    let mut batch = WriteBatch::new();
    batch.delete(Cf::Raft, &keys::PREPARE_BOOTSTRAP);
    write_synced(engine, &batch)
}

/// Another store won: our region's states and the key go, durably. The caller removes the region
/// from the log *first*: what is left of a crash in between is found by the key.
pub fn remove_prepared(engine: &dyn Engine, region: RegionId) -> Result<(), BootstrapError> {
    let mut batch = WriteBatch::new();
    batch.delete(Cf::Raft, &keys::region_state_key(region));
    batch.delete(Cf::Raft, &keys::apply_state_key(region));
    batch.delete(Cf::Raft, &keys::PREPARE_BOOTSTRAP);
    write_synced(engine, &batch)
}

/// The log of a region that is bootstrapped: term 5, commit 5, and a start at index 5, so that a
/// replica with an empty log always begins with a snapshot.
pub fn initial_log(batch: &mut LogBatch, region: RegionId) {
    batch.truncate(region, RAFT_INIT_LOG_INDEX, RAFT_INIT_LOG_TERM);
    let state = states::encode_raft_state(&initial_hard_state(), RAFT_INIT_LOG_INDEX);
    batch.put_state(region, state);
}

/// The hard state of a region that is bootstrapped.
pub(crate) fn initial_hard_state() -> HardState {
    HardState { term: RAFT_INIT_LOG_TERM, vote: PeerId::NONE, commit: RAFT_INIT_LOG_INDEX }
}

/// The states of a region that begins to exist on this store.
pub(crate) fn put_initial_states(batch: &mut WriteBatch, region: &Region) {
    put_region_state(batch, region);
    batch.put(Cf::Raft, &keys::apply_state_key(region.id), &ApplyState::initial().encode());
}

/// The descriptor of a region that never merged.
fn put_region_state(batch: &mut WriteBatch, region: &Region) {
    let (local, none) = (LocalState::Normal, Absorbed::default());
    let state = states::encode_region_state(region, local, None, &none);
    batch.put(Cf::Raft, &keys::region_state_key(region.id), &state);
}

fn write_synced(engine: &dyn Engine, batch: &WriteBatch) -> Result<(), BootstrapError> {
    engine.write(batch)?;
    engine.sync()?;
    Ok(())
}
