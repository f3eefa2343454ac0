//! The engine on RocksDB.
//!
//! ```text
//!   write ──► write-ahead log (in memory) ──sync: write + fdatasync──► NNN.log
//!         └─► memtable per family ──full: flush──► level 0 ──compaction──► levels below
//! ```
//!
//! What a crash leaves. The log is flushed by [`sync`](Engine::sync) alone, and by RocksDB itself
//! when its buffer is full or a memtable is: a write saves a system call, and a process that is
//! killed loses the same kind of thing as a power loss, the tail of the log. When the database is
//! opened, the log is replayed up to the first record that is missing or torn; what follows is
//! dropped in all families alike, because a batch is one record of one log. Dropping the engine in
//! order writes the buffer out, so a clean stop loses nothing even without a sync.
//!
//! Lifetimes. RocksDB's handles borrow the database, and a snapshot of ours outlives every borrow.
//! Handle and owner therefore lie together in one value (`self_cell`), so that the compiler knows
//! that the database goes last. A snapshot keeps the database open: the folder stays locked until
//! the last one is gone.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::KeyRange;
use bytes::Bytes;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::properties;
use rocksdb::{
    AsColumnFamilyRef, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB, DBPinnableSlice,
    DBRawIterator, ErrorKind, FlushOptions, IngestExternalFileOptions, Options, Range, ReadOptions,
    ReadTier, SizeApproximationFlags, SstFileWriter, WriteOptions,
};
use self_cell::self_cell;

use super::{
    Cached, Cf, Cursor, Engine, EngineError, EngineErrorKind, EngineProperties, GarbageRule,
    IterOptions, RocksOptions, Snapshot, SstWriter, WriteBatch,
};
use crate::disk::LONG_FILE_SYNC_BYTES;

type Families<'db> = [&'db ColumnFamily; Cf::ALL.len()];

self_cell! {
    /// The database with the handles of its families.
    struct Opened {
        owner: DB,
        #[covariant]
        dependent: Families,
    }
}

/// Above every key of ours: keys begin with 01, 's' or 'z'.
const BEHIND_ALL_KEYS: [u8; 8] = [0xff; 8];

/// An engine in a folder on disk.
pub struct RocksEngine {
    shared: Arc<Shared>,
    options: RocksOptions,
}

struct Shared {
    opened: Opened,
    dir: PathBuf,
    reads: ReadOptions,
    cached_reads: ReadOptions,
    writes: WriteOptions,
}

impl RocksEngine {
    /// Opens the database in `dir`, or creates it there with all families. Replays its log up to
    /// the first damage.
    ///
    /// Fails with [`Locked`](EngineErrorKind::Locked) while another process, or a snapshot of an
    /// earlier engine, has the folder, and with [`Foreign`](EngineErrorKind::Foreign) if the folder
    /// holds a database with other families.
    pub fn open(dir: &Path, options: &RocksOptions) -> Result<Self, EngineError> {
        let operation = "open the engine in";
        let cache = options.cache();
        let families =
            Cf::ALL.map(|cf| ColumnFamilyDescriptor::new(cf.name(), options.family(cf, &cache)));
        let db = DB::open_cf_descriptors(&options.database(), dir, families)
            .map_err(|error| EngineError::from_rocksdb(operation, dir, error))?;
        let opened = Opened::try_new(db, |db| family_handles(db, operation, dir))?;
        let mut cached_reads = ReadOptions::default();
        cached_reads.set_read_tier(ReadTier::BlockCache);
        let shared = Arc::new(Shared {
            opened,
            dir: dir.to_path_buf(),
            reads: ReadOptions::default(),
            cached_reads,
            writes: WriteOptions::default(),
        });
        Ok(Self { shared, options: options.clone() })
    }

    fn db(&self) -> &DB {
        self.shared.db()
    }

    fn fail(&self, operation: &'static str, error: rocksdb::Error) -> EngineError {
        self.shared.fail(operation, error)
    }
}

/// The handles of the families, by their ids. Batches name families by id, so the ids must be ours.
fn family_handles<'db>(
    db: &'db DB,
    operation: &'static str,
    dir: &Path,
) -> Result<Families<'db>, EngineError> {
    let handles = Cf::ALL.map(|cf| db.cf_handle(cf.name()).expect("all families were opened"));
    for (cf, handle) in Cf::ALL.into_iter().zip(handles) {
        if handle.id() != cf.id() {
            let cause =
                format!("family {} has number {} instead of {}", cf.name(), handle.id(), cf.id());
            return Err(EngineError::new(EngineErrorKind::Foreign, operation, dir, cause));
        }
    }
    Ok(handles)
}

