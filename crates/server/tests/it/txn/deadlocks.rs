//! Deadlocks: found by the store that leads the region of the first key, whoever's locks they are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base::codec;
use pontoon_server::Node;
use proto::kvrpcpb;
use tokio::task::JoinSet;

use super::bench::{Client, config, lock, one_node, operator, regions, waiting};
use crate::patience::until;

/// Whoever's wait closes the cycle is told at once: in a few milliseconds on a machine that has
/// nothing else to do, which is why the figure is printed. This bound is for one that has.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

/// How a cycle ended.
struct Found {
    /// Whose wait closed it, in the order of the cycle. The last one, unless a wait of another was
    /// over just then and began anew.
    who: usize,
    told: kvrpcpb::PessimisticLockResponse,
    took: Duration,
}

/// Everybody locks a key, then wants the next one's. The last one closes the cycle.
async fn cycle(clients: &mut [(Client, &str)]) -> Found {
    let mut starts = Vec::new();
    for (client, key) in clients.iter_mut() {
        let start = client.ts().await;
        assert_eq!(client.lock(lock(start, start, &[key])).await.errors, []);
        starts.push(start);
    }
    let count = clients.len();
    let mut waits = JoinSet::new();
    let mut wait = |who: usize| {
        let (client, key) = &clients[(who + 1) % count];
        let (mut client, key, start) = (client.clone(), (*key).to_owned(), starts[who]);
        waits.spawn(async move {
            let timed_out = |told: &kvrpcpb::PessimisticLockResponse| {
                told.errors.first().is_some_and(|error| error.locked.is_some())
            };
            // When the time of a wait is up before the others wait, it begins anew.
            loop {
                let told = client.lock(lock(start, start, &[&key])).await;
                if !timed_out(&told) {
                    return (who, told);
                }
            }
        });
    };
    (0..count - 1).for_each(&mut wait);
    until("all wait", async || {
        let mut by_store = BTreeMap::new();
        for (client, _) in clients.iter() {
            by_store.insert(client.context.peer.unwrap().store_id, waits_of(client).await);
        }
        by_store.values().sum::<usize>() == count - 1
    })
    .await;
    let begun = Instant::now();
    wait(count - 1);
    let (who, told) = waits.join_next().await.unwrap().unwrap();
    Found { who, told, took: begun.elapsed() }
}

async fn waits_of(client: &Client) -> usize {
    let request = kvrpcpb::GetLockWaitInfoRequest { context: None };
    let info = client.kv.clone().get_lock_wait_info(request).await.unwrap().into_inner();
    info.entries.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_transactions_on_one_store() {
    let (node, mut client) = one_node("deadlock").await;
    let Found { who, told, .. } = cycle(&mut [(client.clone(), "a"), (client.clone(), "b")]).await;
    let found = told.errors[0].deadlock.as_ref().unwrap();
    let keys = [b"a", b"b"];
    assert_eq!(found.lock_key, keys[1 - who][..]);
    assert_eq!(found.deadlock_key, keys[who][..]);
    assert_eq!(found.wait_chain.len(), 1);
    waiting(&mut client, 0).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cycle_of_five_over_three_stores() {
    let first = Node::open(config("deadlock-1", None)).await.unwrap();
    let join = Some(first.address());
    let second = Node::open(config("deadlock-2", join)).await.unwrap();
    let third = Node::open(config("deadlock-3", join)).await.unwrap();
    let nodes = [first, second, third];
    let mut client = Client::of(&nodes[0], &nodes[0], b"").await;
    let three_voters = async || {
        let all = regions(&mut client.pd.clone(), client.cluster_id).await;
        all.iter().all(|region| region.region.as_ref().unwrap().peers.len() == 3)
    };
    until("three replicas", three_voters).await;
    let split = kvrpcpb::SplitRegionRequest {
        context: client.context(),
        split_keys: vec!["c".into(), "e".into()],
        ..Default::default()
    };
    let split = client.kv.split_region(split).await.unwrap().into_inner();
    assert_eq!(split.regions.len(), 3, "{split:?}");
    // One region led by each store.
    for (region, node) in split.regions.iter().zip(&nodes) {
        let to = node.store_id().0;
        until("led where it should be", async || {
            let all = regions(&mut client.pd.clone(), client.cluster_id).await;
            let led = all.iter().find(|r| r.region.as_ref().unwrap().id == region.id);
            if led.and_then(|led| led.leader).is_some_and(|leader| leader.store_id == to) {
                return true;
            }
            operator(
                &nodes[0],
                &format!(
                    r#"{{"name":"transfer-leader","region_id":{},"to_store_id":{to}}}"#,
                    region.id
                ),
            )
            .await;
            false
        })
        .await;
    }
    let mut clients = Vec::new();
    for (key, node) in [("a", 0), ("c", 1), ("e", 2), ("b", 0), ("d", 1)] {
        let region_key = codec::encode_bytes(key.as_bytes());
        clients.push((Client::of(&nodes[0], &nodes[node], &region_key).await, key));
    }
    let Found { told, took, .. } = cycle(&mut clients).await;
    let found = told.errors[0].deadlock.as_ref();
    let found = found.unwrap_or_else(|| panic!("a deadlock, not {told:?}"));
    assert_eq!(found.wait_chain.len(), 4);
    println!("a deadlock over three stores was found in {took:?}");
    assert!(took < FOUND_WITHIN, "{took:?}");
    for node in nodes {
        node.stop().await;
    }
}
