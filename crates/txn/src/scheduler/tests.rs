//! The scheduler as a state machine: commands whose snapshots are empty, or have one lock.

use std::time::Duration;

use base::{Instant, KeyRange, Region, RegionId, TimeStamp};
use bytes::Bytes;
use storage::engine::{Engine, MemoryEngine, WriteBatch};
use storage::keys;

use super::*;
use crate::actions::{Commit, Op, PessimisticLock, PessimisticRollback, Prewrite, PrewriteKey};
use crate::mvcc::Reader;
use crate::{ConflictReason, DeadlockFound, KeyError};

const UNDER: Under = Under { region: RegionId(2), term: 6, version: 1 };

fn at(ms: u64) -> Instant {
    Instant(0) + Duration::from_millis(ms)
}

fn key(name: &str) -> Key {
    Key::new(Bytes::copy_from_slice(name.as_bytes()))
}

/// A store of one region, which it leads.
struct Store {
    engine: MemoryEngine,
    scheduler: Scheduler,
}

impl Store {
    fn new(limits: Limits) -> Self {
        Self { engine: MemoryEngine::new(), scheduler: Scheduler::new(limits) }
    }

    /// All locks through the log.
    fn without_memory() -> Self {
        Self::new(Limits { region_locks_bytes: 0, ..Limits::default() })
    }

    fn leading() -> Self {
        let mut store = Self::new(Limits::default());
        store.sync(UNDER, 0);
        store
    }

    fn sync(&mut self, under: Under, ts: u64) {
        let ticket = self.scheduler.leads(under).expect("it is news");
        self.scheduler.synced(under.region, ticket, TimeStamp(ts));
    }

    /// Takes a command as far as it goes without waiting.
    fn begin(&mut self, now: Instant, command: &Command) -> Option<Next> {
        let Submitted { ticket, granted } = self.scheduler.submit(command).expect("room");
        granted.then(|| self.go_on(now, ticket, command))
    }

    fn go_on(&mut self, now: Instant, ticket: Ticket, command: &Command) -> Next {
        let started = self.scheduler.start(UNDER, command).expect("synced");
        let snapshot = self.engine.snapshot();
        let region = Region { range: KeyRange::all(), ..region() };
        let mut reader = Reader::new(&*snapshot, &region).with_memory_locks(&started.memory);
        reader.set_unwritten(started.is_unwritten);
        let ran = command.run(&mut reader).expect("it runs");
        self.scheduler.ran(now, ticket, UNDER, command, ran)
    }

    fn apply(&mut self, now: Instant, writes: &[Mutation], flight: Flight) {
        let mut batch = WriteBatch::new();
        for write in writes {
            match write {
                Mutation::Put { cf, key, value } => {
                    batch.put(*cf, &keys::region_data_key(UNDER.region, key), value);
                }
                Mutation::Delete { cf, key } => {
                    batch.delete(*cf, &keys::region_data_key(UNDER.region, key));
                }
                Mutation::DeleteRange { .. } => unreachable!("no test deletes ranges"),
            }
        }
        self.engine.write(&batch).expect("memory does not fail");
        self.scheduler.applied(now, flight);
    }

    /// Runs a command to its end, which nobody stands in the way of.
    fn run(&mut self, now: Instant, command: &Command) -> Reply {
        match self.begin(now, command).expect("nobody holds its latches") {
            Next::Answer(reply) => reply,
            Next::Propose(writes, reply, flight) => {
                self.apply(now, &writes, flight);
                reply
            }
            Next::Wait(_) => panic!("it waits"),
        }
    }
}

fn region() -> Region {
    Region::first(UNDER.region, base::Peer::voter(base::PeerId(3), base::StoreId(1)))
}

fn prewrite(start_ts: u64, name: &str) -> Command {
    let keys = vec![PrewriteKey::new(Op::Put, key(name), "v".into())];
    let (primary, start_ts) = (Bytes::copy_from_slice(name.as_bytes()), TimeStamp(start_ts));
    Command::Prewrite(Prewrite { keys, primary, start_ts, ttl_ms: 10, ..Default::default() })
}

