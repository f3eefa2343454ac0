//! The bytes of a record: how a batch is written and read.
//!
//! ```text
//!    ┌──────────────── head, 40 bytes ────────────────┐┌─ meta ─┐┌─ data ─┐┌ zeros to ┐
//!    crc  meta crc  meta len  data len  start  synced  oldest  0   rows     entries   8 bytes
//!    u32  u32       u32       u32       u64    u64     u32   u32
//! ```
//! All numbers are little endian. `crc` covers the rest of the head and, though they are not
//! written there, the log's salt and the segment's number: in a file that is used again no old head
//! passes for a new one. `meta crc` covers the rows; each entry's row has the checksum of its data.
//! So every byte that matters is covered exactly once, and one entry can be checked without reading
//! its whole record.
//!
//! | row | tag | then |
//! |---|---|---|
//! | append, rewrite | 1, 5 | region u64, first index u64, count u32, count × entry |
//! | state | 2 | region u64, length u32, bytes |
//! | truncate, reset | 3, 6 | region u64, index u64, term u64 |
//! | remove | 4 | region u64 |
//!
//! An entry in a row is its term u64, the checksum of its data u32, and its kind and length in one
//! u32. The data itself follows the rows, entry by entry in their order.

use base::{EntryKind, Index, RegionId, Term};
use crc32fast::Hasher;

use super::batch::{BatchRow, LogBatch};

/// Length of a record's head.
pub(super) const HEAD_LEN: usize = 40;
/// Records begin at multiples of this, counted from the file's start.
pub(super) const ALIGN: usize = 8;
/// The largest record.
pub(super) const RECORD_MAX: u64 = 1 << 30;

const ENTRY_LEN: u64 = 16;
pub(super) const TRUNCATE_LEN: u64 = 25;
pub(super) const REMOVE_LEN: u64 = 9;

const TAG_APPEND: u8 = 1;
const TAG_STATE: u8 = 2;
const TAG_TRUNCATE: u8 = 3;
const TAG_REMOVE: u8 = 4;
const TAG_REWRITE: u8 = 5;
const TAG_RESET: u8 = 6;

/// An entry's kind is in the two highest bits beside its length.
const KIND_SHIFT: u32 = 30;
const _: () = assert!(RECORD_MAX <= 1 << KIND_SHIFT);

/// Length of an append row of `count` entries.
pub(super) fn append_len(count: usize) -> u64 {
    21 + count as u64 * ENTRY_LEN
}

/// Length of a state row with a value of `len` bytes.
pub(super) fn state_len(len: usize) -> u64 {
    13 + len as u64
}

/// Length of a whole record.
pub(super) fn record_len(meta: u64, data: u64) -> u64 {
    (HEAD_LEN as u64 + meta + data).next_multiple_of(ALIGN as u64)
}

/// What a segment mixes into the checksums of its records' heads.
pub(super) fn seed(salt: u64, seq: u32) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&seq.to_le_bytes());
    hasher.finalize()
}

/// The head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) meta_crc: u32,
    pub(super) meta_len: u32,
    pub(super) data_len: u32,
    /// Log position of the record: how many bytes of records were written before it since the log
    /// exists.
    pub(super) start: u64,
    /// All records before this position were durable when this one was written.
    pub(super) synced: u64,
    /// Number of the oldest segment that was still needed when this record was written. All that
    /// replaces what was in older ones was durable by then.
    pub(super) oldest: u32,
}

impl Head {
    /// Length of the whole record.
    pub(super) fn record_len(&self) -> u64 {
        record_len(u64::from(self.meta_len), u64::from(self.data_len))
    }

    /// Log position behind the record.
    pub(super) fn end(&self) -> u64 {
        self.start + self.record_len()
    }

