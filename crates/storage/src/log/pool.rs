//! Where new segments come from: files are prepared ahead and used again.
//!
//! ```text
//!            prepare(), in the background                         take(), the log writer
//!    spares ──────────────▶ head with a new number, fdatasync ──▶ ready ──────────────▶ active
//!      ▲                    (no spare: a new file of zeros)
//!      └────────────────────────────────────────────────────────────────────── purge ◀── dead
//! ```
//! The writer takes what is ready, and then only has to sync the segment it leaves. If nothing is
//! ready it does the work itself, or waits for the job that is doing it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::{Disk, DiskFile};

use super::error::LogError;
use super::segment::{FIRST_RECORD, FileHead, MARKER_LEN, Segment};

const SUFFIX: &str = ".raftlog";
/// Segments of an unusual length are a multiple of this long.
const UNIT: u64 = 4096;
/// Length of a new log's first segment: short, because the start of a new store waits for it.
const FIRST_BYTES: u64 = 1 << 20;

/// A file of the right length that belongs to no segment.
pub(super) struct Spare {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
}

/// The supply of segments of a log.
pub(super) struct Pool {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    spares_max: usize,
    salt: u64,
    /// Log position up to which all is durable; goes into the heads of new segments.
    synced: AtomicU64,
    stock: Mutex<Stock>,
    /// Held while a segment is being prepared, so that two never are at once.
    preparing: Mutex<()>,
}

struct Stock {
    ready: Option<Segment>,
    spares: Vec<Spare>,
    next_seq: u32,
    next_name: u64,
}

/// How a [`Pool`] starts.
pub(super) struct PoolOptions {
    pub(super) segment_bytes: u64,
    pub(super) spares_max: usize,
    pub(super) salt: u64,
    pub(super) spares: Vec<Spare>,
    pub(super) next_seq: u32,
    pub(super) next_name: u64,
    pub(super) synced: u64,
}

/// The number in the name of a segment's file; `None` for files that are none.
pub(super) fn name_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

