//! A segment: one file of the log, and the bytes at its start.
//!
//! ```text
//!    0        8     12        16     24    28   32       40          512
//!    magic    crc   version   salt   seq   0    synced   zeros ...   records ──▶ ... old bytes
//! ```
//! The first 64 bytes keep this layout in every version of the format; `crc` covers bytes 12 to 64.
//! The head fits one sector, so after a power loss it is the old or the new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{DiskFile, SECTOR};

use super::error::LogError;
use super::record;

/// Where the first record of a segment begins.
pub(super) const FIRST_RECORD: u32 = 512;
/// Length of a record without rows. Room for one is left at the end of every segment, so that a log
/// on a full disk can still write down that it does not need its oldest segments any more.
pub(super) const MARKER_LEN: u64 = record::HEAD_LEN as u64;
/// The format this version writes, and the newest it reads.
pub(super) const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"raftlog\n";
const CHECKED: usize = 64;
const _: () = assert!(record::HEAD_LEN.is_multiple_of(record::ALIGN));
const _: () = assert!(FIRST_RECORD as u64 == SECTOR && SECTOR.is_multiple_of(record::ALIGN as u64));

/// An open segment file.
pub(super) struct Segment {
    /// Its number. Grows with the log, is never used twice, begins at 1. A file that is used again
    /// gets a new one.
    pub(super) seq: u32,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    /// Length of the file.
    pub(super) size: u64,
    /// Mixed into the checksums of its records' heads.
    pub(super) seed: u32,
}

impl Segment {
    pub(super) fn new(head: &FileHead, path: PathBuf, file: Arc<dyn DiskFile>, size: u64) -> Self {
        let seed = record::seed(head.salt, head.seq);
        Self { seq: head.seq, path, file, size, seed }
    }
}

/// What the start of a segment's file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHead {
    /// The same in all segments of a log.
    pub(super) salt: u64,
    pub(super) seq: u32,
    /// All records before this log position were durable when the head was written.
    pub(super) synced: u64,
}

/// What [`FileHead::decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    Head(FileHead),
    /// Zeros only: the file was made and its head never became durable.
    Blank,
    /// Neither: the head was damaged.
    Damaged,
}

impl FileHead {
    pub(super) fn encode(&self) -> [u8; FIRST_RECORD as usize] {
        let mut out = [0; FIRST_RECORD as usize];
        out[..8].copy_from_slice(&MAGIC);
        out[12..16].copy_from_slice(&VERSION.to_le_bytes());
        out[16..24].copy_from_slice(&self.salt.to_le_bytes());
        out[24..28].copy_from_slice(&self.seq.to_le_bytes());
        out[32..40].copy_from_slice(&self.synced.to_le_bytes());
        let crc = crc32fast::hash(&out[12..CHECKED]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the head from the first bytes of a file, of which there may be fewer than a head has.
    pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<Decoded, LogError> {
        if bytes.iter().all(|&byte| byte == 0) {
            return Ok(Decoded::Blank);
        }
        let Some(head) = bytes.get(..CHECKED) else { return Ok(Decoded::Damaged) };
        let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four"));
        let u64_at = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight"));
        if head[..8] != MAGIC || u32_at(8) != crc32fast::hash(&head[12..]) {
            return Ok(Decoded::Damaged);
        }
        let found = u32_at(12);
        if found > VERSION {
            return Err(LogError::Newer { path: path.to_owned(), found, known: VERSION });
        }
        let head = FileHead { salt: u64_at(16), seq: u32_at(24), synced: u64_at(32) };
        Ok(if head.seq == 0 { Decoded::Damaged } else { Decoded::Head(head) })
    }
}
