//! Kills the server under load, again and again, and looks for every acknowledged write.
//!
//! ```text
//!   round:  writers ──put──▶ server         every answer is noted
//!           SIGKILL, after a random number of answers; the writers are cut off in the middle
//!           start again ──▶ scan all: every write that was answered is there, with its value;
//!                           of those in flight any may be there, but with no other value
//! ```
//!
//! Usage: `kill-loop [--txn [--nodes N]] [ROUNDS [SEED]]`. With `--txn` the load is transfers
//! between accounts ([`transfers`]), and with `--nodes` one node of a cluster is killed in each
//! round. Ends with exit code 1 and what was lost.

mod ledger;
mod transfers;
mod writer;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use server_under_test::Server;
use tikv_client::{BoundRange, Key, RawClient};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use ledger::{Ledger, Random};

type Failure = Box<dyn std::error::Error>;

const ROUNDS: u64 = 20;
const WRITERS: usize = 32;

/// Answers in a round before the kill: this many, and up to as many as [`ANSWERS_SPREAD`] more.
const ANSWERS_MIN: u64 = 100;
const ANSWERS_SPREAD: u64 = 3_000;

/// Answers must come within this time, or the round has failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Keys in a page of a scan: the client takes no answer above 4 MiB.
const PAGE: u32 = 1_000;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(rounds) => {
            println!("kill-loop: {rounds} passed, 0 failed");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("kill-loop: {error}");
            println!("kill-loop: 0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}

/// What was asked for.
struct Arguments {
    is_txn: bool,
    nodes: u16,
    rounds: u64,
    seed: u64,
}

impl Arguments {
    fn read() -> Result<Self, Failure> {
        let mut arguments = std::env::args().skip(1).peekable();
        let is_txn = arguments.next_if(|text| text == "--txn").is_some();
        let mut nodes = 1;
        if arguments.next_if(|text| text == "--nodes").is_some() {
            nodes = arguments.next().ok_or("--nodes: how many?")?.parse()?;
        }
        if nodes > 1 && !is_txn {
            return Err("--nodes goes with --txn".into());
        }
        let rounds = arguments.next().map_or(Ok(ROUNDS), |text| text.parse())?;
        let own = u64::from(std::process::id());
        let seed = arguments.next().map_or(Ok(own), |text| text.parse())?;
        Ok(Self { is_txn, nodes, rounds, seed })
    }
}

async fn run() -> Result<u64, Failure> {
    let Arguments { is_txn, nodes, rounds, seed } = Arguments::read()?;
    if is_txn {
        transfers::run(rounds, seed, nodes).await?;
        return Ok(rounds);
    }
    println!("kill-loop: {rounds} rounds, {WRITERS} writers, seed {seed}");
    let mut random = Random::new(seed);
    let mut ledger = Ledger::new(seed, WRITERS);
    let mut server = Server::start("1")?;
    for round in 1..=rounds {
        let answers = ANSWERS_MIN + random.below(ANSWERS_SPREAD);
        let written = load_and_kill(&mut server, &mut ledger, answers).await?;
        let began = Instant::now();
        server.start_again()?;
        let up = began.elapsed();
        let found = verify(&server, &mut ledger).await?;
        println!(
            "round {round}/{rounds}: killed after {written} answers, up in {} ms, {found} keys, \
             all {} acknowledged writes there",
            up.as_millis(),
            ledger.acknowledged(),
        );
    }
    Ok(rounds)
}

/// Returns how many writes were answered in this round.
async fn load_and_kill(
    server: &mut Server,
    ledger: &mut Ledger,
    answers: u64,
) -> Result<u64, Failure> {
    let client = RawClient::new(vec![server.address()]).await?;
    let (sender, mut answered) = mpsc::unbounded_channel();
    let mut writers = JoinSet::new();
    for (writer, first) in ledger.writers() {
        writers.spawn(writer::write(client.clone(), ledger.seed(), writer, first, sender.clone()));
    }
    drop(sender);
    let mut written = 0;
    while written < answers {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, answered.recv()).await;
        let Ok(Some(answer)) = answer else {
            return Err(
                format!("no answer in {ANSWER_TIMEOUT:?}; the log:\n{}", server.log()).into()
            );
        };
        ledger.note(answer);
        written += 1;
    }
    server.kill()?;
    writers.shutdown().await;
    // What was answered before the kill counts, read or not.
    while let Some(answer) = answered.recv().await {
        ledger.note(answer);
        written += 1;
    }
    Ok(written)
}

/// Scans everything and compares it with the ledger. Returns the number of keys.
async fn verify(server: &Server, ledger: &mut Ledger) -> Result<usize, Failure> {
    let client = RawClient::new(vec![server.address()]).await?;
    let mut found = Vec::new();
    let mut start = Key::EMPTY;
    loop {
        let page = client.scan(BoundRange::range_from(start), PAGE).await?;
        let Some(last) = page.last() else { break };
        start = Key::from([<&[u8]>::from(last.key()), b"\0"].concat());
        found.extend(page.into_iter().map(|pair| (Vec::from(pair.0), pair.1)));
    }
    ledger.check(&found).map_err(|error| format!("{error}\nthe log:\n{}", server.log()))?;
    Ok(found.len())
}
