//! Hot regions: what is asked of a region, and the key at which its requests fall into halves.
//!
//! ```text
//!   readers, on their own threads ──> Traffic: counters, one request in 64 with its keys
//!   applied writes ─────────────────> Load:    the same
//!                                       │ each second
//!              ten hot seconds in a row ┴─> a key with as many requests before it as behind it
//! ```
//!
//! The rules of thumb are TiKV's: 3,000 requests or 30 MiB a second for ten seconds; both halves
//! may differ by a quarter of the requests, and at most half of them may reach over the key.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base::{Instant, KeyRange};
use bytes::Bytes;

use super::rows::user_key;

/// One request in so many is remembered with its keys.
pub(crate) const SAMPLE_EVERY: u64 = 64;

/// Requests that are remembered; later ones take the places of earlier ones.
const SAMPLES_MAX: usize = 256;

/// With fewer there is no telling where halves are.
const SAMPLES_MIN: usize = 20;

/// The halves may differ by one part in so many of the requests.
const IMBALANCE_PARTS: usize = 4;

/// One part in so many of the requests may reach over the key.
const CONTAINED_PARTS: usize = 2;

/// Time between two looks at what was asked.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// From when on a region counts as hot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadLimits {
    /// Requests a second; a key that is written is one. Default 3,000.
    pub requests: u64,
    /// Bytes read and written a second. Default 30 MiB.
    pub bytes: u64,
    /// Seconds in a row. Default 10.
    pub seconds: u32,
}

impl Default for LoadLimits {
    fn default() -> Self {
        Self { requests: 3_000, bytes: 30 << 20, seconds: 10 }
    }
}

/// The keys of a request: one key, or from the first to the last.
type Sample = (Bytes, Bytes);

/// What readers did to a region. They count for themselves, from any thread.
#[derive(Debug, Default)]
pub struct Traffic {
    requests: AtomicU64,
    keys: AtomicU64,
    bytes: AtomicU64,
    samples: Mutex<Vec<Sample>>,
}

/// Sums since a replica began to exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reads {
    pub(crate) requests: u64,
    pub(crate) keys: u64,
    pub(crate) bytes: u64,
}

impl Traffic {
    /// A key was read, in the form in which regions are split.
    pub fn read(&self, key: &[u8], bytes: usize) {
        self.scanned(key, key, 1, bytes);
    }