fn commit(start_ts: u64, commit_ts: u64, name: &str) -> Command {
    let (start_ts, commit_ts) = (TimeStamp(start_ts), TimeStamp(commit_ts));
    Command::Commit(Commit { keys: vec![key(name)], start_ts, commit_ts })
}

fn lock(start_ts: u64, for_update_ts: u64, name: &str, until_ms: u64) -> LockCommand {
    let action = PessimisticLock {
        keys: vec![(key(name), false)],
        primary: Bytes::copy_from_slice(name.as_bytes()),
        start_ts: TimeStamp(start_ts),
        ttl_ms: 10,
        for_update_ts: TimeStamp(for_update_ts),
        ..Default::default()
    };
    let wait_until = Some(at(until_ms));
    LockCommand { action, wait_until, is_first_lock: false, resource_group_tag: Bytes::new() }
}

fn unlock(start_ts: u64, name: &str) -> Command {
    let (start_ts, for_update_ts) = (TimeStamp(start_ts), TimeStamp(start_ts + 1000));
    Command::Unlock(PessimisticRollback { keys: vec![key(name)], start_ts, for_update_ts })
}

#[test]
fn commands_of_one_key_take_turns() {
    let mut store = Store::leading();
    let first = prewrite(5, "k");
    let Some(Next::Propose(writes, _, flight)) = store.begin(at(0), &first) else {
        panic!("nobody is in its way")
    };
    let second = commit(5, 9, "k");
    let waiting = store.scheduler.submit(&second).expect("room");
    assert!(!waiting.granted);
    assert!(matches!(store.begin(at(0), &prewrite(5, "x")), Some(Next::Propose(..))));
    store.apply(at(0), &writes, flight);
    let id = waiting.ticket.id();
    assert_eq!(store.scheduler.take_effects(), [Effect::Granted(id)]);
    let next = store.go_on(at(0), waiting.ticket, &second);
    let Next::Propose(writes, Reply::CommittedAt(TimeStamp(9)), flight) = next else {
        panic!("it sees the first one's lock")
    };
    store.apply(at(0), &writes, flight);
    assert_eq!(store.scheduler.take_effects(), []);
    assert_eq!(store.scheduler.commands(), 1, "that on x");
}

#[test]
fn a_failed_proposal_leaves_no_trace() {
    let mut store = Store::leading();
    let Command::Prewrite(mut request) = prewrite(5, "k") else { unreachable!() };
    request.try_one_pc = true;
    let one_phase = Command::Prewrite(request);
    let Some(Next::Propose(_, Reply::Prewrite(reply), flight)) = store.begin(at(0), &one_phase)
    else {
        panic!("it passes")
    };
    let read = ReadOptions::at(TimeStamp(100));
    assert_eq!(reply.one_pc_commit_ts, TimeStamp(6));
    assert!(store.scheduler.begin_read(&[key("k")], &read).is_err(), "it is shown to readers");
    assert_eq!(store.scheduler.close_up_to(TimeStamp(50)), Ok(TimeStamp(5)));
    store.scheduler.failed(flight);
    assert_eq!(store.scheduler.begin_read(&[key("k")], &read), Ok(()));
    assert_eq!(store.scheduler.close_up_to(TimeStamp(50)), Ok(TimeStamp(50)));
    let Reply::Prewrite(again) = store.run(at(0), &one_phase) else { unreachable!() };
    assert_eq!(again.one_pc_commit_ts, TimeStamp(101), "above what was read meanwhile");
}

