use base::{Epoch, PeerRole, Prng};
use prost::Message as _;

use super::*;

/// So many bodies differ on the wire.
const KINDS: u64 = 19;

/// One of each kind of body, by number; `None` after the last.
fn body(kind: u64, prng: &mut Prng) -> Option<Body> {
    Some(match kind {
        0 => Body::PreVote { last: pos(prng), priority: any(prng) as i64 },
        1 => Body::PreVoteResponse { granted: prng.one_in(2) },
        2 => {
            let released = prng.one_in(2).then(|| any(prng));
            Body::Vote { last: pos(prng), priority: any(prng) as i64, released }
        }
        3 => Body::VoteResponse { granted: prng.one_in(2) },
        4 => {
            let entries = (0..prng.below(5)).map(|_| entry(prng)).collect();
            Body::Append { prev: pos(prng), entries, commit: any(prng), round: any(prng) }
        }
        5 => {
            let outcome = AppendOutcome::Matched(any(prng));
            Body::AppendResponse { outcome, round: any(prng) }
        }
        6 => {
            let outcome = AppendOutcome::Conflict { prev: any(prng), hint: pos(prng) };
            Body::AppendResponse { outcome, round: any(prng) }
        }
        7 => Body::Heartbeat { commit: any(prng), round: any(prng) },
        8 => Body::HeartbeatResponse { round: any(prng) },
        9 => Body::ReadIndex { context: any(prng) },
        10 => Body::ReadIndexResponse { context: any(prng), index: any(prng) },
        11 => Body::TransferLeader { to: PeerId(any(prng)) },
        12 => Body::TimeoutNow { round: any(prng) },
        13 => {
            let snapshot = Snapshot { pos: pos(prng), conf: conf(prng), data: bytes(prng) };
            Body::Snapshot { snapshot: Box::new(snapshot), round: any(prng) }
        }
        14 => Body::SnapshotRequest { at_least: any(prng) },
        15 => Body::Propose { data: bytes(prng) },
        16 => Body::Quiesce { commit: any(prng) },
        17 => Body::TermOver,
        18 => Body::Committed { upto: pos(prng) },
        _ => return None,
    })
}

/// Small, large and special numbers alike.
fn any(prng: &mut Prng) -> u64 {
    match prng.below(4) {
        0 => prng.below(3),
        1 => u64::MAX - prng.below(2),
        _ => prng.next_u64() >> prng.below(64),
    }
}

fn pos(prng: &mut Prng) -> LogPos {
    LogPos { index: any(prng), term: any(prng) }
}

fn bytes(prng: &mut Prng) -> Bytes {
    (0..prng.below(20)).map(|_| prng.next_u64() as u8).collect()
}

fn entry(prng: &mut Prng) -> Entry {
    let kind = EntryKind::from_number(prng.below(3) as u8).expect("there are three");
    Entry { index: any(prng), term: any(prng), kind, data: bytes(prng) }
}

fn ids(prng: &mut Prng, least: u64) -> Vec<PeerId> {
    (0..least + prng.below(3)).map(|_| PeerId(any(prng))).collect()
}

fn conf(prng: &mut Prng) -> ConfState {
    let joint = prng.one_in(2).then(|| {
        let leave = if prng.one_in(2) { Leave::Automatic } else { Leave::OnRequest };
        Box::new(Joint { voters_outgoing: ids(prng, 1), learners_next: ids(prng, 0), leave })
    });
    ConfState { voters: ids(prng, 1), learners: ids(prng, 0), joint }
}

fn some_peer(prng: &mut Prng) -> Peer {
    let role =
        [PeerRole::Voter, PeerRole::Learner, PeerRole::IncomingVoter, PeerRole::DemotingVoter]
            [prng.below(4) as usize];
    Peer { id: PeerId(any(prng).max(1)), store_id: StoreId(any(prng).max(1)), role }
}

fn message(body: Body, prng: &mut Prng) -> RaftMessage {
    let (from, to) = (some_peer(prng), some_peer(prng));
    let range = match prng.below(3) {
        0 => None,
        1 => Some(KeyRange::all()),
        _ => Some(KeyRange { start: bytes(prng), end: bytes(prng) }),
    };
    RaftMessage {
        region_id: RegionId(any(prng).max(1)),
        from,
        to,
        epoch: Epoch { conf_ver: any(prng), version: any(prng) },
        message: Message { from: from.id, to: to.id, term: any(prng), body },
        range,
        tombstone: prng.one_in(4),
        merged_into: None,
    }
}

fn read(bytes: &[u8]) -> Option<Result<RaftMessage, WireError>> {
    let message = raft_serverpb::RaftMessage::decode(bytes).ok()?;
    Some(raft_message_from_proto(message))
}

#[test]
fn every_kind_comes_back_as_it_was() {
    let mut prng = Prng::new(1);
    for _ in 0..500 {
        let mut kind = 0;
        while let Some(body) = body(kind, &mut prng) {
            let sent = message(body, &mut prng);
            let bytes = raft_message_to_proto(sent.clone()).encode_to_vec();
            assert_eq!(read(&bytes), Some(Ok(sent)));
            kind += 1;
        }
        assert_eq!(kind, KINDS);
    }
}

