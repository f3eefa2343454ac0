//! Old versions go, deleted ranges give their space back, and the past is safe below locks.

use std::path::Path;
use std::time::Duration;

use pontoon_server::{Interval, Node};
use proto::{kvrpcpb, metapb, pdpb};
use txn::mvcc::Key;

use super::bench::{Client, config, mutation, post, prewrite};
use crate::patience::until;

/// A node that asks for the safe point often and writes files early, and a client of it.
async fn collecting(name: &str) -> (Node, Client) {
    let mut config = config(name, None);
    config.gc.poll_interval = Interval(Duration::from_millis(100));
    config.storage.write_buffer_mib = 1;
    let node = Node::open(config).await.unwrap();
    let client = Client::of(&node, &node, b"").await;
    (node, client)
}

impl Client {
    async fn move_safe_point(&mut self, safe_point: u64) {
        let header =
            Some(pdpb::RequestHeader { cluster_id: self.cluster_id, ..Default::default() });
        let request = pdpb::UpdateGcSafePointRequest { header, safe_point };
        let answer = self.pd.update_gc_safe_point(request).await.unwrap().into_inner();
        assert_eq!(answer.new_safe_point, safe_point);
    }

    /// Commit timestamps of the records of `key`, newest first, and how many long values it has.
    async fn versions(&mut self, key: &str) -> (Vec<u64>, usize) {
        let (context, key) = (self.context(), key.to_owned().into());
        let request = kvrpcpb::MvccGetByKeyRequest { context, key };
        let answer = self.kv.mvcc_get_by_key(request).await.unwrap().into_inner();
        let info = answer.info.unwrap_or_default();
        (info.writes.iter().map(|write| write.commit_ts).collect(), info.values.len())
    }

    async fn delete(&mut self, key: &str) -> u64 {
        let start = self.ts().await;
        let mut request = prewrite(start, &[(key, "")]);
        request.mutations = vec![mutation(kvrpcpb::Op::Del, key, "")];
        assert_eq!(self.prewrite(request).await, kvrpcpb::PrewriteResponse::default());
        let at = self.ts().await;
        let done = self.commit(&[key], start, at).await;
        assert_eq!((done.region_error, done.error), (None, None));
        at
    }

    /// Of the regions with keys between these two.
    async fn safe_ts(&mut self, start: &str, end: &str) -> u64 {
        let bound = |key: &str| Key::new(key.to_owned()).region();
        let (start_key, end_key) = (bound(start), bound(end));
        let key_range = Some(kvrpcpb::KeyRange { start_key, end_key });
        let request = kvrpcpb::StoreSafeTsRequest { key_range };
        self.kv.get_store_safe_ts(request).await.unwrap().into_inner().safe_ts
    }
}

