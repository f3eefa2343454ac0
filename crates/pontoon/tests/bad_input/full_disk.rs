//! A disk that is full: writes are refused, reads go on, and when there is space again so do
//! writes.
//!
//! The disk is a memory file system of 64 MiB. Mounting it needs a right; without it the tests say
//! so and do nothing.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::server::{Server, refused_on};

/// A small file system, until it is dropped.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// None, with a line, if it may not be mounted here.
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "pontoon-test"])
            .arg(folder.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { folder }),
            Ok(output) => {
                println!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim_end());
                None
            }
            Err(error) => {
                println!("skipped: mount: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file until nothing more fits, and returns it.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = File::create(&path).expect("it can be made");
        for size in [1 << 20, 1 << 12] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.folder.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// Small buffers, so that the reserve which the server keeps is small too.
fn config(disk: &SmallDisk) -> String {
    let path = disk.path().join("config.toml");
    std::fs::write(&path, "[storage]\nwrite-buffer-mib = 2\n").expect("there is space for it");
    path.to_str().expect("text").to_owned()
}

#[tokio::test]
async fn writes_are_refused_while_the_disk_is_full() {
    let Some(disk) = SmallDisk::mount("128m") else { return };
    let config = config(&disk);
    let data = disk.path().join("data");
    let server = Server::start(&data, &["--config", &config]);
    let mut store = server.connect().await;
    store.must_put(b"before", b"it").await;
    let ballast = disk.fill();
    // The server looks at the disk from time to time; what it took before that is kept.
    let mut taken = 0;
    let refusal = loop {
        let answer = store.put(format!("{taken:06}").as_bytes(), b"v").await;
        if let Some(error) = answer.region_error {
            break error;
        }
        assert_eq!(answer.error, "");
        taken += 1;
    };
    assert!(refusal.disk_full.is_some(), "{refusal:?}");
    assert_eq!(store.must_get(b"before").await, b"it");
    std::fs::remove_file(ballast).expect("it is there");
    while store.put(b"after", b"it").await.region_error.is_some() {}
    drop(server);
    let server = Server::start(&data, &["--config", &config]);
    let mut store = server.connect().await;
    for i in 0..taken {
        assert_eq!(store.must_get(format!("{i:06}").as_bytes()).await, b"v");
    }
    assert_eq!(store.must_get(b"after").await, b"it");
}

#[tokio::test]
async fn a_start_on_a_full_disk_is_refused_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount("128m") else { return };
    let config = config(&disk);
    let data = disk.path().join("data");
    let server = Server::start(&data, &["--config", &config]);
    server.connect().await.must_put(b"k", b"v").await;
    drop(server);
    let ballast = disk.fill();
    let new = disk.path().join("new");
    refused_on(&new, &["--config", &config]);
    std::fs::remove_file(ballast).expect("it is there");
    let server = Server::start(&data, &["--config", &config]);
    assert_eq!(server.connect().await.must_get(b"k").await, b"v");
}
