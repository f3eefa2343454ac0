//! A write record: what happened to a key at a timestamp.
//!
//! ```text
//!   kind  start ts   then those of these fields that are set, in this order:
//!   'v' short value   'R' a rollback lies here too   'F' gc fence   'l' last change   'S' source
//! ```

use base::TimeStamp;
use bytes::Bytes;

use super::record::{Fields, push_u64, push_var_u64};
use super::{BadRecord, SHORT_VALUE_MAX};

const SHORT_VALUE: u8 = b'v';
const OVERLAPPED_ROLLBACK: u8 = b'R';
const GC_FENCE: u8 = b'F';
const LAST_CHANGE: u8 = b'l';
const SOURCE: u8 = b'S';

/// The short value that marks a rollback as protected.
const PROTECTED: &[u8] = b"p";

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// The key got a value.
    Put,
    /// The key lost its value.
    Delete,
    /// A transaction that had locked the key committed without changing it.
    Lock,
    /// A transaction was rolled back; it stands at its own start timestamp.
    Rollback,
}

impl WriteKind {
    fn byte(self) -> u8 {
        match self {
            Self::Put => b'P',
            Self::Delete => b'D',
            Self::Lock => b'L',
            Self::Rollback => b'R',
        }
    }

    fn from_byte(byte: u8) -> Result<Self, BadRecord> {
        match byte {
            b'P' => Ok(Self::Put),
            b'D' => Ok(Self::Delete),
            b'L' => Ok(Self::Lock),
            b'R' => Ok(Self::Rollback),
            other => Err(BadRecord::Kind(other)),
        }
    }

    /// Whether reads see a difference below and above it.
    pub fn is_change(self) -> bool {
        matches!(self, Self::Put | Self::Delete)
    }
}

/// Where the newest change below a record is. Lets a reader step over any number of records that
/// change nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastChange {
    /// Not recorded.
    #[default]
    Unknown,
    /// There is none.
    None,
    /// At `commit_ts`, about `versions` records below.
    At {
        /// Of the change.
        commit_ts: TimeStamp,
        /// At least 1.
        versions: u64,
    },
}

impl LastChange {
    /// As seen from a new record above `newest`, the newest one so far.
    pub fn above(newest: Option<(TimeStamp, &Write)>) -> Self {
        let Some((commit_ts, write)) = newest else { return Self::None };
        if write.kind.is_change() {
            return Self::At { commit_ts, versions: 1 };
        }
        match write.last_change {
            Self::At { commit_ts, versions } => Self::At { commit_ts, versions: versions + 1 },
            other => other,
        }
    }

    pub(super) fn encode_field(self, tag: u8, out: &mut Vec<u8>) {
        let (ts, versions) = match self {
            Self::Unknown => return,
            Self::None => (TimeStamp(0), 1),
            Self::At { commit_ts, versions } => (commit_ts, versions),
        };
        assert!(versions > 0, "zero versions would be read as unknown");
        out.push(tag);
        push_u64(out, ts.0);
        push_var_u64(out, versions);
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<Self, BadRecord> {
        let (commit_ts, versions) = (TimeStamp(fields.u64()?), fields.var_u64()?);
        Ok(match (commit_ts.0, versions) {
            (0, 0) => Self::Unknown,
            (0, _) => Self::None,
            (_, 0) => return Err(BadRecord::Number),
            _ => Self::At { commit_ts, versions },
        })
    }

    /// Timestamp and distance as clients see them in debug answers.
    pub fn parts(self) -> (u64, u64) {
        match self {
            Self::Unknown => (0, 0),
            Self::None => (0, 1),
            Self::At { commit_ts, versions } => (commit_ts.0, versions),
        }
    }
}

/// A write record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// What happened.
    pub kind: WriteKind,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// The value of a `Put` if it is short; a long one is in family `default` under `start_ts`. In
    /// a rollback the mark that it is protected.
    pub short_value: Option<Bytes>,
    /// At this timestamp another transaction (which started then) was rolled back for ever.
    pub has_overlapped_rollback: bool,
    /// Set when the flag above was added to a record that existed: the commit timestamp of the next
    /// change above it at that moment, 0 if there was none. A replica may have collected this
    /// record as garbage before it learns of the flag, which brings it back to life; a reader who
    /// finds it newest although its fence is at or below the read's timestamp knows it is a ghost.
    pub gc_fence: Option<TimeStamp>,
    /// Where the newest change below is.
    pub last_change: LastChange,
    /// What kind of program wrote it; 0 for users.
    pub source: u64,
}

