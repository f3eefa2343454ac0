//! Messages that come too late, to the wrong one, from strangers, or that nobody may send.

use base::{Entry, PeerId};
use pontoon_raft::{AppendOutcome, Body, ConfState, LogPos, Message, RawNode, Snapshot, StepError};

use crate::{Fixture, ME, decode, entry, message};

const HUGE: u64 = u64::MAX;

/// What becomes of a message.
#[derive(Debug, PartialEq)]
enum Fate {
    /// It is refused, and nothing is said.
    Refused(StepError),
    /// Nothing changes and nothing is said.
    Ignored,
    /// It is answered with this, and nothing else changes.
    Answered(Body),
}

use Fate::{Answered, Ignored, Refused};

fn malformed(rule: &'static str) -> Fate {
    Refused(StepError::Malformed(rule))
}

fn cannot_be() -> Fate {
    malformed("a message with an index, a term or a round that cannot be")
}

fn pos(index: u64, term: u64) -> LogPos {
    LogPos { index, term }
}

fn append(prev: LogPos, entries: Vec<Entry>, commit: u64) -> Body {
    Body::Append { prev, entries, commit, round: 4 }
}

fn snapshot(pos: LogPos, voters: &[u64]) -> Body {
    let conf = ConfState::of_voters(voters.iter().copied().map(PeerId));
    Body::Snapshot { snapshot: Box::new(Snapshot { pos, conf, data: "s".into() }), round: 4 }
}

fn matched(index: u64, round: u64) -> Body {
    Body::AppendResponse { outcome: AppendOutcome::Matched(index), round }
}

fn conflict(prev: u64, hint: LogPos, round: u64) -> Body {
    Body::AppendResponse { outcome: AppendOutcome::Conflict { prev, hint }, round }
}

/// Everything that can be seen of a node, but for what any sign of life changes.
fn seen(node: &RawNode) -> String {
    let mut status = node.status();
    status.members.iter_mut().for_each(|member| member.heard = false);
    format!("{status:?} round {} confirmed {}", node.round(), node.confirmed_round())
}

/// Sends each message to a fixture of its own.
fn check(start: fn() -> Fixture, table: Vec<(&str, Message, Fate)>) {
    for (name, message, expected) in table {
        let mut fixture = start();
        let before = seen(&fixture.node);
        let fate = match fixture.node.step(message) {
            Err(error) => Refused(error),
            Ok(()) => match &fixture.settle()[..] {
                [] => Ignored,
                [said] => Answered(said.body.clone()),
                // Beside a refused vote it says what it knows to be committed.
                [said, Message { body: Body::Committed { .. }, .. }] => Answered(said.body.clone()),
                more => panic!("{name}: {more:?}"),
            },
        };
        assert_eq!(fate, expected, "{name}");
        assert!(!fixture.node.has_ready(), "{name}: something more is said");
        assert_eq!(seen(&fixture.node), before, "{name}");
        fixture.still_works(name);
    }
}