#[test]
fn only_a_synced_leader_computes_timestamps() {
    let mut store = Store::leading();
    let Command::Prewrite(mut request) = prewrite(5, "k") else { unreachable!() };
    request.secondaries = Some(Vec::new());
    let command = Command::Prewrite(request);
    let later = Under { term: 7, ..UNDER };
    assert_eq!(store.scheduler.start(later, &command), Err(NotSynced));
    let ticket = store.scheduler.leads(later).expect("it is news");
    assert_eq!(store.scheduler.leads(later), None);
    assert_eq!(store.scheduler.start(later, &command), Err(NotSynced));
    store.scheduler.synced(later.region, ticket, TimeStamp(70));
    assert!(store.scheduler.start(later, &command).is_ok());
    assert_eq!(store.scheduler.start(UNDER, &command), Err(NotSynced), "of an earlier term");
    let grown = Under { version: 2, ..later };
    assert_eq!(store.scheduler.start(grown, &command), Err(NotSynced), "of other keys");
    assert!(store.scheduler.leads(grown).is_some());
    assert!(!store.scheduler.is_synced(grown));
    store.scheduler.lost(UNDER.region);
    assert_eq!(store.scheduler.start(grown, &command), Err(NotSynced));
}

/// Whether a prewrite of `name` that began at `start_ts` is told that it need not look.
fn need_not_look(store: &mut Store, under: Under, start_ts: u64, name: &str) -> bool {
    store.scheduler.start(under, &prewrite(start_ts, name)).expect("two phases").is_unwritten
}

#[test]
fn a_prewrite_looks_where_there_can_be_newer_records() {
    let mut store = Store::new(Limits { ahead_ms: 0, ..Limits::default() });
    assert!(!need_not_look(&mut store, UNDER, 9, "k"), "it leads nothing");
    let ticket = store.scheduler.leads(UNDER).expect("it is news");
    assert!(!need_not_look(&mut store, UNDER, 9, "k"), "nobody knows what others wrote");
    store.scheduler.synced(UNDER.region, ticket, TimeStamp(5));
    assert!(!need_not_look(&mut store, UNDER, 5, "k"), "others may have written until then");
    assert!(need_not_look(&mut store, UNDER, 6, "k"));
    assert!(!need_not_look(&mut store, Under { term: 7, ..UNDER }, 6, "k"), "another term");
    store.run(at(0), &prewrite(6, "k"));
    assert!(need_not_look(&mut store, UNDER, 7, "k"), "a lock is no record, and is looked for");
    let Some(Next::Propose(writes, _, flight)) = store.begin(at(0), &commit(6, 8, "k")) else {
        panic!("it has its lock")
    };
    assert!(!need_not_look(&mut store, UNDER, 7, "k"), "from its proposal on");
    store.apply(at(0), &writes, flight);
    assert!(!need_not_look(&mut store, UNDER, 8, "k"));
    assert!(need_not_look(&mut store, UNDER, 9, "k"));
    assert!(need_not_look(&mut store, UNDER, 7, "x"), "another key");
    let grown = Under { version: 2, ..UNDER };
    let ticket = store.scheduler.leads(grown).expect("it has other keys");
    assert!(!need_not_look(&mut store, grown, 9, "k"), "which others wrote");
    store.scheduler.synced(grown.region, ticket, TimeStamp(20));
    assert!(need_not_look(&mut store, grown, 21, "k"));
}

#[test]
fn what_clients_make_up_is_counted_in_and_bounded() {
    let ahead_ms = 3;
    let mut store = Store::new(Limits { ahead_ms, ..Limits::default() });
    store.sync(UNDER, TimeStamp::compose(7, 1).0);
    let last = TimeStamp::compose(7 + ahead_ms, 0);
    assert!(!need_not_look(&mut store, UNDER, last.0, "k"));
    assert!(need_not_look(&mut store, UNDER, last.0 + 1, "k"));
    store.scheduler.set_ts_limit(last);
    store.run(at(0), &prewrite(6, "k"));
    let too_late = store.scheduler.submit(&commit(6, last.0 + 1, "k"));
    assert!(matches!(too_late, Err(SubmitRefused::Ts(_))), "nobody was given that timestamp");
    store.run(at(0), &commit(6, last.0, "k"));
}

