//! The engine in memory: a model of what a real one promises, and the one that the simulator runs.
//!
//! Each family is an ordered map from key to the versions of its value. Every write takes the next
//! sequence number and adds versions; a reader at sequence number `n` sees the newest version that
//! is not above `n`. So a snapshot is a number, and it costs nothing to take one.
//!
//! ```text
//!   key ──► [ (3, "a"), (7, deleted), (9, "b") ]          last write = 9
//!                 ▲          ▲                            synced up to = 4: a power loss goes
//!            reader at 4   reader at 8                    back to one of 4..=9
//! ```
//!
//! Crashes. [`MemoryEngine::kill`] ends the process: nothing is lost. [`MemoryEngine::power_loss`]
//! draws a sequence number between the last sync and the last write and removes all versions above
//! it, in all families: the prefix of writes that the disk happens to hold. Versions that an ingest
//! added stay, they were durable at once. Either way, snapshots of the time before answer
//! [`Gone`](EngineErrorKind::Gone): they belonged to a process that no longer exists.
//!
//! Cleaning up. Below the *horizon*, which is the smaller of the last sync and the oldest snapshot,
//! only the newest version of a key can still be seen. The journal lists which key got a version
//! when; whenever the horizon moves, the entries below it are taken off and their keys are thinned
//! out. So the work is one step a write, and memory holds what a snapshot or a power loss may still
//! ask for and nothing else.
//!
//! Invariants: versions of a key ascend strictly; every key with more than one version, or with a
//! deletion as its only one, is in the journal.

mod table;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use base::{KeyRange, Prng};
use bytes::Bytes;

use super::{
    Cached, Cf, Cursor, Engine, EngineError, EngineErrorKind, EngineProperties, Fate, GarbageRule,
    GarbageWalk, IterOptions, KeepAll, Op, Snapshot, SstWriter, WriteBatch,
};
use crate::disk::{Disk, RealDisk};

/// An engine that keeps everything in memory. Clones share it: the simulator holds one and gives
/// the node another.
#[derive(Clone)]
pub struct MemoryEngine {
    shared: Arc<RwLock<State>>,
    /// Where the tables for ingestion lie.
    disk: Arc<dyn Disk>,
    /// What compactions of family `write` leave out.
    garbage: Arc<dyn GarbageRule>,
}

impl Default for MemoryEngine {
    fn default() -> Self {
        Self::with_disk(Arc::new(RealDisk::new()))
    }
}

impl fmt::Debug for MemoryEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryEngine").field("shared", &self.shared).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    families: [BTreeMap<Bytes, Vec<Version>>; Cf::ALL.len()],
    /// Sequence number of the last write.
    last: u64,
    /// Writes up to this one survive a power loss.
    synced: u64,
    /// Counts crashes, so that snapshots of before are known.
    generation: u64,
    /// How many snapshots are open at each sequence number.
    snapshots: BTreeMap<u64, u64>,
    /// Which key got a version at which sequence number; ascending.
    journal: VecDeque<(u64, Cf, Bytes)>,
    /// Bytes of all versions of all keys.
    bytes: u64,
}

#[derive(Clone, Debug)]
struct Version {
    seq: u64,
    /// Whether it stays through a power loss although it was not synced.
    durable: bool,
    /// `None`: deleted.
    value: Option<Bytes>,
}

impl MemoryEngine {
    /// An empty engine. Tables are files on the machine's own disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty engine whose tables ([`sst_writer`](Engine::sst_writer),
    /// [`ingest`](Engine::ingest)) are files on `disk`. Checkpoints are on the machine's own disk
    /// all the same.
    pub fn with_disk(disk: Arc<dyn Disk>) -> Self {
        Self { shared: Arc::default(), disk, garbage: Arc::new(KeepAll) }
    }

    /// This engine, with that rule for what [`compact_range`](Engine::compact_range) leaves out of
    /// family `write`.
    #[must_use]
    pub fn with_garbage(mut self, garbage: Arc<dyn GarbageRule>) -> Self {
        self.garbage = garbage;
        self
    }

