//! GC: versions that nobody can read any more go, on each replica in its own time.
//!
//! ```text
//!   placement ── safe points ──► GcState ─┬─ requests below them: "GC life time is shorter"
//!                                (a store)├─ RocksDB's compactions of family `write`
//!                                         ├─ Sweep: what compactions must leave, or do not reach
//!                                         └─ hash of a replica: garbage does not count
//! ```
//!
//! # What is garbage
//!
//! Given the safe point `s` of a key, in the order of its records from the newest down:
//!
//! | commit timestamp | record | |
//! | --- | --- | --- |
//! | ≥ `s` | any | stays |
//! | < `s` | a put or deletion, the first of them at or below `s` | a put stays; a deletion goes |
//! | < `s` | a put or deletion below that | goes |
//! | < `s` | one that changes nothing | goes |
//!
//! Nobody misses them: reads are at `s` or above, and a request of a transaction that started
//! below `s` is refused, so neither its commit nor its rollback need be on record. Locks below the
//! safe point must have been resolved before it moved: that is the part of whoever moves it.
//!
//! # Why not through the log
//!
//! Proposing every deletion would write each version twice more (log and tombstone), and wake
//! groups that sleep. So each replica collects by itself. What makes that safe:
//!
//! 1. *Order.* Of a key, commit timestamps only ascend in the log. Once a newer change at or below
//!    `s` exists on a replica, what lies under it is garbage for ever: nothing that the log or a
//!    snapshot brings later can make it visible. So a compaction, which sees some of a key's
//!    records, may drop what it sees below a change.
//! 2. *A deletion hides what is older*, perhaps in a file that the compaction does not see. No
//!    compaction drops one. [`Sweep`] does, with all that it hides, in one write, from a snapshot
//!    that shows the whole key; while it works, no region's data are replaced on the store.
//! 3. *Values in family `default`* go with their record in one write, so the sweep takes these too:
//!    no value is left over, whatever crashes.
//! 4. *A rollback that is noted on a commit* may bring back a record that a replica had collected.
//!    Its [fence](crate::mvcc::Write::gc_fence) tells that it is a ghost.
//! 5. *Requests in progress.* A store refuses requests below a new safe point at once and collects
//!    below it one poll later ([`GcState::learn`]). It writes down how far it collects before it
//!    does, and a snapshot of a region carries how far its giver did: who is started again, or has
//!    heard nothing from placement for long, refuses what is gone from it.
//! 6. *Hashes.* Replicas differ by garbage. The entry that asks for a hash carries the leader's
//!    safe points, every replica leaves out what is garbage by them, and one that has collected
//!    beyond them says nothing.
//!
//! Keyspaces may have safe points of their own ([`SafePoints`]).

mod rule;
mod safe_points;
mod sweep;
mod walk;

pub use rule::GcRule;
pub use safe_points::{GcState, SafePoints};
pub use sweep::{Sweep, SweepStep};
pub use walk::Walk;

#[cfg(test)]
mod tests;
