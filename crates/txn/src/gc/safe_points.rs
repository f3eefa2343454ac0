//! Safe points, and what a store knows of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{KeyRange, TimeStamp};
use bytes::{Buf, Bytes};
use storage::engine::{Cf, Engine, EngineError, WriteBatch};
use storage::keys;

use crate::Abort;

/// First byte of transactional keys that name their keyspace.
const TXN_MODE: u8 = b'x';

/// Ranges that were destroyed are remembered one by one up to this number, then together.
const DESTROYED_MAX: usize = 64;

/// Below which timestamps nobody reads or writes. Zero: everything may be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SafePoints {
    /// Of all keys but those of `own`.
    pub all: TimeStamp,
    /// Of keyspaces that are collected by themselves, by their ids. Only clusters of API V2 have
    /// keyspaces.
    pub own: BTreeMap<u32, TimeStamp>,
}

impl SafePoints {
    /// One for all keys.
    pub fn of_all(all: TimeStamp) -> Self {
        Self { all, own: BTreeMap::new() }
    }

    /// The safe point of a key, engine form (with or without a timestamp at its end).
    pub fn of(&self, data_key: &[u8]) -> TimeStamp {
        // Eight bytes of a user's key lie together in its memcomparable form, so these are as the
        // user has them.
        match data_key {
            [keys::DATA_PREFIX, TXN_MODE, a, b, c, ..] if !self.own.is_empty() => {
                self.of_keyspace(u32::from_be_bytes([0, *a, *b, *c]))
            }
            _ => self.all,
        }
    }

    fn of_keyspace(&self, id: u32) -> TimeStamp {
        self.own.get(&id).copied().unwrap_or(self.all)
    }

    /// Whether nothing may be collected.
    pub fn is_zero(&self) -> bool {
        self.all.0 == 0 && self.own.values().all(|ts| ts.0 == 0)
    }

    /// Whether every key has at least the safe point that it has in `other`.
    pub fn covers(&self, other: &Self) -> bool {
        let mut ids = self.own.keys().chain(other.own.keys());
        let own = ids.all(|id| self.of_keyspace(*id) >= other.of_keyspace(*id));
        own && self.all >= other.all
    }

    /// The later of the two for every key: a safe point that was told never goes back.
    #[must_use]
    pub fn joined(&self, other: &Self) -> Self {
        let ids = self.own.keys().chain(other.own.keys());
        let own = ids.map(|id| (*id, self.of_keyspace(*id).max(other.of_keyspace(*id)))).collect();
        Self { all: self.all.max(other.all), own }
    }

    /// For another store: empty if they are zero.
    pub fn encode(&self) -> Bytes {
        if self.is_zero() {
            return Bytes::new();
        }
        let mut out = self.all.0.to_be_bytes().to_vec();
        for (id, ts) in &self.own {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&ts.0.to_be_bytes());
        }
        out.into()
    }

    /// What [`encode`](Self::encode) wrote.
    pub fn decode(mut encoded: &[u8]) -> Option<Self> {
        if encoded.is_empty() {
            return Some(Self::default());
        }
        let mut points = Self::of_all(TimeStamp(encoded.try_get_u64().ok()?));
        while !encoded.is_empty() {
            let (id, ts) = (encoded.try_get_u32().ok()?, encoded.try_get_u64().ok()?);
            points.own.insert(id, TimeStamp(ts));
        }
        Some(points)
    }
}

/// What a store knows of safe points. One for all its regions; the mutex is held for the copy of a
/// pointer.
#[derive(Debug, Default)]
pub struct GcState {
    inner: Mutex<Inner>,
    /// The highest safe point of any key: hardly a request is below it.
    highest: AtomicU64,
    /// Held by who writes [`keys::COLLECTED_BELOW`] or [`keys::DESTROYED_RANGES`].
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Requests below are refused.
    told: Arc<SafePoints>,
    /// Versions below are dropped.
    used: Arc<SafePoints>,
    /// Below which versions may be gone here, whoever dropped them: an earlier process, or a store
    /// from which a region came. It covers `used`, and `told` covers it.
    collected: Arc<SafePoints>,
    /// Ranges whose data were removed without their regions knowing, engine form.
    destroyed: Vec<KeyRange>,
}

impl GcState {
    /// Knows of none: everything may be read.
    pub fn new() -> Self {
        Self::default()
    }

    /// Learns from what `engine` holds what earlier processes did to it. To be called before
    /// anybody else is.
    pub fn recall(&self, engine: &dyn Engine) -> Result<(), EngineError> {
        if let Some(destroyed) = engine.get(Cf::Raft, &keys::DESTROYED_RANGES)? {
            self.recall_destroyed(&destroyed);
        }
        if let Some(collected) = engine.get(Cf::Raft, &keys::COLLECTED_BELOW)? {
            let collected = SafePoints::decode(&collected);
            self.note_collected(&collected.expect("the engine returns what was written"));
        }
        Ok(())
    }

    /// Placement was asked. From now on requests below `points` are refused. What was told the last
    /// time may be collected now: requests that passed the check before have ended since. To be
    /// called at intervals that are longer than a request may take. Returns whether there is more
    /// to collect than before.
    ///
    /// `engine` has it durably before anything is collected: who is started again, and has not
    /// reached placement yet, refuses reads for which versions are gone.
    pub fn learn(&self, points: &SafePoints, engine: &dyn Engine) -> Result<bool, EngineError> {
        let _writing = self.writing();
        let (used, told) = (self.used(), self.told());
        self.collect(&told, engine)?;
        let mut inner = self.inner();
        inner.used = told;
        self.tell(&mut inner, points);
        Ok(inner.used != used)
    }

