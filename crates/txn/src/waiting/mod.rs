//! Waiting for pessimistic locks: who stands in line for a key, and who waits for whom.
//!
//! ```text
//!   PessimisticLock ──Held──► LockWaits::enqueue ──edge──► Detector (one in the cluster)
//!                                  │                           │ cycle: the requester gets the
//!      lock released ──► released ─┤                           ▼ deadlock and leaves the line
//!      time passes   ──► expire  ──┤
//!                                  ▼
//!      woken: told to try again, or given the lock (force lock)
//! ```
//!
//! Both are plain structures: time is an argument, and what they decide is returned.

mod deadlock;
mod line;

use base::TimeStamp;
use bytes::Bytes;

pub use deadlock::{Detector, key_hash};
pub use line::{LockWaits, WaitMode, Waiter, WaiterId, Woken, WokenWhy};

/// One transaction waits for another at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitFor {
    /// Who waits.
    pub txn: TimeStamp,
    /// For whom.
    pub holder: TimeStamp,
    /// At which key, user form.
    pub key: Bytes,
    /// A label of the client, for diagnostics.
    pub resource_group_tag: Bytes,
    /// Since how many milliseconds; 0: just now.
    pub waited_ms: u64,
}

#[cfg(test)]
mod tests;