    /// An engine with the contents of a checkpoint, all of it synced.
    pub fn open_checkpoint(dir: &Path) -> Result<Self, EngineError> {
        let engine = Self::new();
        for cf in Cf::ALL {
            let path = dir.join(cf.name());
            let records = table::read(&RealDisk::new(), cf, &path)?;
            engine.lock().add(cf, records.into_iter().map(|(k, v)| (k, Some(v))), true);
        }
        engine.sync()?;
        Ok(engine)
    }

    /// The process ends and another one opens the engine: nothing that was written is lost.
    pub fn kill(&self) {
        self.lock().end_generation();
    }

    /// The power fails and another process opens the engine: it holds a prefix of the writes, drawn
    /// by `prng`, that is not older than the last sync. Returns how many writes were lost.
    pub fn power_loss(&self, prng: &mut Prng) -> u64 {
        let mut state = self.lock();
        let cut = state.synced + prng.below(state.last - state.synced + 1);
        assert!(state.synced <= cut && cut <= state.last, "a power loss keeps what was synced");
        for family in &mut state.families {
            family.retain(|_, versions| {
                versions.retain(|version| version.durable || version.seq <= cut);
                !versions.is_empty()
            });
        }
        state.bytes = state.count_bytes();
        let lost = state.last - cut;
        // What the disk held is all there is now, so it cannot be lost a second time.
        state.synced = state.last;
        state.end_generation();
        lost
    }

    /// Sequence number of the last write and of the last one that is synced: for checkers that know
    /// what was written.
    pub fn progress(&self) -> (u64, u64) {
        let state = self.read();
        (state.last, state.synced)
    }

    /// Shows each pair of a range in order, in one go: for checkers, who read all of it again and
    /// again. `see` must not use the engine.
    pub fn for_each(&self, cf: Cf, range: &KeyRange, mut see: impl FnMut(&[u8], &[u8])) {
        let state = self.read();
        state.visible(cf, range, state.last).for_each(|(key, value)| see(key, value));
    }

    fn lock(&self) -> RwLockWriteGuard<'_, State> {
        self.shared.write().expect("no thread panics while it holds the lock")
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.shared.read().expect("no thread panics while it holds the lock")
    }
}

