//! Requests that are refused, and how.

use proto::kvrpcpb::{self, Op};

use super::bench::{keys, mutation, one_node, prewrite};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_get_typed_errors() {
    let (node, mut client) = one_node("errors").await;
    let start = client.ts().await;
    let abort = |answer: kvrpcpb::PrewriteResponse| {
        assert_eq!(answer.region_error, None);
        assert_eq!(answer.errors.len(), 1, "{answer:?}");
        answer.errors[0].abort.clone()
    };
    for bad in [0, u64::MAX] {
        assert_ne!(abort(client.prewrite(prewrite(bad, &[("a", "1")])).await), "");
    }
    for op in [Op::Rollback, Op::PessimisticLock, Op::SharedLock] {
        let mut request = prewrite(start, &[("a", "1")]);
        request.mutations.push(mutation(op, "b", ""));
        assert!(abort(client.prewrite(request).await).contains("mutation kind"));
    }
    let mut request = prewrite(start, &[("a", "1")]);
    request.mutations[0].op = 99;
    assert!(abort(client.prewrite(request).await).contains("99"));
    let long = "k".repeat(9 << 10);
    assert_ne!(abort(client.prewrite(prewrite(start, &[(&long, "1")])).await), "");
    let mut request = prewrite(start, &[("a", "1")]);
    request.context = Some(kvrpcpb::Context { api_version: 2, ..client.context.clone() });
    let answer = client.kv.kv_prewrite(request).await.unwrap().into_inner();
    assert_ne!(abort(answer), "");
    let refused = client.commit(&["a"], start, start).await;
    assert_ne!(refused.error.unwrap().abort, "", "commit_ts <= start_ts");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_elsewhere_gets_a_region_error() {
    let (node, mut client) = one_node("regions").await;
    let now = client.ts().await;
    let good = client.context.clone();
    client.context.region_id += 100;
    let answer = client.get("a", now).await;
    assert!(answer.region_error.unwrap().region_not_found.is_some());
    client.context = good.clone();
    client.context.region_epoch.as_mut().unwrap().version += 1;
    let answer = client.prewrite(prewrite(now, &[("a", "1")])).await;
    assert!(answer.region_error.unwrap().epoch_not_match.is_some());
    client.context = good.clone();
    client.context.cluster_id = 1;
    let request = kvrpcpb::CommitRequest {
        context: client.context(),
        start_version: now,
        keys: keys(&["a"]),
        commit_version: now + 1,
        ..Default::default()
    };
    let status = client.kv.kv_commit(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    node.stop().await;
}