impl Shared {
    fn db(&self) -> &DB {
        self.opened.borrow_owner()
    }

    fn family(&self, cf: Cf) -> &ColumnFamily {
        self.opened.borrow_dependent()[cf as usize]
    }

    fn fail(&self, operation: &'static str, error: rocksdb::Error) -> EngineError {
        EngineError::from_rocksdb(operation, &self.dir, error)
    }

    fn get(
        &self,
        cf: Cf,
        key: &[u8],
        options: &ReadOptions,
    ) -> Result<Option<Bytes>, rocksdb::Error> {
        let value = self.db().get_pinned_cf_opt(self.family(cf), key, options)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn multi_get(
        &self,
        cf: Cf,
        keys: &[&[u8]],
        options: &ReadOptions,
    ) -> Result<Vec<Option<Bytes>>, EngineError> {
        let sorted = keys.is_sorted();
        let copy = |value: DBPinnableSlice<'_>| Bytes::copy_from_slice(&value);
        self.db()
            .batched_multi_get_cf_slice_opt(self.family(cf), keys.iter().copied(), sorted, options)
            .into_iter()
            .map(|value| value.map(|value| value.map(copy)))
            .collect::<Result<_, _>>()
            .map_err(|error| self.fail("read from", error))
    }

    fn number(&self, cf: Cf, property: &properties::PropName) -> u64 {
        self.db().property_int_value_cf(self.family(cf), property).ok().flatten().unwrap_or(0)
    }
}

impl Engine for RocksEngine {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let shared = &self.shared;
        shared.get(cf, key, &shared.reads).map_err(|error| self.fail("read from", error))
    }

    fn get_if_cached(&self, cf: Cf, key: &[u8]) -> Result<Cached, EngineError> {
        match self.shared.get(cf, key, &self.shared.cached_reads) {
            Ok(value) => Ok(Cached::Known(value)),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(Cached::Unknown),
            Err(error) => Err(self.fail("read from", error)),
        }
    }

    fn multi_get(&self, cf: Cf, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.shared.multi_get(cf, keys, &self.shared.reads)
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(RocksSnapshot(Pinned::new(self.shared.clone(), |shared| {
            let snapshot = shared.db().snapshot();
            let mut reads = ReadOptions::default();
            reads.set_snapshot(&snapshot);
            View { reads, snapshot }
        })))
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), EngineError> {
        let batch = rocksdb::WriteBatch::from_data(batch.as_rocksdb());
        self.db()
            .write_opt(&batch, &self.shared.writes)
            .map_err(|error| self.fail("write to", error))
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.db().flush_wal(true).map_err(|error| self.fail("sync the log of", error))
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.db()
            .flush_cfs_opt(self.shared.opened.borrow_dependent(), &FlushOptions::default())
            .map_err(|error| self.fail("flush", error))
    }

    fn delete_files_in_range(&self, cf: Cf, range: &KeyRange) -> Result<(), EngineError> {
        let Some(last) = last_before(&range.end) else { return Ok(()) };
        if range.is_empty() {
            return Ok(());
        }
        self.db()
            .delete_file_in_range_cf(self.shared.family(cf), &range.start[..], &last)
            .map_err(|error| self.fail("delete files of", error))
    }

    fn compact_range(&self, cf: Cf, range: &KeyRange) -> Result<(), EngineError> {
        if range.is_empty() {
            return Ok(());
        }
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        let end = (!range.end.is_empty()).then_some(&range.end[..]);
        let family = self.shared.family(cf);
        self.db().compact_range_cf_opt(family, Some(&range.start[..]), end, &options);
        Ok(())
    }

    fn ingest(&self, cf: Cf, files: &[PathBuf]) -> Result<(), EngineError> {
        if files.is_empty() {
            return Ok(());
        }
        let mut options = IngestExternalFileOptions::default();
        options.set_verify_checksums_before_ingest(true);
        self.db()
            .ingest_external_file_cf_opts(self.shared.family(cf), &options, files.to_vec())
            .map_err(|error| self.fail("ingest files into", error))
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), EngineError> {
        Checkpoint::new(self.db())
            .and_then(|checkpoint| checkpoint.create_checkpoint(dir))
            .map_err(|error| EngineError::from_rocksdb("write the checkpoint", dir, error))
    }

