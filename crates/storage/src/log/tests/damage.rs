//! Damage: every byte cut, every byte flipped, files gone. What was durable comes back or the log
//! refuses to open.

use super::*;

/// A small log over several segments, with the model after each write.
struct Sample {
    disk: MemoryDisk,
    /// The model after each write, and the file and offset where the write's record ends.
    history: Vec<(Model, PathBuf, u64)>,
}

impl Sample {
    /// `plan`: how many writes before each sync; those after the last one are not synced.
    fn new(plan: &[u64]) -> Self {
        let disk = MemoryDisk::new();
        let mut log = open(&disk, small()).unwrap();
        let at = |log: &RaftLog| (log.active.path.clone(), log.offset);
        let (path, offset) = at(&log);
        let mut history = vec![(Model::default(), path, offset)];
        let mut next = 1;
        for (i, writes) in plan.iter().enumerate() {
            for _ in 0..*writes {
                let changes = [
                    Change::Append(R1, entries(next, next + 1, 3, 60)),
                    Change::State(R1, Bytes::from(vec![next as u8; 30])),
                    Change::Append(R2, vec![entry(next, 2, 90)]),
                    Change::Append(R2, vec![entry(next + 1, 2, 0)]),
                ];
                next += 2;
                let mut model = history.last().unwrap().0.clone();
                model.apply(&changes);
                log.write(&batch(&changes)).unwrap();
                let (path, offset) = at(&log);
                history.push((model, path, offset));
            }
            if i + 1 < plan.len() {
                log.sync().unwrap();
            }
        }
        disk.kill();
        Sample { disk, history }
    }

    fn position(&self, model: &Model) -> Option<usize> {
        self.history.iter().position(|(at, ..)| at == model)
    }
}

/// Opens a copy of the disk that `change` was done to. Whatever it holds then can be written and
/// opened again.
fn after(sample: &Sample, change: impl FnOnce(&MemoryDisk)) -> Result<Model, LogError> {
    let disk = sample.disk.image();
    change(&disk);
    let mut log = open(&disk, small())?;
    let mut model = Model::of(&log.reader());
    let found = model.clone();
    let next = model.regions.get(&R1).map_or(1, |log| log.last() + 1);
    // Records as long as those that may have been cut off.
    for index in next..next + 2 {
        let changes = [Change::Append(R1, vec![entry(index, 9, 300)])];
        model.apply(&changes);
        log.write(&batch(&changes)).unwrap();
    }
    disk.kill();
    assert_eq!(Model::of(&open(&disk, small()).unwrap().reader()), model);
    Ok(found)
}

/// A file that ends anywhere in what was never synced: exactly the whole records before that are
/// there.
#[test]
fn cut_at_every_byte_of_the_last_batches() {
    let sample = Sample::new(&[2, 2, 0, 1, 3]);
    let (_, path, end) = sample.history.last().unwrap();
    let synced = sample.history.len() - 1 - 3;
    assert_eq!(&sample.history[synced].1, path, "the last writes are in one segment");
    for size in sample.history[synced].2..=*end {
        let found = after(&sample, |disk| disk.cut(path, size)).unwrap();
        let whole = sample.history.iter().rposition(|(_, at, end)| at == path && *end <= size);
        assert_eq!(sample.position(&found), whole, "cut at {size}");
    }
}

/// The same, with zeros or with old bytes where the rest was.
#[test]
fn a_torn_write_at_every_sector() {
    let sample = Sample::new(&[2, 4, 5]);
    let (_, path, end) = sample.history.last().unwrap();
    let synced = sample.history.len() - 1 - 5;
    let start = sample.history[synced].2;
    for offset in (start..*end).step_by(64) {
        let len = 64.min(end - offset);
        let found = after(&sample, |disk| disk.erase(path, offset, len)).unwrap();
        let whole = sample.history.iter().rposition(|(_, at, end)| at == path && *end <= offset);
        let position = sample.position(&found).unwrap();
        // Zeros may be written over zeros: then nothing is torn.
        assert!(position >= whole.unwrap() && position >= synced, "erased at {offset}");
    }
}

