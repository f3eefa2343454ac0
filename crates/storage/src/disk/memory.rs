//! A disk in memory that fails on demand.
//!
//! It behaves like the worst disk that [`Disk`] allows and always the same way from the same seed.
//! Each file remembers its writes since the last sync with what they replaced, each folder its
//! changes of names since the last `sync_dir`:
//!
//! ```text
//!    bytes now  ◀── write 3 ◀── write 2 ◀── write 1 ◀── bytes that are safe
//!                  (each with its new and its old bytes)
//!    power_loss(): each sector as it was at any of these times
//! ```
//!
//! [`MemoryDisk::power_loss`] and [`MemoryDisk::kill`] end the process that used the disk: every
//! file opened before answers with an error afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use base::Prng;

use super::{Disk, DiskFile, SECTOR};

/// A disk in memory. Clones are the same disk; [`MemoryDisk::image`] makes another one with the
/// same content.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

/// What was asked of a [`MemoryDisk`] since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Calls of `sync_data`, failed ones too.
    pub syncs: u64,
    /// Calls of `sync_dir`.
    pub dir_syncs: u64,
    /// Calls of `write_at` and `preallocate`.
    pub writes: u64,
    /// Bytes those wrote.
    pub bytes_written: u64,
}

#[derive(Clone, Debug, Default)]
struct State {
    dirs: BTreeSet<PathBuf>,
    /// Names as a running process sees them.
    names: BTreeMap<PathBuf, u64>,
    /// Names as a power loss would leave them if it lost all it may.
    safe_names: BTreeMap<PathBuf, u64>,
    /// How to get from `safe_names` to `names`, oldest first.
    renamings: Vec<Renaming>,
    files: BTreeMap<u64, FileState>,
    next_file: u64,
    /// Grows when the process dies; a handle of an earlier generation is dead.
    generation: u64,
    capacity: Option<u64>,
    syncs_until_failure: Option<u64>,
    write_failure: Option<(u64, io::ErrorKind)>,
    counts: DiskCounts,
}

/// A change of one name: the file it stands for from now on, or none.
#[derive(Clone, Debug)]
struct Renaming {
    path: PathBuf,
    file: Option<u64>,
    /// The second half of a rename goes with the first: they are one step.
    with_previous: bool,
}

#[derive(Clone, Debug, Default)]
struct FileState {
    bytes: Vec<u8>,
    unsynced: Vec<Write>,
    /// How many handles of the living process are open.
    open: u64,
}

#[derive(Clone, Debug)]
struct Write {
    offset: usize,
    new: Vec<u8>,
    /// What `new` replaced; shorter than it if the file became longer.
    old: Vec<u8>,
    size_before: usize,
}

impl MemoryDisk {
    /// An empty disk without a limit.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding the disk")
    }

    /// The machine loses power. Of each file every sector is as it was at some time since the last
    /// sync: all of them at the same time, or each at its own. Of the changes of names since the
    /// last `sync_dir` any number of the last ones are lost.
    pub fn power_loss(&self, prng: &mut Prng) {
        let mut state = self.state();
        for file in state.files.values_mut() {
            file.power_loss(prng);
        }
        let mut kept = prng.below(state.renamings.len() as u64 + 1) as usize;
        let mut renamings = std::mem::take(&mut state.renamings);
        if renamings.get(kept).is_some_and(|renaming| renaming.with_previous) {
            kept -= 1;
        }
        renamings.truncate(kept);
        for renaming in renamings {
            state.safe_names.set(&renaming.path, renaming.file);
        }
        state.names = state.safe_names.clone();
        state.end_of_process();
    }

    /// The process dies, the machine goes on: nothing is lost.
    pub fn kill(&self) {
        self.state().end_of_process();
    }

    /// Another disk with the same content, unsynced writes included. Nothing on it is open.
    pub fn image(&self) -> MemoryDisk {
        let mut state = self.state().clone();
        state.end_of_process();
        MemoryDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// From now on the files together may not become longer than this. `None`: no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Bytes of all files together.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Lets `count` calls of `sync_data` pass and all after them fail.
    pub fn fail_syncs_after(&self, count: u64) {
        self.state().syncs_until_failure = Some(count);
    }

    /// Syncs work again.
    pub fn repair_syncs(&self) {
        self.state().syncs_until_failure = None;
    }

    /// The next write ends after `bytes` bytes, or where the sector before that ends, with an error
    /// of this kind.
    pub fn fail_next_write(&self, bytes: u64, kind: io::ErrorKind) {
        self.state().write_failure = Some((bytes, kind));
    }

    /// What was asked of the disk so far.
    pub fn counts(&self) -> DiskCounts {
        self.state().counts
    }

    /// The bytes of a file, as a process would read them. `None` if there is no such file.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.files[state.names.get(path)?].bytes.clone())
    }

    /// Flips one bit of a file, on the disk itself: no sync brings it back. `bit` counts from the
    /// file's start and must lie inside it.
    pub fn flip_bit(&self, path: &Path, bit: u64) {
        let (at, mask) = ((bit / 8) as usize, 1 << (bit % 8));
        self.damage(path, |bytes| bytes[at] ^= mask);
    }

    /// Cuts a file to `size` bytes, on the disk itself.
    pub fn cut(&self, path: &Path, size: u64) {
        self.damage(path, |bytes| bytes.truncate(size as usize));
    }

    /// Fills a part of a file with zeros, on the disk itself. The part must lie inside the file.
    pub fn erase(&self, path: &Path, offset: u64, len: u64) {
        self.damage(path, |bytes| bytes[offset as usize..(offset + len) as usize].fill(0));
    }

    fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let id = *state.names.get(path).expect("the file to damage exists");
        let file = state.files.get_mut(&id).expect("a name stands for a file");
        file.unsynced.clear();
        change(&mut file.bytes);
    }
}

