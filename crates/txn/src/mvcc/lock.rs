//! A lock: a transaction is about to write the key, or has reserved it.
//!
//! ```text
//!   kind  primary  start ts  ttl   then those of these fields that are set, in this order:
//!   'v' short value   'f' for_update_ts   't' txn size   'c' min_commit_ts
//!   'a' secondaries (async commit)   'r' rollbacks of others   'l' last change
//!   's' source   'F' locked with conflict   'g' generation   ['h' holders of a shared lock]
//! ```

use base::TimeStamp;
use base::rule::{Rule, keep};
use bytes::Bytes;

use super::record::{Fields, push_compact, push_u64, push_var_u64};
use super::{BadRecord, Key, LastChange, ReadOptions, SHORT_VALUE_MAX, WriteKind};

const SHORT_VALUE: u8 = b'v';
const FOR_UPDATE_TS: u8 = b'f';
const TXN_SIZE: u8 = b't';
const MIN_COMMIT_TS: u8 = b'c';
const SECONDARIES: u8 = b'a';
const ROLLBACKS: u8 = b'r';
const LAST_CHANGE: u8 = b'l';
const SOURCE: u8 = b's';
const WITH_CONFLICT: u8 = b'F';
const GENERATION: u8 = b'g';
const SHARED: u8 = b'H';

/// What a lock will become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// A new value.
    Put,
    /// The value goes away.
    Delete,
    /// A record that changes nothing.
    Lock,
    /// Nothing yet: the transaction has reserved the key and may prewrite it later.
    Pessimistic,
}

impl LockKind {
    fn byte(self) -> u8 {
        match self {
            Self::Put => b'P',
            Self::Delete => b'D',
            Self::Lock => b'L',
            Self::Pessimistic => b'S',
        }
    }

    fn from_byte(byte: u8) -> Result<Self, BadRecord> {
        match byte {
            b'P' => Ok(Self::Put),
            b'D' => Ok(Self::Delete),
            b'L' => Ok(Self::Lock),
            b'S' => Ok(Self::Pessimistic),
            SHARED => Err(BadRecord::SharedLock),
            other => Err(BadRecord::Kind(other)),
        }
    }
}

/// A lock record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// What it will become.
    pub kind: LockKind,
    /// User form of the key whose fate decides about the transaction.
    pub primary: Bytes,
    /// Start timestamp of the owner, which is also its name.
    pub start_ts: TimeStamp,
    /// Milliseconds from the physical part of `start_ts` after which others may remove it. Only a
    /// primary's counts.
    pub ttl_ms: u64,
    /// The value if it is short; a long one is in family `default` under `start_ts`.
    pub short_value: Option<Bytes>,
    /// Not 0 if the owner is a pessimistic transaction: its reads for update were as of then.
    pub for_update_ts: TimeStamp,
    /// How many keys the owner has, as far as it knew.
    pub txn_size: u64,
    /// The owner must not commit below; readers push it. 0: no bound.
    pub min_commit_ts: TimeStamp,
    /// Set for an async commit: the owner is committed once all its locks are there. All its other
    /// keys in the primary's lock, none in the others.
    pub secondaries: Option<Vec<Bytes>>,
    /// Protected rollbacks of other transactions on this key, by start timestamp: should the owner
    /// commit at one of these timestamps, its record takes the rollback's place and must say so.
    pub rollback_ts: Vec<TimeStamp>,
    /// Where the newest change below this lock is, for records of kind `Lock`.
    pub last_change: LastChange,
    /// What kind of program wrote it; 0 for users.
    pub source: u64,
    /// The lock was granted although a newer version than `for_update_ts` asked for was there.
    pub with_conflict: bool,
    /// Which flush of a pipelined transaction wrote it; 0 for all others.
    pub generation: u64,
}

