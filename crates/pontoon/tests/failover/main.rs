//! Three processes, of which one is killed with SIGKILL again and again: the one that leads the
//! region that is written, then the one that leads the placement driver. How long until writes are
//! acknowledged again, and timestamps given? And is everything there that was acknowledged?
//!
//! `KILLS=20 ./x test -p pontoon --test failover -- --nocapture` prints the times of 20 kills each;
//! without it there are two, as a test.

mod away;
mod cluster;
#[path = "../metrics/mod.rs"]
mod metrics;
mod probe;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use client::{ApiVersion, Raw};
use pontoon::remote::{self, GrpcLink};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use self::cluster::{Cluster, Placed};
use self::probe::{Answer, Route, Stop};

const WRITERS: usize = 8;

/// Whatever is away comes back within this time, or the test has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between a restart and the next kill. A node that comes back votes for nobody for an election
/// timeout, since it may have granted a lease: a kill within that time would be two at once.
const PACE: Duration = Duration::from_millis(1_500);

/// Pairs in a page when everything is read again.
const PAGE: usize = 1_000;

struct Probes {
    stop: Stop,
    written: Vec<Arc<AtomicU64>>,
    writes: UnboundedReceiver<Answer>,
    timestamps: UnboundedReceiver<Answer>,
}

impl Probes {
    fn start(cluster_id: u64, placed: &Placed, addresses: &[String]) -> Self {
        let stop = Stop::new(AtomicBool::new(false));
        let (write_answers, writes) = unbounded_channel();
        let (timestamp_answers, timestamps) = unbounded_channel();
        let route = Route {
            region: Arc::new(Mutex::new(placed.region.clone())),
            stores: placed.stores.clone(),
            addresses: addresses.to_vec(),
        };
        let written: Vec<Arc<AtomicU64>> = (0..WRITERS).map(|_| Arc::default()).collect();
        for (writer, written) in written.iter().enumerate() {
            let (route, written, stop) = (route.clone(), written.clone(), stop.clone());
            tokio::spawn(probe::write(writer, route, written, stop, write_answers.clone()));
        }
        let addresses = addresses.to_vec();
        let answers = timestamp_answers;
        tokio::spawn(probe::timestamps(cluster_id, addresses, stop.clone(), answers));
        Self { stop, written, writes, timestamps }
    }

    /// Writes go on until then.
    async fn write_until(&self, end: Instant) {
        while Instant::now() < end {
            self.each_wrote(1).await;
        }
    }

    /// Until each writer has written so many more.
    async fn each_wrote(&self, more: u64) {
        let now = || self.written.iter().map(|written| written.load(Ordering::Relaxed));
        let wanted: Vec<u64> = now().map(|written| written + more).collect();
        let began = Instant::now();
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while now().zip(&wanted).any(|(written, wanted)| written < *wanted) {
            assert!(began.elapsed() < PATIENCE, "they write");
            looks.tick().await;
        }
    }
}

/// The time from the kill to the first answer of a call that began after it.
async fn outage(answers: &mut UnboundedReceiver<Answer>, killed: Instant) -> Duration {
    loop {
        let answer = tokio::time::timeout(PATIENCE, answers.recv()).await;
        let answer = answer.expect("answers come again").expect("the probes run");
        if answer.began > killed {
            return answer.ended - killed;
        }
    }
}

fn print(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let (last, middle) = (times.len() - 1, times.len() / 2);
    println!(
        "{what}: {} kills, median {} ms, p99 (the longest) {} ms",
        times.len(),
        times[middle].as_millis(),
        times[last].as_millis()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_and_nothing_is_lost() {
    let kills = std::env::var("KILLS").map_or(2, |text| text.parse().expect("KILLS is a number"));
    let mut cluster = Cluster::start(3);
    let placed = cluster.wait_until_whole().await;
    let addresses = cluster.addresses();
    let db = remote::connect(&addresses[0], ApiVersion::V1, 1).await.expect("it runs");
    let client = db.raw();
    let mut probes = Probes::start(db.link().placement().cluster_id(), &placed, &addresses);
    let (mut writes, mut timestamps) = (Vec::new(), Vec::new());
    let mut pace = tokio::time::interval(PACE);
    for kill in 0..2 * kills {
        pace.tick().await;
        let placed = cluster.wait_until_whole().await;
        let writes_too = kill % 2 == 0;
        let victim = if writes_too { placed.leads_region } else { placed.leads_placement };
        let killed = cluster.kill(victim);
        if writes_too {
            writes.push(outage(&mut probes.writes, killed).await);
        } else {
            timestamps.push(outage(&mut probes.timestamps, killed).await);
        }
        cluster.start_again(victim);
        pace.reset();
    }
    cluster.wait_until_whole().await;
    probes.stop.store(true, Ordering::Relaxed);
    print("writes acknowledged again", &mut writes);
    print("timestamps given again", &mut timestamps);

    let mut total = 0;
    for (writer, written) in probes.written.iter().enumerate() {
        let written = written.load(Ordering::Relaxed);
        assert!(written > 0, "writer {writer} wrote");
        check(&client, writer, written).await;
        total += written;
    }
    println!("all {total} acknowledged writes are there");
}

/// Every number below `written` is there.
async fn check(client: &Raw<GrpcLink>, writer: usize, written: u64) {
    let end = probe::key(writer + 1, 0);
    for first in (0..written).step_by(PAGE) {
        let start = probe::key(writer, first);
        let pairs = client.scan(start.as_bytes(), end.as_bytes(), PAGE).await.expect("a scan");
        let last = written.min(first + PAGE as u64);
        for (number, pair) in (first..last).zip(&pairs) {
            let key = probe::key(writer, number);
            assert_eq!((&pair.key[..], &pair.value[..]), (key.as_bytes(), key.as_bytes()));
        }
        assert!(
            pairs.len() as u64 >= last - first,
            "writer {writer}: from {first} on some are lost"
        );
    }
}