/// What is wrong in itself is refused by everybody.
#[test]
fn what_cannot_be_is_refused() {
    let to_another =
        Message { to: PeerId(4), ..message(2, 3, Body::Heartbeat { commit: 7, round: 4 }) };
    let misdirected = || Refused(StepError::Misdirected { to: PeerId(4) });
    let nobody = || malformed("a message from nobody, from oneself, or of no term");
    let heartbeat = |commit, round| Body::Heartbeat { commit, round };
    for start in [Fixture::follower, Fixture::leader] {
        let table = vec![
            ("for another peer", to_another.clone(), misdirected()),
            ("from nobody", message(0, 3, heartbeat(7, 4)), nobody()),
            ("from itself", message(ME.0, 3, heartbeat(7, 4)), nobody()),
            ("of no term", message(2, 0, heartbeat(7, 4)), nobody()),
            ("the last term", message(2, HUGE, heartbeat(7, 4)), cannot_be()),
            ("a huge term", message(2, 1 << 62, heartbeat(7, 4)), cannot_be()),
            (
                "a huge pre-vote",
                message(2, HUGE - 1, Body::PreVoteResponse { granted: true }),
                cannot_be(),
            ),
            ("a huge commit", message(2, 3, heartbeat(HUGE, 4)), cannot_be()),
            ("a huge round", message(2, 3, heartbeat(7, HUGE)), cannot_be()),
            ("a huge answer", message(2, 3, Body::HeartbeatResponse { round: HUGE }), cannot_be()),
            ("a huge prev", message(2, 3, append(pos(HUGE, 3), vec![entry(0, 3)], 7)), cannot_be()),
            (
                "a huge entry",
                message(2, 3, append(pos(8, 3), vec![entry(HUGE, 3)], 7)),
                cannot_be(),
            ),
            ("a huge match", message(2, 4, matched(HUGE, 1)), cannot_be()),
            ("a huge conflict", message(2, 4, conflict(HUGE, pos(8, 3), 1)), cannot_be()),
            ("a huge hint", message(2, 4, conflict(9, pos(HUGE, HUGE), 1)), cannot_be()),
            ("a huge snapshot", message(2, 3, snapshot(pos(HUGE, 3), &[1, 2])), cannot_be()),
            ("a huge cry", message(2, 4, Body::SnapshotRequest { at_least: HUGE }), cannot_be()),
            ("a huge sleep", message(2, 3, Body::Quiesce { commit: HUGE }), cannot_be()),
            ("a huge hand-over", message(2, 3, Body::TimeoutNow { round: HUGE }), cannot_be()),
            (
                "a huge read",
                message(2, 3, Body::ReadIndexResponse { context: 1, index: HUGE }),
                cannot_be(),
            ),
        ];
        check(start, table);
    }
}

/// The leader of a follower of 2 in term 3, whose log is 6@2 7@2 8@3, committed up to 7.
#[test]
fn a_follower_takes_nothing_wrong_from_a_leader() {
    let gap = "an append's entries are not consecutive";
    let terms = "an append's terms go back, or beyond the leader's";
    let two = StepError::TwoLeaders { term: 3, known: PeerId(2), other: PeerId(9) };
    let no_group = "a snapshot of a group without voters";
    let nothing = "a snapshot at nothing, or of a later term";
    let past_end = "a heartbeat commits past the log's end";
    let table = vec![
        ("a second leader", message(9, 3, append(pos(8, 3), vec![], 7)), Refused(two)),
        (
            "a gap",
            message(2, 3, append(pos(8, 3), vec![entry(9, 3), entry(11, 3)], 7)),
            malformed(gap),
        ),
        ("a gap first", message(2, 3, append(pos(8, 3), vec![entry(10, 3)], 7)), malformed(gap)),
        (
            "twice one",
            message(2, 3, append(pos(7, 2), vec![entry(8, 3), entry(8, 3)], 7)),
            malformed(gap),
        ),
        ("terms back", message(2, 3, append(pos(8, 3), vec![entry(9, 2)], 7)), malformed(terms)),
        ("a later term", message(2, 3, append(pos(8, 3), vec![entry(9, 4)], 7)), malformed(terms)),
        (
            "prev past the end",
            message(2, 3, append(pos(20, 3), vec![entry(21, 3)], 20)),
            Answered(conflict(20, pos(8, 3), 4)),
        ),
        (
            "prev of another term",
            message(2, 3, append(pos(8, 2), vec![], 7)),
            Answered(conflict(8, pos(7, 2), 4)),
        ),
        (
            "before the commit index",
            message(2, 3, append(pos(6, 2), vec![entry(7, 3)], 7)),
            Answered(matched(7, 4)),
        ),
        (
            "before the log",
            message(2, 3, append(pos(1, 1), vec![entry(2, 1)], 7)),
            Answered(matched(7, 4)),
        ),
        (
            "commits past the end",
            message(2, 3, Body::Heartbeat { commit: 9, round: 4 }),
            malformed(past_end),
        ),
        ("an old snapshot", message(2, 3, snapshot(pos(6, 2), &[1, 2])), Answered(matched(7, 4))),
        (
            "a snapshot that contradicts",
            message(2, 3, snapshot(pos(7, 1), &[9])),
            Answered(matched(7, 4)),
        ),
        ("a snapshot at nothing", message(2, 3, snapshot(pos(0, 0), &[1, 2])), malformed(nothing)),
        ("a snapshot of no term", message(2, 3, snapshot(pos(9, 0), &[1, 2])), malformed(nothing)),
        (
            "a snapshot of a later term",
            message(2, 3, snapshot(pos(9, 4), &[1, 2])),
            malformed(nothing),
        ),
        ("a snapshot of nobody", message(2, 3, snapshot(pos(9, 3), &[])), malformed(no_group)),
        (
            "to sleep too early",
            message(2, 3, Body::Quiesce { commit: 7 }),
            Answered(Body::HeartbeatResponse { round: 4 }),
        ),
        ("to campaign, by another", message(3, 3, Body::TimeoutNow { round: 4 }), Ignored),
        ("to campaign, too late", message(2, 3, Body::TimeoutNow { round: 3 }), Ignored),
    ];
    check(Fixture::follower, table);
}