    /// `keys` keys from `first` to `last` were read.
    pub fn scanned(&self, first: &[u8], last: &[u8], keys: usize, bytes: usize) {
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        self.keys.fetch_add(keys as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if before.is_multiple_of(SAMPLE_EVERY) {
            let sample = (Bytes::copy_from_slice(first), Bytes::copy_from_slice(last));
            let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
            remember(&mut samples, sample, before / SAMPLE_EVERY);
        }
    }

    pub(crate) fn sums(&self) -> Reads {
        Reads {
            requests: self.requests.load(Ordering::Relaxed),
            keys: self.keys.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    fn take_samples(&self) -> Vec<Sample> {
        std::mem::take(&mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn remember(samples: &mut Vec<Sample>, sample: Sample, number: u64) {
    match samples.len() < SAMPLES_MAX {
        true => samples.push(sample),
        false => samples[(number % SAMPLES_MAX as u64) as usize] = sample,
    }
    assert!(samples.len() <= SAMPLES_MAX, "samples are bounded");
}

/// What is asked of a region, second by second, as its leader sees it.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Since the last look.
    written_keys: u64,
    written_bytes: u64,
    write_samples: Vec<Sample>,
    samples_seen: u64,
    /// At the last look.
    reads: Reads,
    looked_at: Instant,
    hot_seconds: u32,
    samples: Vec<Sample>,
}

impl Load {
    /// Writes were applied. `sampled` are some of their keys.
    pub(crate) fn written(&mut self, keys: u64, bytes: u64, sampled: &[Bytes]) {
        self.written_keys += keys;
        self.written_bytes += bytes;
        for key in sampled {
            let key = Bytes::copy_from_slice(user_key(key));
            remember(&mut self.write_samples, (key.clone(), key), self.samples_seen);
            self.samples_seen += 1;
        }
    }

    /// A second has passed. Returns where to cut the region, if it was hot for long enough.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        traffic: &Traffic,
        limits: &LoadLimits,
        range: &KeyRange,
    ) -> Option<Bytes> {
        let reads = traffic.sums();
        let (written_keys, written_bytes) =
            (std::mem::take(&mut self.written_keys), std::mem::take(&mut self.written_bytes));
        let requests = reads.requests - self.reads.requests + written_keys;
        let bytes = reads.bytes - self.reads.bytes + written_bytes;
        let passed_ms = (now.since(self.looked_at).as_millis() as u64).max(1);
        (self.reads, self.looked_at) = (reads, now);
        let reaches = |amount: u64, a_second: u64| {
            a_second > 0 && amount.saturating_mul(1000) >= a_second.saturating_mul(passed_ms)
        };
        let is_hot = reaches(requests, limits.requests) || reaches(bytes, limits.bytes);
        if !is_hot {
            if self.hot_seconds > 0 || requests > 0 {
                self.cool(traffic);
            }
            return None;
        }
        self.hot_seconds += 1;
        let new = traffic.take_samples().into_iter().chain(self.write_samples.drain(..));
        for sample in new {
            self.samples_seen += 1;
            remember(&mut self.samples, sample, self.samples_seen);
        }
        if self.hot_seconds < limits.seconds {
            return None;
        }
        let key = halving_key(&self.samples, range);
        self.cool(traffic);
        key
    }

    fn cool(&mut self, traffic: &Traffic) {
        self.hot_seconds = 0;
        self.samples = Vec::new();
        self.write_samples = Vec::new();
        drop(traffic.take_samples());
    }
}

/// The key of `range` that divides the requests best, if any does so well enough.
fn halving_key(samples: &[Sample], range: &KeyRange) -> Option<Bytes> {
    if samples.len() < SAMPLES_MIN {
        return None;
    }
    let mut starts: Vec<&Bytes> = samples.iter().map(|(first, _)| first).collect();
    starts.sort_unstable();
    starts.dedup();
    let score = |key: &Bytes| {
        let left = samples.iter().filter(|(_, last)| last < key).count();
        let right = samples.iter().filter(|(first, _)| first >= key).count();
        let contained = samples.len() - left - right;
        let imbalance = left.abs_diff(right);
        let is_good = imbalance * IMBALANCE_PARTS <= left + right
            && contained * CONTAINED_PARTS <= samples.len()
            && left > 0;
        is_good.then_some(imbalance + contained)
    };
    let inside = |key: &&Bytes| range.contains(key) && **key != range.start;
    let scored = starts.into_iter().filter(inside).filter_map(|key| Some((score(key)?, key)));
    scored.min_by_key(|(score, _)| *score).map(|(_, key)| key.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(keys: impl Iterator<Item = (u8, u8)>) -> Vec<Sample> {
        keys.map(|(a, b)| (Bytes::from(vec![a]), Bytes::from(vec![b]))).collect()
    }

    #[test]
    fn requests_are_halved() {
        let all = KeyRange::all();
        let even = samples((0..100).map(|i| (i, i)));
        assert_eq!(halving_key(&even, &all).as_deref(), Some(&[50][..]));
        let lower = KeyRange::new("", vec![30]);
        assert_eq!(halving_key(&even, &lower), None, "no half lies there");
        assert_eq!(halving_key(&even[..SAMPLES_MIN - 1], &all), None, "too few");
        let one_key = samples((0..100).map(|_| (7, 7)));
        assert_eq!(halving_key(&one_key, &all), None, "nothing to divide");
        let wide = samples((0..100).map(|_| (1, 200)));
        assert_eq!(halving_key(&wide, &all), None, "all reach over it");
        let skewed = samples((0..100).map(|i| if i < 90 { (9, 9) } else { (20, 20) }));
        assert_eq!(halving_key(&skewed, &all), None, "one key is most of it");
    }

    #[test]
    fn only_seconds_in_a_row_count() {
        let limits = LoadLimits { requests: 1_000, bytes: 0, seconds: 3 };
        let (traffic, mut load, all) = (Traffic::default(), Load::default(), KeyRange::all());
        let mut now = Instant::ZERO;
        let mut second = |requests: u32, load: &mut Load| {
            (0..requests).for_each(|i| traffic.read(&(i * 7919 % 1000).to_be_bytes(), 10));
            now = now + LOOK_INTERVAL;
            load.look(now, &traffic, &limits, &all)
        };
        assert_eq!(second(2_000, &mut load), None);
        assert_eq!(second(2_000, &mut load), None);
        assert_eq!(second(10, &mut load), None, "a pause");
        assert_eq!(second(2_000, &mut load), None);
        assert_eq!(second(2_000, &mut load), None);
        let key = second(2_000, &mut load).expect("hot for three seconds");
        let number = u32::from_be_bytes(key[..].try_into().expect("four bytes"));
        assert!((300..700).contains(&number), "{number}");
        assert_eq!(second(2_000, &mut load), None, "it begins anew");
    }
}
