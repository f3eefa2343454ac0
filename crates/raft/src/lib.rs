//! Consensus of one group, sans IO: Raft as a pure state machine.
//!
//! A [`RawNode`] is one member of a group that agrees on a log. It decides; it does nothing. It has
//! no clock, no thread, no socket and no disk: time is [`tick`](RawNode::tick), the network is
//! [`step`](RawNode::step), and all that it wants done comes out of [`ready`](RawNode::ready). The
//! same calls in the same order give the same answers, so a seed is a test.
//!
//! ```text
//!     tick()  step(message)  propose(data)  read_index(context)  campaign()
//!        └──────────┴───────────┬───┴──────────────┴────────────────┘
//!                           ┌───▼───┐
//!                           │RawNode│◄── persisted(ticket) ◄──┐   applied(index) ◄──┐
//!                           └───┬───┘                         │                     │
//!                            ready()                          │                     │
//!        ┌──────────────────────┼──────────────────────┐      │                     │
//!    messages                persist               committed ─┼──► state machine ───┘
//!   (leave now)  snapshot, hard_state, entries ──► disk ──────┤
//!        │                    then ───────────────► messages  │  (leave when durable)
//!        ▼                                              ▼     │
//!     network                                        network  └─ read_states, confirmed_round,
//!                                                                snapshots_wanted
//! ```
//!
//! # The driver's duties
//!
//! 1. Call `tick` at a steady pace, `step` for each message, and the rest as needed. After one or
//!    many of them, if [`has_ready`](RawNode::has_ready), take one `ready`: proposals and reads
//!    that came before it share messages, one write and one round.
//! 2. If [`Ready::failure`] is set, stop the node and say why. It does nothing any more.
//! 3. If [`Ready::confirmed_round`] fell to zero, withdraw the lease that rested on it, before
//!    anything else.
//! 4. Send [`Ready::messages`] at once. They may be lost, doubled and reordered.
//! 5. Write [`Ready::persist`] in order of tickets: first the snapshot, which replaces log, members
//!    and state machine; then the entries, which replace everything from the first one's index on,
//!    together with the hard state. When it is durable, send `then`, and tell
//!    [`persisted`](RawNode::persisted). Many may be on the way; one `persisted` covers all before
//!    it. Never send a `then` early: it says "this is durable".
//! 6. Apply [`Ready::committed`] in order, then tell [`applied`](RawNode::applied). Empty entries
//!    count too. For an entry that changes members tell
//!    [`apply_conf_change`](RawNode::apply_conf_change) what it holds, before `applied`, and keep
//!    the members that it answers together with the applied index. An entry of kind
//!    [`ConfChangeV2`](EntryKind::ConfChangeV2) without data is [`ConfChange::Leave`]: the core
//!    proposes such entries itself. Pages that a snapshot has overtaken are dropped, from the first
//!    entry on for which the answer is [`Superseded`](ConfChangeError::Superseded).
//! 7. Answer the reads of each of [`Ready::read_states`] once its index is applied.
//! 8. For each of [`Ready::snapshots_wanted`] make a snapshot, in its own time, and tell
//!    [`snapshot_made`](RawNode::snapshot_made); when its message arrived or got lost tell
//!    [`snapshot_sent`](RawNode::snapshot_sent) or [`snapshot_failed`](RawNode::snapshot_failed).
//!    The member waits until then.
//! 9. At a start give [`Config::applied`] as the state machine remembers it, and a [`Storage`] that
//!    holds what was durable.
//!
//! For a synchronous driver steps 4 to 6 are one loop that ends with
//! [`advance`](RawNode::advance); nothing else changes:
//!
//! ```
//! use pontoon_raft::{Config, MemoryStorage, PeerId, RawNode};
//!
//! let disk = MemoryStorage::new([PeerId(1)]);
//! let mut node = RawNode::new(Config::new(PeerId(1)), Box::new(disk.clone()))?;
//! node.campaign();
//! node.propose("hello".into())?;
//! let mut applied = Vec::new();
//! while node.has_ready() {
//!     let ready = node.ready();
//!     assert!(ready.messages.is_empty(), "there is nobody else");
//!     if let Some(persist) = &ready.persist {
//!         disk.write(persist);
//!     }
//!     applied.extend(ready.committed.iter().map(|entry| entry.data.clone()));
//!     let _messages = node.advance(ready);
//! }
//! assert_eq!(applied, ["", "hello"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Raft, rule by rule
//!
//! The names are those of the paper (Ongaro and Ousterhout, "In search of an understandable
//! consensus algorithm").
//!
//! | rule | where |
//! | --- | --- |
//! | terms, step down for a later one (5.1) | `raw_node/steps`, `settle_term` |
//! | election, one vote a term (5.2) | `candidate`; `raw_node/steps`, `on_vote` |
//! | randomised timeouts (5.2) | `common`, `draw_timeout` |
//! | log matching: refuse where `prev` differs (5.3) | `follower`, `on_append`; `log`, `merge` |
//! | go back faster than by one entry (5.3) | `log`, `last_agreeable`; `progress`, `refused` |
//! | only an up-to-date log is elected (5.4.1) | `common`, `would_vote` |
//! | count only entries of the own term (5.4.2) | `leader`, `commit` |
//! | joint consensus (6) | `conf_change`; `quorum`; `leader/members`, `leave_joint` |
//! | snapshots (7) | `snapshot`; `leader/replicate`; `follower`, `on_snapshot`; `log`, `restore` |
//! | an empty entry begins a term, reads by rounds (8) | `leader`, `new`; `read_only` |
//!
//! And from the dissertation ("Consensus: bridging theory and practice"):
//!
//! | rule | where |
//! | --- | --- |
//! | transfer of leadership (3.10) | `leader/transfer`; the lease is released by a round's number |
//! | change of one member (4.1), learners (4.2.1) | `conf_change`; `leader/members` |
//! | a term's first change after its first entry (4.1, amended 2015) | `leader`, `new` |
//! | nobody campaigns with unapplied changes of members | `raw_node/steps`, `may_campaign` |
//! | a leader without a quorum steps down (6.2) | `leader`, `hears_quorum` |
//! | votes refused within a lease (6.4.1, 4.2.3) | `raw_node/steps`, `is_leased` |
//! | pre-votes (9.6) | `candidate`; `raw_node/steps`, `on_pre_vote` |
//! | pipelining (10.2.1) | `progress`, `inflights` |
//! | writing in parallel with replication (10.2.1) | `log` |
//!
//! What is ours: priorities (`common`, `would_vote`), a short timeout where the leader's end is
//! known (`follower`, `on_unreachable`), of two who ask at once one stands back
//! (`raw_node/steps`, `on_pre_vote`), forwarding of proposals (`Propose`), groups that sleep
//! (`leader`, `quiesce`; `raw_node/snapshots`), a follower that asks for a snapshot because its
//! own state is damaged (`needs_snapshot`), and entries that come from elsewhere and are known to
//! be committed (`raw_node/learn`, for a group whose log another group carries on).
//! The enum of `rules` lists the rules that keep a group safe, and the code asks it wherever it
//! keeps one; with the feature `mutations` a test can break each of them on purpose and see that
//! the random runs find it.
//!
//! What a leader writes and what it sends leave together; its own write is one acknowledgement
//! among the others. So `committed` may be ahead of what is durable here, but [`Ready::committed`]
//! holds only what is both.
//!
//! # Rounds and leases
//!
//! A leader numbers its broadcasts; every message carries the latest number and every answer echoes
//! it. What a quorum has echoed is *confirmed*: when that round began nobody else led, and with
//! check-quorum nobody else will be elected within an election timeout counted from then, since
//! whoever answered votes for nobody so long. That holds over restarts: a node that may have
//! answered a leader before it went down is silent for one election timeout after it comes back.
//! The core has no clock, so it tells the number, and whoever has one turns it into a lease:
//! remember when each [`round`](RawNode::round) began, and count from the begin of the
//! [confirmed](RawNode::confirmed_round) one.
//!
//! # Invariants
//!
//! Asserted in every build, because a node that broke one must not go on:
//! 1. truncated <= applied <= handed out <= committed <= last, handed out <= stable <= written <=
//!    last; applied and committed never go back, and a committed entry is never replaced (`log`).
//! 2. One vote a term, terms only grow (`common`).
//! 3. matched < next for every member (`progress`).
//! 4. Only a candidate that voted for itself leads (`raw_node`).
//!
//! A second leader of one term, or a message that breaks the protocol, comes from outside, so it is
//! refused with a [`StepError`] and changes nothing.
//!
//! # Common failures
//!
//! - *Nothing is ever committed*: `persisted` or `applied` is not told, or `then` is not sent.
//! - *A follower stays in `Probe`*: its answers do not arrive.
//! - *A follower stays in `Snapshot`*: the driver did not tell what became of one.
//! - *A sleeping group does not notice that its leader died*: wake it, see
//!   [`quiesce`](RawNode::quiesce).
//! - *Elections again and again*: ticks of different pace, or heartbeats late by more than
//!   `election_ticks`; or a leader whose `HeartbeatResponse`s come too late because writes take
//!   longer than an election timeout.
//! - *Reads hang*: a `read_index` may get lost with a message or a change of leaders. Ask again,
//!   with another context.
//! - *A group of two that shrank to one finds no leader*: the one that left was taken down too
//!   early, see [`ConfChange`].
//! - *`Failure`*: the log was compacted beyond what was told as applied, or cannot be read.
//!
//! # Where to start
//!
//! [`RawNode`] for the calls, `leader` and `follower` for the protocol, `log` for what is durable
//! when. `tests/scripts/` tells stories of groups, line by line; the simulator's model check
//! (`./x sim raft`) sees that the promises hold in any weather.

mod candidate;
mod common;
mod conf_change;
mod config;
mod error;
mod follower;
mod inflights;
mod leader;
mod log;
mod memory_storage;
mod message;
mod progress;
mod quorum;
mod raw_node;
mod read_only;
mod ready;
mod rules;
mod snapshot;
mod status;
mod storage;

pub use base::{Entry, EntryKind, Index, PeerId, Term};

pub use crate::conf_change::{ConfChange, ConfChangeError, Leave, MemberChange};
pub use crate::config::Config;
pub use crate::error::{
    LearnError, ProposeError, ReadIndexError, SnapshotError, SnapshotRequestError, StartError,
    StepError, TransferError,
};
pub use crate::memory_storage::MemoryStorage;
pub use crate::message::{AppendOutcome, Body, LogPos, Message};
pub use crate::quorum::{ConfState, Joint};
pub use crate::raw_node::RawNode;
pub use crate::ready::{HardState, Persist, ReadState, Ready, Ticket};
#[cfg(feature = "mutations")]
pub use crate::rules::Rule;
pub use crate::snapshot::{Snapshot, SnapshotWanted};
pub use crate::status::{FlowStatus, MemberStatus, Role, Status};
pub use crate::storage::{Failure, InitialState, Storage, StorageError};