fn is_too_late(error: Option<&kvrpcpb::KeyError>) -> bool {
    error.is_some_and(|error| error.abort.contains("GC life time is shorter"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_versions_go_and_late_requests_are_refused() {
    let (node, mut client) = collecting("gc").await;
    let long = "x".repeat(300);
    let first = client.put("k", &long).await;
    client.put("k", "2").await;
    let kept = client.put("k", "3").await;
    client.put("d", &long).await;
    client.delete("d").await;
    let safe_point = client.ts().await;
    let newest = client.put("k", "4").await;
    assert_eq!(client.versions("k").await.0.len(), 4);
    client.move_safe_point(safe_point).await;
    until("what nobody can read is gone", async || {
        client.versions("k").await == (vec![newest, kept], 0)
            && client.versions("d").await == (vec![], 0)
    })
    .await;
    assert_eq!(client.value("k", safe_point).await.as_deref(), Some("3"));
    assert_eq!(client.value("k", newest).await.as_deref(), Some("4"));
    let late = client.get("k", first).await;
    assert!(is_too_late(late.error.as_ref()), "{late:?}");
    let scan = kvrpcpb::ScanRequest {
        context: client.context(),
        limit: 10,
        version: safe_point - 1,
        ..Default::default()
    };
    let late = client.kv.kv_scan(scan).await.unwrap().into_inner();
    assert!(is_too_late(late.error.as_ref()) || is_too_late(late.pairs[0].error.as_ref()));
    let late = client.prewrite(prewrite(safe_point - 1, &[("k", "5")])).await;
    assert!(is_too_late(late.errors.first()), "{late:?}");
    node.stop().await;
}

/// Bytes of the engine's table files and logs.
fn disk_bytes(name: &str) -> u64 {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("txn-{name}")).join("engine");
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    // A file may be gone between the two looks.
    entries.map(|entry| entry.metadata().map_or(0, |metadata| metadata.len())).sum()
}

const ROWS: usize = 400;
const ROW_BYTES: usize = 64 << 10;

/// Loads 25 MiB that do not compress.
async fn load(client: &mut Client, name: &str) -> u64 {
    let mut prng = base::Prng::new(7);
    for batch in 0..ROWS / 20 {
        let mut request = prewrite(client.ts().await, &[("k", "")]);
        request.try_one_pc = true;
        request.mutations = (0..20)
            .map(|row| {
                let mut put = mutation(kvrpcpb::Op::Put, &format!("k{batch:04}-{row:04}"), "");
                let value: Vec<u8> =
                    (0..ROW_BYTES / 8).flat_map(|_| prng.next_u64().to_be_bytes()).collect();
                put.value = value.into();
                put
            })
            .collect();
        request.primary_lock = request.mutations[0].key.clone();
        let done = client.prewrite(request).await;
        assert!(done.one_pc_commit_ts > 0, "{:?} {:?}", done.region_error, done.errors);
    }
    until("most of it is in files", async || disk_bytes(name) > 20 << 20).await;
    disk_bytes(name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroyed_range_gives_its_space_back() {
    let (node, mut client) = collecting("destroy").await;
    client.put("a", "before").await;
    let before = load(&mut client, "destroy").await;
    client.put("z", "behind").await;
    let (start_key, end_key) = ("b".into(), "y".into());
    let context = client.context();
    let request = kvrpcpb::UnsafeDestroyRangeRequest { context, start_key, end_key };
    let done = client.kv.unsafe_destroy_range(request).await.unwrap().into_inner();
    assert_eq!(done, kvrpcpb::UnsafeDestroyRangeResponse::default());
    until("the space is free", async || disk_bytes("destroy") < 6 << 20).await;
    println!("UnsafeDestroyRange: {before} bytes before, {} after", disk_bytes("destroy"));
    for (key, value) in [("a", Some("before")), ("k0000-0000", None), ("z", Some("behind"))] {
        assert_eq!(client.value(key, u64::MAX).await.as_deref(), value, "{key}");
    }
    node.stop().await;
}

/// Its replicas may differ from then on, which the store must not forget.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroyed_range_is_not_compared_any_more() {
    let config = config("destroyed", None);
    let node = Node::open(config.clone()).await.unwrap();
    let mut client = Client::of(&node, &node, b"").await;
    let context = client.context();
    let (split_keys, end_key) = (vec!["m".into()], "c".into());
    let split = kvrpcpb::SplitRegionRequest { context, split_keys, ..Default::default() };
    let regions = client.kv.split_region(split).await.unwrap().into_inner().regions;
    let context = client.context();
    let request = kvrpcpb::UnsafeDestroyRangeRequest { context, start_key: "b".into(), end_key };
    client.kv.unsafe_destroy_range(request).await.unwrap();
    node.stop().await;
    let node = Node::open(config).await.unwrap();
    let compare = async |region: &metapb::Region| {
        let path = format!("/region/{}/check", region.id);
        post(&node, &path, "").await.0 == 200
    };
    until("the other region is compared", async || compare(&regions[1]).await).await;
    assert!(!compare(&regions[0]).await);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_deleted_through_the_log_gives_its_space_back() {
    let (node, mut client) = collecting("delete-range").await;
    client.put("a", "before").await;
    let before = load(&mut client, "delete-range").await;
    let (start_key, end_key) = ("b".into(), "y".into());
    let context = client.context();
    let mut request =
        kvrpcpb::DeleteRangeRequest { context, start_key, end_key, notify_only: true };
    let done = client.kv.kv_delete_range(request.clone()).await.unwrap().into_inner();
    assert_eq!(done, kvrpcpb::DeleteRangeResponse::default());
    assert!(!client.get("k0000-0000", u64::MAX).await.not_found, "only told");
    request.notify_only = false;
    let done = client.kv.kv_delete_range(request).await.unwrap().into_inner();
    assert_eq!(done, kvrpcpb::DeleteRangeResponse::default());
    until("the space is free", async || disk_bytes("delete-range") < 6 << 20).await;
    println!("DeleteRange: {before} bytes before, {} after", disk_bytes("delete-range"));
    assert_eq!(client.value("a", u64::MAX).await.as_deref(), Some("before"));
    assert_eq!(client.value("k0000-0000", u64::MAX).await, None);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_past_is_safe_below_the_oldest_lock() {
    let (node, mut client) = collecting("safe-ts").await;
    client.put("k", "1").await;
    // Two regions: the one without locks shows that time goes on.
    let split = kvrpcpb::SplitRegionRequest {
        context: client.context(),
        split_keys: vec!["m".into()],
        ..Default::default()
    };
    let cut = client.kv.split_region(split).await.unwrap().into_inner();
    assert_eq!((cut.region_error, cut.regions.len()), (None, 2));
    let mut client = Client::of(&node, &node, b"").await;
    let start = client.ts().await;
    let done = client.prewrite(prewrite(start, &[("k", "2")])).await;
    assert_eq!(done, kvrpcpb::PrewriteResponse::default());
    for _ in 0..2 {
        let later = client.ts().await;
        until("time goes on", async || client.safe_ts("n", "z").await > later).await;
        assert!(client.safe_ts("a", "l").await < later, "not beyond the lock");
    }
    let at = client.ts().await;
    let done = client.commit(&["k"], start, at).await;
    assert_eq!((done.region_error, done.error), (None, None));
    until("here too", async || client.safe_ts("a", "l").await > at).await;
    node.stop().await;
}
