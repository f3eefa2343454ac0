//! A client of raw keys and transactions, without a runtime of its own.
//!
//! ```text
//!   Db ─┬─ raw ──────────────── Raw                          one call a key
//!       ├─ snapshot ─────────── Snapshot ──┐                 reads as of a timestamp
//!       └─ begin ── Txn ── commit          │ a lock in the way
//!                    │       │             ▼
//!                    │       └───────► resolver              what became of its transaction
//!                    ▼                     │
//!                  core: which region? send, learn from errors, wait, send again
//!                    │
//!                  Link: gRPC, a node in this process, or a simulated network
//! ```
//!
//! The same code runs over any [`Link`], which is all that it knows of the world: it has no clock,
//! no threads, no sockets and no chance but what the link gives it.
//!
//! Invariants:
//! 1. Keys are encoded once, in `keys`: what goes to a store is a *data key*, what the placement
//!    driver and the region cache know is a *placement key*.
//! 2. A call that may have taken effect is sent again only if that changes nothing. What cannot be
//!    found out ends in [`ClientError::Undetermined`], and nothing else does.
//! 3. Every wait is bounded: calls by the link, tries by [`DbOptions::patience`].
//! 4. An error of a commit, unless undetermined, means that the transaction will never be
//!    committed: what is still under way is kept out by a record before the error is told.
//!
//! Where to start: [`Db`], then [`Txn`]; `core` for how a request finds its region, `resolver` for
//! other transactions' locks, `txn::commit` for the two phases.

mod backoff;
mod calls;
mod core;
mod db;
mod error;
mod inspect;
mod key_error;
mod keys;
mod link;
mod pages;
mod raw;
mod region_cache;
mod region_error;
mod resolver;
mod snapshot;
mod txn;

pub use calls::{PlacementReply, PlacementRequest, StoreReply, StoreRequest};
pub use db::{Db, DbOptions};
pub use error::ClientError;
pub use keys::{ApiVersion, Keys};
pub use link::{Link, LinkError, Task};
pub use raw::{CasOutcome, Expected, NewValue, Pair, Raw};
pub use snapshot::Snapshot;
pub use txn::{Txn, TxnOptions};
