//! Which key comes next: uniform, or a few hot ones among many.

use base::Prng;
use bytes::Bytes;

/// Skew of the zipf distribution, the one that YCSB uses.
const ZIPF_THETA: f64 = 0.99;

/// Terms of zeta that are summed; the rest is its integral.
const ZETA_TERMS: u64 = 100_000;

/// How keys are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Distribution {
    /// Each key as often as any other.
    #[default]
    Uniform,
    /// The k-th hottest key about 1/k as often as the hottest.
    Zipf,
}

impl Distribution {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Distribution::Uniform => "uniform",
            Distribution::Zipf => "zipf",
        }
    }
}

/// Draws the numbers of keys below a bound.
#[derive(Clone, Debug)]
pub struct Chooser {
    keys: u64,
    zipf: Option<Zipf>,
}

impl Chooser {
    /// For `keys` keys, at least one.
    pub fn new(distribution: Distribution, keys: u64) -> Chooser {
        assert!(keys > 0, "there must be a key to choose");
        Chooser { keys, zipf: (distribution == Distribution::Zipf).then(|| Zipf::new(keys)) }
    }

    /// The next key's number, below `keys`.
    pub fn next(&self, prng: &mut Prng) -> u64 {
        match &self.zipf {
            None => prng.below(self.keys),
            Some(zipf) => zipf.scatter(zipf.rank(prng)),
        }
    }
}

/// The key with a number: the same keys as those of bench/kvbench.
pub fn key(number: u64) -> Bytes {
    format!("kvbench:{number:012}").into()
}

/// Ranks by Zipf's law, after Gray et al., "Quickly generating billion-record synthetic databases"
/// (1994).
#[derive(Clone, Debug)]
struct Zipf {
    keys: u64,
    zeta: f64,
    alpha: f64,
    eta: f64,
    stride: u64,
}

impl Zipf {
    fn new(keys: u64) -> Zipf {
        let n = keys as f64;
        let zeta = zeta(keys);
        let of_two = zeta_terms(2);
        Zipf {
            keys,
            zeta,
            alpha: 1.0 / (1.0 - ZIPF_THETA),
            eta: (1.0 - (2.0 / n).powf(1.0 - ZIPF_THETA)) / (1.0 - of_two / zeta),
            stride: stride(keys),
        }
    }

    /// The next rank, 0 the hottest.
    fn rank(&self, prng: &mut Prng) -> u64 {
        let u = (prng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let scaled = u * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5f64.powf(ZIPF_THETA) {
            return 1.min(self.keys - 1);
        }
        let rank = self.keys as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.keys - 1)
    }

    /// A key for each rank, so that hot keys are not neighbours: a one-to-one map.
    fn scatter(&self, rank: u64) -> u64 {
        (u128::from(rank) * u128::from(self.stride) % u128::from(self.keys)) as u64
    }
}

/// The sum of `k^-theta` for k up to `n`.
fn zeta(n: u64) -> f64 {
    if n <= ZETA_TERMS {
        return zeta_terms(n);
    }
    let (from, to) = (ZETA_TERMS as f64, n as f64);
    let power = 1.0 - ZIPF_THETA;
    let integral = (to.powf(power) - from.powf(power)) / power;
    let ends = (to.powf(-ZIPF_THETA) - from.powf(-ZIPF_THETA)) / 2.0;
    zeta_terms(ZETA_TERMS) + integral + ends
}

fn zeta_terms(n: u64) -> f64 {
    (1..=n).map(|k| (k as f64).powf(-ZIPF_THETA)).sum()
}

/// A step around the keys that meets each of them: one with no divisor in common with their number,
/// near the golden section of it.
fn stride(keys: u64) -> u64 {
    let golden = (keys as f64 * 0.618_033_988_75) as u64;
    let mut stride = golden.max(1);
    while divisor(stride, keys) != 1 {
        stride += 1;
    }
    stride
}

fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_sort_as_their_numbers() {
        assert_eq!(key(7), "kvbench:000000000007");
        assert!(key(9) < key(10));
    }

    #[test]
    fn uniform_reaches_every_key() {
        let chooser = Chooser::new(Distribution::Uniform, 10);
        let mut prng = Prng::new(1);
        let seen: BTreeSet<_> = (0..500).map(|_| chooser.next(&mut prng)).collect();
        assert_eq!(seen.len(), 10);
    }

    #[test]
    fn zipf_follows_its_law() {
        let keys = 1000;
        let zipf = Zipf::new(keys);
        let mut prng = Prng::new(2);
        let draws = 200_000;
        let mut counts = vec![0u64; keys as usize];
        for _ in 0..draws {
            counts[zipf.rank(&mut prng) as usize] += 1;
        }
        for rank in [0, 1, 9, 99] {
            let expected = draws as f64 / ((rank + 1) as f64).powf(ZIPF_THETA) / zipf.zeta;
            let ratio = counts[rank] as f64 / expected;
            assert!((0.8..1.25).contains(&ratio), "rank {rank}: {ratio}");
        }
    }

    #[test]
    fn scattering_is_one_to_one() {
        for keys in [1, 2, 3, 10, 97, 1000] {
            let zipf = Zipf::new(keys);
            let hit: BTreeSet<_> = (0..keys).map(|rank| zipf.scatter(rank)).collect();
            assert_eq!(hit.len() as u64, keys);
            let mut prng = Prng::new(3);
            assert!((0..1000).all(|_| zipf.rank(&mut prng) < keys), "{keys} keys");
        }
        let zipf = Zipf::new(1000);
        assert!(zipf.scatter(0).abs_diff(zipf.scatter(1)) > 1, "hot keys are neighbours");
    }

    #[test]
    fn the_tail_of_zeta_is_its_integral() {
        let n = 2 * ZETA_TERMS;
        assert!((zeta(n) - zeta_terms(n)).abs() < 1e-6);
    }
}
