//! What a crash, another process or a damaged disk leaves of the engine on disk.

use base::Prng;

use super::*;

/// Copies a folder while its engine is open: what the disk would hold if the process ended now.
/// Nothing else may be at work in it.
pub(in super::super) fn copy_folder(from: &Path) -> TempDir {
    let to = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.path().join(entry.file_name())).expect("a copy");
    }
    to
}

/// Writes batch `number`: one key in each family, all in one batch.
fn write_numbered(engine: &dyn Engine, number: u32) {
    let mut batch = WriteBatch::new();
    for cf in Cf::ALL {
        batch.put(cf, &number.to_be_bytes(), &vec![number as u8; 20 + cf as usize * 10]);
    }
    engine.write(&batch).expect("write");
}

/// How many of the numbered batches are there. They must be a prefix, the same in all families, and
/// whole.
fn count_numbered(engine: &dyn Engine) -> u32 {
    let snapshot = engine.snapshot();
    let counts = Cf::ALL.map(|cf| {
        let mut cursor = snapshot.iter(cf, IterOptions::default()).expect("a cursor");
        let (mut count, mut valid) = (0u32, cursor.seek_to_first().expect("seek"));
        while valid {
            assert_eq!(cursor.key(), count.to_be_bytes(), "a hole in {}", cf.name());
            assert_eq!(cursor.value(), vec![count as u8; 20 + cf as usize * 10]);
            count += 1;
            valid = cursor.next().expect("next");
        }
        count
    });
    assert!(counts.iter().all(|count| *count == counts[0]), "families differ: {counts:?}");
    counts[0]
}

/// The file of the log that is written to.
fn last_log(dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(dir).expect("a folder").map(|e| e.expect("an entry").path());
    let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.max().expect("there is a log")
}

#[test]
fn what_was_synced_survives_and_the_rest_is_a_prefix() {
    let bench = Bench::new(Kind::Rocks);
    for number in 0..300 {
        write_numbered(&*bench.engine, number);
        if number == 99 {
            bench.engine.flush().expect("flush");
        }
        if number == 199 {
            bench.engine.sync().expect("sync");
        }
    }
    let copy = copy_folder(&bench.place);
    let count = count_numbered(&rocks(copy.path()));
    assert!((200..=300).contains(&count), "{count} batches");
    bench.engine.sync().expect("sync");
    let copy = copy_folder(&bench.place);
    assert_eq!(count_numbered(&rocks(copy.path())), 300);
}

#[test]
fn dropping_the_engine_loses_nothing() {
    let mut bench = Bench::new(Kind::Rocks);
    for number in 0..50 {
        write_numbered(&*bench.engine, number);
    }
    bench.restart();
    assert_eq!(count_numbered(&*bench.engine), 50);
}

#[test]
fn a_torn_log_is_cut_at_the_same_batch_for_all_families() {
    let bench = Bench::new(Kind::Rocks);
    for number in 0..40 {
        write_numbered(&*bench.engine, number);
    }
    bench.engine.sync().expect("sync");
    let copy = copy_folder(&bench.place);
    let log = std::fs::read(last_log(copy.path())).expect("the log");
    let (mut seen, mut last) = (0, 0);
    for len in (0..=log.len()).step_by(97) {
        // Opening changes the folder, so each cut gets a copy of its own.
        let torn = copy_folder(copy.path());
        std::fs::write(last_log(torn.path()), &log[..len]).expect("cut");
        let count = count_numbered(&rocks(torn.path()));
        assert!(count >= last, "a longer log gave fewer batches: {last}, then {count} of {len}");
        seen += u32::from(count > last);
        last = count;
    }
    assert!(seen > 30, "the cuts made only {seen} different prefixes");
}

#[test]
fn a_damaged_log_is_cut_or_refused() {
    let bench = Bench::new(Kind::Rocks);
    for number in 0..40 {
        write_numbered(&*bench.engine, number);
    }
    bench.engine.sync().expect("sync");
    let copy = copy_folder(&bench.place);
    let log = std::fs::read(last_log(copy.path())).expect("the log");
    let mut prng = Prng::new(12);
    for _ in 0..60 {
        let torn = copy_folder(copy.path());
        let mut damaged = log.clone();
        damaged[prng.below(log.len() as u64) as usize] ^= 1 << prng.below(8);
        std::fs::write(last_log(torn.path()), &damaged).expect("damage");
        match RocksEngine::open(torn.path(), &RocksOptions::default()) {
            Ok(engine) => assert!(count_numbered(&engine) < 40, "damage went unnoticed"),
            Err(error) => assert_eq!(error.kind, EngineErrorKind::Corrupt, "{error}"),
        }
    }
}

