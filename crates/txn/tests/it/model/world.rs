//! The node, the lines between it and the clients, and what is checked.

use std::collections::BTreeMap;

use base::{KeyRange, Prng, TimeStamp};
use bytes::Bytes;
use pontoon_txn as txn;
use storage::engine::Cf;
use txn::actions::Outcome;
use txn::concurrency::{Concurrency, ReadRefused};
use txn::mvcc::{Key, ReadOptions, Reader, Row, TxnRecord, Write, WriteKind};
use txn::{KeyError, LockInfo, Mutation, TxnError};

use super::client::{ACCOUNTS, Answer, Around, Resolver, Rpc, Told, Transfer, account};
use crate::node::{Node, NotRun, Pending};

const MONEY: i64 = 100;
const TRANSFERS_MAX: usize = 4;

/// With so much under way nobody begins anything new.
const LINES_MAX: usize = 12;

/// What happened in a run, or in many.
#[derive(Debug, Default)]
pub struct Figures {
    pub committed: u64,
    pub rolled_back: u64,
    pub untold: u64,
    pub resolved: u64,
    pub pessimistic: u64,
    pub async_commits: u64,
    pub one_phase: u64,
    pub late: u64,
    pub restarts: u64,
    pub snapshots: u64,
    pub lines: u64,
}

impl Figures {
    pub fn add(&mut self, other: &Figures) {
        self.committed += other.committed;
        self.rolled_back += other.rolled_back;
        self.untold += other.untold;
        self.resolved += other.resolved;
        self.pessimistic += other.pessimistic;
        self.async_commits += other.async_commits;
        self.one_phase += other.one_phase;
        self.late += other.late;
        self.restarts += other.restarts;
        self.snapshots += other.snapshots;
        self.lines += other.lines;
    }
}

enum Who {
    Transfer(Box<Transfer>),
    Resolver(Box<Resolver>),
}

/// A client's state, and what it waits for.
struct Task {
    who: Who,
    waiting: Option<(u64, Rpc)>,
    crashed: bool,
}

/// What a task does when it has its turn; a new task comes out of it, or not.
type Act<'a> = Box<dyn FnOnce(Option<&mut Who>, &mut Around<'_>) -> Option<Who> + 'a>;

enum Line {
    Request { task: usize, seq: u64, rpc: Rpc },
    Answer { task: usize, seq: u64, answer: Answer },
}

pub struct World {
    prng: Prng,
    node: Node,
    now_ms: u64,
    logical: u64,
    tasks: Vec<Task>,
    lines: Vec<Line>,
    /// Proposed, not applied: what to answer afterwards.
    proposed: Vec<(Pending, usize, u64, Answer)>,
    seq: u64,
    snapshots: Vec<(TimeStamp, BTreeMap<Bytes, Bytes>)>,
    figures: Figures,
}

impl World {
    pub fn new(mut prng: Prng) -> Self {
        let mut node = Node::default();
        node.in_memory = prng.one_in(2);
        let start = Write::new(WriteKind::Put, TimeStamp(1), Some(MONEY.to_string().into()));
        for i in 0..ACCOUNTS {
            let (key, value) = (account(i).versioned_region(TimeStamp(2)), start.encode().into());
            node.write(&[Mutation::Put { cf: Cf::Write, key, value }]);
        }
        Self {
            prng,
            node,
            now_ms: 1,
            logical: 0,
            tasks: Vec::new(),
            lines: Vec::new(),
            proposed: Vec::new(),
            seq: 0,
            snapshots: Vec::new(),
            figures: Figures::default(),
        }
    }

    fn now(&self) -> TimeStamp {
        TimeStamp::compose(self.now_ms, self.logical)
    }

    fn tso(&mut self) -> TimeStamp {
        self.logical += 1;
        self.now()
    }

