//! Asks placement for the safe points.

use std::time::Duration;

use storage::engine::EngineError;
use tokio::task;
use txn::gc::SafePoints;

use super::{Gc, GcTask};
use crate::placement_link::PlacementLink;
use crate::runtime::OnFatal;

/// One try.
const BUDGET: Duration = Duration::from_secs(2);

/// Between two tries while there is no answer.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What asks.
pub(crate) struct Poll {
    pub(crate) link: PlacementLink,
    pub(crate) gc: Gc,
    pub(crate) interval: Duration,
    pub(crate) on_fatal: OnFatal,
}

impl Poll {
    /// Runs until it is aborted, or the engine fails.
    pub(crate) async fn run(self) {
        loop {
            let mut pause = self.interval;
            match self.link.safe_points(BUDGET).await {
                Ok(points) => match self.learn(points).await {
                    Ok(true) => {
                        let safe_point = self.gc.state().used().all;
                        tracing::info!(%safe_point, "old versions are dropped");
                        self.gc.ask(GcTask::Sweep);
                    }
                    Ok(false) => {}
                    Err(error) => return (self.on_fatal)(error.to_string()),
                },
                Err(error) => {
                    tracing::debug!(%error, "no safe point");
                    pause = pause.min(RETRY_PAUSE);
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Whether there is more to collect now. Waits for the disk, if there will be the next time.
    async fn learn(&self, points: SafePoints) -> Result<bool, EngineError> {
        let (gc, engine) = (self.gc.clone(), self.link.host().store().engine().clone());
        let learn = move || gc.state().learn(&points, &*engine);
        task::spawn_blocking(learn).await.unwrap_or(Ok(false))
    }
}