fn bend_fields(wire: &mut raft_serverpb::RaftMessage, prng: &mut Prng) {
    let message = wire.message.get_or_insert_default();
    match prng.below(8) {
        0 => message.msg_type = prng.below(22) as i32 - 1,
        1 => message.context = bytes(prng),
        2 => message.snapshot = None,
        3 => message.entries.push(eraftpb::Entry { entry_type: 3, ..Default::default() }),
        4 => message.snapshot.get_or_insert_default().metadata = None,
        5 => wire.to_peer = None,
        6 => wire.region_epoch = None,
        _ => wire.message = None,
    }
}

fn bend_bytes(bytes: &mut Vec<u8>, prng: &mut Prng) {
    for _ in 0..=prng.below(3) {
        let at = prng.below(bytes.len() as u64) as usize;
        match prng.below(3) {
            0 => bytes[at] = prng.next_u64() as u8,
            1 => bytes.truncate(at.max(1)),
            _ => bytes.insert(at, prng.next_u64() as u8),
        }
    }
}

#[test]
fn damaged_bytes_are_refused_or_read_but_never_panic() {
    let mut prng = Prng::new(2);
    let mut outcomes = [0; 3];
    for round in 0..30_000 {
        let body = body(round % KINDS, &mut prng).expect("there are so many");
        let mut wire = raft_message_to_proto(message(body, &mut prng));
        if prng.one_in(2) {
            bend_fields(&mut wire, &mut prng);
        }
        let mut bytes = wire.encode_to_vec();
        if prng.one_in(2) {
            bend_bytes(&mut bytes, &mut prng);
        }
        let outcome = read(&bytes);
        outcomes[match outcome {
            None => 0,
            Some(Err(_)) => 1,
            Some(Ok(read)) => {
                // What is taken can be sent on, and is the same then.
                let again = raft_message_to_proto(read.clone());
                assert_eq!(raft_message_from_proto(again), Ok(read));
                2
            }
        }] += 1;
    }
    assert!(outcomes.iter().all(|&count| count > 1_000), "{outcomes:?}");
    for _ in 0..30_000 {
        let noise: Vec<u8> = (0..prng.below(40)).map(|_| prng.next_u64() as u8).collect();
        let _ = read(&noise);
    }
}

#[test]
fn nonsense_is_named() {
    let prng = &mut Prng::new(3);
    let mut good = message(Body::TermOver, prng);
    good.tombstone = false;
    let good = raft_message_to_proto(good);
    let error_of = |change: &dyn Fn(&mut raft_serverpb::RaftMessage)| {
        let mut bad = good.clone();
        change(&mut bad);
        raft_message_from_proto(bad).expect_err("it is nonsense")
    };
    let kind = |kind: i32| error_of(&|bad| bad.message.get_or_insert_default().msg_type = kind);
    use WireError::*;
    assert_eq!(error_of(&|bad| bad.region_id = 0), Missing("a region"));
    assert_eq!(error_of(&|bad| bad.from_peer = None), Missing("a sender"));
    assert_eq!(error_of(&|bad| bad.to_peer.get_or_insert_default().id = 0), Missing("a receiver"));
    assert_eq!(error_of(&|bad| bad.region_epoch = None), Missing("an epoch"));
    assert_eq!(error_of(&|bad| bad.message = None), Missing("a message"));
    let role = error_of(&|bad| bad.to_peer.get_or_insert_default().role = 9);
    assert_eq!(role, Unknown { what: "the role", number: 9 });
    let other = error_of(&|bad| bad.message.get_or_insert_default().to ^= 1);
    assert!(matches!(other, Contradiction(_)), "{other}");
    for unknown in [MessageType::MsgHup as i32, 19, -1] {
        assert_eq!(kind(unknown), Unknown { what: "the kind", number: unknown });
    }
    let snapshot = MessageType::MsgSnapshot as i32;
    assert_eq!(kind(snapshot), Missing("its snapshot"));
    assert_eq!(kind(MessageType::MsgPropose as i32), Missing("its proposal"));
    let heartbeat = MessageType::MsgHeartbeat as i32;
    assert_eq!(kind(heartbeat), Context { kind: heartbeat, length: 0 });
}

#[test]
fn members_that_cannot_be_are_refused() {
    let good = eraftpb::ConfState { voters: vec![1], ..Default::default() };
    assert_eq!(conf_state_from_proto(good.clone()), Ok(ConfState::of_voters([PeerId(1)])));
    let nobody = eraftpb::ConfState::default();
    let no_end = eraftpb::ConfState { auto_leave: true, ..good.clone() };
    let no_old = eraftpb::ConfState { learners_next: vec![1], ..good };
    for bad in [nobody, no_end, no_old] {
        assert!(conf_state_from_proto(bad.clone()).is_err(), "{bad:?}");
    }
}

#[test]
fn words_about_room_for_a_snapshot_come_back() {
    let (from, to) = (Peer::voter(PeerId(4), StoreId(1)), Peer::voter(PeerId(5), StoreId(2)));
    for asks in [true, false] {
        let credit = SnapshotCredit { region_id: RegionId(7), from, to, term: 9, asks };
        let wire = credit_to_proto(credit).encode_to_vec();
        let wire = raft_serverpb::RaftMessage::decode(&wire[..]).expect("it was just encoded");
        assert_eq!(credit_from_proto(&wire), Some(credit));
        assert_eq!((alive_from_proto(&wire), receiver_of(&wire)), (None, Some(StoreId(2))));
        let nobody = raft_serverpb::RaftMessage { to_peer: None, ..wire };
        assert_eq!(credit_from_proto(&nobody), None);
    }
}
