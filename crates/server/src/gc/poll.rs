//! Asks placement for the safe points.

use std::time::Duration;

use super::{Gc, GcTask};
use crate::placement_link::PlacementLink;

/// One try.
const BUDGET: Duration = Duration::from_secs(2);

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
                Err(error) => tracing::debug!(%error, "no safe point"),
            }
            tokio::time::sleep(self.interval).await;
        }
    }
}
