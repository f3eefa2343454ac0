//! What clients asked and what they were told, and when.

use std::collections::{BTreeMap, BTreeSet};

use base::{Instant, TimeStamp};
use bytes::Bytes;

use super::linear::{self, Act, Call};

/// Steps of the search for one key before it is given up.
const SEARCH_STEPS_MAX: u64 = 400_000;

/// An operation of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Get(Bytes),
    Scan {
        start: Bytes,
        end: Bytes,
    },
    /// Written together; `latched`: keys that others swap.
    Put {
        pairs: Vec<(Bytes, Bytes)>,
        latched: bool,
    },
    Delete {
        key: Bytes,
        latched: bool,
    },
    Cas {
        key: Bytes,
        previous: Option<Bytes>,
        value: Bytes,
    },
    Timestamps(u32),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Value(Option<Bytes>),
    Pairs(Vec<(Bytes, Bytes)>),
    Written,
    Swapped { previous: Option<Bytes>, succeeded: bool },
}

/// A number of an operation.
pub(crate) type OpId = usize;

impl Op {
    /// Where it goes.
    pub(crate) fn key(&self) -> &Bytes {
        match self {
            Self::Get(key) | Self::Delete { key, .. } | Self::Cas { key, .. } => key,
            Self::Put { pairs, .. } => &pairs[0].0,
            Self::Scan { start, .. } => start,
            Self::Timestamps(_) => unreachable!("these have no key"),
        }
    }

    pub(crate) fn writes(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Delete { .. } | Self::Cas { .. })
    }
}

struct Record {
    client: usize,
    op: Op,
    /// It reads from any replica.
    anywhere: bool,
    begun: Instant,
    end: End,
}

enum End {
    Open,
    Done(Instant, Done),
    /// It may have taken effect, or may still.
    Unknown,
    /// It had no effect.
    Nothing,
}

#[derive(Default)]
pub(crate) struct History {
    records: Vec<Record>,
    /// The largest timestamp that anybody has.
    pub(crate) timestamp_floor: TimeStamp,
    /// First and last of those given out together.
    stamps: BTreeMap<u64, u64>,
}

/// What the check of all keys came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) keys: u64,
    /// Histories too tangled to tell.
    pub(crate) unknown: u64,
}

impl History {
    pub(crate) fn begin(&mut self, now: Instant, client: usize, op: &Op, anywhere: bool) -> OpId {
        let (op, end) = (op.clone(), End::Open);
        self.records.push(Record { client, op, anywhere, begun: now, end });
        self.records.len() - 1
    }

    pub(crate) fn end(&mut self, now: Instant, id: OpId, done: Done) {
        self.records[id].end = End::Done(now, done);
    }

    pub(crate) fn give_up(&mut self, id: OpId, unsure: bool) {
        self.records[id].end = if unsure { End::Unknown } else { End::Nothing };
    }

    /// What the last operation came to, if it is known.
    pub(crate) fn last(&self) -> Option<&Done> {
        match &self.records.last()?.end {
            End::Done(_, done) => Some(done),
            _ => None,
        }
    }

    /// Timestamps `first..=last` were given out to one who knew of `floor` when he asked.
    pub(crate) fn stamped(&mut self, first: u64, last: TimeStamp, floor: TimeStamp) {
        assert!(first > floor.0, "timestamps grow: {first} after {floor}");
        let before = self.stamps.range(..=last.0).next_back();
        let apart = before.is_none_or(|(_, end)| *end < first);
        assert!(apart, "timestamps are given out once: {first}..={last} and {before:?}");
        self.stamps.insert(first, last.0);
        self.timestamp_floor = self.timestamp_floor.max(last);
    }