trait Names {
    fn set(&mut self, path: &Path, file: Option<u64>);
}

impl Names for BTreeMap<PathBuf, u64> {
    fn set(&mut self, path: &Path, file: Option<u64>) {
        match file {
            Some(file) => self.insert(path.to_owned(), file),
            None => self.remove(path),
        };
    }
}

impl State {
    /// What a file system counts: files that have a name or are open.
    fn used(&self) -> u64 {
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        let counted = self.files.iter().filter(|(id, file)| file.open > 0 || named.contains(id));
        counted.map(|(_, file)| file.bytes.len() as u64).sum()
    }

    fn rename(&mut self, path: &Path, file: Option<u64>, with_previous: bool) {
        let before = self.names.get(path).copied();
        self.names.set(path, file);
        self.renamings.push(Renaming { path: path.to_owned(), file, with_previous });
        self.free(before);
    }

    /// Nothing is open any more.
    fn end_of_process(&mut self) {
        self.generation += 1;
        self.files.values_mut().for_each(|file| file.open = 0);
        for id in self.files.keys().copied().collect::<Vec<u64>>() {
            self.free(Some(id));
        }
    }

    /// Frees a file that is not open and to which no name leads, before or after a power loss.
    fn free(&mut self, id: Option<u64>) {
        let Some(id) = id else { return };
        let mut named = self.names.values().chain(self.safe_names.values());
        let renamed = self.renamings.iter().any(|renaming| renaming.file == Some(id));
        if self.files[&id].open == 0 && !renamed && !named.any(|named| *named == id) {
            self.files.remove(&id);
        }
    }

    fn handle(&mut self, disk: &MemoryDisk, id: u64) -> Arc<dyn DiskFile> {
        file(self, id).open += 1;
        Arc::new(MemoryFile { disk: disk.clone(), id, generation: self.generation })
    }

    /// How much of a write of `len` bytes at `offset` of a file of `size` bytes can be done, and
    /// what comes then.
    fn permit(&mut self, offset: u64, len: u64, size: u64) -> (u64, io::Result<()>) {
        self.counts.writes += 1;
        // A write that fails ends where a sector does.
        let whole = |bytes: u64| ((offset + bytes) / SECTOR * SECTOR).saturating_sub(offset);
        if let Some((bytes, kind)) = self.write_failure.take() {
            let done = if bytes < len { whole(bytes) } else { len };
            return (done, Err(io::Error::new(kind, "injected write failure")));
        }
        let room = self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()));
        let grown = (offset + len).saturating_sub(size);
        if grown > room {
            let full = io::Error::new(io::ErrorKind::StorageFull, "the disk in memory is full");
            return (whole(len - (grown - room).min(len)), Err(full));
        }
        (len, Ok(()))
    }
}

impl FileState {
    fn write(&mut self, data: &[u8], offset: usize) {
        if data.is_empty() {
            return;
        }
        let size_before = self.bytes.len();
        let end = offset + data.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let old = self.bytes[offset.min(size_before)..end.min(size_before)].to_vec();
        self.bytes[offset..end].copy_from_slice(data);
        self.unsynced.push(Write { offset, new: data.to_vec(), old, size_before });
    }

