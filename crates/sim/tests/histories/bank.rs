//! Accounts and receipts.

use std::collections::BTreeSet;

use pontoon_sim::check::bank::{Balances, Transfer, check_end, check_sum};
use pontoon_sim::check::{Kind, Outcome};

fn balances(of: [i64; 3]) -> Balances {
    (0..).zip(of).collect()
}

fn transfer(id: u64, amount: i64, outcome: Outcome) -> Transfer {
    Transfer { id, from: 0, to: 1, amount, outcome }
}

#[test]
fn a_snapshot_has_all_the_money() {
    assert_eq!(check_sum(&balances([10, 20, 0]), 3, 30), Ok(()));
    let kind = |found| check_sum(&found, 3, 30).unwrap_err().kind;
    assert_eq!(kind(balances([10, 20, 1])), Kind::Sum);
    assert_eq!(kind(Balances::from([(0, 30)])), Kind::Sum);
}

#[test]
fn receipts_explain_the_balances() {
    let first = balances([10, 10, 10]);
    let transfers = [
        transfer(1, 3, Outcome::Committed),
        transfer(2, 4, Outcome::Failed),
        transfer(3, 5, Outcome::Unknown),
    ];
    let end = |last, receipts: &[u64]| {
        let receipts: BTreeSet<u64> = receipts.iter().copied().collect();
        check_end(&first, &balances(last), &receipts, &transfers).err().map(|found| found.kind)
    };
    assert_eq!(end([7, 13, 10], &[1]), None);
    assert_eq!(end([2, 18, 10], &[1, 3]), None);
    assert_eq!(end([10, 10, 10], &[]), Some(Kind::Told), "the acknowledged one is gone");
    assert_eq!(end([3, 17, 10], &[1, 2]), Some(Kind::Told), "the failed one happened");
    assert_eq!(end([7, 13, 10], &[1, 3]), Some(Kind::Sum), "half of it happened");
    assert_eq!(end([7, 13, 10], &[1, 9]), Some(Kind::FromNowhere));
}
