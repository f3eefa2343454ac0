//! What lies in the folder of a log, before any record is believed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};

use super::error::{Damage, LogError};
use super::pool;
use super::record::{ALIGN, HEAD_LEN, Head};
use super::segment::{Decoded, FIRST_RECORD, FileHead, Segment};

const FIRST: usize = FIRST_RECORD as usize;

/// A segment that recovery has to read.
pub(super) struct Found {
    pub(super) segment: Arc<Segment>,
    /// Log position of its first record; `None` if none of its records has a readable head.
    pub(super) base: Option<u64>,
    /// What its file's head says was durable.
    synced: u64,
    salt: u64,
}

/// A file without anything that is needed.
pub(super) struct Idle {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) size: u64,
    /// Number of the segment it is the file of; 0 if it has no head.
    pub(super) seq: u32,
}

/// The files of a log's folder.
pub(super) struct Survey {
    /// The segments that are needed, oldest first. Empty: a log without records.
    pub(super) live: Vec<Found>,
    pub(super) idle: Vec<Idle>,
    /// The salt of the log; `None` if there is no segment.
    pub(super) salt: Option<u64>,
    /// Number of the oldest segment that is needed.
    pub(super) oldest: u32,
    /// The log was durable up to this position at some time.
    pub(super) vouched: u64,
    /// Higher than the number of any segment there ever was.
    pub(super) next_seq: u32,
    /// Higher than the number in any file's name.
    pub(super) next_name: u64,
}

impl Survey {
    /// Looks at every file of `dir` and finds out which segments are needed. Changes nothing.
    pub(super) fn of(disk: &dyn Disk, dir: &Path) -> Result<Survey, LogError> {
        let mut survey = Survey {
            live: Vec::new(),
            idle: Vec::new(),
            salt: None,
            oldest: 0,
            vouched: 0,
            next_seq: 1,
            next_name: 1,
        };
        let mut segments = survey.open_all(disk, dir)?;
        segments.sort_by_key(|found| found.segment.seq);
        survey.check_heads(&segments)?;
        survey.find_last(&mut segments)?;
        survey.find_live(segments, dir)?;
        Ok(survey)
    }

    fn open_all(&mut self, disk: &dyn Disk, dir: &Path) -> Result<Vec<Found>, LogError> {
        let mut segments = Vec::new();
        let names = disk.list(dir).map_err(|error| LogError::io("list", dir, error))?;
        for name in names {
            let Some(number) = pool::name_number(&name) else { continue };
            self.next_name = self.next_name.max(number.saturating_add(1));
            let path = dir.join(name);
            let io = |what, error| LogError::io(what, &path, error);
            let file = disk.open(&path).map_err(|error| io("open", error))?;
            let size = file.size().map_err(|error| io("measure", error))?;
            let mut start = vec![0; size.min((FIRST + HEAD_LEN) as u64) as usize];
            file.read_at(&mut start, 0).map_err(|error| io("read", error))?;
            match FileHead::decode(&start[..start.len().min(FIRST)], &path)? {
                Decoded::Head(head) => segments.push(Found::new(head, path, file, size, &start)),
                Decoded::Blank => self.add_blank(Idle { path, file, size, seq: 0 })?,
                Decoded::Damaged => return Err(damaged(&path, 0, "the head is unreadable")),
            }
        }
        Ok(segments)
    }

    /// A file whose head was never durable has nothing else either.
    fn add_blank(&mut self, idle: Idle) -> Result<(), LogError> {
        let mut bytes = Vec::new();
        read_whole(&idle.path, &*idle.file, idle.size, &mut bytes)?;
        if bytes.iter().any(|&byte| byte != 0) {
            return Err(damaged(&idle.path, 0, "the head is gone and the rest is not"));
        }
        self.idle.push(idle);
        Ok(())
    }

    fn check_heads(&mut self, segments: &[Found]) -> Result<(), LogError> {
        for (i, found) in segments.iter().enumerate() {
            let path = &found.segment.path;
            if *self.salt.get_or_insert(found.salt) != found.salt {
                return Err(LogError::Foreign { path: path.clone() });
            }
            if i > 0 && segments[i - 1].segment.seq == found.segment.seq {
                return Err(damaged(path, 0, "another file is the same segment"));
            }
            self.vouched = self.vouched.max(found.synced);
            self.next_seq = self.next_seq.max(found.segment.seq.saturating_add(1));
        }
        Ok(())
    }

