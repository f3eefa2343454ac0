//! What the client needs from whoever runs it.

use std::pin::Pin;
use std::time::Duration;

use base::Instant;

use crate::calls::{PlacementReply, PlacementRequest, StoreReply, StoreRequest};

/// Work that goes on after the call that began it has returned.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The world outside of the client: the network, the clock, chance.
///
/// A client waits for nothing but the futures that its link returns, so whoever polls them in a
/// certain order runs the same client the same way.
pub trait Link: Send + Sync + 'static {
    /// The cluster that it leads to; never 0.
    fn cluster_id(&self) -> u64;

    /// Sends a request to the store of this id, wherever it is now, and waits for the answer for a
    /// bounded time. One that comes too late is dropped.
    fn store(
        &self,
        store_id: u64,
        request: StoreRequest,
    ) -> impl Future<Output = Result<StoreReply, LinkError>> + Send;

    /// Sends a request to the placement driver's present leader, as far as that is known; the next
    /// call after a failure goes to another one if there is one.
    fn placement(
        &self,
        request: PlacementRequest,
    ) -> impl Future<Output = Result<PlacementReply, LinkError>> + Send;

    /// The time, never before an earlier one.
    fn now(&self) -> Instant;

    /// Waits.
    fn wait(&self, duration: Duration) -> impl Future<Output = ()> + Send;

    /// Where the client's random waits begin. It is asked once, when the client is made.
    fn seed(&self) -> u64;

    /// Runs `task` beside everything else. One that is dropped half-way does no harm: others find
    /// its locks, and out what became of them.
    fn spawn(&self, task: Task);
}

/// How a request ended without an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Nobody got it.
    #[error("{0}")]
    Unsent(String),
    /// It may have been served, or may be served later.
    #[error("{0}")]
    Lost(String),
    /// It was refused as it is: sending it again cannot help.
    #[error("{0}")]
    Refused(String),
}
