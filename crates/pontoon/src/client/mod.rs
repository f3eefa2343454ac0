//! A client of the raw key-value calls, over the wire, for the commands of the binary.
//!
//! ```text
//!   RawClient ── which region holds this key? ──▶ RegionCache ── unknown ──▶ Placement (GetRegion)
//!       │                                            ▲
//!       ├── one call at a time (shell) ──▶ Stores ───┤ a region error: forget, learn the leader,
//!       └── streams of commands (bench) ─▶ Streams ──┘ or wait (Backoff), then once more
//! ```
//!
//! Invariants:
//! 1. Keys are encoded once, in [`api::Api`]: what goes to a store is a *data key*, what the
//!    placement driver and the cache know is a *placement key*.
//! 2. A call that may have taken effect is sent again only if that changes nothing; a
//!    compare-and-swap whose answer is lost ends in [`ClientError::Undetermined`].
//! 3. Every wait is bounded: calls by [`CALL_TIMEOUT`], tries by the back-off's budget.
//!
//! Start with [`RawClient`].

pub mod api;
mod backoff;
mod calls;
mod error;
mod placement;
mod raw;
pub mod region_cache;
mod region_error;
mod router;
mod stores;
mod streams;

use std::time::Duration;

pub use api::{Api, ApiVersion};
pub use error::ClientError;
pub use placement::{Placement, RegionInfo};
pub use raw::{CasOutcome, Expected, NewValue, Pair, RawClient};
pub use streams::{Operation, Outcome, Streams};

/// How long one call may take before it is given up.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// `host:port` or a URL, as the URL that a channel is opened to.
fn endpoint(address: &str) -> Result<tonic::transport::Endpoint, ClientError> {
    let url =
        if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let endpoint = tonic::transport::Endpoint::from_shared(url)
        .map_err(|_| ClientError::Address { address: address.to_owned() })?;
    Ok(endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true))
}
