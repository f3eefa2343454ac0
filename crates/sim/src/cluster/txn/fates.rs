//! A transaction has one fate, whichever store is asked, and whenever.
//!
//! Whoever is told that a transaction is committed, or rolled back for ever, goes on as if it were
//! so everywhere: he clears its locks away, reads past them, tells others. So what stores answer
//! about one transaction must never differ, and neither must what they have recorded of it in the
//! end. Nothing is concluded from what removes a pessimistic lock: that says nothing of the rest.
//!
//! And where somebody who found nothing of a transaction had its rollback recorded, the record is
//! there as long as old versions are: by itself or as a flag, whoever writes the key later.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use base::TimeStamp;
use storage::engine::{Cf, Engine, IterOptions};
use storage::keys;
use store::RegionView;
use txn::actions::{SecondaryStatus, StatusAction, TxnStatus};
use txn::mvcc::{Key, Write, WriteKind, split_versioned};
use txn::scheduler::{Command, Reply};

use crate::cluster::event::Slot;
use crate::cluster::world::World;

/// What became of a transaction, as far as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// When, if that was said as well.
    Committed(Option<TimeStamp>),
    RolledBack,
}

impl Fate {
    /// What both say; none if they cannot both be.
    fn and(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::RolledBack, Self::RolledBack) => Some(Self::RolledBack),
            (Self::Committed(one), Self::Committed(other)) => {
                let agree = one.is_none() || other.is_none() || one == other;
                agree.then_some(Self::Committed(one.or(other)))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Committed(None) => write!(f, "committed"),
            Self::Committed(Some(at)) => write!(f, "committed at {at}"),
            Self::RolledBack => write!(f, "rolled back"),
        }
    }
}

/// Of all transactions that anybody was told of.
#[derive(Debug, Default)]
pub(crate) struct Fates {
    told: BTreeMap<TimeStamp, (Fate, &'static str)>,
    /// Transactions whose rollback is recorded for good on one of these keys.
    recorded: Vec<(TimeStamp, Vec<Key>)>,
    /// The last that any store heard of, whether or not it remembers.
    safe_point: TimeStamp,
}

impl Fates {
    /// A store answers a command, whose writes are applied.
    pub(super) fn answered(&mut self, command: &Command, reply: &Reply) {
        if let Some((start_ts, fate, by)) = told(command, reply) {
            self.learn(start_ts, fate, by);
        }
        self.recorded.extend(recorded_by(command, reply));
    }

    /// A store hears that what lies below may be collected.
    pub(super) fn may_be_collected(&mut self, below: TimeStamp) {
        self.safe_point = self.safe_point.max(below);
    }

    /// What lies below may be collected: somewhere it is.
    pub(super) fn safe_point(&self) -> TimeStamp {
        self.safe_point
    }

    fn learn(&mut self, start_ts: TimeStamp, fate: Fate, by: &'static str) {
        let (before, first) = self.told.entry(start_ts).or_insert((fate, by));
        match before.and(fate) {
            Some(both) => *before = both,
            None => panic!(
                "a transaction has one fate: that of {start_ts} is {before} by {first}, and {fate} \
                 by {by}"
            ),
        }
    }

