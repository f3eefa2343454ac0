//! The clients of a run, and what each of them does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base::Prng;
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use super::keys::{Chooser, key};
use super::report::{Latencies, Report};
use super::{RawArgs, Workload};
use crate::client::{Operation, Outcome, Streams};
use crate::commands::CommandError;

/// Different values that are written.
const VALUES: u64 = 4096;

/// How often the progress bar is drawn.
const REDRAW: Duration = Duration::from_millis(100);

/// What all clients of a run share.
struct Run {
    args: RawArgs,
    streams: Streams,
    chooser: Chooser,
    /// Values are windows of this.
    letters: Bytes,
    /// Operations begun; rows for `load`.
    begun: AtomicU64,
    /// Operations done; rows for `load`.
    done: AtomicU64,
    stopped: AtomicBool,
    started: Instant,
}

/// What one client measured.
#[derive(Default)]
struct Measured {
    reads: Latencies,
    writes: Latencies,
    rows_read: u64,
    not_found: u64,
}

/// Connects, runs the clients and sums up what they measured.
pub(super) async fn run(args: &RawArgs) -> Result<Report, CommandError> {
    let streams = Streams::connect(&args.addr, args.api_version).await?;
    for lane in 0..args.connections {
        // Connections and regions are looked up before the clock starts.
        streams.run(lane, Operation::Get(key(0))).await?;
    }
    let run = Arc::new(Run {
        args: args.clone(),
        streams,
        chooser: Chooser::new(args.distribution, args.keys),
        letters: letters(args.value_size, args.seed),
        begun: AtomicU64::new(0),
        done: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        started: Instant::now(),
    });
    let mut prng = Prng::new(args.seed);
    let mut clients = JoinSet::new();
    for number in 0..args.clients {
        clients.spawn(client(run.clone(), number, prng.fork()));
    }
    let bar = tokio::spawn(draw(run.clone()));
    let outcome = gather(&run, clients).await;
    let elapsed = run.started.elapsed();
    run.stopped.store(true, Ordering::Relaxed);
    bar.await.map_err(CommandError::new)?;
    Ok(report(&run, &outcome?, elapsed))
}

/// Waits for all clients; Ctrl-C ends them early, a failure at once.
async fn gather(
    run: &Run,
    mut clients: JoinSet<Result<Measured, CommandError>>,
) -> Result<Measured, CommandError> {
    let mut sum = Measured::default();
    loop {
        let finished = tokio::select! {
            finished = clients.join_next() => finished,
            _ = tokio::signal::ctrl_c(), if !run.stopped.load(Ordering::Relaxed) => {
                run.stopped.store(true, Ordering::Relaxed);
                continue;
            }
        };
        let Some(finished) = finished else { return Ok(sum) };
        let measured = finished.map_err(CommandError::new)??;
        sum.reads.merge(&measured.reads);
        sum.writes.merge(&measured.writes);
        sum.rows_read += measured.rows_read;
        sum.not_found += measured.not_found;
    }
}

async fn client(run: Arc<Run>, number: usize, mut prng: Prng) -> Result<Measured, CommandError> {
    let lane = number % run.args.connections;
    let mut measured = Measured::default();
    while let Some((operation, weight)) = run.next_operation(&mut prng) {
        let is_write = matches!(operation, Operation::Put(..) | Operation::Load(_));
        let begun = Instant::now();
        let outcome = run.streams.run(lane, operation).await?;
        let latencies = if is_write { &mut measured.writes } else { &mut measured.reads };
        latencies.record(begun.elapsed());
        if let Outcome::Rows(rows) = outcome {
            measured.rows_read += rows as u64;
            measured.not_found += u64::from(rows == 0);
        }
        run.done.fetch_add(weight, Ordering::Relaxed);
    }
    Ok(measured)
}

impl Run {
    /// What a client does next and how many operations that counts for; none when the run is over.
    fn next_operation(&self, prng: &mut Prng) -> Option<(Operation, u64)> {
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        if self.args.workload == Workload::Load {
            return self.next_batch(prng);
        }
        let over = match self.args.ops {
            Some(ops) => self.begun.fetch_add(1, Ordering::Relaxed) >= ops,
            None => self.started.elapsed() >= self.args.duration,
        };
        if over {
            return None;
        }
        let key = key(self.chooser.next(prng));
        let reads = match self.args.workload {
            Workload::Mixed => {
                (prng.below(1 << 32) as f64) < self.args.read_fraction * 2f64.powi(32)
            }
            workload => workload != Workload::Put,
        };
        Some(match self.args.workload {
            Workload::Scan => (Operation::Scan(key, self.args.scan_length), 1),
            _ if reads => (Operation::Get(key), 1),
            _ => (Operation::Put(key, self.value(prng)), 1),
        })
    }

    fn next_batch(&self, prng: &mut Prng) -> Option<(Operation, u64)> {
        let rows = self.args.batch as u64;
        let first = self.begun.fetch_add(rows, Ordering::Relaxed);
        let end = (first + rows).min(self.args.keys);
        let pairs: Vec<_> = (first..end).map(|n| (key(n), self.value(prng))).collect();
        let rows = pairs.len() as u64;
        (rows > 0).then_some((Operation::Load(pairs), rows))
    }

    fn value(&self, prng: &mut Prng) -> Bytes {
        let from = prng.below(VALUES) as usize;
        self.letters.slice(from..from + self.args.value_size)
    }

    /// How far the run is, and where it ends.
    fn progress(&self) -> (u64, u64) {
        let done = self.done.load(Ordering::Relaxed);
        match (self.args.workload, self.args.ops) {
            (Workload::Load, _) => (done, self.args.keys),
            (_, Some(ops)) => (done, ops),
            (_, None) => {
                let ms = |duration: Duration| duration.as_millis() as u64;
                (ms(self.started.elapsed()), ms(self.args.duration))
            }
        }
    }
}

/// Letters that look random and do not compress away.
fn letters(value_size: usize, seed: u64) -> Bytes {
    let mut prng = Prng::new(seed);
    let letter = |_| b'a' + prng.below(26) as u8;
    (0..value_size + VALUES as usize).map(letter).collect()
}

/// Draws the bar until the run is over; nothing where standard error is no terminal.
async fn draw(run: Arc<Run>) {
    let (_, end) = run.progress();
    let bar = ProgressBar::new(end);
    let template = "{bar:40} {percent:>3} %  {msg}";
    bar.set_style(ProgressStyle::with_template(template).expect("the template is right"));
    if bar.is_hidden() {
        return;
    }
    let mut redraw = tokio::time::interval(REDRAW);
    while !run.stopped.load(Ordering::Relaxed) {
        redraw.tick().await;
        let done = run.done.load(Ordering::Relaxed);
        bar.set_message(format!("{:.0} a second", per_second(done, run.started.elapsed())));
        bar.set_position(run.progress().0.min(end));
    }
    bar.finish_and_clear();
}

fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}

fn report(run: &Run, measured: &Measured, elapsed: Duration) -> Report {
    let args = &run.args;
    let (read, write) = match args.workload {
        Workload::Scan => ("scan", ""),
        Workload::Load => ("", "batch"),
        _ => ("get", "put"),
    };
    let kinds = [(read, &measured.reads), (write, &measured.writes)];
    let measured_kinds = kinds.iter().filter(|(_, latencies)| latencies.count() > 0);
    let operations = run.done.load(Ordering::Relaxed);
    Report {
        operation: args.workload.name(),
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
        latencies: measured_kinds.map(|(name, latencies)| latencies.summary(name)).collect(),
    }
}
