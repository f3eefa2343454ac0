//! Recovery: from the files of a folder to a log that can be written, or to an error that says what
//! is lost.
//!
//! ```text
//!    1. survey    the head of every file; which segments have records; the oldest that is needed
//!    2. replay    the records in order, each checked, into the index
//!    3. the end   a record that never became durable is cut off; the rest is made durable
//! ```
//! Up to step 3 it only reads: a folder that is refused is left as it was found.
//!
//! Replay meets a place where no good record follows. Whether that is the end of the log or damage
//! is decided by what was known to be durable at any later time: each record says up to which
//! position the log was durable when it was written, and so does the head of each segment. If the
//! highest such position is not above the place, nothing from here on was ever durable, so the log
//! ends here. Otherwise something durable is gone. Then replay goes on behind the damage, only to
//! find out what is missing.

use std::path::Path;
use std::sync::{Arc, RwLock};

use base::{Index, RegionId};

use crate::disk::Disk;

use super::error::{Damage, LogError, LostEntries};
use super::index::LogIndex;
use super::pool::{Pool, PoolOptions, Spare};
use super::record::{self, HEAD_LEN, Head};
use super::segment::{FIRST_RECORD, Segment};
use super::survey::{Found, Idle, Survey, each_head};
use super::writer::RaftLog;
use super::{LogOptions, LogStats};

const FIRST: usize = FIRST_RECORD as usize;

/// See [`RaftLog::open`].
pub(super) fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: LogOptions,
) -> Result<RaftLog, LogError> {
    disk.create_dir(dir).map_err(|error| LogError::io("create", dir, error))?;
    let mut survey = Survey::of(&*disk, dir)?;
    let mut replay = Replay::new(survey.vouched);
    let live = std::mem::take(&mut survey.live);
    let end = replay.run(&live)?;
    if let Some(damage) = replay.damage(dir) {
        return Err(LogError::Damaged(Box::new(damage)));
    }
    // What was read may only be in memory, left there by a recovery that did not end.
    for idle in survey.idle.iter().filter(|idle| idle.seq > survey.oldest) {
        idle.file.sync_data().map_err(|error| LogError::io("sync", &idle.path, error))?;
    }
    let pool = Arc::new(fill_pool(disk, dir, options, survey, &replay)?);
    let mut log = match live.last() {
        Some(last) => resume(pool, options, replay, last.segment.clone(), end)?,
        None => begin(pool, options, replay)?,
    };
    match log.vouch() {
        // Not being able to vouch for what is there is no reason to keep anybody from it.
        Ok(()) | Err(LogError::Full { .. }) => Ok(log),
        Err(error) => Err(error),
    }
}

fn fill_pool(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: LogOptions,
    survey: Survey,
    replay: &Replay,
) -> Result<Pool, LogError> {
    let Survey { idle, salt, next_seq, next_name, .. } = survey;
    let (mut spares, mut removed) = (Vec::new(), Vec::new());
    for Idle { path, file, size, .. } in idle {
        if size == options.segment_bytes && spares.len() <= options.spare_segments_max {
            spares.push(Spare { path, file });
        } else {
            removed.push(path);
        }
    }
    let pool = PoolOptions {
        segment_bytes: options.segment_bytes,
        spares_max: options.spare_segments_max,
        salt: salt.unwrap_or(options.salt),
        spares,
        next_seq,
        next_name,
        synced: replay.vouched,
    };
    let pool = Pool::new(disk, dir, pool);
    removed.iter().try_for_each(|path| pool.remove(path))?;
    // Their numbers may be used again from here on: a power loss must not bring them back.
    pool.sync_dir()?;
    Ok(pool)
}

