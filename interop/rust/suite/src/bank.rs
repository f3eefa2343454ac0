//! Accounts and transfers between them: whatever happens, their sum stays what it was.

use std::collections::BTreeMap;

use tikv_client::{Error, Key, Snapshot, Transaction, TransactionClient, TransactionOptions};

use crate::{Random, plain};

/// How many accounts there are.
pub const ACCOUNTS: u64 = 40;

/// What each has at first.
const BALANCE: u64 = 1_000;

/// The key of an account.
pub fn account(number: u64) -> Vec<u8> {
    format!("bank/{number:04}").into_bytes()
}

/// The key of the receipt that a transfer leaves.
fn receipt(id: &str) -> Vec<u8> {
    format!("receipt/{id}").into_bytes()
}

/// Opens all accounts in one transaction.
pub async fn open(client: &TransactionClient) {
    let pairs = (0..ACCOUNTS).map(|number| (account(number), BALANCE.to_string().into_bytes()));
    crate::commit_pairs(client, pairs.collect()).await;
}

/// Moves an amount between two accounts, all chosen at random, and leaves a receipt. The error is
/// the client's, after a rollback.
pub async fn transfer(
    client: &TransactionClient,
    options: TransactionOptions,
    random: &mut Random,
    id: &str,
) -> Result<(), Error> {
    let mut txn = client.begin_with_options(options).await?;
    let done = try_transfer(&mut txn, random, id).await;
    if done.is_err() {
        // Its locks expire if this fails too.
        let _ = txn.rollback().await;
    }
    done
}

async fn try_transfer(txn: &mut Transaction, random: &mut Random, id: &str) -> Result<(), Error> {
    let from = random.below(ACCOUNTS);
    let to = (from + 1 + random.below(ACCOUNTS - 1)) % ACCOUNTS;
    let has = balance(txn.get_for_update(account(from)).await?);
    let other = balance(txn.get_for_update(account(to)).await?);
    let amount = random.below(100).min(has);
    txn.put(account(from), (has - amount).to_string()).await?;
    txn.put(account(to), (other + amount).to_string()).await?;
    txn.put(receipt(id), amount.to_string()).await?;
    txn.commit().await.map(drop)
}

fn balance(value: Option<Vec<u8>>) -> u64 {
    let text = String::from_utf8(value.expect("an account stays")).expect("digits");
    text.parse().expect("digits")
}

/// Whether the sum is what it was, and a receipt there for each of `acknowledged`. The error is the
/// client's, which may have been held up by a lock; what is wrong is a panic.
pub async fn check(snapshot: &mut Snapshot, acknowledged: &[String]) -> Result<(), Error> {
    let accounts = account(0)..=account(ACCOUNTS - 1);
    let found = plain(snapshot.scan(accounts, 10_000).await?.collect());
    let found: BTreeMap<_, _> = found.into_iter().map(|(k, v)| (k, balance(Some(v)))).collect();
    assert_eq!(found.len() as u64, ACCOUNTS);
    let sum: u64 = found.values().sum();
    assert_eq!(sum, ACCOUNTS * BALANCE, "the sum of {found:?}");
    let ids = acknowledged.iter().map(|id| Key::from(receipt(id)));
    let receipts: BTreeMap<_, _> =
        plain(snapshot.batch_get(ids).await?.collect()).into_iter().collect();
    let lost: Vec<_> =
        acknowledged.iter().filter(|id| !receipts.contains_key(&receipt(id))).collect();
    assert!(lost.is_empty(), "acknowledged, and without a receipt: {lost:?}");
    Ok(())
}
