//! Purging: how the log gives back space.
//!
//! Segments leave in the order in which they were written, the oldest first, and only when nothing
//! in them is wanted. So whatever cancels something (a truncation, a removal, a newer suffix) stays
//! at least as long as what it cancels, and the remaining segments alone always tell the whole
//! story.
//!
//! ```text
//!    oldest ──────────────────────────▶ active
//!    [dead] [dead] [few live] [live] [live]
//!      1. write the few live rows again at the end      2. sync
//!      3. write and sync "the oldest is now ..."
//!      4. only then hand the files back to be used again
//! ```
//! An old segment is written again only if the log wastes more than it holds: then each byte that
//! is written again frees at least one, in the long run.

use std::sync::Arc;

use base::{Entry, RegionId};
use bytes::Bytes;

use super::batch::LogBatch;
use super::error::{Damage, LogError, LostEntries, ReadError};
use super::index::{LogIndex, Slot};
use super::reader::Piece;
use super::segment::Segment;
use super::writer::{NO_PANIC, RaftLog};

/// A record of rewritten rows is about this long.
const RECORD_BYTES: u64 = 256 << 10;

/// What a call of [`RaftLog::purge`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgeReport {
    /// Segments that left the log.
    pub segments_dropped: u64,
    /// How many of their files will be used again; the others were removed.
    pub segments_reused: u64,
    /// Bytes of entries and states that were written again.
    pub bytes_rewritten: u64,
    /// Whether there is more to do at once: the call stopped because of `rewrite_bytes_max`.
    pub more: bool,
}

impl RaftLog {
    /// Gives back the space of segments in which nothing is wanted any more. If the log takes more
    /// than twice what it holds (and three segments more), it writes the rest of its oldest
    /// segments again to free them, up to `rewrite_bytes_max` bytes a call. Calling it when there
    /// is nothing to do costs next to nothing.
    ///
    /// Errors: as [`RaftLog::write`] and [`RaftLog::sync`]; `Damaged` if a live entry that had to
    /// be written again is not what was written. The log is what it was then, and can be written.
    /// `Io` if a file could not be removed; it will be at the next start.
    pub fn purge(&mut self) -> Result<PurgeReport, LogError> {
        self.refuse_after_failure()?;
        let mut report = PurgeReport::default();
        let rewritten = self.rewrite_old(&mut report);
        self.stats.bytes_rewritten += report.bytes_rewritten;
        // Even if there was no space to write old rows again: what is dead can go, and makes space.
        let oldest = self.oldest_live();
        if oldest > self.oldest && self.refuse_after_failure().is_ok() {
            // What was written again, and what cancelled the rest, must be durable before a head
            // says that the old segments are not needed, and that before they go.
            self.sync()?;
            self.advance_oldest(oldest)?;
            self.drop_dead(&mut report)?;
        }
        rewritten.map(|()| report)
    }

    fn rewrite_old(&mut self, report: &mut PurgeReport) -> Result<(), LogError> {
        while let Some(oldest) = self.segment_to_rewrite() {
            let budget = self.options.rewrite_bytes_max.saturating_sub(report.bytes_rewritten);
            if budget == 0 {
                report.more = true;
                break;
            }
            report.bytes_rewritten += self.rewrite_from(oldest, budget)?;
        }
        Ok(())
    }

    /// Makes it durable that segments before `oldest` are not needed.
    fn advance_oldest(&mut self, oldest: u32) -> Result<(), LogError> {
        let before = std::mem::replace(&mut self.oldest, oldest);
        let result = self.write_record(&LogBatch::new(), &[]).and_then(|_| self.sync());
        if result.is_err() {
            self.oldest = before;
        }
        result
    }

    /// Number of the first segment in which something is wanted, or of the active one.
    fn oldest_live(&self) -> u32 {
        let index = self.index.read().expect(NO_PANIC);
        let live = index.segments.iter().find(|(_, used)| used.live_rows > 0);
        live.map_or(self.active.seq, |(seq, _)| *seq)
    }

    /// The oldest segment with live rows, if the log wastes so much that these should be written
    /// again.
    fn segment_to_rewrite(&self) -> Option<u32> {
        let index = self.index.read().expect(NO_PANIC);
        let full = index.segments.values().filter(|used| used.segment.seq != self.active.seq);
        let full = full.skip_while(|used| used.live_rows == 0);
        let live: u64 = full.clone().map(|used| used.live_bytes).sum();
        let size: u64 = full.clone().map(|used| used.segment.size).sum();
        let wasted = size.saturating_sub(live);
        let allowed = live.max(2 * self.options.segment_bytes);
        full.map(|used| used.segment.seq).next().filter(|_| wasted > allowed)
    }

