//! Waiting for what a cluster does by itself.

use std::time::{Duration, Instant};

/// Whatever a cluster has to do is done within this time, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// How often it is looked.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Tries until there is something.
pub async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        looks.tick().await;
    }
}

/// Waits until it is so.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    eventually(what, async || is_so().await.then_some(())).await;
}
