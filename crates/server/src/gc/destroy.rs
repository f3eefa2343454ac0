//! UnsafeDestroyRange: everything in a range goes from this store, whatever its regions.

use base::KeyRange;
use bytes::Bytes;
use storage::engine::{Cf, Engine, EngineError, WriteBatch};
use txn::actions::destroyed_ranges;

use super::{Gc, GcTask};

impl Gc {
    /// Removes all data between two user keys (empty: unbounded) from `engine`, and says so when
    /// that is durable. Whole files go at once; the rest is deleted, and given back by a compaction
    /// that follows. Reads and writes files: not for a thread that must not wait.
    ///
    /// The regions do not know. Replicas in the range cannot be compared with others any more, and
    /// what a snapshot of the engine saw there may be gone from it.
    pub(crate) fn destroy_range(
        &self,
        engine: &dyn Engine,
        start: &Bytes,
        end: &Bytes,
    ) -> Result<(), EngineError> {
        let ranges = destroyed_ranges(start, end);
        if ranges.iter().any(|(_, range)| range.is_empty()) {
            return Ok(());
        }
        {
            let _replacing = self.replacing();
            destroy(self, engine, &ranges)?;
        }
        engine.sync()?;
        for (cf, range) in ranges {
            self.ask(GcTask::Compact(cf, range));
        }
        Ok(())
    }
}

fn destroy(gc: &Gc, engine: &dyn Engine, ranges: &[(Cf, KeyRange)]) -> Result<(), EngineError> {
    gc.state().destroy(ranges.iter().map(|(_, range)| range), engine)?;
    let mut batch = WriteBatch::new();
    for (cf, range) in ranges {
        if *cf != Cf::Lock {
            engine.delete_files_in_range(*cf, range)?;
        }
        batch.delete_range(*cf, &range.start, &range.end);
    }
    engine.write(&batch)
}