    fn encode(&self, seed: u32) -> [u8; HEAD_LEN] {
        let mut out = [0; HEAD_LEN];
        out[4..8].copy_from_slice(&self.meta_crc.to_le_bytes());
        out[8..12].copy_from_slice(&self.meta_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.data_len.to_le_bytes());
        out[16..24].copy_from_slice(&self.start.to_le_bytes());
        out[24..32].copy_from_slice(&self.synced.to_le_bytes());
        out[32..36].copy_from_slice(&self.oldest.to_le_bytes());
        let crc = head_crc(&out, seed);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// What would be the start if `bytes`, at least [`HEAD_LEN`], began with a head.
    pub(super) fn start_of(bytes: &[u8]) -> u64 {
        u64_at(bytes, 16)
    }

    /// The head that `bytes` begin with, if they do and its record is at most `room` bytes long.
    pub(super) fn decode(bytes: &[u8], room: u64, seed: u32) -> Option<Head> {
        let bytes = bytes.get(..HEAD_LEN)?;
        let head = Head {
            meta_crc: u32_at(bytes, 4),
            meta_len: u32_at(bytes, 8),
            data_len: u32_at(bytes, 12),
            start: u64_at(bytes, 16),
            synced: u64_at(bytes, 24),
            oldest: u32_at(bytes, 32),
        };
        // Cheap tests first: most places that are looked at hold no head.
        let plausible = head.oldest > 0 && head.synced <= head.start && u32_at(bytes, 36) == 0;
        let inside = head.record_len() <= room && head.start.checked_add(room).is_some();
        let valid = plausible && inside && u32_at(bytes, 0) == head_crc(bytes, seed);
        valid.then_some(head)
    }
}

fn head_crc(head: &[u8], seed: u32) -> u32 {
    let mut hasher = Hasher::new_with_initial(seed);
    hasher.update(&head[4..HEAD_LEN]);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Encodes `batch` as one record into `out`, whose old content goes. `resets` are the numbers of
/// the truncations that empty the log, ascending. The lengths and checksums of `head` are filled in
/// here; returns the complete one.
pub(super) fn encode(
    batch: &LogBatch,
    resets: &[usize],
    mut head: Head,
    seed: u32,
    out: &mut Vec<u8>,
) -> Head {
    let len = batch.byte_size() as usize;
    out.clear();
    out.reserve(len);
    out.extend_from_slice(&[0; HEAD_LEN]);
    for (i, row) in batch.rows().iter().enumerate() {
        encode_row(batch, row, resets.binary_search(&i).is_ok(), out);
    }
    let meta_end = out.len();
    for row in batch.rows() {
        if let BatchRow::Append { entries, .. } = row {
            for entry in batch.entries(entries) {
                out.extend_from_slice(&entry.data);
            }
        }
    }
    head.meta_len = (meta_end - HEAD_LEN) as u32;
    head.data_len = (out.len() - meta_end) as u32;
    head.meta_crc = crc32fast::hash(&out[HEAD_LEN..meta_end]);
    out.resize(len, 0);
    assert_eq!(u64::from(head.meta_len), batch.meta_len(), "a batch knows its length");
    assert_eq!(u64::from(head.data_len), batch.data_len(), "a batch knows its length");
    out[..HEAD_LEN].copy_from_slice(&head.encode(seed));
    head
}

fn encode_row(batch: &LogBatch, row: &BatchRow, reset: bool, out: &mut Vec<u8>) {
    match row {
        BatchRow::Append { region, entries, rewritten } => {
            let entries = batch.entries(entries);
            out.push(if *rewritten { TAG_REWRITE } else { TAG_APPEND });
            out.extend_from_slice(&region.0.to_le_bytes());
            out.extend_from_slice(&entries[0].index.to_le_bytes());
            out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
            for entry in entries {
                let kind_and_len = (entry.kind as u32) << KIND_SHIFT | entry.data.len() as u32;
                let mut row = [0; ENTRY_LEN as usize];
                row[..8].copy_from_slice(&entry.term.to_le_bytes());
                row[8..12].copy_from_slice(&crc32fast::hash(&entry.data).to_le_bytes());
                row[12..].copy_from_slice(&kind_and_len.to_le_bytes());
                out.extend_from_slice(&row);
            }
        }
        BatchRow::State { region, value } => {
            out.push(TAG_STATE);
            out.extend_from_slice(&region.0.to_le_bytes());
            out.extend_from_slice(&(value.len() as u32).to_le_bytes());
            out.extend_from_slice(value);
        }
        BatchRow::Truncate { region, index, term } => {
            out.push(if reset { TAG_RESET } else { TAG_TRUNCATE });
            out.extend_from_slice(&region.0.to_le_bytes());
            out.extend_from_slice(&index.to_le_bytes());
            out.extend_from_slice(&term.to_le_bytes());
        }
        BatchRow::Remove { region } => {
            out.push(TAG_REMOVE);
            out.extend_from_slice(&region.0.to_le_bytes());
        }
    }
}

/// A row of a record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Row<'a> {
    /// Entries, `cut`ting off what was there from the first on, or written again.
    Append {
        region: RegionId,
        first: Index,
        entries: EntryRows<'a>,
        cut: bool,
    },
    State {
        region: RegionId,
        value: &'a [u8],
    },
    /// `reset`: all entries go, not only those up to `index`.
    Truncate {
        region: RegionId,
        index: Index,
        term: Term,
        reset: bool,
    },
    Remove {
        region: RegionId,
    },
}

/// What a row says of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryRow {
    pub(super) term: Term,
    pub(super) crc: u32,
    kind_and_len: u32,
}