    /// Writes live rows of segment `seq` again, about `budget` bytes of them. Returns how many
    /// bytes.
    fn rewrite_from(&mut self, seq: u32, budget: u64) -> Result<u64, LogError> {
        let rows = LiveRows::collect(&self.index.read().expect(NO_PANIC), seq, budget);
        assert!(!rows.is_empty(), "segment {seq} is rewritten because of its live rows");
        let mut batch = LogBatch::new();
        let mut bytes = 0;
        for (region, meta) in rows.metas {
            if let Some((index, term)) = meta.truncated {
                batch.truncate(region, index, term);
            }
            if let Some(state) = meta.state {
                batch.put_state(region, state);
            }
            bytes += self.write_if_large(&mut batch, RECORD_BYTES)?;
        }
        for (region, piece) in rows.pieces {
            let mut entries: Vec<Entry> = Vec::new();
            piece.read(region, &mut entries).map_err(damaged)?;
            batch.rewrite(region, &entries);
            bytes += self.write_if_large(&mut batch, RECORD_BYTES)?;
        }
        bytes += self.write_if_large(&mut batch, 1)?;
        Ok(bytes)
    }

    fn write_if_large(&mut self, batch: &mut LogBatch, enough: u64) -> Result<u64, LogError> {
        if batch.is_empty() || batch.byte_size() < enough {
            return Ok(0);
        }
        let bytes = batch.byte_size();
        let entries = self.stats.entries;
        self.write(batch)?;
        self.stats.entries = entries;
        batch.clear();
        Ok(bytes)
    }

    /// Hands back the files of all segments before the oldest that is needed.
    fn drop_dead(&mut self, report: &mut PurgeReport) -> Result<(), LogError> {
        let dead: Vec<Arc<Segment>> = {
            let mut index = self.index.write().expect(NO_PANIC);
            let live = index.segments.split_off(&self.oldest);
            let dead = std::mem::replace(&mut index.segments, live);
            assert!(dead.values().all(|used| used.live_rows == 0), "nothing wanted is dropped");
            dead.into_values().map(|used| used.segment).collect()
        };
        report.segments_dropped = dead.len() as u64;
        self.stats.segments_purged += dead.len() as u64;
        let mut result = Ok(());
        for segment in dead {
            match self.pool.give_back(segment) {
                Ok(reused) => report.segments_reused += u64::from(reused),
                Err(error) => result = Err(error),
            }
        }
        result
    }
}

/// Live rows of a segment.
struct LiveRows {
    metas: Vec<(RegionId, LiveMeta)>,
    pieces: Vec<(RegionId, Piece)>,
}

#[derive(Default)]
struct LiveMeta {
    truncated: Option<(u64, u64)>,
    state: Option<Bytes>,
}

impl LiveRows {
    fn is_empty(&self) -> bool {
        self.metas.is_empty() && self.pieces.is_empty()
    }

    /// Finds rows of segment `seq` worth about `budget` bytes; at least one.
    fn collect(index: &LogIndex, seq: u32, budget: u64) -> Self {
        let used = &index.segments[&seq];
        let mut rows = LiveRows { metas: Vec::new(), pieces: Vec::new() };
        let (mut bytes, mut found) = (0, 0);
        for (region, log) in &index.regions {
            if bytes >= budget || found == used.live_rows {
                break;
            }
            let mut meta = LiveMeta::default();
            if log.has_truncation_in(seq) {
                meta.truncated = Some(log.truncated());
            }
            if log.has_state_in(seq) {
                meta.state = log.state().map(Bytes::copy_from_slice);
            }
            let metas = u64::from(meta.truncated.is_some()) + u64::from(meta.state.is_some());
            if metas > 0 {
                found += metas;
                bytes += 64 + meta.state.as_ref().map_or(0, |state| state.len() as u64);
                rows.metas.push((*region, meta));
            }
            for (at, slot) in log.slots_in(seq) {
                if bytes >= budget {
                    break;
                }
                bytes += 16 + u64::from(slot.len());
                found += 1;
                rows.push(*region, at, *slot, &used.segment);
            }
        }
        rows
    }

    fn push(&mut self, region: RegionId, at: u64, slot: Slot, segment: &Arc<Segment>) {
        if let Some((of, piece)) = self.pieces.last_mut() {
            let follows = *of == region && piece.first + piece.slots.len() as u64 == at;
            if follows && piece.is_near(&slot) {
                piece.slots.push(slot);
                return;
            }
        }
        self.pieces
            .push((region, Piece { segment: segment.clone(), first: at, slots: vec![slot] }));
    }
}

fn damaged(error: ReadError) -> LogError {
    match error {
        ReadError::Damaged { region, index, path, offset } => LogError::Damaged(Box::new(Damage {
            path,
            offset,
            what: "an entry does not have the checksum it was written with",
            positions: (0, 0),
            lost: vec![LostEntries { region, first: index, last: index }],
        })),
        ReadError::Io { path, source } => LogError::Io { what: "read", path, source },
        ReadError::Compacted { .. } | ReadError::Unavailable { .. } => {
            unreachable!("a piece is read by its place, not by its index")
        }
    }
}
