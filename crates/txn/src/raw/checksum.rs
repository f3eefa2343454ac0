//! Checksums of ranges: to compare two stores without moving their data.

use bytes::Bytes;
use storage::engine::Cf;

use super::{RawError, View};

/// The checksum of some ranges. Pairs may be summed in any order and in any grouping of ranges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum {
    /// The CRCs of all pairs (key, then value, both in user form) xor-ed.
    pub checksum: u64,
    /// How many pairs.
    pub total_kvs: u64,
    /// Bytes of their keys and values.
    pub total_bytes: u64,
}

impl View<'_> {
    /// The checksum of the pairs in `ranges`, each given as start and end like those of a forward
    /// [`Scan`](super::Scan).
    pub fn checksum(
        &self,
        cf: Cf,
        ranges: impl IntoIterator<Item = (Bytes, Bytes)>,
    ) -> Result<Checksum, RawError> {
        let mut total = Checksum::default();
        for (start, end) in ranges {
            let bounds = self.scan_bounds(&start, &end, false)?;
            if bounds.is_empty() {
                continue;
            }
            self.for_each_live(cf, &bounds, false, |key, value| {
                total.checksum ^= Crc64::new().update(key).update(value).finish();
                total.total_kvs += 1;
                total.total_bytes += (key.len() + value.len()) as u64;
                true
            })?;
        }
        Ok(total)
    }
}

/// CRC-64 with the polynomial of ECMA-182, bits reflected, all ones before and inverted after: the
/// variant of xz files.
#[derive(Clone, Copy, Debug)]
pub struct Crc64(u64);

/// The reflected polynomial.
const POLYNOMIAL: u64 = 0xc96c_5795_d787_0f42;

/// Bytes taken at once.
const SLICE: usize = 8;

/// `TABLES[n][b]`: what byte `b`, followed by `n` zero bytes, does to the sum.
static TABLES: [[u64; 256]; SLICE] = tables();

const fn tables() -> [[u64; 256]; SLICE] {
    let mut tables = [[0; 256]; SLICE];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ POLYNOMIAL } else { sum >> 1 };
            bit += 1;
        }
        tables[0][byte] = sum;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < SLICE {
        let mut byte = 0;
        while byte < 256 {
            let sum = tables[zeros - 1][byte];
            tables[zeros][byte] = (sum >> 8) ^ tables[0][(sum & 0xff) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

impl Crc64 {
    /// The sum of nothing.
    pub fn new() -> Self {
        Self(u64::MAX)
    }

    /// The sum of what came before and `bytes`.
    #[must_use]
    pub fn update(self, bytes: &[u8]) -> Self {
        let (slices, rest) = bytes.as_chunks::<SLICE>();
        let mut sum = self.0;
        for slice in slices {
            let mixed = (sum ^ u64::from_le_bytes(*slice)).to_le_bytes();
            sum = 0;
            for (byte, table) in mixed.iter().zip(TABLES.iter().rev()) {
                sum ^= table[usize::from(*byte)];
            }
        }
        for byte in rest {
            sum = (sum >> 8) ^ TABLES[0][usize::from(sum.to_le_bytes()[0] ^ byte)];
        }
        Self(sum)
    }

    /// The sum as a number.
    pub fn finish(self) -> u64 {
        !self.0
    }
}

impl Default for Crc64 {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, bit by bit.
    fn slow(bytes: &[u8]) -> u64 {
        let mut sum = u64::MAX;
        for byte in bytes {
            sum ^= u64::from(*byte);
            for _ in 0..8 {
                sum = if sum & 1 == 1 { (sum >> 1) ^ POLYNOMIAL } else { sum >> 1 };
            }
        }
        !sum
    }

    #[test]
    fn the_check_value_of_the_variant() {
        assert_eq!(Crc64::new().update(b"123456789").finish(), 0x995d_c9bb_df19_39fa);
        assert_eq!(Crc64::new().finish(), 0);
    }

    #[test]
    fn slices_and_pieces_do_not_matter() {
        let mut prng = base::Prng::new(64);
        for len in 0..70 {
            let bytes: Vec<u8> = (0..len).map(|_| prng.next_u64() as u8).collect();
            let (a, b) = bytes.split_at(prng.below(len + 1) as usize);
            assert_eq!(Crc64::new().update(a).update(b).finish(), slow(&bytes));
        }
    }
}