#[test]
fn a_torn_log_with_several_logs_and_flushed_families() {
    let bench = Bench::new(Kind::Rocks);
    for number in 0..4000 {
        write_numbered(&*bench.engine, number);
        if number % 1000 == 999 {
            // One family at a time reaches files, as it happens when memtables fill up.
            let mut batch = WriteBatch::new();
            batch.put(Cf::Lock, b"\xff", &vec![0; 1 << 20]);
            batch.delete(Cf::Lock, b"\xff");
            bench.engine.write(&batch).expect("write");
        }
    }
    let copy = copy_folder(&bench.place);
    let log = std::fs::read(last_log(copy.path())).expect("the log");
    let mut counts = Vec::new();
    for eighth in 0..=8 {
        let torn = copy_folder(copy.path());
        std::fs::write(last_log(torn.path()), &log[..log.len() * eighth / 8]).expect("cut");
        counts.push(count_numbered(&rocks(torn.path())));
    }
    assert!(counts.is_sorted() && counts[0] < counts[8], "{counts:?}");
}

#[test]
fn a_folder_has_one_engine() {
    let bench = Bench::new(Kind::Rocks);
    let open = || RocksEngine::open(&bench.place, &RocksOptions::default());
    let error = open().err().expect("it is open already");
    assert_eq!(error.kind, EngineErrorKind::Locked, "{error}");
    assert!(error.to_string().contains(&bench.place.display().to_string()), "{error}");
    // A snapshot keeps it open, too.
    let snapshot = bench.engine.snapshot();
    drop(bench.engine);
    assert_eq!(open().err().expect("a snapshot is open").kind, EngineErrorKind::Locked);
    drop(snapshot);
    assert!(open().is_ok());
}

#[test]
fn a_database_of_somebody_else_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    for families in [&["default", "meta"][..], &["default", "raft", "lock", "write"]] {
        let place = dir.path().join(families.len().to_string());
        drop(rocksdb::DB::open_cf(&options, &place, families).expect("a database"));
        let error = RocksEngine::open(&place, &RocksOptions::default()).err().expect("foreign");
        assert_eq!(error.kind, EngineErrorKind::Foreign, "{error}");
    }
    let file = dir.path().join("file");
    std::fs::write(&file, b"").expect("a file");
    let error = RocksEngine::open(&file, &RocksOptions::default()).err().expect("a file");
    assert_eq!(error.kind, EngineErrorKind::Io, "{error}");
}

#[test]
fn a_damaged_table_is_refused_whole() {
    for kind in [Kind::Rocks, Kind::Memory] {
        let bench = Bench::new(kind);
        let path = bench.dir.path().join("table");
        let mut table = bench.engine.sst_writer(Cf::Default, &path).expect("a table");
        for number in 0..1000u32 {
            table.put(&number.to_be_bytes(), &[3; 50]).expect("put");
        }
        table.finish().expect("finish");
        let whole = std::fs::read(&path).expect("the table");
        let mut prng = Prng::new(3);
        let files = std::slice::from_ref(&path);
        for cut in [false, true] {
            let mut damaged = whole.clone();
            let at = prng.below(whole.len() as u64) as usize;
            if cut {
                damaged.truncate(at)
            } else {
                damaged[at] ^= 0x10
            }
            std::fs::write(&path, damaged).expect("damage");
            let error = bench.engine.ingest(Cf::Default, files).expect_err("damaged");
            assert_eq!(error.kind, EngineErrorKind::Corrupt, "{kind:?} {error}");
            assert_eq!(bench.engine.get(Cf::Default, &0u32.to_be_bytes()), Ok(None));
        }
        std::fs::write(&path, whole).expect("repair");
        bench.engine.ingest(Cf::Default, files).expect("ingest");
        assert!(bench.engine.get(Cf::Default, &999u32.to_be_bytes()).expect("get").is_some());
    }
}

/// Needs a small file system of its own, so it does not run by default: `mount -t tmpfs -o size=16m
/// tmpfs /mnt/small && PONTOON_SMALL_DISK=/mnt/small cargo test … a_full_disk -- --ignored`
#[test]
#[ignore = "needs a small file system"]
fn a_full_disk_is_told_and_loses_nothing() {
    let dir = PathBuf::from(std::env::var("PONTOON_SMALL_DISK").expect("a small file system"));
    let place = dir.join("engine");
    let engine = rocks(&place);
    let mut prng = Prng::new(1);
    let (mut written, mut error) = (0u32, None);
    while error.is_none() {
        let mut batch = WriteBatch::new();
        let value: Vec<u8> = (0..1000).map(|_| prng.next_u64() as u8).collect();
        batch.put(Cf::Default, &written.to_be_bytes(), &value);
        match engine.write(&batch).and_then(|()| engine.sync()) {
            Ok(()) => written += 1,
            Err(e) => error = Some(e),
        }
    }
    let error = error.expect("the disk is full");
    assert_eq!(error.kind, EngineErrorKind::Full, "{error}");
    assert!(engine.get(Cf::Default, &(written - 1).to_be_bytes()).expect("get").is_some());
    println!("{written} keys were synced; then: {error}");
    drop(engine);
    let moved = tempfile::tempdir().expect("a folder on a disk with room");
    for entry in std::fs::read_dir(&place).expect("a folder") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), moved.path().join(entry.file_name())).expect("a copy");
    }
    let engine = rocks(moved.path());
    for number in 0..written {
        let value = engine.get(Cf::Default, &number.to_be_bytes()).expect("get");
        assert!(value.is_some(), "key {number} of {written} was synced and is gone");
    }
    std::fs::remove_dir_all(&place).expect("tidy up");
}
