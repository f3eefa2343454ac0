//! Stores: who may join, what a store may change, heartbeats.

use std::time::Duration;

use base::StoreId;
use bytes::Bytes;
use pontoon_placement::{Liveness, PlacementError};
use prost::Message;
use proto::pdpb::ErrorType;
use proto::{metapb, pdpb};

use crate::host::{Host, header, kind, store};

fn label(key: &str, value: &str) -> metapb::StoreLabel {
    metapb::StoreLabel { key: key.to_owned(), value: value.to_owned() }
}

fn version_of_cluster(host: &mut Host) -> String {
    store_heartbeat(host, 1).unwrap().cluster_version
}

fn store_heartbeat(
    host: &mut Host,
    store_id: u64,
) -> Result<pdpb::StoreHeartbeatResponse, PlacementError> {
    let stats = pdpb::StoreStats { store_id, capacity: 100, available: 40, ..Default::default() };
    let request =
        pdpb::StoreHeartbeatRequest { header: header(), stats: Some(stats), ..Default::default() };
    host.placement.store_heartbeat(&request, host.now, host.wall_ms)
}

/// Nothing here removes stores yet, so the row is changed behind placement's back.
fn bury(host: &mut Host, id: u64) {
    let mut meta = host.store(id).unwrap();
    meta.set_state(metapb::StoreState::Tombstone);
    meta.set_node_state(metapb::NodeState::Removed);
    let key = [&b"store/"[..], &id.to_be_bytes()].concat();
    let old = host.rows.insert(key.into(), meta.encode_to_vec().into());
    assert!(old.is_some());
    host.restart();
}

#[test]
fn a_store_that_joins_serves() {
    let mut host = Host::bootstrapped();
    let mut joining = store(4);
    joining.set_node_state(metapb::NodeState::Preparing);
    joining.set_state(metapb::StoreState::Offline);
    host.put_store(joining).unwrap();
    host.restart();
    let joined = host.store(4).unwrap();
    assert_eq!(joined.state(), metapb::StoreState::Up);
    assert_eq!(joined.node_state(), metapb::NodeState::Serving);
    assert_eq!(joined.address, store(4).address);
}

#[test]
fn a_known_store_updates_all_but_its_state_and_merges_labels() {
    let mut host = Host::bootstrapped();
    let mut first = store(4);
    first.labels = vec![label("zone", "a"), label("disk", "ssd"), label("none", "")];
    host.put_store(first).unwrap();
    let mut second = store(4);
    second.address = "elsewhere:1".to_owned();
    second.status_address = "elsewhere:2".to_owned();
    second.version = "8.5.1".to_owned();
    second.set_state(metapb::StoreState::Offline);
    second.labels = vec![label("ZONE", "b"), label("disk", ""), label("host", "h")];
    host.put_store(second.clone()).unwrap();
    let known = host.store(4).unwrap();
    assert_eq!(known.address, second.address);
    assert_eq!(known.status_address, second.status_address);
    assert_eq!(known.version, second.version);
    assert_eq!(known.state(), metapb::StoreState::Up);
    assert_eq!(known.labels, [label("zone", "b"), label("host", "h")]);
}

#[test]
fn a_store_without_id_or_with_a_bad_version_is_refused() {
    let mut host = Host::bootstrapped();
    let error = host.put_store(store(0)).unwrap_err();
    assert_eq!(kind(&error), ErrorType::Unknown);
    for version in ["x", "8", "8.5", "vv8.5.0", "8.5.0.1"] {
        let error = host.put_store(metapb::Store { version: version.into(), ..store(4) });
        assert_eq!(kind(&error.unwrap_err()), ErrorType::Unknown, "{version}");
    }
    for version in ["8.5.0", "v8.5.0", "8.5.0-alpha", "v8.5.7-beta.1+x"] {
        host.put_store(metapb::Store { version: version.into(), ..store(4) }).unwrap();
    }
    let request = pdpb::PutStoreRequest { header: header(), store: None };
    let error = host.placement.put_store(&request).unwrap_err();
    assert!(matches!(error, PlacementError::Invalid { .. }));
}

#[test]
fn the_clusters_version_is_the_lowest_and_never_falls() {
    let mut host = Host::bootstrapped();
    let with = |id, version: &str| metapb::Store { version: version.to_owned(), ..store(id) };
    assert_eq!(version_of_cluster(&mut host), "8.5.0");
    host.put_store(with(4, "9.0.0")).unwrap();
    assert_eq!(version_of_cluster(&mut host), "8.5.0");
    host.put_store(with(1, "9.1.0")).unwrap();
    assert_eq!(version_of_cluster(&mut host), "9.0.0");
    // Below the cluster, but of the same line: let in, and the cluster's version stays.
    host.put_store(with(5, "9.0.0-rc.1")).unwrap();
    assert_eq!(version_of_cluster(&mut host), "9.0.0");
    let error = host.put_store(with(6, "8.5.9")).unwrap_err();
    assert_eq!(kind(&error), ErrorType::Unknown);
    assert!(error.to_string().contains("9.0.0"), "{error}");
    host.restart();
    assert_eq!(version_of_cluster(&mut host), "9.0.0");
}

#[test]
fn two_live_stores_cannot_share_an_address() {
    let mut host = Host::bootstrapped();
    let mut fourth = store(4);
    fourth.peer_address = "peer:4".to_owned();
    host.put_store(fourth.clone()).unwrap();
    let same_address = metapb::Store { address: fourth.address.clone(), ..store(5) };
    let same_peer = metapb::Store { peer_address: "peer:4".to_owned(), ..store(5) };
    for other in [same_address.clone(), same_peer] {
        let error = host.put_store(other).unwrap_err();
        assert_eq!(kind(&error), ErrorType::Unknown);
        assert!(error.to_string().contains("duplicated store address"), "{error}");
    }
    host.put_store(fourth).unwrap(); // Its own address is no conflict.
    bury(&mut host, 4);
    host.put_store(same_address).unwrap();
}