#[test]
fn a_follower_ignores_what_is_not_for_it() {
    let vote = Body::Vote { last: pos(20, 2), priority: 0, released: None };
    let pre_vote = Body::PreVote { last: pos(20, 2), priority: 0 };
    let table = vec![
        (
            "an append of an old term",
            message(3, 2, append(pos(8, 3), vec![entry(9, 2)], 9)),
            Answered(Body::TermOver),
        ),
        (
            "a heartbeat of an old term",
            message(3, 2, Body::Heartbeat { commit: 99, round: 99 }),
            Answered(Body::TermOver),
        ),
        (
            "a snapshot of an old term",
            message(3, 2, snapshot(pos(99, 2), &[3])),
            Answered(Body::TermOver),
        ),
        ("a vote of an old term", message(3, 2, vote.clone()), Answered(Body::TermOver)),
        ("a late vote", message(3, 3, vote), Answered(Body::VoteResponse { granted: false })),
        (
            "a late pre-vote",
            message(3, 3, pre_vote),
            Answered(Body::PreVoteResponse { granted: false }),
        ),
        ("an answer of an old term", message(3, 2, matched(99, 9)), Ignored),
        ("a hand-over of an old term", message(2, 2, Body::TimeoutNow { round: 9 }), Ignored),
        ("an answer to another", message(3, 3, matched(99, 9)), Ignored),
        ("a heartbeat's answer", message(3, 3, Body::HeartbeatResponse { round: 9 }), Ignored),
        (
            "a vote that it never asked for",
            message(3, 3, Body::VoteResponse { granted: true }),
            Ignored,
        ),
        ("a pre-vote likewise", message(3, 4, Body::PreVoteResponse { granted: true }), Ignored),
        ("a read", message(3, 3, Body::ReadIndex { context: 1 }), Ignored),
        ("a proposal", message(3, 3, Body::Propose { data: "x".into() }), Ignored),
        ("a cry for a snapshot", message(3, 3, Body::SnapshotRequest { at_least: 8 }), Ignored),
        ("a term that is not over", message(3, 3, Body::TermOver), Ignored),
    ];
    check(Fixture::follower, table);
}

/// The leader of term 4, which has 9 entries, committed.
#[test]
fn a_leader_takes_nothing_wrong_from_a_member() {
    let two = || Refused(StepError::TwoLeaders { term: 4, known: ME, other: PeerId(3) });
    let past_end = "a match past the leader's log";
    let vote = Body::Vote { last: pos(20, 9), priority: 0, released: Some(9) };
    let table = vec![
        ("a second leader's append", message(3, 4, append(pos(9, 4), vec![], 9)), two()),
        (
            "a second leader's heartbeat",
            message(3, 4, Body::Heartbeat { commit: 9, round: 4 }),
            two(),
        ),
        ("a second leader's snapshot", message(3, 4, snapshot(pos(9, 4), &[3])), two()),
        ("a second leader's sleep", message(3, 4, Body::Quiesce { commit: 9 }), two()),
        ("a match past the end", message(2, 4, matched(10, 1)), malformed(past_end)),
        ("a match of the past", message(2, 4, matched(6, 0)), Ignored),
        ("a conflict below the match", message(2, 4, conflict(8, pos(1, 1), 1)), Ignored),
        ("a conflict at nothing", message(2, 4, conflict(0, pos(0, 0), 0)), Ignored),
        ("a round that never was", message(2, 4, Body::HeartbeatResponse { round: 99 }), Ignored),
        (
            "an old term's append",
            message(3, 3, append(pos(8, 3), vec![], 8)),
            Answered(Body::TermOver),
        ),
        ("an old term's match", message(3, 3, matched(9, 1)), Ignored),
        (
            "a vote in its term",
            message(3, 4, vote),
            Answered(Body::VoteResponse { granted: false }),
        ),
        ("a vote for it, late", message(3, 4, Body::VoteResponse { granted: true }), Ignored),
        ("a hand-over to it", message(2, 4, Body::TimeoutNow { round: 9 }), Ignored),
        (
            "a hand-over to a stranger",
            message(2, 4, Body::TransferLeader { to: PeerId(9) }),
            Ignored,
        ),
        ("a hand-over to itself", message(2, 4, Body::TransferLeader { to: ME }), Ignored),
        (
            "a snapshot beyond what it has",
            message(2, 4, Body::SnapshotRequest { at_least: 10 }),
            Ignored,
        ),
        (
            "a read that nobody asked",
            message(2, 4, Body::ReadIndexResponse { context: 1, index: 99 }),
            Ignored,
        ),
    ];
    check(Fixture::leader, table);
}

