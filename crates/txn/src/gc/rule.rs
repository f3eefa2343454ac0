//! What the engine and the comparison of replicas ask.

use std::sync::Arc;

use base::KeyRange;
use bytes::Bytes;
use storage::engine::{Engine, EngineError, GarbageRule, GarbageWalk};

use super::{GcState, SafePoints, Walk};

/// The rule of a store with transactions.
#[derive(Clone, Debug)]
pub struct GcRule(Arc<GcState>);

impl GcRule {
    /// Goes by what `state` knows at each moment.
    pub fn new(state: Arc<GcState>) -> Self {
        Self(state)
    }
}

impl GarbageRule for GcRule {
    fn compaction(&self) -> Option<Box<dyn GarbageWalk>> {
        let used = self.0.used();
        (!used.is_zero()).then(|| Box::new(Walk::new(used)) as Box<dyn GarbageWalk>)
    }

    fn horizon(&self) -> Bytes {
        self.0.told().encode()
    }

    fn beyond(&self, horizon: &[u8], range: &KeyRange) -> Option<Box<dyn GarbageWalk>> {
        let points = SafePoints::decode(horizon)?;
        if !points.covers(&self.0.collected()) || self.0.is_destroyed(range) {
            return None;
        }
        Some(Box::new(Walk::new(Arc::new(points))))
    }

    fn collected(&self) -> Bytes {
        self.0.collected().encode()
    }

    fn take_over(&self, collected: &[u8], engine: &dyn Engine) -> Result<(), EngineError> {
        self.0.take_over(collected, engine)
    }
}
