use base::{KeyRange, Prng, Region};
use bytes::Bytes;
use futures_util::stream;
use proto::raft_serverpb::SnapshotChunk;
use raft::{ConfState, LogPos};
use storage::engine::{Cf, Engine, MemoryEngine, WriteBatch};
use storage::keys;
use store::raft_message_to_proto;
use store::snapshot::{BuildSnapshot, InstallSnapshot, SnapshotFiles, SnapshotKey};
use tonic::Code;

use super::*;

const POS: LogPos = LogPos { index: 100, term: 6 };
const KEY: SnapshotKey = SnapshotKey { region: RegionId(2), index: POS.index, term: POS.term };

fn region() -> Region {
    let epoch = Epoch { conf_ver: 1, version: 1 };
    Region {
        id: RegionId(2),
        range: KeyRange::all(),
        epoch,
        flashback: None,
        peers: vec![peer_on(1), peer_on(2)],
    }
}

/// An engine with so many rows of a MiB.
fn engine(rows: u8) -> MemoryEngine {
    let engine = MemoryEngine::new();
    let mut prng = Prng::new(1);
    for row in 0..rows {
        let value: Vec<u8> = (0..1 << 17).flat_map(|_| prng.next_u64().to_be_bytes()).collect();
        let mut batch = WriteBatch::new();
        batch.put(Cf::Default, &keys::data_key(&[row]), &value);
        engine.write(&batch).unwrap();
    }
    engine
}

/// Makes the files of a snapshot for a store, and the message that goes with them.
fn build(site: &Site, engine: &dyn Engine, to: u64) -> (SnapshotFiles, RaftMessage) {
    let job = BuildSnapshot {
        region: Arc::new(region()),
        absorbed: Arc::default(),
        to: peer_on(to).id,
        pos: POS,
        conf: ConfState::of_voters([peer_on(1).id, peer_on(2).id]),
        snapshot: engine.snapshot(),
    };
    let files = job.run(engine, &site.snapshots).unwrap();
    let snapshot = Box::new(files.snapshot.clone());
    (files, message(site.id, to, Body::Snapshot { snapshot, round: 4 }))
}

/// Names of the files of snapshots.
fn files(site: &Site) -> Vec<String> {
    let items = std::fs::read_dir(site.dir.path().join("snap")).unwrap();
    items.map(|item| item.unwrap().file_name().into_string().unwrap()).collect()
}

/// What a stream of the snapshot consists of.
fn chunks(site: &Site, files: &SnapshotFiles, message: RaftMessage) -> Vec<SnapshotChunk> {
    let mut reader = site.snapshots.reader(RegionId(2), files.to, &files.snapshot).unwrap();
    let message = Some(raft_message_to_proto(message));
    let mut chunks = vec![SnapshotChunk { message, ..Default::default() }];
    while let Some(data) = reader.next_chunk().unwrap() {
        chunks.push(SnapshotChunk { data, ..Default::default() });
    }
    chunks
}