    fn sst_writer(&self, cf: Cf, path: &Path) -> Result<Box<dyn SstWriter>, EngineError> {
        // The writer's files are read through the cache of whoever takes them in; it needs none.
        let options = self.options.family(cf, &rocksdb::Cache::new_lru_cache(0));
        let mut writer = Writer::new(options, |options| SstFileWriter::create(options));
        writer
            .with_dependent_mut(|_, writer| writer.open(path))
            .map_err(|error| EngineError::from_rocksdb("create the table", path, error))?;
        Ok(Box::new(RocksSstWriter { writer, path: path.to_path_buf(), synced: 0 }))
    }

    fn garbage(&self) -> Arc<dyn GarbageRule> {
        self.options.garbage.clone()
    }

    fn approximate_size(&self, cf: Cf, range: &KeyRange) -> Result<u64, EngineError> {
        if range.is_empty() {
            return Ok(0);
        }
        let end = if range.end.is_empty() { &BEHIND_ALL_KEYS[..] } else { &range.end[..] };
        let flags =
            SizeApproximationFlags::INCLUDE_FILES | SizeApproximationFlags::INCLUDE_MEMTABLE;
        let range = Range::new(&range.start, end);
        self.db()
            .get_approximate_sizes_cf_with_flags(self.shared.family(cf), flags, &[range])
            .map(|sizes| sizes.iter().sum())
            .map_err(|error| self.fail("measure", error))
    }

    fn properties(&self) -> EngineProperties {
        let shared = &self.shared;
        let sum = |property| Cf::ALL.iter().map(|cf| shared.number(*cf, property)).sum::<u64>();
        let once = |property| shared.number(Cf::Default, property);
        let files_at = |level: u32| {
            let name = format!("rocksdb.num-files-at-level{level}");
            let count = |cf: &Cf| {
                let value = shared.db().property_int_value_cf(shared.family(*cf), &name);
                value.ok().flatten().unwrap_or(0)
            };
            Cf::ALL.iter().map(count).sum::<u64>()
        };
        let level0_files = files_at(0);
        EngineProperties {
            memtable_bytes: sum(properties::CUR_SIZE_ALL_MEM_TABLES),
            block_cache_bytes: once(properties::BLOCK_CACHE_USAGE),
            block_cache_pinned_bytes: once(properties::BLOCK_CACHE_PINNED_USAGE),
            table_readers_bytes: sum(properties::ESTIMATE_TABLE_READERS_MEM),
            files: level0_files + (1..7).map(files_at).sum::<u64>(),
            file_bytes: sum(properties::TOTAL_SST_FILES_SIZE),
            level0_files,
            keys: sum(properties::ESTIMATE_NUM_KEYS),
            pending_compaction_bytes: sum(properties::ESTIMATE_PENDING_COMPACTION_BYTES),
            running_compactions: once(properties::NUM_RUNNING_COMPACTIONS),
            running_flushes: once(properties::NUM_RUNNING_FLUSHES),
            delayed_write_rate: once(properties::ACTUAL_DELAYED_WRITE_RATE),
            write_stopped: once(properties::IS_WRITE_STOPPED) != 0,
            background_errors: once(properties::BACKGROUND_ERRORS),
            snapshots: once(properties::NUM_SNAPSHOTS),
        }
    }
}

/// A key before `end` that as few keys as possible lie between: RocksDB's ranges of files include
/// their end. `None` if there is no key before.
fn last_before(end: &[u8]) -> Option<Vec<u8>> {
    let Some((&byte, front)) = end.split_last() else { return Some(BEHIND_ALL_KEYS.to_vec()) };
    let mut last = front.to_vec();
    if byte > 0 {
        last.push(byte - 1);
        last.extend_from_slice(&BEHIND_ALL_KEYS);
        return Some(last);
    }
    Some(last).filter(|last| !last.is_empty())
}

type DbSnapshot<'db> = rocksdb::Snapshot<'db>;

