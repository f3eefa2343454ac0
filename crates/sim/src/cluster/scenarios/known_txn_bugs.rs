//! Known bugs of the reference system's transactions: the weather in which each showed itself, with
//! clients of all kinds. The number is that of the table in docs/simulation.md.

use std::time::Duration;

use super::{Scenario, What};
use crate::cluster::{AdminKind, Fault, Options};

use AdminKind::{Merge, Split, Transfer};
use Fault::{
    CutOneWay, Duplicates, Isolate, Kill, Loss, Partition, Pause, PowerLoss, SlowDisk, Stall,
    Stragglers, WallJump,
};

/// Seeds of each.
const SEEDS: u64 = 4;

/// Name, faults, admin traffic.
type Row = (&'static str, &'static [Fault], &'static [AdminKind]);

const BUGS: [Row; 12] = [
    ("bug_25_merge_with_open_locks_10215", &[Stall, Loss, Kill], &[Merge, Split]),
    ("bug_26_small_max_ts_in_another_region_8589", &[Stragglers, Pause], &[Split, Transfer]),
    ("bug_27_replica_read_misses_a_lock_in_memory_12109", &[Isolate, Pause, Stall], &[Transfer]),
    ("bug_28_reads_of_the_newest_and_one_phase_18117", &[Stragglers, SlowDisk], &[Transfer]),
    ("bug_29_prewrite_after_its_commit_11187", &[Duplicates, Loss, Stragglers], &[Transfer]),
    ("bug_30_rollback_without_a_record_16620", &[Duplicates, Loss, Pause], &[Split]),
    ("tidb_43540_late_request_for_a_lock", &[Duplicates, Stragglers, Loss], &[Transfer]),
    ("tidb_42937_primary_is_another_key", &[Duplicates, Kill, Loss], &[Split, Transfer]),
    ("bug_9069_batch_get_at_a_lock_in_memory", &[SlowDisk, Stall, Stragglers], &[]),
    ("tidb_57769_timestamps_from_elsewhere", &[WallJump, Partition], &[Transfer]),
    ("bug_18249_many_commands_at_once", &[SlowDisk], &[]),
    ("leaders_without_their_memory", &[PowerLoss, CutOneWay, Isolate], &[Transfer, Merge]),
];

pub(super) fn all() -> Vec<Scenario> {
    let scenario = |(name, faults, admin): &Row| {
        let options = Options {
            duration: Duration::from_secs(40),
            faults: faults.iter().copied().collect(),
            admin: admin.iter().copied().collect(),
            clients: Some(2),
            think: Some(Duration::from_millis(30)),
            transactions: Some(true),
            ..Options::default()
        };
        Scenario { name: format!("txn_{name}"), what: What::Seeds(Box::new(options), SEEDS) }
    };
    BUGS.iter().map(scenario).collect()
}
