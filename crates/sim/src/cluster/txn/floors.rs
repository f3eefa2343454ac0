//! A commit timestamp that a store computes is above everybody who looked before.
//!
//! The store answers for it alone: nobody asks the placement driver after the keys are locked. Most
//! that come out too low do no harm: a transaction takes the largest of all its keys, and few who
//! read so late would have found another value. So each of them is held against what was answered
//! of its key before, by whichever leader and at whichever replica:
//!
//! | who looked | why it relies on it |
//! | --- | --- |
//! | a read | it did not see the commit |
//! | who asked what became of a lock | it commits above him, or never, and its record stays |
//! | who looked for locks | there is none up to its timestamp |
//!
//! What counts is the order in which they were answered and the timestamp was computed. And whoever
//! was told that a transaction commits above him finds it there, computed or not.

use std::collections::BTreeMap;

use base::{KeyRange, TimeStamp};
use bytes::Bytes;
use storage::engine::Cf;
use txn::Mutation;
use txn::actions::StatusAction;
use txn::mvcc::{Key, Lock, Write, WriteKind, split_versioned};
use txn::scheduler::{Command, Reply};

/// When somebody looked, and who.
type Look = (TimeStamp, &'static str);

/// All that was answered so far.
#[derive(Debug, Default)]
pub(crate) struct Floors {
    /// The last look at each key, in region form.
    keys: BTreeMap<Bytes, Look>,
    /// Looks at all keys of a range.
    ranges: Vec<(KeyRange, Look)>,
    /// Of these transactions it was said that they commit above.
    pushed: BTreeMap<TimeStamp, TimeStamp>,
}

impl Floors {
    /// Somebody has seen the key as of then.
    pub(super) fn seen(&mut self, key: &Key, at: TimeStamp) {
        self.look(key.region(), (at, "a read"));
    }

    /// Somebody has seen all keys of the range as of then.
    pub(super) fn seen_all(&mut self, range: KeyRange, look: Look) {
        if look.0 != TimeStamp::MAX {
            self.ranges.retain(|(known, before)| *known != range || before.0 > look.0);
            self.ranges.push((range, look));
        }
    }

    fn look(&mut self, key: Bytes, look: Look) {
        if look.0 != TimeStamp::MAX {
            let before = self.keys.entry(key).or_insert(look);
            if before.0 < look.0 {
                *before = look;
            }
        }
    }

    /// A command was answered.
    pub(super) fn answered(&mut self, command: &Command, reply: &Reply) {
        match (command, reply) {
            (Command::CheckTxnStatus(check), Reply::Status(_, action)) => {
                let caller = check.caller_start_ts;
                let all = [check.lock_ts, caller, check.current_ts];
                let known = all.into_iter().filter(|ts| *ts != TimeStamp::MAX).max();
                let at = known.unwrap_or_default();
                self.look(check.primary.region(), (at, "who asked for the fate of its lock"));
                if *action == StatusAction::MinCommitTsPushed && caller != TimeStamp::MAX {
                    let above = self.pushed.entry(check.lock_ts).or_default();
                    *above = caller.max(*above);
                }
            }
            (Command::CheckSecondaryLocks(check), Reply::Secondaries(_)) => {
                for key in &check.keys {
                    self.look(key.region(), (check.start_ts, "who asked for its secondaries"));
                }
            }
            _ => {}
        }
    }

    /// What is wrong with the timestamps that a prewrite, which is about to be proposed, computed.
    pub(super) fn too_low(&self, command: &Command, mutations: &[Mutation]) -> Option<String> {
        let Command::Prewrite(prewrite) = command else { return None };
        let computed =
            mutations.iter().filter_map(|mutation| computed(mutation, prewrite.start_ts));
        computed.into_iter().find_map(|(key, at)| {
            let ranges = self.ranges.iter().filter(|(range, _)| range.contains(&key));
            let looks = self.keys.get(&key).into_iter().chain(ranges.map(|(_, look)| look));
            let (seen, who) =
                looks.max_by_key(|(seen, _)| *seen).filter(|(seen, _)| *seen >= at)?;
            let start_ts = prewrite.start_ts;
            Some(format!("that of {start_ts} on {key:?} is {at}, and {who} was at {seen}"))
        })
    }

    /// A transaction is committed.
    pub(super) fn committed(&self, start_ts: TimeStamp, at: TimeStamp) {
        let above = self.pushed.get(&start_ts).copied().unwrap_or_default();
        assert!(
            at > above,
            "who is told so is committed above: {start_ts} is at {at}, and was to be above {above}"
        );
    }
}

/// The key, in region form, and the timestamp that the store chose for it, if it did.
fn computed(mutation: &Mutation, start_ts: TimeStamp) -> Option<(Bytes, TimeStamp)> {
    let Mutation::Put { cf, key, value } = mutation else { return None };
    match cf {
        Cf::Lock => {
            let lock = Lock::decode(value).expect("locks are sound");
            lock.is_async_commit().then(|| (key.clone(), lock.min_commit_ts))
        }
        Cf::Write => {
            let write = Write::decode(value).expect("records are sound");
            let is_own = write.start_ts == start_ts && write.kind != WriteKind::Rollback;
            let (name, at) = split_versioned(key).expect("keys are sound");
            is_own.then(|| (key.slice_ref(name), at))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use txn::actions::Prewrite;
    use txn::mvcc::LockKind;

    use super::*;

    fn lock(key: &Key, min_commit_ts: u64) -> Mutation {
        let mut lock = Lock::new(LockKind::Put, key.user().clone(), TimeStamp(5), 100);
        lock.secondaries = Some(Vec::new());
        lock.min_commit_ts = TimeStamp(min_commit_ts);
        Mutation::Put { cf: Cf::Lock, key: key.region(), value: lock.encode().into() }
    }

    #[test]
    fn what_is_computed_is_above_all_looks_at_the_key() {
        let prewrite = Prewrite { start_ts: TimeStamp(5), ..Prewrite::default() };
        let (command, mut floors) = (Command::Prewrite(prewrite), Floors::default());
        let key = Key::new("a");
        floors.seen(&key, TimeStamp(50));
        floors.seen(&key, TimeStamp(40));
        floors.seen(&Key::new("b"), TimeStamp(90));
        floors.seen(&key, TimeStamp::MAX);
        assert_eq!(floors.too_low(&command, &[lock(&key, 51)]), None);
        assert!(floors.too_low(&command, &[lock(&key, 50)]).is_some());
        floors.seen_all(KeyRange::all(), (TimeStamp(60), "a scan"));
        assert!(floors.too_low(&command, &[lock(&key, 60)]).is_some());
    }

    #[test]
    #[should_panic(expected = "who is told so is committed above")]
    fn who_was_pushed_commits_above() {
        let mut floors = Floors::default();
        floors.pushed.insert(TimeStamp(5), TimeStamp(50));
        floors.committed(TimeStamp(5), TimeStamp(51));
        floors.committed(TimeStamp(5), TimeStamp(50));
    }
}
