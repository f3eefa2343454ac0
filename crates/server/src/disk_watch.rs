//! The disk's free space: seen ahead, so that writes are refused one by one before a write of ours
//! fails.

use std::path::PathBuf;
use std::time::Duration;

use store::ShardInput;

use crate::runtime::Mailbox;

/// Time between two looks. At two gigabytes a second the reserve of [`DiskWatch::new`] lasts
/// longer.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What a node in memory says that it has: nobody measures it.
const MEMORY_BYTES: u64 = 1 << 40;

/// Looks at the file system of one folder.
#[derive(Clone, Debug)]
pub(crate) struct DiskWatch {
    /// None for a node in memory, which reports no end of space.
    folder: Option<PathBuf>,
    reserve_bytes: u64,
}

impl DiskWatch {
    /// Keeps `reserve_bytes` free, but no more than a tenth of the disk and no less than
    /// `least_bytes`.
    pub(crate) fn new(folder: PathBuf, reserve_bytes: u64, least_bytes: u64) -> Self {
        let mut watch = Self { folder: Some(folder), reserve_bytes };
        let (capacity, _) = watch.space();
        watch.reserve_bytes = reserve_bytes.min(capacity / 10).max(least_bytes);
        watch
    }

    /// For a node that keeps nothing on a disk.
    pub(crate) fn of_memory() -> Self {
        Self { folder: None, reserve_bytes: 0 }
    }

    /// Bytes of the file system, and bytes that are free to us. Zeros if the system does not tell.
    pub(crate) fn space(&self) -> (u64, u64) {
        let Some(folder) = &self.folder else { return (MEMORY_BYTES, MEMORY_BYTES) };
        match rustix::fs::statvfs(folder) {
            Ok(stat) => (stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "free space unknown");
                (0, 0)
            }
        }
    }

    /// Whether less than the reserve is free.
    pub(crate) fn is_full(&self) -> bool {
        let (capacity, available) = self.space();
        capacity > 0 && available < self.reserve_bytes
    }

    /// Tells the store whenever the disk becomes full or ceases to be, until the store is gone.
    pub(crate) async fn run(self, store: Mailbox) {
        let Some(folder) = self.folder.clone() else { return };
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        let mut was_full = false;
        loop {
            looks.tick().await;
            let full = self.is_full();
            if full == was_full {
                continue;
            }
            was_full = full;
            let (folder, reserve) = (folder.display(), self.reserve_bytes >> 20);
            if full {
                tracing::error!(%folder, reserve_mib = reserve, "disk full, writes are refused");
            } else {
                tracing::info!(%folder, "disk has space again, writes are taken");
            }
            if store.tell(ShardInput::DiskFull(full)).is_err() {
                return;
            }
        }
    }
}