impl Engine for MemoryEngine {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let state = self.read();
        Ok(state.get(cf, key, state.last))
    }

    fn get_if_cached(&self, cf: Cf, key: &[u8]) -> Result<Cached, EngineError> {
        self.get(cf, key).map(Cached::Known)
    }

    fn multi_get(&self, cf: Cf, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        let state = self.read();
        Ok(keys.iter().map(|key| state.get(cf, key, state.last)).collect())
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        let mut state = self.lock();
        let (seq, generation) = (state.last, state.generation);
        *state.snapshots.entry(seq).or_default() += 1;
        Arc::new(MemorySnapshot { engine: self.clone(), seq, generation })
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), EngineError> {
        let mut state = self.lock();
        state.last += 1;
        for op in batch {
            match op {
                Op::Put { cf, key, value } => {
                    state.set(cf, key, Some(Bytes::copy_from_slice(value)), false);
                }
                Op::Delete { cf, key } => state.set(cf, key, None, false),
                Op::DeleteRange { cf, start, end } => {
                    let range =
                        KeyRange::new(Bytes::copy_from_slice(start), Bytes::copy_from_slice(end));
                    let gone = state.keys_in(cf, &range);
                    gone.iter().for_each(|key| state.set(cf, key, None, false));
                }
            }
        }
        state.collect();
        Ok(())
    }

    fn sync(&self) -> Result<(), EngineError> {
        let mut state = self.lock();
        state.synced = state.last;
        state.collect();
        Ok(())
    }

    fn flush(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn delete_files_in_range(&self, cf: Cf, range: &KeyRange) -> Result<(), EngineError> {
        let mut state = self.lock();
        let gone = state.keys_in(cf, range);
        state.add(cf, gone.into_iter().map(|key| (key, None)), true);
        Ok(())
    }

    fn compact_range(&self, cf: Cf, range: &KeyRange) -> Result<(), EngineError> {
        if cf == Cf::Write
            && let Some(mut walk) = self.garbage.compaction()
        {
            self.lock().drop_garbage(range, &mut *walk);
        }
        Ok(())
    }

    fn ingest(&self, cf: Cf, files: &[PathBuf]) -> Result<(), EngineError> {
        let mut tables = Vec::with_capacity(files.len());
        for path in files {
            tables.push(table::read(&*self.disk, cf, path)?);
        }
        let records = tables.into_iter().flatten().map(|(key, value)| (key, Some(value)));
        self.lock().add(cf, records, true);
        Ok(())
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), EngineError> {
        let operation = "write the checkpoint";
        std::fs::create_dir(dir).map_err(|error| EngineError::from_io(operation, dir, &error))?;
        let state = self.read();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
        for cf in Cf::ALL {
            let mut table = table::TableWriter::new(disk.clone(), cf, &dir.join(cf.name()));
            for (key, value) in state.visible(cf, &KeyRange::all(), state.last) {
                table.put(key, value)?;
            }
            table.write()?;
        }
        Ok(())
    }

    fn sst_writer(&self, cf: Cf, path: &Path) -> Result<Box<dyn SstWriter>, EngineError> {
        Ok(Box::new(table::TableWriter::new(self.disk.clone(), cf, path)))
    }

    fn garbage(&self) -> Arc<dyn GarbageRule> {
        self.garbage.clone()
    }

    fn approximate_size(&self, cf: Cf, range: &KeyRange) -> Result<u64, EngineError> {
        let state = self.read();
        let pairs = state.visible(cf, range, state.last);
        Ok(pairs.map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }

    fn properties(&self) -> EngineProperties {
        let state = self.read();
        EngineProperties {
            memtable_bytes: state.bytes,
            keys: state.families.iter().map(|family| family.len() as u64).sum(),
            snapshots: state.snapshots.values().sum(),
            ..EngineProperties::default()
        }
    }
}

impl State {
    /// Gives `key` a version of the current write. The last of several wins.
    fn set(&mut self, cf: Cf, key: &[u8], value: Option<Bytes>, durable: bool) {
        let new = Version { seq: self.last, durable, value };
        self.bytes += new.bytes(key);
        let family = &mut self.families[cf as usize];
        let Some(versions) = family.get_mut(key) else {
            let key = Bytes::copy_from_slice(key);
            family.insert(key.clone(), vec![new]);
            self.journal.push_back((self.last, cf, key));
            return;
        };
        let newest = versions.last_mut().expect("a key has a version");
        assert!(newest.seq <= self.last, "versions ascend");
        if newest.seq == self.last {
            self.bytes -= newest.bytes(key);
            *newest = new;
        } else {
            versions.push(new);
            self.journal.push_back((self.last, cf, Bytes::copy_from_slice(key)));
        }
    }

    /// One write that a power loss cannot undo.
    fn add(
        &mut self,
        cf: Cf,
        records: impl Iterator<Item = (Bytes, Option<Bytes>)>,
        durable: bool,
    ) {
        self.last += 1;
        for (key, value) in records {
            self.set(cf, &key, value, durable);
        }
        self.collect();
    }

    fn get(&self, cf: Cf, key: &[u8], seq: u64) -> Option<Bytes> {
        visible(self.families[cf as usize].get(key)?, seq).cloned()
    }

    fn versions_in(
        &self,
        cf: Cf,
        range: &KeyRange,
    ) -> impl DoubleEndedIterator<Item = (&Bytes, &[Version])> {
        let family = &self.families[cf as usize];
        // The map panics on a range that ends before it starts.
        let start = if range.is_empty() { &range.end[..] } else { &range.start[..] };
        let end = match range.end.is_empty() {
            true => Bound::Unbounded,
            false => Bound::Excluded(&range.end[..]),
        };
        family
            .range::<[u8], _>((Bound::Included(start), end))
            .map(|(key, versions)| (key, &versions[..]))
    }

    /// All keys from a bound on. To find one of them costs half of what a range with an end does.
    fn versions_from(
        &self,
        cf: Cf,
        start: Bound<&[u8]>,
    ) -> impl Iterator<Item = (&Bytes, &[Version])> {
        let found = self.families[cf as usize].range::<[u8], _>((start, Bound::Unbounded));
        found.map(|(key, versions)| (key, &versions[..]))
    }

    fn keys_in(&self, cf: Cf, range: &KeyRange) -> Vec<Bytes> {
        self.versions_in(cf, range).map(|(key, _)| key.clone()).collect()
    }

    /// The pairs of a range at `seq`.
    fn visible(
        &self,
        cf: Cf,
        range: &KeyRange,
        seq: u64,
    ) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        let versions = self.versions_in(cf, range);
        versions.filter_map(move |(key, versions)| Some((key, visible(versions, seq)?)))
    }

    /// Turns garbage into deletions, for snapshots too, as a compaction of files does. It looks at
    /// what is synced and not overwritten since: that is what files hold.
    fn drop_garbage(&mut self, range: &KeyRange, walk: &mut dyn GarbageWalk) {
        let synced = self.synced;
        let in_files = |versions: &[Version]| {
            let newest = versions.last().expect("a key has a version");
            newest.durable || newest.seq <= synced
        };
        let mut gone = Vec::new();
        for (key, versions) in self.versions_in(Cf::Write, range).filter(|(_, v)| in_files(v)) {
            if let Some(value) = visible(versions, self.last)
                && let Fate::Goes(how) = walk.next(key, value)
                && how.is_alone()
            {
                gone.push(key.clone());
            }
        }
        for key in gone {
            let versions = self.families[Cf::Write as usize].get_mut(&key).expect("seen above");
            let newest = versions.last_mut().expect("a key has a version");
            self.bytes -= newest.bytes(&key);
            newest.value = None;
            self.bytes += newest.bytes(&key);
            self.journal.push_back((self.last, Cf::Write, key));
        }
        self.collect();
    }

    /// Removes the versions that nobody can see any more: neither a snapshot nor who comes after a
    /// power loss.
    fn collect(&mut self) {
        let oldest = self.snapshots.keys().next().copied().unwrap_or(self.last);
        let horizon = oldest.min(self.synced);
        while let Some((seq, _, _)) = self.journal.front()
            && *seq <= horizon
        {
            let (_, cf, key) = self.journal.pop_front().expect("there is a front");
            let family = &mut self.families[cf as usize];
            let Some(versions) = family.get_mut(&key) else { continue };
            let newest = versions.partition_point(|version| version.seq <= horizon);
            let mut gone = newest.saturating_sub(1);
            if newest > 0 && versions[newest - 1].value.is_none() {
                gone = newest;
            }
            self.bytes -= versions.drain(..gone).map(|version| version.bytes(&key)).sum::<u64>();
            if versions.is_empty() {
                family.remove(&key);
            }
        }
    }

    fn end_generation(&mut self) {
        self.generation += 1;
        self.snapshots.clear();
        self.collect();
    }

    fn count_bytes(&self) -> u64 {
        self.families
            .iter()
            .flatten()
            .flat_map(|(key, versions)| versions.iter().map(|version| version.bytes(key)))
            .sum()
    }
}

