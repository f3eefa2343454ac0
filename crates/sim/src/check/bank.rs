//! The checker of accounts between which money moves.
//!
//! Each transfer changes two accounts, and an index that says the same of them, and writes a
//! receipt, in one transaction. The sum of all accounts is the same in every snapshot, and index
//! and accounts agree; in the end the receipts tell which transfers happened, and the balances
//! follow from them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Anomaly, Kind, Outcome};

/// One wish of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Names its receipt.
    pub id: u64,
    /// From where.
    pub from: u64,
    /// To where.
    pub to: u64,
    /// How much.
    pub amount: i64,
    /// What its client knows.
    pub outcome: Outcome,
}

/// The accounts as one snapshot has them.
pub type Balances = BTreeMap<u64, i64>;

/// All that one snapshot has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bank {
    /// The accounts.
    pub accounts: Balances,
    /// The same balances, written by the same transactions to other keys.
    pub index: Balances,
}

/// Whether the index says of each account what the account says.
pub fn check_index(found: &Bank) -> Result<(), Anomaly> {
    if found.index == found.accounts {
        return Ok(());
    }
    let story = format!("the index has {:?}, the accounts {:?}", found.index, found.accounts);
    Err(Anomaly { kind: Kind::Index, story })
}

/// Whether a snapshot has all accounts, and all the money.
pub fn check_sum(found: &Balances, accounts: u64, total: i64) -> Result<(), Anomaly> {
    let sum: i64 = found.values().sum();
    if found.len() as u64 == accounts && sum == total {
        return Ok(());
    }
    let story = format!("{accounts} accounts hold {total}, found {sum} in {found:?}");
    Err(Anomaly { kind: Kind::Sum, story })
}

/// Whether the last snapshot is what the transfers with a receipt make of the first one.
pub fn check_end(
    first: &Balances,
    last: &Balances,
    receipts: &BTreeSet<u64>,
    transfers: &[Transfer],
) -> Result<(), Anomaly> {
    let mut expected = first.clone();
    for transfer in transfers {
        let happened = receipts.contains(&transfer.id);
        let told = match transfer.outcome {
            Outcome::Committed => happened,
            Outcome::Failed => !happened,
            Outcome::Unknown => true,
        };
        if !told {
            let story = format!("{transfer:?}, and its receipt is there: {happened}");
            return Err(Anomaly { kind: Kind::Told, story });
        }
        if happened {
            *expected.entry(transfer.from).or_default() -= transfer.amount;
            *expected.entry(transfer.to).or_default() += transfer.amount;
        }
    }
    let known: BTreeSet<u64> = transfers.iter().map(|transfer| transfer.id).collect();
    if let Some(strange) = receipts.iter().find(|id| !known.contains(id)) {
        let story = format!("a receipt of transfer {strange}, which nobody asked for");
        return Err(Anomaly { kind: Kind::FromNowhere, story });
    }
    if expected != *last {
        let story = format!("by the receipts {expected:?}, found {last:?}");
        return Err(Anomaly { kind: Kind::Sum, story });
    }
    Ok(())
}
