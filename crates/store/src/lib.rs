//! Multi-Raft on one node: a store holds replicas of many regions, each region a Raft group.
//!
//! ```text
//!   callers ── Propose, ReadIndex ─> ┌───────┐ ── LogWrite ──> LogWriter: a write, a sync,
//!                                    │ Shard │ <─ Persisted ── then what promises it leaves
//!   other stores <── RaftMessage ──> │       │ ── ApplyTask ─> Applier: one engine batch, data and
//!   placement    <── Report ──────── └───────┘ <── Applied ─── apply states; replies to callers
//!                                      │   │                        │
//!                                      │   └──────── Job ───────────┴─> a pool thread: snapshots
//!                                      └── RegionView ──> readers on their own threads
//! ```
//!
//! Each of the three is a struct with an inbox and one method, `turn`: no clock, no thread, no
//! lock. Whoever drives them (crate `server` in production) carries the outboxes around in the
//! order that their fields have, and runs each [`Job`] on a thread that may wait for the disk.
//!
//! Who owns what: the [`Shard`] raft nodes, leases and waiting callers; the [`LogWriter`] the raft
//! log; the [`Applier`] each region's descriptor and [`ApplyState`], but while a snapshot is being
//! installed nobody applies. Everyone else sees immutable values that lag and never lead.
//!
//! Invariants, asserted in release: truncated <= applied <= committed <= last; applied, term and
//! epoch never go back; nothing leaves the log that a power loss could take from the engine (rule
//! W1); no reply before its batch is written; no two replicas here share a key; raft's members are
//! those of the descriptor.
//!
//! A failure that leaves memory ahead of the disk is [`Fatal`]: the driver stops the node.
//!
//! What happens, and where it stands:
//!
//! | | decided in | applied in |
//! | --- | --- | --- |
//! | writes, reads, splits | `replica/requests.rs` | `apply/stage.rs` |
//! | members change, leaders hand over, logs shrink | `replica/leading.rs` | `apply/stage.rs` |
//! | a replica comes and goes | `shard/life.rs` | `apply/life.rs` |
//! | a snapshot comes | `replica/install.rs` | `apply/life.rs`, then [`snapshot`] |
//!
//! Where to start: [`Shard::turn`], then `replica.rs`, then `apply.rs`. The first start of a store
//! is in [`bootstrap`], every other start in [`recover`].

mod apply;
pub mod bootstrap;
mod command;
mod error;
mod fatal;
mod input;
mod job;
mod lease;
mod log_writer;
mod members;
mod peer_storage;
mod ranges;
mod recover;
mod replica;
mod reply;
mod shard;
pub mod snapshot;
mod states;
mod view;
mod wire;

pub use apply::{
    Applied, Applier, ApplyInput, ApplyOutbox, ApplyTask, Installation, Milestone, Waiting,
};
pub use command::{CommandError, Write, Writes};
pub use error::RegionError;
pub use fatal::Fatal;
pub use input::{
    Birth, ChangePeersRequest, Outbox, Proposal, RaftMessage, ReadRequest, RegionReport, Report,
    ShardInput, SplitRequest, TransferRequest,
};
pub use job::Job;
pub use log_writer::{Done, LogOutbox, LogStep, LogWrite, LogWriter};
pub use recover::{RecoverError, Recovered, recover};
pub use reply::{ReplyTo, WriteResult};
pub use shard::{Shard, ShardConfig};
pub use states::{
    ApplyState, LocalState, StateError, StoreIdent, epoch_from_proto, epoch_to_proto,
    peer_from_proto, peer_to_proto, region_from_proto, region_to_proto,
};
pub use view::{RegionView, RegionViews, RequestHeader};
pub use wire::{
    WireError, conf_state_from_proto, conf_state_to_proto, raft_message_from_proto,
    raft_message_to_proto, receiver_of,
};
