//! The command line of whole clusters.

use std::fmt;
use std::io::{self, Write as _};
use std::ops::Range;
use std::time::{Duration, Instant};

use base::RegionId;
use pontoon_sim::cluster::{self, Fault, Options, Totals, TraceFilter, scenarios};

/// Failing seeds after which a run of many ends.
const BROKEN_MAX: usize = 5;

/// Seeds after which a kind of fault that never happened is a failure of the run.
const WHOLE_RUN: u64 = 300;

/// What was asked for.
struct Command {
    seeds: Range<u64>,
    jobs: u64,
    minutes: Option<u64>,
    calm: bool,
    twice: bool,
    minimise: bool,
    scenario: Option<String>,
    options: Options,
}

/// Does what the arguments say. Whether all went well, or what is wrong with the arguments.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    let command = Command::parse(arguments)?;
    if let Some(name) = &command.scenario {
        return Ok(run_scenarios(Some(name)));
    }
    if command.minimise {
        return Ok(minimise(&command));
    }
    Ok(run_seeds(&command))
}

impl Command {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut command = Self {
            seeds: 0..100,
            jobs: 1,
            minutes: None,
            calm: false,
            twice: false,
            minimise: false,
            scenario: None,
            options: Options::default(),
        };
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            match name.as_str() {
                "--trace" => drop(command.options.trace.get_or_insert_default()),
                "--calm" => (command.options, command.calm) = (Options::calm(), true),
                "--twice" => command.twice = true,
                "--minimise" => command.minimise = true,
                "--no-admin" => command.options.admin.clear(),
                "--transactions" => command.options.transactions = Some(true),
                "--no-transactions" => command.options.transactions = Some(false),
                _ => {
                    let value = rest.next().ok_or_else(|| format!("{name}: what is its value?"))?;
                    command.set(name, value)?;
                }
            }
        }
        Ok(command)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let filter = || TraceFilter::default();
        match name {
            "--seed" => {
                let seed = number(value)?;
                self.seeds = seed..seed + 1;
            }
            "--seeds" => self.seeds = range(value)?,
            "--jobs" => self.jobs = number(value)?.max(1),
            "--scenario" => self.scenario = Some(value.to_owned()),
            "--minutes" => self.minutes = Some(number(value)?),
            "--seconds" => self.options.duration = Duration::from_secs(number(value)?),
            "--nodes" => self.options.nodes = Some(number(value)? as usize),
            "--clients" => self.options.clients = Some(number(value)? as usize),
            "--faults" => {
                let fault = |name| Fault::from_name(name).ok_or(format!("no fault '{name}'"));
                let names = value.split(',').filter(|name| !name.is_empty());
                self.options.faults = names.map(fault).collect::<Result<_, _>>()?;
            }
            #[cfg(feature = "mutations")]
            "--break" => {
                let named = |mutation: &cluster::Mutation| mutation.name() == value;
                let found = cluster::Mutation::all().into_iter().find(named);
                self.options.breaks = Some(found.ok_or(format!("no rule '{value}'"))?);
            }
            "--node" => {
                self.options.trace.get_or_insert_with(filter).node = Some(number(value)? as usize);
            }
            "--region" => {
                let region = match value {
                    "S" => RegionId::SYSTEM,
                    value => RegionId(number(value)?),
                };
                self.options.trace.get_or_insert_with(filter).region = Some(region);
            }
            "--kind" => {
                let kinds = value.split(',').map(str::to_owned).collect();
                self.options.trace.get_or_insert_with(filter).kinds = kinds;
            }
            other => return Err(format!("there is no option '{other}'")),
        }
        Ok(())
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("'{text}' is not a number"))
}

fn range(text: &str) -> Result<Range<u64>, String> {
    match text.split_once("..") {
        None => Ok(0..number(text)?),
        Some((first, end)) => Ok(number(first)?..number(end)?),
    }
}

/// What the seeds of one thread came to.
#[derive(Default)]
struct Tally {
    totals: Totals,
    runs: u64,
    broken: usize,
}

/// Runs the seeds on several threads and prints a summary. Whether no promise was broken and every
/// kind of fault happened.
fn run_seeds(command: &Command) -> bool {
    let began = Instant::now();
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..command.jobs)
            .map(|job| scope.spawn(move || run_share(command, job, began)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect()
    });
    let mut sum = Tally::default();
    for tally in &tallies {
        sum.totals.add(&tally.totals);
        (sum.runs, sum.broken) = (sum.runs + tally.runs, sum.broken + tally.broken);
    }
    let seconds = began.elapsed().as_secs_f64();
    let times = sum.totals.virtual_ms as f64 / 1e3 / seconds;
    tell(format_args!("{}", sum.totals));
    tell(format_args!(
        "{} seeds, {:.0} virtual s in {seconds:.1} s: {times:.0} times real time, {} broken",
        sum.runs,
        sum.totals.virtual_ms as f64 / 1e3,
        sum.broken
    ));
    let missing = match command.options.faults.len() == Fault::ALL.len() {
        true => sum.totals.missing(),
        false => Vec::new(),
    };
    let whole = sum.runs >= WHOLE_RUN && sum.broken == 0;
    if whole && !missing.is_empty() {
        tell(format_args!("never happened: {missing:?}"));
    }
    sum.broken == 0 && (missing.is_empty() || !whole)
}