impl EntryRow {
    pub(super) fn new(term: Term, crc: u32, kind_and_len: u32) -> Self {
        Self { term, crc, kind_and_len }
    }

    /// Length of the entry's data.
    pub(super) fn len(&self) -> u32 {
        self.kind_and_len & ((1 << KIND_SHIFT) - 1)
    }

    pub(super) fn kind(&self) -> Option<EntryKind> {
        EntryKind::from_number((self.kind_and_len >> KIND_SHIFT) as u8)
    }

    pub(super) fn kind_and_len(&self) -> u32 {
        self.kind_and_len
    }
}

/// The entries of an append row.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryRows<'a> {
    rows: &'a [u8],
}

impl<'a> EntryRows<'a> {
    pub(super) fn count(&self) -> usize {
        self.rows.len() / ENTRY_LEN as usize
    }

    pub(super) fn iter(self) -> impl Iterator<Item = EntryRow> + 'a {
        self.rows.chunks_exact(ENTRY_LEN as usize).map(|row| EntryRow {
            term: u64_at(row, 0),
            crc: u32_at(row, 8),
            kind_and_len: u32_at(row, 12),
        })
    }
}

/// Reads the rows of a record's meta. `None` if they are not what this version writes.
pub(super) struct Rows<'a> {
    rest: &'a [u8],
}

impl<'a> Rows<'a> {
    pub(super) fn new(meta: &'a [u8]) -> Self {
        Self { rest: meta }
    }

    /// `Ok(None)` at the end; `Err` if the bytes are no row.
    pub(super) fn next(&mut self) -> Result<Option<Row<'a>>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.take(1)?[0];
        let region = RegionId(self.u64()?);
        let row = match tag {
            TAG_APPEND | TAG_REWRITE => {
                let first = self.u64()?;
                let count = u64::from(self.u32()?);
                let rows = self.take((count * ENTRY_LEN) as usize)?;
                let end = first.checked_add(count).ok_or(Malformed)?;
                if count == 0 || first == 0 || end == u64::MAX {
                    return Err(Malformed);
                }
                Row::Append { region, first, entries: EntryRows { rows }, cut: tag == TAG_APPEND }
            }
            TAG_STATE => {
                let len = self.u32()?;
                Row::State { region, value: self.take(len as usize)? }
            }
            TAG_TRUNCATE | TAG_RESET => {
                let (index, term) = (self.u64()?, self.u64()?);
                if index == u64::MAX {
                    return Err(Malformed);
                }
                Row::Truncate { region, index, term, reset: tag == TAG_RESET }
            }
            TAG_REMOVE => Row::Remove { region },
            _ => return Err(Malformed),
        };
        Ok(Some(row))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32_at(self.take(4)?, 0))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64_at(self.take(8)?, 0))
    }
}

/// Bytes that are no row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Malformed;

/// The rows and the entries' data of the record that `bytes` begin with.
pub(super) fn body<'a>(head: &Head, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    let (meta, rest) = bytes[HEAD_LEN..].split_at(head.meta_len as usize);
    (meta, &rest[..head.data_len as usize])
}

/// Calls `found(region, index, good)` for each entry of the record that `bytes` begin with. False
/// if its rows are not as they were written, or do not fit the data.
pub(super) fn check_entries(
    head: &Head,
    bytes: &[u8],
    mut found: impl FnMut(RegionId, Index, bool),
) -> bool {
    let (meta, data) = body(head, bytes);
    if crc32fast::hash(meta) != head.meta_crc {
        return false;
    }
    let (mut rows, mut rest) = (Rows::new(meta), data);
    loop {
        match rows.next() {
            Ok(Some(Row::Append { region, first, entries, .. })) => {
                for (index, entry) in (first..).zip(entries.iter()) {
                    let Some((data, after)) = rest.split_at_checked(entry.len() as usize) else {
                        return false;
                    };
                    rest = after;
                    let good = entry.kind().is_some() && crc32fast::hash(data) == entry.crc;
                    found(region, index, good);
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return rest.is_empty(),
            Err(Malformed) => return false,
        }
    }
}
