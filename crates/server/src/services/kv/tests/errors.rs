//! Requests that are refused, and how.

use base::KeyRange;
use proto::errorpb;
use proto::pdpb::pd_client::PdClient;
use tonic::Code;

use super::*;

/// The region error of a get with this context.
async fn refusal(node: &Node, change: impl FnOnce(&mut Context)) -> errorpb::Error {
    let mut request = node.get("k");
    change(request.context.as_mut().expect("set"));
    let mut client = node.client().await;
    let got = client.raw_get(request.clone()).await.expect("answered").into_inner();
    let put =
        kvrpcpb::RawPutRequest { context: request.context, key: request.key, ..Default::default() };
    let put = client.raw_put(put).await.expect("answered").into_inner();
    assert_eq!(got.region_error, put.region_error, "reads and writes refuse alike");
    assert!(got.error.is_empty() && !got.not_found);
    got.region_error.expect("refused")
}

#[tokio::test]
async fn each_wrong_address_has_its_error() {
    let node = Node::start(ApiVersion::V1).await;
    let error = refusal(&node, |c| c.peer.as_mut().expect("set").store_id = 9).await;
    let detail = error.store_not_match.expect("set");
    assert_eq!((detail.request_store_id, detail.actual_store_id), (9, STORE.0));
    let error = refusal(&node, |c| c.peer = None).await;
    assert!(error.store_not_match.is_some());
    let error = refusal(&node, |c| c.region_id = 99).await;
    assert_eq!(error.region_not_found.expect("set").region_id, 99);
    let error = refusal(&node, |c| c.region_id = u64::MAX).await;
    assert!(error.region_not_found.is_some(), "the system region is not for clients");
    let error = refusal(&node, |c| c.peer.as_mut().expect("set").id = 9).await;
    let detail = error.mismatch_peer_id.expect("set");
    assert_eq!((detail.request_peer_id, detail.store_peer_id), (9, PEER.0));
    for version in [0, 2] {
        let epoch = Some(metapb::RegionEpoch { conf_ver: 1, version });
        let error = refusal(&node, |c| c.region_epoch = epoch).await;
        let regions = error.epoch_not_match.expect("set").current_regions;
        assert_eq!((regions.len(), regions[0].id), (1, REGION.0));
    }
    let error = refusal(&node, |c| c.region_epoch = None).await;
    assert!(error.epoch_not_match.is_some());
    // Only the version of the epoch counts.
    let mut request = node.get("k");
    let epoch = Some(metapb::RegionEpoch { conf_ver: 9, version: 1 });
    request.context.as_mut().expect("set").region_epoch = epoch;
    let got = node.client().await.raw_get(request).await.expect("answered").into_inner();
    assert_eq!(got.region_error, None);
}

#[tokio::test]
async fn keys_outside_the_region_are_sent_elsewhere() {
    for api in MODES {
        let inside = |key: &str| match api {
            ApiVersion::V2 => base::codec::encode_bytes(&[b"r\0\0\x01", key.as_bytes()].concat()),
            ApiVersion::V1 | ApiVersion::V1Ttl => key.as_bytes().to_vec(),
        };
        let range = KeyRange::new(inside("b"), inside("d"));
        let narrow = range.clone();
        let node = Node::start_with(api, |region| Region { range: narrow, ..region }).await;
        let mut client = node.client().await;
        let detail = |error: Option<errorpb::Error>| {
            let detail = error.expect("refused").key_not_in_region.expect("set");
            assert_eq!(
                (detail.start_key, detail.end_key),
                (range.start.clone(), range.end.clone())
            );
            detail.key
        };
        let put = client.raw_put(node.put("a", "v")).await.expect("answered").into_inner();
        assert_eq!(detail(put.region_error), inside("a"));
        let got = client.raw_get(node.get("d")).await.expect("answered").into_inner();
        assert_eq!(detail(got.region_error), inside("d"));
        let scanned = client.raw_scan(node.scan("a", "c", 9)).await.expect("answered").into_inner();
        assert_eq!(detail(scanned.region_error), inside("a"));
        let delete = kvrpcpb::RawDeleteRangeRequest {
            context: node.context(),
            start_key: node.key("b"),
            end_key: node.key("e"),
            ..Default::default()
        };
        let deleted = client.raw_delete_range(delete).await.expect("answered").into_inner();
        assert_eq!(detail(deleted.region_error), inside("e"));
        let put = client.raw_put(node.put("b", "v")).await.expect("answered").into_inner();
        assert_eq!(put.region_error, None);
        let scanned = client.raw_scan(node.scan("b", "z", 9)).await.expect("answered").into_inner();
        assert_eq!((scanned.region_error, scanned.kvs.len()), (None, 1));
    }
}

