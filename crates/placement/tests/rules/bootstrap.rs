//! How a cluster begins; ids; what every call checks first.

use base::{ClusterId, Instant, Prng};
use bytes::Bytes;
use pontoon_placement::{Placement, PlacementError, header};
use proto::pdpb;
use proto::pdpb::ErrorType;

use crate::host::{
    CLUSTER, Host, bootstrap_request, header as our_header, heartbeat, kind, region,
};

fn is_bootstrapped(host: &Host) -> bool {
    let request = pdpb::IsBootstrappedRequest { header: our_header() };
    host.placement.get_is_bootstrapped(&request).unwrap().bootstrapped
}

#[test]
fn one_of_many_stores_bootstraps_and_the_others_find_its_region() {
    for seed in 0..50 {
        let mut prng = Prng::new(seed);
        let mut host = Host::new();
        assert!(!is_bootstrapped(&host));
        // Each store asked for its ids before any of them bootstrapped.
        let mut stores: Vec<_> = (0..5).map(|_| host.alloc(3)).collect();
        let mut winner = None;
        while !stores.is_empty() {
            let last = stores.remove(prng.below(stores.len() as u64) as usize);
            let request = bootstrap_request(last - 2, last - 1, last);
            let wall_ms = host.wall_ms;
            match host.write(|placement| placement.bootstrap(&request, wall_ms)) {
                Ok(_) => assert_eq!(winner.replace(last - 1), None),
                Err(error) => assert_eq!(kind(&error), ErrorType::AlreadyBootstrapped),
            }
            assert!(is_bootstrapped(&host));
            assert_eq!(host.get_region("").region.unwrap().id, winner.unwrap());
            if prng.one_in(3) {
                host.restart();
            }
        }
        assert_eq!(host.map(), [winner.unwrap()]);
        assert_eq!(host.placement.stores().count(), 1);
    }
}

#[test]
fn a_first_region_that_makes_no_sense_is_no_bootstrap() {
    let good = bootstrap_request(1, 2, 3);
    let change = |f: &dyn Fn(&mut pdpb::BootstrapRequest)| {
        let mut request = good.clone();
        f(&mut request);
        request
    };
    let bad = [
        change(&|r| r.store = None),
        change(&|r| r.region = None),
        change(&|r| r.store.as_mut().unwrap().id = 0),
        change(&|r| r.region.as_mut().unwrap().id = 0),
        change(&|r| r.region.as_mut().unwrap().id = u64::MAX),
        change(&|r| r.region.as_mut().unwrap().peers[0].id = 0),
        change(&|r| r.region.as_mut().unwrap().peers[0].store_id = 9),
        change(&|r| r.region.as_mut().unwrap().peers.clear()),
        change(&|r| r.region.as_mut().unwrap().start_key = Bytes::from_static(b"a")),
        change(&|r| r.region.as_mut().unwrap().end_key = Bytes::from_static(b"a")),
        change(&|r| r.region.as_mut().unwrap().region_epoch = None),
    ];
    for request in bad {
        let mut host = Host::new();
        let wall_ms = host.wall_ms;
        let result = host.write(|placement| placement.bootstrap(&request, wall_ms));
        assert!(matches!(result, Err(PlacementError::Invalid { .. })), "{request:?}: {result:?}");
        assert!(host.rows.is_empty() && !is_bootstrapped(&host));
    }
}

#[test]
fn bootstrap_remembers_when_and_what() {
    let mut host = Host::bootstrapped();
    let at_ms = host.wall_ms;
    host.wall_ms += 1;
    host.restart();
    assert_eq!(host.placement.bootstrapped_at_ms(), Some(at_ms));
    assert_eq!(host.placement.cluster_id(), CLUSTER);
    assert_eq!(host.get_region("x").region, Some(region(2, "", "", 1)));
    let request = pdpb::GetClusterConfigRequest { header: our_header() };
    let config = host.placement.get_cluster_config(&request).unwrap().cluster.unwrap();
    assert_eq!((config.id, config.max_peer_count), (CLUSTER.0, 3));
}

#[test]
fn ids_are_consecutive_in_a_batch_and_never_come_twice() {
    let mut host = Host::new();
    let mut prng = Prng::new(5);
    let mut last = 1; // The founder's store.
    for _ in 0..500 {
        let count = u32::try_from(prng.below(20)).unwrap();
        let request = pdpb::AllocIdRequest { header: our_header(), count };
        let response = host.write(|placement| placement.alloc_id(&request)).unwrap();
        last += u64::from(count.max(1));
        assert_eq!(response.id, last, "the last of the batch, right after the one before");
        assert_eq!(response.count, if count > 1 { count } else { 0 });
        if prng.one_in(10) {
            host.restart();
        }
    }
}

#[test]
fn ids_that_stores_bring_along_are_not_given_out_again() {
    let mut host = Host::new();
    let wall_ms = host.wall_ms;
    let request = bootstrap_request(1, 40, 41);
    host.write(|placement| placement.bootstrap(&request, wall_ms)).unwrap();
    assert_eq!(host.alloc(1), 42);
    host.put_store(crate::host::store(50)).unwrap();
    assert_eq!(host.alloc(1), 51);
    assert!(host.put_store(crate::host::store(u64::MAX)).is_err());
    assert_eq!(host.alloc(1), 52);
}

