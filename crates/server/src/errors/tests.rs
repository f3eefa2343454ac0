use base::{KeyRange, Peer, PeerId, RegionId, StoreId, TimeStamp};
use bytes::Bytes;

use super::*;

fn region() -> Arc<Region> {
    let peer = Peer::voter(PeerId(7), StoreId(1));
    let range = KeyRange::new("b", "d");
    Arc::new(Region { range, ..Region::first(RegionId(2), peer) })
}

/// How many of the detail fields are set. (`message` and the details are all there is.)
fn details(error: &errorpb::Error) -> usize {
    [
        error.not_leader.is_some(),
        error.region_not_found.is_some(),
        error.key_not_in_region.is_some(),
        error.epoch_not_match.is_some(),
        error.server_is_busy.is_some(),
        error.stale_command.is_some(),
        error.store_not_match.is_some(),
        error.raft_entry_too_large.is_some(),
        error.disk_full.is_some(),
        error.mismatch_peer_id.is_some(),
        error.undetermined_result.is_some(),
        error.data_is_not_ready.is_some(),
        error.read_index_not_ready.is_some(),
        error.proposal_in_merging_mode.is_some(),
    ]
    .into_iter()
    .filter(|set| *set)
    .count()
}

#[test]
fn each_region_error_has_a_message_and_one_detail() {
    let peer = Peer::voter(PeerId(7), StoreId(1));
    let key = Bytes::from("x");
    let errors = [
        RegionError::StoreNotMatch { requested: StoreId(2), actual: StoreId(1) },
        RegionError::RegionNotFound(RegionId(2)),
        RegionError::MismatchPeerId {
            region: RegionId(2),
            requested: PeerId(8),
            actual: PeerId(7),
        },
        RegionError::NotLeader { region: RegionId(2), leader: Some(peer) },
        RegionError::StaleCommand(RegionId(2)),
        RegionError::EpochNotMatch { current: vec![region()] },
        RegionError::KeyNotInRegion { key, region: region() },
        RegionError::RaftEntryTooLarge { region: RegionId(2), size: 9 },
        RegionError::ServerIsBusy { reason: "full".to_owned() },
        RegionError::DataIsNotReady { region: RegionId(2), peer: PeerId(7), safe_ts: TimeStamp(5) },
        RegionError::ReadIndexNotReady { region: RegionId(2), reason: "why" },
        RegionError::ProposalInMergingMode(RegionId(2)),
        RegionError::DiskFull(StoreId(1)),
        RegionError::Undetermined,
    ];
    for error in errors {
        let wire = region_error(&error);
        assert!(!wire.message.is_empty(), "{error:?}");
        assert_eq!(details(&wire), 1, "{error:?}");
    }
    let deadline = deadline_exceeded();
    assert_eq!(details(&deadline), 1);
    assert!(deadline.message.contains("Deadline is exceeded"));
    let reason = deadline.server_is_busy.expect("counted").reason;
    assert!(reason.contains("deadline is exceeded"));
}

#[test]
fn details_carry_what_clients_act_on() {
    let leader = Peer::voter(PeerId(9), StoreId(3));
    let error = RegionError::NotLeader { region: RegionId(2), leader: Some(leader) };
    let detail = region_error(&error).not_leader.expect("set");
    assert_eq!(detail.region_id, 2);
    let leader = detail.leader.expect("known");
    assert_eq!((leader.id, leader.store_id), (9, 3));

    let error = RegionError::ServerIsBusy { reason: "full".to_owned() };
    let detail = region_error(&error).server_is_busy.expect("set");
    assert_eq!(detail.reason, "full");
    assert!((1..=1_000).contains(&detail.backoff_ms), "a proposal how long to wait");

    let error = RegionError::EpochNotMatch { current: vec![region()] };
    let detail = region_error(&error).epoch_not_match.expect("set");
    assert_eq!(detail.current_regions.len(), 1);
    let current = &detail.current_regions[0];
    assert_eq!(
        (current.id, &current.start_key[..], &current.end_key[..]),
        (2, &b"b"[..], &b"d"[..])
    );
    assert!(current.region_epoch.is_some() && current.peers.len() == 1);

    let error = RawError::KeyNotInRegion { key: "x".into() };
    let Refusal::Region(error) = raw_refusal(error, &region()) else {
        panic!("not a region error")
    };
    let detail = error.key_not_in_region.expect("set");
    assert_eq!((detail.region_id, detail.key, detail.start_key), (2, "x".into(), "b".into()));
}

#[test]
fn a_wrong_cluster_fails_the_call() {
    let Refusal::Call(status) = cluster_mismatch(1, 2) else { panic!("not a status") };
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
}