#[test]
fn too_many_commands_are_refused() {
    let limits = Limits { commands_max: 2, ..Limits::default() };
    let mut store = Store::new(limits);
    let first = store.scheduler.submit(&prewrite(5, "a")).expect("room");
    let second = store.scheduler.submit(&prewrite(5, "b")).expect("room");
    assert_eq!(store.scheduler.submit(&prewrite(5, "c")).err(), Some(SubmitRefused::Busy));
    store.scheduler.abandon(first.ticket);
    let third = store.scheduler.submit(&prewrite(5, "c")).expect("room");
    let limits = Limits { bytes_max: 10, ..Limits::default() };
    let refused = Store::new(limits).scheduler.submit(&prewrite(5, "a")).err();
    assert_eq!(refused, Some(SubmitRefused::Busy));
    store.scheduler.abandon(second.ticket);
    store.scheduler.abandon(third.ticket);
    assert_eq!(store.scheduler.commands(), 0);
}

/// 5 holds `k`, the others wait in line; returns their tickets.
fn line(store: &mut Store, waiters: &[LockCommand]) -> Vec<CommandId> {
    store.run(at(0), &Command::Lock(lock(5, 5, "k", 0)));
    let mut ids = Vec::new();
    for waiter in waiters {
        let next = store.begin(at(1), &Command::Lock(waiter.clone()));
        let Some(Next::Wait(ticket)) = next else { panic!("it waits, not {next:?}") };
        ids.push(ticket.id());
    }
    ids
}

#[test]
fn a_released_lock_wakes_one() {
    for mut store in [Store::without_memory(), Store::leading()] {
        let ids = line(&mut store, &[lock(9, 9, "k", 1_000), lock(8, 8, "k", 1_000)]);
        let effects = store.scheduler.take_effects();
        assert!(matches!(&effects[..], [Effect::Detect(a), Effect::Detect(_)] if a.txn.0 == 9));
        store.run(at(2), &unlock(5, "k"));
        let effects = store.scheduler.take_effects();
        let [Effect::WaitOver(over), Effect::Answer(woken, Reply::Lock(outcome))] = &effects[..]
        else {
            panic!("one is told, and not {effects:?}")
        };
        assert_eq!((over.txn.0, *woken), (8, ids[1]), "the oldest first");
        let LockOutcome::Refused(LockRefused::Error(error)) = outcome else {
            panic!("{outcome:?}")
        };
        let KeyError::Conflict(conflict) = &**error else { panic!("{error:?}") };
        assert_eq!(
            (conflict.conflict_ts.0, conflict.reason),
            (5, ConflictReason::PessimisticRetry)
        );
        assert_eq!(store.scheduler.waiting(), 1);
        // It tries again, has the lock, and the other waits for it now.
        let again = Command::Lock(lock(8, 10, "k", 0));
        assert!(matches!(store.run(at(3), &again), Reply::Lock(LockOutcome::Granted(_))));
        let effects = store.scheduler.take_effects();
        assert_eq!(effects, [Effect::HolderChanged(key("k"), TimeStamp(8))]);
        assert_eq!(store.scheduler.edges()[0].holder, TimeStamp(8));
        store.scheduler.expire(at(100));
        assert_eq!(store.scheduler.take_effects(), [], "nobody else is woken");
    }
}

