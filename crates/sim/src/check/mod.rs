//! Checkers of transactional histories: what clients did and saw, and whether snapshot isolation,
//! in the order of real time, allows it.
//!
//! [`lists`]: transactions append unique numbers to lists and read whole lists. No G0, G1a, G1b,
//! G1c, G-single, no lost update; reads repeat; who begins after an acknowledgement sees it.
//!
//! [`bank`]: money moves between accounts. Every snapshot has the same sum; each transfer happened
//! once or not at all, as its client was told.
//!
//! A list shows its own history: a read of `[3, 1, 4]` tells that 3 was appended first, and which
//! transaction each version is of. So the order of versions is found from the reads alone (the idea
//! is that of Elle: Kingsbury and Alvaro, 2020), and with it which transaction must have been
//! before which. A cycle of those is an anomaly; its edges say which.

pub mod bank;
mod graph;
pub mod lists;

use std::fmt;

use base::Instant;

/// What a client knows of how its transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was told "committed".
    Committed,
    /// It was told, or saw to it, that nothing was written.
    Failed,
    /// Nobody answered.
    Unknown,
}

/// As of when a transaction reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As of its start, and it commits only if nobody has written its keys since.
    Snapshot,
    /// As of a timestamp of its own choice, which may be long before it began.
    Stale,
    /// One list, without a timestamp, as it was last committed: whoever is about to commit it may
    /// have done so already at a timestamp that others have passed. So it is promised to be new for
    /// this list, and nothing about others.
    Newest,
    /// It locks each key before it reads it. That all its locks were there until it ended is known
    /// only if it wrote something and committed.
    Locking,
}

/// A list, by number.
pub type ListId = u64;

/// What a transaction did with a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// It read the whole list.
    Read(ListId, Vec<u64>),
    /// It appended a number that nobody else appends to this list.
    Append(ListId, u64),
}

/// A transaction as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// Whose.
    pub client: usize,
    /// When it reads.
    pub style: Style,
    /// What it did, in its order.
    pub acts: Vec<Act>,
    /// When it began.
    pub begun: Instant,
    /// When its client knew how it ended, if it ever did.
    pub ended: Option<Instant>,
    /// How it ended.
    pub outcome: Outcome,
}

impl fmt::Display for Txn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |at: Instant| at.0 as f64 / 1e6;
        write!(f, "client {} {:.3}..", self.client, ms(self.begun))?;
        match self.ended {
            Some(ended) => write!(f, "{:.3}", ms(ended))?,
            None => write!(f, "?")?,
        }
        write!(f, " {:?} {:?}:", self.style, self.outcome)?;
        self.acts.iter().try_for_each(|act| match act {
            Act::Read(list, found) => write!(f, " r{list}{found:?}"),
            Act::Append(list, value) => write!(f, " a{list}({value})"),
        })
    }
}

/// What a history shows that must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number that nobody appended.
    FromNowhere,
    /// A number that is there twice.
    Twice,
    /// A transaction does not see what it did or saw before.
    Internal,
    /// A read of what was rolled back.
    AbortedRead,
    /// A read of a version in the middle of a transaction.
    IntermediateRead,
    /// Two reads that no one order of appends explains.
    NoOrder,
    /// Two transactions read the same version and both appended to it.
    LostUpdate,
    /// Writes in a circle (G0).
    DirtyWrite,
    /// Writes and reads of them in a circle (G1c).
    CircularInformation,
    /// A circle with one read of what was overwritten since (G-single).
    ReadSkew,
    /// A circle with several, no two of them side by side.
    NonAdjacent,
    /// A circle with an acknowledgement that came before a begin.
    RealTime,
    /// Money came from nowhere, or went there.
    Sum,
    /// Two keys that are always written together differ.
    Index,
    /// A transfer is not what its client was told.
    Told,
}

/// An anomaly: what, and the transactions that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// Its name.
    pub kind: Kind,
    /// For people.
    pub story: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.story)
    }
}
