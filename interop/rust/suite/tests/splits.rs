//! A hundred splits and a hundred merges under write load: a client that retries by the protocol
//! sees no error, and finds all that it wrote.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use interop_suite::placement::{operate, regions};
use serde_json::json;
use server_under_test::Server;
use tikv_client::RawClient;
use tokio::task::JoinHandle;

/// Regions of 32 KiB, looked at ten times a second.
const SMALL: &str = "[coprocessor]\nregion-split-size = '32KiB'\n\
                     [raftstore]\nsplit-region-check-tick-interval = '100ms'\n";

const SPLITS: usize = 100;
const MERGES: usize = 100;
const WRITERS: usize = 8;

/// Splits so many take seconds; this is for a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// How often it is looked whether they are done.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Keys are in the order of their numbers.
fn key(number: u32) -> Vec<u8> {
    format!("key-{number:010}").into_bytes()
}

/// Keys are written everywhere, so that the regions that change are those that are written to.
fn scattered(number: usize) -> Vec<u8> {
    key((number as u32).wrapping_mul(2_654_435_769))
}

/// Clients that write, and read what they wrote, without a pause.
struct Load {
    client: RawClient,
    written: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
    started: Instant,
}

impl Load {
    async fn start(address: &str) -> Self {
        let client = RawClient::new(vec![address]).await.unwrap();
        let (written, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let writer = |_| {
            let (client, written, stop) = (client.clone(), written.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let number = written.fetch_add(1, Ordering::Relaxed);
                    let (key, value) = (scattered(number), vec![number as u8; 1_000]);
                    client.put(key.clone(), value.clone()).await.expect("a put");
                    let found = client.get(key).await.expect("a get");
                    assert_eq!(found.as_ref(), Some(&value), "of {number}");
                }
            })
        };
        let writers = (0..WRITERS).map(writer).collect();
        Self { client, written, stop, writers, started: Instant::now() }
    }

    /// Writes until `is_done` says that it is.
    async fn until(&self, what: &str, mut is_done: impl FnMut() -> bool) {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        while !is_done() && !self.writers.iter().any(JoinHandle::is_finished) {
            looks.tick().await;
            assert!(self.started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        }
    }

    /// Nobody saw an error, and all is there.
    async fn end(self, what: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let took = self.started.elapsed();
        for writer in self.writers {
            writer.await.expect("no error is seen");
        }
        let count = self.written.load(Ordering::Relaxed);
        for number in (0..count).step_by(97) {
            let found = self.client.get(scattered(number)).await.unwrap();
            assert!(found.is_some(), "{number} of {count} is there");
        }
        println!("{what}, {count} puts and gets, no error, {took:?}");
    }
}

async fn split(nodes: u16) {
    let server = Server::start_cluster(nodes, SMALL).unwrap_or_else(|error| panic!("{error}"));
    let before = regions(server.address()).expect("the cluster is ready").len();
    let load = Load::start(server.address()).await;
    let mut most = before;
    load.until("splits", || {
        most = regions(server.address()).map_or(most, |regions| regions.len());
        most >= before + SPLITS
    })
    .await;
    load.end(&format!("{nodes} nodes: {} splits", most - before)).await;
}

/// Of the regions that are left every second one becomes a part of a neighbour, until all are one.
async fn merge(nodes: u16) {
    let server = Server::start_cluster(nodes, "").unwrap_or_else(|error| panic!("{error}"));
    let address = server.address();
    let first = regions(address).expect("the cluster is ready")[0];
    let cuts = (1..=MERGES as u32).map(|cut| key(u32::MAX / (MERGES as u32 + 1) * cut));
    let hex = |key: Vec<u8>| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let keys: Vec<String> = cuts.map(hex).collect();
    let cut = json!({"name": "split-region", "region_id": first, "policy": "usekey", "keys": keys});
    assert!(operate(address, &cut), "a split is ordered");
    let load = Load::start(address).await;
    let count = |address| regions(address).map_or(0, |regions| regions.len());
    load.until("the split", || count(address) == MERGES + 1).await;
    let mut rounds = 0;
    load.until("merges", || {
        let regions = regions(address).unwrap_or_default();
        // A few at a time, so that much is written meanwhile. Who is merging already is refused.
        for pair in regions.chunks_exact(2).take(4) {
            let (source, target) = if rounds % 2 == 0 { (0, 1) } else { (1, 0) };
            let (source, target) = (pair[source], pair[target]);
            let body = json!({
                "name": "merge-region", "source_region_id": source, "target_region_id": target,
            });
            operate(address, &body);
        }
        rounds += 1;
        regions.len() == 1
    })
    .await;
    load.end(&format!("{nodes} nodes: {MERGES} merges")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_does_not_notice_a_hundred_splits() {
    split(1).await;
    split(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_does_not_notice_a_hundred_merges() {
    merge(1).await;
    merge(3).await;
}
