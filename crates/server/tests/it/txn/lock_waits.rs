//! Many who wait for one lock.

use std::collections::BTreeMap;

use futures_util::{Stream, StreamExt, stream};
use proto::kvrpcpb;
use proto::tikvpb::BatchCommandsRequest;
use proto::tikvpb::batch_commands_request::Request;
use proto::tikvpb::batch_commands_request::request::Cmd as Command;
use proto::tikvpb::batch_commands_response::response::Cmd as Answer;

use super::bench::{Client, lock, one_node, waiting};
use crate::patience::PATIENCE;

const WAITERS: u64 = 10_000;

/// So many transactions, begun one after the other after `holder`, want its lock.
fn requests(
    client: &Client,
    holder: u64,
    waiters: u64,
    wait_ms: i64,
) -> impl Stream<Item = BatchCommandsRequest> + 'static {
    let ids: Vec<u64> = (1..=waiters).collect();
    let request = |id: &u64| {
        let start = holder + id;
        let request = kvrpcpb::PessimisticLockRequest {
            context: client.context(),
            wait_timeout: wait_ms,
            ..lock(start, start, &["k"])
        };
        Request { cmd: Some(Command::PessimisticLock(request)) }
    };
    let message = |ids: &[u64]| BatchCommandsRequest {
        requests: ids.iter().map(request).collect(),
        request_ids: ids.to_vec(),
        ..Default::default()
    };
    stream::iter(ids.chunks(100).map(message).collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_wait_and_each_is_answered() {
    let (node, mut client) = one_node("crowd").await;
    let holder = client.ts().await;
    assert_eq!(client.lock(lock(holder, holder, &["k"])).await.errors, []);
    // On a connection of its own: answers that nobody reads meanwhile do not stand in its way.
    let mut other = Client::of(&node, &node, b"").await;
    let line = requests(&client, holder, WAITERS, 0);
    let mut answers = client.kv.batch_commands(line).await.unwrap().into_inner();
    let mut told: BTreeMap<u64, kvrpcpb::KeyError> = BTreeMap::new();
    let mut unlocked = false;
    loop {
        let message = tokio::time::timeout(PATIENCE, answers.message()).await;
        let message = message.unwrap_or_else(|_| panic!("{} are answered", told.len()));
        let Some(message) = message.unwrap() else { break };
        for (id, response) in message.request_ids.iter().zip(message.responses) {
            let Some(Answer::PessimisticLock(answer)) = response.cmd else {
                panic!("{response:?}")
            };
            assert_eq!(answer.region_error, None);
            assert_eq!(told.insert(*id, answer.errors[0].clone()), None, "answered once");
        }
        if !unlocked {
            unlocked = true;
            other.unlock(&["k"], holder, holder).await;
        }
    }
    assert_eq!(told.len() as u64, WAITERS);
    // Some were told that the lock was released, one by one; the time of all others was up.
    let ended = |error: &kvrpcpb::KeyError| error.locked.is_some() || error.conflict.is_some();
    assert!(told.values().all(ended));
    waiting(&mut client, 0).await;
    node.stop().await;
}

/// What a hand-over costs this process, client and server, in a line so long. Prints figures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures: ./x bench waiters"]
async fn what_a_hand_over_costs() {
    const HAND_OVERS: u64 = 90;
    for waiters in [100, 1_000, 10_000] {
        let (node, mut client) = one_node("hand-over").await;
        let first = client.ts().await;
        assert_eq!(client.lock(lock(first, first, &["k"])).await.errors, []);
        let mut other = Client::of(&node, &node, b"").await;
        // They stay in line for longer than this takes. The stream has to stay open meanwhile.
        let line = requests(&client, first, waiters, 600_000);
        let line = line.chain(stream::pending());
        let mut answers = client.kv.batch_commands(line).await.unwrap().into_inner();
        waiting(&mut other, waiters as usize).await;
        let (before, mut holder) = (cpu_ms(), first);
        for _ in 0..HAND_OVERS {
            other.unlock(&["k"], holder, holder).await;
            let message = answers.message().await.unwrap().unwrap();
            assert_eq!(message.request_ids.len(), 1, "one is woken");
            holder = first + message.request_ids[0];
            assert_eq!(other.lock(lock(holder, holder, &["k"])).await.errors, []);
        }
        let each = (cpu_ms() - before) / HAND_OVERS as f64;
        println!("a hand-over among {waiters:>6} waiters: {each:.2} ms of processor time");
        drop(answers);
        node.stop().await;
    }
}

/// Processor time of this process, in milliseconds.
fn cpu_ms() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |thread: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    threads.filter_map(of).sum::<f64>() / 1e6
}
