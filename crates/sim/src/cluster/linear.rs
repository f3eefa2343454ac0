//! Linearizability of one register: can the calls have taken effect one after the other, each at a
//! moment between its begin and its end?
//!
//! The search is Wing and Gong's with Lowe's memory: walk over begins and ends in the order of
//! time, take a call whose begin was passed as the next one if the register allows it, go back when
//! an end comes whose call was not taken. A state (which calls were taken, what the register holds)
//! that was seen before leads nowhere. Worst case exponential, hence the bound on steps.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use base::Instant;
use bytes::Bytes;

/// What a call does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Read(Option<Bytes>),
    Write(Option<Bytes>),
    /// From the first to the second. If its end is known it succeeded.
    Swap(Option<Bytes>, Bytes),
}

/// A call. Without an end: it took effect at some time after its begin, or never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) client: usize,
    pub(crate) act: Act,
    pub(crate) begun: Instant,
    pub(crate) end: Option<Instant>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |instant: Instant| instant.0 as f64 / 1e6;
        write!(f, "[{:.3} ms, ", at(self.begun))?;
        match self.end {
            Some(end) => write!(f, "{:.3} ms]", at(end))?,
            None => write!(f, "?]")?,
        }
        write!(f, " client {} {:?}", self.client, self.act)
    }
}

fn written(act: &Act) -> Option<&Bytes> {
    match act {
        Act::Write(value) => value.as_ref(),
        Act::Swap(_, value) => Some(value),
        Act::Read(_) => None,
    }
}

fn observed(act: &Act) -> Option<&Bytes> {
    match act {
        Act::Read(value) => value.as_ref(),
        Act::Swap(previous, _) => previous.as_ref(),
        Act::Write(_) => None,
    }
}

/// Takes out what cannot matter. Each value is written once: a write in doubt whose value nobody
/// saw might as well not have happened, and one that somebody saw took effect before that.
pub(crate) fn simplify(mut calls: Vec<Call>) -> Vec<Call> {
    while bound_what_was_seen(&mut calls) {}
    calls.retain(|call| call.end.is_some() || call.act == Act::Write(None));
    calls
}

/// Gives an end to writes in doubt whose values were seen. Returns whether there were any: a swap
/// among them has itself seen what it replaced.
fn bound_what_was_seen(calls: &mut [Call]) -> bool {
    let mut seen: BTreeMap<Bytes, Instant> = BTreeMap::new();
    for call in &*calls {
        if let (Some(value), Some(end)) = (observed(&call.act), call.end) {
            let first = seen.entry(value.clone()).or_insert(end);
            *first = end.min(*first);
        }
    }
    let mut found = false;
    for call in calls.iter_mut().filter(|call| call.end.is_none()) {
        call.end = written(&call.act).and_then(|value| seen.get(value).copied());
        found |= call.end.is_some();
    }
    found
}

/// The history as it was known at `time`.
pub(crate) fn until(calls: &[Call], time: Instant) -> Vec<Call> {
    let known = calls.iter().filter(|call| call.begun <= time);
    let cut = known.map(|call| Call { end: call.end.filter(|end| *end <= time), ..call.clone() });
    simplify(cut.collect())
}

/// Whether every value that is read is written by some call.
pub(crate) fn reads_are_written(calls: &[Call]) -> bool {
    let values: HashSet<&Bytes> = calls.iter().filter_map(|call| written(&call.act)).collect();
    calls.iter().filter_map(|call| observed(&call.act)).all(|value| values.contains(value))
}

/// A begin or an end, in a list from which calls are taken out and put back.
#[derive(Clone, Copy)]
struct Entry {
    call: usize,
    /// For a begin: where its end is.
    end: Option<usize>,
    next: usize,
    previous: usize,
}

const NONE: usize = usize::MAX;

struct Search<'a> {
    calls: &'a [Call],
    values: Vec<Option<&'a Bytes>>,
    acts: Vec<(usize, usize)>,
    entries: Vec<Entry>,
    head: usize,
    taken: Vec<u64>,
    seen: HashSet<(Vec<u64>, usize)>,
}

/// Whether the calls fit; `None`: not known after so many steps. A register begins empty.
pub(crate) fn check(calls: &[Call], steps_max: u64) -> Option<bool> {
    Search::new(calls).run(steps_max)
}