async fn give(server: &Server, chunks: Vec<SnapshotChunk>) -> Result<(), Status> {
    let outcome = caller(server).await.snapshot(call(stream::iter(chunks), Some("77"))).await;
    outcome.map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_arrives_with_its_files() {
    let addresses = Addresses::default();
    let (one, two) = (Site::new(1, &addresses), Site::new(2, &addresses));
    let server = two.serve().await;
    addresses.set(2, server.address);
    let from = engine(3);
    let (built, message) = build(&one, &from, 2);
    one.send([heartbeat(0), message.clone()]);
    assert_eq!(one.inbox.wait_sent(1).await, [(peer_on(2).id, true)]);
    let arrived = two.inbox.wait("the message", |seen| {
        seen.messages
            .iter()
            .find(|message| matches!(message.message.body, Body::Snapshot { .. }))
            .cloned()
    });
    assert_eq!(arrived.await, message);
    assert_eq!(two.snapshots.received().unwrap(), [KEY]);
    assert_eq!(files(&one), [""; 0], "what was sent is gone");

    let to = engine(0);
    let install = InstallSnapshot { region: Arc::new(region()), key: KEY, old_range: None };
    install.run(&to, &two.snapshots).unwrap();
    for row in 0..3 {
        let key = keys::data_key(&[row]);
        assert!(from.get(Cf::Default, &key).unwrap() == to.get(Cf::Default, &key).unwrap());
    }
    let totals = |site: &Site| {
        let counters = site.counters();
        (
            counters.snapshots_sent.get(),
            counters.snapshots_received.get(),
            counters.snapshot_bytes.get(),
        )
    };
    assert_eq!((totals(&one), totals(&two)), ((1, 0, built.size), (0, 1, built.size)));
    assert_eq!(one.inbox.unreachable(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_for_nobody_is_reported_as_lost() {
    let addresses = Addresses::default();
    let one = Site::new(1, &addresses);
    addresses.set(2, nowhere().await);
    for to in [2, 3] {
        let (_, message) = build(&one, &engine(1), to);
        one.send([message]);
    }
    // And one whose files are not there.
    let (built, message) = build(&one, &engine(1), 4);
    one.snapshots.remove(built.name()).unwrap();
    one.send([message]);
    let sent = one.inbox.wait_sent(3).await;
    assert!(sent.iter().all(|(_, arrived)| !arrived), "{sent:?}");
    assert_eq!(files(&one), [""; 0]);
    assert_eq!(one.counters().snapshots_lost.get(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_goes_away_did_not_get_it() {
    let addresses = Addresses::default();
    let snapshot = SnapshotLimits { bytes_per_second: 1 << 20, ..SnapshotLimits::default() };
    let one = Site::with(1, CLUSTER, &addresses, Limits { snapshot, ..Limits::default() });
    let two = Site::new(2, &addresses);
    let server = two.serve().await;
    addresses.set(2, server.address);
    let (_, message) = build(&one, &engine(8), 2);
    one.send([message]);
    until("it has begun", || two.counters().snapshot_bytes.get() > 0).await;
    drop(server);
    assert_eq!(one.inbox.wait_sent(1).await, [(peer_on(2).id, false)]);
    until("nothing of it stays", || files(&two).is_empty()).await;
    assert!(two.inbox.seen.borrow().messages.is_empty());
    assert_eq!(one.inbox.seen.borrow().sent.len(), 1);
}

/// The files are read once more, not made once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_was_cut_off_begins_again() {
    let addresses = Addresses::default();
    let snapshot = SnapshotLimits { bytes_per_second: 2 << 20, ..SnapshotLimits::default() };
    let one = Site::with(1, CLUSTER, &addresses, Limits { snapshot, ..Limits::default() });
    let two = Site::new(2, &addresses);
    let (server, next) = (two.serve().await, two.serve().await);
    addresses.set(2, server.address);
    let (_, message) = build(&one, &engine(4), 2);
    one.send([message]);
    until("it has begun", || two.counters().snapshot_bytes.get() > 0).await;
    addresses.set(2, next.address);
    drop(server);
    assert_eq!(one.inbox.wait_sent(1).await, [(peer_on(2).id, true)]);
    assert_eq!(two.snapshots.received().unwrap(), [KEY]);
    assert_eq!(files(&one), [""; 0]);
    assert_eq!(one.counters().snapshots_lost.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_may_wait_are_not_sent() {
    let addresses = Addresses::default();
    let snapshot = SnapshotLimits { at_once_max: 1, waiting_max: 1, bytes_per_second: 1 << 20 };
    let one = Site::with(1, CLUSTER, &addresses, Limits { snapshot, ..Limits::default() });
    let two = Site::new(2, &addresses);
    let server = two.serve().await;
    addresses.set(2, server.address);
    let (_, first) = build(&one, &engine(3), 2);
    let (_, second) = build(&one, &engine(1), 3);
    let (_, third) = build(&one, &engine(1), 4);
    one.send([first, second, third]);
    let mut sent = one.inbox.wait_sent(3).await;
    let at = |store| sent.iter().position(|(to, _)| *to == peer_on(store).id);
    assert!(at(4) < at(2), "there was no room for it: it did not wait for the first: {sent:?}");
    // The second may come before the first, and fail while another one is being told of.
    sent.sort_unstable();
    assert_eq!(sent[0], (peer_on(2).id, true));
    assert_eq!(sent[1], (peer_on(3).id, false), "nobody knows where store 3 is");
    assert_eq!(sent[2], (peer_on(4).id, false));
    assert_eq!(files(&one), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_cut_or_damaged_leaves_nothing() {
    let addresses = Addresses::default();
    let (one, two) = (Site::new(1, &addresses), Site::new(2, &addresses));
    let server = two.serve().await;
    let (built, message) = build(&one, &engine(3), 2);
    let good = chunks(&one, &built, message);
    assert!(good.len() > 3);

    let short = good[..good.len() - 1].to_vec();
    let mut bent = good.clone();
    let mut bytes = bent[2].data.to_vec();
    bytes[1000] ^= 1;
    bent[2].data = Bytes::from(bytes);
    let mut long = good.clone();
    long.push(SnapshotChunk { data: Bytes::from_static(b"x"), ..Default::default() });
    for (what, bad) in [("short", short), ("bent", bent), ("long", long)] {
        let status = give(&server, bad).await.expect_err(what);
        assert_eq!(status.code(), Code::DataLoss, "{what}: {status}");
        until("nothing of it stays", || files(&two).is_empty()).await;
    }
    let headless = give(&server, good[1..].to_vec()).await.expect_err("no message");
    assert_eq!(headless.code(), Code::InvalidArgument);
    let mut other = good.clone();
    other[0].message = Some(raft_message_to_proto(heartbeat(1)));
    let other = give(&server, other).await.expect_err("another kind");
    assert_eq!(other.code(), Code::InvalidArgument);
    assert!(two.inbox.seen.borrow().messages.is_empty());

    // The whole one is taken, and taken to be here if it comes again.
    give(&server, good.clone()).await.unwrap();
    give(&server, good).await.unwrap();
    assert_eq!(two.inbox.seen.borrow().messages.len(), 2);
    assert_eq!(two.snapshots.received().unwrap(), [KEY]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_few_are_received_at_once() {
    let addresses = Addresses::default();
    let (one, two) = (Site::new(1, &addresses), Site::new(2, &addresses));
    let server = two.serve_with(RaftLimits { snapshots_max: 1, ..RaftLimits::default() }).await;
    let (built, message) = build(&one, &engine(2), 2);
    let good = chunks(&one, &built, message);

    // One that has begun and does not end.
    let (send, receive) = tokio::sync::mpsc::channel::<SnapshotChunk>(1);
    let open = stream::unfold(receive, |mut receive| async {
        receive.recv().await.map(|chunk| (chunk, receive))
    });
    let mut client = caller(&server).await;
    let begun = tokio::spawn(async move { client.snapshot(call(open, Some("77"))).await });
    for chunk in &good[..2] {
        send.send(chunk.clone()).await.unwrap();
    }
    until("it has begun", || two.counters().snapshot_bytes.get() > 0).await;
    let refused = give(&server, good.clone()).await.expect_err("one at once");
    assert_eq!(refused.code(), Code::ResourceExhausted);

    // Its caller goes: there is room again, and nothing of it stays.
    begun.abort();
    drop(send);
    until("nothing of it stays", || files(&two).is_empty()).await;
    let mut outcome = Err(Status::resource_exhausted("not tried"));
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while outcome.is_err() && tokio::time::Instant::now() < deadline {
        outcome = give(&server, good.clone()).await;
    }
    outcome.expect("there is room");
}