/// Records that were cut off with a torn one before them stay away when a new record ends exactly
/// where one of them begins.
#[test]
fn what_was_cut_off_does_not_come_back() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, small()).unwrap();
    let mut ends = Vec::new();
    for index in 1..=6 {
        let one = batch(&[Change::Append(R1, vec![entry(index, 1, 139)])]);
        log.write(&one).unwrap();
        ends.push(log.offset);
    }
    disk.kill();
    let path = files(&disk)[0].clone();
    disk.erase(&path, ends[2], 40);
    let mut log = open(&disk, small()).unwrap();
    assert_eq!(log.reader().last_index(R1), 3);
    // Opening vouched for what it found; that and this record are as long as the torn one was.
    log.write(&batch(&[Change::Append(R1, vec![entry(4, 2, 99)])])).unwrap();
    assert_eq!(log.offset, ends[3]);
    disk.kill();
    let log = open(&disk, small()).unwrap();
    assert_eq!(log.reader().last_index(R1), 4);
    assert_eq!(log.reader().entries(R1, 4, 5, 0).unwrap(), [entry(4, 2, 99)]);
}

/// What must refuse: a byte of a record, or of a segment's head, that is known to have been
/// durable.
fn is_refusal(error: &LogError) -> bool {
    let text = error.to_string();
    let named = text.contains("/store/raft-log");
    named
        && matches!(
            error,
            LogError::Damaged { .. } | LogError::Newer { .. } | LogError::Foreign { .. }
        )
}

/// The log ended without vouching: a flip in what only the last sync made durable looks like a torn
/// write, everything before is found.
#[test]
fn flip_every_byte() {
    let sample = Sample::new(&[3, 3, 2, 0, 3, 4, 2]);
    // The last writes carry what the last sync made durable; so do all before them.
    let vouched = sample.history.len() - 1 - 2;
    let (mut refused, mut same, mut shorter) = (0, 0, 0);
    for path in files(&sample.disk) {
        for byte in 0..sample.disk.contents(&path).unwrap().len() as u64 {
            match after(&sample, |disk| disk.flip_bit(&path, byte * 8 + byte % 8)) {
                Err(error) => {
                    assert!(is_refusal(&error), "{} byte {byte}: {error}", path.display());
                    refused += 1;
                }
                Ok(found) => match sample.position(&found) {
                    Some(at) if at == sample.history.len() - 1 => same += 1,
                    Some(at) => {
                        assert!(at >= vouched, "{} byte {byte}: back to {at}", path.display());
                        shorter += 1;
                    }
                    None => panic!("{} byte {byte}: no prefix", path.display()),
                },
            }
        }
    }
    // The two unsynced writes can be lost, the rest of the records cannot, the rest of the files
    // does not matter.
    let record = batch(&[]).byte_size() + 400;
    assert!(shorter > 0 && shorter <= 2 * record, "{shorter}");
    assert!(refused > 14 * 300 && same > 1000, "{refused} refused, {same} the same");
}

/// After a clean shutdown every flip is found or costs nothing.
#[test]
fn flip_every_byte_of_a_log_that_vouched() {
    let mut sample = Sample::new(&[3, 3, 0, 2]);
    let mut log = open(&sample.disk, small()).unwrap();
    log.sync().unwrap();
    log.vouch().unwrap();
    let end = (log.active.path.clone(), log.offset);
    let last = sample.history.last_mut().unwrap();
    let last_record = (last.1.clone(), last.2);
    sample.disk.kill();
    for path in files(&sample.disk) {
        for byte in 0..sample.disk.contents(&path).unwrap().len() as u64 {
            match after(&sample, |disk| disk.flip_bit(&path, byte * 8 + byte % 8)) {
                Err(error) => {
                    assert!(is_refusal(&error), "{} byte {byte}: {error}", path.display())
                }
                Ok(found) => {
                    assert_eq!(sample.position(&found), Some(sample.history.len() - 1));
                    let in_records = path == end.0 && (512..last_record.1).contains(&byte);
                    let padding =
                        sample.history.iter().any(|(_, _, end)| (end - 7..*end).contains(&byte));
                    assert!(!in_records || padding, "{} byte {byte}", path.display());
                }
            }
        }
    }
}

