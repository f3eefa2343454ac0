use base::Entry;
use bytes::Bytes;
use futures_util::stream;
use raft::LogPos;
use store::raft_message_to_proto;
use tonic::Code;

use super::*;

/// Sends heartbeats from store 1 to store 2, larger rounds each time, until one arrives; returns
/// the next round.
async fn send_until_it_arrives(from: &Site, to: &Site, mut round: u64) -> u64 {
    let had = to.inbox.seen.borrow().messages.len();
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while to.inbox.seen.borrow().messages.len() == had {
        assert!(tokio::time::Instant::now() < deadline, "never: a message arrives");
        from.send([heartbeat(round)]);
        round += 1;
        let mut seen = to.inbox.seen.subscribe();
        let arrival = seen.wait_for(|seen| seen.messages.len() > had);
        let _ = tokio::time::timeout(Duration::from_millis(20), arrival).await.map(|_| ());
    }
    round
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_three_stores_arrive_in_order() {
    const COUNT: u64 = 3_000;
    let addresses = Addresses::default();
    let sites: Vec<_> = (1..=3).map(|id| Site::new(id, &addresses)).collect();
    let mut servers = Vec::new();
    for site in &sites {
        let server = site.serve().await;
        addresses.set(site.id, server.address);
        servers.push(server);
    }
    for round in 0..COUNT {
        for site in &sites {
            let others = (1..=3).filter(|&id| id != site.id);
            site.send(others.map(|to| heartbeat_to(site.id, to, round)));
        }
    }
    for site in &sites {
        site.inbox.wait_rounds(2 * COUNT as usize).await;
    }
    for site in &sites {
        let seen = site.inbox.seen.borrow();
        for from in (1..=3).filter(|&id| id != site.id) {
            let theirs = seen.messages.iter().filter(|m| m.from.store_id == StoreId(from));
            assert!(theirs.map(round_of).eq(0..COUNT), "from {from} to {}", site.id);
        }
        assert_eq!(seen.unreachable, []);
        let counters = site.counters();
        assert_eq!((counters.received.get(), counters.dropped.get()), (2 * COUNT, 0));
        site.send([heartbeat_to(site.id, site.id, 0)]);
        assert_eq!(counters.dropped.get(), 1, "nobody sends to oneself");
        assert_eq!(counters.sent_bytes.get(), counters.received_bytes.get());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_in_a_message_arrives() {
    let addresses = Addresses::default();
    let (one, two) = (Site::new(1, &addresses), Site::new(2, &addresses));
    let server = two.serve().await;
    addresses.set(2, server.address);
    let data = Bytes::from(vec![7; 9 << 20]);
    let entry = |index| Entry { index, term: 6, data: data.clone(), ..Entry::default() };
    let prev = LogPos { index: 9, term: 6 };
    let body = Body::Append { prev, entries: vec![entry(10), entry(11)], commit: 9, round: 3 };
    let sent = RaftMessage { range: Some(base::KeyRange::all()), ..message(1, 2, body) };
    one.send([sent.clone()]);
    let arrived = two.inbox.wait("a message", |seen| seen.messages.first().cloned()).await;
    assert!(arrived == sent, "it is another");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_comes_back_elsewhere_is_found() {
    let addresses = Addresses::default();
    let (one, two) = (Site::new(1, &addresses), Site::new(2, &addresses));
    let mut round = 0;
    for episode in 1..=2 {
        let server = two.serve().await;
        addresses.set(2, server.address);
        round = send_until_it_arrives(&one, &two, round).await;
        until("the way is clear", || one.transport.is_clear(StoreId(2))).await;
        drop(server);
        one.inbox.wait_unreachable(episode).await;
        for _ in 0..10 {
            one.send([heartbeat(round)]);
            round += 1;
        }
    }
    assert_eq!(one.inbox.unreachable(), [StoreId(2); 2]);
    let rounds = two.inbox.seen.borrow().rounds();
    assert!(rounds.is_sorted(), "{rounds:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_lets_go_of_its_callers() {
    let addresses = Addresses::default();
    let (one, two) = (Site::new(1, &addresses), Site::new(2, &addresses));
    let server = two.serve().await;
    addresses.set(2, server.address);
    one.send([heartbeat(0)]);
    two.inbox.wait_rounds(1).await;
    server.closed.send_replace(true);
    one.inbox.wait_unreachable(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_takes_is_dropped() {
    let queue = QueueLimits { messages_max: 1_000, bytes_max: 100_000, ..QueueLimits::default() };
    let addresses = Addresses::default();
    let limits = || Limits { queue, ..Limits::default() };
    // Nobody listens; somebody listens but never reads; nobody knows where.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    addresses.set(2, nowhere().await);
    addresses.set(3, deaf.local_addr().unwrap());
    for to in [2, 3, 4] {
        let one = Site::with(1, CLUSTER, &addresses, limits());
        let (mut sent, mut deepest) = (0, (0, 0));
        while one.counters().dropped.get() < 100_000 {
            one.send((0..1_000).map(|round| heartbeat_to(1, to, round)));
            sent += 1_000;
            let (messages, bytes) = one.transport.depth(StoreId(to));
            deepest = (messages.max(deepest.0), bytes.max(deepest.1));
        }
        assert!(deepest.0 <= 1_000 && deepest.1 <= 100_128, "{to}: {deepest:?}");
        assert_eq!(one.inbox.unreachable(), [StoreId(to)], "once");
        let counters = one.counters();
        assert!(counters.dropped.get() + counters.sent.get() <= sent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_is_refused() {
    let addresses = Addresses::default();
    let one = Site::new(1, &addresses);
    let two = Site::with(2, ClusterId(78), &addresses, Limits::default());
    let server = two.serve().await;
    addresses.set(2, server.address);
    one.send([heartbeat(0)]);
    one.inbox.wait_unreachable(1).await;
    assert!(two.inbox.seen.borrow().messages.is_empty());

    let status_of = |cluster| {
        let server = &server;
        async move {
            let batches = stream::pending::<BatchRaftMessage>();
            let outcome = caller(server).await.batch_raft(call(batches, cluster)).await;
            let status = outcome.expect_err("it is refused");
            (status.code(), status.message().to_owned())
        }
    };
    let text = "mismatch cluster id, need 78 but got 77".to_owned();
    assert_eq!(status_of(Some("77")).await, (Code::FailedPrecondition, text));
    assert_eq!(status_of(None).await.0, Code::InvalidArgument);
    assert_eq!(status_of(Some("no number")).await.0, Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_address_is_asked_for_again() {
    let addresses = Addresses::default();
    let sites: Vec<_> = (1..=3).map(|id| Site::new(id, &addresses)).collect();
    let (one, two, three) = (&sites[0], &sites[1], &sites[2]);
    let (right, wrong) = (two.serve().await, three.serve().await);
    addresses.set(2, wrong.address);
    one.send([heartbeat(0)]);
    one.inbox.wait_unreachable(1).await;
    addresses.set(2, right.address);
    send_until_it_arrives(one, two, 1).await;
    assert!(three.inbox.seen.borrow().messages.is_empty());

    let batch =
        BatchRaftMessage { msgs: vec![raft_message_to_proto(heartbeat(1))], ..Default::default() };
    let batches = stream::iter([batch]);
    let outcome = caller(&wrong).await.batch_raft(call(batches, Some("77"))).await;
    let status = outcome.expect_err("it is for another store");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "a message for store 2, but this is store 3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_is_skipped_and_the_plain_stream_works() {
    let two = Site::new(2, &Addresses::default());
    let server = two.serve().await;
    let mut messages: Vec<_> =
        (0..5).map(|round| raft_message_to_proto(heartbeat(round))).collect();
    messages[1].region_id = 0;
    messages[2].message = None;
    messages[3].to_peer = None;
    let outcome = caller(&server).await.raft(call(stream::iter(messages), Some("77"))).await;
    outcome.expect("the stream ends in order");
    assert_eq!(two.inbox.wait_rounds(2).await, [0, 4]);
    assert_eq!(two.counters().refused.get(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_look_gets_no_more() {
    let addresses = Addresses::default();
    let queue = QueueLimits { bytes_max: 4 << 20, ..QueueLimits::default() };
    let one = Site::with(1, CLUSTER, &addresses, Limits { queue, ..Limits::default() });
    let two = Site::new(2, &addresses);
    *two.inbox.held.lock().unwrap() = Some(Vec::new());
    let limits = RaftLimits { waiting_kib_max: 4 << 10, ..RaftLimits::default() };
    let server = two.serve_with(limits).await;
    addresses.set(2, server.address);
    let data = Bytes::from(vec![7; 1 << 20]);
    let proposal = || message(1, 2, Body::Propose { data: data.clone() });
    while one.counters().dropped.get() < 100 {
        one.send([proposal()]);
        tokio::task::yield_now().await;
    }
    let received = two.counters().received_bytes.get();
    assert!(received <= 8 << 20, "{received} bytes are here");
    // Once somebody looks it goes on.
    drop(two.inbox.held.lock().unwrap().take());
    let had = two.inbox.seen.borrow().messages.len();
    until("more arrives", || two.inbox.seen.borrow().messages.len() > had).await;
    until("the queue is empty", || one.transport.depth(StoreId(2)) == (0, 0)).await;
}