impl Version {
    fn bytes(&self, key: &[u8]) -> u64 {
        (key.len() + self.value.as_ref().map_or(0, Bytes::len)) as u64
    }
}

/// The value at `seq`: that of the newest version not above it.
fn visible(versions: &[Version], seq: u64) -> Option<&Bytes> {
    let newer = versions.partition_point(|version| version.seq <= seq);
    versions[..newer].last()?.value.as_ref()
}

#[derive(Debug)]
struct MemorySnapshot {
    engine: MemoryEngine,
    seq: u64,
    generation: u64,
}

impl MemorySnapshot {
    fn state(&self) -> Result<RwLockReadGuard<'_, State>, EngineError> {
        let state = self.engine.read();
        if state.generation != self.generation {
            let (path, cause) = (Path::new("memory"), "the process that took it is gone");
            return Err(EngineError::new(EngineErrorKind::Gone, "read a snapshot of", path, cause));
        }
        Ok(state)
    }
}

impl Snapshot for MemorySnapshot {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.state()?.get(cf, key, self.seq))
    }

    fn multi_get(&self, cf: Cf, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        let state = self.state()?;
        Ok(keys.iter().map(|key| state.get(cf, key, self.seq)).collect())
    }

    fn iter(&self, cf: Cf, options: IterOptions) -> Result<Box<dyn Cursor + '_>, EngineError> {
        Ok(Box::new(MemoryCursor { snapshot: self, cf, range: options.range, current: None }))
    }
}

