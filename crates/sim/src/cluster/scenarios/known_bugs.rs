//! Known bugs of the reference system: the weather in which each showed itself, and nothing else.
//! The number is that of the table in docs/simulation.md.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Scenario, What};
use crate::cluster::{AdminKind, Fault, Options};

use AdminKind::{Change, Merge, Split, Transfer};
use Fault::{
    Blackout, ClockJump, CutOneWay, Duplicates, FailedSync, Filter, Isolate, Kill, KillMidTurn,
    Loss, Partition, Pause, PowerLoss, PowerLossMidTurn, SlowDisk, SlowLink, SnapshotDamage, Stall,
    Stragglers,
};

/// Seeds of each.
const SEEDS: u64 = 4;

/// The weather of a bug.
struct Weather {
    name: &'static str,
    faults: &'static [Fault],
    admin: &'static [AdminKind],
    /// Entries after which a log shrinks.
    log: u64,
    /// Ticks after which an idle group sleeps; `None`: the seed decides.
    sleep_ticks: Option<u32>,
    /// How long clients rest between two calls, in milliseconds.
    think_ms: u64,
}

/// Clients that rest little.
const fn weather(
    name: &'static str,
    faults: &'static [Fault],
    admin: &'static [AdminKind],
    log: u64,
) -> Weather {
    Weather { name, faults, admin, log, sleep_ticks: None, think_ms: 30 }
}

/// Groups that sleep between any two calls.
const fn sleepy(name: &'static str, faults: &'static [Fault]) -> Weather {
    let admin = &[Split, Merge];
    Weather { name, faults, admin, log: 30, sleep_ticks: Some(3), think_ms: 3_000 }
}

const BUGS: [Weather; 27] = [
    weather(
        "bug_01_restart_forgets_a_lease_15035",
        &[Kill, CutOneWay, Isolate, ClockJump],
        &[],
        100,
    ),
    weather(
        "bug_02_transfer_skips_the_lease_1593",
        &[Pause, Stragglers, SlowLink],
        &[Transfer],
        100,
    ),
    weather(
        "bug_03_read_index_during_transfer_4680",
        &[Stall, SlowDisk, Stragglers],
        &[Transfer],
        100,
    ),
    weather(
        "bug_04_reads_of_a_batch_share_an_index_7971",
        &[Stall, Pause, SlowDisk],
        &[Transfer],
        100,
    ),
    weather("bug_05_commit_index_of_an_older_term_9208", &[Isolate, Kill, Stall], &[Transfer], 100),
    weather("bug_06_reads_before_the_own_term_6340", &[Stall, Kill, Filter], &[Transfer], 100),
    weather(
        "bug_07_merge_known_before_the_lease_ends_8034",
        &[Stall, SlowDisk, SlowLink],
        &[Merge, Split, Transfer],
        100,
    ),
    weather("bug_08_lease_then_snapshot_13553", &[Pause, Stall, Isolate], &[Transfer, Split], 100),
    weather(
        "bug_09_reads_after_destroy_18570",
        &[Stall, Isolate, Stragglers],
        &[Change, Transfer],
        12,
    ),
    weather(
        "bug_10_vote_without_keys_8381",
        &[PowerLoss, Kill, Loss, Isolate],
        &[Change, Split],
        12,
    ),
    weather(
        "bug_11_conf_change_in_an_election_221",
        &[Stall, Isolate, Loss],
        &[Change, Transfer],
        100,
    ),
    weather(
        "bug_12_promoted_learner_does_not_vote_57",
        &[Isolate, CutOneWay, Stall],
        &[Change],
        100,
    ),
    weather("bug_13_joint_and_demotion_11463", &[Isolate, Kill, Loss], &[Change, Transfer], 30),
    weather(
        "bug_14_older_merge_taken_for_this_one_6460",
        &[Isolate, Stall, Filter],
        &[Merge, Split, Transfer],
        100,
    ),
    weather(
        "bug_15_crash_between_destroy_and_snapshot_7027",
        &[PowerLossMidTurn, KillMidTurn, Isolate],
        &[Merge, Split, Change],
        6,
    ),
    weather(
        "bug_16_slow_learner_in_a_merge_4551",
        &[Isolate, SlowLink, Filter],
        &[Merge, Split, Change],
        12,
    ),
    weather(
        "bug_17_logs_applied_behind_rafts_back_4560",
        &[KillMidTurn, PowerLoss, Filter, Stall],
        &[Merge, Split],
        100,
    ),
    weather(
        "bug_18_stale_replica_left_after_a_merge_15919",
        &[Isolate, Partition, Stragglers],
        &[Merge, Split, Change],
        6,
    ),
    weather(
        "bug_19_range_map_after_a_split_8783",
        &[KillMidTurn, Stall, Isolate],
        &[Split, Change],
        12,
    ),
    weather(
        "bug_20_old_split_revives_a_replica_5852",
        &[Stall, Isolate, PowerLoss],
        &[Split, Change],
        6,
    ),
    weather(
        "bug_21_message_to_a_replaced_peer_17469",
        &[Duplicates, Stragglers],
        &[Split, Change],
        6,
    ),
    weather(
        "bug_22_crash_while_applying_12470",
        &[PowerLossMidTurn, KillMidTurn, Isolate],
        &[Change],
        6,
    ),
    weather(
        "bug_23_snapshot_lost_while_applying_11618",
        &[PowerLoss, SnapshotDamage, Isolate],
        &[Change],
        6,
    ),
    weather(
        "bug_24_snapshot_before_what_is_applied_4716",
        &[Stall, Isolate, Partition],
        &[Change, Split],
        6,
    ),
    weather(
        "failed_sync_is_never_tried_again",
        &[FailedSync, Blackout, SlowDisk],
        &[Change, Split],
        12,
    ),
    sleepy("bug_16429_isolated_step_by_step_while_asleep", &[CutOneWay, Isolate, Partition]),
    sleepy("bug_18916_woken_and_asleep_again", &[Stragglers, Duplicates, Kill, Pause]),
];

pub(super) fn all() -> Vec<Scenario> {
    let scenario = |bug: &Weather| {
        let options = Options {
            duration: Duration::from_secs(40),
            faults: bug.faults.iter().copied().collect(),
            admin: bug.admin.iter().copied().collect::<BTreeSet<_>>(),
            log_entries_max: Some(bug.log),
            sleep_ticks: bug.sleep_ticks,
            think: Some(Duration::from_millis(bug.think_ms)),
            ..Options::default()
        };
        Scenario { name: bug.name.to_owned(), what: What::Seeds(Box::new(options), SEEDS) }
    };
    BUGS.iter().map(scenario).collect()
}
