//! Both disks do the same; the one in memory also fails as told.

use std::path::PathBuf;

use base::Prng;

use super::*;

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.err().expect("an error").kind()
}

/// What every disk does.
fn conforms(disk: &dyn Disk, dir: &Path) {
    let (a, b) = (dir.join("a"), dir.join("b"));
    assert_eq!(kind(disk.list(dir)), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.create(&a)), io::ErrorKind::NotFound);
    disk.create_dir(dir).unwrap();
    disk.create_dir(dir).unwrap();
    assert_eq!(disk.list(dir).unwrap(), Vec::<String>::new());
    assert!(disk.available(dir).unwrap() > 1 << 20);

    let file = disk.create(&a).unwrap();
    assert_eq!(kind(disk.create(&a)), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.open(&b)), io::ErrorKind::NotFound);
    assert_eq!(file.size().unwrap(), 0);
    file.write_at(b"world", 6).unwrap();
    file.write_at(b"hello", 0).unwrap();
    let mut read = [9; 11];
    file.read_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"hello\0world");
    assert_eq!(kind(file.read_at(&mut read, 1)), io::ErrorKind::UnexpectedEof);
    file.preallocate(3 << 20).unwrap();
    file.preallocate(5).unwrap();
    assert_eq!(file.size().unwrap(), 3 << 20);
    file.read_at(&mut read, (3 << 20) - 11).unwrap();
    assert_eq!(read, [0; 11]);
    file.sync_data().unwrap();
    disk.sync_dir(dir).unwrap();

    disk.create(&b).unwrap().write_at(b"b", 0).unwrap();
    assert_eq!(disk.list(dir).unwrap(), ["a", "b"]);
    disk.rename(&a, &b).unwrap();
    assert_eq!(disk.list(dir).unwrap(), ["b"]);
    assert_eq!(kind(disk.rename(&a, &b)), io::ErrorKind::NotFound);
    disk.open(&b).unwrap().read_at(&mut read[..5], 0).unwrap();
    assert_eq!(&read[..5], b"hello");
    disk.remove(&b).unwrap();
    assert_eq!(kind(disk.remove(&b)), io::ErrorKind::NotFound);
    // Whoever has it open can go on.
    file.read_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"hello\0world");
}

#[test]
fn both_disks_conform() {
    conforms(&MemoryDisk::new(), Path::new("/some/folder"));
    let folder = std::env::temp_dir().join(format!("disk-{}", std::process::id()));
    conforms(&RealDisk::new(), &folder.join("below").join("it"));
    std::fs::remove_dir_all(folder).unwrap();
}

fn memory_file() -> (MemoryDisk, PathBuf, Arc<dyn DiskFile>) {
    let disk = MemoryDisk::new();
    let path = PathBuf::from("/d/file");
    disk.create_dir(Path::new("/d")).unwrap();
    let file = disk.create(&path).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    (disk, path, file)
}

/// Each sector of an unsynced write is the old or the new one; all that may happen does.
#[test]
fn a_power_loss_keeps_what_was_synced() {
    let (mut lost, mut kept, mut torn) = (0, 0, 0);
    for seed in 0..300 {
        let (disk, path, file) = memory_file();
        file.write_at(&[1; 2000], 0).unwrap();
        file.sync_data().unwrap();
        file.write_at(&[2; 1500], 100).unwrap();
        file.write_at(&[3; 600], 1900).unwrap();
        disk.power_loss(&mut Prng::new(seed));
        assert!(file.size().is_err(), "the process is dead");
        let bytes = disk.contents(&path).unwrap();
        assert!(bytes[..100].iter().all(|&byte| byte == 1));
        assert!([2000, 2048, 2500].contains(&bytes.len()), "{}", bytes.len());
        for (start, end) in [(100, 512), (512, 1024), (1024, 1536), (1536, 1600)] {
            assert!(bytes[start..end].iter().all(|&byte| byte == bytes[start]));
        }
        let new = [100, 512, 1024, 1536].iter().filter(|&&at| bytes[at] == 2).count();
        match new {
            0 => lost += 1,
            4 => kept += 1,
            _ => torn += 1,
        }
    }
    assert!(lost > 30 && kept > 30 && torn > 30, "{lost} {kept} {torn}");
}

#[test]
fn names_are_durable_with_their_folder() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..100 {
        let (disk, path, file) = memory_file();
        file.write_at(b"safe", 0).unwrap();
        file.sync_data().unwrap();
        disk.rename(&path, Path::new("/d/other")).unwrap();
        disk.create(Path::new("/d/new")).unwrap();
        disk.power_loss(&mut Prng::new(seed));
        let names = disk.list(Path::new("/d")).unwrap();
        match names.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["file"] => lost += 1,
            ["other"] | ["new", "other"] => kept += 1,
            _ => panic!("{names:?}"),
        }
        let name = if names.contains(&"file".to_owned()) { "file" } else { "other" };
        assert_eq!(disk.contents(&Path::new("/d").join(name)).unwrap(), b"safe");
    }
    assert!(lost > 10 && kept > 10, "{lost} {kept}");
}

#[test]
fn a_killed_process_loses_nothing() {
    let (disk, path, file) = memory_file();
    file.write_at(b"unsynced", 0).unwrap();
    disk.kill();
    assert!(file.sync_data().is_err());
    assert_eq!(disk.contents(&path).unwrap(), b"unsynced");
}

#[test]
fn a_full_disk_takes_whole_sectors() {
    let (disk, path, file) = memory_file();
    disk.set_capacity(Some(1500));
    assert_eq!(disk.available(Path::new("/d")).unwrap(), 1500);
    assert_eq!(kind(file.write_at(&[1; 2000], 0)), io::ErrorKind::StorageFull);
    assert_eq!((disk.used(), disk.contents(&path).unwrap().len()), (1024, 1024));
    file.write_at(&[2; 1024], 0).unwrap();
    disk.set_capacity(None);
    file.write_at(&[1; 2000], 0).unwrap();
    // A removed file takes no space once nobody has it open.
    disk.remove(&path).unwrap();
    assert_eq!(disk.used(), 2000);
    drop(file);
    assert_eq!(disk.used(), 0);
}

#[test]
fn faults_on_demand() {
    let (disk, path, file) = memory_file();
    file.write_at(&[0; 100], 0).unwrap();
    disk.flip_bit(&path, 17);
    assert_eq!(disk.contents(&path).unwrap()[2], 2);
    disk.erase(&path, 0, 10);
    disk.cut(&path, 50);
    assert_eq!(disk.contents(&path).unwrap(), [0; 50]);
    disk.fail_syncs_after(1);
    file.sync_data().unwrap();
    assert!(file.sync_data().is_err() && file.sync_data().is_err());
    disk.repair_syncs();
    file.sync_data().unwrap();
    disk.fail_next_write(512, io::ErrorKind::Other);
    assert_eq!(kind(file.write_at(&[7; 1000], 0)), io::ErrorKind::Other);
    assert_eq!(disk.contents(&path).unwrap(), [7; 512]);
    let counts = disk.counts();
    assert_eq!((counts.syncs, counts.dir_syncs, counts.writes), (4, 1, 2));
    assert_eq!(counts.bytes_written, 612);
    // A copy goes its own way.
    let image = disk.image();
    image.cut(&path, 0);
    assert_eq!(disk.contents(&path).unwrap().len(), 512);
}
