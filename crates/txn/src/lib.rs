//! What each client command means on data.
//!
//! A command here is a pure function: it is given a snapshot of a region and the pieces of a
//! request, and returns the pieces of a reply and the [`Mutation`]s to apply. It knows nothing of
//! Raft or of threads: which snapshot is fresh enough, how mutations become durable and who runs
//! what when is the caller's business (crate `server`). Time is an argument.
//!
//! ```text
//!   request ──► api_version   may a store in this mode serve it? which form do its keys take?
//!           ──► raw           reads:  View { snapshot, region, mode, now } ──► values
//!                             writes: Writer { mode, now }                  ──► Mutations
//!           ──► actions       transactions: Reader { snapshot, region }     ──► Outcome
//!                 ├─ mvcc         records of locks, versions, values; how they are read
//!                 ├─ concurrency  what was read when; locks in memory
//!                 └─ waiting      who waits for whose lock; deadlocks
//!           ──► gc            which versions nobody misses, and how each replica drops them
//!           ──► latches       commands that read before they write wait for each other here
//!           ──► wire          errors and locks as protobuf
//! ```
//!
//! Three forms of a key:
//!
//! | form | example in V1 | in V2, and of transactions always | used in |
//! | --- | --- | --- | --- |
//! | user | `k1` | `r` (transactions: `x`) keyspace `k1` | requests and answers |
//! | region | `k1` | memcomparable(user) | region bounds, [`Mutation`], region errors |
//! | data | `z` region form | `z` region form | the engine alone; the applier adds the `z` |
//!
//! # Transactions: Percolator
//!
//! A transaction reads as of its start timestamp and becomes visible at its commit timestamp, both
//! given out by placement. Nobody coordinates it but its client. What makes it atomic is that one
//! of its keys, the *primary*, decides: a transaction is committed when its primary's lock has
//! become a commit record. Every other lock names the primary, so whoever meets one can find out.
//!
//! ```text
//!                    prewrite (no newer version, no other lock)
//!      ┌────────┐ ─────────────────────────────────────────────► ┌────────┐
//!      │ no lock│                                                │ locked │◄┐ heart beat: lives on
//!      └────────┘ ─ pessimistic lock ─► ┌───────────┐ ─prewrite─►│        │─┘ status check: pushed
//!        ▲    ▲    (nothing newer than  │ reserved  │            └────────┘   above a reader
//!        │    │     for_update_ts)      └───────────┘              │      │
//!        │    └──── pessimistic rollback, ─┘  │                    │      │ rollback; primary
//!        │          expiry, lost with memory  │ rollback           │      │ expired; resolve as
//!        │          (prewrite takes it again  ▼ (a record)         │      ▼ rolled back
//!        │          if nobody wrote)   ╔═════════════╗             │   ╔═════════════╗
//!        │                             ║ rolled back ║             │   ║ rolled back ║
//!        │  one-phase commit           ╚═════════════╝             ▼   ╚═════════════╝
//!        └──────────────────────► ╔═══════════════════════╗ commit; resolve as committed
//!                                 ║ committed at commit ts║ (commit ts >= min_commit_ts)
//!                                 ╚═══════════════════════╝
//! ```
//!
//! The double boxes are for ever: a record in family `write` says so, and every late or repeated
//! request of the transaction finds it. That is why a rollback leaves a record even where there was
//! nothing to roll back, and why some of these records are *protected* from being tidied away.
//!
//! Three ways to commit:
//!
//! - Two phases: the commit timestamp comes from placement after all prewrites, and the transaction
//!   is committed when the primary's record is there. Whoever meets a lock asks the primary.
//! - Async commit: committed as soon as all its locks are there, at the largest `min_commit_ts` of
//!   them. Whoever meets a lock asks the primary, and then all the keys that its lock lists.
//! - One phase: the store computes a commit timestamp above all reads, and commits in the one
//!   proposal. Nobody ever finds a lock of it in the engine.
//!
//! Where each rule lives: the formats and "which lock blocks which read" in [`mvcc`]; what each
//! command checks and writes in [`actions`], a file each; why a computed commit timestamp is above
//! every read in [`concurrency`]; who is woken when in [`waiting`].
//!
//! What a scheduler does with an action:
//!
//! 1. [`latches`] on its `latch_keys()`, in whatever order they are granted.
//! 2. If it `reads_at()` a timestamp: [`raise_max_ts`](concurrency::Concurrency::raise_max_ts).
//!    Async and one-phase commits need the region's `max_ts` to be synced.
//! 3. A snapshot that is fresh (leadership checked after the latches were granted), and copies of
//!    the pessimistic locks in memory on these keys, go into a [`mvcc::Reader`]; the action runs.
//!    [`actions::PrewritePlan::publish`] needs the concurrency manager for a moment.
//! 4. Nothing to write: answer, release. Else: pessimistic locks go to memory if there is room (or
//!    `persist()`), the memory marks `lock_keys`, the writes are proposed.
//! 5. Applied: the memory forgets `lock_keys`, `published` locks are withdrawn, `released` ones
//!    wake who waits for them, the latches go, the client is answered. Failed for certain: the
//!    same, but the memory unmarks and nobody is woken. Fate unknown: leadership is lost and all
//!    of this with it.
//!
//! Where to start: [`raw`] for the simple case, then [`mvcc`] and [`actions`].

pub mod actions;
mod api_version;
pub mod concurrency;
mod error;
pub mod gc;
pub mod latches;
mod mutation;
pub mod mvcc;
pub mod raw;
pub mod scheduler;
mod txn_mode;
pub mod waiting;
pub mod wire;

pub use api_version::{ApiVersion, RequestError};
pub use error::{Abort, Conflict, ConflictReason, DeadlockFound, KeyError, LockInfo, TxnError};
pub use mutation::Mutation;
