//! What happens because time passes: lines of waiting commands move on, and the timestamps that are
//! believed grow.

use std::time::{Duration, Instant};

use base::TimeStamp;
use txn::scheduler::Limits;

use super::TxnService;

/// How often placement is asked up to where timestamps are given out.
const ASK_INTERVAL: Duration = Duration::from_secs(10);

/// One try.
const ASK_BUDGET: Duration = Duration::from_secs(1);

/// Timestamps so far above what placement gives out, by the clock here, are not believed.
const AHEAD_MAX: Duration = Duration::from_secs(5);

/// Bounds of the scheduler. What another store believed may have been as far above, and its clock
/// have drifted as much again.
pub(super) fn limits() -> Limits {
    let ahead_ms = 2 * u64::try_from(AHEAD_MAX.as_millis()).expect("seconds");
    Limits { ahead_ms, ..Limits::default() }
}

impl TxnService {
    /// Wakes those in line for locks whose time has come. Runs until it is aborted.
    pub(super) async fn run_timers(self) {
        loop {
            let earlier = self.shared.timer.notified();
            let Some(next) = self.expire() else {
                earlier.await;
                continue;
            };
            let wait = next.since(self.store().clock().now());
            // Timers of the runtime have a resolution of a millisecond.
            let _ = tokio::time::timeout(wait, earlier).await;
        }
    }

    /// `ts` is to become safe for reads of the past: up to which timestamp nothing is committed any
    /// more without a lock in the engine. To be asked for before the snapshot in which those are
    /// looked for. `None`: `ts` is not believed.
    pub(crate) fn close_up_to(&self, ts: TimeStamp) -> Option<TimeStamp> {
        self.state().scheduler.close_up_to(ts).ok()
    }

    /// Asks placement now and then which timestamps there are. Runs until it is aborted.
    pub(super) async fn watch_timestamps(self) {
        let mut known: Option<(TimeStamp, Instant)> = None;
        loop {
            match self.shared.link.min_ts(ASK_BUDGET).await {
                Ok(ts) => known = Some((ts, Instant::now())),
                Err(error) => tracing::debug!(%error, "no timestamp to compare others with"),
            }
            if let Some((ts, when)) = known {
                self.believe(ts, when.elapsed());
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
    }

    /// Believes timestamps up to a while after `ts`, which was given out so long ago.
    fn believe(&self, ts: TimeStamp, age: Duration) {
        let ahead = u64::try_from((age + AHEAD_MAX).as_millis()).unwrap_or(u64::MAX);
        let limit = TimeStamp::compose(ts.physical_ms().saturating_add(ahead), 0);
        self.state().scheduler.set_ts_limit(limit);
    }

    /// Somebody came with a timestamp that is not believed: perhaps placement's clock has jumped.
    pub(super) async fn ask_for_timestamps(&self) {
        if let Ok(ts) = self.shared.link.min_ts(ASK_BUDGET).await {
            self.believe(ts, Duration::ZERO);
        }
    }
}
