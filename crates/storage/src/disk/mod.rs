//! Files and folders, as the raft log sees them.
//!
//! Everything the log writes goes through [`Disk`] and [`DiskFile`], so that a test or the
//! simulator can put a disk under it that loses what was not synced, tears writes, flips bits or
//! fills up. There are exactly two implementations:
//!
//! ```text
//!    raft log ──▶ dyn Disk ─┬─ RealDisk     std::fs, positioned writes, fdatasync, fsync of dirs
//!                           └─ MemoryDisk   bytes in memory, faults on demand, by seed
//! ```
//!
//! What a caller may rely on, and nothing more:
//! 1. Bytes written before [`DiskFile::sync_data`] returned `Ok` survive a power loss. Those
//!    written after it may be there, may be absent, or in part: sector by sector (512 bytes,
//!    [`SECTOR`]), in any order. A sector is either the old or the new one.
//! 2. A file that was created, renamed or removed is so after a power loss only once
//!    [`Disk::sync_dir`] of its folder returned `Ok`.
//! 3. A failed `sync_data` says nothing about what is on the disk. It must not be tried again: the
//!    system may have forgotten which pages were dirty, and then reports a success that is none.
//!
//! Where to start: the two traits below; then `memory.rs` for the faults.

mod memory;
mod real;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use memory::{DiskCounts, MemoryDisk};
pub use real::RealDisk;

/// What a disk writes at once or not at all, in bytes.
pub const SECTOR: u64 = 512;

/// Bytes of a long file after which they are synced: one sync of a whole gibibyte would hold up
/// everybody else's on the same disk.
pub const LONG_FILE_SYNC_BYTES: u64 = 8 << 20;

/// Folders and names.
pub trait Disk: Send + Sync {
    /// Makes `dir` and its parents where they are missing, durably. It is no error if it exists.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Names of the files in `dir`, sorted. `NotFound` if there is no such folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes an empty file. `AlreadyExists` if there is one of this name.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file to read and write. `NotFound` if there is none.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name in the same folder; a file that had that name is gone.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Whoever has it open can go on reading it.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in `dir` durable: creations, renames and removals up to now.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that can still be written to the file system that holds `dir`.
    fn available(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file. All methods may be called from any thread.
pub trait DiskFile: Send + Sync {
    /// Its length in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buf` from `offset` on. `UnexpectedEof` if the file ends before that.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `data` at `offset`, making the file longer if need be. `StorageFull` if the
    /// disk is full; then some of its sectors may have been written.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the file at least `size` bytes long by writing zeros after its end. Written ones and
    /// not a hole, so that later writes into it change no metadata and [`DiskFile::sync_data`] has
    /// only data to wait for.
    fn preallocate(&self, size: u64) -> io::Result<()>;

    /// Waits until all bytes written so far survive a power loss.
    fn sync_data(&self) -> io::Result<()>;
}
