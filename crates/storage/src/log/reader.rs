//! Reading entries back: what a shard does when its own memory no longer holds them.

use std::sync::{Arc, RwLock};

use base::{Entry, Index, RegionId, Term};
use bytes::{Bytes, BytesMut};

use super::error::ReadError;
use super::index::{LogIndex, RegionLog, Slot};
use super::segment::Segment;
use super::writer::NO_PANIC;

/// Entries this close to each other in a file are read at once.
const GAP_MAX: u32 = 512;
/// Unless the piece grows beyond this.
const PIECE_MAX: u32 = 1 << 20;

/// A handle to read the log with, for any thread; clones are cheap. It sees every batch once
/// [`RaftLog::write`](super::RaftLog::write) returned, durable or not.
///
/// A region that the log does not know has no entries and is truncated at (0, 0).
#[derive(Clone)]
pub struct LogReader {
    index: Arc<RwLock<LogIndex>>,
}

impl LogReader {
    pub(super) fn new(index: Arc<RwLock<LogIndex>>) -> Self {
        Self { index }
    }

    fn with<T>(&self, region: RegionId, read: impl FnOnce(Option<&RegionLog>) -> T) -> T {
        read(self.index.read().expect(NO_PANIC).regions.get(&region))
    }

    /// Index of the first entry that is, or will be, in the log: the truncated one + 1.
    pub fn first_index(&self, region: RegionId) -> Index {
        self.truncated(region).0 + 1
    }

    /// Index of the last entry; the truncated one if there is none.
    pub fn last_index(&self, region: RegionId) -> Index {
        self.with(region, |log| log.map_or(0, RegionLog::last_index))
    }

    /// Index and term of the last entry that left the log; (0, 0) if none did.
    pub fn truncated(&self, region: RegionId) -> (Index, Term) {
        self.with(region, |log| log.map_or((0, 0), RegionLog::truncated))
    }

    /// Term of the entry at `index`, which may be the truncated one. Reads no file.
    ///
    /// Errors: `Compacted` below the truncated index, `Unavailable` above the last.
    pub fn term(&self, region: RegionId, index: Index) -> Result<Term, ReadError> {
        self.with(region, |log| {
            let (truncated, term) = log.map_or((0, 0), RegionLog::truncated);
            let last = log.map_or(0, RegionLog::last_index);
            match log.and_then(|log| log.slot(index)) {
                Some(slot) => Ok(slot.term),
                None if index == truncated => Ok(term),
                None if index < truncated => Err(ReadError::Compacted { truncated, term }),
                None => Err(ReadError::Unavailable { last }),
            }
        })
    }

    /// The entries from `low` up to and without `high`, in order: as many as have `bytes_max` bytes
    /// of data together, but at least one if there is one in the range.
    ///
    /// Errors: `Compacted` if `low` is not above the truncated index, `Unavailable` if `high - 1`
    /// is above the last, `Damaged` and `Io` if the disk does not give back what was written.
    pub fn entries(
        &self,
        region: RegionId,
        low: Index,
        high: Index,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, ReadError> {
        if low >= high {
            return Ok(Vec::new());
        }
        let pieces = self.pieces(region, low, high, bytes_max)?;
        let mut entries = Vec::with_capacity(pieces.iter().map(|piece| piece.slots.len()).sum());
        // The index is not held while the files are read. A piece holds its segment, whose file is
        // not used again before.
        for piece in pieces {
            piece.read(region, &mut entries)?;
        }
        assert_eq!(entries.first().map(|entry| entry.index), Some(low), "region {region}");
        Ok(entries)
    }

    /// The region's state, if it has one.
    pub fn state(&self, region: RegionId) -> Option<Bytes> {
        self.with(region, |log| log?.state().map(Bytes::copy_from_slice))
    }

    /// The regions that the log knows anything of, in order.
    pub fn regions(&self) -> Vec<RegionId> {
        self.index.read().expect(NO_PANIC).regions.keys().copied().collect()
    }

    /// Roughly the bytes of the entries that are in the log: of all regions.
    pub fn live_bytes(&self) -> u64 {
        let index = self.index.read().expect(NO_PANIC);
        index.segments.values().map(|used| used.live_bytes).sum()
    }

    /// The same of one region.
    pub fn live_bytes_of(&self, region: RegionId) -> u64 {
        self.with(region, |log| log.map_or(0, RegionLog::live_bytes))
    }

    fn pieces(
        &self,
        region: RegionId,
        low: Index,
        high: Index,
        bytes_max: u64,
    ) -> Result<Vec<Piece>, ReadError> {
        let index = self.index.read().expect(NO_PANIC);
        let log = index.regions.get(&region);
        let (truncated, term) = log.map_or((0, 0), RegionLog::truncated);
        let last = log.map_or(0, RegionLog::last_index);
        if low <= truncated {
            return Err(ReadError::Compacted { truncated, term });
        }
        if high > last + 1 {
            return Err(ReadError::Unavailable { last });
        }
        let mut pieces: Vec<Piece> = Vec::new();
        let mut bytes = 0;
        for at in low..high {
            let slot = *log.and_then(|log| log.slot(at)).expect("no gaps up to the last entry");
            bytes += u64::from(slot.len());
            if bytes > bytes_max && at > low {
                break;
            }
            match pieces.last_mut().filter(|piece| piece.is_near(&slot)) {
                Some(piece) => piece.slots.push(slot),
                None => {
                    let used = &index.segments[&slot.segment];
                    let segment = used.segment.clone();
                    pieces.push(Piece { segment, first: at, slots: vec![slot] });
                }
            }
        }
        Ok(pieces)
    }
}

/// Entries that lie close together in a segment, read at once.
pub(super) struct Piece {
    pub(super) segment: Arc<Segment>,
    pub(super) first: Index,
    pub(super) slots: Vec<Slot>,
}

impl Piece {
    fn start(&self) -> u32 {
        self.slots[0].offset
    }

    fn end(&self) -> u32 {
        let last = self.slots[self.slots.len() - 1];
        last.offset + last.len()
    }

    pub(super) fn is_near(&self, slot: &Slot) -> bool {
        let end = self.end();
        let near = slot.offset >= end && slot.offset - end <= GAP_MAX;
        near && slot.segment == self.segment.seq && end - self.start() < PIECE_MAX
    }

    /// Reads the piece and appends its entries, checked, to `entries`.
    pub(super) fn read(&self, region: RegionId, entries: &mut Vec<Entry>) -> Result<(), ReadError> {
        let Segment { path, file, .. } = &*self.segment;
        let start = self.start();
        let mut bytes = BytesMut::zeroed((self.end() - start) as usize);
        file.read_at(&mut bytes, u64::from(start))
            .map_err(|source| ReadError::Io { path: path.clone(), source })?;
        let bytes = bytes.freeze();
        for (index, slot) in (self.first..).zip(&self.slots) {
            let at = (slot.offset - start) as usize;
            let entry = slot.entry(index, bytes.slice(at..at + slot.len() as usize));
            entries.push(entry.ok_or_else(|| ReadError::Damaged {
                region,
                index,
                path: path.clone(),
                offset: u64::from(slot.offset),
            })?);
        }
        Ok(())
    }
}
