//! Calls that cannot be obeyed: each is refused by its own error, and nothing happened.

use base::{EntryKind, PeerId};
use bytes::Bytes;
use pontoon_raft::{
    Body, ConfChange, ConfChangeError, ConfState, Config, HardState, Leave, LogPos, MemberChange,
    MemoryStorage, ProposeError, RawNode, ReadIndexError, Role, Snapshot, SnapshotError,
    SnapshotRequestError, StartError, TransferError,
};

use crate::{Fixture, ME, config, decode, entry, message, stored};

const TWO: PeerId = PeerId(2);

fn data() -> Bytes {
    Bytes::from_static(b"x")
}

fn not_leader(leader: Option<PeerId>) -> ProposeError {
    ProposeError::NotLeader { leader }
}

fn propose_change(node: &mut RawNode, change: &ConfChange) -> Result<(), ProposeError> {
    node.propose_conf_change(EntryKind::ConfChange, data(), change).map(drop)
}

fn snapshot_at(index: u64) -> Snapshot {
    let conf = ConfState::of_voters((1..=3).map(PeerId));
    Snapshot { pos: LogPos { index, term: 4 }, conf, data: data() }
}

/// Who does not lead says who does, if it knows.
#[test]
fn a_follower_takes_no_proposals() {
    for (mut fixture, leader) in [(Fixture::follower(), Some(TWO)), (Fixture::lonely(), None)] {
        let node = &mut fixture.node;
        assert_eq!(node.propose(data()), Err(not_leader(leader)));
        assert_eq!(propose_change(node, &decode(b"+4")), Err(not_leader(leader)));
        assert_eq!(node.forward(data()), leader.map(drop).ok_or(not_leader(None)));
        assert_eq!(node.read_index(1), leader.map(drop).ok_or(ReadIndexError::NoLeader));
        assert_eq!(node.transfer_leader(TWO), leader.map(drop).ok_or(TransferError::NoLeader));
        assert!(!node.quiesce());
        let nobody_waits = Err(SnapshotError::NotWanted { to: TWO });
        assert_eq!(node.snapshot_made(TWO, snapshot_at(7)), nobody_waits);
        node.snapshot_sent(TWO);
        node.snapshot_failed(TWO);
        node.report_unreachable(TWO);
        assert_eq!(node.role(), Role::Follower);
        fixture.still_works("calls to a follower");
    }
}

/// A node that is no member neither campaigns nor leads.
#[test]
fn a_stranger_does_not_campaign() {
    let mut fixture = Fixture::start(config(7), 2..=4);
    assert!(!fixture.node.campaign());
    (0..100).for_each(|_| fixture.node.tick());
    assert!(!fixture.node.has_ready());
    fixture.say(2, 3, Body::TimeoutNow { round: 0 });
    assert_eq!((fixture.node.role(), fixture.node.term()), (Role::Follower, 3));
    assert_eq!(fixture.node.propose(data()), Err(not_leader(None)));
}

/// The entry by which it leaves is its predecessor's. It takes nothing any more, and steps down.
#[test]
fn a_leader_that_left_takes_no_proposals() {
    let storage = stored(1..=3);
    let leaves = base::Entry { kind: EntryKind::ConfChange, data: b"-1"[..].into(), ..entry(9, 3) };
    storage.append(&[leaves]);
    let node = RawNode::new(config(7), Box::new(storage.clone())).expect("starts");
    let mut fixture = Fixture { node, storage };
    fixture.elect();
    assert_eq!(fixture.node.status().conf, ConfState::of_voters([TWO, PeerId(3)]));
    assert_eq!(fixture.node.propose(data()), Err(not_leader(None)));
    assert_eq!(fixture.node.transfer_leader(ME), Err(TransferError::NotVoter { to: ME }));
    (0..20).for_each(|_| fixture.node.tick());
    assert_eq!(fixture.node.role(), Role::Follower);
}