impl Lock {
    /// A lock with all that every lock has; the rest is empty.
    pub fn new(kind: LockKind, primary: Bytes, start_ts: TimeStamp, ttl_ms: u64) -> Self {
        Self {
            kind,
            primary,
            start_ts,
            ttl_ms,
            short_value: None,
            for_update_ts: TimeStamp(0),
            txn_size: 0,
            min_commit_ts: TimeStamp(0),
            secondaries: None,
            rollback_ts: Vec::new(),
            last_change: LastChange::Unknown,
            source: 0,
            with_conflict: false,
            generation: 0,
        }
    }

    /// Whether it belongs to an async commit.
    pub fn is_async_commit(&self) -> bool {
        self.secondaries.is_some()
    }

    /// Whether its owner is a pessimistic transaction.
    pub fn is_of_pessimistic_txn(&self) -> bool {
        self.for_update_ts.0 != 0
    }

    /// Whether `key` is the primary that the lock names.
    pub fn is_primary(&self, key: &Key) -> bool {
        self.primary == key.user()
    }

    /// Whether its time has run out at `now`. Physical parts only, and strictly: a lock whose time
    /// ends in this millisecond lives.
    pub fn is_expired(&self, now: TimeStamp) -> bool {
        self.start_ts.physical_ms().saturating_add(self.ttl_ms) < now.physical_ms()
    }

    /// The kind of record that a commit of it writes; `None` for a pessimistic lock.
    pub fn write_kind(&self) -> Option<WriteKind> {
        match self.kind {
            LockKind::Put => Some(WriteKind::Put),
            LockKind::Delete => Some(WriteKind::Delete),
            LockKind::Lock => Some(WriteKind::Lock),
            LockKind::Pessimistic => None,
        }
    }