#[test]
fn a_plan_that_was_not_written_has_no_effect() {
    let mut host = Host::new();
    let request = pdpb::AllocIdRequest { header: our_header(), count: 5 };
    let lost = host.placement.alloc_id(&request).unwrap();
    let kept = host.write(|placement| placement.alloc_id(&request)).unwrap();
    assert_eq!(lost.reply, kept);
    assert_eq!(host.alloc(1), kept.id + 1);
}

#[test]
fn another_cluster_is_told_both_ids_first_of_all() {
    let host = Host::new();
    for (header, got) in [
        (None, 0),
        (Some(pdpb::RequestHeader::default()), 0),
        (Some(pdpb::RequestHeader { cluster_id: 8, ..Default::default() }), 8),
    ] {
        // Not bootstrapped either; the cluster is checked before.
        let request = pdpb::GetAllStoresRequest { header, ..Default::default() };
        let error = host.placement.get_all_stores(&request).unwrap_err();
        assert_eq!(error, PlacementError::ClusterMismatch { need: CLUSTER, got });
        assert_eq!(error.to_string(), format!("mismatch cluster id, need 7001 but got {got}"));
        assert_eq!(error.in_header(), None);
        assert_eq!(header::refusal(CLUSTER, &error), None);
    }
}

#[test]
fn before_bootstrap_calls_on_the_cluster_say_so() {
    let mut host = Host::new();
    let placement = &mut host.placement;
    let errors = [
        placement
            .get_region(&pdpb::GetRegionRequest { header: our_header(), ..Default::default() })
            .unwrap_err(),
        placement
            .scan_regions(&pdpb::ScanRegionsRequest { header: our_header(), ..Default::default() })
            .unwrap_err(),
        placement
            .get_store(&pdpb::GetStoreRequest { header: our_header(), store_id: 1 })
            .unwrap_err(),
        placement
            .put_store(&pdpb::PutStoreRequest { header: our_header(), store: None })
            .unwrap_err(),
        placement.region_heartbeat(&heartbeat(region(2, "", "", 1))).unwrap_err(),
        placement
            .get_gc_safe_point(&pdpb::GetGcSafePointRequest { header: our_header() })
            .unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error, PlacementError::NotBootstrapped);
        let refusal = header::refusal(CLUSTER, &error).unwrap();
        assert_eq!(refusal.cluster_id, CLUSTER.0);
        assert_eq!(refusal.error.unwrap().r#type(), ErrorType::NotBootstrapped);
    }
    // Ids, timestamps and keyspaces are there before.
    host.alloc(1);
    host.timestamps(1);
}

#[test]
fn rows_of_another_cluster_or_a_newer_version_or_damaged_are_refused() {
    let host = Host::bootstrapped();
    let load = |cluster, rows: Vec<(Bytes, Bytes)>| {
        Placement::load(cluster, rows, Instant::ZERO, host.wall_ms).unwrap_err().to_string()
    };
    let ours: Vec<_> = host.rows.clone().into_iter().collect();
    assert_eq!(load(ClusterId(9), ours.clone()), "placement row cluster: of cluster 7001, not 9");
    let row = |key: &'static [u8], value: &'static [u8]| {
        vec![(Bytes::from_static(key), Bytes::from_static(value))]
    };
    assert!(load(CLUSTER, row(b"new/\xff", b"")).contains(r"placement row new/\xff: unknown"));
    // Every row, cut short by a byte or with its first bytes changed, is refused or read: no panic.
    for (key, value) in ours {
        for cut in 0..value.len() {
            let rows = [(key.clone(), value.slice(..cut))];
            let _ = Placement::load(CLUSTER, rows, Instant::ZERO, host.wall_ms);
            let mut flipped = value.to_vec();
            flipped[cut] ^= 0xff;
            let rows = [(key.clone(), Bytes::from(flipped))];
            let _ = Placement::load(CLUSTER, rows, Instant::ZERO, host.wall_ms);
        }
    }
    for (key, value) in [
        (&b"id"[..], &b"123"[..]),
        (b"id", &[0; 8]),
        (b"tso", &[0xff; 8]),
        (b"tso", b""),
        (b"cluster/version", b"8"),
        (b"cluster", b"\xff"),
        (b"store/\0\0\0\0\0\0\0\x01", b"\x08\x02"),
        (b"region/\0\0\0\0\0\0\0\x01", b"\x08\x01"),
        (b"gc/state/\xff\xff\xff\xff", &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]),
        (b"config/x", b"\0\0\0\0\0\0\0\x01\x07"),
        (b"keyspace/\0\0\0\x01", b"\x12\x01a"),
    ] {
        let text = load(CLUSTER, row(key, value));
        assert!(text.starts_with("placement row "), "{text}");
    }
}