#[test]
fn a_leader_that_hands_over_takes_no_proposals() {
    let mut fixture = Fixture::leader();
    let stranger = PeerId(9);
    assert_eq!(
        fixture.node.transfer_leader(stranger),
        Err(TransferError::NotVoter { to: stranger })
    );
    fixture.node.transfer_leader(PeerId(3)).expect("a voter");
    assert_eq!(fixture.node.propose(data()), Err(ProposeError::Transferring));
    assert_eq!(propose_change(&mut fixture.node, &decode(b"+4")), Err(ProposeError::Transferring));
    assert!(!fixture.node.quiesce());
    fixture.node.transfer_leader(ME).expect("gives it up");
    fixture.still_works("a hand-over that was given up");
}

#[test]
fn a_busy_leader_takes_no_more() {
    let mut fixture = Fixture::leader_with(Config { uncommitted_bytes_max: 100, ..config(7) });
    let large = Bytes::from(vec![7; 1_000]);
    fixture.node.propose(large.clone()).expect("one is always taken");
    assert_eq!(fixture.node.propose(data()), Err(ProposeError::Busy));
    assert_eq!(fixture.node.propose(large), Err(ProposeError::Busy));
    assert_eq!(propose_change(&mut fixture.node, &decode(b"+4")), Err(ProposeError::Busy));
    fixture.settle();
    fixture.acknowledge();
    fixture.still_works("too many bytes");
    for context in 0..1 << 16 {
        fixture.node.read_index(context).expect("there is room");
    }
    assert_eq!(fixture.node.read_index(0), Err(ReadIndexError::Busy));
    let too_many = message(2, fixture.node.term(), Body::ReadIndex { context: 1 });
    assert_eq!(fixture.node.step(too_many), Ok(()), "lost, as if on the way");
    fixture.still_works("too many reads");
}

#[test]
fn members_do_not_change_just_like_that() {
    use ConfChangeError::{Joint, LastVoter, Leader, NotJoint, Pending};
    let enter = |changes: &[MemberChange]| ConfChange::Enter {
        changes: changes.to_vec(),
        leave: Leave::OnRequest,
    };
    let all_leave: Vec<_> = (1..=3).map(|id| MemberChange::Remove(PeerId(id))).collect();
    let mut fixture = Fixture::leader();
    for (change, error) in [
        (decode(b"-1"), Leader),
        (ConfChange::One(MemberChange::AddLearner(ME)), Leader),
        (ConfChange::Leave, NotJoint),
        (enter(&all_leave), LastVoter),
    ] {
        let refused = propose_change(&mut fixture.node, &change);
        assert_eq!(refused, Err(ProposeError::ConfChange(error)), "{change:?}");
        fixture.still_works("a change that cannot be");
    }
    propose_change(&mut fixture.node, &decode(b"+4")).expect("sound");
    let second = propose_change(&mut fixture.node, &decode(b"+5"));
    assert_eq!(second, Err(ProposeError::ConfChange(Pending)));

    let mut fixture = Fixture::leader();
    let (node, next) = (&mut fixture.node, 10);
    let change = enter(&[MemberChange::AddVoter(PeerId(4))]);
    node.apply_conf_change(next, &change).expect("as if it was committed");
    let again = node.apply_conf_change(next, &change);
    assert_eq!((again, node.apply_conf_change(next, &decode(b"+5"))), (Err(Joint), Err(Joint)));
    let nested = propose_change(&mut fixture.node, &change);
    assert_eq!(nested, Err(ProposeError::ConfChange(Joint)));
}

/// An entry that was handed out before a snapshot came has no effect after it.
#[test]
fn a_change_behind_a_snapshot_is_superseded() {
    let mut fixture = Fixture::follower();
    let snapshot = Box::new(snapshot_at(20));
    fixture.say(2, 4, Body::Snapshot { snapshot, round: 5 });
    let late = fixture.node.apply_conf_change(20, &decode(b"+4"));
    assert_eq!(late, Err(ConfChangeError::Superseded));
    fixture.node.applied(8);
    assert_eq!(fixture.node.applied_index(), 20, "told late");
    assert_eq!(fixture.node.status().conf.voters.len(), 3);
    fixture.still_works("a late page");
}

