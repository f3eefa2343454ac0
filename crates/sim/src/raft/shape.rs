//! What a seed decides before the first step: the size of the group, its knobs, the weather, and
//! how often which thing is done.

use base::{PeerId, Prng, limits};
use raft::{ConfState, Config, LogPos, MemoryStorage};

/// Places in the table of what is done; a weight is a share of it.
const PLACES: usize = 1024;

/// Everything that stays as it is for a whole run.
pub(crate) struct Shape {
    /// Voters at the begin, with ids from 1 on.
    pub(crate) voters: u64,
    /// Machines; those beyond the voters wait to be added.
    pub(crate) hosts: u64,
    /// Where the log begins: at nothing, or as that of a region which was just born.
    pub(crate) born: LogPos,
    /// All nodes tick together, so that leases can be checked.
    pub(crate) lockstep: bool,
    /// A host whose disk is slow, if one is.
    pub(crate) slow: Option<usize>,
    /// What a node hands out is done at once, in order.
    pub(crate) synchronous: bool,
    /// The knobs of every node, but for its id, seed and applied index.
    pub(crate) config: Config,
    pub(crate) weather: Weather,
    acts: Vec<Act>,
}

/// Each is one in so many.
pub(crate) struct Weather {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) swapped: u64,
    pub(crate) late: u64,
    /// An `Append` says another part of the leader's log.
    pub(crate) rewritten: u64,
    /// What a node has to give stays there for now.
    pub(crate) lazy: u64,
    /// A durable write is told late.
    pub(crate) untold: u64,
}

/// The kinds of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Tick,
    Deliver,
    Write,
    Acknowledge,
    Apply,
    Propose,
    Change,
    Read,
    Cut,
    Mend,
    Pause,
    Crash,
    PowerCut,
    Start,
    Campaign,
    Transfer,
    Compact,
    Unreachable,
    Snapshot,
    Damage,
    Forward,
    Prioritise,
    Quiesce,
    Wake,
}

impl Shape {
    pub(crate) fn draw(prng: &mut Prng) -> Self {
        let voters = [1, 2, 3, 3, 3, 4, 5, 5, 6, 7][prng.below(10) as usize];
        let changing = prng.one_in(3);
        let hosts = if changing { (voters + 2).max(4) } else { voters };
        let lockstep = prng.one_in(2);
        let synchronous = prng.one_in(6);
        let slow = prng.one_in(3).then(|| prng.below(hosts) as usize);
        let check_quorum = lockstep || changing || prng.one_in(2);
        let config = draw_config(prng, check_quorum);
        let weather = Weather::draw(prng);
        let acts = table(&weights(prng, changing, lockstep.then_some(hosts)));
        let region =
            LogPos { index: limits::RAFT_INIT_LOG_INDEX, term: limits::RAFT_INIT_LOG_TERM };
        let born = if prng.one_in(3) { LogPos::default() } else { region };
        Self { voters, hosts, born, lockstep, slow, synchronous, config, weather, acts }
    }

    /// The members at the begin.
    pub(crate) fn first_members(&self) -> ConfState {
        ConfState::of_voters((1..=self.voters).map(PeerId))
    }

    /// The disk of a host at the begin. One that is no member knows nothing; but where the log
    /// begins at nothing no snapshot will tell it who began.
    pub(crate) fn first_disk(&self, id: PeerId) -> MemoryStorage {
        match id.0 <= self.voters || self.born == LogPos::default() {
            true => MemoryStorage::starting_at(self.born, (1..=self.voters).map(PeerId)),
            false => MemoryStorage::new([]),
        }
    }

    /// What to do next.
    pub(crate) fn next_act(&self, prng: &mut Prng) -> Act {
        self.acts[prng.below(PLACES as u64) as usize]
    }
}

