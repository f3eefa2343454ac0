//! Bytes on disk: engine, raft log, files, key encodings.
//!
//! Three things of a store outlive its process, and this crate keeps all of them. It knows of
//! regions as numbers and of nothing else above it: no roles, no terms beyond what an entry
//! carries, no requests.
//!
//! ```text
//!            store (shards, log writer, appliers)            txn, snapshot jobs
//!                 │ entries, states      │ WriteBatch              │ Snapshot, Cursor
//!                 ▼                      ▼                         ▼
//!            log: RaftLog           engine: Engine ◄── keys: which bytes stand for what
//!                 │                      │
//!                 ▼                 ┌────┴─────────┐
//!            disk: Disk        RocksEngine    MemoryEngine
//!             ┌───┴────┐            │
//!         RealDisk  MemoryDisk   (a folder)
//! ```
//!
//! How the two kinds of state fit together. An entry is durable when the log says so: that is what
//! acknowledges a write. The engine applies it later and makes no promise until it is synced; after
//! a crash it holds a prefix of what was applied, and the log is replayed from there. Hence the one
//! rule that binds both: *nothing leaves the log before the engine was synced past it.*
//!
//! Every seam has two implementations, a real one and one in memory that can lose what was not
//! synced, so that the simulator runs the same code as a node does.
//!
//! Invariants: what `sync` returned for is there after any crash; damage that is more than a torn
//! tail is told and never read over; nothing here panics on bytes that it finds on a disk.
//!
//! Where to start: [`engine`] for data, [`log`] for entries. Tests: scripts, random operations and
//! crashes beside each.

pub mod disk;
pub mod engine;
pub mod keys;
pub mod log;
