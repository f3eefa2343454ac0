//! The region map: which heartbeats count.

use base::{RegionId, StoreId};
use pontoon_placement::{Flow, PlacementError, StoreLoad};
use proto::pdpb::ErrorType;
use proto::{metapb, pdpb};

use crate::host::{Host, heartbeat, kind, peer, region};

fn with_conf_ver(mut region: metapb::Region, conf_ver: u64) -> metapb::Region {
    region.region_epoch.as_mut().unwrap().conf_ver = conf_ver;
    region
}

/// The heartbeat is refused in the header, and the map stays what it was.
fn refused(host: &mut Host, request: &pdpb::RegionHeartbeatRequest) {
    let before: Vec<_> = host.placement.regions().iter().cloned().collect();
    let error = host.placement.region_heartbeat(request).unwrap_err();
    assert_eq!(kind(&error), ErrorType::Unknown, "{error}");
    assert!(host.placement.regions().iter().eq(before.iter()));
}

#[test]
fn what_is_older_than_the_known_is_stale() {
    let mut host = Host::bootstrapped();
    host.heartbeat(with_conf_ver(region(2, "", "", 5), 5)).unwrap();
    host.heartbeat(with_conf_ver(region(2, "", "", 5), 5)).unwrap(); // The same again is fine.
    refused(&mut host, &heartbeat(with_conf_ver(region(2, "", "", 4), 5)));
    refused(&mut host, &heartbeat(with_conf_ver(region(2, "", "", 5), 4)));
    refused(&mut host, &heartbeat(with_conf_ver(region(2, "", "", 6), 4)));
    refused(&mut host, &heartbeat(with_conf_ver(region(2, "", "", 4), 6)));
    host.heartbeat(with_conf_ver(region(2, "", "", 6), 5)).unwrap();
    host.heartbeat(with_conf_ver(region(2, "", "", 6), 6)).unwrap();
}

#[test]
fn a_leader_of_an_older_term_is_stale_unless_it_tells_no_term() {
    let mut host = Host::bootstrapped();
    let at_term = |term| pdpb::RegionHeartbeatRequest { term, ..heartbeat(region(2, "", "", 1)) };
    host.placement.region_heartbeat(&at_term(8)).unwrap();
    refused(&mut host, &at_term(7));
    host.placement.region_heartbeat(&at_term(0)).unwrap();
    host.placement.region_heartbeat(&at_term(9)).unwrap();
}

#[test]
fn either_half_of_a_split_may_report_first() {
    for left_first in [true, false] {
        let mut host = Host::bootstrapped();
        // The original id keeps the right part.
        let (left, right) = (region(8, "", "m", 2), region(2, "m", "", 2));
        let (first, second) = if left_first { (left, right) } else { (right, left) };
        let (first_id, held, other) =
            (first.id, first.start_key.clone(), if left_first { "m" } else { "" });
        host.heartbeat(first).unwrap();
        assert_eq!(
            host.get_region(std::str::from_utf8(&held).unwrap()).region.unwrap().id,
            first_id
        );
        let found = host.get_region(other);
        assert_eq!(found.header.unwrap().error, None);
        match left_first {
            // The parent is told as it was, without what its child has.
            true => {
                let rest = found.region.unwrap();
                assert_eq!((rest.id, rest.region_epoch.unwrap().version), (2, 1));
                assert_eq!((&rest.start_key[..], &rest.end_key[..]), (&b"m"[..], &b""[..]));
                assert_eq!(host.map(), [8, 2]);
            }
            // Nobody knows the child yet.
            false => assert!(found.region.is_none() && host.map() == [2]),
        }
        host.heartbeat(second).unwrap();
        assert_eq!(host.map(), [8, 2]);
        // The parent's leader of before the split comes late.
        refused(&mut host, &heartbeat(region(2, "", "", 1)));
    }
}

#[test]
fn an_older_region_that_overlaps_leaves_and_a_newer_one_refuses() {
    let mut host = Host::bootstrapped();
    for part in [region(2, "", "b", 3), region(10, "b", "f", 4), region(20, "f", "", 3)] {
        host.heartbeat(part).unwrap();
    }
    refused(&mut host, &heartbeat(region(30, "a", "c", 3)));
    host.heartbeat(region(30, "a", "c", 4)).unwrap(); // Equally new: the later report counts.
    // Of what is older, the rest stays.
    assert_eq!(host.map(), [2, 30, 20]);
    host.heartbeat(region(40, "", "", 9)).unwrap();
    assert_eq!(host.map(), [40]);
    assert!(host.placement.regions().get(RegionId(20)).is_none());
}

#[test]
fn splits_and_merges_go_on_for_rounds() {
    let mut host = Host::bootstrapped();
    let keys = ["", "b", "d", "f", "h", "j", "l", "n", ""];
    let mut version = 1;
    let mut ids = vec![2];
    for at in 1..8 {
        version += 1;
        ids.push(100 + at as u64);
        // The last region splits at keys[at]: it keeps the left part here.
        host.heartbeat(region(ids[at - 1], keys[at - 1], keys[at], version)).unwrap();
        host.heartbeat(region(ids[at], keys[at], "", version)).unwrap();
        assert_eq!(host.map(), ids);
    }
    for at in (0..7).rev() {
        version += 2;
        host.heartbeat(region(ids[at], keys[at], "", version)).unwrap();
        ids.truncate(at + 1);
        assert_eq!(host.map(), ids);
    }
}

