//! Values that everything shares.
//!
//! Every other crate depends on this one and this one on none of them. It holds numbers with names,
//! key ranges, region descriptors, timestamps, the memcomparable codec and a seeded generator.
//! Nothing here does anything: no clock, no disk, no thread. Time is a number ([`Instant`]) that
//! whoever drives the code supplies.
//!
//! ```text
//!    ids ── RegionId StoreId PeerId ClusterId, Index, Term     entry ── one entry of a raft log
//!    key_range ── [start, end), empty end = unbounded
//!    region ── Region { id, range, epoch, peers }: a value, never changed in place
//!    timestamp ── physical ms << 18 | logical          codec ── memcomparable bytes
//!    prng ── seeded, portable                           time ── Instant
//!    rule ── what a test may break
//! ```
//!
//! Where to start: [`Region`], because every flow of the system carries one.

pub mod codec;
mod entry;
mod ids;
mod key_range;
pub mod limits;
mod prng;
mod region;
pub mod rule;
mod time;
mod timestamp;

pub use entry::{Entry, EntryKind};
pub use ids::{ClusterId, Index, PeerId, RegionId, StoreId, Term};
pub use key_range::KeyRange;
pub use prng::Prng;
pub use region::{Cut, Epoch, INIT_EPOCH, Peer, PeerChange, PeerRole, Region};
pub use time::Instant;
pub use timestamp::TimeStamp;
