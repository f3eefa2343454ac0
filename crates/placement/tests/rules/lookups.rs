//! Looking up regions: one, the one before, many, ranges.

use bytes::Bytes;
use proto::pdpb;
use proto::pdpb::ErrorType;

use crate::host::{Host, header, kind, peer, region};

/// Regions 10 [, c), 20 [c, f), a gap, 30 [h, m), 40 [m, ). Region 40 has no leader.
fn host() -> Host {
    let mut host = Host::bootstrapped();
    for part in [region(10, "", "c", 2), region(20, "c", "f", 2), region(30, "h", "m", 2)] {
        host.heartbeat(part).unwrap();
    }
    host.heartbeat(region(40, "m", "", 2)).unwrap();
    host
}

fn scan(host: &Host, start: &'static str, end: &'static str, limit: i32) -> Vec<u64> {
    let request = pdpb::ScanRegionsRequest {
        header: header(),
        start_key: start.into(),
        limit,
        end_key: end.into(),
    };
    let response = host.placement.scan_regions(&request).unwrap();
    assert_eq!(response.regions.len(), response.region_metas.len());
    assert_eq!(response.regions.len(), response.leaders.len());
    response.regions.iter().map(|region| region.region.as_ref().unwrap().id).collect()
}

fn batch(
    host: &Host,
    ranges: &[(&'static str, &'static str)],
    limit: i32,
    contain_all_key_range: bool,
) -> Result<Vec<u64>, ErrorType> {
    let request = pdpb::BatchScanRegionsRequest {
        header: header(),
        ranges: ranges
            .iter()
            .map(|(start, end)| pdpb::KeyRange {
                start_key: Bytes::from_static(start.as_bytes()),
                end_key: Bytes::from_static(end.as_bytes()),
            })
            .collect(),
        limit,
        contain_all_key_range,
        ..Default::default()
    };
    let response = host.placement.batch_scan_regions(&request).map_err(|error| kind(&error))?;
    Ok(response.regions.iter().map(|region| region.region.as_ref().unwrap().id).collect())
}

#[test]
fn a_region_holds_its_start_and_not_its_end() {
    let host = host();
    for (key, id) in [("", 10), ("b", 10), ("c", 20), ("ez", 20), ("h", 30), ("m", 40), ("z", 40)] {
        let response = host.get_region(key);
        assert_eq!(response.region.unwrap().id, id, "{key}");
        assert_eq!(response.leader, Some(peer(id + 1, 1)));
        assert!(response.header.unwrap().error.is_none());
    }
    for key in ["f", "g"] {
        let response = host.get_region(key);
        assert!(response.region.is_none() && response.leader.is_none());
        assert!(response.header.unwrap().error.is_none(), "no region is no error");
    }
}

#[test]
fn the_region_before_ends_where_this_one_begins() {
    let host = host();
    for (key, before) in
        [("d", Some(10)), ("c", Some(10)), ("a", None), ("i", None), ("z", Some(30))]
    {
        let request =
            pdpb::GetRegionRequest { header: header(), region_key: key.into(), need_buckets: true };
        let response = host.placement.get_prev_region(&request).unwrap();
        assert_eq!(response.region.map(|region| region.id), before, "{key}");
    }
}

#[test]
fn regions_are_found_by_id() {
    let host = host();
    let by_id = |region_id| {
        let request =
            pdpb::GetRegionByIdRequest { header: header(), region_id, need_buckets: false };
        host.placement.get_region_by_id(&request).unwrap().region
    };
    assert_eq!(by_id(20), Some(region(20, "c", "f", 2)));
    assert_eq!(by_id(2), None, "its children have replaced it");
}

