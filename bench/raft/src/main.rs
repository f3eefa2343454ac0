//! Our consensus core beside the crate `raft` (the one that TiKV uses), in one process.
//!
//! ```text
//!   ./x bench raft                            both tables
//!   ./x bench raft ours 3 256 256 1000000     one side alone, for a profiler: voters, size of a
//!   ./x bench raft theirs 1 16 1 1000000      command, depth of the pipeline, commands
//! ```
//!
//! | module | what it does |
//! | --- | --- |
//! | `group` | nodes in memory and the turns in which they run, the same for both sides |
//! | `ours`, `theirs` | a node with its storage in memory, driven as its authors recommend |
//! | `entries` | processor time and allocations of a committed entry |
//! | `idle` | memory of groups that do nothing |
//! | `measure` | the clock and the counting allocator |
//!
//! # What is compared
//!
//! An entry counts when all nodes of its group have applied it; the figures are sums over the
//! nodes, the storages in memory included. Depth 256 keeps 256 commands on the way, depth 1 waits
//! for each. Logs are cut at the same pace. Rounds of both sides take turns, so that a machine
//! which becomes slower does so for both; the ratio is the median of the rounds' ratios. Processor
//! time is that of the thread, and is taken while nothing is counted; allocations are counted in a
//! round of their own, and do not differ from run to run. What is given to both is counted for
//! neither: one command in memory, shared by all entries.
//!
//! The program fails if ours costs more than theirs in any row. The goals are printed beside each
//! row: half of theirs for an entry, and a number of bytes for an idle member.

mod entries;
mod group;
mod idle;
mod measure;
mod ours;
mod theirs;

use std::process::ExitCode;

use crate::group::Load;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match (args.is_empty(), parse(&args)) {
        (true, _) => tables(),
        (false, Some((load, commands))) if args[0] == "theirs" => {
            entries::run_alone::<theirs::Theirs>(load, commands);
            ExitCode::SUCCESS
        }
        (false, Some((load, commands))) if args[0] == "ours" => {
            entries::run_alone::<ours::Ours>(load, commands);
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: ./x bench raft [ours|theirs VOTERS SIZE DEPTH COMMANDS]");
            ExitCode::from(2)
        }
    }
}

/// What follows the side's name: the load and the number of commands.
fn parse(args: &[String]) -> Option<(Load, u64)> {
    let numbers: Vec<u64> = args.iter().skip(1).map_while(|word| word.parse().ok()).collect();
    let &[voters, size, depth, commands] = numbers.as_slice() else { return None };
    let sound = voters > 0 && size > 0 && depth > 0 && args.len() == numbers.len() + 1;
    let size = usize::try_from(size).ok()?;
    sound.then_some((Load { voters, size, depth }, commands))
}

fn tables() -> ExitCode {
    entries::print_head();
    let mut is_worse = false;
    for load in entries::loads() {
        let row = entries::measure(load);
        entries::print(&row);
        is_worse |= row.is_worse();
    }
    let idle = idle::measure();
    idle::print(&idle);
    if is_worse || idle.iter().any(idle::Row::is_worse) {
        eprintln!("\nours costs more than theirs somewhere");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
