//! How RocksDB is set up: which of its many options we change, and why.
//!
//! What the settings are after, in this order:
//!
//! - one writer. The applier writes batch after batch, so everything that lets several writers help
//!   each other (concurrent memtable writes, pipelining, yielding) is off;
//! - little memory and disk at rest: small arena blocks, no file is allocated ahead of its
//!   contents, no info log, few threads, and caches that have one bound for all families together;
//! - a write-ahead log that costs nothing on the write path: it is buffered and reaches the disk
//!   with [`Engine::sync`](super::Engine::sync). See `rocks.rs` for what a crash leaves of it;
//! - fast starts: what has to be replayed is bounded, and no file is opened or measured before it
//!   is needed;
//! - cheap point reads: bloom filters over whole keys, so that a file without the key costs no
//!   block read.

use std::fmt;
use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, BlockBasedPinningTier, Cache, DBCompressionType, DBRecoveryMode, LogLevel,
    LruCacheOptions, Options,
};

use super::rocks_garbage::Filters;
use super::{Cf, GarbageRule, KeepAll};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Takes the lines that RocksDB would write into its own log: warnings and worse.
pub type LogSink = Arc<dyn Fn(&str) + Send + Sync>;

/// What may differ from node to node. The defaults suit a small machine.
#[derive(Clone)]
pub struct RocksOptions {
    /// Bytes of blocks, filters and indexes that all families together keep in memory.
    pub block_cache_bytes: usize,
    /// Bytes that the families with values collect in memory before they write a file. Up to twice
    /// of it is in memory, and is replayed after a crash.
    pub write_buffer_bytes: usize,
    /// Flushes and compactions at once.
    pub background_jobs: usize,
    /// Table files that are kept open.
    pub open_files_max: usize,
    /// Where RocksDB's warnings go. None: nowhere.
    pub log: Option<LogSink>,
    /// What compactions of family `write` leave out.
    pub garbage: Arc<dyn GarbageRule>,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: 64 * MIB,
            write_buffer_bytes: 32 * MIB,
            background_jobs: 2,
            open_files_max: 1024,
            log: None,
            garbage: Arc::new(KeepAll),
        }
    }
}

impl fmt::Debug for RocksOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksOptions")
            .field("block_cache_bytes", &self.block_cache_bytes)
            .field("write_buffer_bytes", &self.write_buffer_bytes)
            .field("background_jobs", &self.background_jobs)
            .field("open_files_max", &self.open_files_max)
            .field("garbage", &self.garbage)
            .finish_non_exhaustive()
    }
}

impl RocksOptions {
    /// The options of the whole database.
    pub(super) fn database(&self) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);

        // One writer.
        options.set_allow_concurrent_memtable_write(false);
        options.set_enable_write_thread_adaptive_yield(false);
        options.set_enable_pipelined_write(false);

        // The log: buffered, cut at the first damage, replayed into memtables without writing
        // files.
        options.set_manual_wal_flush(true);
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        options.set_avoid_flush_during_recovery(true);
        options.set_max_total_wal_size(2 * self.write_buffer_bytes as u64);

        // Nothing ahead of time.
        options.set_allow_fallocate(false);
        options.set_manifest_preallocation_size(64 * KIB);
        options.set_max_manifest_file_size(4 * MIB);
        options.set_keep_log_file_num(1);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);

        // Open fast, and with few threads and descriptors.
        options.set_skip_stats_update_on_db_open(true);
        options.set_max_open_files(bounded(self.open_files_max));
        options.set_max_file_opening_threads(2);
        options.set_max_background_jobs(bounded(self.background_jobs));
        options.set_avoid_unnecessary_blocking_io(true);

        // Written files go to the disk bit by bit, so that no sync meets a mountain.
        options.set_bytes_per_sync(MIB as u64);
        options.set_wal_bytes_per_sync(MIB as u64);

        let log = self.log.clone();
        options.set_callback_logger(LogLevel::Warn, move |_, line| {
            if let Some(log) = &log {
                log(line);
            }
        });
        options
    }

    /// The block cache that all families share. Pinned blocks may exceed the bound for a moment.
    pub(super) fn cache(&self) -> Cache {
        let mut options = LruCacheOptions::default();
        options.set_capacity(self.block_cache_bytes);
        options.set_num_shard_bits(4);
        Cache::new_lru_cache_opts(&options)
    }

    /// The options of one family.
    pub(super) fn family(&self, cf: Cf, cache: &Cache) -> Options {
        let mut options = Options::default();
        let write_buffer = match cf {
            Cf::Default | Cf::Write => self.write_buffer_bytes,
            // Locks come and go, and the store's own records are few and overwritten again and
            // again.
            Cf::Lock | Cf::Raft => self.write_buffer_bytes / 4,
        };
        options.set_write_buffer_size(write_buffer);
        options.set_max_write_buffer_number(3);
        options.set_arena_block_size(64 * KIB);
        // A filter for the memtable too: most reads are of keys that lie in files.
        options.set_memtable_prefix_bloom_ratio(0.02);
        options.set_memtable_whole_key_filtering(true);

        options.set_level_zero_file_num_compaction_trigger(4);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_target_file_size_base(32 * MIB as u64);
        options.set_max_bytes_for_level_base(4 * write_buffer as u64);
        // Level 0, the level it is merged into, and all further down, where nine tenths of much
        // data lie.
        let (none, lz4) = (DBCompressionType::None, DBCompressionType::Lz4);
        options.set_compression_per_level(&[none, none, lz4, lz4, lz4, lz4, lz4]);

        let mut table = BlockBasedOptions::default();
        table.set_block_cache(cache);
        table.set_bloom_filter(10.0, false);
        table.set_whole_key_filtering(true);
        // Filters and indexes count towards the bound of the cache; those of new files stay in it.
        table.set_cache_index_and_filter_blocks(true);
        table.set_cache_index_and_filter_blocks_with_high_priority(true);
        table.set_unpartitioned_pinning_tier(BlockBasedPinningTier::FlushAndSimilar);
        table.set_optimize_filters_for_memory(true);
        options.set_block_based_table_factory(&table);
        if cf == Cf::Write {
            options.set_compaction_filter_factory(Filters::new(self.garbage.clone()));
        }
        options
    }
}

/// RocksDB counts in `int`.
fn bounded(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
