//! The engine: ordered keys and values in four column families, which a crash cannot leave half
//! written.
//!
//! Everything that lasts except the raft log lies here: the data of all regions and, in a family of
//! its own, the store's records about itself. [`Engine`] is the one seam between the deciding code
//! and a real database, and it has exactly two implementations. Both run every day, and one
//! conformance suite runs on both:
//!
//! ```text
//!   applier ──WriteBatch──► write ──┐                      ┌── RocksEngine   a folder on disk
//!   readers ──get, snapshot, iter───┤  Arc<dyn Engine>  ───┤
//!   jobs    ──sst_writer, ingest────┘  (families: default, └── MemoryEngine  a map that knows what
//!                                       lock, write, raft)                   a power loss takes
//! ```
//!
//! What a write promises, and what callers build on:
//!
//! 1. A batch is atomic over all families, and visible as a whole to whoever reads after
//!    [`Engine::write`] returned.
//! 2. It is *not* durable then. After a crash the engine comes back with a prefix of the batches,
//!    the same one for all families, and never one older than the last [`Engine::sync`]. The raft
//!    log, which was synced before, covers the gap: the applier replays from the applied index that
//!    it finds. So nothing may leave the raft log before the engine was synced past it.
//! 3. Files taken in by [`Engine::ingest`] and files dropped by [`Engine::delete_files_in_range`]
//!    are durable at once, for their family alone. They fit into the order of 2 only under a state
//!    that can be redone (a region that is *Applying*).
//! 4. A snapshot never changes, whatever is written, ingested or deleted after it (but for
//!    `delete_files_in_range`, and for the garbage of family `write`: what a [`GarbageRule`] lets
//!    go by itself may be gone from a snapshot too).
//!
//! Where to start: [`WriteBatch`] for how data goes in, [`Snapshot`] and [`Cursor`] for how it
//! comes out, `rocks.rs` for what of this RocksDB does by itself, `memory.rs` for a model of it in
//! a few hundred lines.

mod batch;
mod cursor;
mod error;
mod garbage;
mod memory;
mod rocks;
mod rocks_garbage;
mod rocks_options;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod figures;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::KeyRange;
use bytes::Bytes;

pub use batch::{Op, Ops, WriteBatch};
pub use cursor::{Cursor, IterOptions};
pub use error::{EngineError, EngineErrorKind};
pub use garbage::{Fate, GarbageRule, GarbageWalk, Gone, KeepAll};
pub use memory::MemoryEngine;
pub use rocks::RocksEngine;
pub use rocks_options::{LogSink, RocksOptions};

/// A column family: a key space of its own. A batch may write to several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Cf {
    /// Values: of raw keys, and of transactions by start timestamp.
    Default = 0,
    /// Locks of transactions in progress.
    Lock = 1,
    /// Commit records of transactions.
    Write = 2,
    /// What the store knows about itself and its regions; see [`keys`](crate::keys).
    Raft = 3,
}

impl Cf {
    /// All families, in the order of their ids.
    pub const ALL: [Cf; 4] = [Cf::Default, Cf::Lock, Cf::Write, Cf::Raft];

    /// The families that hold the data of regions, so those that a snapshot of a region carries.
    pub const DATA: [Cf; 3] = [Cf::Default, Cf::Lock, Cf::Write];

    /// The name by which clients and files know the family.
    pub fn name(self) -> &'static str {
        match self {
            Cf::Default => "default",
            Cf::Lock => "lock",
            Cf::Write => "write",
            Cf::Raft => "raft",
        }
    }

    /// The family of that name. An empty name is no family here; clients mean `default` by it.
    pub fn from_name(name: &str) -> Option<Cf> {
        Self::ALL.into_iter().find(|cf| cf.name() == name)
    }

    /// The number that stands for the family in batches and in the engine's files.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// The family of that number.
    pub fn from_id(id: u32) -> Option<Cf> {
        Self::ALL.into_iter().find(|cf| cf.id() == id)
    }
}

/// What a read that must not wait for the disk found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cached {
    /// The answer is certain: the value, or that there is none.
    Known(Option<Bytes>),
    /// Only a read from disk can tell.
    Unknown,
}

/// The database under a store. See the page of this module for what it promises.
///
/// Every method may be called from any thread. All but [`snapshot`](Self::snapshot),
/// `get_if_cached` and `properties` may wait for the disk.
pub trait Engine: Send + Sync {
    /// The newest value of `key`.
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// The newest value of `key` if memory alone can tell. Never reads a file.
    fn get_if_cached(&self, cf: Cf, key: &[u8]) -> Result<Cached, EngineError>;