#[test]
fn a_wait_ends_by_time_by_deadlock_by_loss_and_by_leaving() {
    let mut store = Store::leading();
    let waiters: Vec<_> = (6..10).map(|ts| lock(ts, ts, "k", 50 + ts)).collect();
    let ids = line(&mut store, &waiters);
    store.scheduler.take_effects();
    store.scheduler.expire(at(56));
    let effects = store.scheduler.take_effects();
    let [_, Effect::Answer(id, Reply::Lock(LockOutcome::Refused(LockRefused::Held(info))))] =
        &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!((*id, info.lock.start_ts.0, info.unchanged_for_ms), (ids[0], 5, 55));
    let found = DeadlockFound {
        lock_ts: TimeStamp(5),
        lock_key: "k".into(),
        deadlock_key_hash: 0,
        deadlock_key: "k".into(),
        chain: Vec::new(),
    };
    store.scheduler.deadlock(TimeStamp(7), &"k".into(), &found);
    store.scheduler.deadlock(TimeStamp(7), &"x".into(), &found);
    assert!(
        matches!(&store.scheduler.take_effects()[..], [_, Effect::Answer(id, _)] if *id == ids[1])
    );
    assert!(store.scheduler.cancel(ids[2]) && !store.scheduler.cancel(ids[2]));
    assert!(matches!(&store.scheduler.take_effects()[..], [Effect::WaitOver(_)]));
    store.scheduler.lost(UNDER.region);
    assert!(matches!(&store.scheduler.take_effects()[..], [_, Effect::Lost(id)] if *id == ids[3]));
    assert_eq!((store.scheduler.waiting(), store.scheduler.next_timer()), (0, None));
    assert_eq!(store.scheduler.commands(), 0);
}

#[test]
fn a_forced_waiter_runs_again() {
    let mut store = Store::leading();
    let mut forced = lock(9, 9, "k", 1_000);
    forced.action.allow_conflict = true;
    store.run(at(0), &Command::Lock(lock(5, 5, "k", 0)));
    let command = Command::Lock(forced);
    let Some(Next::Wait(ticket)) = store.begin(at(1), &command) else { panic!("it waits") };
    store.scheduler.take_effects();
    let read = ReadOptions::at(TimeStamp(20));
    assert_eq!(store.scheduler.begin_read(&[key("x")], &read), Ok(()));
    let Command::Prewrite(mut request) = prewrite(5, "k") else { unreachable!() };
    request.for_update_ts = TimeStamp(5);
    request.try_one_pc = true;
    store.run(at(2), &Command::Prewrite(request));
    let effects = store.scheduler.take_effects();
    assert_eq!(effects[1..], [Effect::Granted(ticket.id())]);
    let next = store.go_on(at(2), ticket, &command);
    let Next::Answer(Reply::Lock(LockOutcome::Granted(granted))) = next else { panic!("{next:?}") };
    assert_eq!(granted[0].conflict_ts, Some(TimeStamp(21)));
    assert_eq!(store.scheduler.commands(), 0);
}

#[test]
fn locks_in_memory_follow_leadership() {
    let mut store = Store::leading();
    let take = |store: &mut Store, name| store.run(at(0), &Command::Lock(lock(5, 5, name, 0)));
    take(&mut store, "a");
    take(&mut store, "b");
    assert_eq!(store.scheduler.memory_lock_count(), 2);
    let Some(Next::Propose(writes, _, flight)) = store.begin(at(0), &unlock(5, "b")) else {
        panic!("a lock in memory is removed through the log")
    };
    let over = store.scheduler.hand_over(UNDER.region, 6, 1).expect("one is there");
    assert_eq!(over.len(), 1, "b is being removed already");
    store.apply(at(0), &writes, flight);
    // Nothing gets in while they are handed over.
    assert!(matches!(
        store.begin(at(0), &Command::Lock(lock(5, 5, "c", 0))),
        Some(Next::Propose(..))
    ));
    store.scheduler.handed_over(UNDER.region, 6, 1, true);
    assert_eq!(store.scheduler.leads(UNDER), None, "the step came to nothing");
    assert_eq!(store.scheduler.memory_lock_count(), 0, "the engine has it");
    take(&mut store, "d");
    assert_eq!(store.scheduler.memory_lock_count(), 1);
    // The step is over before the writes' fate is known.
    assert!(store.scheduler.hand_over(UNDER.region, 6, 2).is_some());
    assert_eq!(store.scheduler.leads(UNDER), None);
    store.scheduler.handed_over(UNDER.region, 6, 2, false);
    assert_eq!(store.scheduler.memory_lock_count(), 1, "they failed, so it is still here");
    // A merge is no hand-over, a split is one.
    let grown = Under { version: 2, ..UNDER };
    assert!(store.scheduler.leads(grown).is_some());
    assert_eq!(store.scheduler.all_memory_locks(grown).len(), 1);
    assert_eq!(store.scheduler.all_memory_locks(UNDER).len(), 0);
    assert!(store.scheduler.hand_over(UNDER.region, 6, 3).is_some());
    store.scheduler.handed_over(UNDER.region, 6, 3, true);
    assert!(store.scheduler.leads(Under { version: 3, ..UNDER }).is_some());
    assert_eq!(store.scheduler.memory_lock_count(), 0);
}

