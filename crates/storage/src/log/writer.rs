//! The log's one writer.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use base::{Index, RegionId, Term};

use crate::disk::Disk;

use super::batch::{BatchRow, LogBatch};
use super::error::LogError;
use super::index::{LogIndex, RegionLog};
use super::pool::{Pool, Preparer};
use super::reader::LogReader;
use super::record::{self, HEAD_LEN, Head, RECORD_MAX};
use super::recover;
use super::segment::{FIRST_RECORD, MARKER_LEN, Segment};
use super::{LogOptions, LogStats};

/// A write buffer larger than this is given back after the write.
const BUFFER_KEPT: usize = 1 << 20;

/// The raft log of a store, and the only one who may write it. See the module's page.
pub struct RaftLog {
    pub(super) pool: Arc<Pool>,
    pub(super) index: Arc<RwLock<LogIndex>>,
    pub(super) options: LogOptions,
    /// The segment that takes the next record.
    pub(super) active: Arc<Segment>,
    /// Where in it.
    pub(super) offset: u64,
    /// Log position of the next record.
    pub(super) position: u64,
    /// Log position up to which all is durable.
    pub(super) synced: u64,
    /// Log position behind the last record with rows.
    pub(super) rows_end: u64,
    /// The highest `synced` that a record or segment head on the disk states.
    pub(super) vouched: u64,
    /// Number of the oldest segment that is needed.
    pub(super) oldest: u32,
    /// Whether a write failed for lack of space. There may be a whole record at `offset` then,
    /// which does not count.
    pub(super) leftover: bool,
    pub(super) buffer: Vec<u8>,
    pub(super) failure: Option<Failure>,
    pub(super) stats: LogStats,
}

/// Why the log takes no more writes.
pub(super) struct Failure {
    path: PathBuf,
    cause: String,
}

