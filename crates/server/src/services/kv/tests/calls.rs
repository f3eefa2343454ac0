//! Single calls that succeed.

use proto::kvrpcpb::KvPair;
use tonic::codec::CompressionEncoding;

use super::*;

fn names(node: &Node, pairs: &[KvPair]) -> Vec<String> {
    let prefix = node.key("").len();
    let name = |pair: &KvPair| String::from_utf8(pair.key[prefix..].to_vec()).expect("text");
    pairs.iter().map(name).collect()
}

#[tokio::test]
async fn what_is_put_is_found_until_it_is_deleted() {
    for api in MODES {
        let node = Node::start(api).await;
        let mut client = node.client().await;
        let got = client.raw_get(node.get("k")).await.expect("answered").into_inner();
        assert!(got.not_found && got.error.is_empty() && got.region_error.is_none());
        for value in ["v", "", "w"] {
            let put = client.raw_put(node.put("k", value)).await.expect("answered").into_inner();
            assert_eq!(put, kvrpcpb::RawPutResponse::default());
            let got = client.raw_get(node.get("k")).await.expect("answered").into_inner();
            assert_eq!((got.not_found, &got.value[..]), (false, value.as_bytes()));
        }
        let (context, key) = (node.context(), node.key("k"));
        let delete = kvrpcpb::RawDeleteRequest { context, key, ..Default::default() };
        client.raw_delete(delete).await.expect("answered");
        let got = client.raw_get(node.get("k")).await.expect("answered").into_inner();
        assert!(got.not_found);
    }
}

#[tokio::test]
async fn batches_and_scans() {
    for api in MODES {
        let node = Node::start(api).await;
        let mut client = node.client().await;
        let pair = |name: &str| KvPair {
            key: node.key(name),
            value: Bytes::copy_from_slice(name.as_bytes()),
            ..Default::default()
        };
        let put = kvrpcpb::RawBatchPutRequest {
            context: node.context(),
            pairs: ["a", "b", "c", "d"].map(pair).to_vec(),
            ..Default::default()
        };
        let response = client.raw_batch_put(put).await.expect("answered").into_inner();
        assert_eq!(response, kvrpcpb::RawBatchPutResponse::default());

        let keys: Vec<Bytes> = ["d", "x", "a"].map(|name| node.key(name)).to_vec();
        let context = node.context();
        let get = kvrpcpb::RawBatchGetRequest { context, keys, ..Default::default() };
        let pairs = client.raw_batch_get(get).await.expect("answered").into_inner().pairs;
        assert_eq!(pairs, [pair("d"), pair("a")]);

        let scanned = client.raw_scan(node.scan("b", "z", 2)).await.expect("answered");
        assert_eq!(names(&node, &scanned.into_inner().kvs), ["b", "c"]);
        let reverse = kvrpcpb::RawScanRequest { reverse: true, ..node.scan("c", "a", 9) };
        let scanned = client.raw_scan(reverse).await.expect("answered");
        assert_eq!(names(&node, &scanned.into_inner().kvs), ["b", "a"]);

        let range = |start: &str, end: &str| kvrpcpb::KeyRange {
            start_key: node.key(start),
            end_key: node.key(end),
        };
        let scan = kvrpcpb::RawBatchScanRequest {
            context: node.context(),
            ranges: vec![range("c", "z"), range("a", "b")],
            each_limit: 9,
            key_only: true,
            ..Default::default()
        };
        let scanned = client.raw_batch_scan(scan).await.expect("answered").into_inner().kvs;
        assert_eq!(names(&node, &scanned), ["c", "d", "a"]);
        assert!(scanned.iter().all(|pair| pair.value.is_empty()));

        let sum = kvrpcpb::RawChecksumRequest {
            context: node.context(),
            ranges: vec![range("a", "z")],
            ..Default::default()
        };
        let sum = client.raw_checksum(sum).await.expect("answered").into_inner();
        assert_eq!((sum.total_kvs, sum.error.as_str()), (4, ""));

        let keys = ["a", "d"].map(|name| node.key(name)).to_vec();
        let context = node.context();
        let delete = kvrpcpb::RawBatchDeleteRequest { context, keys, ..Default::default() };
        client.raw_batch_delete(delete).await.expect("answered");
        let delete = kvrpcpb::RawDeleteRangeRequest {
            context: node.context(),
            start_key: node.key("a"),
            end_key: node.key("c"),
            ..Default::default()
        };
        client.raw_delete_range(delete).await.expect("answered");
        let scanned = client.raw_scan(node.scan("a", "z", 9)).await.expect("answered");
        assert_eq!(names(&node, &scanned.into_inner().kvs), ["c"]);
    }
}