    /// Whether the operations on each key can have happened one after the other, each between its
    /// begin and its end. Panics with the shortest history that cannot.
    ///
    /// Reads of leaders and reads of any replica are looked at apart: a leader answers with what it
    /// has applied, and another replica may be ahead of it.
    pub(crate) fn check(&self) -> Verdict {
        let keys: BTreeSet<&Bytes> = self.records.iter().flat_map(|r| keys_of(&r.op)).collect();
        let mut verdict = Verdict::default();
        for key in keys {
            // Lists are checked by those who write them, and pairs by their readers too.
            if key.starts_with(b"l") {
                continue;
            }
            verdict.keys += 1;
            for anywhere in [false, true] {
                let calls = self.calls(key, anywhere);
                match linear::check(&calls, SEARCH_STEPS_MAX) {
                    Some(true) => {}
                    None => verdict.unknown += 1,
                    Some(false) => panic!("linearizability: {}", self.explain(key, calls)),
                }
            }
        }
        verdict
    }

    /// What was asked of one key, reads only if they were of any replica, or if they were not.
    fn calls(&self, key: &Bytes, anywhere: bool) -> Vec<Call> {
        let mut calls = Vec::new();
        let reads = |record: &&Record| record.op.writes() || record.anywhere == anywhere;
        for record in self.records.iter().filter(reads) {
            let (end, done) = match &record.end {
                End::Done(end, done) => (Some(*end), Some(done)),
                End::Unknown | End::Open => (None, None),
                End::Nothing => continue,
            };
            let act = match (&record.op, done) {
                (Op::Get(k), Some(Done::Value(value))) if k == key => Act::Read(value.clone()),
                (Op::Scan { start, end }, Some(Done::Pairs(pairs)))
                    if start <= key && (end.is_empty() || key < end) =>
                {
                    let found = pairs.iter().find(|(k, _)| k == key);
                    Act::Read(found.map(|(_, value)| value.clone()))
                }
                (Op::Put { pairs, .. }, _) => match pairs.iter().find(|(k, _)| k == key) {
                    Some((_, value)) => Act::Write(Some(value.clone())),
                    None => continue,
                },
                (Op::Delete { key: k, .. }, _) if k == key => Act::Write(None),
                (Op::Cas { key: k, previous, value }, done) if k == key => match done {
                    Some(Done::Swapped { previous: found, succeeded: false }) => {
                        assert!(found != previous, "swaps compare: {key:?} has {found:?}");
                        Act::Read(found.clone())
                    }
                    _ => Act::Swap(previous.clone(), value.clone()),
                },
                _ => continue,
            };
            calls.push(Call { client: record.client, act, begun: record.begun, end });
        }
        linear::simplify(calls)
    }

    /// The shortest beginning of the history that is impossible, as text.
    fn explain(&self, key: &Bytes, calls: Vec<Call>) -> String {
        let mut ends: Vec<Instant> = calls.iter().filter_map(|call| call.end).collect();
        ends.sort_unstable();
        let mut shortest = calls.clone();
        for end in ends {
            let until = linear::until(&calls, end);
            if linear::check(&until, SEARCH_STEPS_MAX) == Some(false) {
                shortest = until;
                break;
            }
        }
        let mut at = 0;
        while at < shortest.len() {
            let mut fewer = shortest.clone();
            fewer.remove(at);
            let impossible = linear::check(&fewer, SEARCH_STEPS_MAX) == Some(false);
            // A read of what nobody wrote is impossible in another way.
            if impossible && linear::reads_are_written(&fewer) {
                shortest = fewer;
            } else {
                at += 1;
            }
        }
        let mut lines = vec![format!("{key:?}, {} operations at least:", shortest.len())];
        lines.extend(shortest.iter().map(|call| format!("    {call}")));
        lines.join("\n")
    }
}

fn keys_of(op: &Op) -> Vec<&Bytes> {
    match op {
        Op::Get(key) | Op::Delete { key, .. } | Op::Cas { key, .. } => vec![key],
        Op::Put { pairs, .. } => pairs.iter().map(|(key, _)| key).collect(),
        Op::Scan { .. } | Op::Timestamps(_) => Vec::new(),
    }
}