/// A log without records.
fn begin(pool: Arc<Pool>, options: LogOptions, replay: Replay) -> Result<RaftLog, LogError> {
    let active = Arc::new(pool.first()?);
    let oldest = active.seq;
    let mut index = replay.index;
    index.add_segment(active.clone());
    Ok(RaftLog {
        pool,
        index: Arc::new(RwLock::new(index)),
        options,
        active,
        offset: u64::from(FIRST_RECORD),
        position: 0,
        synced: 0,
        rows_end: 0,
        vouched: 0,
        oldest,
        leftover: false,
        buffer: Vec::new(),
        failure: None,
        stats: LogStats::default(),
    })
}

/// A log that goes on behind its last record.
fn resume(
    pool: Arc<Pool>,
    options: LogOptions,
    replay: Replay,
    active: Arc<Segment>,
    end: End,
) -> Result<RaftLog, LogError> {
    let Replay { index, position, vouched, rows_end, oldest, .. } = replay;
    let io = |what, error| LogError::io(what, &active.path, error);
    // Heads behind the end would come back to life once the records before them are written anew.
    for offset in &end.stray {
        active.file.write_at(&[0; HEAD_LEN], *offset).map_err(|error| io("write", error))?;
    }
    active.file.sync_data().map_err(|error| io("sync", error))?;
    pool.set_synced(position);
    assert!(vouched <= position, "the log does not end before what was durable");
    Ok(RaftLog {
        pool,
        index: Arc::new(RwLock::new(index)),
        options,
        active,
        offset: end.offset,
        position,
        synced: position,
        rows_end,
        vouched,
        oldest,
        leftover: false,
        buffer: Vec::new(),
        failure: None,
        stats: LogStats::default(),
    })
}

/// Where the last segment's records end.
struct End {
    offset: u64,
    /// Offsets of heads behind that, of records that are not part of the log.
    stray: Vec<u64>,
}

/// The log as far as it has been read.
struct Replay {
    index: LogIndex,
    position: u64,
    /// The log was durable up to here at some time.
    vouched: u64,
    rows_end: u64,
    oldest: u32,
    found: Option<Damage>,
    /// Entries whose data is not as it was written, and the segment it was in.
    bad: Vec<(RegionId, Index, u32)>,
}

impl Replay {
    fn new(vouched: u64) -> Self {
        let index = LogIndex::default();
        Self { index, position: 0, vouched, rows_end: 0, oldest: 0, found: None, bad: Vec::new() }
    }

    fn run(&mut self, live: &[Found]) -> Result<End, LogError> {
        let mut end = End { offset: FIRST as u64, stray: Vec::new() };
        let mut bytes = Vec::new();
        self.position = live.iter().find_map(|found| found.base).unwrap_or(0);
        self.oldest = live.first().map_or(0, |found| found.segment.seq);
        for (i, found) in live.iter().enumerate() {
            self.index.add_segment(found.segment.clone());
            let next = live[i + 1..].iter().find_map(|found| found.base);
            end = End { offset: FIRST as u64, stray: Vec::new() };
            // Without a base, or with another: the segment was never written, or all its records
            // are unreadable. The next segment's base tells which.
            if let Some(base) = found.base.filter(|base| *base == self.position) {
                found.segment.read(&mut bytes)?;
                end = self.segment(&found.segment, &bytes, base, next);
            }
            if let Some(next) = next.filter(|next| *next != self.position) {
                self.note(&found.segment, end.offset as usize, "records are missing", next);
                self.position = next;
            }
        }
        Ok(end)
    }

