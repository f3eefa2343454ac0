//! `pontoon bench raw`: what each client does with raw keys.

use std::sync::Arc;
use std::time::Instant;

use base::Prng;
use bytes::Bytes;
use client::{Pair, Raw};

use super::keys::key;
use super::pace::{self, End, Measured, Pace};
use super::report::Report;
use super::{RawArgs, Workload};
use crate::commands::CommandError;
use crate::remote::{self, GrpcLink};

/// Connects, runs the clients and sums up what they measured.
pub(super) async fn run(args: &RawArgs) -> Result<Report, CommandError> {
    let common = &args.common;
    let db = remote::connect(&common.addr, common.api_version, common.connections).await?;
    for _ in 0..common.connections {
        // Connections and regions are looked up before the clock starts.
        db.raw().get(&key(0)).await?;
    }
    let end = (args.workload == Workload::Load).then_some(End::Count(common.keys));
    let pace = Pace::new(common, end);
    let client = |prng| {
        let client = Client { args: args.clone(), raw: db.raw(), pace: pace.clone() };
        client.run(prng)
    };
    let (measured, elapsed) = pace::run(common, &pace, client).await?;
    Ok(pace::report(("raw", args.workload.name()), common, &pace, (&measured, elapsed)))
}

struct Client {
    args: RawArgs,
    raw: Raw<GrpcLink>,
    pace: Arc<Pace>,
}

impl Client {
    async fn run(self, mut prng: Prng) -> Result<Measured, CommandError> {
        let mut measured = Measured::default();
        let count = match self.args.workload {
            Workload::Load => self.args.batch as u64,
            _ => 1,
        };
        while let Some(first) = self.pace.take(count) {
            let begun = Instant::now();
            let (kind, done) = self.operation(first, &mut prng, &mut measured).await?;
            measured.record(kind, begun.elapsed());
            self.pace.did(done);
        }
        Ok(measured)
    }

    /// One operation: its kind, and for how many it counts.
    async fn operation(
        &self,
        first: u64,
        prng: &mut Prng,
        measured: &mut Measured,
    ) -> Result<(&'static str, u64), CommandError> {
        if self.args.workload == Workload::Load {
            return Ok(("batch", self.load(first, prng).await?));
        }
        let key = key(self.pace.number(prng));
        let reads = match self.args.workload {
            Workload::Mixed => {
                (prng.below(1 << 32) as f64) < self.args.read_fraction * 2f64.powi(32)
            }
            workload => workload != Workload::Put,
        };
        let rows = match self.args.workload {
            Workload::Scan => self.raw.scan(&key, &[], self.args.scan_length as usize).await?.len(),
            _ if reads => usize::from(self.raw.get(&key).await?.is_some()),
            _ => {
                self.raw.put(&key, self.pace.value(prng), 0).await?;
                return Ok(("put", 1));
            }
        };
        measured.rows_read += rows as u64;
        measured.not_found += u64::from(rows == 0);
        Ok((if self.args.workload == Workload::Scan { "scan" } else { "get" }, 1))
    }

    async fn load(&self, first: u64, prng: &mut Prng) -> Result<u64, CommandError> {
        let end = (first + self.args.batch as u64).min(self.args.common.keys);
        let pair = |number| -> Pair { Pair { key: key(number), value: Bytes::new() } };
        let mut pairs: Vec<Pair> = (first..end).map(pair).collect();
        for pair in &mut pairs {
            pair.value = self.pace.value(prng);
        }
        self.raw.batch_put(&pairs).await?;
        Ok(pairs.len() as u64)
    }
}
