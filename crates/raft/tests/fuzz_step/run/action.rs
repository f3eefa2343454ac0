//! What may happen to a node, one step at a time.

use base::{EntryKind, Index, PeerId};
use bytes::Bytes;
use pontoon_raft::{Message, Snapshot};

use super::host::Host;
use super::input::Input;
use super::messages::any_message;

/// One thing that the network, the clock, the disk, a client or the node's owner does.
#[derive(Debug)]
pub enum Action {
    /// A message arrives. Anybody may have written it.
    Step(Message),
    /// One of the node's latest messages is answered, with agreement or without.
    Answer {
        back: usize,
        agrees: bool,
    },
    /// All of them are answered as the node hopes.
    AnswerAll,
    /// A message that came before comes again.
    Again {
        back: usize,
    },
    /// So many ticks.
    Tick(usize),
    /// A `Ready` is taken; nothing in it is done yet.
    Ready,
    /// So many writes become durable, and what waited for them leaves.
    Write(usize),
    /// The node hears of the latest durable write.
    Persisted,
    /// It hears again of one that it knows.
    PersistedAgain,
    /// So many entries are applied.
    Apply(usize),
    /// The node hears of it.
    Applied,
    /// What is applied becomes durable.
    Flush,
    /// Everything that there is to do is done.
    Settle,
    Propose(Bytes),
    ProposeConfChange(EntryKind, Bytes),
    Forward(Bytes),
    ReadIndex(u64),
    Transfer(PeerId),
    Campaign,
    Unreachable(PeerId),
    SnapshotMade(PeerId, Snapshot),
    SnapshotSent(PeerId),
    SnapshotFailed(PeerId),
    RequestSnapshot,
    Quiesce,
    Wake,
    SetPriority(i64),
    /// The log's front goes, up to this entry at most, as far as it may.
    Compact(Index),
    /// What is not durable is gone.
    Crash,
}

/// What the input says should happen to the host's node.
pub fn next_action(input: &mut Input<'_>, host: &Host) -> Action {
    let (node, first) = (host.node(), host.first_index());
    match input.below(64) {
        0..20 => Action::Step(any_message(input, node, first)),
        20..23 => Action::Answer { back: input.below(8), agrees: !input.one_in(4) },
        23..28 => Action::AnswerAll,
        28 => Action::Again { back: input.below(4) },
        29..31 => Action::Tick(1 + input.below(2)),
        31 => Action::Tick(1 + input.below(32)),
        32..36 => Action::Ready,
        36..39 => Action::Write(1 + input.below(3)),
        39 | 40 => Action::Persisted,
        41 => Action::PersistedAgain,
        42 | 43 => Action::Apply(1 + input.below(4)),
        44 => Action::Applied,
        45 => Action::Flush,
        46..49 => Action::Settle,
        49 | 50 => Action::Propose(input.data()),
        51 => Action::ProposeConfChange(input.kind(), input.data()),
        52 => Action::Forward(input.data()),
        53 => Action::ReadIndex(u64::from(input.byte())),
        54 => Action::Transfer(input.member(node)),
        55 => Action::Campaign,
        56 => of_snapshots(input, host),
        57 => Action::RequestSnapshot,
        58 => Action::Quiesce,
        59 => Action::Wake,
        60 => Action::SetPriority(input.priority()),
        61 => Action::Compact(input.index(node, first)),
        62 => Action::Crash,
        _ => Action::Unreachable(input.member(node)),
    }
}

fn of_snapshots(input: &mut Input<'_>, host: &Host) -> Action {
    let (node, first) = (host.node(), host.first_index());
    let wanted = host.snapshot_wanted().filter(|_| !input.one_in(4));
    let to = wanted.unwrap_or_else(|| input.member(node));
    match input.below(4) {
        0 => Action::SnapshotSent(to),
        1 => Action::SnapshotFailed(to),
        _ => Action::SnapshotMade(to, input.snapshot(node, first)),
    }
}
