//! What takes long and is done elsewhere: on a pool thread, with nothing but the engine and the
//! folder of snapshots.

use storage::engine::Engine;

use crate::Fatal;
use crate::input::ShardInput;
use crate::snapshot::{
    BuildSnapshot, DestroyData, DiscardSnapshot, InstallSnapshot, SnapshotError, SnapshotFolder,
};

/// What shard or applier want done by whoever has the time.
#[derive(Debug)]
pub enum Job {
    /// Sync the engine, then tell [`ShardInput::EngineSynced`].
    SyncEngine,
    /// Make a snapshot, then tell [`ShardInput::SnapshotBuilt`].
    BuildSnapshot(BuildSnapshot),
    /// Install a snapshot, then tell [`ShardInput::SnapshotInstalled`].
    InstallSnapshot(InstallSnapshot),
    /// Remove files of a snapshot. Nobody waits.
    DiscardSnapshot(DiscardSnapshot),
    /// Remove data of a region that is gone, then tell [`ShardInput::DataDestroyed`].
    DestroyData(DestroyData),
}

impl Job {
    /// Does it, and says what the shard must be told. After a failure that leaves the engine
    /// behind what the store believes of it the node must stop.
    pub fn run(
        self,
        engine: &dyn Engine,
        folder: &SnapshotFolder,
    ) -> Result<Option<ShardInput>, Fatal> {
        match self {
            Self::SyncEngine => {
                engine.sync().map_err(|cause| Fatal::engine(&cause))?;
                Ok(Some(ShardInput::EngineSynced))
            }
            Self::BuildSnapshot(build) => {
                let (region_id, to) = (build.region.id, build.to);
                let result = build.run(engine, folder);
                Ok(Some(ShardInput::SnapshotBuilt { region_id, to, result }))
            }
            Self::InstallSnapshot(install) => {
                let region_id = install.region.id;
                let result = install.run(engine, folder);
                match &result {
                    Err(error) if !error.is_damage() => Err(Fatal::snapshot(error)),
                    _ => Ok(Some(ShardInput::SnapshotInstalled { region_id, result })),
                }
            }
            Self::DiscardSnapshot(discard) => {
                if let Err(error) = discard.run(folder) {
                    tracing::warn!(%error, "files of a snapshot stay until the next start");
                }
                Ok(None)
            }
            Self::DestroyData(destroy) => {
                let region = destroy.region;
                destroy.run(engine).map_err(|error: SnapshotError| Fatal::snapshot(&error))?;
                Ok(Some(ShardInput::DataDestroyed(region)))
            }
        }
    }
}
