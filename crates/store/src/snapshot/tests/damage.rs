//! Files that are not what was promised: each kind has its error, and installs nothing.

use std::fs;
use std::path::PathBuf;

use super::*;

/// A target with a received snapshot of region 2, and what it holds.
fn received(kind: Kind) -> (Site, Region, Contents) {
    let (source, target) = two_sites(kind);
    let region = region(2, "b", "y");
    source.send(&source.build(&region), &target);
    let before = target.contents();
    (target, region, before)
}

fn table(site: &Site, cf: &str) -> PathBuf {
    site.dir.path().join(format!("snap/received-2-6-100-{cf}.sst"))
}

fn list(site: &Site) -> PathBuf {
    site.dir.path().join("snap/received-2-6-100.meta")
}

/// Damages a file by `damage`, sees that nothing is installed, repairs it, installs.
fn refused(
    path: fn(&Site) -> PathBuf,
    damage: impl Fn(&mut Vec<u8>),
    fits: impl Fn(&SnapshotError) -> bool,
) {
    for kind in KINDS {
        let (target, region, before) = received(kind);
        let path = path(&target);
        let good = fs::read(&path).expect("a file");
        let mut bad = good.clone();
        damage(&mut bad);
        fs::write(&path, &bad).expect("written");
        let error = target.install(&region).expect_err("damaged");
        assert!(fits(&error) && error.is_damage(), "{kind:?}: {error:?}");
        assert_eq!(target.contents(), before, "{kind:?}: {error}");
        fs::write(&path, &good).expect("written");
        target.install(&region).expect("installed");
        assert_ne!(target.contents(), before);
    }
}

#[test]
fn a_cut_file() {
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1);
    let size = |error: &SnapshotError| match error {
        SnapshotError::Size { actual, expected, .. } => actual + 1 == *expected,
        _ => false,
    };
    refused(|site| table(site, "default"), cut, size);
    refused(|site| table(site, "write"), cut, size);
}

#[test]
fn a_file_that_is_too_long() {
    let size = |error: &SnapshotError| matches!(error, SnapshotError::Size { .. });
    refused(|site| table(site, "lock"), |bytes| bytes.push(0), size);
}

#[test]
fn a_flipped_bit_anywhere() {
    let checksum = |error: &SnapshotError| matches!(error, SnapshotError::Checksum { .. });
    for seed in 0..4 {
        let flip = |bytes: &mut Vec<u8>| {
            let bit = Prng::new(seed).below(8 * bytes.len() as u64);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        };
        refused(|site| table(site, "default"), flip, checksum);
    }
}

#[test]
fn a_damaged_list() {
    let data = |error: &SnapshotError| matches!(error, SnapshotError::Data { .. });
    refused(list, |bytes| bytes[7] ^= 4, data);
    refused(list, Vec::clear, data);
    refused(list, |bytes| bytes.truncate(bytes.len() - 2), data);
    let size = |error: &SnapshotError| matches!(error, SnapshotError::Size { .. });
    refused(list, |bytes| bytes.resize(CHUNK_BYTES_MAX + 1, 0), size);
}

#[test]
fn a_missing_file() {
    for kind in KINDS {
        for path in [|site: &Site| table(site, "lock"), list] {
            let (target, region, before) = received(kind);
            fs::remove_file(path(&target)).expect("it was there");
            let error = target.install(&region).expect_err("a file is missing");
            assert_eq!(error, SnapshotError::Missing(path(&target)));
            assert!(error.is_damage() && error.to_string().ends_with(" is missing"));
            assert_eq!(target.contents(), before, "{kind:?}");
        }
    }
}

#[test]
fn files_of_another_region() {
    for kind in KINDS {
        let (target, region, before) = received(kind);
        // Its list under our name.
        let other = Region { id: RegionId(4), ..region.clone() };
        let source = Site::new(kind);
        source.send(&source.build(&other), &target);
        let name = list(&target).with_file_name("received-4-6-100.meta");
        fs::copy(name, list(&target)).expect("copied");
        let error = target.install(&region).expect_err("of another region");
        assert!(matches!(&error, SnapshotError::Data { cause, .. } if cause.contains('4')));
        assert_eq!(target.contents(), before, "{kind:?}");

        // Its table under our name.
        let (target, region, before) = received(kind);
        fs::copy(table(&target, "lock"), table(&target, "write")).expect("copied");
        assert!(target.install(&region).expect_err("another table").is_damage());
        assert_eq!(target.contents(), before, "{kind:?}");

        // Asked for as what it is not.
        let later = Region { epoch: Epoch { conf_ver: 4, version: 10 }, ..region };
        let error = target.install(&later).expect_err("of another epoch");
        assert!(matches!(error, SnapshotError::OtherRegion { .. }), "{error}");
        assert_eq!(target.contents(), before, "{kind:?}");
    }
}

#[test]
fn a_table_that_the_engine_refuses() {
    for kind in KINDS {
        // Sizes and checksums fit, but it is no table: a sender of another kind.
        let target = Site::new(kind);
        let region = region(2, "b", "y");
        let table = noise(4, 1000);
        let checksum = crc32fast::hash(&table);
        let files = vec![SnapshotFile { cf: Cf::Lock, size: 1000, checksum }];
        let (absorbed, collected) = Default::default();
        let data = SnapshotData { region: region.clone(), absorbed, collected, files }.encode();
        let snapshot = raft::Snapshot { pos: POS, conf: ConfState::default(), data };
        let mut writer = target.folder.writer(region.id, &snapshot).expect("room");
        writer.write(&table).expect("written");
        writer.finish().expect("as promised");
        let error = target.install(&region).expect_err("no table");
        assert!(matches!(error, SnapshotError::Engine(_)) && !error.is_damage(), "{error}");
    }
}

#[test]
fn a_made_file_that_changed_is_not_sent() {
    for kind in KINDS {
        let (source, _) = two_sites(kind);
        let region = region(2, "b", "y");
        let files = source.build(&region);
        let path = source.dir.path().join("snap/made-2-6-100-33-default.sst");
        fs::write(&path, b"short").expect("written");
        let error = source.folder.reader(region.id, PEER, &files.snapshot).err();
        assert!(matches!(error, Some(SnapshotError::Size { actual: 5, .. })), "{error:?}");
        assert_eq!(source.files(), [""; 0], "there is no second try");
        let error = source.folder.reader(region.id, PEER, &files.snapshot).err();
        assert_eq!(error, Some(SnapshotError::Missing(path)));
    }
}