#[test]
fn a_tombstone_is_shown_but_cannot_come_back() {
    let mut host = Host::bootstrapped();
    host.put_store(store(4)).unwrap();
    bury(&mut host, 4);
    assert_eq!(host.store(4).unwrap().state(), metapb::StoreState::Tombstone);
    assert_eq!(kind(&host.put_store(store(4)).unwrap_err()), ErrorType::StoreTombstone);
    let error = store_heartbeat(&mut host, 4).unwrap_err();
    assert_eq!(kind(&error), ErrorType::StoreTombstone);
    let all = |exclude_tombstone_stores| {
        let request = pdpb::GetAllStoresRequest { header: header(), exclude_tombstone_stores };
        let response = host.placement.get_all_stores(&request).unwrap();
        response.stores.iter().map(|store| store.id).collect::<Vec<_>>()
    };
    assert_eq!(all(false), [1, 4]);
    assert_eq!(all(true), [1]);
}

#[test]
fn an_unknown_store_is_named_in_words_that_clients_look_for() {
    let mut host = Host::bootstrapped();
    for error in [host.store(9).unwrap_err(), store_heartbeat(&mut host, 9).unwrap_err()] {
        assert_eq!(kind(&error), ErrorType::Unknown);
        assert_eq!(error.to_string(), "invalid store ID 9, not found");
    }
}

#[test]
fn a_heartbeat_is_remembered_and_answered() {
    let mut host = Host::bootstrapped();
    host.pass(Duration::from_millis(1_500));
    let response = store_heartbeat(&mut host, 1).unwrap();
    assert_eq!(response.state(), metapb::NodeState::Serving);
    assert!(response.replication_status.is_some());
    assert!(response.header.unwrap().error.is_none());
    let request = pdpb::GetStoreRequest { header: header(), store_id: 1 };
    let known = host.placement.get_store(&request).unwrap();
    assert_eq!(known.stats.unwrap().available, 40);
    assert_eq!(known.store.unwrap().last_heartbeat, host.wall_ms as i64 * 1_000_000);
    // Without statistics it is no heartbeat.
    let request = pdpb::StoreHeartbeatRequest { header: header(), ..Default::default() };
    let result = host.placement.store_heartbeat(&request, host.now, host.wall_ms);
    assert!(matches!(result, Err(PlacementError::Invalid { .. })));
}

#[test]
fn silence_is_judged_by_its_length() {
    let mut host = Host::bootstrapped();
    let liveness = |host: &Host| host.placement.store(StoreId(1)).unwrap().liveness(host.now);
    host.pass(Duration::from_secs(100));
    store_heartbeat(&mut host, 1).unwrap();
    assert_eq!(liveness(&host), Liveness::Up);
    host.pass(Duration::from_millis(19_999));
    assert_eq!(liveness(&host), Liveness::Up);
    host.pass(Duration::from_millis(1));
    assert_eq!(liveness(&host), Liveness::Disconnected);
    host.pass(Duration::from_secs(30 * 60 - 20));
    assert_eq!(liveness(&host), Liveness::Down);
    // A new leader has heard of nobody; it counts from its own start.
    host.restart();
    assert_eq!(liveness(&host), Liveness::Up);
}

#[test]
fn min_resolved_timestamps_are_kept_by_store() {
    let mut host = Host::bootstrapped();
    let mut report = |store_id, min_resolved_ts| {
        let request =
            pdpb::ReportMinResolvedTsRequest { header: header(), store_id, min_resolved_ts };
        host.placement.report_min_resolved_ts(&request)
    };
    report(1, 50).unwrap();
    report(1, 40).unwrap();
    assert_eq!(kind(&report(9, 40).unwrap_err()), ErrorType::Unknown);
    assert_eq!(host.placement.store(StoreId(1)).unwrap().min_resolved_ts, 50);
}

#[test]
fn the_cluster_config_can_be_put_for_this_cluster_only() {
    let mut host = Host::bootstrapped();
    let put = |id| pdpb::PutClusterConfigRequest {
        header: header(),
        cluster: Some(metapb::Cluster { id, max_peer_count: 5 }),
    };
    let error = host.write(|placement| placement.put_cluster_config(&put(1))).unwrap_err();
    assert_eq!(kind(&error), ErrorType::Unknown);
    let ours = put(host.placement.cluster_id().0);
    host.write(|placement| placement.put_cluster_config(&ours)).unwrap();
    host.restart();
    let request = pdpb::GetClusterConfigRequest { header: header() };
    let config = host.placement.get_cluster_config(&request).unwrap().cluster.unwrap();
    assert_eq!(config.max_peer_count, 5);
    assert_eq!(host.rows[&Bytes::from_static(b"cluster")], config.encode_to_vec());
}

#[test]
fn all_stores_are_of_one_api_version() {
    let mut host = Host::bootstrapped();
    let of =
        |id, version| metapb::Store { labels: vec![label("api-version", version)], ..store(id) };
    host.put_store(of(4, "2")).unwrap();
    let error = host.put_store(of(5, "1")).unwrap_err();
    let text = "a store of API version 1 cannot join: store 4 is of API version 2";
    assert_eq!((kind(&error), error.to_string()), (ErrorType::Unknown, text.to_owned()));
    host.put_store(of(5, "2")).unwrap();
    bury(&mut host, 4);
    bury(&mut host, 5);
    host.put_store(of(6, "1")).unwrap();
    assert_eq!(pontoon_placement::api_version(&host.store(6).unwrap()), Some("1"));
}