    /// Data came from a store that may have collected up to `collected`, as it encoded them.
    pub(super) fn take_over(
        &self,
        collected: &[u8],
        engine: &dyn Engine,
    ) -> Result<(), EngineError> {
        let _writing = self.writing();
        // One that is not understood is of a later version, and says nothing to this one.
        self.collect(&SafePoints::decode(collected).unwrap_or_default(), engine)
    }

    /// Versions below `points` may be gone from now on. By the holder of `writing`.
    fn collect(&self, points: &SafePoints, engine: &dyn Engine) -> Result<(), EngineError> {
        let all = self.collected().joined(points);
        if all == *self.collected() {
            return Ok(());
        }
        write_row(&keys::COLLECTED_BELOW, &all.encode(), engine)?;
        self.note_collected(points);
        Ok(())
    }

    fn note_collected(&self, collected: &SafePoints) {
        let mut inner = self.inner();
        inner.collected = Arc::new(inner.collected.joined(collected));
        self.tell(&mut inner, collected);
    }

    fn tell(&self, inner: &mut Inner, points: &SafePoints) {
        let told = inner.told.joined(points);
        assert!(told.covers(&inner.told), "safe points never go back");
        assert!(told.covers(&inner.collected), "what is gone is refused");
        let highest = told.own.values().chain([&told.all]).max().expect("there is one");
        self.highest.store(highest.0, Ordering::Release);
        inner.told = Arc::new(told);
    }

    /// Below which requests are refused.
    pub fn told(&self) -> Arc<SafePoints> {
        self.inner().told.clone()
    }

    /// Below which versions are dropped.
    pub fn used(&self) -> Arc<SafePoints> {
        self.inner().used.clone()
    }

    /// Below which versions may be gone here.
    pub fn collected(&self) -> Arc<SafePoints> {
        self.inner().collected.clone()
    }

    /// Refuses a transaction or a read at `ts` of a key (engine form) that comes too late. A read
    /// that takes long asks again when it is done: what it read counts only if this still passes.
    pub fn check(&self, data_key: &[u8], ts: TimeStamp) -> Result<(), Abort> {
        if ts.0 >= self.highest.load(Ordering::Acquire) {
            return Ok(());
        }
        let safe_point = self.told().of(data_key);
        if ts < safe_point {
            let what = "GC life time is shorter than transaction duration";
            return Err(Abort::Timestamps { what, start_ts: ts, other_ts: safe_point });
        }
        Ok(())
    }

    /// The data of `ranges` (engine form) will be removed from this store alone: its replicas there
    /// cannot be compared with others from now on.
    ///
    /// `engine` has it durably before anything is gone: whoever is started again must not compare
    /// what is left.
    pub fn destroy<'a>(
        &self,
        ranges: impl Iterator<Item = &'a KeyRange>,
        engine: &dyn Engine,
    ) -> Result<(), EngineError> {
        let _writing = self.writing();
        ranges.for_each(|range| self.note_destroyed(range.clone()));
        write_row(&keys::DESTROYED_RANGES, &self.destroyed(), engine)
    }

    fn note_destroyed(&self, range: KeyRange) {
        let mut inner = self.inner();
        if inner.destroyed.contains(&range) {
            return;
        }
        inner.destroyed.push(range);
        if inner.destroyed.len() > DESTROYED_MAX {
            let ends = inner.destroyed.drain(..).map(|range| (range.start, range.end));
            let (starts, ends): (Vec<_>, Vec<_>) = ends.unzip();
            let start = starts.into_iter().min().expect("there are many");
            let end = ends.into_iter().max().expect("there are many");
            inner.destroyed.push(KeyRange::new(start, end));
        }
    }

    /// All of these ranges, for the next start.
    fn destroyed(&self) -> Bytes {
        let mut out = Vec::new();
        for range in &self.inner().destroyed {
            for end in [&range.start, &range.end] {
                out.extend_from_slice(&(end.len() as u64).to_be_bytes());
                out.extend_from_slice(end);
            }
        }
        out.into()
    }

    /// Notes what [`destroyed`](Self::destroyed) wrote. If it cannot be understood nothing here can
    /// be compared.
    fn recall_destroyed(&self, encoded: &[u8]) {
        let ranges = decode_ranges(encoded).unwrap_or_else(|| vec![KeyRange::all()]);
        ranges.into_iter().for_each(|range| self.note_destroyed(range));
    }

    pub(super) fn is_destroyed(&self, range: &KeyRange) -> bool {
        self.inner().destroyed.iter().any(|gone| gone.overlaps(range))
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Durably.
fn write_row(key: &[u8], row: &[u8], engine: &dyn Engine) -> Result<(), EngineError> {
    let mut batch = WriteBatch::new();
    batch.put(Cf::Raft, key, row);
    engine.write(&batch)?;
    engine.sync()
}

fn decode_ranges(mut encoded: &[u8]) -> Option<Vec<KeyRange>> {
    let mut take = || {
        let len = usize::try_from(encoded.try_get_u64().ok()?).ok()?;
        let (end, rest) = encoded.split_at_checked(len)?;
        encoded = rest;
        Some((end.to_vec(), rest.is_empty()))
    };
    let mut ranges = Vec::new();
    loop {
        let (start, _) = take()?;
        let (end, is_last) = take()?;
        ranges.push(KeyRange::new(start, end));
        if is_last {
            return Some(ranges);
        }
    }
}
