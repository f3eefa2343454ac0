//! Raft messages on the wire: our types to those of `raft_serverpb` and `eraftpb`, and back.
//!
//! The protobuf type has one message with fifteen fields for all kinds; which of them count depends
//! on the kind, and what a kind does not use is neither written nor read. What it has no field for
//! travels in `context`, as a number of eight bytes, big endian.
//!
//! | body | `msg_type` | fields |
//! | --- | --- | --- |
//! | `PreVote` | `MsgRequestPreVote` | `index` and `log_term`: the last entry; `priority` |
//! | `PreVoteResponse` | `MsgRequestPreVoteResponse` | `reject`: not granted |
//! | `Vote` | `MsgRequestVote` | like `PreVote`; `context`: what is released, empty for nothing |
//! | `VoteResponse` | `MsgRequestVoteResponse` | `reject`: not granted |
//! | `Append` | `MsgAppend` | `index` and `log_term`: prev; `entries`, `commit`; `context`: round |
//! | `AppendResponse`, matched | `MsgAppendResponse` | `index`; `context`: round |
//! | `AppendResponse`, conflict | `MsgAppendResponse` | `reject`; `index`: prev; |
//! | | | `reject_hint`, `log_term`: the hint; `context`: round |
//! | `Heartbeat` | `MsgHeartbeat` | `commit`; `context`: round |
//! | `HeartbeatResponse` | `MsgHeartbeatResponse` | `context`: round |
//! | `ReadIndex` | `MsgReadIndex` | `context` |
//! | `ReadIndexResponse` | `MsgReadIndexResp` | `context`, `index` |
//! | `TransferLeader` | `MsgTransferLeader` | `context`: who shall lead |
//! | `TimeoutNow` | `MsgTimeoutNow` | `context`: round |
//! | `Snapshot` | `MsgSnapshot` | `snapshot`; `context`: round |
//! | `SnapshotRequest` | `MsgSnapStatus` | `request_snapshot`: at least |
//! | `Propose` | `MsgPropose` | `entries`: one, of which only `data` counts |
//! | `Quiesce` | `MsgBeat` | `commit` |
//! | `Committed` | `MsgUnreachable` | `index` and `log_term` |
//! | `TermOver` | `MsgCheckQuorum` | |
//!
//! The last five are kinds that etcd's raft keeps to itself; here they are sent, in a meaning near
//! to theirs. Around the message: [`RaftMessage::range`] is `start_key` and `end_key`, and since
//! both are empty for all keys, `extra_ctx` is one byte if there is a range.
//!
//! Reading refuses what no store of ours sends ([`WireError`]). Whether the numbers make sense to
//! the group is raft's business.

use base::{Entry, EntryKind, KeyRange, Peer, PeerId, RegionId, StoreId};
use bytes::Bytes;
use proto::eraftpb::{self, MessageType};
use proto::raft_serverpb::{self, ExtraMessageType};
use proto::{
    epoch_from_proto, epoch_to_proto, metapb, peer_from_proto, peer_to_proto, region_from_proto,
    region_to_proto,
};
use raft::{AppendOutcome, Body, ConfState, Joint, Leave, LogPos, Message, Snapshot};

use crate::input::{RaftMessage, SnapshotCredit, StoreAlive};

/// `extra_ctx` of a message with a range.
const HAS_RANGE: &[u8] = &[1];