    fn power_loss(&mut self, prng: &mut Prng) {
        let writes = std::mem::take(&mut self.unsynced);
        for write in writes.iter().rev() {
            let start = write.offset.min(write.size_before);
            self.bytes[start..start + write.old.len()].copy_from_slice(&write.old);
            self.bytes.truncate(write.size_before);
        }
        // Each sector is as it was after some of the writes: those before its point in time.
        let (mode, all) = (prng.below(4), writes.len() as u64);
        let (time, boundary) = (prng.below(all + 1), prng.below(self.sectors_after(&writes) + 1));
        let mut times = BTreeMap::new();
        for (i, write) in (0..).zip(&writes) {
            for part in write.sectors() {
                let sector = (write.offset + part.start) as u64 / SECTOR;
                let until = *times.entry(sector).or_insert_with(|| match mode {
                    0 => 0,
                    1 => all,
                    2 => time + u64::from(sector < boundary),
                    _ => prng.below(all + 1),
                });
                if i < until {
                    self.put(write, part);
                }
            }
        }
    }

    /// How many sectors the file has after these writes.
    fn sectors_after(&self, writes: &[Write]) -> u64 {
        let end = writes.iter().map(|write| write.offset + write.new.len()).max().unwrap_or(0);
        (end.max(self.bytes.len()) as u64).div_ceil(SECTOR)
    }

    /// Does a part of a write again.
    fn put(&mut self, write: &Write, part: std::ops::Range<usize>) {
        let (start, end) = (write.offset + part.start, write.offset + part.end);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(&write.new[part]);
    }
}

impl Write {
    /// The write's bytes, cut where the file's sectors begin.
    fn sectors(&self) -> Vec<std::ops::Range<usize>> {
        let sector = SECTOR as usize;
        let mut parts = Vec::new();
        let mut start = 0;
        while start < self.new.len() {
            let end = ((self.offset + start) / sector + 1) * sector - self.offset;
            parts.push(start..end.min(self.new.len()));
            start = end;
        }
        parts
    }
}

impl Disk for MemoryDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.state().dirs.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_owned());
        Ok(inside.filter_map(name).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        if !path.parent().is_some_and(|dir| state.dirs.contains(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.next_file;
        state.next_file += 1;
        state.files.insert(id, FileState::default());
        state.rename(path, Some(id), false);
        Ok(state.handle(self, id))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let id = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.handle(self, id))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        assert_eq!(from.parent(), to.parent(), "a file is renamed within its folder");
        let mut state = self.state();
        let id = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.rename(from, None, false);
        state.rename(to, Some(id), true);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.rename(path, None, false);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.counts.dir_syncs += 1;
        if !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut freed = BTreeSet::new();
        for renaming in std::mem::take(&mut state.renamings) {
            if renaming.path.parent() == Some(dir) {
                let before = state.safe_names.get(&renaming.path).copied();
                state.safe_names.set(&renaming.path, renaming.file);
                freed.extend([before, renaming.file].into_iter().flatten());
            } else {
                state.renamings.push(renaming);
            }
        }
        freed.into_iter().for_each(|id| state.free(Some(id)));
        Ok(())
    }

    fn available(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.state();
        Ok(state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used())))
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    id: u64,
    generation: u64,
}

impl MemoryFile {
    /// The disk, if the process that opened this file still lives.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.generation != self.generation {
            return Err(io::Error::other("the process that opened this file is dead"));
        }
        Ok(state)
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state() {
            file(&mut state, self.id).open -= 1;
            state.free(Some(self.id));
        }
    }
}

fn file(state: &mut State, id: u64) -> &mut FileState {
    state.files.get_mut(&id).expect("files are freed only when nothing is open")
}

impl DiskFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(file(&mut *self.state()?, self.id).bytes.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.state()?;
        let bytes = &file(&mut state, self.id).bytes;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let wanted = start.checked_add(buf.len()).and_then(|end| bytes.get(start..end));
        buf.copy_from_slice(wanted.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state()?;
        let len = data.len() as u64;
        let size = file(&mut state, self.id).bytes.len() as u64;
        let (done, result) = state.permit(offset, len, size);
        file(&mut state, self.id).write(&data[..done as usize], offset as usize);
        state.counts.bytes_written += done;
        result
    }

    fn preallocate(&self, size: u64) -> io::Result<()> {
        let now = self.size()?;
        if now < size {
            self.write_at(&vec![0; (size - now) as usize], now)?;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.counts.syncs += 1;
        if state.syncs_until_failure == Some(0) {
            return Err(io::Error::other("injected sync failure"));
        }
        state.syncs_until_failure = state.syncs_until_failure.map(|left| left - 1);
        file(&mut state, self.id).unsynced.clear();
        Ok(())
    }
}