impl RaftLog {
    /// Opens the log in `dir`, or begins one there. All that is recovered is durable when this
    /// returns. The caller makes sure that nobody else has it open.
    ///
    /// Errors: `Damaged`, `Newer`, `Foreign`, `Io`, and `Full` for a new log.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: LogOptions) -> Result<RaftLog, LogError> {
        options.check();
        recover::open(disk, dir, options)
    }

    /// Appends a batch: one write of the file. Readers see it at once; it is durable after the next
    /// [`RaftLog::sync`]. An empty batch writes nothing.
    ///
    /// Errors: `Gap` and `TooLarge` if the batch cannot be written, `Full`; after each of them
    /// nothing has changed. (If the disk was full, a crash before the next write that succeeds may
    /// bring the refused batch back, like any write that was not synced.) `Io` and `Poisoned`: the
    /// log is at its end.
    pub fn write(&mut self, batch: &LogBatch) -> Result<(), LogError> {
        self.refuse_after_failure()?;
        if batch.is_empty() {
            return Ok(());
        }
        let resets = check_batch(&self.index.read().expect(NO_PANIC), batch)?;
        let head = self.write_record(batch, &resets)?;
        self.rows_end = self.position;
        self.stats.entries += batch.entry_count() as u64;
        let data = self.offset - head.record_len() + HEAD_LEN as u64 + u64::from(head.meta_len);
        let meta = &self.buffer[HEAD_LEN..HEAD_LEN + head.meta_len as usize];
        let mut index = self.index.write().expect(NO_PANIC);
        index.apply(meta, self.active.seq, u32::try_from(data).expect("segments are below 4 GiB"));
        drop(index);
        if self.buffer.capacity() > BUFFER_KEPT {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Makes all that was written durable: one `fdatasync`, or nothing if there is nothing to make
    /// durable. Many writes, one sync.
    ///
    /// Errors: `Io` if the sync failed. It is not tried again: from then on every call answers
    /// `Poisoned`.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.refuse_after_failure()?;
        if self.synced == self.position {
            return Ok(());
        }
        self.stats.syncs += 1;
        if let Err(error) = self.active.file.sync_data() {
            return Err(self.fail("sync", error));
        }
        self.synced = self.position;
        self.pool.set_synced(self.synced);
        Ok(())
    }

    /// Writes down that everything synced so far was synced, if no record says so yet: then damage
    /// to the very last records, too, is told from a write that never finished. One small write, no
    /// sync. For when the writer goes idle, and for the end of a clean shutdown (then sync once
    /// more).
    ///
    /// Errors: as [`RaftLog::write`].
    pub fn vouch(&mut self) -> Result<(), LogError> {
        self.refuse_after_failure()?;
        let due = self.vouched < self.rows_end && self.synced >= self.rows_end;
        // The room for the last marker is for purging.
        let fits = self.offset + 2 * MARKER_LEN <= self.active.size;
        if due && fits {
            self.write_record(&LogBatch::new(), &[])?;
        }
        Ok(())
    }

    /// A handle to read the log with, for any thread. It sees all writes.
    pub fn reader(&self) -> LogReader {
        LogReader::new(self.index.clone())
    }

    /// A handle to prepare the next segment with, for a background job.
    pub fn preparer(&self) -> Preparer {
        Preparer { pool: self.pool.clone() }
    }

    /// What the log did since it was opened, and its size now.
    pub fn stats(&self) -> LogStats {
        let index = self.index.read().expect(NO_PANIC);
        let used = index.segments.values();
        LogStats {
            segments: index.segments.len() as u64,
            regions: index.regions.len() as u64,
            live_bytes: used.clone().map(|used| used.live_bytes).sum(),
            disk_bytes: used.map(|used| used.segment.size).sum::<u64>() + self.pool.idle_bytes(),
            ..self.stats
        }
    }

    /// Writes `batch` as one record at the end of the log, in a new segment if need be. The encoded
    /// bytes stay in `buffer`.
    pub(super) fn write_record(
        &mut self,
        batch: &LogBatch,
        resets: &[usize],
    ) -> Result<Head, LogError> {
        let len = batch.byte_size();
        if len > RECORD_MAX {
            return Err(LogError::TooLarge { bytes: len, max: RECORD_MAX });
        }
        self.make_room(len)?;
        let (start, synced, oldest) = (self.position, self.synced, self.oldest);
        let head = Head { meta_crc: 0, meta_len: 0, data_len: 0, start, synced, oldest };
        let head = record::encode(batch, resets, head, self.active.seed, &mut self.buffer);
        assert_eq!(self.buffer.len() as u64, len, "a record has the length it was given room for");
        if let Err(error) = self.active.file.write_at(&self.buffer, self.offset) {
            self.leftover = true;
            return Err(match LogError::io("write", &self.active.path, error) {
                LogError::Io { source, .. } => self.fail("write", source),
                full => full,
            });
        }
        self.offset += len;
        self.position += len;
        self.vouched = self.vouched.max(synced);
        self.stats.writes += 1;
        self.stats.bytes_written += len;
        assert!(self.offset <= self.active.size, "a record ends inside its segment");
        Ok(head)
    }

    /// Goes on to a new segment if a record of `len` bytes does not fit the active one. All of the
    /// old one is durable before anything is written to the new one.
    fn make_room(&mut self, len: u64) -> Result<(), LogError> {
        if self.leftover {
            self.cover_leftover()?;
        }
        let reserve = if len == MARKER_LEN { 0 } else { MARKER_LEN };
        if self.offset + len + reserve <= self.active.size {
            return Ok(());
        }
        let next = Arc::new(self.pool.take(self.active.seq, len)?);
        self.sync()?;
        self.index.write().expect(NO_PANIC).add_segment(next.clone());
        self.active = next;
        self.offset = u64::from(FIRST_RECORD);
        self.stats.segments_begun += 1;
        Ok(())
    }

    /// Puts a record without rows over what a failed write may have left, durably, so that no crash
    /// brings it back once anything was written after it.
    fn cover_leftover(&mut self) -> Result<(), LogError> {
        self.leftover = false;
        if self.offset + MARKER_LEN > self.active.size {
            return Ok(());
        }
        self.write_record(&LogBatch::new(), &[])?;
        self.sync()
    }

    pub(super) fn refuse_after_failure(&self) -> Result<(), LogError> {
        match &self.failure {
            None => Ok(()),
            Some(Failure { path, cause }) => {
                Err(LogError::Poisoned { path: path.clone(), cause: cause.clone() })
            }
        }
    }

    /// Remembers that the log is at its end.
    fn fail(&mut self, what: &'static str, source: std::io::Error) -> LogError {
        let path = self.active.path.clone();
        let cause = format!("could not {what}: {source}");
        self.failure = Some(Failure { path: path.clone(), cause });
        LogError::Io { what, path, source }
    }
}