#[tokio::test]
async fn many_keys_come_from_the_pool() {
    let node = Node::start(ApiVersion::V1).await;
    let mut client = node.client().await;
    let name = |i: usize| Bytes::from(format!("{i:05}"));
    let pairs = (0..1_000).map(|i| KvPair { key: name(i), value: name(i), ..Default::default() });
    let pairs = pairs.collect();
    let put = kvrpcpb::RawBatchPutRequest { context: node.context(), pairs, ..Default::default() };
    client.raw_batch_put(put).await.expect("answered");
    let keys = (0..2_000).step_by(2).map(name).collect();
    let get = kvrpcpb::RawBatchGetRequest { context: node.context(), keys, ..Default::default() };
    let pairs = client.raw_batch_get(get).await.expect("answered").into_inner().pairs;
    assert_eq!(pairs.len(), 500);
    assert!(pairs.iter().enumerate().all(|(i, pair)| pair.key == name(2 * i)));
}

#[tokio::test]
async fn values_live_as_long_as_they_were_told() {
    for api in [ApiVersion::V1Ttl, ApiVersion::V2] {
        let node = Node::start(api).await;
        let mut client = node.client().await;
        let put = kvrpcpb::RawPutRequest { ttl: 1_000, ..node.put("k", "v") };
        client.raw_put(put).await.expect("answered");
        client.raw_put(node.put("forever", "v")).await.expect("answered");
        let ttl = |name: &str| kvrpcpb::RawGetKeyTtlRequest {
            context: node.context(),
            key: node.key(name),
            ..Default::default()
        };
        let short = client.raw_get_key_ttl(ttl("k")).await.expect("answered").into_inner();
        assert!(!short.not_found && (990..=1_000).contains(&short.ttl), "{short:?}");
        let forever = client.raw_get_key_ttl(ttl("forever")).await.expect("answered").into_inner();
        assert_eq!((forever.not_found, forever.ttl), (false, 0));
        let none = client.raw_get_key_ttl(ttl("none")).await.expect("answered").into_inner();
        assert!(none.not_found);
    }
}

#[tokio::test]
async fn compare_and_swaps_of_many_clients_lose_nothing() {
    const CLIENTS: u32 = 8;
    const ROUNDS: u32 = 25;
    let node = Arc::new(Node::start(ApiVersion::V1).await);
    let count = |node: Arc<Node>| async move {
        let mut client = node.client().await;
        let mut known: Option<Bytes> = None;
        let mut done = 0;
        while done < ROUNDS {
            let number =
                known.as_ref().map_or(0, |b| u32::from_be_bytes(b[..].try_into().expect("4")));
            let request = kvrpcpb::RawCasRequest {
                context: node.context(),
                key: node.key("counter"),
                value: Bytes::copy_from_slice(&(number + 1).to_be_bytes()),
                previous_not_exist: known.is_none(),
                previous_value: known.clone().unwrap_or_default(),
                ..Default::default()
            };
            let response =
                client.raw_compare_and_swap(request).await.expect("answered").into_inner();
            assert_eq!((response.error.as_str(), response.region_error), ("", None));
            let previous = (!response.previous_not_exist).then_some(response.previous_value);
            assert_eq!(response.succeed, previous == known);
            done += u32::from(response.succeed);
            known = previous;
        }
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(count(node.clone()))).collect();
    for client in clients {
        client.await.expect("no assertion failed");
    }
    let mut client = node.client().await;
    let got = client.raw_get(node.get("counter")).await.expect("answered").into_inner();
    assert_eq!(got.value[..], (CLIENTS * ROUNDS).to_be_bytes());
}

#[tokio::test]
async fn writes_for_cas_take_their_turn() {
    let node = Node::start(ApiVersion::V1).await;
    let mut client = node.client().await;
    let held = node.store.latch([&b"k"[..]]).await;
    let put = kvrpcpb::RawPutRequest { for_cas: true, ..node.put("k", "late") };
    let mut late = client.clone();
    let late = tokio::spawn(async move { late.raw_put(put).await });
    // A plain write does not ask for the latch, and so does not wait.
    client.raw_put(node.put("k", "early")).await.expect("answered");
    assert!(!late.is_finished());
    drop(held);
    late.await.expect("no panic").expect("answered");
    let got = client.raw_get(node.get("k")).await.expect("answered").into_inner();
    assert_eq!(got.value, "late");
}

#[tokio::test]
async fn compressed_requests_are_read() {
    let node = Node::start(ApiVersion::V1).await;
    let mut client = node.client().await.send_compressed(CompressionEncoding::Gzip);
    client.raw_put(node.put("k", vec![b'v'; 10_000])).await.expect("answered");
    let got = client.raw_get(node.get("k")).await.expect("answered").into_inner();
    assert_eq!(got.value.len(), 10_000);
}

#[tokio::test]
async fn health_has_a_growing_number() {
    let node = Node::start(ApiVersion::V1).await;
    let mut client = node.client().await;
    for expected in 1..4 {
        let request = kvrpcpb::GetHealthFeedbackRequest::default();
        let response = client.get_health_feedback(request).await.expect("answered").into_inner();
        let feedback = response.health_feedback.expect("set");
        let got = (feedback.store_id, feedback.feedback_seq_no, feedback.slow_score);
        assert_eq!(got, (STORE.0, expected, 1));
    }
    let request = kvrpcpb::BroadcastTxnStatusRequest::default();
    client.broadcast_txn_status(request).await.expect("empty success");
}