    pub fn step(&mut self) {
        if self.prng.one_in(3) {
            self.now_ms += self.prng.below(4);
        }
        match self.prng.below(100) {
            0..=64 => self.deliver(),
            65..=84 => self.apply_one(),
            85..=91 => self.begin_transfer(),
            92..=94 => self.lose_patience(),
            95..=98 => self.read_all(),
            _ => self.trouble(),
        }
    }

    /// Now and then a client crashes, or the leader.
    fn trouble(&mut self) {
        let task = self.pick_task(|task| !task.crashed);
        match (self.prng.below(4), task) {
            (0, _) => self.crash_leader(),
            (_, Some(i)) => self.tasks[i].crashed = true,
            _ => {}
        }
    }

    fn crash_leader(&mut self) {
        self.figures.restarts += 1;
        for (pending, ..) in std::mem::take(&mut self.proposed) {
            // What was proposed may be committed all the same. Nobody is told.
            if self.prng.one_in(2) {
                self.node.apply(pending);
            } else {
                self.node.abandon(pending);
            }
        }
        let ts = self.tso();
        self.node.restart(ts);
    }

    fn pick_task(&mut self, wanted: impl Fn(&Task) -> bool) -> Option<usize> {
        let found: Vec<usize> = (0..self.tasks.len()).filter(|i| wanted(&self.tasks[*i])).collect();
        (!found.is_empty()).then(|| found[self.prng.below(found.len() as u64) as usize])
    }

