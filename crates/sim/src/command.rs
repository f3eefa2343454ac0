//! The command line: what is asked for, and how the answer looks.

use std::fmt;
use std::io::{self, Write as _};
use std::ops::Range;
use std::time::{Duration, Instant};

use pontoon_sim::raft::{self, RaftOptions, Totals};

use super::cluster_command;

/// Seeds of a run that names none.
const SEEDS: u64 = 20_000;

/// Failing seeds after which a run ends.
const BROKEN_MAX: usize = 5;

/// How long the hunt for one broken rule may take.
#[cfg(feature = "mutations")]
const MUTATION_LIMIT: Duration = Duration::from_secs(60);

/// How to call it.
pub const USAGE: &str = "\
pontoon-sim [--seeds A..B] [--jobs N] [--minutes M] [--seed S] ...

  whole clusters  under seeded faults, each promise checked after each step
    --seeds A..B  these seeds (0..100)
    --seed S      this one; with --trace a line an effect, of --node N, --region R|S, --kind K,K
    --jobs N      threads
    --minutes M   goes on with the next seeds until the time is over
    --seconds S   virtual seconds of clients and faults (60)
    --nodes N, --clients N, --faults a,b, --no-admin, --transactions, --no-transactions
                  instead of what the seed says
    --calm        five nodes, twenty clients, nothing fails: for the speed
    --twice       each seed twice: the same hash
    --minimise    with --seed: the fewest faults and clients with which it still fails
    --scenario N  a directed scenario

pontoon-sim scenarios [NAME]

  scenarios       all directed scenarios, or those whose names contain NAME

pontoon-sim raft [--seeds N|A..B] [--seed S] [--steps N] [--trace] [--minutes M]

  raft            groups of the raft core, each promise checked after each step
    --seeds N     the seeds 0..N (20000), or those of A..B
    --seed S      this one, with a trace
    --steps N     steps of each seed (4000)
    --trace       a line for each effect
    --minutes M   goes on with the next seeds until the time is over

pontoon-sim mutations [raft|cluster|NAME] [SECONDS]

  mutations       the checks find each rule that is made to be broken (only in builds with the
                  feature `mutations`); there --break NAME breaks one in any run of seeds";

/// What `raft` was asked to do.
struct RaftCommand {
    seeds: Range<u64>,
    minutes: Option<u64>,
    options: RaftOptions,
}

/// Does what the arguments say. Whether all went well, or what is wrong with the arguments.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    match arguments.split_first() {
        Some((first, _)) if first.starts_with("--") => cluster_command::run(arguments),
        Some((command, rest)) if command == "scenarios" => {
            Ok(cluster_command::run_scenarios(rest.first().map(String::as_str)))
        }
        Some((command, rest)) if command == "raft" => Ok(run_raft(&RaftCommand::parse(rest)?)),
        #[cfg(feature = "mutations")]
        Some((command, [])) if command == "mutations" => {
            let raft = run_mutations();
            Ok(cluster_command::run_mutations(None, None) && raft)
        }
        #[cfg(feature = "mutations")]
        Some((command, [name])) if command == "mutations" => match name.as_str() {
            "raft" => Ok(run_mutations()),
            "cluster" => Ok(cluster_command::run_mutations(None, None)),
            name => Ok(cluster_command::run_mutations(Some(name), None)),
        },
        #[cfg(feature = "mutations")]
        Some((command, [name, seconds])) if command == "mutations" => {
            let limit = Duration::from_secs(parse_number(seconds)?);
            let part = (name != "cluster").then_some(&name[..]);
            Ok(cluster_command::run_mutations(part, Some(limit)))
        }
        Some((other, _)) => Err(format!("there is no command '{other}'")),
        None => Err("which command?".to_owned()),
    }
}

impl RaftCommand {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut command = Self { seeds: 0..SEEDS, minutes: None, options: RaftOptions::default() };
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            if name == "--trace" {
                command.options.trace = true;
                continue;
            }
            let value = rest.next().ok_or_else(|| format!("{name}: what is its value?"))?;
            match name.as_str() {
                "--seeds" => command.seeds = parse_range(value)?,
                "--seed" => {
                    let seed = parse_number(value)?;
                    command.seeds = seed..seed + 1;
                    command.options.trace = true;
                }
                "--steps" => command.options.steps = parse_number(value)?,
                "--minutes" => command.minutes = Some(parse_number(value)?),
                other => return Err(format!("there is no option '{other}'")),
            }
        }
        Ok(command)
    }
}

fn parse_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("'{text}' is not a number"))
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    match text.split_once("..") {
        None => Ok(0..parse_number(text)?),
        Some((first, end)) => Ok(parse_number(first)?..parse_number(end)?),
    }
}

/// Runs the seeds and prints a summary. Whether no promise was broken and everything was reached.
fn run_raft(command: &RaftCommand) -> bool {
    let began = Instant::now();
    let limit = command.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let seeds = match limit {
        Some(_) => command.seeds.start..u64::MAX,
        None => command.seeds.clone(),
    };
    let (mut totals, mut runs, mut broken) = (Totals::default(), 0, 0);
    for seed in seeds {
        if limit.is_some_and(|limit| began.elapsed() >= limit) || broken >= BROKEN_MAX {
            break;
        }
        match raft::run_caught(seed, &command.options) {
            Ok(report) => totals.add(&report.totals),
            Err(failure) => {
                broken += 1;
                tell(format_args!(
                    "{failure}\n  again, with a trace: {}",
                    replay(seed, &command.options)
                ));
            }
        }
        runs += 1;
    }
    let steps = runs * command.options.steps;
    let seconds = began.elapsed().as_secs_f64();
    let speed = steps as f64 / seconds;
    tell(format_args!("{totals}"));
    tell(format_args!(
        "{runs} seeds, {steps} steps in {seconds:.1} s: {speed:.0} steps/s, {broken} broken"
    ));
    let missing = totals.missing();
    let whole = runs >= SEEDS && !missing.is_empty();
    if whole {
        tell(format_args!("never happened: {missing:?}"));
    }
    broken == 0 && !whole
}

/// Looks for each rule of the core, broken on purpose. Whether all are found.
#[cfg(feature = "mutations")]
fn run_mutations() -> bool {
    tell(format_args!("| rule | seeds | seconds | what found it |"));
    tell(format_args!("| --- | --- | --- | --- |"));
    let mut all = true;
    for rule in raft::Rule::ALL {
        let hunt = raft::hunt(rule, MUTATION_LIMIT);
        tell(format_args!("{hunt}"));
        all &= hunt.found.is_some();
    }
    all
}

/// Prints a line. Whoever reads it may have read enough.
fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// The command that repeats a run.
fn replay(seed: u64, options: &RaftOptions) -> String {
    match options.steps == raft::STEPS {
        true => format!("./x sim raft --seed {seed}"),
        false => format!("./x sim raft --seed {seed} --steps {}", options.steps),
    }
}