impl Pool {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path, options: PoolOptions) -> Self {
        assert!(options.next_seq > 0, "segments are numbered from one");
        let PoolOptions { segment_bytes, spares_max, salt, spares, next_seq, next_name, synced } =
            options;
        let stock = Mutex::new(Stock { ready: None, spares, next_seq, next_name });
        let (dir, synced) = (dir.to_owned(), AtomicU64::new(synced));
        Self {
            disk,
            dir,
            segment_bytes,
            spares_max,
            salt,
            synced,
            stock,
            preparing: Mutex::new(()),
        }
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().expect("nobody panics while holding the stock")
    }

    /// All records before `position` are durable.
    pub(super) fn set_synced(&self, position: u64) {
        self.synced.store(position, Ordering::Release);
    }

    /// The largest record for a usual segment.
    fn capacity(&self) -> u64 {
        self.segment_bytes - u64::from(FIRST_RECORD) - MARKER_LEN
    }

    /// Bytes of the files that no segment of the log uses now.
    pub(super) fn idle_bytes(&self) -> u64 {
        let stock = self.stock();
        (stock.spares.len() + usize::from(stock.ready.is_some())) as u64 * self.segment_bytes
    }

    /// An empty segment numbered above `after`, with room for a record of `len` bytes, its head
    /// durable.
    pub(super) fn take(&self, after: u32, len: u64) -> Result<Segment, LogError> {
        if len > self.capacity() {
            return self.large(len);
        }
        if let Some(segment) = self.take_ready(after) {
            return Ok(segment);
        }
        let _preparing = self.preparing.lock().expect("nobody panics while preparing");
        match self.take_ready(after) {
            Some(segment) => Ok(segment),
            None => self.build(),
        }
    }

    /// The first segment of a new log.
    pub(super) fn first(&self) -> Result<Segment, LogError> {
        let size = FIRST_BYTES.min(self.segment_bytes);
        self.large(size - u64::from(FIRST_RECORD) - MARKER_LEN)
    }

    fn take_ready(&self, after: u32) -> Option<Segment> {
        let mut stock = self.stock();
        let ready = stock.ready.take()?;
        if ready.seq > after {
            return Some(ready);
        }
        // A large segment overtook it: its number is too low now.
        stock.spares.push(Spare { path: ready.path, file: ready.file });
        None
    }

    fn prepare(&self) -> Result<(), LogError> {
        let _preparing = self.preparing.lock().expect("nobody panics while preparing");
        if self.stock().ready.is_none() {
            let segment = self.build()?;
            self.stock().ready = Some(segment);
        }
        Ok(())
    }

    /// Makes a segment of a spare or of a new file. The caller holds `preparing`.
    fn build(&self) -> Result<Segment, LogError> {
        let spare = self.stock().spares.pop();
        let (spare, is_new) = match spare {
            Some(spare) => (spare, false),
            None => (self.create()?, true),
        };
        let built = self.fill(&spare, is_new);
        if built.is_err() {
            // Best effort: a file left behind has no records and is found at the next start.
            let _ = self.disk.remove(&spare.path);
        }
        let head = built?;
        Ok(Segment::new(&head, spare.path, spare.file, self.segment_bytes))
    }

    fn fill(&self, spare: &Spare, is_new: bool) -> Result<FileHead, LogError> {
        let Spare { path, file } = spare;
        let io = |what, source| LogError::io(what, path, source);
        let head = self.next_head();
        if is_new {
            file.preallocate(self.segment_bytes).map_err(|error| io("preallocate", error))?;
        }
        file.write_at(&head.encode(), 0).map_err(|error| io("write", error))?;
        file.sync_data().map_err(|error| io("sync", error))?;
        if is_new {
            self.sync_dir()?;
        }
        Ok(head)
    }

    /// A segment of just the length for records of `len` bytes.
    fn large(&self, len: u64) -> Result<Segment, LogError> {
        let Spare { path, file } = self.create()?;
        let head = self.next_head();
        let size = (u64::from(FIRST_RECORD) + len + MARKER_LEN).next_multiple_of(UNIT);
        let written = file
            .preallocate(size)
            .and_then(|()| file.write_at(&head.encode(), 0))
            .and_then(|()| file.sync_data())
            .map_err(|error| LogError::io("preallocate", &path, error))
            .and_then(|()| self.sync_dir());
        if let Err(error) = written {
            let _ = self.disk.remove(&path);
            return Err(error);
        }
        Ok(Segment::new(&head, path, file, size))
    }

    fn create(&self) -> Result<Spare, LogError> {
        let number = {
            let mut stock = self.stock();
            stock.next_name += 1;
            stock.next_name - 1
        };
        let path = self.dir.join(format!("{number:08}{SUFFIX}"));
        let file = self.disk.create(&path).map_err(|error| LogError::io("create", &path, error))?;
        Ok(Spare { path, file })
    }

    fn next_head(&self) -> FileHead {
        let mut stock = self.stock();
        let seq = stock.next_seq;
        stock.next_seq = seq.checked_add(1).expect("a log has less than 2^32 segments in its life");
        FileHead { salt: self.salt, seq, synced: self.synced.load(Ordering::Acquire) }
    }

    /// Makes it durable which files there are.
    pub(super) fn sync_dir(&self) -> Result<(), LogError> {
        self.disk.sync_dir(&self.dir).map_err(|error| LogError::io("sync", &self.dir, error))
    }

    /// Takes back the file of a dead segment. Returns whether it will be used again; otherwise it
    /// is removed, and whoever still reads it can go on.
    pub(super) fn give_back(&self, segment: Arc<Segment>) -> Result<bool, LogError> {
        let fits = segment.size == self.segment_bytes;
        match Arc::try_unwrap(segment) {
            // Nobody can read it any more.
            Ok(Segment { path, file, .. }) => {
                let mut stock = self.stock();
                if fits && stock.spares.len() < self.spares_max {
                    stock.spares.push(Spare { path, file });
                    return Ok(true);
                }
                drop(stock);
                self.remove(&path)?;
            }
            Err(segment) => self.remove(&segment.path)?,
        }
        Ok(false)
    }

    /// Removes a file that holds nothing of the log.
    pub(super) fn remove(&self, path: &Path) -> Result<(), LogError> {
        self.disk.remove(path).map_err(|error| LogError::io("remove", path, error))
    }
}

/// Prepares the next segment beside the log writer, so that the writer need not wait for it. Cheap
/// to clone.
#[derive(Clone)]
pub struct Preparer {
    pub(super) pool: Arc<Pool>,
}

impl Preparer {
    /// Whether [`Preparer::prepare`] has anything to do. Costs next to nothing: ask after every
    /// write.
    pub fn is_needed(&self) -> bool {
        self.pool.stock().ready.is_none()
    }

    /// Makes the next segment ready if none is: some megabytes of zeros and a sync, or only a sync
    /// if a purged file can be used again. The log goes on meanwhile.
    ///
    /// Errors: `Full`, `Io`; nothing is lost by them, the writer will try for itself when it needs
    /// the segment.
    pub fn prepare(&self) -> Result<(), LogError> {
        self.pool.prepare()
    }
}
