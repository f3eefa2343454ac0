//! What was written and read on this store, by the reports of the regions led here, until a
//! heartbeat of the store has told it.

use std::ops::{AddAssign, SubAssign};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::pdpb;
use store::RegionReport;

/// Sums of bytes and keys.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flow {
    written_bytes: u64,
    written_keys: u64,
    read_bytes: u64,
    read_keys: u64,
}

impl AddAssign for Flow {
    fn add_assign(&mut self, other: Self) {
        self.written_bytes += other.written_bytes;
        self.written_keys += other.written_keys;
        self.read_bytes += other.read_bytes;
        self.read_keys += other.read_keys;
    }
}

impl SubAssign for Flow {
    fn sub_assign(&mut self, other: Self) {
        self.written_bytes -= other.written_bytes;
        self.written_keys -= other.written_keys;
        self.read_bytes -= other.read_bytes;
        self.read_keys -= other.read_keys;
    }
}

impl Flow {
    /// Adds it to a heartbeat about the time from `start` to `end`, in seconds since 1970.
    pub(super) fn tell(&self, stats: &mut pdpb::StoreStats, start: u64, end: u64) {
        stats.bytes_written = self.written_bytes;
        stats.keys_written = self.written_keys;
        stats.bytes_read = self.read_bytes;
        stats.keys_read = self.read_keys;
        let interval = pdpb::TimeInterval { start_timestamp: start, end_timestamp: end };
        stats.interval = Some(interval);
    }
}

/// What no heartbeat has told yet. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Untold(Arc<Mutex<Flow>>);

impl Untold {
    pub(super) fn count(&self, report: &RegionReport) {
        *self.flow() += Flow {
            written_bytes: report.written_bytes,
            written_keys: report.written_keys,
            read_bytes: report.read_bytes,
            read_keys: report.read_keys,
        };
    }

    pub(super) fn so_far(&self) -> Flow {
        *self.flow()
    }

    /// A heartbeat with this was taken.
    pub(super) fn told(&self, flow: Flow) {
        *self.flow() -= flow;
    }

    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
