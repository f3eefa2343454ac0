//! The node's counters, as Prometheus text.
//!
//! Actors count in plain numbers; their threads copy them here after a turn, and a scrape reads
//! them.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use storage::engine::EngineProperties;
use storage::log::LogStats;

use crate::transport::TransportCounters;

/// What the running node counts.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    log_syncs: AtomicU64,
    log_writes: AtomicU64,
    log_bytes: AtomicU64,
    log_segments: AtomicU64,
    keys_written: AtomicU64,
    raw_writes: AtomicU64,
    raw_reads: AtomicU64,
    txn_commands: AtomicU64,
    txn_reads: AtomicU64,
    read_index: AtomicU64,
    batch_messages: AtomicU64,
    connections: AtomicU64,
    timestamps: AtomicU64,
    transport: TransportCounters,
}

fn set(counter: &AtomicU64, value: u64) {
    counter.store(value, Ordering::Relaxed);
}

fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Metrics {
    pub(crate) fn log(&self, stats: &LogStats) {
        set(&self.log_syncs, stats.syncs);
        set(&self.log_writes, stats.writes);
        set(&self.log_bytes, stats.bytes_written);
        set(&self.log_segments, stats.segments);
    }

    pub(crate) fn keys_written(&self, total: u64) {
        set(&self.keys_written, total);
    }

    /// So many write requests of raw clients were taken.
    pub(crate) fn raw_writes(&self, requests: u64) {
        add(&self.raw_writes, requests);
    }

    /// So many read requests of raw clients were answered.
    pub(crate) fn raw_reads(&self, requests: u64) {
        add(&self.raw_reads, requests);
    }

    /// So many commands of transactions were taken.
    pub(crate) fn txn_commands(&self, requests: u64) {
        add(&self.txn_commands, requests);
    }

    /// So many reads of transactions were taken.
    pub(crate) fn txn_reads(&self, requests: u64) {
        add(&self.txn_reads, requests);
    }

    /// A read found no lease and went through the shard.
    pub(crate) fn read_index(&self) {
        add(&self.read_index, 1);
    }

    /// A message of a BatchCommands stream arrived.
    pub(crate) fn batch_message(&self) {
        add(&self.batch_messages, 1);
    }

    /// So many timestamps were handed out.
    pub(crate) fn timestamps(&self, count: u64) {
        add(&self.timestamps, count);
    }

    /// What goes to other stores and comes from them.
    pub(crate) fn transport(&self) -> &TransportCounters {
        &self.transport
    }

    /// A connection was taken; the value returned gives it back when it is dropped.
    pub(crate) fn connection(self: &std::sync::Arc<Self>) -> OpenConnection {
        add(&self.connections, 1);
        OpenConnection(self.clone())
    }

    /// Everything as Prometheus text (OpenMetrics).
    pub(crate) fn text(&self, engine: &EngineProperties) -> String {
        let mut registry = Registry::with_prefix("pontoon");
        let counters = [
            ("raft_log_syncs", "Syncs of the raft log.", &self.log_syncs),
            ("raft_log_writes", "Batches appended to the raft log.", &self.log_writes),
            ("raft_log_written_bytes", "Bytes appended to the raft log.", &self.log_bytes),
            ("apply_keys", "Keys written by the applier.", &self.keys_written),
            ("raw_write_requests", "Raw write requests taken.", &self.raw_writes),
            ("raw_read_requests", "Raw read requests answered.", &self.raw_reads),
            ("txn_commands", "Commands of transactions taken.", &self.txn_commands),
            ("txn_read_requests", "Reads of transactions taken.", &self.txn_reads),
            ("read_index_requests", "Reads that found no lease.", &self.read_index),
            ("batch_commands_messages", "Messages of BatchCommands streams.", &self.batch_messages),
            ("timestamps", "Timestamps handed out.", &self.timestamps),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, ConstCounter::new(get(counter)));
        }
        for (name, help, value) in self.transport.rows() {
            registry.register(name, help, ConstCounter::new(value));
        }
        let gauges = [
            ("raft_log_segments", "Segment files of the raft log.", get(&self.log_segments)),
            ("connections", "Open connections.", get(&self.connections)),
            ("engine_files", "Table files.", engine.files),
            ("engine_level0_files", "Table files of level 0.", engine.level0_files),
            ("engine_running_compactions", "Compactions in progress.", engine.running_compactions),
            ("engine_snapshots", "Open snapshots.", engine.snapshots),
            (
                "engine_background_errors",
                "Failed flushes and compactions.",
                engine.background_errors,
            ),
            (
                "engine_write_stopped",
                "Whether writes wait for compaction.",
                u64::from(engine.write_stopped),
            ),
        ];
        for (name, help, value) in gauges {
            registry.register(name, help, ConstGauge::new(value));
        }
        let bytes = [
            ("engine_memtables", "Size of the memtables.", engine.memtable_bytes),
            ("engine_block_cache", "Size of the block cache.", engine.block_cache_bytes),
            ("engine_table_files", "Size of all table files.", engine.file_bytes),
            (
                "engine_pending_compaction",
                "Estimate of bytes to compact.",
                engine.pending_compaction_bytes,
            ),
        ];
        for (name, help, value) in bytes {
            registry.register_with_unit(name, help, Unit::Bytes, ConstGauge::new(value));
        }
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes all that is written to it");
        text
    }
}

/// Counts an open connection until it is dropped.
pub(crate) struct OpenConnection(std::sync::Arc<Metrics>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