#[test]
fn a_heartbeat_replaces_leader_peers_and_sizes() {
    let mut host = Host::bootstrapped();
    host.put_store(crate::host::store(4)).unwrap();
    let mut request = heartbeat(with_conf_ver(region(2, "", "", 1), 2));
    let meta = request.region.as_mut().unwrap();
    meta.peers.push(peer(5, 4));
    request.leader = Some(peer(5, 4));
    request.pending_peers = vec![peer(3, 1)];
    request.down_peers = vec![pdpb::PeerStats { peer: Some(peer(3, 1)), down_seconds: 60 }];
    (request.approximate_size, request.approximate_keys) = (4_096, 77);
    (request.bytes_written, request.keys_read) = (9, 3);
    host.placement.region_heartbeat(&request).unwrap();
    let known = host.placement.regions().get(RegionId(2)).unwrap().clone();
    assert_eq!(known.leader_store(), Some(StoreId(4)));
    assert_eq!((known.approximate_size, known.approximate_keys), (4_096, 77));
    assert_eq!(known.flow, Flow { written_bytes: 9, read_keys: 3, ..Flow::default() });
    let response = host.get_region("k");
    assert_eq!(response.leader, request.leader);
    assert_eq!(response.pending_peers, request.pending_peers);
    assert_eq!(response.down_peers, request.down_peers);

    // A leader that has not measured keeps the size; healthy peers leave the lists.
    let mut later = request.clone();
    (later.approximate_size, later.approximate_keys) = (0, 0);
    (later.pending_peers, later.down_peers) = (Vec::new(), Vec::new());
    host.placement.region_heartbeat(&later).unwrap();
    let known = host.placement.regions().get(RegionId(2)).unwrap();
    assert_eq!((known.approximate_size, known.approximate_keys), (4_096, 77));
    assert!(known.pending_peers.is_empty() && known.down_peers.is_empty());
}

#[test]
fn a_leader_on_an_unknown_store_fails_the_stream() {
    let mut host = Host::bootstrapped();
    let mut request = heartbeat(region(2, "", "", 2));
    for leader in [None, Some(peer(3, 9))] {
        request.leader = leader;
        let error = host.placement.region_heartbeat(&request).unwrap_err();
        assert!(matches!(error, PlacementError::Invalid { .. }), "{error:?}");
        assert_eq!(error.in_header(), None);
    }
}

#[test]
fn malformed_regions_are_refused_and_the_stream_goes_on() {
    let mut host = Host::bootstrapped();
    let mut without_epoch = region(2, "", "", 2);
    without_epoch.region_epoch = None;
    for bad in [region(0, "", "", 2), region(2, "b", "a", 2), without_epoch] {
        let mut request = heartbeat(bad);
        request.leader = Some(peer(3, 1));
        refused(&mut host, &request);
    }
    let mut foreign_leader = heartbeat(region(2, "", "", 2));
    foreign_leader.leader = Some(peer(99, 1));
    refused(&mut host, &foreign_leader);
    refused(
        &mut host,
        &pdpb::RegionHeartbeatRequest { region: None, ..heartbeat(region(2, "", "", 2)) },
    );
}

#[test]
fn loads_of_stores_are_sums_over_regions() {
    let mut host = Host::bootstrapped();
    host.put_store(crate::host::store(4)).unwrap();
    let keys = ["", "b", "d", "f", ""];
    for at in 0..4 {
        let mut request = heartbeat(region(10 * (at as u64 + 1), keys[at], keys[at + 1], 5));
        let meta = request.region.as_mut().unwrap();
        meta.peers.push(peer(meta.id + 2, 4));
        request.approximate_size = 100 << at;
        if at == 3 {
            request.leader = meta.peers.last().copied();
            request.pending_peers = vec![meta.peers[0]];
        }
        host.placement.region_heartbeat(&request).unwrap();
    }
    let loads = host.placement.regions().store_loads();
    let all = StoreLoad { regions: 4, region_size: 1_500, ..StoreLoad::default() };
    assert_eq!(loads[&StoreId(1)], StoreLoad { leaders: 3, leader_size: 700, pending: 1, ..all });
    assert_eq!(loads[&StoreId(4)], StoreLoad { leaders: 1, leader_size: 800, ..all });
}

#[test]
fn a_new_leader_knows_the_first_region_and_hears_of_the_rest() {
    let mut host = Host::bootstrapped();
    host.heartbeat(region(8, "", "m", 2)).unwrap();
    host.heartbeat(region(2, "m", "", 2)).unwrap();
    host.restart();
    assert_eq!(host.map(), [2]);
    assert!(host.get_region("a").leader.is_none());
    host.heartbeat(region(2, "m", "", 2)).unwrap();
    host.heartbeat(region(8, "", "m", 2)).unwrap();
    assert_eq!(host.map(), [8, 2]);
    assert_eq!(host.placement.regions().len(), 2);
    assert!(!host.placement.regions().is_empty());
}
