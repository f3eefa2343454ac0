//! A client that is made to be killed.
//!
//! ```text
//!   doomed ADDRESS API-VERSION STEP WAY [COUNT]
//! ```
//!
//! `WAY` is `optimistic` or `pessimistic`, then `+async` or `+1pc` or both. `STEP` is where it
//! stops:
//!
//! - `locked`: it has locked its keys and said `locked`.
//! - `prewritten`: between prewrite and commit, and has said `prewritten`. Told to go on, it
//!   commits and says `committed`, or the error.
//! - `committed`: its primary is committed and no other key; it has said `committed`.
//! - `transfers`: nowhere. It transfers for ever and says the id of each that was acknowledged.
//!
//! Except in transfers it writes `COUNT` numbered keys, their value `new`. It ends when its
//! standard input does.

use std::io::Write;

use interop_suite::{Random, bank, key, open_txn_at};
use tikv_client::{Transaction, TransactionClient, TransactionOptions};

/// One thread, so that nothing goes on in the background while it stands still.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, api, step, way, rest @ ..] = arguments.as_slice() else {
        panic!("usage: doomed ADDRESS API-VERSION STEP WAY [COUNT]");
    };
    let client = open_txn_at(address, api).await;
    if step == "transfers" {
        return transfers(&client, way).await;
    }
    let count = rest.first().map_or(1, |text| text.parse().expect("a number"));
    let mut txn = client.begin_with_options(options(way)).await.expect("a timestamp");
    match step.as_str() {
        "locked" => {
            txn.lock_keys((0..count).map(key)).await.expect("nobody else is here");
            stop("locked");
        }
        "prewritten" => {
            fail::cfg_callback("after-prewrite", || stop("prewritten")).expect("it is compiled in");
            let committed = write(&mut txn, count).await;
            stop(&committed.map_or_else(|error| format!("{error:?}"), |()| "committed".to_owned()));
        }
        "committed" => {
            write(&mut txn, count).await.expect("nobody else is here");
            // The other keys are committed once this thread has nothing else to do: never.
            stop("committed");
        }
        _ => panic!("no such step: {step}"),
    }
    // It asks for no rollback: it ends like one that was killed.
    std::process::exit(0);
}

fn options(way: &str) -> TransactionOptions {
    let mut parts = way.split('+');
    let mut options = match parts.next() {
        Some("optimistic") => TransactionOptions::new_optimistic(),
        Some("pessimistic") => TransactionOptions::new_pessimistic(),
        _ => panic!("no such way: {way}"),
    };
    for part in parts {
        options = match part {
            "async" => options.use_async_commit(),
            "1pc" => options.try_one_pc(),
            _ => panic!("no such way: {way}"),
        };
    }
    options
}

async fn write(txn: &mut Transaction, count: usize) -> Result<(), tikv_client::Error> {
    let mutations =
        (0..count).map(|i| tikv_client::transaction::Mutation::Put(key(i).into(), b"new".to_vec()));
    txn.batch_mutate(mutations).await?;
    txn.commit().await.map(drop)
}

/// Says where it is, and stands still until it is told to go on. Ends with its standard input.
fn stop(step: &str) {
    say(step);
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line).is_ok_and(|read| read == 0) {
        std::process::exit(0);
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody may be listening any more.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

async fn transfers(client: &TransactionClient, way: &str) {
    let own = u64::from(std::process::id());
    let mut random = Random::new(own);
    for number in 0_u64.. {
        let id = format!("{own}-{number}");
        if bank::transfer(client, options(way), &mut random, &id).await.is_ok() {
            say(&id);
        }
    }
}
