//! The two ends of a transfer: files to chunks, and chunks to files.
//!
//! ```text
//!   let mut reader = here.reader(region_id, to, &snapshot)?;     // as in the raft message
//!   let mut writer = there.writer(region_id, &snapshot)?;
//!   while let Some(chunk) = reader.next_chunk()? {
//!       writer.write(&chunk)?;
//!   }
//!   writer.finish()?;                                            // now the message may go to raft
//! ```
//!
//! The stream has no frames of its own: it is the files one after another, and the message that
//! came before says where each ends. Both ends wait for the disk.

use std::path::PathBuf;
use std::sync::Arc;

use base::rule::{Rule, keep};
use base::{PeerId, RegionId};
use bytes::Bytes;
use crc32fast::Hasher;
use storage::disk::{DiskFile, LONG_FILE_SYNC_BYTES};

use super::{
    CHUNK_BYTES_MAX, SnapshotData, SnapshotError, SnapshotFolder, SnapshotKey, SnapshotName,
};

/// Reads a snapshot that was made here, for sending. The files have lost their names, so they are
/// gone once the reader and all that [begin again](Self::rewound) are dropped.
pub struct SnapshotReader {
    files: Arc<[Source]>,
    /// Which file is read, and where in it.
    at: usize,
    offset: u64,
    left: u64,
}

struct Source {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    size: u64,
}

impl SnapshotFolder {
    /// Opens the files that were made for `to`. Works once. Nothing is left of them if it fails:
    /// one is [missing](SnapshotError::Missing) or has another size.
    pub fn reader(
        &self,
        region: RegionId,
        to: PeerId,
        snapshot: &raft::Snapshot,
    ) -> Result<SnapshotReader, SnapshotError> {
        let name = SnapshotName::Made { key: SnapshotKey::new(region, snapshot.pos), to };
        let data = SnapshotData::decode(region, &snapshot.data)?;
        let open = |file: &super::SnapshotFile| {
            let path = self.table_path(name, file.cf);
            let size = file.size;
            Ok(Source { file: self.open_sized(&path, size)?, path, size })
        };
        let files: Result<Vec<Source>, SnapshotError> = data.files.iter().map(open).collect();
        self.remove(name)?;
        let files = files?.into();
        Ok(SnapshotReader { files, at: 0, offset: 0, left: data.byte_size() })
    }

    /// Begins to receive the snapshot of `region` that a raft message brought.
    ///
    /// Refused as [`Taken`](SnapshotError::Taken) if the same one is coming already, or is here
    /// as a whole (then the message may go to raft as if it had just arrived), and as a full disk
    /// unless there is room for the files and for the engine's copy of them.
    pub fn writer(
        &self,
        region: RegionId,
        snapshot: &raft::Snapshot,
    ) -> Result<SnapshotWriter, SnapshotError> {
        let key = SnapshotKey::new(region, snapshot.pos);
        let data = SnapshotData::decode(region, &snapshot.data)?;
        if !self.claim(key) {
            return Err(SnapshotError::Taken { key, complete: false });
        }
        // It is given back on every way out.
        let mut claim = Claim { folder: self.clone(), key, keep: true };
        match self.data(key) {
            Ok(_) => return Err(SnapshotError::Taken { key, complete: true }),
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
        self.remove_received(key)?;
        claim.keep = false;
        self.check_room(data.byte_size().saturating_mul(2))?;
        let hasher = Hasher::new();
        Ok(SnapshotWriter { claim, data, at: 0, file: None, offset: 0, hasher, failed: None })
    }

    fn check_room(&self, wanted: u64) -> Result<(), SnapshotError> {
        let operation = "receive a snapshot in";
        let dir = self.dir();
        let room = self
            .disk()
            .available(dir)
            .map_err(|error| SnapshotError::disk(operation, dir, &error))?;
        if room < wanted {
            let cause = format!("{wanted} bytes are needed, {room} are free");
            return Err(SnapshotError::Disk { operation, path: dir.to_owned(), full: true, cause });
        }
        Ok(())
    }
}

impl SnapshotReader {
    /// The next piece, at most [`CHUNK_BYTES_MAX`]; `None` after the last one.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        let Some(source) = self.files.get(self.at) else { return Ok(None) };
        assert!(self.offset < source.size, "a file that was read is left behind");
        let len = (source.size - self.offset).min(CHUNK_BYTES_MAX as u64);
        let mut chunk = vec![0; len as usize];
        source
            .file
            .read_at(&mut chunk, self.offset)
            .map_err(|error| SnapshotError::disk("read", &source.path, &error))?;
        self.offset += len;
        self.left -= len;
        if self.offset == source.size {
            self.at += 1;
            self.offset = 0;
        }
        Ok(Some(chunk.into()))
    }

    /// The same from its begin, after a transfer that was cut off.
    #[must_use]
    pub fn rewound(&self) -> Self {
        let left = self.files.iter().map(|source| source.size).sum();
        Self { files: self.files.clone(), at: 0, offset: 0, left }
    }

