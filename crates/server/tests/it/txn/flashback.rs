//! A region goes back to what it was, and is closed to others meanwhile.

use proto::kvrpcpb;

use super::bench::{Client, one_node, prewrite};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_goes_back() {
    let (node, mut client) = one_node("flashback").await;
    let old = client.put("a", "old").await;
    let version = client.ts().await;
    client.put("a", "new").await;
    client.put("b", "new").await;
    let start_ts = client.ts().await;
    let flashback = |client: &Client, commit_ts| kvrpcpb::FlashbackToVersionRequest {
        context: client.context(),
        version,
        start_key: "a".into(),
        end_key: "z".into(),
        start_ts,
        commit_ts,
    };
    let request = flashback(&client, start_ts + 1);
    let refused = client.kv.kv_flashback_to_version(request).await.unwrap().into_inner();
    assert!(refused.region_error.unwrap().flashback_not_prepared.is_some());
    let prepare = kvrpcpb::PrepareFlashbackToVersionRequest {
        context: client.context(),
        start_key: "a".into(),
        end_key: "z".into(),
        start_ts,
        version,
    };
    let done = client.kv.kv_prepare_flashback_to_version(prepare).await.unwrap().into_inner();
    assert_eq!(done, kvrpcpb::PrepareFlashbackToVersionResponse::default());
    let now = client.ts().await;
    let refused = client.prewrite(prewrite(now, &[("c", "1")])).await;
    assert!(refused.region_error.unwrap().flashback_in_progress.is_some());
    assert!(client.get("a", now).await.region_error.unwrap().flashback_in_progress.is_some());
    assert_eq!(client.value("a", old).await.as_deref(), Some("old"), "the past can be read");
    let commit_ts = client.ts().await;
    let request = flashback(&client, commit_ts);
    let done = client.kv.kv_flashback_to_version(request).await.unwrap().into_inner();
    assert_eq!(done, kvrpcpb::FlashbackToVersionResponse::default());
    let now = client.ts().await;
    assert_eq!(client.value("a", now).await.as_deref(), Some("old"));
    assert_eq!(client.value("b", now).await, None);
    client.put("a", "newer").await;
    node.stop().await;
}
