//! Do the replicas of a region hold the same? Each makes a hash of what it holds at the same entry.
//!
//! ```text
//!   leader: ComputeHash ──log──> every applier, at this entry: a snapshot of the engine ──> Job
//!           VerifyHash  <── the leader's own hash ── HashComputed <─────────────────────────┘
//!              └──log──> every replica: the leader's hash beside its own; another one is Fatal
//! ```
//!
//! The hash is made beside the apply thread, so the two entries may be applied before a replica has
//! its own; whichever comes second compares. A replica that has no hash for the entry (it was
//! restarted, or a snapshot carried it beyond) has nothing to say.
//!
//! What it covers: keys and values of the region's range in all families of data, and the region's
//! descriptor and state in its `RegionLocalState`, as they are stored.
//! Not what may differ: the log, what is applied but gone, and garbage. The entry carries the
//! leader's horizon of garbage; each replica leaves out what a store may have dropped up to there,
//! dropped here or not, and a store that has gone further has nothing to say.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use base::{Index, KeyRange, Region};
use bytes::Bytes;
use crc32fast::Hasher;
use prost::Message;
use proto::raft_serverpb::RegionLocalState;
use storage::engine::{
    Cf, Cursor, Engine, EngineError, Fate, GarbageWalk, Gone, IterOptions, Snapshot,
};
use storage::keys;

/// What is read ahead: the region is read from end to end.
const READAHEAD_BYTES: usize = 1 << 20;

/// Bytes of the timestamp at the end of a versioned key.
const TIMESTAMP_BYTES: usize = 8;

/// What a replica holds at an entry, in 20 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionHash {
    /// The entry (`ComputeHash`).
    pub index: Index,
    /// CRC-32 of everything, number of keys, bytes of keys and values.
    pub digest: [u8; 20],
}

impl RegionHash {
    /// Number of keys that it was made of.
    pub fn keys(&self) -> u64 {
        u64::from_be_bytes(self.digest[4..12].try_into().expect("eight bytes"))
    }

    /// Bytes of keys and values that it was made of.
    pub fn bytes(&self) -> u64 {
        u64::from_be_bytes(self.digest[12..].try_into().expect("eight bytes"))
    }
}

impl fmt::Display for RegionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let crc = u32::from_be_bytes(self.digest[..4].try_into().expect("four bytes"));
        write!(f, "{crc:08x} ({} keys, {} bytes)", self.keys(), self.bytes())
    }
}

/// Makes the hash of a region.
///
/// The applier fills it in between two batches, so that `snapshot` sees what the entry left and
/// nothing behind it.
pub struct ComputeHash {
    /// The region at that entry.
    pub region: Arc<Region>,
    /// The entry.
    pub index: Index,
    /// Up to where stores may have collected garbage, as the entry says.
    pub horizon: Bytes,
    /// The engine at that entry.
    pub snapshot: Arc<dyn Snapshot>,
}