/// The seeds of one thread: every so-manieth.
fn run_share(command: &Command, job: u64, began: Instant) -> Tally {
    let limit = command.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let end = if limit.is_some() { u64::MAX } else { command.seeds.end };
    let mut tally = Tally::default();
    let mut told = Instant::now();
    let mut seed = command.seeds.start + job;
    while seed < end {
        if limit.is_some_and(|limit| began.elapsed() >= limit) || tally.broken >= BROKEN_MAX {
            break;
        }
        run_seed(command, seed, &mut tally);
        if job == 0 && told.elapsed() >= Duration::from_secs(10) && end - command.seeds.start > 1 {
            told = Instant::now();
            progress(&tally, command.jobs, began);
        }
        seed += command.jobs;
    }
    tally
}

fn run_seed(command: &Command, seed: u64, tally: &mut Tally) {
    tally.runs += 1;
    match cluster::run_caught(seed, &command.options) {
        Ok(report) => {
            if command.twice {
                let again = cluster::run_caught(seed, &command.options);
                if again.as_ref() != Ok(&report) {
                    tally.broken += 1;
                    tell(format_args!("seed {seed} is not the same twice"));
                }
            }
            if command.seeds.end - command.seeds.start == 1 {
                tell(format_args!("seed {seed}: hash {:016x}", report.hash));
            }
            tally.totals.add(&report.totals);
        }
        Err(failure) => {
            tally.broken += 1;
            tell(format_args!("{failure}\n  again: ./x sim --seed {seed}{}", flags(command)));
        }
    }
}

fn progress(tally: &Tally, jobs: u64, began: Instant) {
    let seconds = began.elapsed().as_secs_f64();
    let (runs, totals) = (tally.runs * jobs, &tally.totals);
    let faults: u64 = totals.faults.values().sum();
    tell(format_args!(
        "... about {:.0} seeds a minute, {:.0} times real time; {} faults, {} operations checked",
        runs as f64 * 60.0 / seconds,
        totals.virtual_ms as f64 * jobs as f64 / 1e3 / seconds,
        faults * jobs,
        totals.operations * jobs
    ));
}

fn minimise(command: &Command) -> bool {
    let seed = command.seeds.start;
    let Some(minimal) = cluster::minimise(seed, &command.options) else {
        tell(format_args!("seed {seed} does not fail"));
        return true;
    };
    let smaller = Command {
        seeds: seed..seed + 1,
        options: minimal.options.clone(),
        jobs: 1,
        minutes: None,
        scenario: None,
        ..*command
    };
    tell(format_args!(
        "{}\n  after {} runs: ./x sim --seed {seed}{}",
        minimal.broken,
        minimal.runs,
        flags(&smaller)
    ));
    false
}

/// The options that differ from the usual ones, as they are given.
fn flags(command: &Command) -> String {
    let (options, usual) = (&command.options, Options::default());
    let mut flags = String::new();
    if command.calm {
        flags += " --calm";
    } else if options.faults != usual.faults {
        let names: Vec<_> = options.faults.iter().map(|fault| fault.name()).collect();
        flags += &format!(" --faults '{}'", names.join(","));
    }
    if options.duration != usual.duration {
        flags += &format!(" --seconds {}", options.duration.as_secs());
    }
    if let Some(nodes) = options.nodes.filter(|_| !command.calm) {
        flags += &format!(" --nodes {nodes}");
    }
    if let Some(clients) = options.clients.filter(|_| !command.calm) {
        flags += &format!(" --clients {clients}");
    }
    if options.admin.is_empty() {
        flags += " --no-admin";
    }
    match options.transactions.filter(|_| !command.calm) {
        Some(true) => flags += " --transactions",
        Some(false) => flags += " --no-transactions",
        None => {}
    }
    flags
}

/// Runs the scenarios whose names contain `part`. Whether all went well.
pub fn run_scenarios(part: Option<&str>) -> bool {
    let began = Instant::now();
    let (mut runs, mut broken) = (0, 0);
    let mut all = scenarios::all();
    if let Some(part) = part {
        all.retain(|scenario| scenario.name.contains(part));
    }
    for scenario in all {
        runs += 1;
        let started = Instant::now();
        match scenario.run() {
            Ok(()) => {
                tell(format_args!(
                    "ok    {:>6.2} s  {}",
                    started.elapsed().as_secs_f64(),
                    scenario.name
                ));
            }
            Err(failure) => {
                broken += 1;
                tell(format_args!("BROKEN  {}: {failure}", scenario.name));
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    tell(format_args!("{runs} scenarios in {seconds:.1} s, {broken} broken; {}", peak_memory()));
    broken == 0 && runs > 0
}

/// The most memory that this process ever had, as the system counts it.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|peak| peak.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or_else(
        || "peak memory unknown".to_owned(),
        |kib| format!("peak memory {} MiB", kib >> 10),
    )
}

/// How long the hunt for one broken rule may take: three minutes of two processors, on one.
#[cfg(feature = "mutations")]
const MUTATION_LIMIT: Duration = Duration::from_secs(360);

/// Looks for each rule, broken on purpose, with plain seeds. Whether all are found. Those of the
/// core only by name: its own runs find them all, in much less time.
#[cfg(feature = "mutations")]
pub fn run_mutations(part: Option<&str>, limit: Option<Duration>) -> bool {
    tell(format_args!("| rule | seeds | seconds | what found it |"));
    tell(format_args!("| --- | --- | --- | --- |"));
    let mut all = true;
    let wanted = |m: &cluster::Mutation| match part {
        None => !matches!(m, cluster::Mutation::Raft(_)),
        Some(part) => m.name().contains(part),
    };
    for mutation in cluster::Mutation::all().into_iter().filter(wanted) {
        let hunt = cluster::hunt(mutation, limit.unwrap_or(MUTATION_LIMIT));
        tell(format_args!("{hunt}"));
        all &= hunt.found.is_some();
    }
    all
}

/// Prints a line. Whoever reads it may have read enough.
fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}
