//! A ledger in a folder: no server, no second process.
//!
//!     cargo run --release -p pontoon --example embedded -- FOLDER [FROM TO AMOUNT]
//!
//! Without a transfer it shows the balances. The folder is created on the first run, with a hundred
//! for Alice and a hundred for Bob.

use std::error::Error;

use pontoon::{Embedded, TxnOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let folder = args.first().ok_or("usage: embedded FOLDER [FROM TO AMOUNT]")?;
    let ledger = pontoon::open(folder).await?;
    let outcome = run(&ledger, &args[1..]).await;
    ledger.close().await;
    outcome
}

async fn run(ledger: &Embedded, args: &[String]) -> Result<(), Box<dyn Error>> {
    open_accounts(ledger).await?;
    if let [from, to, amount] = args {
        transfer(ledger, from, to, amount.parse()?).await?;
    }
    for pair in ledger.snapshot().await?.scan(b"", b"", 1_000).await? {
        println!("{:<10}{:>8}", text(&pair.key)?, text(&pair.value)?);
    }
    Ok(())
}

/// Only the first time.
async fn open_accounts(ledger: &Embedded) -> Result<(), Box<dyn Error>> {
    let mut txn = ledger.begin(TxnOptions::pessimistic()).await?;
    if txn.get_for_update(b"Alice").await?.is_none() {
        txn.put(b"Alice", "100").await?;
        txn.put(b"Bob", "100").await?;
    }
    txn.commit().await?;
    Ok(())
}

/// All of it happens or nothing, and nobody ever sees the money in neither account.
async fn transfer(
    ledger: &Embedded,
    from: &str,
    to: &str,
    amount: u64,
) -> Result<(), Box<dyn Error>> {
    let mut txn = ledger.begin(TxnOptions::pessimistic()).await?;
    let balances = txn.lock_for_update(&[from, to]).await?;
    let balance = |name: &str| -> Result<u64, Box<dyn Error>> {
        let value = balances.get(name.as_bytes()).ok_or(format!("{name} has no account"))?;
        Ok(text(value)?.parse()?)
    };
    let left = balance(from)?.checked_sub(amount).ok_or(format!("{from} has too little"))?;
    let more = balance(to)? + amount;
    txn.put(from.as_bytes(), left.to_string()).await?;
    txn.put(to.as_bytes(), more.to_string()).await?;
    txn.commit().await?;
    Ok(())
}

fn text(bytes: &[u8]) -> Result<&str, std::str::Utf8Error> {
    std::str::from_utf8(bytes)
}