#[test]
fn a_second_step_does_not_settle_the_locks_of_the_first() {
    let mut store = Store::leading();
    let take = |store: &mut Store| store.run(at(0), &Command::Lock(lock(5, 5, "a", 0)));
    let moved = Under { version: 2, ..UNDER };
    for applied in [true, false] {
        take(&mut store);
        // The first step comes to nothing before it is known what became of the locks.
        assert_eq!(store.scheduler.hand_over(UNDER.region, 6, 1).map(|over| over.len()), Some(1));
        assert_eq!(store.scheduler.leads(UNDER), None);
        assert_eq!(store.scheduler.hand_over(UNDER.region, 6, 2), None, "they are on their way");
        store.scheduler.handed_over(UNDER.region, 6, 2, false);
        store.scheduler.handed_over(UNDER.region, 6, 1, applied);
        assert_eq!(store.scheduler.memory_lock_count(), 1, "nobody knows yet of the second step");
        assert!(store.scheduler.leads(moved).is_some(), "which cuts the region");
        assert_eq!(store.scheduler.memory_lock_count(), 0, "the key may be another region's");
        store = Store::leading();
    }
}

#[test]
fn what_a_cut_region_handed_over_in_vain_is_lost() {
    for applied in [true, false] {
        let mut store = Store::leading();
        store.run(at(0), &Command::Lock(lock(5, 5, "a", 0)));
        assert!(store.scheduler.hand_over(UNDER.region, 6, 1).is_some());
        let moved = Under { version: 2, ..UNDER };
        assert!(store.scheduler.leads(moved).is_some(), "cut before the locks are settled");
        assert_eq!(store.scheduler.leads(moved), None, "and told of once more");
        store.scheduler.handed_over(UNDER.region, 6, 1, applied);
        assert_eq!(store.scheduler.memory_lock_count(), 0, "the key may be another region's");
        assert_eq!(store.scheduler.hand_over(UNDER.region, 6, 2), None);
    }
}

#[test]
fn the_time_of_all_is_up_at_once() {
    let mut store = Store::leading();
    let waiters: Vec<_> = (6..10).map(|ts| lock(ts, ts, "k", 50)).collect();
    line(&mut store, &waiters);
    store.scheduler.take_effects();
    store.scheduler.expire(at(50));
    let answered = |effect: &Effect| matches!(effect, Effect::Answer(..));
    assert_eq!(store.scheduler.take_effects().iter().filter(|e| answered(e)).count(), 4);
    assert!(store.scheduler.awaited.is_empty());
}

#[test]
fn ten_thousand_wait_at_one_key() {
    const WAITERS: u64 = 10_000;
    let mut store = Store::leading();
    let waiters: Vec<_> = (10..10 + WAITERS).map(|ts| lock(ts, ts, "k", 60_000)).collect();
    line(&mut store, &waiters);
    store.scheduler.take_effects();
    let mut holder = 5;
    for round in 0..WAITERS {
        store.run(at(2), &unlock(holder, "k"));
        let woken = |effect: &Effect| matches!(effect, Effect::Answer(..));
        assert_eq!(store.scheduler.take_effects().iter().filter(|e| woken(e)).count(), 1);
        holder = 10 + round;
        store.run(at(2), &Command::Lock(lock(holder, holder, "k", 0)));
        assert!(store.scheduler.take_effects().len() <= 1, "a hand-over concerns nobody else");
    }
    assert_eq!(store.scheduler.waiting(), 0);
}