#[test]
fn snapshots_that_nobody_needs_stay_here() {
    let mut fixture = Fixture::leader();
    let not_wanted = |to| Err(SnapshotError::NotWanted { to });
    for to in [TWO, PeerId(9), ME, PeerId::NONE] {
        assert_eq!(fixture.node.snapshot_made(to, snapshot_at(9)), not_wanted(to));
        fixture.node.snapshot_sent(to);
        fixture.node.snapshot_failed(to);
        fixture.node.report_unreachable(to);
    }
    for index in [0, 4, fixture.node.committed() + 9, u64::MAX] {
        fixture.node.step(message(2, 4, Body::SnapshotRequest { at_least: 9 })).expect("taken");
        assert_eq!(fixture.node.ready().snapshots_wanted.len(), 1);
        let useless = SnapshotError::Useless { index, first: 6 };
        assert_eq!(fixture.node.snapshot_made(TWO, snapshot_at(index)), Err(useless));
        assert_eq!(fixture.node.snapshot_made(TWO, snapshot_at(9)), not_wanted(TWO), "once");
        fixture.still_works("a useless snapshot");
    }
}

#[test]
fn not_everybody_may_ask_for_a_snapshot() {
    let mut leader = Fixture::leader();
    assert_eq!(leader.node.request_snapshot(), Err(SnapshotRequestError::Leader));
    leader.still_works("a leader's wish");
    let mut alone = Fixture::start(config(7), [1]);
    assert_eq!(alone.node.request_snapshot(), Err(SnapshotRequestError::SoleVoter));
}

/// Nor does one that asks for a snapshot while it campaigns win with a damaged state machine.
#[test]
fn a_candidate_that_asks_for_a_snapshot_steps_back() {
    for pre_vote in [false, true] {
        let mut fixture = Fixture::start(Config { pre_vote, ..config(7) }, 1..=3);
        assert!(fixture.node.campaign());
        fixture.settle();
        fixture.node.request_snapshot().expect("it does not lead");
        let yes = match pre_vote {
            true => Body::PreVoteResponse { granted: true },
            false => Body::VoteResponse { granted: true },
        };
        fixture.say(2, 4, yes);
        assert_eq!(fixture.node.role(), Role::Follower);
        assert!(!fixture.node.campaign());
    }
}

/// A configuration, or a disk, from which no node can start.
#[test]
fn what_makes_no_sense_does_not_start() {
    let plain = || config(7);
    let table = [
        (Config { id: PeerId::NONE, ..plain() }, "configuration: id must not be zero"),
        (
            Config { heartbeat_ticks: 0, ..plain() },
            "configuration: heartbeat_ticks must not be zero",
        ),
        (
            Config { election_ticks: 2, ..plain() },
            "configuration: election_ticks must be above heartbeat_ticks",
        ),
        (Config { inflight_max: 0, ..plain() }, "configuration: inflight_max must not be zero"),
        (
            Config { inflight_bytes_max: 0, ..plain() },
            "configuration: inflight_bytes_max must not be zero",
        ),
    ];
    for (config, expected) in table {
        assert_eq!(start_error(config, stored(1..=3)), expected);
    }
    let states = [
        (2, "storage contradicts itself: the hard state's term is behind the log's"),
        (u64::MAX, "storage contradicts itself: a term or an index that no group reaches"),
    ];
    for (term, expected) in states {
        let storage = stored(1..=3);
        storage.set_hard_state(HardState { term, vote: PeerId::NONE, commit: 7 });
        assert_eq!(start_error(plain(), storage), expected);
    }
}

fn start_error(config: Config, storage: MemoryStorage) -> String {
    let error: StartError =
        RawNode::new(config, Box::new(storage)).err().expect("it does not start");
    error.to_string()
}