    /// What a record at `at` says.
    fn read(&mut self, at: TimeStamp, write: &Write) {
        let fate = match write.kind {
            WriteKind::Rollback => Fate::RolledBack,
            _ => Fate::Committed(Some(at)),
        };
        self.learn(write.start_ts, fate, "a record");
        if write.has_overlapped_rollback {
            self.learn(at, Fate::RolledBack, "a flag");
        }
    }
}

/// Whose fate an answer tells, and what it is. The commit timestamp of a request to commit is left
/// out: of a transaction that one phase has committed already it is just what the client thought.
fn told(command: &Command, reply: &Reply) -> Option<(TimeStamp, Fate, &'static str)> {
    let at = |ts: &TimeStamp| Fate::Committed(Some(*ts));
    let (start_ts, fate) = match (command, reply) {
        (Command::Prewrite(prewrite), Reply::Prewrite(reply)) => {
            let ts = Some(&reply.one_pc_commit_ts).filter(|ts| ts.0 != 0)?;
            (prewrite.start_ts, at(ts))
        }
        (Command::CheckTxnStatus(check), Reply::Status(status, action)) => {
            let removed_only = matches!(
                action,
                StatusAction::TtlExpirePessimisticRollback | StatusAction::LockNotExistDoNothing
            );
            let fate = match status {
                TxnStatus::Committed(ts) => at(ts),
                TxnStatus::RolledBack if !removed_only => Fate::RolledBack,
                TxnStatus::RolledBack | TxnStatus::Locked(_) => return None,
            };
            (check.lock_ts, fate)
        }
        (Command::CheckSecondaryLocks(check), Reply::Secondaries(status)) => {
            let fate = match status {
                SecondaryStatus::Committed(ts) => at(ts),
                SecondaryStatus::RolledBack => Fate::RolledBack,
                SecondaryStatus::Locked(_) => return None,
            };
            (check.start_ts, fate)
        }
        (Command::Commit(commit), _) => (commit.start_ts, Fate::Committed(None)),
        (Command::Rollback(rollback), _) => (rollback.start_ts, Fate::RolledBack),
        (Command::Resolve(resolve), _) if resolve.is_lite => {
            let (start_ts, commit_ts) = resolve.outcomes.first_key_value()?;
            let is_committed = commit_ts.0 != 0;
            (*start_ts, if is_committed { Fate::Committed(None) } else { Fate::RolledBack })
        }
        _ => return None,
    };
    Some((start_ts, fate, name(command)))
}

/// The transaction that an answer says has a record of its rollback, and where: on one of these
/// keys. Of other rollbacks the record may give way to a newer one.
fn recorded_by(command: &Command, reply: &Reply) -> Option<(TimeStamp, Vec<Key>)> {
    match (command, reply) {
        (
            Command::CheckTxnStatus(check),
            Reply::Status(TxnStatus::RolledBack, StatusAction::LockNotExistRollback),
        ) => Some((check.lock_ts, vec![check.primary.clone()])),
        (Command::CheckSecondaryLocks(check), Reply::Secondaries(SecondaryStatus::RolledBack)) => {
            Some((check.start_ts, check.keys.clone()))
        }
        _ => None,
    }
}

fn name(command: &Command) -> &'static str {
    match command {
        Command::Prewrite(_) => "a commit of one phase",
        Command::CheckTxnStatus(_) => "its primary",
        Command::CheckSecondaryLocks(_) => "a secondary",
        Command::Commit(_) => "a commit",
        Command::Rollback(_) => "a rollback",
        _ => "who resolved its locks",
    }
}

impl World {
    /// What the leaders of regions have recorded of transactions is what was told of them.
    pub(super) fn check_fates(&mut self, leaders: &[(Slot, Arc<RegionView>)]) {
        let mut rollbacks = BTreeSet::new();
        for (slot, view) in leaders {
            self.read_records(*slot, view, &mut rollbacks);
        }
        let safe_point = self.fates.safe_point;
        for (start_ts, keys) in self.fates.recorded.iter().filter(|(ts, _)| *ts > safe_point) {
            let is_there = keys.iter().any(|key| rollbacks.contains(&(key.clone(), *start_ts)));
            assert!(is_there, "a rollback stays: that of {start_ts} is on none of {keys:?}");
        }
    }

    /// Finds where which transaction was rolled back.
    fn read_records(
        &mut self,
        slot: Slot,
        view: &RegionView,
        rollbacks: &mut BTreeSet<(Key, TimeStamp)>,
    ) {
        for (key, at, write) in self.records_of(slot, view) {
            if write.rolls_back(at, at) {
                rollbacks.insert((key, at));
            }
            self.fates.read(at, &write);
            if write.kind != WriteKind::Rollback {
                self.floors.committed(write.start_ts, at);
            }
        }
    }

    /// All records of a region, those of a key together and the newest of them first.
    pub(super) fn records_of(&self, slot: Slot, view: &RegionView) -> Vec<(Key, TimeStamp, Write)> {
        let snapshot = self.nodes[slot].machine.engine.snapshot();
        let (start, end) = keys::data_range(view.region.id, &view.region.range);
        let options = IterOptions::within(base::KeyRange::new(start, end));
        let mut cursor = snapshot.iter(Cf::Write, options).expect("readable");
        let mut valid = cursor.seek_to_first().expect("readable");
        let mut found = Vec::new();
        while valid {
            let (key, at) = split_versioned(cursor.key()).expect("keys are sound");
            let key = Key::from_data(key).expect("keys are sound");
            let write = Write::decode(cursor.value()).expect("records are sound");
            found.push((key, at, write));
            valid = cursor.next().expect("readable");
        }
        found
    }
}