    /// Whether its value lies in family `default`.
    pub fn has_long_value(&self) -> bool {
        self.kind == LockKind::Put && self.short_value.is_none()
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.primary.len());
        out.push(self.kind.byte());
        push_compact(&mut out, &self.primary);
        push_var_u64(&mut out, self.start_ts.0);
        push_var_u64(&mut out, self.ttl_ms);
        if let Some(value) = &self.short_value {
            assert!(value.len() <= SHORT_VALUE_MAX, "a long value belongs in family default");
            out.extend_from_slice(&[SHORT_VALUE, value.len() as u8]);
            out.extend_from_slice(value);
        }
        for (tag, number) in [
            (FOR_UPDATE_TS, self.for_update_ts.0),
            (TXN_SIZE, self.txn_size),
            (MIN_COMMIT_TS, self.min_commit_ts.0),
        ] {
            push_number_field(&mut out, tag, number);
        }
        if let Some(secondaries) = &self.secondaries {
            out.push(SECONDARIES);
            push_var_u64(&mut out, secondaries.len() as u64);
            secondaries.iter().for_each(|key| push_compact(&mut out, key));
        }
        if !self.rollback_ts.is_empty() {
            out.push(ROLLBACKS);
            push_var_u64(&mut out, self.rollback_ts.len() as u64);
            self.rollback_ts.iter().for_each(|ts| push_u64(&mut out, ts.0));
        }
        self.last_change.encode_field(LAST_CHANGE, &mut out);
        if self.source != 0 {
            out.push(SOURCE);
            push_var_u64(&mut out, self.source);
        }
        if self.with_conflict {
            out.push(WITH_CONFLICT);
        }
        push_number_field(&mut out, GENERATION, self.generation);
        out
    }

    /// The lock of a stored record.
    pub fn decode(record: &[u8]) -> Result<Self, BadRecord> {
        let mut fields = Fields::new(record);
        let kind = LockKind::from_byte(fields.byte()?)?;
        let primary = Bytes::copy_from_slice(fields.compact()?);
        let start_ts = TimeStamp(fields.var_u64()?);
        let mut lock = Self::new(kind, primary, start_ts, fields.var_u64()?);
        while !fields.is_empty() {
            lock.decode_field(&mut fields)?;
        }
        Ok(lock)
    }

    /// Kind and owner of a stored record, without a copy of the rest.
    pub fn peek(record: &[u8]) -> Result<(LockKind, TimeStamp), BadRecord> {
        let mut fields = Fields::new(record);
        let kind = LockKind::from_byte(fields.byte()?)?;
        fields.compact()?;
        Ok((kind, TimeStamp(fields.var_u64()?)))
    }

    fn decode_field(&mut self, fields: &mut Fields<'_>) -> Result<(), BadRecord> {
        match fields.byte()? {
            SHORT_VALUE => self.short_value = Some(Bytes::copy_from_slice(fields.short()?)),
            FOR_UPDATE_TS => self.for_update_ts = TimeStamp(fields.u64()?),
            TXN_SIZE => self.txn_size = fields.u64()?,
            MIN_COMMIT_TS => self.min_commit_ts = TimeStamp(fields.u64()?),
            SECONDARIES => {
                let count = fields.count(1)?;
                let keys = (0..count).map(|_| fields.compact().map(Bytes::copy_from_slice));
                self.secondaries = Some(keys.collect::<Result<_, _>>()?);
            }
            ROLLBACKS => {
                let count = fields.count(8)?;
                let all = (0..count).map(|_| fields.u64().map(TimeStamp));
                self.rollback_ts = all.collect::<Result<_, _>>()?;
            }
            LAST_CHANGE => self.last_change = LastChange::decode(fields)?,
            SOURCE => self.source = fields.var_u64()?,
            WITH_CONFLICT => self.with_conflict = true,
            GENERATION => self.generation = fields.u64()?,
            other => return Err(BadRecord::Field(other)),
        }
        Ok(())
    }

    /// How a read meets this lock on `key`. `memory_only`: the lock is not in the engine but in the
    /// lock table of async commits and one-phase commits, whose transactions may be committed from
    /// one moment to the next without anybody asking.
    pub fn meet(&self, key: &Key, read: &ReadOptions, memory_only: bool) -> LockVerdict {
        use super::Isolation::{RcCheckTs, ReadCommitted, Snapshot};
        let harmless = matches!(self.kind, LockKind::Lock | LockKind::Pessimistic);
        let bypassed = read.bypass.contains(&self.start_ts);
        match read.isolation {
            ReadCommitted => LockVerdict::Pass,
            RcCheckTs if harmless || bypassed || read.is_replica_read => LockVerdict::Pass,
            RcCheckTs => LockVerdict::Conflict,
            Snapshot if self.start_ts > read.ts || harmless || bypassed => LockVerdict::Pass,
            Snapshot if self.min_commit_ts > read.ts => LockVerdict::Pass,
            Snapshot if read.access.contains(&self.start_ts) => LockVerdict::Access,
            // The newest committed version is wanted, and whether this transaction is committed is
            // decided on this very key: it is not. An async commit may be without this lock
            // knowing, and so may what is in memory alone.
            Snapshot
                if read.ts == TimeStamp::MAX
                    && !read.is_replica_read
                    && !memory_only
                    && self.is_primary(key)
                    && !self.is_async_commit() =>
            {
                LockVerdict::Pass
            }
            Snapshot if !keep(Rule::ReadsMeetLocks) && !memory_only => LockVerdict::Pass,
            Snapshot => LockVerdict::Blocked,
        }
    }
}

fn push_number_field(out: &mut Vec<u8>, tag: u8, number: u64) {
    if number != 0 {
        out.push(tag);
        push_u64(out, number);
    }
}

/// What a lock means for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockVerdict {
    /// Nothing.
    Pass,
    /// Its transaction is known to be committed below the read: the lock holds the value to return.
    Access,
    /// The read cannot be answered before the lock is resolved.
    Blocked,
    /// The read's timestamp is too old for a read that wants the newest.
    Conflict,
}
