//! The clients of a run: who begins when, when it is over, what all of them measured.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base::Prng;
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use super::CommonArgs;
use super::keys::Chooser;
use super::report::{Latencies, Report};
use crate::commands::CommandError;

/// Different values that are written.
const VALUES: u64 = 4096;

/// How often the progress bar is drawn.
const REDRAW: Duration = Duration::from_millis(100);

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// After so many operations or rows.
    Count(u64),
    /// After so long.
    Time(Duration),
}

/// What all clients of a run share.
pub(super) struct Pace {
    chooser: Chooser,
    /// Values are windows of this.
    letters: Bytes,
    value_size: usize,
    end: End,
    /// Operations begun; rows where these count.
    begun: AtomicU64,
    /// Operations done; rows where these count.
    done: AtomicU64,
    stopped: AtomicBool,
    started: Instant,
}

/// What a client measured, or all of them.
#[derive(Default)]
pub(super) struct Measured {
    pub(super) latencies: BTreeMap<&'static str, Latencies>,
    pub(super) rows_read: u64,
    pub(super) not_found: u64,
    pub(super) conflicts: u64,
}

impl Measured {
    pub(super) fn record(&mut self, kind: &'static str, latency: Duration) {
        self.latencies.entry(kind).or_default().record(latency);
    }

    fn merge(&mut self, other: Measured) {
        for (kind, latencies) in other.latencies {
            self.latencies.entry(kind).or_default().merge(&latencies);
        }
        self.rows_read += other.rows_read;
        self.not_found += other.not_found;
        self.conflicts += other.conflicts;
    }
}

impl Pace {
    pub(super) fn new(args: &CommonArgs, end: Option<End>) -> Arc<Pace> {
        let asked = args.ops.map_or(End::Time(args.duration), End::Count);
        Arc::new(Pace {
            chooser: Chooser::new(args.distribution, args.keys),
            letters: letters(args.value_size, args.seed),
            value_size: args.value_size,
            end: end.unwrap_or(asked),
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            started: Instant::now(),
        })
    }

    /// Takes the next `count` operations: the number of the first, or none when the run is over.
    pub(super) fn take(&self, count: u64) -> Option<u64> {
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        if let End::Time(duration) = self.end
            && self.started.elapsed() >= duration
        {
            return None;
        }
        let first = self.begun.fetch_add(count, Ordering::Relaxed);
        match self.end {
            End::Count(end) => (first < end).then_some(first),
            End::Time(_) => Some(first),
        }
    }

    pub(super) fn did(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }

    /// The number of the next key.
    pub(super) fn number(&self, prng: &mut Prng) -> u64 {
        self.chooser.next(prng)
    }

    pub(super) fn value(&self, prng: &mut Prng) -> Bytes {
        let from = prng.below(VALUES) as usize;
        self.letters.slice(from..from + self.value_size)
    }

    /// How far the run is, and where it ends.
    fn progress(&self) -> (u64, u64) {
        match self.end {
            End::Count(end) => (self.done.load(Ordering::Relaxed), end),
            End::Time(duration) => {
                let ms = |duration: Duration| duration.as_millis() as u64;
                (ms(self.started.elapsed()), ms(duration))
            }
        }
    }
}

/// Runs the clients and sums up what they measured.
pub(super) async fn run<F>(
    args: &CommonArgs,
    pace: &Arc<Pace>,
    client: impl Fn(Prng) -> F,
) -> Result<(Measured, Duration), CommandError>
where
    F: Future<Output = Result<Measured, CommandError>> + Send + 'static,
{
    let mut prng = Prng::new(args.seed);
    let mut clients = JoinSet::new();
    let started = Instant::now();
    for _ in 0..args.clients {
        clients.spawn(client(prng.fork()));
    }
    let bar = tokio::spawn(draw(pace.clone()));
    let outcome = gather(pace, clients).await;
    let elapsed = started.elapsed();
    pace.stopped.store(true, Ordering::Relaxed);
    bar.await.map_err(CommandError::new)?;
    Ok((outcome?, elapsed))
}

/// Waits for all clients; Ctrl-C ends them early, a failure at once.
async fn gather(
    pace: &Pace,
    mut clients: JoinSet<Result<Measured, CommandError>>,
) -> Result<Measured, CommandError> {
    let mut sum = Measured::default();
    loop {
        let finished = tokio::select! {
            finished = clients.join_next() => finished,
            _ = tokio::signal::ctrl_c(), if !pace.stopped.load(Ordering::Relaxed) => {
                pace.stopped.store(true, Ordering::Relaxed);
                continue;
            }
        };
        let Some(finished) = finished else { return Ok(sum) };
        sum.merge(finished.map_err(CommandError::new)??);
    }
}

/// What is printed.
pub(super) fn report(
    (interface, operation): (&'static str, &'static str),
    args: &CommonArgs,
    pace: &Pace,
    (measured, elapsed): (&Measured, Duration),
) -> Report {
    let operations = pace.done.load(Ordering::Relaxed);
    let latencies = measured.latencies.iter();
    Report {
        interface,
        operation,
        clients: args.clients,
        connections: args.connections,
        value_size: args.value_size,
        keys: args.keys,
        distribution: args.distribution.name(),
        seconds: elapsed.as_secs_f64(),
        operations,
        per_second: per_second(operations, elapsed),
        rows_read: measured.rows_read,
        not_found: measured.not_found,
        conflicts: measured.conflicts,
        latencies: latencies.map(|(name, latencies)| latencies.summary(name)).collect(),
    }
}

/// Letters that look random and do not compress away.
fn letters(value_size: usize, seed: u64) -> Bytes {
    let mut prng = Prng::new(seed);
    let letter = |_| b'a' + prng.below(26) as u8;
    (0..value_size + VALUES as usize).map(letter).collect()
}

/// Draws the bar until the run is over; nothing where standard error is no terminal.
async fn draw(pace: Arc<Pace>) {
    let (_, end) = pace.progress();
    let bar = ProgressBar::new(end);
    let template = "{bar:40} {percent:>3} %  {msg}";
    bar.set_style(ProgressStyle::with_template(template).expect("the template is right"));
    if bar.is_hidden() {
        return;
    }
    let mut redraw = tokio::time::interval(REDRAW);
    while !pace.stopped.load(Ordering::Relaxed) {
        redraw.tick().await;
        let done = pace.done.load(Ordering::Relaxed);
        bar.set_message(format!("{:.0} a second", per_second(done, pace.started.elapsed())));
        bar.set_position(pace.progress().0.min(end));
    }
    bar.finish_and_clear();
}

fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}