impl<'a> Search<'a> {
    fn new(calls: &'a [Call]) -> Self {
        let mut values: Vec<Option<&Bytes>> = vec![None];
        let mut number = BTreeMap::from([(None, 0)]);
        let mut of = |value: Option<&'a Bytes>| {
            *number.entry(value).or_insert_with(|| {
                values.push(value);
                values.len() - 1
            })
        };
        let acts = calls.iter().map(|call| match &call.act {
            Act::Read(value) => (of(value.as_ref()), NONE),
            Act::Write(value) => (NONE, of(value.as_ref())),
            Act::Swap(previous, value) => (of(previous.as_ref()), of(Some(value))),
        });
        let acts = acts.collect();
        // Begins come before ends of the same moment: those calls overlap.
        let mut times: Vec<(Instant, bool, usize)> = Vec::with_capacity(2 * calls.len());
        for (i, call) in calls.iter().enumerate() {
            times.push((call.begun, false, i));
            times.push((call.end.unwrap_or(Instant(u64::MAX)), true, i));
        }
        times.sort_unstable();
        let mut end_of = vec![0; calls.len()];
        for (at, (_, is_end, call)) in times.iter().enumerate() {
            if *is_end {
                end_of[*call] = at;
            }
        }
        let last = times.len();
        let entries = times.iter().enumerate().map(|(at, (_, is_end, call))| Entry {
            call: *call,
            end: (!is_end).then_some(end_of[*call]),
            next: if at + 1 == last { NONE } else { at + 1 },
            previous: if at == 0 { NONE } else { at - 1 },
        });
        let entries = entries.collect();
        let taken = vec![0; calls.len().div_ceil(64)];
        let head = if last == 0 { NONE } else { 0 };
        Self { calls, values, acts, entries, head, taken, seen: HashSet::new() }
    }

    fn run(&mut self, steps_max: u64) -> Option<bool> {
        assert!(self.values.len() <= 2 * self.calls.len() + 1, "values are those of calls");
        let (mut state, mut at, mut steps) = (0, self.head, 0);
        let mut stack: Vec<(usize, usize)> = Vec::new();
        while at != NONE {
            steps += 1;
            if steps > steps_max {
                return None;
            }
            let entry = self.entries[at];
            if entry.end.is_none() {
                // A call in doubt need not take effect: its end is the end of all.
                if self.calls[entry.call].end.is_none() {
                    return Some(true);
                }
                let Some((begin, before)) = stack.pop() else { return Some(false) };
                state = before;
                self.put_back(begin);
                at = self.entries[begin].next;
                continue;
            }
            let (needs, leaves) = self.acts[entry.call];
            let fits = needs == NONE || needs == state;
            let next = if leaves == NONE { state } else { leaves };
            if fits && self.is_new(entry.call, next) {
                stack.push((at, state));
                state = next;
                self.take_out(at);
                at = self.head;
            } else {
                at = entry.next;
            }
        }
        Some(true)
    }

    /// Whether taking the call next leads to a state that was not seen yet.
    fn is_new(&mut self, call: usize, state: usize) -> bool {
        let mut taken = self.taken.clone();
        taken[call / 64] |= 1 << (call % 64);
        self.seen.insert((taken, state))
    }

    fn unlink(&mut self, at: usize) {
        let Entry { next, previous, .. } = self.entries[at];
        match previous {
            NONE => self.head = next,
            previous => self.entries[previous].next = next,
        }
        if next != NONE {
            self.entries[next].previous = previous;
        }
    }

    fn link(&mut self, at: usize) {
        let Entry { next, previous, .. } = self.entries[at];
        match previous {
            NONE => self.head = at,
            previous => self.entries[previous].next = at,
        }
        if next != NONE {
            self.entries[next].previous = at;
        }
    }

    fn take_out(&mut self, begin: usize) {
        let Entry { call, end, .. } = self.entries[begin];
        self.taken[call / 64] |= 1 << (call % 64);
        self.unlink(begin);
        self.unlink(end.expect("of a begin"));
    }

    fn put_back(&mut self, begin: usize) {
        let Entry { call, end, .. } = self.entries[begin];
        self.taken[call / 64] &= !(1 << (call % 64));
        self.link(end.expect("of a begin"));
        self.link(begin);
    }
}

#[cfg(test)]
mod tests {
    use base::Prng;

    use super::*;

    fn call(begun: u64, end: u64, act: Act) -> Call {
        let end = (end > 0).then_some(Instant(end));
        Call { client: 0, act, begun: Instant(begun), end }
    }

    fn value(name: &'static str) -> Option<Bytes> {
        Some(Bytes::from(name))
    }

