//! An entry of a region's raft log: what `raft` orders, `storage` keeps and `store` applies.

use bytes::Bytes;

use crate::{Index, Term};

/// One entry. `(index, term)` identifies it in its region for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Position in the log.
    pub index: Index,
    /// Term of the leader that proposed it.
    pub term: Term,
    /// How to read `data`.
    pub kind: EntryKind,
    /// The command. Empty: the entry with which a new leader starts its term.
    pub data: Bytes,
}

/// What an entry holds. The numbers are those of `eraftpb.EntryType`, on the wire and on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// A command of the state machine, or nothing.
    #[default]
    Normal = 0,
    /// A change of one member.
    ConfChange = 1,
    /// A change of several members, perhaps through a joint configuration.
    ConfChangeV2 = 2,
}

impl EntryKind {
    /// The kind with this number; `None` if there is no such kind.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Normal),
            1 => Some(Self::ConfChange),
            2 => Some(Self::ConfChangeV2),
            _ => None,
        }
    }
}
