//! What runs on the pool: plain values with one method, `run`, that waits for disk and engine.
//!
//! [`InstallSnapshot`], [`DestroyData`] and [`DiscardSnapshot`] are run one at a time and in the
//! order in which they were asked for: what one region gives up is the next one's. Any number of
//! [`BuildSnapshot`]s may run beside.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use base::rule::{Rule, keep};
use base::{KeyRange, PeerId, Region, RegionId};
use raft::{ConfState, LogPos};
use storage::engine::{Cf, Engine, IterOptions, Snapshot, WriteBatch};
use storage::keys;

use super::{
    CHUNK_BYTES_MAX, SnapshotData, SnapshotError, SnapshotFile, SnapshotFolder, SnapshotKey,
    SnapshotName,
};
use crate::Absorbed;

/// Makes the files of a region's snapshot for one peer.
///
/// The applier fills it in between two batches, so that `region`, `pos` and `conf` are those of the
/// state that `snapshot` sees.
pub struct BuildSnapshot {
    /// The region at that moment.
    pub region: Arc<Region>,
    /// The regions that it absorbed by then.
    pub absorbed: Arc<Absorbed>,
    /// Who needs it.
    pub to: PeerId,
    /// The last entry that is applied.
    pub pos: LogPos,
    /// The members at that entry.
    pub conf: ConfState,
    /// The engine at that moment.
    pub snapshot: Arc<dyn Snapshot>,
}

impl fmt::Debug for BuildSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildSnapshot")
            .field("region", &self.region)
            .field("to", &self.to)
            .field("pos", &self.pos)
            .field("conf", &self.conf)
            .finish_non_exhaustive()
    }
}

/// Files that were made, for [`SnapshotFolder::reader`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFiles {
    /// Where they belong.
    pub key: SnapshotKey,
    /// Whom they were made for.
    pub to: PeerId,
    /// Bytes of all files.
    pub size: u64,
    /// What raft is told, and sends: position, members, and [`SnapshotData`].
    pub snapshot: raft::Snapshot,
}

impl SnapshotFiles {
    /// For [`DiscardSnapshot`], if raft does not want them any more.
    pub fn name(&self) -> SnapshotName {
        SnapshotName::Made { key: self.key, to: self.to }
    }
}

impl BuildSnapshot {
    /// What is being made.
    pub fn key(&self) -> SnapshotKey {
        SnapshotKey::new(self.region.id, self.pos)
    }

    /// Writes one table for each family that has keys in the region. Earlier files for the same
    /// peer are removed, and so are these if it fails. The engine is only asked for table writers.
    pub fn run(
        self,
        engine: &dyn Engine,
        folder: &SnapshotFolder,
    ) -> Result<SnapshotFiles, SnapshotError> {
        folder.remove_made(self.region.id, self.to)?;
        let (key, to) = (self.key(), self.to);
        let name = SnapshotName::Made { key, to };
        let files = match self.write_tables(engine, folder, name) {
            Ok(files) => files,
            Err(error) => {
                if let Err(other) = folder.remove(name) {
                    tracing::warn!(snapshot = %key, error = %other, "leftovers stay for now");
                }
                return Err(error);
            }
        };
        let data = SnapshotData {
            region: (*self.region).clone(),
            absorbed: (*self.absorbed).clone(),
            // After the last read: a compaction takes garbage out of snapshots too.
            collected: engine.garbage().collected(),
            files,
        };
        let snapshot = raft::Snapshot { pos: self.pos, conf: self.conf, data: data.encode() };
        Ok(SnapshotFiles { key, to, size: data.byte_size(), snapshot })
    }

    fn write_tables(
        &self,
        engine: &dyn Engine,
        folder: &SnapshotFolder,
        name: SnapshotName,
    ) -> Result<Vec<SnapshotFile>, SnapshotError> {
        let mut files = Vec::with_capacity(Cf::DATA.len());
        for cf in Cf::DATA {
            let path = folder.table_path(name, cf);
            if let Some(size) = self.write_table(engine, cf, &path)? {
                // Read once more: what is sent is what can be read back.
                files.push(SnapshotFile { cf, size, checksum: folder.checksum(&path, size)? });
            }
        }
        Ok(files)
    }

    /// Writes the keys of one family; returns the size of the file if there are any.
    fn write_table(
        &self,
        engine: &dyn Engine,
        cf: Cf,
        path: &Path,
    ) -> Result<Option<u64>, SnapshotError> {
        let (start, end) = keys::data_range(self.region.id, &self.region.range);
        let range = KeyRange::new(start, end);
        let options = IterOptions { range, fill_cache: false, readahead_bytes: CHUNK_BYTES_MAX };
        let mut cursor = self.snapshot.iter(cf, options)?;
        if !cursor.seek_to_first()? {
            return Ok(None);
        }
        let mut table = engine.sst_writer(cf, path)?;
        loop {
            table.put(cursor.key(), cursor.value())?;
            if !cursor.next()? {
                return Ok(Some(table.finish()?));
            }
        }
    }
}

