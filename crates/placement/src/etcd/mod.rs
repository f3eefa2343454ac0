//! The keys, leases and watches of etcd's version 3 API, kept in rows of the system region.
//!
//! Clients of the placement driver find an etcd at its address and use it for what a key-value
//! store with revisions is good for: a safe point to be polled, owners to be elected, services to
//! be found.
//!
//! ```text
//!   put, delete, txn, compact, grant, revoke, keep alive
//!        many at once ──> Draft over EtcdStore ──> Change { rows, replies }   one proposal
//!   range, time to live ──> EtcdStore, in memory
//!   watch ──> Watches: where each watch stands; next() reads what came since
//!   time passes ──> chores: leases that ran out, history that is too long, rows to be swept
//! ```
//!
//! Each write that changes keys gets the next revision; all that it changes has that revision and
//! a number within it. An event row is never changed, so a watch can start at any revision that
//! is not given up yet. Giving up (*compaction*) first writes the revision, from then on older
//! reads and watches are refused; then the rows are deleted, step by step.
//!
//! Invariants:
//! 1. The revision never goes back: it is that of the newest event, and a compaction beyond that
//!    event is written down.
//! 2. What is live never falls to a compaction: of each key the newest put stays, and so does all
//!    that happened in the revision compacted to, and since.
//! 3. A key is attached to the lease of its newest put, and to no other.
//! 4. A lease ends when the leader says so by a write. A new leader gives each lease anew the time
//!    that its row tells, so no lease ends early; one ends late by what was written of it last.
//! 5. All requests of a batch are planned on top of each other. One that is refused leaves no
//!    trace: every check is made before the first change of a request.
//!
//! Texts and codes of refusals are etcd's, since clients compare them.
//!
//! Where to start: [`EtcdWrite`] and `batch`, then `draft`; `store` for what is in memory.

mod batch;
mod chores;
mod draft;
mod error;
mod hash;
mod lease;
mod range;
mod span;
mod store;
mod txn;
mod watches;

pub use batch::{EtcdBatch, EtcdReply, EtcdWrite};
pub use chores::EtcdChores;
pub use error::{EtcdCode, EtcdError};
pub use store::EtcdSize;
pub use txn::only_reads;
pub use watches::{PROGRESS_INTERVAL, Watches};

pub(crate) use store::{EtcdStore, Revision};

/// A request may have so many comparisons, and so many operations in each branch.
pub const TXN_OPS_MAX: usize = 128;

/// The largest request.
pub const REQUEST_BYTES_MAX: usize = 3 << 19;

/// One request may write so much, deletions of keys included.
pub const WRITE_BYTES_MAX: usize = 4 << 20;

/// A batch takes no further request when it writes so much.
const BATCH_BYTES_MAX: usize = 2 << 20;

/// Keys, values and history together: beyond that nothing but deletions is taken.
pub const SPACE_BYTES_MAX: usize = 128 << 20;

/// So many events that are no longer the newest of their key are kept; then the older half goes.
pub const HISTORY_EVENTS_MAX: usize = 50_000;

/// The same in bytes.
pub const HISTORY_BYTES_MAX: usize = 32 << 20;

/// The longest time to live of a lease, in seconds; and the shortest: less is raised to this.
pub const LEASE_TTL_MAX: i64 = 9_000_000_000;
/// See [`LEASE_TTL_MAX`].
pub const LEASE_TTL_MIN: i64 = 2;

/// What an event costs beside its key and value: its row, its places in memory.
const EVENT_BYTES: usize = 128;