    #[test]
    fn stale_reads_are_found() {
        let (a, b) = (Act::Write(value("a")), Act::Write(value("b")));
        let history =
            |read| [call(1, 2, a.clone()), call(3, 4, b.clone()), call(5, 6, Act::Read(read))];
        assert_eq!(check(&history(value("b")), 1_000), Some(true));
        assert_eq!(check(&history(value("a")), 1_000), Some(false));
        let overlapping = [call(1, 4, a), call(2, 5, b), call(6, 7, Act::Read(value("a")))];
        assert_eq!(check(&overlapping, 1_000), Some(true));
    }

    #[test]
    fn writes_in_doubt_may_happen_late_or_never() {
        let in_doubt = call(1, 0, Act::Write(value("a")));
        let read = |begun, seen| call(begun, begun + 1, Act::Read(seen));
        let late = simplify(vec![in_doubt.clone(), read(2, None), read(4, value("a"))]);
        assert_eq!(check(&late, 1_000), Some(true));
        let back = simplify(vec![in_doubt.clone(), read(2, value("a")), read(4, None)]);
        assert_eq!(check(&back, 1_000), Some(false));
        assert_eq!(check(&simplify(vec![in_doubt, read(2, None)]), 1_000), Some(true));
    }

    #[test]
    fn a_swap_in_doubt_that_was_seen_has_seen_what_it_replaced() {
        let put = call(1, 0, Act::Write(value("a")));
        let swap = call(3, 0, Act::Swap(value("a"), Bytes::from("b")));
        let read = |seen| call(5, 6, Act::Read(seen));
        let both = simplify(vec![put.clone(), swap.clone(), read(value("b"))]);
        assert_eq!((both.len(), check(&both, 1_000)), (3, Some(true)));
        let alone = simplify(vec![swap.clone(), read(value("b"))]);
        assert_eq!(check(&alone, 1_000), Some(false), "there was nothing to swap");
        assert_eq!(simplify(vec![put, swap, read(None)]).len(), 1, "nobody saw either");
    }

    #[test]
    fn a_swap_takes_what_is_there_once() {
        let swap = |begun, to| call(begun, begun + 1, Act::Swap(value("a"), Bytes::from(to)));
        let put = call(1, 2, Act::Write(value("a")));
        assert_eq!(check(&[put.clone(), swap(3, "b")], 1_000), Some(true));
        assert_eq!(check(&[put, swap(3, "b"), swap(5, "c")], 1_000), Some(false));
    }

    /// Against all orders, one by one.
    #[test]
    fn the_search_agrees_with_trying_all_orders() {
        let mut prng = Prng::new(7);
        let (mut fits, mut does_not) = (0, 0);
        for _ in 0..3_000 {
            let count = 1 + prng.below(5);
            let mut values: Vec<Option<Bytes>> = vec![None];
            let mut calls = Vec::new();
            for i in 0..count {
                let begun = 1 + prng.below(12);
                let end = if prng.one_in(5) { 0 } else { begun + 1 + prng.below(6) };
                let fresh = Bytes::from(format!("v{i}"));
                let some = values[prng.below(values.len() as u64) as usize].clone();
                let act = match prng.below(3) {
                    0 => Act::Read(some),
                    1 => Act::Write(Some(fresh.clone())),
                    _ => Act::Swap(some, fresh.clone()),
                };
                values.push(Some(fresh));
                calls.push(call(begun, end, act));
            }
            let calls = simplify(calls);
            let expected = any_order(&calls, &mut vec![false; calls.len()], None);
            assert_eq!(check(&calls, 100_000), Some(expected), "{calls:?}");
            *(if expected { &mut fits } else { &mut does_not }) += 1;
        }
        assert!(fits > 300 && does_not > 300, "{fits} {does_not}");
    }

    fn any_order(calls: &[Call], taken: &mut Vec<bool>, state: Option<Bytes>) -> bool {
        let left: Vec<usize> = (0..calls.len()).filter(|i| !taken[*i]).collect();
        if left.iter().all(|i| calls[*i].end.is_none()) {
            return true;
        }
        let first_end = left.iter().filter_map(|i| calls[*i].end).min();
        for i in left {
            if first_end.is_some_and(|end| calls[i].begun > end) {
                continue;
            }
            let next = match &calls[i].act {
                Act::Read(value) if *value == state => state.clone(),
                Act::Write(value) => value.clone(),
                Act::Swap(previous, value) if *previous == state => Some(value.clone()),
                _ => continue,
            };
            taken[i] = true;
            let fits = any_order(calls, taken, next);
            taken[i] = false;
            if fits {
                return true;
            }
        }
        false
    }
}