pub(super) const NO_PANIC: &str = "nobody panics while holding the index";

/// Bounds of a region's log as they will be when the rows before have been written.
struct Bounds {
    truncated: Index,
    last: Index,
    /// Whether a row before appends to the region.
    appended: bool,
}

/// Checks that every append follows its region's log. Returns the numbers of the truncations that
/// empty it, because the entry they name has another term.
fn check_batch(index: &LogIndex, batch: &LogBatch) -> Result<Vec<usize>, LogError> {
    let mut resets = Vec::new();
    // Few regions a batch; the one that is looked for is mostly the last.
    let mut bounds: Vec<(RegionId, Bounds)> = Vec::new();
    for (i, row) in batch.rows().iter().enumerate() {
        match row {
            BatchRow::Append { region, entries, rewritten: false } => {
                let bounds = find(&mut bounds, index, *region);
                let entries = batch.entries(entries);
                let found = entries[0].index;
                if found <= bounds.truncated || found > bounds.last + 1 {
                    let Bounds { truncated, last, .. } = *bounds;
                    return Err(LogError::Gap { region: *region, truncated, last, found });
                }
                bounds.last = found + entries.len() as u64 - 1;
                bounds.appended = true;
            }
            BatchRow::Truncate { region, index: to, term } => {
                let bounds = find(&mut bounds, index, *region);
                if *to <= bounds.truncated {
                    continue;
                }
                let other_term = if bounds.appended {
                    term_before(index, batch, i, *region, *to)
                } else {
                    stored_term(index, *region, *to)
                };
                let reset = *to <= bounds.last && other_term.is_some_and(|other| other != *term);
                bounds.last = if reset { *to } else { bounds.last.max(*to) };
                bounds.truncated = *to;
                resets.extend(reset.then_some(i));
            }
            BatchRow::Remove { region } => {
                *find(&mut bounds, index, *region) =
                    Bounds { truncated: 0, last: 0, appended: false };
            }
            BatchRow::State { .. } | BatchRow::Append { rewritten: true, .. } => {}
        }
    }
    Ok(resets)
}

fn find<'a>(
    bounds: &'a mut Vec<(RegionId, Bounds)>,
    index: &LogIndex,
    region: RegionId,
) -> &'a mut Bounds {
    let at = match bounds.last() {
        Some((last, _)) if *last == region => Ok(bounds.len() - 1),
        _ => bounds.binary_search_by_key(&region, |(region, _)| *region),
    };
    let at = at.unwrap_or_else(|at| {
        let log = index.regions.get(&region);
        let truncated = log.map_or(0, |log| log.truncated().0);
        let last = log.map_or(0, RegionLog::last_index);
        bounds.insert(at, (region, Bounds { truncated, last, appended: false }));
        at
    });
    &mut bounds[at].1
}

fn stored_term(index: &LogIndex, region: RegionId, at: Index) -> Option<Term> {
    Some(index.regions.get(&region)?.slot(at)?.term)
}

/// Term of the entry at `at` when the rows before row `i` have been written.
fn term_before(
    index: &LogIndex,
    batch: &LogBatch,
    i: usize,
    region: RegionId,
    at: Index,
) -> Option<Term> {
    for row in batch.rows()[..i].iter().rev() {
        match row {
            BatchRow::Append { region: of, entries, rewritten: false } if *of == region => {
                let entries = batch.entries(entries);
                let first = entries[0].index;
                if at >= first {
                    return Some(entries.get(usize::try_from(at - first).ok()?)?.term);
                }
            }
            BatchRow::Remove { region: of } if *of == region => return None,
            _ => {}
        }
    }
    stored_term(index, region, at)
}
