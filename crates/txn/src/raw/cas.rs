//! Compare and swap: write a key if it has the value that the client believes it has.
//!
//! Atomic only among commands that hold the key's latch ([`crate::latches`]) from before the view's
//! snapshot was taken until the mutation is applied: compare-and-swaps, and plain writes that ask
//! for it (`for_cas`).

use bytes::Bytes;
use storage::engine::Cf;

use super::{RawError, View, Writer};
use crate::Mutation;

/// What to compare and what to write.
#[derive(Clone, Debug)]
pub struct CompareAndSwap {
    /// Where.
    pub cf: Cf,
    /// User form.
    pub key: Bytes,
    /// What the key must have; `None`: nothing. An expired value is nothing.
    pub previous: Option<Bytes>,
    /// What it gets then; not looked at if `delete`.
    pub value: Bytes,
    /// For how many seconds; 0 for ever.
    pub ttl_s: u64,
    /// The key goes away instead of getting `value`.
    pub delete: bool,
}

/// The outcome of the comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swapped {
    /// What the key had.
    pub previous: Option<Bytes>,
    /// What to write: present if and only if the comparison succeeded. The command succeeds once
    /// that is applied.
    pub mutation: Option<Mutation>,
}

impl View<'_> {
    /// Compares, and says what to write.
    pub fn compare_and_swap(&self, request: CompareAndSwap) -> Result<Swapped, RawError> {
        let CompareAndSwap { cf, key, previous: expected, value, ttl_s, delete } = request;
        let writer = Writer { api: self.api, now_s: self.now_s };
        // Made before the comparison: a request that can never succeed is refused whatever the key
        // has.
        let mutation =
            if delete { writer.delete(cf, &key)? } else { writer.put(cf, &key, value, ttl_s)? };
        let previous = self.get(cf, &key)?;
        let mutation = (previous == expected).then_some(mutation);
        Ok(Swapped { previous, mutation })
    }
}
