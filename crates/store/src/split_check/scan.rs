//! Exact: every entry of a region is counted, up to the last key at which it is to be cut.

use base::Region;
use bytes::Bytes;
use storage::engine::{Engine, EngineError};

use super::rows::Rows;
use super::{Found, Measure, SplitConfig};

/// Collects the keys at which pieces of one measure begin.
struct Cutter {
    piece: u64,
    max: u64,
    batch: usize,
    /// Since the last cut.
    current: u64,
    total: u64,
    keys: Vec<Bytes>,
}

impl Cutter {
    fn new(piece: u64, max: u64, batch: usize) -> Self {
        Self { piece, max, batch, current: 0, total: 0, keys: Vec::new() }
    }

    /// A new user key begins: perhaps a new piece with it.
    fn key(&mut self, key: &[u8]) {
        if self.current >= self.piece && self.keys.len() < self.batch {
            self.keys.push(Bytes::copy_from_slice(key));
            self.current = 0;
        }
    }

    fn add(&mut self, amount: u64) {
        self.current += amount;
        self.total += amount;
    }

    /// Whether more would change nothing: all cuts are found, and the last piece is long enough.
    fn is_full(&self) -> bool {
        self.keys.len() == self.batch && self.current + self.piece >= self.max
    }

    /// The cuts, if there is too much. A short rest stays with the piece before it.
    fn finish(mut self) -> Vec<Bytes> {
        if self.total < self.max {
            return Vec::new();
        }
        if self.keys.len() > 1 && self.current + self.piece < self.max {
            self.keys.pop();
        }
        self.keys
    }
}

/// Reads the region.
pub(super) fn look(
    engine: &dyn Engine,
    region: &Region,
    config: &SplitConfig,
) -> Result<Found, EngineError> {
    let snapshot = engine.snapshot();
    let mut rows = Rows::open(&*snapshot, region, &region.range)?;
    let mut bytes = Cutter::new(config.piece_bytes, config.max_bytes, config.batch);
    let mut keys = Cutter::new(config.piece_keys, config.max_keys, config.batch);
    let mut last: Option<Vec<u8>> = None;
    rows.each(|key, size| {
        if last.as_deref() != Some(key) {
            if last.is_some() {
                bytes.key(key);
                keys.key(key);
            }
            keys.add(1);
            let last = last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(key);
        }
        bytes.add(size);
        !bytes.is_full() && !keys.is_full()
    })?;
    let measure = Measure { bytes: bytes.total, keys: keys.total };
    let by_bytes = bytes.finish();
    let keys = if by_bytes.is_empty() { keys.finish() } else { by_bytes };
    Ok(Found { measure, keys })
}
