//! The loop over transactions: tellers transfer between accounts, and the sum stays what it is.
//!
//! ```text
//!   round:  tellers ──transfer──▶ server     every acknowledged one is noted
//!           SIGKILL of the server, or of one node of a cluster, which the others outlive
//!           the sum is what it was, and the receipt of every acknowledged transfer is there
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use interop_suite::{Random, bank, open_txn_at, placement};
use server_under_test::Server;
use tikv_client::{TransactionClient, TransactionOptions};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;

use crate::Failure;

const TELLERS: u64 = 16;

/// Transfers in a round before the kill: this many, and up to as many as [`SPREAD`] more.
const ENOUGH: u64 = 50;
const SPREAD: u64 = 500;

/// A transfer must be acknowledged within this time, and the bank be seen, whoever was killed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Regions of a cluster split while it is loaded.
const CONFIG: &str = "[coprocessor]\nregion-split-size = '64KiB'\n\
                      [raftstore]\nsplit-region-check-tick-interval = '1s'\n";

/// Runs so many rounds on so many nodes. The error says what was lost.
pub async fn run(rounds: u64, seed: u64, nodes: u16) -> Result<(), Failure> {
    println!(
        "kill-loop: {rounds} rounds of transfers, {TELLERS} tellers, {nodes} nodes, seed {seed}"
    );
    let mut random = Random::new(seed);
    let mut server = match nodes {
        1 => Server::start("1")?,
        _ => Server::start_cluster(nodes, CONFIG)?,
    };
    let client = open_txn_at(server.address(), "1").await;
    bank::open(&client).await;
    placement::split_at(server.address(), [10, 20, 30].map(bank::account)).await;
    let mut acknowledged = Vec::new();
    for round in 1..=rounds {
        let load = Load::start(server.address(), seed.wrapping_add(round << 32)).await;
        let before = acknowledged.len();
        let outage = load_and_kill(&mut server, load, &mut random, &mut acknowledged).await?;
        let client = open_txn_at(server.address(), "1").await;
        check(&client, &acknowledged[before..]).await.map_err(|error| with_log(&server, &error))?;
        println!(
            "round {round}/{rounds}: {} transfers, away for {} ms, the sum is what it was",
            acknowledged.len() - before,
            outage.as_millis(),
        );
    }
    let client = open_txn_at(server.address(), "1").await;
    check(&client, &acknowledged).await.map_err(|error| with_log(&server, &error))?;
    println!("kill-loop: all {} acknowledged transfers are there", acknowledged.len());
    Ok(())
}

/// Returns how long no transfer was acknowledged after the kill.
async fn load_and_kill(
    server: &mut Server,
    mut load: Load,
    random: &mut Random,
    acknowledged: &mut Vec<String>,
) -> Result<Duration, Failure> {
    for _ in 0..ENOUGH + random.below(SPREAD) {
        acknowledged.push(load.next(server).await?);
    }
    let killed = Instant::now();
    if server.nodes() == 1 {
        server.kill()?;
        acknowledged.extend(load.end().await);
        server.start_again()?;
        return Ok(killed.elapsed());
    }
    let node = random.below(u64::from(server.nodes())) as usize;
    server.kill_node(node)?;
    // What was on its way is not counted as an answer of those who are left.
    while let Ok(id) = load.answers.try_recv() {
        acknowledged.push(id);
    }
    acknowledged.push(load.next(server).await?);
    let outage = killed.elapsed();
    for _ in 0..ENOUGH {
        acknowledged.push(load.next(server).await?);
    }
    acknowledged.extend(load.end().await);
    server.until_all_nodes_run()?;
    Ok(outage)
}

/// Reads until no lock of a teller that was cut off is in the way.
async fn check(client: &TransactionClient, acknowledged: &[String]) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let error = match client.current_timestamp().await {
            Ok(now) => {
                let mut then = client.snapshot(now, TransactionOptions::new_optimistic());
                match bank::check(&mut then, acknowledged).await {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if began.elapsed() > PATIENCE {
            return Err(format!("the bank cannot be read: {error:?}"));
        }
    }
}

fn with_log(server: &Server, error: &str) -> Failure {
    format!("{error}\nthe log:\n{}", server.log()).into()
}

/// Tellers at work, each with a client of its own.
struct Load {
    stop: Arc<AtomicBool>,
    answers: UnboundedReceiver<String>,
    tellers: JoinSet<()>,
}

impl Load {
    async fn start(address: &str, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, answers) = mpsc::unbounded_channel();
        let mut tellers = JoinSet::new();
        for teller in 0..TELLERS {
            let client = open_txn_at(address, "1").await;
            let random = Random::new(seed.wrapping_add(teller));
            let name = format!("{seed:x}-{teller}");
            tellers.spawn(work(
                client,
                options(teller),
                random,
                name,
                stop.clone(),
                sender.clone(),
            ));
        }
        Self { stop, answers, tellers }
    }

    /// The next transfer that was acknowledged.
    async fn next(&mut self, server: &Server) -> Result<String, Failure> {
        match tokio::time::timeout(PATIENCE, self.answers.recv()).await {
            Ok(Some(id)) => Ok(id),
            _ => Err(with_log(server, &format!("no transfer in {PATIENCE:?}"))),
        }
    }

    /// Lets the tellers finish what they have begun. Returns what was acknowledged meanwhile.
    async fn end(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.tellers.join_all().await;
        let mut rest = Vec::new();
        while let Ok(id) = self.answers.try_recv() {
            rest.push(id);
        }
        rest
    }
}

async fn work(
    client: TransactionClient,
    options: TransactionOptions,
    mut random: Random,
    name: String,
    stop: Arc<AtomicBool>,
    answers: UnboundedSender<String>,
) {
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let id = format!("{name}-{number}");
        let done = bank::transfer(&client, options.clone(), &mut random, &id).await;
        if done.is_ok() && answers.send(id).is_err() {
            return;
        }
    }
}

/// Every way to commit is some teller's but async commit: this client takes one that was cut off
/// when a part of it was prewritten for committed.
fn options(teller: u64) -> TransactionOptions {
    let mut options = match teller % 2 {
        0 => TransactionOptions::new_optimistic(),
        _ => TransactionOptions::new_pessimistic(),
    };
    if teller / 2 % 2 == 0 {
        options = options.try_one_pc();
    }
    options
}