impl Drop for MemorySnapshot {
    fn drop(&mut self) {
        let mut state = self.engine.lock();
        if state.generation != self.generation {
            return;
        }
        let open = state.snapshots.get_mut(&self.seq).expect("an open snapshot is counted");
        *open -= 1;
        if *open == 0 {
            state.snapshots.remove(&self.seq);
            state.collect();
        }
    }
}

/// A cursor holds the pair it stands on, and finds its neighbour anew at each step.
#[derive(Debug)]
struct MemoryCursor<'a> {
    snapshot: &'a MemorySnapshot,
    cf: Cf,
    range: KeyRange,
    current: Option<(Bytes, Bytes)>,
}

impl MemoryCursor<'_> {
    /// Stands on the first key from a bound on that lies in the range.
    fn first_from(&mut self, start: Bound<&[u8]>) -> Result<bool, EngineError> {
        let (state, seq) = (self.snapshot.state()?, self.snapshot.seq);
        self.current = state
            .versions_from(self.cf, start)
            .take_while(|(key, _)| self.range.is_before_end(key))
            .find_map(|(key, versions)| Some((key.clone(), visible(versions, seq)?.clone())));
        Ok(self.current.is_some())
    }

    fn last_in(&mut self, range: KeyRange) -> Result<bool, EngineError> {
        let (state, seq) = (self.snapshot.state()?, self.snapshot.seq);
        self.current = state
            .versions_in(self.cf, &range)
            .rev()
            .find_map(|(key, versions)| Some((key.clone(), visible(versions, seq)?.clone())));
        Ok(self.current.is_some())
    }

    /// The range before `end`, which must not be empty.
    fn before(&self, end: &[u8]) -> KeyRange {
        let start = self.range.start.clone();
        let within = self.range.is_before_end(end);
        let end = if within { Bytes::copy_from_slice(end) } else { self.range.end.clone() };
        KeyRange { start, end }
    }
}

impl Cursor for MemoryCursor<'_> {
    fn seek(&mut self, key: &[u8]) -> Result<bool, EngineError> {
        let start = self.range.start.clone();
        self.first_from(Bound::Included(key.max(&start)))
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool, EngineError> {
        self.last_in(self.before(&successor(key)))
    }

    fn seek_to_first(&mut self) -> Result<bool, EngineError> {
        let start = self.range.start.clone();
        self.first_from(Bound::Included(&start))
    }

    fn seek_to_last(&mut self) -> Result<bool, EngineError> {
        self.last_in(self.range.clone())
    }

    fn next(&mut self) -> Result<bool, EngineError> {
        match self.current.take() {
            Some((key, _)) => self.first_from(Bound::Excluded(&key)),
            None => Ok(false),
        }
    }

    fn prev(&mut self) -> Result<bool, EngineError> {
        match self.current.take() {
            Some((key, _)) if !key.is_empty() => self.last_in(self.before(&key)),
            _ => Ok(false),
        }
    }

    fn valid(&self) -> bool {
        self.current.is_some()
    }

    fn key(&self) -> &[u8] {
        &self.current.as_ref().expect("the cursor stands on a key").0
    }

    fn value(&self) -> &[u8] {
        &self.current.as_ref().expect("the cursor stands on a key").1
    }
}

/// The first key after `key`.
fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}
