//! A disk that is full: writes are refused, reads go on, and when there is space again so do
//! writes.
//!
//! The disk is a memory file system of 64 MiB. Mounting it needs a right; without it the tests say
//! so and do nothing.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use proto::pdpb::pd_client::PdClient;
use proto::{kvrpcpb, metapb, pdpb};

use crate::metrics::counter;
use crate::patience::{eventually, until};
use crate::server::{Server, Store, refused_on};

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

    /// Somebody gives it more room.
    fn grow(&self, size: &str) {
        let options = format!("remount,size={size}");
        let grown = Command::new("mount").args(["-o", &options]).arg(self.path()).status();
        assert!(grown.is_ok_and(|status| status.success()), "it was mounted, so it can grow");
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

/// The region of all keys, and how many of its replicas lag.
async fn region_and_laggards(server: &Server, cluster_id: u64) -> (metapb::Region, usize) {
    let mut placement = PdClient::new(server.channel().await);
    let header = Some(pdpb::RequestHeader { cluster_id, ..Default::default() });
    let request = pdpb::GetRegionRequest { header, ..Default::default() };
    let answer = placement.get_region(request).await.expect("it serves").into_inner();
    (answer.region.expect("there is one"), answer.pending_peers.len())
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

/// A node that joins has no room for the region's data: it is told so, lives, and answers; the
/// others read and write. When there is room the data come by themselves, and stay.
#[tokio::test]
async fn a_snapshot_that_does_not_fit_waits_for_room() {
    let Some(disk) = SmallDisk::mount("128m") else { return };
    let config = config(&disk);
    let folder = tempfile::tempdir().expect("a folder can be made");
    let first = Server::start(&folder.path().join("data"), &["--config", &config]);
    let mut store = first.connect().await;
    let mut random = base::Prng::new(1);
    for i in 0..280 {
        // Nothing that could be made smaller.
        let value: Vec<u8> = (0..32 << 10).flat_map(|_| random.next_u64().to_be_bytes()).collect();
        store.must_put(format!("{i:03}").as_bytes(), &value).await;
    }
    let data = disk.path().join("data");
    let flags = ["--config", &config, "--join", first.address()];
    let second = Server::start(&data, &flags);
    until("the snapshot is refused", async || {
        counter(first.address(), "pontoon_snapshots_lost_total").await > 0
    })
    .await;
    let (region, _) = region_and_laggards(&first, store.cluster_id).await;
    let prefix = format!("received-{}-", region.id);
    let files = std::fs::read_dir(data.join("snap")).expect("a folder");
    let mut names = files.map(|file| file.expect("readable").file_name());
    let is_of_it = |name: &std::ffi::OsString| name.to_string_lossy().starts_with(&prefix);
    assert_eq!(names.find(is_of_it), None, "nothing of it is left");
    // That of the placement driver's own region is small.
    let before = counter(second.address(), "pontoon_snapshots_received_total").await;
    let ours = region.peers.len();
    store.region = region;
    store.must_put(b"meanwhile", b"it").await;
    assert_eq!(store.must_get(b"meanwhile").await, b"it");
    assert!(ours > 1, "it is a member already: {:?}", store.region);

    disk.grow("512m");
    let region = eventually("the data come", async || {
        let (region, laggards) = region_and_laggards(&first, store.cluster_id).await;
        let received = counter(second.address(), "pontoon_snapshots_received_total").await;
        (received > before && laggards == 0).then_some(region)
    })
    .await;
    drop(second);
    let second = Server::start(&data, &flags);
    let peer = region.peers.iter().find(|peer| peer.store_id != store.leader.store_id);
    let client = proto::tikvpb::tikv_client::TikvClient::new(second.channel().await);
    let leader = *peer.expect("seen above");
    let mut there = Store { client, cluster_id: store.cluster_id, region, leader };
    let value =
        eventually("a replica answers", async || replica_get(&mut there, b"meanwhile").await);
    assert_eq!(value.await, b"it");
    let value = eventually("a replica answers", async || replica_get(&mut there, b"279").await);
    assert_eq!(value.await, store.must_get(b"279").await);
}

/// What the replica there has, once it knows.
async fn replica_get(store: &mut Store, key: &[u8]) -> Option<Vec<u8>> {
    let context = kvrpcpb::Context { replica_read: true, ..store.context() };
    let request = kvrpcpb::RawGetRequest {
        context: Some(context),
        key: key.to_vec().into(),
        ..Default::default()
    };
    let answer = store.client.raw_get(request).await.ok()?.into_inner();
    if let Some(changed) = answer.region_error.as_ref().and_then(|e| e.epoch_not_match.as_ref()) {
        store.region = changed.current_regions.first()?.clone();
        return None;
    }
    (answer.region_error.is_none() && !answer.not_found).then(|| answer.value.to_vec())
}
