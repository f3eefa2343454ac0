//! What the clients want: registers, pairs that change together, lists that only they append to,
//! timestamps.

use base::Prng;
use bytes::Bytes;

use super::history::{Done, Op};
use super::plan::Plan;

/// Puts of one list: a scan shows all of them.
const LIST_MAX: u64 = 100;

/// What one client does all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Single keys: put, get, delete; on other keys compare-and-swap.
    Registers,
    /// Two keys that are written together and read together.
    Pairs,
    /// Its own keys, one after the other; a scan shows all of them.
    List,
    Timestamps,
    /// What a script says.
    Script,
}

/// An operation.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) op: Op,
    check: Check,
}

/// What the answer must be, as the client alone knows.
#[derive(Clone, Debug)]
enum Check {
    Nothing,
    /// Both values are the same.
    Pair,
    /// Number `n` of the list is being put.
    Put(u64),
    /// These and no others; those in doubt may be there.
    List,
}

pub(crate) struct Workload {
    id: usize,
    kind: Kind,
    prng: Prng,
    keys: u64,
    written: u64,
    /// Puts of the list that are acknowledged, and those in doubt.
    listed: Vec<u64>,
    doubts: Vec<u64>,
    /// What was last seen under a key that is swapped.
    seen: std::collections::BTreeMap<Bytes, Option<Bytes>>,
    /// The last look at everything is done.
    closed: bool,
    script: Option<Op>,
}

/// A key of a register.
pub(crate) fn register(number: u64) -> Bytes {
    format!("r{number:03}").into()
}

/// A key that is swapped.
fn swapped(number: u64) -> Bytes {
    format!("s{number:03}").into()
}

/// Two keys that are one fact. No split goes between them.
fn pair(number: u64) -> (Bytes, Bytes) {
    (format!("p{number:03}").into(), format!("p{number:03}+").into())
}

/// Keys where regions are cut.
pub(crate) fn split_key(prng: &mut Prng, keys: u64) -> Bytes {
    match prng.below(5) {
        0 => swapped(prng.below(keys)),
        1 => pair(prng.below(keys)).0,
        2 => format!("l{:02}/{:05}", prng.below(16), prng.below(100)).into(),
        _ => register(prng.below(keys)),
    }
}

impl Workload {
    pub(crate) fn new(id: usize, plan: &Plan, prng: Prng) -> Self {
        let kind = match id % 8 {
            2 => Kind::Pairs,
            3 | 6 => Kind::List,
            4 => Kind::Timestamps,
            _ => Kind::Registers,
        };
        let (listed, doubts, seen) = (Vec::new(), Vec::new(), std::collections::BTreeMap::new());
        let (keys, written, closed, script) = (plan.keys, 0, false, None);
        Self { id, kind, prng, keys, written, listed, doubts, seen, closed, script }
    }

    /// It does nothing of its own.
    pub(crate) fn be_told(&mut self) {
        self.kind = Kind::Script;
    }

    /// From now on a script says what is next: this.
    pub(crate) fn say(&mut self, op: Op) {
        (self.kind, self.script) = (Kind::Script, Some(op));
    }

    fn value(&mut self) -> Bytes {
        self.written += 1;
        let padding = if self.prng.one_in(16) { 200 } else { 0 };
        format!("{}.{}{}", self.id, self.written, ".".repeat(padding)).into()
    }

    /// The next operation; when everything ends, one last look, and then none.
    pub(crate) fn next(&mut self, ends: bool) -> Option<Task> {
        if self.kind == Kind::Script {
            return self.script.take().map(|op| Task { op, check: Check::Nothing });
        }
        if ends {
            let first = !self.closed;
            self.closed = true;
            return first.then(|| self.last_look());
        }
        Some(match self.kind {
            Kind::Registers => self.next_register(),
            Kind::Pairs => self.next_pair(),
            Kind::List => self.next_list(),
            Kind::Timestamps => {
                let count = 1 + self.prng.below(50) as u32;
                Task { op: Op::Timestamps(count), check: Check::Nothing }
            }
            Kind::Script => unreachable!("seen above"),
        })
    }

