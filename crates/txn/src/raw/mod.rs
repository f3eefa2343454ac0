//! Raw: keys and values without transactions.
//!
//! ```text
//!            ┌──────────── View: snapshot, region, mode, now ────────────┐
//!   get, batch_get, key_ttl     scan, batch_scan     checksum     compare_and_swap
//!        (read)                      (scan)         (checksum)         (cas)
//!                                                                        │ reads, then writes
//!   put, batch_put, delete, batch_delete, delete_range (write) ◄─────────┘
//!            └──────────── Writer: mode, now ──────► Mutations, in region form
//! ```
//!
//! A value in the engine, by mode:
//!
//! | mode | bytes |
//! | --- | --- |
//! | V1 | value |
//! | V1TTL | value, expiry in seconds since 1970 (8 bytes, big endian; 0: never) |
//! | V2 | value, \[expiry as above if bit 0 of the flags is set,\] flags (1 byte) |
//!
//! Expiry time = now in whole seconds + ttl, and a value is gone once its expiry time is not after
//! now. So a put with a ttl of n seconds disappears between n - 1 and n seconds later.
//!
//! Invariants:
//! 1. Nothing outside the region's range is ever read or returned. The near bound of a scan must
//!    lie in the region (its end included), the far one is cut to the region.
//! 2. An expired value is as good as absent everywhere: in reads, limits, checksums and
//!    compare-and-swap.
//! 3. The empty key and the empty value are keys and values like others (V1). Refusing them is up
//!    to clients.

mod cas;
mod checksum;
mod read;
mod scan;
mod value;
mod write;

use base::Region;
use bytes::Bytes;
use storage::engine::{EngineError, Snapshot};
use thiserror::Error;

pub use cas::{CompareAndSwap, Swapped};
pub use checksum::{Checksum, Crc64};
pub use scan::Scan;
pub use value::{Damaged, RawValue};
pub use write::Writer;

use crate::{ApiVersion, RequestError};

/// What a read is answered from.
pub struct View<'a> {
    /// The data, fresh enough for the caller.
    pub snapshot: &'a dyn Snapshot,
    /// The region that the request is for.
    pub region: &'a Region,
    /// The store's mode.
    pub api: ApiVersion,
    /// Seconds since 1970.
    pub now_s: u64,
    /// Asked now and then by reads of many keys: whether to give up with [`RawError::Interrupted`].
    pub interrupted: &'a dyn Fn() -> bool,
}

/// A key with its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// User form.
    pub key: Bytes,
    /// The user's value; empty where only keys were asked for.
    pub value: Bytes,
}

/// Why a read has no answer.
#[derive(Debug, Error)]
pub enum RawError {
    /// The client must change its request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The client must ask another region.
    #[error("a key of the request is not in the region")]
    KeyNotInRegion {
        /// Region form.
        key: Bytes,
    },
    /// The operator must look: what is stored under this key was not written by a store in this
    /// mode.
    #[error("the stored value of a key is damaged")]
    Damaged {
        /// Region form.
        key: Bytes,
    },
    /// The caller said so.
    #[error("interrupted")]
    Interrupted,
    /// The engine could not read.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

#[cfg(test)]
mod tests;