fn draw_config(prng: &mut Prng, check_quorum: bool) -> Config {
    let mut pick = |values: &[usize]| values[prng.below(values.len() as u64) as usize];
    Config {
        election_ticks: pick(&[4, 6, 10]) as u32,
        heartbeat_ticks: pick(&[1, 1, 2]) as u32,
        append_bytes_max: pick(&[1, 100, 1 << 20]),
        inflight_max: pick(&[1, 2, 4, 256]) as u32,
        gather_entries: pick(&[0, 3, 64]) as u64,
        inflight_bytes_max: pick(&[60, 1 << 20]),
        committed_bytes_max: pick(&[1, 100, 1 << 20]),
        uncommitted_bytes_max: pick(&[200, 1 << 20, 1 << 20]),
        tail_bytes_max: pick(&[0, 100, 1 << 20]),
        pre_vote: pick(&[0, 1]) == 1,
        check_quorum,
        ..Config::new(PeerId(1))
    }
}

impl Weather {
    fn draw(prng: &mut Prng) -> Self {
        let mut pick = |values: &[u64]| values[prng.below(values.len() as u64) as usize];
        Self {
            lost: pick(&[8, 25, 25, 100, 2000]),
            doubled: pick(&[10, 30, 100]),
            swapped: pick(&[1, 4, 4, 30]),
            late: pick(&[10, 20, 100]),
            rewritten: pick(&[20, 100, 1000]),
            lazy: pick(&[2, 4, 20]),
            untold: pick(&[2, 10, 100]),
        }
    }
}

/// How often each thing is done, relative to the others. In lockstep a tick is everybody's, so it
/// comes less often.
fn weights(prng: &mut Prng, changing: bool, lockstep: Option<u64>) -> Vec<(Act, u64)> {
    let mut pick = |values: &[u64]| values[prng.below(values.len() as u64) as usize];
    let ticks = pick(&[30, 100, 200]);
    let faults = pick(&[1, 4, 4, 8]);
    vec![
        (Act::Tick, lockstep.map_or(ticks, |hosts| ticks / hosts)),
        (Act::Deliver, 420),
        (Act::Write, pick(&[40, 150, 300])),
        (Act::Acknowledge, 30),
        (Act::Apply, pick(&[20, 100, 200])),
        (Act::Propose, pick(&[10, 60, 150])),
        (Act::Change, if changing { pick(&[2, 8]) } else { 0 }),
        (Act::Read, pick(&[5, 30])),
        (Act::Cut, faults),
        (Act::Mend, 6),
        (Act::Pause, if lockstep.is_some() { 0 } else { pick(&[0, 2, 4]) }),
        (Act::Crash, faults),
        (Act::PowerCut, pick(&[0, 1, 1])),
        (Act::Start, 8),
        (Act::Campaign, 2),
        (Act::Transfer, 3),
        (Act::Compact, pick(&[2, 8, 40])),
        (Act::Unreachable, 2),
        (Act::Snapshot, pick(&[5, 20])),
        (Act::Damage, pick(&[0, 0, 1])),
        (Act::Forward, pick(&[0, 10])),
        (Act::Prioritise, pick(&[0, 0, 1])),
        (Act::Quiesce, pick(&[0, 5, 20])),
        (Act::Wake, 4),
    ]
}

/// A table in which each thing has its share of places, at least one.
fn table(weights: &[(Act, u64)]) -> Vec<Act> {
    let sum: u64 = weights.iter().map(|(_, weight)| weight).sum();
    let mut acts = Vec::with_capacity(PLACES);
    for (act, weight) in weights.iter().filter(|(_, weight)| *weight > 0) {
        let places = (weight * PLACES as u64 / sum).max(1) as usize;
        acts.extend(std::iter::repeat_n(*act, places));
    }
    acts.resize(PLACES, Act::Deliver);
    acts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thing_has_a_place() {
        for seed in 0..200 {
            let mut prng = Prng::new(seed);
            let weights = weights(&mut prng, true, Some(9));
            let acts = table(&weights);
            assert_eq!(acts.len(), PLACES);
            let missing = weights.iter().find(|(act, n)| *n > 0 && !acts.contains(act));
            assert_eq!(missing, None, "seed {seed}");
        }
    }
}
