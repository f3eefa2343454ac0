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
//! Whoever keeps something in memory for the regions that are led here (locks that are not in the
//! log, timestamps up to which was read) hears of each leadership in [`Outbox::leading`], and is
//! asked to propose what he has before a split, a merge or a transfer takes it away. What he is
//! told when, and what he must answer, is on the page of [`leading`].
//!
//! A failure that leaves memory ahead of the disk is [`Fatal`]: the driver stops the node.
//!
//! What happens, and where it stands:
//!
//! | | decided in | applied in |
//! | --- | --- | --- |
//! | writes, splits | `replica/requests.rs` | `apply/stage.rs` |
//! | reads | `read.rs`, on the reader's thread; `replica/reads.rs` | |
//! | reads of the past | `safe_time.rs` | |
//! | groups sleep and wake | `replica/sleep.rs`, `shard/awake.rs`, `liveness.rs` | |
//! | members change, leaders hand over | `replica/leading.rs` | `apply/stage.rs` |
//! | what is kept in memory for led regions is handed over | `replica/moving.rs` | |
//! | a region is closed for a flashback | `replica/requests.rs` | `apply/stage.rs` |
//! | logs shrink | `replica/compaction.rs`, `shard/log_budget.rs` | `apply/stage.rs` |
//! | a replica comes and goes | `shard/life.rs` | `apply/life.rs` |
//! | replicas are compared | `replica/consistency.rs` | `apply.rs`, then [`ComputeHash`] |
//! | a region is cut unasked | [`split_check`], `shard/splits.rs` | like any split |
//! | regions merge | `replica/merging.rs`, `shard/merge.rs` | `apply/merge.rs` |
//! | a snapshot comes | `replica/install.rs` | `apply/life.rs`, then [`snapshot`] |
//!
//! Where to start: [`Shard::turn`], then `replica.rs`, then `apply.rs`. The first start of a store
//! is in [`bootstrap`], every other start in [`recover`].

mod apply;
pub mod bootstrap;
mod command;
mod consistency;
mod error;
mod error_to_proto;
mod fatal;
mod input;
mod inspection;
mod job;
pub mod leading;
mod lease;
mod liveness;
mod log_writer;
mod members;
mod merge;
mod peer_storage;
mod ranges;
mod read;
mod recover;
mod replica;
mod reply;
mod report_to_proto;
mod safe_time;
mod shard;
pub mod snapshot;
pub mod split_check;
mod states;
mod view;
mod wire;

pub use apply::{
    Applied, Applier, ApplyInput, ApplyOutbox, ApplyTask, Installation, Milestone, Waiting,
};
pub use command::{CommandError, Write, Writes};
pub use consistency::{ComputeHash, RegionHash};
pub use error::RegionError;
pub use error_to_proto::region_error_to_proto;
pub use fatal::Fatal;
pub use input::{
    Birth, ChangePeersRequest, FlashbackRequest, MergeRequest, Outbox, Proposal, RaftMessage,
    ReadRequest, RegionReport, RegionRequest, Report, ShardInput, SnapshotCredit, SplitRequest,
    StoreAlive, TransferRequest,
};
pub use inspection::{
    Activity, CheckStatus, InspectReply, Inspection, MemberProgress, ReplicaStatus,
};
pub use job::{Job, RECLAIM_BYTES_MIN};
pub use leading::LeaderEvent;
pub use log_writer::{Done, LogOutbox, LogStep, LogWrite, LogWriter};
pub use merge::{Absorbed, MergeState};
pub use read::{ReadFrom, ReadPermit, ReadRefusal};
pub use recover::{RecoverError, Recovered, recover};
pub use reply::{ReplyTo, WriteResult};
pub use safe_time::{LeaderClaim, OpenClaim, SafePoint, SafeTimes};
pub use shard::{Shard, ShardConfig};
pub use states::{ApplyState, LocalState, StateError, StoreIdent};
pub use view::{Purpose, RegionView, RegionViews, RequestHeader};
pub use wire::{
    WireError, alive_from_proto, alive_to_proto, conf_state_from_proto, conf_state_to_proto,
    credit_from_proto, credit_to_proto, raft_message_from_proto, raft_message_to_proto,
    receiver_of,
};
