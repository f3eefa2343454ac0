//! Asks placement for the safe points.

use std::time::Duration;

use super::{Gc, GcTask};
use crate::placement_link::PlacementLink;

/// One try.
const BUDGET: Duration = Duration::from_secs(2);

/// Between two tries while there is no answer. A node that starts does not know yet how far it had
/// collected, and compares no replicas before it does.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What asks.
pub(crate) struct Poll {
    pub(crate) link: PlacementLink,
    pub(crate) gc: Gc,
    pub(crate) interval: Duration,
}

impl Poll {
    /// Runs until it is aborted.
    pub(crate) async fn run(self) {
        loop {
            let mut pause = self.interval;
            match self.link.safe_points(BUDGET).await {
                Ok(points) => {
                    let state = self.gc.state();
                    let before = state.used();
                    state.learn(&points);
                    if state.used() != before {
                        tracing::info!(safe_point = %state.used().all, "old versions are dropped");
                        self.gc.ask(GcTask::Sweep);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "no safe point");
                    pause = pause.min(RETRY_PAUSE);
                }
            }
            tokio::time::sleep(pause).await;
        }
    }
}