    fn begin_transfer(&mut self) {
        let busy = |task: &&Task| task.waiting.is_some() && !task.crashed;
        if self.lines.len() > LINES_MAX || self.tasks.iter().filter(busy).count() >= TRANSFERS_MAX {
            return;
        }
        let begin = |_: Option<&mut Who>, around: &mut Around<'_>| {
            Some(Who::Transfer(Box::new(Transfer::begin(around))))
        };
        self.act(None, Box::new(begin));
    }

    /// Lets a task act, and puts on the lines what it sends. `None`: a new task.
    fn act(&mut self, task: Option<usize>, act: Act<'_>) {
        let (mut logical, now_ms) = (self.logical, self.now_ms);
        let mut tso = || {
            logical += 1;
            TimeStamp::compose(now_ms, logical)
        };
        let (send, forget, spawn) = (Vec::new(), Vec::new(), Vec::new());
        let mut around = Around { prng: &mut self.prng, tso: &mut tso, send, forget, spawn };
        let who = task.map(|task| &mut self.tasks[task].who);
        let new = act(who, &mut around);
        let Around { send, forget, spawn, .. } = around;
        self.logical = logical;
        let task = task.unwrap_or(self.tasks.len());
        if let Some(who) = new {
            self.tasks.push(Task { who, waiting: None, crashed: false });
        }
        assert!(send.len() <= 1, "one thing after the other");
        self.tasks[task].waiting = None;
        for rpc in send {
            self.tasks[task].waiting = Some((self.seq + 1, rpc.clone()));
            self.send(task, rpc);
        }
        for rpc in forget {
            self.send(task, rpc);
        }
        for resolver in spawn {
            self.begin_resolver(resolver);
        }
    }

    fn send(&mut self, task: usize, rpc: Rpc) {
        self.seq += 1;
        self.lines.push(Line::Request { task, seq: self.seq, rpc });
    }

    fn begin_resolver(&mut self, mut resolver: Resolver) {
        let now = TimeStamp::compose(self.now_ms, 0);
        let begin = move |_: Option<&mut Who>, around: &mut Around<'_>| {
            resolver.begin(around, now);
            Some(Who::Resolver(Box::new(resolver)))
        };
        self.act(None, Box::new(begin));
    }

    /// A client that waits sends its request again.
    fn lose_patience(&mut self) {
        if self.lines.len() > LINES_MAX {
            return;
        }
        if let Some(task) = self.pick_task(|task| task.waiting.is_some() && !task.crashed) {
            let (seq, mut rpc) = self.tasks[task].waiting.clone().expect("it waits");
            if let Rpc::Prewrite(prewrite) = &mut rpc {
                prewrite.is_retry = true;
            }
            self.lines.push(Line::Request { task, seq, rpc });
        }
    }

    fn deliver(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let i = self.prng.below(self.lines.len() as u64) as usize;
        self.figures.lines += 1;
        // Lost, kept for a second time, or as it should be.
        let line = match self.prng.below(20) {
            0 => {
                self.lines.swap_remove(i);
                return;
            }
            1..=4 => match &self.lines[i] {
                Line::Request { task, seq, rpc } => {
                    self.figures.late += 1;
                    Line::Request { task: *task, seq: *seq, rpc: rpc.clone() }
                }
                Line::Answer { .. } => self.lines.swap_remove(i),
            },
            _ => self.lines.swap_remove(i),
        };
        match line {
            Line::Request { task, seq, rpc } => self.serve(task, seq, rpc),
            Line::Answer { task, seq, answer } => self.answer(task, seq, answer),
        }
    }

    fn answer(&mut self, task: usize, seq: u64, answer: Answer) {
        let waits = self.tasks[task].waiting.as_ref().is_some_and(|(waits, _)| *waits == seq);
        if self.tasks[task].crashed || !waits {
            return;
        }
        let now = TimeStamp::compose(self.now_ms, 0);
        let go_on = |who: Option<&mut Who>, around: &mut Around<'_>| {
            match who.expect("an old task") {
                Who::Transfer(transfer) => transfer.on_answer(answer, around),
                Who::Resolver(resolver) => resolver.on_answer(answer, around, now),
            }
            None
        };
        self.act(Some(task), Box::new(go_on));
    }

    fn apply_one(&mut self) {
        if self.proposed.is_empty() {
            return;
        }
        let i = self.prng.below(self.proposed.len() as u64) as usize;
        let (pending, task, seq, answer) = self.proposed.swap_remove(i);
        self.node.apply(pending);
        self.lines.push(Line::Answer { task, seq, answer });
    }

    fn serve(&mut self, task: usize, seq: u64, rpc: Rpc) {
        match self.run(rpc.clone()) {
            Ok((answer, Some(pending))) => self.proposed.push((pending, task, seq, answer)),
            Ok((answer, None)) => self.lines.push(Line::Answer { task, seq, answer }),
            Err(NotRun::Latched) => self.lines.push(Line::Request { task, seq, rpc }),
            Err(NotRun::Failed(TxnError::Key(error))) => {
                let answer = Answer::Failed(error);
                self.lines.push(Line::Answer { task, seq, answer });
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    fn run(&mut self, rpc: Rpc) -> Result<(Answer, Option<Pending>), NotRun> {
        match rpc {
            Rpc::Get { keys, ts } => Ok((Answer::Rows(self.get(&keys, ts)), None)),
            Rpc::Lock(r) => {
                let (keys, reads_at) = (r.latch_keys().cloned().collect(), r.reads_at());
                self.write(keys, reads_at, Answer::Lock, |reader, _| r.run(reader))
            }
            Rpc::Prewrite(r) => {
                let (keys, reads_at) = (r.latch_keys().cloned().collect(), r.reads_at());
                self.write(keys, reads_at, Answer::Prewrite, |reader, concurrency| {
                    Ok(r.plan(reader)?.publish(concurrency))
                })
            }
            Rpc::Commit(r) => {
                self.write(r.keys.clone(), None, |_| Answer::Done, |reader, _| r.run(reader))
            }
            Rpc::Rollback(r) => {
                self.write(r.keys.clone(), None, |()| Answer::Done, |reader, _| r.run(reader))
            }
            Rpc::Unlock(r) => {
                self.write(r.keys.clone(), None, |()| Answer::Done, |reader, _| r.run(reader))
            }
            Rpc::Status(r) => {
                let (keys, reads_at) = (vec![r.primary.clone()], r.reads_at());
                let answer = |(status, action)| Answer::Status(status, action);
                self.write(keys, reads_at, answer, |reader, _| r.run(reader))
            }
            Rpc::Secondaries(r) => {
                let keys = r.keys.clone();
                self.write(keys, r.reads_at(), Answer::Secondaries, |reader, _| r.run(reader))
            }
            Rpc::Resolve(r) => {
                self.write(r.keys.clone(), None, |_| Answer::Done, |reader, _| r.run(reader))
            }
        }
    }

    fn write<R>(
        &mut self,
        keys: Vec<Key>,
        reads_at: Option<TimeStamp>,
        answer: impl FnOnce(R) -> Answer,
        action: impl FnOnce(&mut Reader<'_>, &mut Concurrency) -> Result<Outcome<R>, TxnError>,
    ) -> Result<(Answer, Option<Pending>), NotRun> {
        let (reply, pending) = self.node.run(&keys, reads_at, action)?;
        Ok((answer(reply), Some(pending)))
    }

    fn get(&mut self, keys: &[Key], ts: TimeStamp) -> Vec<Row> {
        let read = ReadOptions::at(ts);
        match self.node.concurrency.begin_read(keys, &read) {
            Ok(()) => self.node.read(|reader| reader.batch_get(keys, &read)).expect("readable"),
            Err(ReadRefused::Key(error)) => {
                let KeyError::Locked(info) = &*error else { panic!("{error}") };
                vec![Row { key: info.key.clone(), outcome: Err(error) }]
            }
            Err(ReadRefused::Ts(error)) => panic!("{error}"),
        }
    }

    fn accounts() -> Vec<Key> {
        (0..ACCOUNTS).map(account).collect()
    }

    /// A snapshot of all accounts, at a new timestamp, the newest, or an old one.
    fn read_all(&mut self) {
        let ts = match self.prng.below(4) {
            0 => TimeStamp::MAX,
            1 if !self.snapshots.is_empty() => {
                let i = self.prng.below(self.snapshots.len() as u64) as usize;
                self.snapshots[i].0
            }
            _ => self.tso(),
        };
        let rows = self.get(&Self::accounts(), ts);
        if rows.iter().any(|row| row.outcome.is_err()) {
            let locks: Vec<LockInfo> = rows.into_iter().filter_map(lock_of).collect();
            locks.into_iter().for_each(|info| self.begin_resolver(Resolver::new(info)));
            return;
        }
        self.figures.snapshots += 1;
        let values = check_sum(rows, ts);
        if ts != TimeStamp::MAX {
            self.snapshots.push((ts, values));
        }
    }

    /// Ends the run: everything that is under way arrives, all locks are resolved; twice.
    pub fn finish(mut self) -> Figures {
        for _ in 0..2 {
            while !self.proposed.is_empty() {
                self.apply_one();
            }
            self.resolve_everything();
            self.check_all();
            // Late copies of anything must not change what is decided.
            for _ in 0..self.lines.len().min(40) {
                self.deliver();
            }
        }
        while !self.proposed.is_empty() {
            self.apply_one();
        }
        self.resolve_everything();
        self.check_all();
        self.count();
        self.figures
    }

    fn resolve_everything(&mut self) {
        for _ in 0..100 {
            let found =
                self.node.read(|reader| reader.scan_locks(&KeyRange::all(), 0, |_, _| true));
            let locks = found.expect("readable").locks;
            if locks.is_empty() {
                return;
            }
            for (key, lock) in locks {
                self.resolve_now(LockInfo::new(&key, lock));
            }
        }
        panic!("locks that nobody can resolve");
    }

    /// A resolver that has all the time and no bad line.
    fn resolve_now(&mut self, info: LockInfo) {
        let ts = self.tso();
        let mut tso = || ts;
        let (send, forget, spawn) = (Vec::new(), Vec::new(), Vec::new());
        let mut prng = self.prng.fork();
        let mut around = Around { prng: &mut prng, tso: &mut tso, send, forget, spawn };
        let mut resolver = Resolver::new(info);
        resolver.begin(&mut around, TimeStamp::MAX);
        loop {
            let next = around.send.pop().map(|rpc| (rpc, true));
            let Some((rpc, waits)) = next.or_else(|| around.forget.pop().map(|rpc| (rpc, false)))
            else {
                return;
            };
            let answer = match self.run(rpc) {
                Ok((answer, pending)) => {
                    if let Some(pending) = pending {
                        self.node.apply(pending);
                    }
                    answer
                }
                Err(NotRun::Failed(TxnError::Key(error))) => Answer::Failed(error),
                Err(other) => panic!("{other:?}"),
            };
            if waits {
                resolver.on_answer(answer, &mut around, TimeStamp::MAX);
            }
        }
    }

    fn check_all(&mut self) {
        let snapshots = self.snapshots.clone();
        for (ts, values) in snapshots {
            let again = check_sum(self.get(&Self::accounts(), ts), ts);
            assert_eq!(again, values, "the snapshot at {ts} changed");
        }
        for task in &self.tasks {
            if let Who::Transfer(transfer) = &task.who {
                self.check_transfer(transfer);
            }
        }
    }

    fn check_transfer(&self, transfer: &Transfer) {
        let start_ts = transfer.start_ts;
        let of_key = |key: &Key| match self.node.read(|reader| reader.txn_record(key, start_ts)) {
            Ok(TxnRecord::Committed { commit_ts, .. }) => Some(commit_ts),
            Ok(_) => None,
            Err(error) => panic!("{error}"),
        };
        let outcomes: Vec<Option<TimeStamp>> = transfer.keys.iter().map(of_key).collect();
        let first = outcomes[0];
        assert!(outcomes.iter().all(|at| *at == first), "{start_ts} is half done: {outcomes:?}");
        match transfer.told {
            Some(Told::Committed(at)) => {
                assert_eq!(first, Some(at), "{start_ts} was told committed at {at}");
            }
            Some(Told::RolledBack) => assert_eq!(first, None, "{start_ts} was told rolled back"),
            None => {}
        }
        let Some(commit_ts) = first else { return };
        assert!(commit_ts > start_ts);
        for (key, read_ts) in &transfer.read_ts {
            let below = TimeStamp(commit_ts.0 - 1);
            let before = self.node.read(|reader| reader.newest_change(key, below));
            let (before, _) = before.expect("readable").expect("accounts were always there");
            assert!(
                before <= *read_ts,
                "{start_ts} read {key:?} at {read_ts} and lost the update of {before}"
            );
        }
    }

    fn count(&mut self) {
        for task in &self.tasks {
            match &task.who {
                Who::Transfer(transfer) => {
                    let figures = &mut self.figures;
                    match transfer.told {
                        Some(Told::Committed(_)) => figures.committed += 1,
                        Some(Told::RolledBack) => figures.rolled_back += 1,
                        None => figures.untold += 1,
                    }
                    if matches!(transfer.told, Some(Told::Committed(_))) {
                        figures.pessimistic += u64::from(transfer.pessimistic);
                        figures.one_phase += u64::from(transfer.one_pc);
                        figures.async_commits +=
                            u64::from(transfer.async_commit && !transfer.one_pc);
                    }
                }
                Who::Resolver(resolver) => self.figures.resolved += u64::from(resolver.resolved),
            }
        }
    }
}

fn lock_of(row: Row) -> Option<LockInfo> {
    match *row.outcome.err()? {
        KeyError::Locked(info) => Some(info),
        _ => None,
    }
}

fn check_sum(rows: Vec<Row>, ts: TimeStamp) -> BTreeMap<Bytes, Bytes> {
    let mut sum = 0;
    let mut values = BTreeMap::new();
    for row in rows {
        let value = row.outcome.unwrap_or_else(|error| panic!("at {ts}: {error}")).value;
        sum += std::str::from_utf8(&value).expect("digits").parse::<i64>().expect("a number");
        values.insert(row.key, value);
    }
    assert_eq!(sum, MONEY * ACCOUNTS as i64, "the snapshot at {ts} has another sum: {values:?}");
    values
}
