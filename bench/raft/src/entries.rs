//! What a committed entry costs: the rows of the first table.

use crate::group::{Group, Load, Node};
use crate::measure::{allocations, median, time};
use crate::ours::Ours;
use crate::theirs::Theirs;

/// Commands of one round of one side.
const COMMANDS: u64 = 8192;

/// Rounds of each side, in turn; the sides change places after each.
const ROUNDS: usize = 15;

/// Part of theirs that ours is allowed to reach the goal.
pub const GOAL: f64 = 0.5;

/// What one side needs for an entry, over all nodes of the group.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Nanoseconds of processor time, the median of the rounds.
    pub nanos: f64,
    /// Allocations.
    pub allocations: f64,
    /// Bytes allocated.
    pub bytes: f64,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What was measured.
    pub load: Load,
    /// Our side.
    pub ours: Cost,
    /// Their side.
    pub theirs: Cost,
    /// Our processor time as part of theirs: the median of the rounds' ratios.
    pub time_ratio: f64,
}

/// All loads: a group of three and a group of one, three sizes, a pipeline and one at a time.
pub fn loads() -> Vec<Load> {
    let mut loads = Vec::new();
    for voters in [3, 1] {
        for depth in [256, 1] {
            loads.extend([16, 256, 4096].map(|size| Load { voters, size, depth }));
        }
    }
    loads
}

/// Measures both sides under one load, in turn.
pub fn measure(load: Load) -> Row {
    let mut ours = Group::<Ours>::new(load);
    let mut theirs = Group::<Theirs>::new(load);
    time_round(&mut ours);
    time_round(&mut theirs);
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        rounds.push(if round % 2 == 0 {
            let first = time_round(&mut ours);
            (first, time_round(&mut theirs))
        } else {
            let first = time_round(&mut theirs);
            (time_round(&mut ours), first)
        });
    }
    let of = |part: fn(&(f64, f64)) -> f64| median(rounds.iter().map(part).collect());
    Row {
        load,
        ours: count_round(&mut ours, of(|round| round.0)),
        theirs: count_round(&mut theirs, of(|round| round.1)),
        time_ratio: of(|round| round.0 / round.1),
    }
}

/// One side alone, for a profiler.
pub fn run_alone<N: Node>(load: Load, commands: u64) {
    let mut group = Group::<N>::new(load);
    let nanos = time(|| group.run(commands));
    println!("{load}: {:.0} ns an entry", nanos as f64 / commands as f64);
}

fn time_round<N: Node>(group: &mut Group<N>) -> f64 {
    time(|| group.run(COMMANDS)) as f64 / COMMANDS as f64
}

fn count_round<N: Node>(group: &mut Group<N>, nanos: f64) -> Cost {
    let info = allocations(|| group.run(COMMANDS));
    let each = |total: u64| total as f64 / COMMANDS as f64;
    Cost { nanos, allocations: each(info.count_total), bytes: each(info.bytes_total) }
}

impl Row {
    /// Our part of theirs: processor time, allocations, bytes.
    pub fn ratios(&self) -> [f64; 3] {
        let (ours, theirs) = (self.ours, self.theirs);
        [self.time_ratio, ours.allocations / theirs.allocations, ours.bytes / theirs.bytes]
    }

    /// Whether all of it is within the goal.
    pub fn reaches_goal(&self) -> bool {
        self.ratios().iter().all(|ratio| *ratio <= GOAL)
    }

    /// Whether ours costs more than theirs anywhere.
    pub fn is_worse(&self) -> bool {
        self.ratios().iter().any(|ratio| *ratio > 1.0)
    }
}

/// Prints the table's head.
pub fn print_head() {
    println!("An entry, committed and applied on all nodes: ours / theirs = part\n");
    println!(
        "{:<30} {:^22} {:^22} {:^22} goal {GOAL:.2}",
        "", "processor ns", "allocations", "bytes allocated"
    );
}

/// Prints a row.
pub fn print(row: &Row) {
    let [time, allocations, bytes] = row.ratios();
    let (ours, theirs) = (row.ours, row.theirs);
    println!(
        "{:<30} {:>6.0} /{:>6.0} = {time:<4.2} {:>6.2} /{:>6.2} = {allocations:<4.2} {:>6.0} \
         /{:>6.0} = {bytes:<4.2} {}",
        row.load.to_string(),
        ours.nanos,
        theirs.nanos,
        ours.allocations,
        theirs.allocations,
        ours.bytes,
        theirs.bytes,
        if row.reaches_goal() { "reached" } else { "missed" },
    );
}