impl fmt::Debug for ComputeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComputeHash")
            .field("region", &self.region.id)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl ComputeHash {
    /// Reads the region through. `None`: this store has collected garbage beyond the horizon, so
    /// that replicas may differ. An engine that cannot read its own data fails it.
    pub fn run(&self, engine: &dyn Engine) -> Result<Option<RegionHash>, EngineError> {
        let (start, end) = keys::data_range(self.region.id, &self.region.range);
        let (range, rule) = (KeyRange::new(start, end), engine.garbage());
        assert!(!range.is_empty(), "a region has keys");
        let walk = || rule.beyond(&self.horizon, &range);
        let Some(values) = walk() else { return Ok(None) };
        let mut values = GarbageValues::new(self.iter(Cf::Write, &range)?, values)?;
        let mut sum = Sum::default();
        let key = keys::region_state_key(self.region.id);
        let value = self.snapshot.get(Cf::Raft, &key)?.unwrap_or_default();
        sum.take(&key, &state(&value));
        for cf in Cf::DATA {
            let Some(mut walk) = walk() else { return Ok(None) };
            sum.hasher.update(cf.name().as_bytes());
            let mut cursor = self.iter(cf, &range)?;
            let mut valid = cursor.seek_to_first()?;
            while valid {
                let (key, value) = (cursor.key(), cursor.value());
                let counts = match cf {
                    Cf::Default => !values.contain(key)?,
                    Cf::Write => walk.next(key, value) == Fate::Stays,
                    Cf::Lock | Cf::Raft => true,
                };
                if counts {
                    sum.take(key, value);
                }
                valid = cursor.next()?;
            }
        }
        assert!(sum.keys > 0, "the region's own state is there");
        // A compaction takes garbage out of snapshots too: what was collected meanwhile counts.
        Ok(walk().map(|_| sum.finish(self.index)))
    }

    fn iter(&self, cf: Cf, range: &KeyRange) -> Result<Box<dyn Cursor + '_>, EngineError> {
        let (range, readahead_bytes) = (range.clone(), READAHEAD_BYTES);
        self.snapshot.iter(cf, IterOptions { range, fill_cache: false, readahead_bytes })
    }
}

/// Which values of family `default` are of records that are garbage. Asked in the order of keys, it
/// walks along in family `write`.
struct GarbageValues<'a> {
    records: Box<dyn Cursor + 'a>,
    walk: Box<dyn GarbageWalk>,
    /// Values of garbage, not before the last one that was asked for.
    ahead: BTreeSet<Vec<u8>>,
}

impl<'a> GarbageValues<'a> {
    fn new(
        mut records: Box<dyn Cursor + 'a>,
        walk: Box<dyn GarbageWalk>,
    ) -> Result<Self, EngineError> {
        records.seek_to_first()?;
        Ok(Self { records, walk, ahead: BTreeSet::new() })
    }

    /// A value and its record differ in their last eight bytes, the timestamps.
    fn contain(&mut self, place: &[u8]) -> Result<bool, EngineError> {
        let Some(key_len) = place.len().checked_sub(TIMESTAMP_BYTES) else { return Ok(false) };
        while self.records.valid() && {
            let record = self.records.key();
            record < place || record.starts_with(&place[..key_len])
        } {
            if let Fate::Goes(Gone { value: Some(value), .. }) =
                self.walk.next(self.records.key(), self.records.value())
            {
                self.ahead.insert(value);
            }
            self.records.next()?;
        }
        while self.ahead.first().is_some_and(|value| value[..] < *place) {
            self.ahead.pop_first();
        }
        Ok(self.ahead.first().is_some_and(|value| value[..] == *place))
    }
}

/// What every replica must have in its record of the region.
fn state(value: &[u8]) -> Vec<u8> {
    let Ok(record) = RegionLocalState::decode(value) else { return value.to_vec() };
    let RegionLocalState { state, region, merge_state, .. } = record;
    RegionLocalState { state, region, merge_state, ..Default::default() }.encode_to_vec()
}

#[derive(Default)]
struct Sum {
    hasher: Hasher,
    keys: u64,
    bytes: u64,
}

impl Sum {
    /// Lengths first, so that bytes which move over a border are noticed.
    fn take(&mut self, key: &[u8], value: &[u8]) {
        let lengths = [key.len() as u64, value.len() as u64];
        lengths.iter().for_each(|length| self.hasher.update(&length.to_be_bytes()));
        self.hasher.update(key);
        self.hasher.update(value);
        self.keys += 1;
        self.bytes += lengths[0] + lengths[1];
    }

    fn finish(self, index: Index) -> RegionHash {
        let mut digest = [0; 20];
        digest[..4].copy_from_slice(&self.hasher.finalize().to_be_bytes());
        digest[4..12].copy_from_slice(&self.keys.to_be_bytes());
        digest[12..].copy_from_slice(&self.bytes.to_be_bytes());
        RegionHash { index, digest }
    }
}