#[tokio::test]
async fn another_cluster_fails_the_call() {
    let node = Node::start(ApiVersion::V1).await;
    let mut client = node.client().await;
    let mut request = node.get("k");
    request.context.as_mut().expect("set").cluster_id = CLUSTER.0;
    client.raw_get(request.clone()).await.expect("our own");
    request.context.as_mut().expect("set").cluster_id = CLUSTER.0 + 1;
    let status = client.raw_get(request).await.expect_err("another's");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn requests_that_make_no_sense_get_a_text() {
    let node = Node::start(ApiVersion::V1).await;
    let mut client = node.client().await;
    let put =
        |put| async { node.client().await.raw_put(put).await.expect("answered").into_inner() };

    let long = Bytes::from(vec![b'k'; 8 * 1024 + 1]);
    let too_long = put(kvrpcpb::RawPutRequest { key: long, ..node.put("", "v") }).await;
    assert!(too_long.error.contains("8193"), "{}", too_long.error);
    let ttl = put(kvrpcpb::RawPutRequest { ttl: 1, ..node.put("k", "v") }).await;
    assert!(ttl.error.contains("ttl is not enabled"), "{}", ttl.error);
    let cf = put(kvrpcpb::RawPutRequest { cf: "raft".into(), ..node.put("k", "v") }).await;
    assert!(cf.error.contains("`raft`"), "{}", cf.error);
    let mut other = node.put("k", "v");
    other.context.as_mut().expect("set").api_version = 2;
    let other = put(other).await;
    assert!(other.error.contains("V2") && other.region_error.is_none(), "{}", other.error);
    let empty = put(node.put("", "v")).await;
    assert_eq!(empty, kvrpcpb::RawPutResponse::default(), "the empty key is a key");

    // Responses of pairs have no text of their own.
    let scan = kvrpcpb::RawScanRequest { cf: "raft".into(), ..node.scan("a", "b", 9) };
    let pairs = client.raw_scan(scan).await.expect("answered").into_inner().kvs;
    assert!(pairs[0].error.as_ref().expect("set").abort.contains("`raft`"));

    let sum =
        kvrpcpb::RawChecksumRequest { context: node.context(), algorithm: 7, ..Default::default() };
    let sum = client.raw_checksum(sum).await.expect("answered").into_inner();
    assert!(sum.error.contains("unknown checksum algorithm 7"));
    let request = kvrpcpb::RawCoprocessorRequest::default();
    let response = client.raw_coprocessor(request).await.expect("answered").into_inner();
    assert!(response.error.contains("disabled"));
}

#[tokio::test]
async fn a_value_over_the_entry_limit_is_refused_and_the_store_goes_on() {
    let node = Node::start(ApiVersion::V1).await;
    let mut client = node.client().await;
    let put = node.put("k", vec![0; (8 << 20) + 1]);
    let refused = client.raw_put(put).await.expect("answered").into_inner();
    let detail = refused.region_error.expect("refused").raft_entry_too_large.expect("set");
    assert_eq!(detail.region_id, REGION.0);
    assert!(detail.entry_size > 8 << 20);
    let put = node.put("k", vec![0; (8 << 20) - 1_000]);
    let taken = client.raw_put(put).await.expect("answered").into_inner();
    assert_eq!(taken, kvrpcpb::RawPutResponse::default());
}

#[tokio::test]
async fn a_stopped_store_says_that_it_does_not_know() {
    let mut node = Node::start(ApiVersion::V1).await;
    let mut client = node.client().await;
    node.threads.take().expect("running").stop();
    let put = client.raw_put(node.put("k", "v")).await.expect("answered").into_inner();
    let error = put.region_error.expect("refused");
    assert!(error.undetermined_result.is_some() || error.server_is_busy.is_some(), "{error:?}");
}

#[tokio::test]
async fn calls_and_services_that_are_not_served_say_so() {
    let node = Node::start(ApiVersion::V1).await;
    let mut client = node.client().await;
    let status = client.kv_gc(kvrpcpb::GcRequest::default()).await.expect_err("not served");
    assert_eq!(status.code(), Code::Unimplemented);
    // Nor is a whole service that nobody added.
    let mut placement = PdClient::new(node.channel().await);
    let request = proto::pdpb::GetMembersRequest::default();
    let status = placement.get_members(request).await.expect_err("not served");
    assert_eq!(status.code(), Code::Unimplemented);
}