    /// The newest values of `keys`, in their order. Cheaper than as many gets.
    fn multi_get(&self, cf: Cf, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError>;

    /// A view of all families as of now, which nothing written later changes. It holds the engine
    /// open while it lives, and keeps what it sees from being cleaned up: do not keep it for long.
    fn snapshot(&self) -> Arc<dyn Snapshot>;

    /// Applies the operations of `batch` in their order, atomically over all families. Not durable
    /// before the next [`sync`](Self::sync). An error means that nothing of the batch is visible
    /// now (after a restart it may be) and that the engine accepts no more writes until the cause
    /// is gone: the caller must not go on as if the batch could be skipped.
    fn write(&self, batch: &WriteBatch) -> Result<(), EngineError>;

    /// Makes every write of before the call survive a power loss, in all families. One fdatasync.
    fn sync(&self) -> Result<(), EngineError>;

    /// Writes what only memory and the write-ahead log hold into table files, and waits for it.
    /// Makes the next start faster; durability needs [`sync`](Self::sync) alone.
    fn flush(&self) -> Result<(), EngineError>;

    /// Drops those table files whose keys all lie in `range`, at once and durably: the cheap first
    /// step before a [`WriteBatch::delete_range`] over much data. Which keys of the range are left
    /// is not defined, and snapshots may lose them too. Keys outside stay.
    fn delete_files_in_range(&self, cf: Cf, range: &KeyRange) -> Result<(), EngineError>;

    /// Merges all files with keys in `range` into one level, and waits for it: deletions and, in
    /// family `write`, garbage take no more room then. Costs reading and writing all of it.
    fn compact_range(&self, cf: Cf, range: &KeyRange) -> Result<(), EngineError>;

    /// Takes in table files made by [`sst_writer`](Self::sst_writer) for the same family,
    /// atomically and durably, as if their keys were written now, file after file. The files stay
    /// where they are. Fails with nothing changed if one is missing or damaged.
    fn ingest(&self, cf: Cf, files: &[PathBuf]) -> Result<(), EngineError>;

    /// Writes a copy of the database as of now into the folder `dir`, which must not exist. Links
    /// files instead of copying them where it can. The copy can be opened like the original.
    fn checkpoint(&self, dir: &Path) -> Result<(), EngineError>;

    /// Begins a table file for `cf` at `path`, to be taken in by [`ingest`](Self::ingest) of an
    /// engine of the same kind.
    fn sst_writer(&self, cf: Cf, path: &Path) -> Result<Box<dyn SstWriter>, EngineError>;

    /// What compactions of family `write` leave out.
    fn garbage(&self) -> Arc<dyn GarbageRule>;

    /// About how many bytes the keys in `range` take up, in files and in memory.
    fn approximate_size(&self, cf: Cf, range: &KeyRange) -> Result<u64, EngineError>;

    /// Numbers about the engine's state, for metrics and for throttling.
    fn properties(&self) -> EngineProperties;
}

/// All families at one moment.
pub trait Snapshot: Send + Sync {
    /// The value of `key` at that moment.
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// The values of `keys` at that moment, in their order.
    fn multi_get(&self, cf: Cf, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError>;

    /// A cursor over the keys of `cf` inside `options.range`. It stands nowhere until the first
    /// seek.
    fn iter(&self, cf: Cf, options: IterOptions) -> Result<Box<dyn Cursor + '_>, EngineError>;
}

/// Writes one table file. Dropped without [`finish`](Self::finish), it leaves a file that no engine
/// takes in.
pub trait SstWriter: Send {
    /// Adds a key. Keys must come in ascending order without repetition; else the key is refused.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), EngineError>;

    /// Bytes written so far, about.
    fn file_size(&self) -> u64;

    /// Completes and syncs the file; returns its size in bytes. Refused if no key was added.
    fn finish(self: Box<Self>) -> Result<u64, EngineError>;
}

/// Numbers about an engine at one moment. All are estimates good enough for graphs and throttling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineProperties {
    /// Bytes of writes in memory that are not yet in table files, of all families.
    pub memtable_bytes: u64,
    /// Bytes that the block cache holds.
    pub block_cache_bytes: u64,
    /// Of these, bytes that cannot be dropped now.
    pub block_cache_pinned_bytes: u64,
    /// Bytes of indexes and filters outside the block cache.
    pub table_readers_bytes: u64,
    /// Table files.
    pub files: u64,
    /// Bytes of table files.
    pub file_bytes: u64,
    /// Table files on the first level, where each costs every read of a key.
    pub level0_files: u64,
    /// Keys, about.
    pub keys: u64,
    /// Bytes that compactions still have to rewrite.
    pub pending_compaction_bytes: u64,
    /// Compactions at work.
    pub running_compactions: u64,
    /// Flushes at work.
    pub running_flushes: u64,
    /// Bytes a second to which writes are slowed down; zero: not slowed down.
    pub delayed_write_rate: u64,
    /// Whether writes wait for flushes or compactions.
    pub write_stopped: bool,
    /// Flushes and compactions that failed since the start.
    pub background_errors: u64,
    /// Snapshots that are open.
    pub snapshots: u64,
}