    /// Bytes that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }
}

/// The right to write the files of a received snapshot. When it goes they go too, unless they are
/// to be kept.
struct Claim {
    folder: SnapshotFolder,
    key: SnapshotKey,
    keep: bool,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = self.folder.remove_received(self.key)
        {
            // The next reception of the same snapshot, or the next start, tries again.
            tracing::warn!(snapshot = %self.key, %error, "leftovers of a snapshot stay for now");
        }
        self.folder.release(self.key);
    }
}

/// Writes a snapshot that comes from another store, and checks it on the way. Dropped before
/// [`finish`](Self::finish), it leaves nothing.
pub struct SnapshotWriter {
    claim: Claim,
    data: SnapshotData,
    /// Which file is being written.
    at: usize,
    file: Option<Arc<dyn DiskFile>>,
    /// Within that file.
    offset: u64,
    hasher: Hasher,
    /// After a failure nothing more is taken.
    failed: Option<SnapshotError>,
}

impl SnapshotWriter {
    /// What is being received.
    pub fn key(&self) -> SnapshotKey {
        self.claim.key
    }

    /// The region, and what is promised of the files.
    pub fn data(&self) -> &SnapshotData {
        &self.data
    }

    /// Takes the next piece, of any size. Each file is checked as soon as it is whole. After an
    /// error all that is left is to drop the writer.
    pub fn write(&mut self, mut chunk: &[u8]) -> Result<(), SnapshotError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        while !chunk.is_empty() {
            match self.write_some(chunk) {
                Ok(written) => chunk = &chunk[written..],
                Err(error) => {
                    self.failed = Some(error.clone());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Writes what belongs to the current file; returns how much that was, at least a byte.
    fn write_some(&mut self, chunk: &[u8]) -> Result<usize, SnapshotError> {
        let Some(file) = self.data.files.get(self.at) else {
            let expected = self.data.byte_size();
            let actual = expected.saturating_add(chunk.len() as u64);
            let path = self.claim.folder.meta_path(self.claim.key);
            return Err(SnapshotError::Size { path, expected, actual });
        };
        let path = self.path();
        let left = file.size - self.offset;
        let piece = &chunk[..chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        let target = match &self.file {
            Some(target) => target,
            None => {
                let created = self.claim.folder.disk().create(&path);
                let created =
                    created.map_err(|error| SnapshotError::disk("create", &path, &error))?;
                self.file.insert(created)
            }
        };
        target
            .write_at(piece, self.offset)
            .map_err(|error| SnapshotError::disk("write", &path, &error))?;
        self.hasher.update(piece);
        let before = self.offset / LONG_FILE_SYNC_BYTES;
        self.offset += piece.len() as u64;
        if self.offset < file.size && self.offset / LONG_FILE_SYNC_BYTES > before {
            target.sync_data().map_err(|error| SnapshotError::disk("sync", &path, &error))?;
        }
        if self.offset == file.size {
            self.complete_file(path)?;
        }
        Ok(piece.len())
    }

    fn complete_file(&mut self, path: PathBuf) -> Result<(), SnapshotError> {
        let expected = self.data.files[self.at].checksum;
        let actual = std::mem::take(&mut self.hasher).finalize();
        if actual != expected && keep(Rule::CheckReceivedFiles) {
            return Err(SnapshotError::Checksum { path, expected, actual });
        }
        let file = self.file.take().expect("a file that is whole was written");
        file.sync_data().map_err(|error| SnapshotError::disk("sync", &path, &error))?;
        self.at += 1;
        self.offset = 0;
        Ok(())
    }

    /// All pieces were given: the snapshot is here, durably, and can be installed.
    pub fn finish(mut self) -> Result<SnapshotKey, SnapshotError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if let Some(file) = self.data.files.get(self.at) {
            let (path, expected) = (self.path(), file.size);
            return Err(SnapshotError::Size { path, expected, actual: self.offset });
        }
        self.write_meta()?;
        self.claim.keep = true;
        Ok(self.claim.key)
    }

    fn write_meta(&self) -> Result<(), SnapshotError> {
        let folder = &self.claim.folder;
        let (part, path) =
            (folder.meta_part_path(self.claim.key), folder.meta_path(self.claim.key));
        let bytes = self.data.encode_file();
        let written = folder.disk().create(&part).and_then(|file| {
            file.write_at(&bytes, 0)?;
            file.sync_data()
        });
        written.map_err(|error| SnapshotError::disk("write", &part, &error))?;
        folder
            .disk()
            .rename(&part, &path)
            .and_then(|()| folder.disk().sync_dir(folder.dir()))
            .map_err(|error| SnapshotError::disk("put in place", &path, &error))
    }

    /// The file that is being written.
    fn path(&self) -> PathBuf {
        let cf = self.data.files[self.at].cf;
        self.claim.folder.table_path(SnapshotName::Received(self.claim.key), cf)
    }
}