    fn next_register(&mut self) -> Task {
        let number = self.prng.below(self.keys);
        let op = match self.prng.below(20) {
            0..6 => Op::Get(register(number)),
            6..11 => {
                let pairs = vec![(register(number), self.value())];
                Op::Put { pairs, latched: false }
            }
            11 => Op::Delete { key: register(number), latched: false },
            12 => Op::Scan { start: "r".into(), end: "s".into() },
            13 => Op::Scan { start: "s".into(), end: "t".into() },
            14 => Op::Get(swapped(number % 4)),
            15 => {
                let pairs = vec![(swapped(number % 4), self.value())];
                Op::Put { pairs, latched: true }
            }
            _ => {
                let key = swapped(number % 4);
                let previous = self.seen.get(&key).cloned().flatten();
                Op::Cas { key, previous, value: self.value() }
            }
        };
        Task { op, check: Check::Nothing }
    }

    fn next_pair(&mut self) -> Task {
        let (one, other) = pair(self.prng.below(4));
        if self.prng.one_in(2) {
            let value = self.value();
            let pairs = vec![(one, value.clone()), (other, value)];
            return Task { op: Op::Put { pairs, latched: false }, check: Check::Nothing };
        }
        let end = [&other[..], b"\0"].concat().into();
        Task { op: Op::Scan { start: one, end }, check: Check::Pair }
    }

    fn own(&self) -> (Bytes, Bytes) {
        (format!("l{:02}/", self.id).into(), format!("l{:02}0", self.id).into())
    }

    fn next_list(&mut self) -> Task {
        if self.prng.one_in(3) || self.written >= LIST_MAX {
            let (start, end) = self.own();
            return Task { op: Op::Scan { start, end }, check: Check::List };
        }
        self.written += 1;
        let number = self.written;
        let key = Bytes::from(format!("l{:02}/{number:05}", self.id));
        let pairs = vec![(key, Bytes::from(number.to_string()))];
        Task { op: Op::Put { pairs, latched: false }, check: Check::Put(number) }
    }

    fn last_look(&mut self) -> Task {
        match self.kind {
            Kind::List => {
                let (start, end) = self.own();
                Task { op: Op::Scan { start, end }, check: Check::List }
            }
            Kind::Timestamps => Task { op: Op::Timestamps(1), check: Check::Nothing },
            _ => {
                Task { op: Op::Scan { start: "p".into(), end: "t".into() }, check: Check::Nothing }
            }
        }
    }

    /// An operation was answered.
    pub(crate) fn done(&mut self, task: &Task, done: &Done) {
        match (&task.check, done) {
            (Check::Put(number), _) => self.listed.push(*number),
            (Check::Pair, Done::Pairs(pairs)) => {
                let whole = pairs.is_empty() || (pairs.len() == 2 && pairs[0].1 == pairs[1].1);
                assert!(whole, "atomic writes: {pairs:?} are written together");
            }
            (Check::List, Done::Pairs(pairs)) => self.check_list(pairs),
            _ => {}
        }
        match (&task.op, done) {
            (Op::Get(key), Done::Value(value)) => {
                drop(self.seen.insert(key.clone(), value.clone()))
            }
            (Op::Cas { key, value, .. }, Done::Swapped { previous, succeeded }) => {
                let now = if *succeeded { Some(value.clone()) } else { previous.clone() };
                self.seen.insert(key.clone(), now);
            }
            _ => {}
        }
    }

    /// Nobody knows what becomes of the operation.
    pub(crate) fn lost(&mut self, task: &Task, unsure: bool) {
        if let (Check::Put(number), true) = (&task.check, unsure) {
            self.doubts.push(*number);
        }
    }

    fn check_list(&self, pairs: &[(Bytes, Bytes)]) {
        let found: Vec<u64> = pairs
            .iter()
            .map(|(_, value)| std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()))
            .map(|number| number.expect("a list holds numbers"))
            .collect();
        let missing = self.listed.iter().find(|number| !found.contains(number));
        assert!(
            missing.is_none(),
            "acknowledged writes stay: client {} misses {missing:?} in {found:?}",
            self.id
        );
        let known = |number: &u64| self.listed.contains(number) || self.doubts.contains(number);
        let strange = found.iter().find(|number| !known(number));
        assert!(strange.is_none(), "nothing from nowhere: client {} finds {strange:?}", self.id);
    }
}