#[test]
fn damage_names_file_offset_and_entries() {
    let sample = Sample::new(&[4, 4, 2]);
    let (_, path, offset) = sample.history[1].clone();
    // The data of one entry: that entry is known to be lost and no other.
    let data = offset + 40 + 2 * 21 + 53 + 43 + 21 + 16 + 16;
    let flipped = |byte: u64| match after(&sample, |disk| disk.flip_bit(&path, byte * 8)) {
        Err(LogError::Damaged(damage)) => damage,
        other => panic!("{other:?}"),
    };
    let damage = flipped(data);
    assert_eq!((&damage.path, damage.offset), (&path, offset));
    assert_eq!(damage.lost.len(), 1, "{damage}");
    assert_eq!((damage.lost[0].first, damage.lost[0].last), (3, 3), "{damage}");
    assert!(damage.to_string().contains("region 1 entries 3 to 3"), "{damage}");
    // The head of the record: all its entries.
    let damage = flipped(offset + 9);
    let lost: Vec<_> =
        damage.lost.iter().map(|lost| (lost.region, lost.first, lost.last)).collect();
    assert_eq!(lost, [(R1, 3, 4), (R2, 3, 4)]);
    let text = damage.to_string();
    assert!(text.contains("00000001.raftlog at byte") && text.contains("region 2 entries 3 to 4"));
}

#[test]
fn missing_files_are_missed() {
    let mut sample = Sample::new(&[9, 9, 9, 9, 0]);
    let all = files(&sample.disk);
    let (newest, older) = all.split_last().unwrap();
    assert!(older.len() >= 3);
    for path in older {
        let size = sample.disk.contents(path).unwrap().len() as u64;
        let refused = |change: &dyn Fn(&MemoryDisk)| {
            let error = after(&sample, change).map(|_| ()).unwrap_err();
            assert!(is_refusal(&error), "{}: {error}", path.display());
        };
        refused(&|disk| disk.remove(path).unwrap());
        refused(&|disk| disk.cut(path, 0));
        refused(&|disk| disk.cut(path, 512));
        refused(&|disk| disk.erase(path, 0, size));
    }
    // Nothing older knows of the newest: as if it had never been written.
    let found = after(&sample, |disk| disk.remove(newest).unwrap()).unwrap();
    let before = sample.history.iter().rposition(|(_, path, _)| path != newest);
    assert_eq!(sample.position(&found), before);
    // A file that is only prepared is none of the log's.
    let mut log = open(&sample.disk, small()).unwrap();
    log.preparer().prepare().unwrap();
    log.sync().unwrap();
    log.vouch().unwrap();
    sample.disk.kill();
    let spare = files(&sample.disk).pop().unwrap();
    let found = after(&sample, |disk| disk.remove(&spare).unwrap()).unwrap();
    assert_eq!(sample.position(&found), Some(sample.history.len() - 1));
    // All but the prepared one: its head remembers that there was something.
    let error = after(&sample, |disk| all.iter().for_each(|path| disk.remove(path).unwrap()));
    assert!(is_refusal(&error.unwrap_err()));
    sample.disk = MemoryDisk::new();
    assert_eq!(after(&sample, |_| {}).unwrap(), Model::default());
}