    /// Finds the last segment with a record, and asks its records which segment is the oldest
    /// needed.
    fn find_last(&mut self, segments: &mut Vec<Found>) -> Result<(), LogError> {
        let mut bytes = Vec::new();
        while let Some(mut found) = segments.pop() {
            found.segment.read(&mut bytes)?;
            each_head(&bytes, FIRST, found.segment.seed, found.base, |at, head| {
                found.base.get_or_insert(head.start - (at - FIRST) as u64);
                self.oldest = self.oldest.max(head.oldest);
                self.vouched = self.vouched.max(head.synced);
            });
            if found.base.is_some() {
                self.live.push(found);
                return Ok(());
            }
            self.idle.push(found.into_idle());
        }
        Ok(())
    }

    /// Sorts the segments before the last into needed ones and others.
    fn find_live(&mut self, mut segments: Vec<Found>, dir: &Path) -> Result<(), LogError> {
        if self.live.is_empty() {
            let was_empty = self.vouched == 0;
            return was_empty.then_some(()).ok_or_else(|| damaged(dir, 0, "all records are gone"));
        }
        let mut bytes = Vec::new();
        while let Some(mut found) = segments.pop() {
            if found.segment.seq < self.oldest {
                self.idle.push(found.into_idle());
                continue;
            }
            if found.base.is_none() {
                found.segment.read(&mut bytes)?;
                each_head(&bytes, FIRST, found.segment.seed, None, |at, head| {
                    found.base.get_or_insert(head.start - (at - FIRST) as u64);
                });
            }
            self.live.push(found);
        }
        self.live.reverse();
        if self.live[0].segment.seq != self.oldest {
            return Err(damaged(dir, 0, "the oldest segment is missing"));
        }
        Ok(())
    }
}

impl Found {
    /// `start` are the file's first bytes, up to behind the head of the first record.
    fn new(
        head: FileHead,
        path: PathBuf,
        file: Arc<dyn DiskFile>,
        size: u64,
        start: &[u8],
    ) -> Self {
        let segment = Segment::new(&head, path, file, size);
        let room = size.saturating_sub(FIRST as u64);
        let first = start.get(FIRST..).and_then(|bytes| Head::decode(bytes, room, segment.seed));
        let base = first.map(|head| head.start);
        Self { segment: Arc::new(segment), base, synced: head.synced, salt: head.salt }
    }

    fn into_idle(self) -> Idle {
        let Segment { path, file, size, seq, .. } = &*self.segment;
        Idle { path: path.clone(), file: file.clone(), size: *size, seq: *seq }
    }
}

impl Segment {
    /// Reads the whole file into `bytes`.
    pub(super) fn read(&self, bytes: &mut Vec<u8>) -> Result<(), LogError> {
        read_whole(&self.path, &*self.file, self.size, bytes)
    }
}

fn read_whole(
    path: &Path,
    file: &dyn DiskFile,
    size: u64,
    bytes: &mut Vec<u8>,
) -> Result<(), LogError> {
    let io = |error| LogError::io("read", path, error);
    let size = usize::try_from(size).map_err(|error| io(io::Error::other(error)))?;
    bytes.resize(size, 0);
    file.read_at(bytes, 0).map_err(io)
}

/// Calls `visit(offset, head)` for every record head in a segment's bytes from `from` on, also
/// behind damage. `base`: log position of the segment's first record, if known.
pub(super) fn each_head(
    bytes: &[u8],
    from: usize,
    seed: u32,
    mut base: Option<u64>,
    mut visit: impl FnMut(usize, Head),
) {
    let mut at = from;
    while at + HEAD_LEN <= bytes.len() {
        let inside = (at - FIRST) as u64;
        let likely = base.is_none_or(|base| Head::start_of(&bytes[at..]) == base + inside);
        let room = (bytes.len() - at) as u64;
        let head = likely.then(|| Head::decode(&bytes[at..], room, seed)).flatten();
        match head.filter(|head| head.start >= inside) {
            Some(head) => {
                base.get_or_insert(head.start - inside);
                visit(at, head);
                at += head.record_len() as usize;
            }
            None => at += ALIGN,
        }
    }
}

/// Damage of which nothing more is known.
pub(super) fn damaged(path: &Path, offset: u64, what: &'static str) -> LogError {
    let (path, positions, lost) = (path.to_owned(), (0, 0), Vec::new());
    LogError::Damaged(Box::new(Damage { path, offset, what, positions, lost }))
}
