//! What the network may say: anything, and now and then what an honest peer would answer.

use base::PeerId;
use pontoon_raft::{AppendOutcome, Body, ConfState, LogPos, Message, RawNode, Snapshot};

use super::input::Input;

/// A message of any kind to the node, whose log begins at `first`.
pub fn any_message(input: &mut Input<'_>, node: &RawNode, first: u64) -> Message {
    let to = if input.one_in(32) { input.peer() } else { node.id() };
    let (from, term) = (input.member(node), input.term(node));
    let body = match input.below(21) {
        0..=4 => any_append(input, node, first, term),
        5 => Body::Snapshot {
            snapshot: Box::new(input.snapshot(node, first)),
            round: any_round(input, node),
        },
        6..=8 => any_answer(input, node, first),
        9 => Body::PreVote { last: input.position(node, first), priority: input.priority() },
        10 => Body::PreVoteResponse { granted: !input.one_in(4) },
        11 => {
            let released = input.one_in(3).then(|| any_round(input, node));
            let last = input.position(node, first);
            Body::Vote { last, priority: input.priority(), released }
        }
        12 => Body::VoteResponse { granted: !input.one_in(4) },
        13 => {
            let commit = input.index(node, first);
            Body::Heartbeat { commit, round: any_round(input, node) }
        }
        14 => Body::HeartbeatResponse { round: any_round(input, node) },
        15 => any_read(input, node, first),
        16 => Body::TransferLeader { to: input.member(node) },
        17 => Body::TimeoutNow { round: any_round(input, node) },
        20 => Body::Committed { upto: input.position(node, first) },
        18 => Body::SnapshotRequest { at_least: input.index(node, first) },
        _ => any_small(input, node, first),
    };
    Message { from, to, term, body }
}

fn any_append(input: &mut Input<'_>, node: &RawNode, first: u64, term: u64) -> Body {
    let prev = input.position(node, first);
    let entries = input.entries(prev, term);
    let end = entries.last().map_or(prev.index, |entry| entry.index);
    let commit = input.number(&[prev.index, end, node.committed()]);
    Body::Append { prev, entries, commit, round: any_round(input, node) }
}

fn any_answer(input: &mut Input<'_>, node: &RawNode, first: u64) -> Body {
    let outcome = match input.one_in(3) {
        true => {
            let prev = input.index(node, first);
            AppendOutcome::Conflict { prev, hint: input.position(node, first) }
        }
        false => AppendOutcome::Matched(input.index(node, first)),
    };
    Body::AppendResponse { outcome, round: any_round(input, node) }
}

fn any_read(input: &mut Input<'_>, node: &RawNode, first: u64) -> Body {
    let context = u64::from(input.byte());
    match input.one_in(2) {
        true => Body::ReadIndex { context },
        false => Body::ReadIndexResponse { context, index: input.index(node, first) },
    }
}

fn any_small(input: &mut Input<'_>, node: &RawNode, first: u64) -> Body {
    match input.below(4) {
        0 => Body::TermOver,
        1 => Body::Quiesce { commit: input.index(node, first) },
        _ => Body::Propose { data: input.data() },
    }
}

fn any_round(input: &mut Input<'_>, node: &RawNode) -> u64 {
    let round = node.round();
    input.number(&[round, round, node.confirmed_round(), 0])
}

/// What the receiver of `message` answers, and whether it agrees to what is asked.
pub fn answer(message: &Message, agrees: bool) -> Option<Message> {
    let matched = |index| AppendOutcome::Matched(index);
    let mut term = message.term;
    let body = match &message.body {
        Body::PreVote { .. } => {
            term -= u64::from(!agrees);
            Body::PreVoteResponse { granted: agrees }
        }
        Body::Vote { .. } => Body::VoteResponse { granted: agrees },
        Body::Append { prev, entries, round, .. } => {
            let last = prev.index + entries.len() as u64;
            let hint = LogPos { index: prev.index / 2, term: prev.term };
            let conflict = AppendOutcome::Conflict { prev: prev.index, hint };
            let outcome = if agrees { matched(last) } else { conflict };
            Body::AppendResponse { outcome, round: *round }
        }
        Body::Heartbeat { round, .. } => Body::HeartbeatResponse { round: *round },
        Body::Snapshot { snapshot, round } => {
            Body::AppendResponse { outcome: matched(snapshot.pos.index), round: *round }
        }
        Body::SnapshotRequest { at_least } => {
            let pos = LogPos { index: *at_least, term: message.term };
            let conf = ConfState::of_voters([message.from, message.to, PeerId(1)]);
            let snapshot = Snapshot { pos, conf, data: Default::default() };
            Body::Snapshot { snapshot: Box::new(snapshot), round: 1 }
        }
        Body::TimeoutNow { round } => {
            term += 1;
            let last = LogPos { index: u64::MAX >> 3, term };
            Body::Vote { last, priority: 0, released: agrees.then_some(*round) }
        }
        Body::ReadIndex { context } => Body::ReadIndexResponse { context: *context, index: 1 },
        Body::TransferLeader { .. } => Body::TimeoutNow { round: 1 << 40 },
        _ => return None,
    };
    Some(Message { from: message.to, to: message.from, term, body })
}