    /// Replays a segment up to log position `next`, where the next segment begins, or to its end if
    /// it is the last.
    fn segment(&mut self, segment: &Segment, bytes: &[u8], base: u64, next: Option<u64>) -> End {
        let mut at = FIRST;
        loop {
            // A write that failed may have left a record behind the last one that counts.
            if next == Some(self.position) {
                return End { offset: at as u64, stray: Vec::new() };
            }
            if let Some(len) = self.record(segment, bytes, at) {
                at += len;
                continue;
            }
            let behind =
                at + self.head(segment, bytes, at).map_or(8, |head| head.record_len() as usize);
            let mut later = Vec::new();
            each_head(bytes, behind, segment.seed, Some(base), |at, head| later.push((at, head)));
            let is_end = match next {
                Some(_) => later.is_empty(),
                None => self.vouched <= self.position,
            };
            if is_end {
                let stray = later.iter().map(|(at, _)| *at as u64).collect();
                return End { offset: at as u64, stray };
            }
            let resumed = later.first().map(|(at, head)| (*at, head.start));
            let until = resumed.map_or(0, |(_, start)| start);
            self.note(segment, at, "a record is not as it was written", until);
            self.salvage(segment, bytes, at);
            match resumed {
                Some((offset, start)) => (at, self.position) = (offset, start),
                None => return End { offset: at as u64, stray: Vec::new() },
            }
        }
    }

    /// The head at `at`, if it is that of the next record.
    fn head(&self, segment: &Segment, bytes: &[u8], at: usize) -> Option<Head> {
        let room = (bytes.len() - at) as u64;
        let head = Head::decode(&bytes[at..], room, segment.seed)?;
        (head.start == self.position).then_some(head)
    }

    /// Takes in the record at `at` and returns its length, if there is one and all of it is good.
    fn record(&mut self, segment: &Segment, bytes: &[u8], at: usize) -> Option<usize> {
        let head = self.head(segment, bytes, at)?;
        let record = &bytes[at..];
        let mut all_good = true;
        let readable = record::check_entries(&head, record, |_, _, good| all_good &= good);
        if !readable || !all_good {
            return None;
        }
        self.apply(&head, segment, record, at);
        self.position = head.end();
        if head.meta_len > 0 {
            self.rows_end = self.position;
        }
        self.vouched = self.vouched.max(head.synced);
        Some(head.record_len() as usize)
    }

    fn apply(&mut self, head: &Head, segment: &Segment, record: &[u8], at: usize) {
        let (meta, _) = record::body(head, record);
        let data = at + HEAD_LEN + meta.len();
        self.index.apply(meta, segment.seq, u32::try_from(data).expect("segments are below 4 GiB"));
    }

    /// Takes in the rows of a damaged record, if they are readable, so that what they say is not
    /// counted as lost.
    fn salvage(&mut self, segment: &Segment, bytes: &[u8], at: usize) {
        let Some(head) = self.head(segment, bytes, at) else { return };
        let record = &bytes[at..];
        let mut bad = Vec::new();
        let readable = record::check_entries(&head, record, |region, index, good| {
            if !good {
                bad.push((region, index, segment.seq));
            }
        });
        if readable {
            self.apply(&head, segment, record, at);
            self.bad.append(&mut bad);
        }
    }

    /// Remembers the first damage.
    fn note(&mut self, segment: &Segment, at: usize, what: &'static str, until: u64) {
        let (path, positions) = (segment.path.clone(), (self.position, until));
        let damage = Damage { path, offset: at as u64, what, positions, lost: Vec::new() };
        self.found.get_or_insert(damage);
    }

    /// The damage that was found, with what it costs.
    fn damage(&mut self, dir: &Path) -> Option<Damage> {
        let mut lost = self.index.gaps();
        if self.found.is_none() && lost.is_empty() {
            return None;
        }
        for (region, index, segment) in &self.bad {
            let slot = self.index.regions.get(region).and_then(|log| log.slot(*index));
            if slot.is_some_and(|slot| slot.segment == *segment) {
                lost.push(LostEntries { region: *region, first: *index, last: *index });
            }
        }
        lost.sort_by_key(|lost| (lost.region, lost.first));
        let what = "entries are missing though no record is";
        let path = dir.to_owned();
        let unknown = Damage { path, offset: 0, what, positions: (0, 0), lost: Vec::new() };
        Some(Damage { lost, ..self.found.take().unwrap_or(unknown) })
    }
}
