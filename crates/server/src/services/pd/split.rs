//! `SplitRegions`: the leaders are told where to cut, and the placement driver waits until their
//! reports show that they did.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use placement::Borders;
use proto::pdpb;

use crate::placement_host::{HostError, PlacementHost};

/// How long a call waits for the leaders.
const BUDGET: Duration = Duration::from_secs(10);

/// Keys at which nothing was cut in this time are told again: a leader may have changed.
const REPEAT_AFTER: Duration = Duration::from_millis(500);

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// How many of a hundred keys are borders of regions by now.
    pub(super) percentage: u64,
    /// The regions that begin to exist by it.
    pub(super) new: Vec<u64>,
}

/// Has the regions cut at `keys`, which are in the form in which regions are split.
pub(super) async fn split(
    host: &PlacementHost,
    header: Option<&pdpb::RequestHeader>,
    keys: Vec<Bytes>,
) -> Result<Outcome, HostError> {
    let keys: Vec<Bytes> = keys.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    let mut reports = host.reports();
    let look = || -> Result<Borders, HostError> {
        Ok(host.read(|placement| placement.borders(header, &keys))??)
    };
    let before: BTreeSet<u64> = look()?.left.into_iter().collect();
    let started = Instant::now();
    let mut told_at: Option<Instant> = None;
    loop {
        reports.borrow_and_update();
        let Borders { left, missing, orders } = look()?;
        if missing == 0 || started.elapsed() >= BUDGET {
            let done = keys.len() - missing;
            let percentage = (done * 100).checked_div(keys.len()).unwrap_or(100) as u64;
            let new = left.into_iter().filter(|id| !before.contains(id)).collect();
            return Ok(Outcome { percentage, new });
        }
        if told_at.is_none_or(|at| at.elapsed() >= REPEAT_AFTER) {
            told_at = Some(Instant::now());
            orders.into_iter().for_each(|order| host.order(order));
        }
        // A sender that lives as long as the host never fails.
        let _ = tokio::time::timeout(REPEAT_AFTER, reports.changed()).await;
    }
}
