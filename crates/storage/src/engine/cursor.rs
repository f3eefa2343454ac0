//! Walking over keys in order.

use base::KeyRange;

use super::EngineError;

/// What a cursor may see and how it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IterOptions {
    /// The keys it may see. Positions outside do not exist for it.
    pub range: KeyRange,
    /// Whether the blocks it reads should stay in the cache. Not for scans over much data, which
    /// would push out what point reads need.
    pub fill_cache: bool,
    /// Bytes to read ahead from files. Zero: the engine finds out from the pattern of access.
    pub readahead_bytes: usize,
}

impl Default for IterOptions {
    fn default() -> Self {
        Self { range: KeyRange::all(), fill_cache: true, readahead_bytes: 0 }
    }
}

impl IterOptions {
    /// Reads the keys of `range` through the cache.
    pub fn within(range: KeyRange) -> Self {
        Self { range, ..Self::default() }
    }
}

/// A place in the sequence of keys of one family of a [`Snapshot`](super::Snapshot).
///
/// It stands on a key or nowhere. Every method that moves it says which by returning whether it is
/// valid. From nowhere, `next` and `prev` lead nowhere; only seeks help.
pub trait Cursor: Send {
    /// Goes to the first key at or after `key`.
    fn seek(&mut self, key: &[u8]) -> Result<bool, EngineError>;

    /// Goes to the last key at or before `key`.
    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool, EngineError>;

    /// Goes to the first key.
    fn seek_to_first(&mut self) -> Result<bool, EngineError>;

    /// Goes to the last key.
    fn seek_to_last(&mut self) -> Result<bool, EngineError>;

    /// Goes to the next key.
    fn next(&mut self) -> Result<bool, EngineError>;

    /// Goes to the previous key.
    fn prev(&mut self) -> Result<bool, EngineError>;

    /// Whether it stands on a key.
    fn valid(&self) -> bool;

    /// The key it stands on. It must be valid.
    fn key(&self) -> &[u8];

    /// The value of that key. It must be valid.
    fn value(&self) -> &[u8];
}
