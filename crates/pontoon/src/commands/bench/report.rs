//! What a run measured, for people and for programs.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Digits of a latency that are kept.
const PRECISION: u8 = 3;

/// The longest latency that is told from longer ones: an hour, in microseconds.
const LATENCY_MAX_US: u64 = 3_600_000_000;

/// Latencies of one kind of operation.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Latencies {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_US, PRECISION);
        Latencies { histogram: histogram.expect("the bounds are in order") }
    }
}

impl Latencies {
    /// Adds one.
    pub fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(us.max(1));
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Latencies) {
        self.histogram.add(&other.histogram).expect("both have the same bounds");
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The figures that are reported.
    pub fn summary(&self, name: &str) -> Summary {
        let ms = |us: u64| us as f64 / 1000.0;
        let at = |quantile| ms(self.histogram.value_at_quantile(quantile));
        Summary {
            name: name.to_owned(),
            count: self.count(),
            mean_ms: self.histogram.mean() / 1000.0,
            p50_ms: at(0.50),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(self.histogram.max()),
        }
    }
}

/// Latencies in short.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// What was measured.
    pub name: String,
    /// How many of it.
    pub count: u64,
    /// Mean, in milliseconds, as all that follow.
    pub mean_ms: f64,
    /// Half of them took at most this long.
    pub p50_ms: f64,
    /// 95 of 100.
    pub p95_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// 999 of 1000.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// A run and its figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// `raw` or `txn`.
    pub interface: &'static str,
    /// The workload: `put`, `transfer` and so on.
    pub operation: &'static str,
    /// Callers, each with one operation under way.
    pub clients: usize,
    /// Connections that they shared.
    pub connections: usize,
    /// Bytes of a value.
    pub value_size: usize,
    /// Keys that operations chose from.
    pub keys: u64,
    /// How they chose.
    pub distribution: &'static str,
    /// How long the run took.
    pub seconds: f64,
    /// Operations done; rows for `load`.
    pub operations: u64,
    /// Operations a second.
    pub per_second: f64,
    /// Rows read.
    pub rows_read: u64,
    /// Reads that found nothing.
    pub not_found: u64,
    /// Transactions that lost to another one and were run again.
    pub conflicts: u64,
    /// Latencies of each kind of operation.
    pub latencies: Vec<Summary>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (clients, connections) = (self.clients, self.connections);
        let (size, keys, distribution) = (self.value_size, self.keys, self.distribution);
        writeln!(
            f,
            "{} {}: {clients} clients, {connections} connections, {size} B values, {keys} keys, \
             {distribution}",
            self.interface, self.operation
        )?;
        let (operations, seconds) = (self.operations, self.seconds);
        writeln!(f, "{operations} operations in {seconds:.2} s: {:.0} a second", self.per_second)?;
        if self.rows_read > 0 || self.not_found > 0 {
            writeln!(f, "{} rows read, {} not found", self.rows_read, self.not_found)?;
        }
        if self.conflicts > 0 {
            writeln!(f, "{} conflicts, run again", self.conflicts)?;
        }
        write!(f, "{:>10}", "ms")?;
        for title in ["mean", "p50", "p95", "p99", "p99.9", "max"] {
            write!(f, "{title:>10}")?;
        }
        for row in &self.latencies {
            write!(f, "\n{:>10}", row.name)?;
            for ms in [row.mean_ms, row.p50_ms, row.p95_ms, row.p99_ms, row.p999_ms, row.max_ms] {
                write!(f, "{ms:>10.3}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies(us: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::default();
        us.into_iter().for_each(|us| latencies.record(Duration::from_micros(us)));
        latencies
    }

    #[test]
    fn quantiles_are_those_of_all_clients() {
        let mut all = latencies((1..=500).map(|ms| ms * 1000));
        all.merge(&latencies((501..=1000).map(|ms| ms * 1000)));
        let summary = all.summary("put");
        assert_eq!(summary.count, 1000);
        let near = |value: f64, expected: f64| (value / expected - 1.0).abs() < 0.002;
        assert!(near(summary.p50_ms, 500.0) && near(summary.p95_ms, 950.0), "{summary:?}");
        assert!(near(summary.p99_ms, 990.0) && near(summary.p999_ms, 999.0), "{summary:?}");
        assert!(near(summary.max_ms, 1000.0) && near(summary.mean_ms, 500.5), "{summary:?}");
    }

    #[test]
    fn extremes_are_kept_in_bounds() {
        let mut latencies = latencies([0]);
        latencies.record(Duration::from_secs(1 << 40));
        let summary = latencies.summary("get");
        assert_eq!(summary.count, 2);
        assert!(summary.p50_ms <= 0.001 && summary.max_ms >= 3_600_000.0, "{summary:?}");
    }

    #[test]
    fn a_report_can_be_read_by_both() {
        let report = Report {
            interface: "raw",
            operation: "put",
            clients: 2,
            connections: 1,
            value_size: 100,
            keys: 10,
            distribution: "uniform",
            seconds: 2.0,
            operations: 4,
            per_second: 2.0,
            rows_read: 0,
            not_found: 0,
            conflicts: 3,
            latencies: vec![latencies([1000, 1000]).summary("put")],
        };
        let text = report.to_string();
        assert!(text.contains("4 operations in 2.00 s: 2 a second"), "{text}");
        assert!(text.contains("3 conflicts"), "{text}");
        assert!(text.lines().last().is_some_and(|row| row.contains("put     1.000")), "{text}");
        let json: serde_json::Value =
            serde_json::to_value(&report).expect("a report is plain numbers and text");
        assert_eq!(json["latencies"][0]["p99_ms"], 1.0);
        assert_eq!(json["per_second"], 2.0);
    }
}