/// Puts a received snapshot in the place of what a region's replica here holds.
///
/// The caller has seen to it that the region is durably Applying, that nothing of it is applied
/// meanwhile, and that no reader begins (the region's view says so). Any failure, and a crash at
/// any moment, leaves the range in a state that only another run makes sense of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallSnapshot {
    /// The region as the snapshot describes it.
    pub region: Arc<Region>,
    /// Which of the received snapshots.
    pub key: SnapshotKey,
    /// What the replica held before, if that is more than the snapshot covers: it is removed too.
    pub old_range: Option<KeyRange>,
}

impl InstallSnapshot {
    /// Reads all files through, clears the ranges, then lets the engine take the files in. The
    /// files stay. If the files are [damaged](SnapshotError::is_damage) nothing was changed.
    ///
    /// Not durable as a whole before the next sync of the engine; the batch that says Normal
    /// belongs before that sync.
    pub fn run(&self, engine: &dyn Engine, folder: &SnapshotFolder) -> Result<(), SnapshotError> {
        assert_eq!(self.region.id, self.key.region, "the snapshot is of this region");
        let data = folder.data(self.key)?;
        if data.region != *self.region {
            let Region { epoch, range, .. } = &data.region;
            let cause = format!("it has epoch {epoch} and the keys {range:?}");
            return Err(SnapshotError::OtherRegion { key: self.key, cause });
        }
        let files = data.files.iter().map(|file| Ok((file.cf, folder.check(self.key, file)?)));
        let files = files.collect::<Result<Vec<_>, SnapshotError>>()?;
        engine.garbage().take_over(&data.collected, engine)?;
        if keep(Rule::ClearBeforeIngest) {
            let ranges = [&self.region.range].into_iter().chain(&self.old_range);
            clear(engine, self.region.id, ranges)?;
        }
        for (cf, path) in files {
            engine.ingest(cf, &[path])?;
        }
        Ok(())
    }
}

/// Removes the data of a region that left this store. The region is durably a Tombstone, and nobody
/// else holds any of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestroyData {
    /// The region.
    pub region: RegionId,
    /// The keys.
    pub range: KeyRange,
}

impl DestroyData {
    /// May be run again. Not durable before the next sync of the engine.
    pub fn run(&self, engine: &dyn Engine) -> Result<(), SnapshotError> {
        clear(engine, self.region, [&self.range])
    }
}

/// Removes the files of a snapshot: a received one that is installed (the region durably Normal) or
/// that nobody wants, or a made one that will not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscardSnapshot(pub SnapshotName);

impl DiscardSnapshot {
    /// May be run again. What it cannot remove goes with the next start.
    pub fn run(&self, folder: &SnapshotFolder) -> Result<(), SnapshotError> {
        folder.remove(self.0)
    }
}

/// Removes all keys of the ranges from the families of data, as one write.
fn clear<'a>(
    engine: &dyn Engine,
    region: RegionId,
    ranges: impl IntoIterator<Item = &'a KeyRange>,
) -> Result<(), SnapshotError> {
    // Dropping whole files is cheap, but it takes the keys from open snapshots too: from a scan
    // that began before, from a snapshot of this region that is being made. Then the files have to
    // wait for the engine to notice by itself. Who takes a snapshot of the engine after this line
    // finds in the region's view that it must not read.
    let unread = engine.properties().snapshots == 0;
    let mut batch = WriteBatch::new();
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        let (start, end) = keys::data_range(region, range);
        let bounds = KeyRange::new(start, end);
        for cf in Cf::DATA {
            if unread {
                engine.delete_files_in_range(cf, &bounds)?;
            }
            // A new replica finds nothing. Without a deletion above it a file that is taken in
            // goes straight to the lowest level, and costs no compaction.
            if holds_keys(engine, cf, &bounds)? {
                batch.delete_range(cf, &bounds.start, &bounds.end);
            }
        }
    }
    if !batch.is_empty() {
        engine.write(&batch)?;
    }
    Ok(())
}

fn holds_keys(engine: &dyn Engine, cf: Cf, bounds: &KeyRange) -> Result<bool, SnapshotError> {
    let snapshot = engine.snapshot();
    let options = IterOptions { fill_cache: false, ..IterOptions::within(bounds.clone()) };
    let mut cursor = snapshot.iter(cf, options)?;
    Ok(cursor.seek_to_first()?)
}