#[test]
fn many_are_asked_for_at_once() {
    let host = host();
    let request = pdpb::QueryRegionRequest {
        header: header(),
        keys: vec!["d".into(), "g".into(), "z".into()],
        prev_keys: vec!["d".into(), "h".into()],
        ids: vec![30, 99],
        ..Default::default()
    };
    let response = host.placement.query_region(&request).unwrap();
    assert_eq!(response.key_id_map, [20, 0, 40]);
    assert_eq!(response.prev_key_id_map, [10, 0]);
    let mut ids: Vec<_> = response.regions_by_id.keys().copied().collect();
    ids.sort_unstable();
    assert_eq!(ids, [10, 20, 30, 40]);
    assert_eq!(response.regions_by_id[&20].region, Some(region(20, "c", "f", 2)));
}

#[test]
fn a_scan_takes_what_shares_a_key_with_the_range() {
    let host = host();
    assert_eq!(scan(&host, "", "", 0), [10, 20, 30, 40]);
    assert_eq!(scan(&host, "", "", -1), [10, 20, 30, 40]);
    assert_eq!(scan(&host, "", "", 2), [10, 20]);
    assert_eq!(scan(&host, "d", "", 0), [20, 30, 40]);
    assert_eq!(scan(&host, "f", "", 1), [30]);
    assert_eq!(scan(&host, "d", "h", 0), [20]);
    assert_eq!(scan(&host, "d", "ha", 0), [20, 30]);
    assert_eq!(scan(&host, "", "c", 0), [10]);
    assert_eq!(scan(&host, "d", "d", 0), [0; 0]);
    assert_eq!(scan(&host, "d", "a", 0), [0; 0]);
}

#[test]
fn a_scanned_region_without_a_leader_has_an_empty_one() {
    let mut host = Host::bootstrapped();
    host.restart();
    let request = pdpb::ScanRegionsRequest { header: header(), ..Default::default() };
    let response = host.placement.scan_regions(&request).unwrap();
    assert_eq!(response.leaders, [peer(0, 0)]);
    assert_eq!(response.regions[0].leader, Some(peer(0, 0)));
}

#[test]
fn a_batch_scan_gives_each_region_once() {
    let host = host();
    assert_eq!(batch(&host, &[("", "")], 0, false), Ok(vec![10, 20, 30, 40]));
    assert_eq!(
        batch(&host, &[("a", "b"), ("b", "d"), ("e", "e"), ("e", "i")], 0, false),
        Ok(vec![10, 20, 30])
    );
    assert_eq!(batch(&host, &[("a", "b"), ("n", "")], 0, true), Ok(vec![10, 40]));
    assert_eq!(batch(&host, &[("a", "d"), ("i", "")], 3, true), Ok(vec![10, 20, 30]));
    assert_eq!(batch(&host, &[("a", "b"), ("b", "c"), ("d", "e")], 1, true), Ok(vec![10]));
    assert_eq!(batch(&host, &[], 0, true), Ok(vec![]));
}

#[test]
fn ranges_must_be_in_order() {
    let host = host();
    for ranges in [
        &[("b", "a")][..],
        &[("a", "c"), ("b", "d")],
        &[("c", "d"), ("a", "b")],
        &[("a", ""), ("b", "c")],
    ] {
        assert_eq!(batch(&host, ranges, 0, false), Err(ErrorType::Unknown), "{ranges:?}");
    }
}

#[test]
fn a_gap_is_an_error_for_those_who_need_all() {
    let host = host();
    let gap = Err(ErrorType::RegionsNotContainAllKeyRange);
    for range in [("", ""), ("e", "h"), ("f", "g"), ("g", "i"), ("a", "g")] {
        assert_eq!(batch(&host, &[range], 0, true), gap, "{range:?}");
    }
    for range in [("a", "f"), ("h", ""), ("i", "j")] {
        assert!(batch(&host, &[range], 0, true).is_ok(), "{range:?}");
    }
    assert_eq!(batch(&host, &[("", "")], 2, true), Ok(vec![10, 20]), "full before the gap");
    assert_eq!(batch(&host, &[("a", "b"), ("f", "g")], 0, true), gap);
}
