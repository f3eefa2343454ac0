//! What takes long and is done elsewhere: on a pool thread, with nothing but the engine and the
//! folder of snapshots.

use base::KeyRange;
use base::rule::{Rule, keep};
use storage::engine::{Cf, Engine};

use crate::Fatal;
use crate::consistency::ComputeHash;
use crate::input::ShardInput;
use crate::snapshot::{
    BuildSnapshot, DestroyData, DiscardSnapshot, InstallSnapshot, SnapshotError, SnapshotFolder,
};
use crate::split_check::{CheckSplit, SplitChecked};

/// Bytes of files in a deleted range below which it is left to the engine to give them back.
pub const RECLAIM_BYTES_MIN: u64 = 4 << 20;

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
    /// See how large a region is and where to cut it, then tell [`ShardInput::SplitChecked`].
    CheckSplit(CheckSplit),
    /// Read a region through and tell [`ShardInput::HashComputed`].
    ComputeHash(ComputeHash),
    /// Give back the space of a deleted range. Nobody waits.
    Reclaim(Cf, KeyRange),
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
                if keep(Rule::SyncBeforeLogShrinks) {
                    engine.sync().map_err(|cause| Fatal::engine(&cause))?;
                }
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
            Self::CheckSplit(check) => {
                let (region_id, version) = (check.region.id, check.region.epoch.version);
                let found = check.run(engine).inspect_err(|error| {
                    tracing::warn!(region = %region_id, %error, "size unknown");
                });
                let found = found.ok();
                let checked = SplitChecked { region_id, version, found };
                Ok(Some(ShardInput::SplitChecked(checked)))
            }
            Self::Reclaim(cf, range) => {
                assert!(!range.end.is_empty(), "a deleted range has an end");
                let run = || match engine.approximate_size(cf, &range)? {
                    ..RECLAIM_BYTES_MIN => Ok(()),
                    _ => engine.compact_range(cf, &range),
                };
                run().map_err(|cause| Fatal::engine(&cause))?;
                Ok(None)
            }
            Self::ComputeHash(compute) => {
                let hash = compute.run(engine).map_err(|cause| Fatal::engine(&cause))?;
                Ok(Some(ShardInput::HashComputed { region_id: compute.region.id, hash }))
            }
        }
    }
}