/// Why a message is not one of ours. Its sender runs another program, or is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field that every message of the kind has is missing, or zero.
    #[error("a raft message without {0}")]
    Missing(&'static str),
    /// A number that stands for something unknown.
    #[error("a raft message with {what} {number}, which is unknown here")]
    Unknown {
        /// For what it stands.
        what: &'static str,
        /// The number.
        number: i32,
    },
    /// Two of its fields do not go together.
    #[error("a raft message in which {0}")]
    Contradiction(&'static str),
    /// `context` is not what the kind needs.
    #[error("a raft message of kind {kind} with a context of {length} bytes")]
    Context {
        /// The kind's number.
        kind: i32,
        /// Its length. Eight bytes are needed.
        length: usize,
    },
}

/// The message as it is sent.
pub fn raft_message_to_proto(message: RaftMessage) -> raft_serverpb::RaftMessage {
    let extra_ctx = Bytes::from_static(if message.range.is_some() { HAS_RANGE } else { &[] });
    let range = message.range.unwrap_or_default();
    raft_serverpb::RaftMessage {
        region_id: message.region_id.0,
        from_peer: Some(peer_to_proto(&message.from)),
        to_peer: Some(peer_to_proto(&message.to)),
        message: Some(message_to_proto(message.message)),
        region_epoch: Some(epoch_to_proto(message.epoch)),
        is_tombstone: message.tombstone,
        merge_target: message.merged_into.map(|target| region_to_proto(&target)),
        start_key: range.start,
        end_key: range.end,
        extra_ctx,
        ..Default::default()
    }
}

/// The message as it was meant.
pub fn raft_message_from_proto(
    message: raft_serverpb::RaftMessage,
) -> Result<RaftMessage, WireError> {
    if message.region_id == 0 {
        return Err(WireError::Missing("a region"));
    }
    let from = peer(message.from_peer.as_ref(), "a sender")?;
    let to = peer(message.to_peer.as_ref(), "a receiver")?;
    let epoch = message.region_epoch.as_ref().ok_or(WireError::Missing("an epoch"))?;
    let range = KeyRange { start: message.start_key, end: message.end_key };
    let raft = message_from_proto(message.message.ok_or(WireError::Missing("a message"))?)?;
    // What is inside a tombstone says nothing.
    if !message.is_tombstone && (raft.from, raft.to) != (from.id, to.id) {
        return Err(WireError::Contradiction("the group and the stores name other peers"));
    }
    Ok(RaftMessage {
        region_id: RegionId(message.region_id),
        from,
        to,
        epoch: epoch_from_proto(epoch),
        message: raft,
        range: (message.extra_ctx == HAS_RANGE).then_some(range),
        tombstone: message.is_tombstone,
        merged_into: message
            .merge_target
            .as_ref()
            .map(|target| Box::new(region_from_proto(target))),
    })
}

/// A sign of life as it is sent: `MsgHibernateRequest` from a store that wants an answer,
/// `MsgHibernateResponse` from one that answers, with the sender's incarnation as `index`. It
/// speaks for all groups of the two stores and so names none of them.
pub fn alive_to_proto(alive: StoreAlive) -> raft_serverpb::RaftMessage {
    let kind = match alive.asks {
        true => ExtraMessageType::MsgHibernateRequest,
        false => ExtraMessageType::MsgHibernateResponse,
    };
    let extra = raft_serverpb::ExtraMessage {
        r#type: kind.into(),
        index: alive.incarnation,
        ..Default::default()
    };
    let peer = |store: StoreId| metapb::Peer { store_id: store.0, ..Default::default() };
    raft_serverpb::RaftMessage {
        region_id: RegionId::SYSTEM.0,
        from_peer: Some(peer(alive.from)),
        to_peer: Some(peer(alive.to)),
        extra_msg: Some(extra),
        ..Default::default()
    }
}

/// The sign of life that the message is, if it is one. It has a sender and a receiver then.
pub fn alive_from_proto(message: &raft_serverpb::RaftMessage) -> Option<StoreAlive> {
    let extra = message.extra_msg.as_ref()?;
    let asks = match ExtraMessageType::try_from(extra.r#type) {
        Ok(ExtraMessageType::MsgHibernateRequest) => true,
        Ok(ExtraMessageType::MsgHibernateResponse) => false,
        _ => return None,
    };
    let store = |peer: &Option<metapb::Peer>| {
        let store = StoreId(peer.as_ref()?.store_id);
        (store.0 != 0).then_some(store)
    };
    let (from, to) = (store(&message.from_peer)?, store(&message.to_peer)?);
    Some(StoreAlive { from, to, incarnation: extra.index, asks })
}

/// A word about room for a snapshot as it is sent: `MsgSnapGenPrecheckRequest` from a leader that
/// asks, `MsgSnapGenPrecheckResponse` from a store that has room, with the leader's term as
/// `index`.
pub fn credit_to_proto(credit: SnapshotCredit) -> raft_serverpb::RaftMessage {
    let kind = match credit.asks {
        true => ExtraMessageType::MsgSnapGenPrecheckRequest,
        false => ExtraMessageType::MsgSnapGenPrecheckResponse,
    };
    let extra = raft_serverpb::ExtraMessage {
        r#type: kind.into(),
        index: credit.term,
        snap_gen_precheck_passed: !credit.asks,
        ..Default::default()
    };
    raft_serverpb::RaftMessage {
        region_id: credit.region_id.0,
        from_peer: Some(peer_to_proto(&credit.from)),
        to_peer: Some(peer_to_proto(&credit.to)),
        extra_msg: Some(extra),
        ..Default::default()
    }
}

/// The word about room for a snapshot that the message is, if it is one.
pub fn credit_from_proto(message: &raft_serverpb::RaftMessage) -> Option<SnapshotCredit> {
    let extra = message.extra_msg.as_ref()?;
    let asks = match ExtraMessageType::try_from(extra.r#type) {
        Ok(ExtraMessageType::MsgSnapGenPrecheckRequest) => true,
        Ok(ExtraMessageType::MsgSnapGenPrecheckResponse) => false,
        _ => return None,
    };
    let from = peer(message.from_peer.as_ref(), "a sender").ok()?;
    let to = peer(message.to_peer.as_ref(), "a receiver").ok()?;
    let is_sound = message.region_id != 0 && asks != extra.snap_gen_precheck_passed;
    let (region_id, term) = (RegionId(message.region_id), extra.index);
    is_sound.then_some(SnapshotCredit { region_id, from, to, term, asks })
}

/// The store that a message is for, without reading the rest; `None` if it does not say.
pub fn receiver_of(message: &raft_serverpb::RaftMessage) -> Option<StoreId> {
    message.to_peer.as_ref().map(|peer| StoreId(peer.store_id)).filter(|store| store.0 != 0)
}

fn peer(peer: Option<&metapb::Peer>, what: &'static str) -> Result<Peer, WireError> {
    let peer = peer.filter(|peer| peer.id != 0 && peer.store_id != 0);
    let peer = peer.ok_or(WireError::Missing(what))?;
    let number = peer.role;
    metapb::PeerRole::try_from(number)
        .map_err(|_| WireError::Unknown { what: "the role", number })?;
    Ok(peer_from_proto(peer))
}

fn message_to_proto(message: Message) -> eraftpb::Message {
    let head = eraftpb::Message {
        from: message.from.0,
        to: message.to.0,
        term: message.term,
        ..Default::default()
    };
    body_to_proto(message.body, head)
}

fn body_to_proto(body: Body, mut wire: eraftpb::Message) -> eraftpb::Message {
    let kind = kind_of(&body);
    wire.set_msg_type(kind);
    match body {
        Body::PreVote { last, priority } => {
            set_pos(&mut wire, last);
            wire.priority = priority;
        }
        Body::Vote { last, priority, released } => {
            set_pos(&mut wire, last);
            wire.priority = priority;
            wire.context = released.map_or(Bytes::new(), number);
        }
        Body::PreVoteResponse { granted } | Body::VoteResponse { granted } => {
            wire.reject = !granted;
        }
        Body::Append { prev, entries, commit, round } => {
            set_pos(&mut wire, prev);
            wire.entries = entries.into_iter().map(entry_to_proto).collect();
            wire.commit = commit;
            wire.context = number(round);
        }
        Body::AppendResponse { outcome, round } => {
            set_outcome(&mut wire, outcome);
            wire.context = number(round);
        }
        Body::Heartbeat { commit, round } => {
            wire.commit = commit;
            wire.context = number(round);
        }
        Body::HeartbeatResponse { round } | Body::TimeoutNow { round } => {
            wire.context = number(round);
        }
        Body::ReadIndex { context } => wire.context = number(context),
        Body::ReadIndexResponse { context, index } => {
            wire.context = number(context);
            wire.index = index;
        }
        Body::TransferLeader { to } => wire.context = number(to.0),
        Body::Snapshot { snapshot, round } => {
            wire.snapshot = Some(snapshot_to_proto(*snapshot));
            wire.context = number(round);
        }
        Body::SnapshotRequest { at_least } => wire.request_snapshot = at_least,
        Body::Propose { data } => {
            wire.entries = vec![eraftpb::Entry { data, ..Default::default() }];
        }
        Body::Quiesce { commit } => wire.commit = commit,
        Body::Committed { upto } => set_pos(&mut wire, upto),
        Body::TermOver => {}
    }
    wire
}

fn kind_of(body: &Body) -> MessageType {
    match body {
        Body::PreVote { .. } => MessageType::MsgRequestPreVote,
        Body::PreVoteResponse { .. } => MessageType::MsgRequestPreVoteResponse,
        Body::Vote { .. } => MessageType::MsgRequestVote,
        Body::VoteResponse { .. } => MessageType::MsgRequestVoteResponse,
        Body::Append { .. } => MessageType::MsgAppend,
        Body::AppendResponse { .. } => MessageType::MsgAppendResponse,
        Body::Heartbeat { .. } => MessageType::MsgHeartbeat,
        Body::HeartbeatResponse { .. } => MessageType::MsgHeartbeatResponse,
        Body::ReadIndex { .. } => MessageType::MsgReadIndex,
        Body::ReadIndexResponse { .. } => MessageType::MsgReadIndexResp,
        Body::TransferLeader { .. } => MessageType::MsgTransferLeader,
        Body::TimeoutNow { .. } => MessageType::MsgTimeoutNow,
        Body::Snapshot { .. } => MessageType::MsgSnapshot,
        Body::SnapshotRequest { .. } => MessageType::MsgSnapStatus,
        Body::Propose { .. } => MessageType::MsgPropose,
        Body::Quiesce { .. } => MessageType::MsgBeat,
        Body::Committed { .. } => MessageType::MsgUnreachable,
        Body::TermOver => MessageType::MsgCheckQuorum,
    }
}

fn message_from_proto(wire: eraftpb::Message) -> Result<Message, WireError> {
    let (from, to, term) = (PeerId(wire.from), PeerId(wire.to), wire.term);
    Ok(Message { from, to, term, body: body_from_proto(wire)? })
}

fn body_from_proto(mut wire: eraftpb::Message) -> Result<Body, WireError> {
    let number = wire.msg_type;
    let kind = MessageType::try_from(number)
        .map_err(|_| WireError::Unknown { what: "the kind", number })?;
    let granted = !wire.reject;
    let commit = wire.commit;
    Ok(match kind {
        MessageType::MsgRequestPreVote => {
            Body::PreVote { last: pos(&wire), priority: wire.priority }
        }
        MessageType::MsgRequestPreVoteResponse => Body::PreVoteResponse { granted },
        MessageType::MsgRequestVote => {
            let released = (!wire.context.is_empty()).then(|| context(&wire)).transpose()?;
            Body::Vote { last: pos(&wire), priority: wire.priority, released }
        }
        MessageType::MsgRequestVoteResponse => Body::VoteResponse { granted },
        MessageType::MsgAppend => {
            let entries = std::mem::take(&mut wire.entries).into_iter().map(entry_from_proto);
            let entries = entries.collect::<Result<_, _>>()?;
            Body::Append { prev: pos(&wire), entries, commit, round: context(&wire)? }
        }
        MessageType::MsgAppendResponse => {
            Body::AppendResponse { outcome: outcome(&wire), round: context(&wire)? }
        }
        MessageType::MsgHeartbeat => Body::Heartbeat { commit, round: context(&wire)? },
        MessageType::MsgHeartbeatResponse => Body::HeartbeatResponse { round: context(&wire)? },
        MessageType::MsgReadIndex => Body::ReadIndex { context: context(&wire)? },
        MessageType::MsgReadIndexResp => {
            Body::ReadIndexResponse { context: context(&wire)?, index: wire.index }
        }
        MessageType::MsgTransferLeader => Body::TransferLeader { to: PeerId(context(&wire)?) },
        MessageType::MsgTimeoutNow => Body::TimeoutNow { round: context(&wire)? },
        MessageType::MsgSnapshot => {
            let snapshot = wire.snapshot.take().ok_or(WireError::Missing("its snapshot"))?;
            let snapshot = Box::new(snapshot_from_proto(snapshot)?);
            Body::Snapshot { snapshot, round: context(&wire)? }
        }
        MessageType::MsgSnapStatus => Body::SnapshotRequest { at_least: wire.request_snapshot },
        MessageType::MsgPropose => {
            let entry = wire.entries.pop().ok_or(WireError::Missing("its proposal"))?;
            if !wire.entries.is_empty() {
                return Err(WireError::Contradiction("there are several proposals"));
            }
            Body::Propose { data: entry.data }
        }
        MessageType::MsgBeat => Body::Quiesce { commit },
        MessageType::MsgCheckQuorum => Body::TermOver,
        MessageType::MsgUnreachable => Body::Committed { upto: pos(&wire) },
        MessageType::MsgHup => {
            return Err(WireError::Unknown { what: "the kind", number });
        }
    })
}

fn set_pos(wire: &mut eraftpb::Message, pos: LogPos) {
    (wire.index, wire.log_term) = (pos.index, pos.term);
}

fn pos(wire: &eraftpb::Message) -> LogPos {
    LogPos { index: wire.index, term: wire.log_term }
}

fn set_outcome(wire: &mut eraftpb::Message, outcome: AppendOutcome) {
    match outcome {
        AppendOutcome::Matched(index) => wire.index = index,
        AppendOutcome::Conflict { prev, hint } => {
            wire.reject = true;
            wire.index = prev;
            (wire.reject_hint, wire.log_term) = (hint.index, hint.term);
        }
    }
}

fn outcome(wire: &eraftpb::Message) -> AppendOutcome {
    if !wire.reject {
        return AppendOutcome::Matched(wire.index);
    }
    let hint = LogPos { index: wire.reject_hint, term: wire.log_term };
    AppendOutcome::Conflict { prev: wire.index, hint }
}

fn number(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn context(wire: &eraftpb::Message) -> Result<u64, WireError> {
    let wrong = |_| WireError::Context { kind: wire.msg_type, length: wire.context.len() };
    wire.context[..].try_into().map(u64::from_be_bytes).map_err(wrong)
}

pub(crate) fn entry_to_proto(entry: Entry) -> eraftpb::Entry {
    eraftpb::Entry {
        entry_type: i32::from(entry.kind as u8),
        term: entry.term,
        index: entry.index,
        data: entry.data,
        ..Default::default()
    }
}

pub(crate) fn entry_from_proto(entry: eraftpb::Entry) -> Result<Entry, WireError> {
    let number = entry.entry_type;
    let kind = u8::try_from(number).ok().and_then(EntryKind::from_number);
    let kind = kind.ok_or(WireError::Unknown { what: "an entry of kind", number })?;
    Ok(Entry { index: entry.index, term: entry.term, kind, data: entry.data })
}

fn snapshot_to_proto(snapshot: Snapshot) -> eraftpb::Snapshot {
    let metadata = eraftpb::SnapshotMetadata {
        conf_state: Some(conf_state_to_proto(&snapshot.conf)),
        index: snapshot.pos.index,
        term: snapshot.pos.term,
    };
    eraftpb::Snapshot { data: snapshot.data, metadata: Some(metadata) }
}

fn snapshot_from_proto(snapshot: eraftpb::Snapshot) -> Result<Snapshot, WireError> {
    let metadata = snapshot.metadata.ok_or(WireError::Missing("its snapshot's position"))?;
    let conf = metadata.conf_state.ok_or(WireError::Missing("its snapshot's members"))?;
    let pos = LogPos { index: metadata.index, term: metadata.term };
    Ok(Snapshot { pos, conf: conf_state_from_proto(conf)?, data: snapshot.data })
}

/// The members of a group, as they are sent.
pub fn conf_state_to_proto(conf: &ConfState) -> eraftpb::ConfState {
    let joint = conf.joint.as_deref();
    eraftpb::ConfState {
        voters: numbers(&conf.voters),
        learners: numbers(&conf.learners),
        voters_outgoing: joint.map_or(Vec::new(), |joint| numbers(&joint.voters_outgoing)),
        learners_next: joint.map_or(Vec::new(), |joint| numbers(&joint.learners_next)),
        auto_leave: joint.is_some_and(|joint| joint.leave == Leave::Automatic),
    }
}

/// The members of a group, as they were meant.
pub fn conf_state_from_proto(conf: eraftpb::ConfState) -> Result<ConfState, WireError> {
    if conf.voters.is_empty() {
        return Err(WireError::Missing("a voter among its members"));
    }
    let is_joint = !conf.voters_outgoing.is_empty();
    if !is_joint && (conf.auto_leave || !conf.learners_next.is_empty()) {
        return Err(WireError::Contradiction("what ends is no joint configuration"));
    }
    let leave = if conf.auto_leave { Leave::Automatic } else { Leave::OnRequest };
    let joint = is_joint.then(|| {
        let voters_outgoing = peer_ids(conf.voters_outgoing);
        Box::new(Joint { voters_outgoing, learners_next: peer_ids(conf.learners_next), leave })
    });
    Ok(ConfState { voters: peer_ids(conf.voters), learners: peer_ids(conf.learners), joint })
}

fn numbers(ids: &[PeerId]) -> Vec<u64> {
    ids.iter().map(|id| id.0).collect()
}

fn peer_ids(numbers: Vec<u64>) -> Vec<PeerId> {
    numbers.into_iter().map(PeerId).collect()
}

#[cfg(test)]
mod tests;
