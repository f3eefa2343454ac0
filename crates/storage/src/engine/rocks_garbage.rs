//! How RocksDB asks a [`GarbageRule`] while it compacts.
//!
//! What it drops becomes a deletion, which stays until the lowest level: an older value of the very
//! same key further down does not come back. It asks about records that open snapshots see, too.

use std::ffi::CStr;
use std::sync::Arc;

use rocksdb::CompactionDecision;
use rocksdb::compaction_filter::CompactionFilter;
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};

use super::{Fate, GarbageRule, GarbageWalk};

const NAME: &CStr = c"pontoon.garbage";

/// Makes a filter for each compaction. RocksDB may do so on several threads at once; nothing here
/// changes.
pub(super) struct Filters {
    rule: Arc<dyn GarbageRule>,
}

impl Filters {
    pub(super) fn new(rule: Arc<dyn GarbageRule>) -> Self {
        Self { rule }
    }
}

impl CompactionFilterFactory for Filters {
    type Filter = Filter;

    fn create(&mut self, _: CompactionFilterContext) -> Filter {
        Filter { walk: self.rule.compaction() }
    }

    fn name(&self) -> &CStr {
        NAME
    }
}

/// One compaction, on one thread.
pub(super) struct Filter {
    walk: Option<Box<dyn GarbageWalk>>,
}

impl CompactionFilter for Filter {
    fn filter(&mut self, _: u32, key: &[u8], value: &[u8]) -> CompactionDecision {
        let fate = self.walk.as_mut().map(|walk| walk.next(key, value));
        match fate {
            Some(Fate::Goes(gone)) if gone.is_alone() => CompactionDecision::Remove,
            _ => CompactionDecision::Keep,
        }
    }

    fn name(&self) -> &CStr {
        NAME
    }
}
