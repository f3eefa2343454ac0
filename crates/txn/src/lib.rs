//! What each client command means on data.
//!
//! A command here is a pure function: it is given a snapshot of a region and the pieces of a
//! request, and returns the pieces of a reply and the [`Mutation`]s to apply. It knows nothing of
//! Raft, of protobuf or of threads: which snapshot is fresh enough, how mutations become durable
//! and who waits for whom is the caller's business (crate `server`). Time is an argument: seconds
//! since 1970 for expiry, and a question ("shall I stop?") for deadlines.
//!
//! ```text
//!   request ──► api_version   may a store in this mode serve it? which form do its keys take?
//!           ──► raw           reads:  View { snapshot, region, mode, now } ──► values
//!                             writes: Writer { mode, now }                  ──► Mutations
//!                             compare and swap: both
//!           ──► latches       commands that read before they write wait for each other here
//! ```
//!
//! Three forms of a key:
//!
//! | form | example in V1 | in V2 | used in |
//! | --- | --- | --- | --- |
//! | user | `k1` | `r` keyspace `k1` | requests and answers |
//! | region | `k1` | memcomparable(user) | region bounds, [`Mutation`], region errors |
//! | data | `z` region form | `z` region form | the engine alone; the applier adds the `z` |
//!
//! Where to start: [`raw`].

mod api_version;
pub mod latches;
mod mutation;
pub mod raw;

pub use api_version::{ApiVersion, RequestError};
pub use mutation::Mutation;
