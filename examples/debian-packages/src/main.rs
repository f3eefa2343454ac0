//! Debian's package index in a TiKV-compatible store.
//!
//! Reads the index that apt keeps on this machine, loads it through the crate `tikv-client` while
//! the server is killed half-way, asks three questions by prefix scan, and compares every value
//! with the source.
//!
//! ```text
//!   apt's lists ──▶ records: name and version ──▶ stanza
//!                      │ load: first half, SIGKILL, start again, the rest
//!                      ▼
//!                   server ──▶ scans ──▶ compared with the records
//! ```
//!
//! Usage: `debian-packages LIST...`, with `PONTOON` set to the binary. `./x example` does this.

mod index;
mod load;
mod queries;

use std::process::ExitCode;
use std::time::Instant;

use server_under_test::Server;
use tikv_client::RawClient;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> ExitCode {
    match tell().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("debian-packages: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The story, from the lists to the last comparison.
async fn tell() -> Result<(), Failure> {
    let lists: Vec<String> = std::env::args().skip(1).collect();
    let records = index::read(&lists)?;
    let bytes: usize = records.iter().map(|(key, value)| key.len() + value.len()).sum();
    println!(
        "Read {} records, {} MB, from {} lists of apt.",
        records.len(),
        bytes / 1_000_000,
        lists.len()
    );

    let mut server = Server::start("1")?;
    let client = RawClient::new(vec![server.address()]).await?;
    println!("Started a server at {}.", server.address());

    let began = Instant::now();
    let all: Vec<_> = records.iter().collect();
    let (loaded, in_flight) = load::until_killed(&client, &all, &mut server).await?;
    println!("Killed it with SIGKILL: {loaded} records were acknowledged, {in_flight} in flight.");
    let down = Instant::now();
    server.start_again()?;
    println!("Started it again on the same folder: up in {} ms.", down.elapsed().as_millis());
    load::compare_keys(&client, &all[..loaded]).await?;
    println!("All {loaded} acknowledged records are there, byte for byte.");

    load::rest(&client, &all[loaded..]).await?;
    println!(
        "Loaded the rest with the same client: {:.1} s in all.",
        began.elapsed().as_secs_f64()
    );

    queries::ask(&client, &records).await?;
    let compared = load::compare_everything(&client, &records).await?;
    println!("Compared all {compared} values with the source: equal.");
    Ok(())
}
