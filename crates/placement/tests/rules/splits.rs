//! Ids for splits, reports of splits, scattering.

use proto::pdpb;
use proto::pdpb::ErrorType;

use crate::host::{Host, bootstrap_request, header, heartbeat, kind, peer, region};

fn ask(
    host: &mut Host,
    region: proto::metapb::Region,
    split_count: u32,
) -> Result<Vec<pdpb::SplitId>, ErrorType> {
    let request = pdpb::AskBatchSplitRequest {
        header: header(),
        region: Some(region),
        split_count,
        ..Default::default()
    };
    let response = host.write(|placement| placement.ask_batch_split(&request));
    response.map(|response| response.ids).map_err(|error| kind(&error))
}

#[test]
fn each_new_region_gets_ids_for_itself_and_its_peers() {
    let mut host = Host::bootstrapped();
    host.put_store(crate::host::store(4)).unwrap();
    let mut request = heartbeat(region(2, "", "", 2));
    request.region.as_mut().unwrap().peers.push(peer(5, 4));
    host.placement.region_heartbeat(&request).unwrap();
    let before = host.alloc(1);
    let ids = ask(&mut host, request.region.unwrap(), 3).unwrap();
    let split = |region: u64| pdpb::SplitId {
        new_region_id: before + region,
        new_peer_ids: vec![before + region + 1, before + region + 2],
    };
    assert_eq!(ids, [split(1), split(4), split(7)]);
    host.restart();
    assert_eq!(host.alloc(1), before + 10);
}

#[test]
fn the_old_single_form_works_alike() {
    let mut host = Host::bootstrapped();
    let request = pdpb::AskSplitRequest { header: header(), region: Some(region(2, "", "", 1)) };
    let response = host.write(|placement| placement.ask_split(&request)).unwrap();
    assert_eq!(response.new_peer_ids, [response.new_region_id + 1]);
    assert_eq!(host.alloc(1), response.new_region_id + 2);
}

#[test]
fn only_what_is_known_and_current_can_be_split() {
    let mut host = Host::bootstrapped();
    host.heartbeat(region(2, "", "", 3)).unwrap();
    assert_eq!(ask(&mut host, region(2, "", "", 2), 1), Err(ErrorType::Unknown));
    assert_eq!(ask(&mut host, region(9, "", "", 3), 1), Err(ErrorType::Unknown));
    assert_eq!(ask(&mut host, region(2, "", "", 3), u32::MAX), Err(ErrorType::Unknown));
    assert_eq!(ask(&mut host, region(2, "", "", 3), 0), Ok(vec![]));
    let request = pdpb::AskBatchSplitRequest { header: header(), ..Default::default() };
    let error = host.placement.ask_batch_split(&request).unwrap_err();
    assert_eq!(kind(&error), ErrorType::RegionNotFound);
}

#[test]
fn stores_that_are_too_old_split_one_by_one() {
    let mut host = Host::new();
    let mut request = bootstrap_request(1, 2, 3);
    request.store.as_mut().unwrap().version = "2.0.9".to_owned();
    let wall_ms = host.wall_ms;
    host.write(|placement| placement.bootstrap(&request, wall_ms)).unwrap();
    let region = region(2, "", "", 1);
    assert_eq!(ask(&mut host, region.clone(), 1), Err(ErrorType::IncompatibleVersion));
    let request = pdpb::AskSplitRequest { header: header(), region: Some(region) };
    assert!(host.write(|placement| placement.ask_split(&request)).is_ok());
}

#[test]
fn reported_siblings_lie_side_by_side() {
    let host = Host::bootstrapped();
    let report = |regions| {
        let request = pdpb::ReportBatchSplitRequest { header: header(), regions };
        host.placement.report_batch_split(&request).map(drop).map_err(|error| kind(&error))
    };
    let (a, b, c) = (region(8, "", "d", 3), region(10, "d", "m", 3), region(2, "m", "", 3));
    assert_eq!(report(vec![a.clone(), b.clone(), c.clone()]), Ok(()));
    assert_eq!(report(vec![a.clone(), c.clone()]), Err(ErrorType::Unknown));
    assert_eq!(report(vec![c.clone(), a.clone()]), Err(ErrorType::Unknown));
    assert_eq!(report(vec![a.clone()]), Err(ErrorType::Unknown));
    let request =
        pdpb::ReportSplitRequest { header: header(), left: Some(a.clone()), right: Some(b) };
    assert!(host.placement.report_split(&request).is_ok());
    let request = pdpb::ReportSplitRequest { header: header(), left: Some(a), right: None };
    assert!(host.placement.report_split(&request).is_err());
    assert_eq!(host.map(), [2], "a report is no heartbeat");
}

#[test]
fn on_few_stores_scattering_is_done_at_once() {
    let mut host = Host::bootstrapped();
    let scatter = |host: &Host, regions_id: &[u64]| {
        let request = pdpb::ScatterRegionRequest {
            header: header(),
            regions_id: regions_id.to_vec(),
            ..Default::default()
        };
        host.placement.scatter_region(&request)
    };
    let response = scatter(&host, &[2]).unwrap();
    assert_eq!((response.finished_percentage, response.failed_regions_id), (100, vec![]));
    let response = scatter(&host, &[2, 9]).unwrap();
    assert_eq!((response.finished_percentage, response.failed_regions_id), (50, vec![9]));
    // The old form, with one id: none is given, so none is known.
    assert_eq!(kind(&scatter(&host, &[]).unwrap_err()), ErrorType::RegionNotFound);
    let request = pdpb::GetOperatorRequest { header: header(), region_id: 2 };
    let error = host.placement.get_operator(&request).unwrap_err();
    assert_eq!(kind(&error), ErrorType::RegionNotFound);

    for id in [4, 5] {
        host.put_store(crate::host::store(id)).unwrap();
    }
    assert!(scatter(&host, &[2]).is_ok(), "each has a copy of everything, or will have");
    host.put_store(crate::host::store(6)).unwrap();
    assert_eq!(kind(&scatter(&host, &[2]).unwrap_err()), ErrorType::Unknown);
}
