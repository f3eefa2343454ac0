//! Multi-Raft on one node: a store holds replicas of many regions, each region a Raft group.
//!
//! ```text
//!   callers ── Propose, ReadIndex ─> ┌───────┐ ── LogWrite ──> LogWriter: a write, a sync,
//!                                    │ Shard │ <─ Persisted ── then what promises it leaves
//!   other stores <── RaftMessage ──> │       │ ── ApplyTask ─> Applier: one engine batch, data and
//!   placement    <── Report ──────── └───────┘ <── Applied ─── apply states; replies to callers
//!                                        │
//!                                        └── RegionView ──> readers on their own threads
//! ```
//!
//! Each of the three is a struct with an inbox and one method, `turn`: no clock, no thread, no
//! lock. Whoever drives them (crate `server` in production) carries the outboxes around in the
//! order that their fields have.
//!
//! Who owns what: the [`Shard`] raft nodes, leases and waiting callers; the [`LogWriter`] the raft
//! log; the [`Applier`] each region's descriptor and [`ApplyState`]. Everyone else sees immutable
//! values that lag and never lead.
//!
//! Invariants, asserted in release: truncated <= applied <= committed <= last; applied, term and
//! epoch never go back; nothing leaves the log that a power loss could take from the engine (rule
//! W1); no reply before its batch is written.
//!
//! A failure that leaves memory ahead of the disk is [`Fatal`]: the driver stops the node.
//!
//! Where to start: [`Shard::turn`], then `replica.rs`, then `apply.rs`. The first start of a store
//! is in [`bootstrap`], every other start in [`recover`].

mod apply;
pub mod bootstrap;
mod command;
mod error;
mod fatal;
mod input;
mod lease;
mod log_writer;
mod peer_storage;
mod recover;
mod replica;
mod reply;
mod shard;
mod states;
mod view;

pub use apply::{Applied, Applier, ApplyInput, ApplyOutbox, ApplyTask, Waiting};
pub use command::{CommandError, Write, Writes};
pub use error::RegionError;
pub use fatal::Fatal;
pub use input::{
    Birth, Job, Outbox, Proposal, RaftMessage, ReadRequest, RegionReport, Report, ShardInput,
    SplitRequest,
};
pub use log_writer::{Done, LogOutbox, LogWrite, LogWriter};
pub use recover::{RecoverError, Recovered, recover};
pub use reply::{ReplyTo, WriteResult};
pub use shard::{Shard, ShardConfig};
pub use states::{
    ApplyState, LocalState, StateError, StoreIdent, epoch_from_proto, epoch_to_proto,
    peer_from_proto, peer_to_proto, region_from_proto, region_to_proto,
};
pub use view::{RegionView, RegionViews, RequestHeader};