fn without_3() -> Fixture {
    let mut fixture = Fixture::leader();
    fixture.change(&decode(b"-3"), b"-3");
    fixture
}

/// Who never was a member, or is none any more, counts nothing and is given nothing.
#[test]
fn strangers_count_nothing() {
    for from in [3, 9] {
        let table = vec![
            ("an acknowledgement", message(from, 4, matched(10, 1)), Ignored),
            ("one past the end", message(from, 4, matched(99, 1)), Ignored),
            ("a conflict", message(from, 4, conflict(9, pos(8, 3), 1)), Ignored),
            (
                "a heartbeat's answer",
                message(from, 4, Body::HeartbeatResponse { round: 1 }),
                Ignored,
            ),
            ("a read", message(from, 4, Body::ReadIndex { context: 1 }), Ignored),
            ("a proposal", message(from, 4, Body::Propose { data: "x".into() }), Ignored),
            (
                "a cry for a snapshot",
                message(from, 4, Body::SnapshotRequest { at_least: 5 }),
                Ignored,
            ),
            (
                "a hand-over to it",
                message(from, 4, Body::TransferLeader { to: PeerId(from) }),
                Ignored,
            ),
        ];
        check(without_3, table);
    }
}

/// Votes of strangers do not elect.
#[test]
fn strangers_do_not_elect() {
    let mut fixture = Fixture::lonely();
    assert!(fixture.node.campaign());
    fixture.settle();
    for stranger in 4..=9 {
        assert!(fixture.say(stranger, 4, Body::VoteResponse { granted: true }).is_empty());
    }
    assert!(!fixture.node.is_leader());
    fixture.say(3, 4, Body::VoteResponse { granted: true });
    assert!(fixture.node.is_leader());
}

/// What an append commits beyond what it proves is cut, even if the log goes on.
#[test]
fn a_commit_index_is_cut_to_what_is_proved() {
    let mut fixture = Fixture::follower();
    fixture.say(2, 3, append(pos(7, 2), vec![], 1 << 61));
    assert_eq!(fixture.node.committed(), 7);
    fixture.say(2, 3, append(pos(8, 3), vec![entry(9, 3)], 1 << 61));
    assert_eq!(fixture.node.committed(), 9);
    fixture.still_works("a huge commit index");
}

/// Close to the largest numbers that a message may name a group goes on.
#[test]
fn a_node_goes_on_close_to_the_end_of_numbers() {
    let end = (1 << 62) - 100;
    let mut fixture = Fixture::lonely();
    fixture.say(2, end, snapshot(pos(end, end), &[1, 2]));
    assert_eq!((fixture.node.term(), fixture.node.applied_index()), (end, end));
    for _ in 0..3 {
        fixture.elect();
        fixture.still_works("the largest numbers");
        fixture.say(3, fixture.node.term() - 1, Body::TermOver);
        let config = crate::config(fixture.node.applied_index());
        let storage = Box::new(fixture.storage.clone());
        fixture.node = RawNode::new(config, storage).expect("starts");
    }
}
