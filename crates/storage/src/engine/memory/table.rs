//! Table files of the engine in memory, in the simplest format that notices damage.
//!
//! ```text
//!   "pontoon\x01" family:1   (key length:4 value length:4 key value)*   crc32 of all before:4
//! ```
//!
//! Numbers are little endian. Keys ascend.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::super::{Cf, EngineError, EngineErrorKind, SstWriter};
use crate::disk::Disk;

const MAGIC: &[u8; 8] = b"pontoon\x01";
const HEADER: usize = MAGIC.len() + 1;
const CHECKSUM: usize = 4;

/// Collects a table and writes it as one file.
pub(super) struct TableWriter {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    data: Vec<u8>,
    last_key: Option<Bytes>,
}

impl TableWriter {
    pub(super) fn new(disk: Arc<dyn Disk>, cf: Cf, path: &Path) -> Self {
        let mut data = MAGIC.to_vec();
        data.push(cf as u8);
        Self { disk, path: path.to_path_buf(), data, last_key: None }
    }

    /// Writes and syncs the file, also if it is without records; returns its size.
    pub(super) fn write(mut self) -> Result<u64, EngineError> {
        let checksum = crc32fast::hash(&self.data);
        self.data.extend_from_slice(&checksum.to_le_bytes());
        self.replace()
            .map_err(|error| EngineError::from_io("write the table", &self.path, &error))?;
        Ok(self.data.len() as u64)
    }

    /// A file of that name gives way.
    fn replace(&self) -> io::Result<()> {
        match self.disk.remove(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.disk.create(&self.path)?;
        file.write_at(&self.data, 0)?;
        file.sync_data()
    }

    fn refuse(&self, cause: &str) -> EngineError {
        EngineError::new(EngineErrorKind::Refused, "write the table", &self.path, cause)
    }
}

impl SstWriter for TableWriter {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        if self.last_key.as_ref().is_some_and(|last| key <= &last[..]) {
            return Err(self.refuse("its keys must ascend"));
        }
        for len in [key.len(), value.len()] {
            let len = u32::try_from(len).map_err(|_| self.refuse("a string has 4 GiB or more"))?;
            self.data.extend_from_slice(&len.to_le_bytes());
        }
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
        self.last_key = Some(Bytes::copy_from_slice(key));
        Ok(())
    }

    fn file_size(&self) -> u64 {
        (self.data.len() + CHECKSUM) as u64
    }

    fn finish(self: Box<Self>) -> Result<u64, EngineError> {
        if self.last_key.is_none() {
            return Err(self.refuse("it has no keys"));
        }
        self.write()
    }
}

/// The records of the table at `path`, which must be of family `cf`.
pub(super) fn read(
    disk: &dyn Disk,
    cf: Cf,
    path: &Path,
) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
    let operation = "read the table";
    let data =
        read_file(disk, path).map_err(|error| EngineError::from_io(operation, path, &error))?;
    let refuse = |cause| EngineError::new(EngineErrorKind::Refused, operation, path, cause);
    let damaged = || EngineError::new(EngineErrorKind::Corrupt, operation, path, "it is damaged");
    if data.len() < HEADER + CHECKSUM {
        return Err(damaged());
    }
    let (body, checksum) = data.split_at(data.len() - CHECKSUM);
    if crc32fast::hash(body).to_le_bytes() != checksum || !body.starts_with(MAGIC) {
        return Err(damaged());
    }
    if body[MAGIC.len()] != cf as u8 {
        return Err(refuse("it was written for another family"));
    }
    let mut rest = Bytes::copy_from_slice(&body[HEADER..]);
    let mut records = Vec::new();
    while rest.has_remaining() {
        let key = rest.try_get_u32_le().map_err(|_| damaged())? as usize;
        let value = rest.try_get_u32_le().map_err(|_| damaged())? as usize;
        if rest.len() < key.saturating_add(value) {
            return Err(damaged());
        }
        records.push((rest.split_to(key), rest.split_to(value)));
    }
    Ok(records)
}

fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let size = usize::try_from(file.size()?).map_err(io::Error::other)?;
    let mut data = vec![0; size];
    file.read_at(&mut data, 0)?;
    Ok(data)
}
