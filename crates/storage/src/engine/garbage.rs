//! Garbage: records that nobody can miss any more, which an engine drops when it rewrites files.
//!
//! What is garbage is not for this crate to say: whoever opens an engine hands it a
//! [`GarbageRule`]. The engine asks it while it merges files of family `write`, and whoever
//! compares replicas asks the same rule what to leave out, because each replica drops in its own
//! time.
//!
//! ```text
//!   compaction of family `write` ──records in key order──► GarbageWalk ──► Fate: stays, or goes
//!   hash of a replica ────────────────────the same────────────────┘
//! ```
//!
//! A compaction sees some of the records of a key, and drops what goes whatever is elsewhere
//! ([`Gone::is_alone`]). The rest needs somebody who sees all of them.

use std::fmt;

use base::KeyRange;
use bytes::Bytes;

use super::{Engine, EngineError};

/// What becomes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Somebody may look at it.
    Stays,
    /// Nobody will.
    Goes(Gone),
}

/// How a record may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// While it is there, it hides what is older of its key: it may go when that is gone in all
    /// files, or in the same write.
    pub hides_older: bool,
    /// Where its value lies in family `default` if it lies there: it goes in the same write.
    pub value: Option<Vec<u8>>,
}

impl Gone {
    /// Whether it may be dropped without a look at anything else.
    pub fn is_alone(&self) -> bool {
        !self.hides_older && self.value.is_none()
    }
}

/// Looks at records of family `write` in the order of their keys.
pub trait GarbageWalk: Send {
    /// What becomes of the record. Keys must ascend from call to call; some may be missing.
    fn next(&mut self, key: &[u8], value: &[u8]) -> Fate;
}

/// What is garbage in a store. May be asked from any thread.
pub trait GarbageRule: Send + Sync + fmt::Debug {
    /// For a compaction that begins now; `None`: everything stays.
    fn compaction(&self) -> Option<Box<dyn GarbageWalk>>;

    /// Up to where stores may have collected by now, as far as is known here: an encoding that any
    /// store can read.
    fn horizon(&self) -> Bytes;

    /// A walk that leaves out what stores may have dropped which collect up to `horizon`. `None`:
    /// `range` (engine form) may have lost more than that here, or `horizon` is not understood.
    fn beyond(&self, horizon: &[u8], range: &KeyRange) -> Option<Box<dyn GarbageWalk>>;

    /// Up to where garbage may be gone from this store, for a store that takes data over from it.
    /// Goes for what was read before it is asked. Empty: nothing that anybody may ask for.
    fn collected(&self) -> Bytes {
        Bytes::new()
    }

    /// Data come to this store from one that may have dropped garbage up to `collected`, so from
    /// now on it may be gone from here. Returns when `engine` has that durably.
    fn take_over(&self, _collected: &[u8], _engine: &dyn Engine) -> Result<(), EngineError> {
        Ok(())
    }
}

/// The rule of a store in which everything stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepAll;

impl GarbageRule for KeepAll {
    fn compaction(&self) -> Option<Box<dyn GarbageWalk>> {
        None
    }

    fn horizon(&self) -> Bytes {
        Bytes::new()
    }

    fn beyond(&self, horizon: &[u8], _: &KeyRange) -> Option<Box<dyn GarbageWalk>> {
        horizon.is_empty().then(|| Box::new(Self) as Box<dyn GarbageWalk>)
    }
}

impl GarbageWalk for KeepAll {
    fn next(&mut self, _: &[u8], _: &[u8]) -> Fate {
        Fate::Stays
    }
}
