//! `pontoon bench txn`: what each client does in transactions.
//!
//! A transaction that loses to another one is run again until it succeeds; its latency is that of
//! all its runs, and each lost one counts as a conflict. `transfer` moves money between accounts
//! and adds all of them up at the end: a sum that is not the same as before fails the bench.

use std::sync::Arc;
use std::time::Instant;

use base::Prng;
use bytes::Bytes;
use client::{ClientError, Db, Txn, TxnOptions};

use super::keys::key;
use super::pace::{self, End, Measured, Pace};
use super::report::Report;
use super::{TxnArgs, TxnWorkload};
use crate::commands::CommandError;
use crate::remote::{self, GrpcLink};

/// What is in each account at first.
const BALANCE: u64 = 1_000;

/// The most that is moved at once.
const AMOUNT_MAX: u64 = 10;

/// Accounts that are opened by one transaction.
const ACCOUNTS_A_TXN: u64 = 256;

/// Connects, runs the clients and sums up what they measured.
pub(super) async fn run(args: &TxnArgs) -> Result<Report, CommandError> {
    let common = &args.common;
    let db = remote::connect(&common.addr, common.api_version, common.connections).await?;
    for _ in 0..common.connections {
        // Connections and regions are looked up before the clock starts.
        db.snapshot().await?.get(&key(0)).await?;
    }
    if args.workload == TxnWorkload::Transfer {
        open_accounts(&db, common.keys).await?;
    }
    let end = (args.workload == TxnWorkload::Load).then_some(End::Count(common.keys));
    let pace = Pace::new(common, end);
    let client = |prng| {
        let client = Client { args: args.clone(), db: db.clone(), pace: pace.clone() };
        client.run(prng)
    };
    let (measured, elapsed) = pace::run(common, &pace, client).await?;
    if args.workload == TxnWorkload::Transfer {
        check_sum(&db, common.keys).await?;
    }
    Ok(pace::report(("txn", args.workload.name()), common, &pace, (&measured, elapsed)))
}

fn account(number: u64) -> Bytes {
    format!("account:{number:012}").into()
}

async fn open_accounts(db: &Db<GrpcLink>, count: u64) -> Result<(), CommandError> {
    let mut first = 0;
    while first < count {
        let end = (first + ACCOUNTS_A_TXN).min(count);
        let mut txn = db.begin(TxnOptions::optimistic()).await?;
        for number in first..end {
            txn.put(&account(number), BALANCE.to_string()).await?;
        }
        txn.commit().await?;
        first = end;
    }
    Ok(())
}

async fn check_sum(db: &Db<GrpcLink>, count: u64) -> Result<(), CommandError> {
    let (first, end) = (account(0), account(count));
    let accounts = db.snapshot().await?.scan(&first, &end, usize::MAX).await?;
    let sum: Result<u64, _> = accounts.iter().map(|pair| amount(&pair.value)).sum();
    let (sum, expected) = (sum?, count * BALANCE);
    if accounts.len() as u64 == count && sum == expected {
        return Ok(());
    }
    let found = accounts.len();
    let why = format!("{found} accounts hold {sum} in all: {count} held {expected} before");
    Err(CommandError::new(why))
}

fn amount(value: &[u8]) -> Result<u64, CommandError> {
    let text = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| CommandError::new(format!("'{}' is no balance", value.escape_ascii())))
}

struct Client {
    args: TxnArgs,
    db: Db<GrpcLink>,
    pace: Arc<Pace>,
}

impl Client {
    async fn run(self, mut prng: Prng) -> Result<Measured, CommandError> {
        let mut measured = Measured::default();
        let count = match self.args.workload {
            TxnWorkload::Load => self.args.batch as u64,
            _ => 1,
        };
        while let Some(first) = self.pace.take(count) {
            let begun = Instant::now();
            let done = self.one(first, &mut prng, &mut measured).await?;
            measured.record(self.args.workload.name(), begun.elapsed());
            self.pace.did(done);
        }
        Ok(measured)
    }

