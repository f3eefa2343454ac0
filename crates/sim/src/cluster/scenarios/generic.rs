//! The generic test of the teaching store: clients, and any of an unreliable network, crashes,
//! partitions, changes of members, splits, and logs that shrink often.
//!
//! What was weak there is not here: members change all the time and not in one round of three,
//! losses do not pile up, client requests are lost too, and every key's history is checked.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Scenario, What};
use crate::cluster::{AdminKind, Fault, Options};

/// Virtual seconds of clients and faults: three rounds of five.
const SECONDS: u64 = 15;

/// Seeds of each.
const SEEDS: u64 = 3;

/// Name, clients, and flags: `u`nreliable, `c`rash, `p`artitions, change of `m`embers, `s`plit,
/// `l`og of at most a hundred entries.
const TESTS: [(&str, usize, &str); 28] = [
    ("test_basic_2b", 1, ""),
    ("test_concurrent_2b", 5, ""),
    ("test_unreliable_2b", 5, "u"),
    ("test_many_partitions_one_client_2b", 1, "p"),
    ("test_many_partitions_many_clients_2b", 5, "p"),
    ("test_persist_one_client_2b", 1, "c"),
    ("test_persist_concurrent_2b", 5, "c"),
    ("test_persist_concurrent_unreliable_2b", 5, "uc"),
    ("test_persist_partition_2b", 5, "cp"),
    ("test_persist_partition_unreliable_2b", 5, "ucp"),
    ("test_snapshot_recover_2c", 1, "cl"),
    ("test_snapshot_recover_many_clients_2c", 20, "cl"),
    ("test_snapshot_unreliable_2c", 5, "ul"),
    ("test_snapshot_unreliable_recover_2c", 5, "ucl"),
    ("test_snapshot_unreliable_recover_concurrent_partition_2c", 5, "ucpl"),
    ("test_conf_change_recover_3b", 1, "cm"),
    ("test_conf_change_recover_many_clients_3b", 20, "cm"),
    ("test_conf_change_unreliable_3b", 5, "um"),
    ("test_conf_change_unreliable_recover_3b", 5, "ucm"),
    ("test_conf_change_snapshot_unreliable_recover_3b", 5, "ucml"),
    ("test_conf_change_snapshot_unreliable_recover_concurrent_partition_3b", 5, "ucpml"),
    ("test_split_recover_3b", 1, "cs"),
    ("test_split_recover_many_clients_3b", 20, "cs"),
    ("test_split_unreliable_3b", 5, "us"),
    ("test_split_unreliable_recover_3b", 5, "ucs"),
    ("test_split_conf_change_unreliable_3b", 5, "ums"),
    ("test_split_conf_change_snapshot_unreliable_recover_3b", 5, "ucmsl"),
    ("test_split_conf_change_snapshot_unreliable_recover_concurrent_partition_3b", 5, "ucpmsl"),
];

pub(super) fn all() -> Vec<Scenario> {
    TESTS.iter().map(|(name, clients, flags)| scenario(name, *clients, flags)).collect()
}

fn scenario(name: &str, clients: usize, flags: &str) -> Scenario {
    let has = |flag| flags.contains(flag);
    let mut faults = BTreeSet::new();
    if has('u') {
        faults.extend([Fault::Loss, Fault::Stragglers, Fault::Duplicates]);
    }
    if has('c') {
        faults.extend([Fault::Kill, Fault::PowerLoss, Fault::PowerLossMidTurn]);
    }
    if has('p') {
        faults.extend([Fault::Partition, Fault::CutOneWay]);
    }
    let mut admin = BTreeSet::from([AdminKind::Transfer]);
    if has('m') {
        admin.insert(AdminKind::Change);
    }
    if has('s') {
        admin.insert(AdminKind::Split);
    }
    let options = Options {
        duration: Duration::from_secs(SECONDS),
        nodes: Some(5),
        clients: Some(clients),
        faults,
        admin,
        log_entries_max: has('l').then_some(100),
        think: Some(Duration::from_millis(20)),
        ..Options::default()
    };
    Scenario { name: name.to_owned(), what: What::Seeds(Box::new(options), SEEDS) }
}