impl Write {
    /// A record with nothing but the basics.
    pub fn new(kind: WriteKind, start_ts: TimeStamp, short_value: Option<Bytes>) -> Self {
        Self {
            kind,
            start_ts,
            short_value,
            has_overlapped_rollback: false,
            gc_fence: None,
            last_change: LastChange::Unknown,
            source: 0,
        }
    }

    /// The record of a rollback. A protected one is never collapsed into a newer one.
    pub fn rollback(start_ts: TimeStamp, protected: bool) -> Self {
        let mark = protected.then(|| Bytes::from_static(PROTECTED));
        Self::new(WriteKind::Rollback, start_ts, mark)
    }

    /// Whether it is a rollback that must stay.
    pub fn is_protected(&self) -> bool {
        self.kind == WriteKind::Rollback && self.short_value.as_deref() == Some(PROTECTED)
    }

    /// Whether the record at `commit_ts` says that the transaction of `start_ts` is rolled back.
    pub fn rolls_back(&self, commit_ts: TimeStamp, start_ts: TimeStamp) -> bool {
        commit_ts == start_ts && (self.kind == WriteKind::Rollback || self.has_overlapped_rollback)
    }

    /// Whether it is real, given that it is the newest change that a read at `ts` finds. See
    /// [`Self::gc_fence`].
    pub fn passes_gc_fence(&self, ts: TimeStamp) -> bool {
        self.gc_fence.is_none_or(|fence| fence.0 == 0 || fence > ts)
    }

    /// Whether its value lies in family `default`.
    pub fn has_long_value(&self) -> bool {
        self.kind == WriteKind::Put && self.short_value.is_none()
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let value_len = self.short_value.as_ref().map_or(0, |value| 2 + value.len());
        let mut out = Vec::with_capacity(32 + value_len);
        out.push(self.kind.byte());
        push_var_u64(&mut out, self.start_ts.0);
        if let Some(value) = &self.short_value {
            assert!(value.len() <= SHORT_VALUE_MAX, "a long value belongs in family default");
            out.extend_from_slice(&[SHORT_VALUE, value.len() as u8]);
            out.extend_from_slice(value);
        }
        if self.has_overlapped_rollback {
            out.push(OVERLAPPED_ROLLBACK);
        }
        if let Some(fence) = self.gc_fence {
            out.push(GC_FENCE);
            push_u64(&mut out, fence.0);
        }
        self.last_change.encode_field(LAST_CHANGE, &mut out);
        if self.source != 0 {
            out.push(SOURCE);
            push_var_u64(&mut out, self.source);
        }
        out
    }

    /// The record of a stored value.
    pub fn decode(record: &[u8]) -> Result<Self, BadRecord> {
        let mut fields = Fields::new(record);
        let kind = WriteKind::from_byte(fields.byte()?)?;
        let mut write = Self::new(kind, TimeStamp(fields.var_u64()?), None);
        while !fields.is_empty() {
            match fields.byte()? {
                SHORT_VALUE => write.short_value = Some(Bytes::copy_from_slice(fields.short()?)),
                OVERLAPPED_ROLLBACK => write.has_overlapped_rollback = true,
                GC_FENCE => write.gc_fence = Some(TimeStamp(fields.u64()?)),
                LAST_CHANGE => write.last_change = LastChange::decode(&mut fields)?,
                SOURCE => write.source = fields.var_u64()?,
                other => return Err(BadRecord::Field(other)),
            }
        }
        Ok(write)
    }
}