#[test]
fn files_of_another_log_or_version_are_refused() {
    let sample = Sample::new(&[9, 9]);
    let other = MemoryDisk::new();
    let mut log = open(&other, LogOptions { salt: 78, ..small() }).unwrap();
    log.write(&batch(&[Change::Append(R1, entries(1, 30, 1, 300))])).unwrap();
    let plant = |disk: &MemoryDisk, name: &str, bytes: &[u8]| {
        disk.create(&dir().join(name)).unwrap().write_at(bytes, 0).unwrap();
    };
    let foreign = other.contents(&files(&other)[0]).unwrap();
    let error = after(&sample, |disk| plant(disk, "00000099.raftlog", &foreign)).unwrap_err();
    assert!(matches!(error, LogError::Foreign { .. }), "{error}");

    let own = sample.disk.contents(&files(&sample.disk)[0]).unwrap();
    let error = after(&sample, |disk| plant(disk, "00000099.raftlog", &own)).unwrap_err();
    assert!(matches!(error, LogError::Damaged { .. }), "a copy of a segment: {error}");

    let mut newer = own.clone();
    newer[12] = 2;
    let crc = crc32fast::hash(&newer[12..64]);
    newer[8..12].copy_from_slice(&crc.to_le_bytes());
    let error = after(&sample, |disk| plant(disk, "00000099.raftlog", &newer)).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, LogError::Newer { found: 2, known: 1, .. }), "{error}");
    assert!(text.contains("00000099.raftlog has format 2") && text.contains("up to 1"), "{text}");

    // What is no segment's name is nobody's business.
    let found = after(&sample, |disk| plant(disk, "LOCK", b"17")).unwrap();
    assert_eq!(sample.position(&found), Some(sample.history.len() - 1));
}

/// A folder that is refused is left as it was.
#[test]
fn a_refusal_changes_nothing() {
    let sample = Sample::new(&[9, 9, 2]);
    let disk = sample.disk.image();
    disk.flip_bit(&files(&disk)[0], 700 * 8);
    let before: Vec<_> = files(&disk).iter().map(|path| disk.contents(path)).collect();
    let counts = disk.counts();
    for _ in 0..2 {
        assert!(open(&disk, small()).is_err());
    }
    let after: Vec<_> = files(&disk).iter().map(|path| disk.contents(path)).collect();
    assert!(before == after);
    assert_eq!(disk.counts(), counts);
}

/// Damage that appears while the log is open is found when the entry is read, or has to be written
/// again.
#[test]
fn reading_checks_every_entry() {
    let disk = MemoryDisk::new();
    let mut log = open(&disk, small()).unwrap();
    log.write(&batch(&[Change::Append(R2, vec![entry(1, 1, 100)])])).unwrap();
    let data = log.offset - 50;
    disk.flip_bit(&files(&disk)[0], data * 8);
    let error = log.reader().entries(R2, 1, 2, u64::MAX).unwrap_err();
    assert!(
        matches!(error, crate::log::ReadError::Damaged { region: R2, index: 1, .. }),
        "{error}"
    );
    for index in 1..=100 {
        log.write(&batch(&[Change::Append(R1, vec![entry(index, 1, 200)])])).unwrap();
    }
    log.write(&batch(&[Change::Truncate(R1, 100, 1)])).unwrap();
    let error = log.purge().unwrap_err();
    assert!(matches!(error, LogError::Damaged { .. }), "{error}");
    log.write(&batch(&[Change::Remove(R2)])).unwrap();
    assert!(log.purge().unwrap().segments_dropped > 0);
}

/// Random flips in random logs: refused, or a prefix; never a panic.
#[test]
fn random_damage() {
    for seed in 0..3_000 {
        let mut prng = Prng::new(seed);
        let plan: Vec<u64> = (0..1 + prng.below(6)).map(|_| prng.below(12)).collect();
        let sample = Sample::new(&plan);
        let all = files(&sample.disk);
        let result = after(&sample, |disk| {
            for _ in 0..=prng.below(3) {
                let path = &all[prng.below(all.len() as u64) as usize];
                let size = disk.contents(path).unwrap().len() as u64;
                match prng.below(4) {
                    0 => disk.cut(path, prng.below(size + 1)),
                    1 if size > 600 => disk.erase(path, prng.below(size - 600), 600),
                    _ if size > 0 => disk.flip_bit(path, prng.below(size * 8)),
                    _ => {}
                }
            }
        });
        match result {
            Ok(found) => assert!(sample.position(&found).is_some(), "seed {seed}"),
            Err(error) => assert!(is_refusal(&error), "seed {seed}: {error}"),
        }
    }
}