/// A snapshot, and the options that make a read see it. The options name the snapshot without
/// borrowing it, so they come first: fields are dropped in order.
struct View<'db> {
    reads: ReadOptions,
    snapshot: DbSnapshot<'db>,
}

self_cell! {
    struct Pinned {
        owner: Arc<Shared>,
        #[covariant]
        dependent: View,
    }
}

struct RocksSnapshot(Pinned);

impl Snapshot for RocksSnapshot {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let shared = self.0.borrow_owner();
        shared
            .get(cf, key, &self.0.borrow_dependent().reads)
            .map_err(|error| shared.fail("read a snapshot of", error))
    }

    fn multi_get(&self, cf: Cf, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.0.borrow_owner().multi_get(cf, keys, &self.0.borrow_dependent().reads)
    }

    fn iter(&self, cf: Cf, options: IterOptions) -> Result<Box<dyn Cursor + '_>, EngineError> {
        let shared = self.0.borrow_owner();
        let mut reads = ReadOptions::default();
        reads.set_iterate_lower_bound(options.range.start);
        if !options.range.end.is_empty() {
            reads.set_iterate_upper_bound(options.range.end);
        }
        reads.fill_cache(options.fill_cache);
        if options.readahead_bytes > 0 {
            reads.set_readahead_size(options.readahead_bytes);
        }
        let view = self.0.borrow_dependent();
        let iter = view.snapshot.raw_iterator_cf_opt(shared.family(cf), reads);
        Ok(Box::new(RocksCursor { iter, shared }))
    }
}

struct RocksCursor<'a> {
    iter: DBRawIterator<'a>,
    shared: &'a Shared,
}

impl RocksCursor<'_> {
    /// Whether it arrived somewhere. Nowhere may be the end of the keys or a failed read.
    fn arrived(&self) -> Result<bool, EngineError> {
        if self.iter.valid() {
            return Ok(true);
        }
        self.iter.status().map_err(|error| self.shared.fail("read a snapshot of", error))?;
        Ok(false)
    }
}

impl Cursor for RocksCursor<'_> {
    fn seek(&mut self, key: &[u8]) -> Result<bool, EngineError> {
        self.iter.seek(key);
        self.arrived()
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool, EngineError> {
        self.iter.seek_for_prev(key);
        self.arrived()
    }

    fn seek_to_first(&mut self) -> Result<bool, EngineError> {
        self.iter.seek_to_first();
        self.arrived()
    }

    fn seek_to_last(&mut self) -> Result<bool, EngineError> {
        self.iter.seek_to_last();
        self.arrived()
    }

    fn next(&mut self) -> Result<bool, EngineError> {
        self.iter.next();
        self.arrived()
    }

    fn prev(&mut self) -> Result<bool, EngineError> {
        self.iter.prev();
        self.arrived()
    }

    fn valid(&self) -> bool {
        self.iter.valid()
    }

    fn key(&self) -> &[u8] {
        self.iter.key().expect("the cursor stands on a key")
    }

    fn value(&self) -> &[u8] {
        self.iter.value().expect("the cursor stands on a key")
    }
}

self_cell! {
    struct Writer {
        owner: Options,
        #[covariant]
        dependent: SstFileWriter,
    }
}

struct RocksSstWriter {
    writer: Writer,
    path: PathBuf,
    synced: u64,
}

impl RocksSstWriter {
    /// A failure is left to the last sync, which tells it.
    fn sync_some(&mut self) {
        let size = self.file_size();
        if size - self.synced >= LONG_FILE_SYNC_BYTES {
            self.synced = size;
            if let Ok(file) = File::open(&self.path) {
                file.sync_data().unwrap_or_default();
            }
        }
    }
}

impl SstWriter for RocksSstWriter {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        self.writer
            .with_dependent_mut(|_, writer| writer.put(key, value))
            .map_err(|error| EngineError::from_rocksdb("write the table", &self.path, error))?;
        self.sync_some();
        Ok(())
    }

    fn file_size(&self) -> u64 {
        self.writer.borrow_dependent().file_size()
    }

    fn finish(mut self: Box<Self>) -> Result<u64, EngineError> {
        self.writer
            .with_dependent_mut(|_, writer| writer.finish())
            .map_err(|error| EngineError::from_rocksdb("write the table", &self.path, error))?;
        Ok(self.file_size())
    }
}