    /// One transaction, as often as it takes: for how many operations it counts.
    async fn one(
        &self,
        first: u64,
        prng: &mut Prng,
        measured: &mut Measured,
    ) -> Result<u64, CommandError> {
        let numbers = self.numbers(first, prng);
        loop {
            match self.attempt(&numbers, prng, measured).await {
                Ok(()) => {
                    let is_load = self.args.workload == TxnWorkload::Load;
                    return Ok(if is_load { numbers.len() as u64 } else { 1 });
                }
                Err(Failed::Again) => measured.conflicts += 1,
                Err(Failed::Over(error)) => return Err(error),
            }
        }
    }

    /// The keys that it is about.
    fn numbers(&self, first: u64, prng: &mut Prng) -> Vec<u64> {
        if self.args.workload == TxnWorkload::Load {
            return (first..(first + self.args.batch as u64).min(self.args.common.keys)).collect();
        }
        let wanted = match self.args.workload {
            TxnWorkload::Transfer => 2,
            _ => self.args.keys_per_txn,
        };
        let wanted = wanted.min(usize::try_from(self.args.common.keys).unwrap_or(usize::MAX));
        let mut numbers = Vec::with_capacity(wanted);
        while numbers.len() < wanted {
            let number = self.pace.number(prng);
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        numbers
    }

    async fn attempt(
        &self,
        numbers: &[u64],
        prng: &mut Prng,
        measured: &mut Measured,
    ) -> Result<(), Failed> {
        if self.args.workload == TxnWorkload::ReadOnly {
            return self.read(numbers, measured).await;
        }
        let mut txn = self.db.begin(self.args.options()).await?;
        match self.args.workload {
            TxnWorkload::Transfer => transfer(&mut txn, numbers, prng).await?,
            TxnWorkload::Update => self.update(&mut txn, numbers, prng, measured).await?,
            TxnWorkload::Load | TxnWorkload::ReadOnly => {
                for number in numbers {
                    txn.put(&key(*number), self.pace.value(prng)).await?;
                }
            }
        }
        txn.commit().await?;
        Ok(())
    }

    async fn read(&self, numbers: &[u64], measured: &mut Measured) -> Result<(), Failed> {
        let snapshot = self.db.snapshot().await?;
        let keys: Vec<Bytes> = numbers.iter().map(|number| key(*number)).collect();
        let found = match &keys[..] {
            [one] => usize::from(snapshot.get(one).await?.is_some()),
            many => snapshot.batch_get(many).await?.len(),
        };
        measured.rows_read += found as u64;
        measured.not_found += (keys.len() - found) as u64;
        Ok(())
    }

    async fn update(
        &self,
        txn: &mut Txn<GrpcLink>,
        numbers: &[u64],
        prng: &mut Prng,
        measured: &mut Measured,
    ) -> Result<(), Failed> {
        let keys: Vec<Bytes> = numbers.iter().map(|number| key(*number)).collect();
        let found = txn.lock_for_update(&keys).await?.len();
        measured.rows_read += found as u64;
        measured.not_found += (keys.len() - found) as u64;
        for key in &keys {
            txn.put(key, self.pace.value(prng)).await?;
        }
        Ok(())
    }
}

/// Moves money from the first account to the second, if there is enough.
async fn transfer(txn: &mut Txn<GrpcLink>, numbers: &[u64], prng: &mut Prng) -> Result<(), Failed> {
    let &[from, to] = numbers else { return Ok(()) };
    let (from, to) = (account(from), account(to));
    let found = txn.lock_for_update(&[&from, &to]).await?;
    let balance = |key: &Bytes| {
        let missing = || CommandError::new("an account is gone");
        amount(found.get(key).ok_or_else(missing)?)
    };
    let (of_from, of_to) = (balance(&from)?, balance(&to)?);
    let moved = (1 + prng.below(AMOUNT_MAX)).min(of_from);
    txn.put(&from, (of_from - moved).to_string()).await?;
    txn.put(&to, (of_to + moved).to_string()).await?;
    Ok(())
}

/// Why a transaction did not succeed.
enum Failed {
    /// Others were faster: once more.
    Again,
    Over(CommandError),
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Conflict { .. }
            | ClientError::Deadlock { .. }
            | ClientError::RolledBack { .. }
            | ClientError::Aborted { .. } => Failed::Again,
            error => Failed::Over(error.into()),
        }
    }
}

impl From<CommandError> for Failed {
    fn from(error: CommandError) -> Self {
        Failed::Over(error)
    }
}
