//! What lies on the disk of a node, opened and brought together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{ClusterId, Prng};
use storage::disk::{Disk as Medium, MemoryDisk, RealDisk};
use storage::engine::{Engine, MemoryEngine, RocksEngine, RocksOptions};
use storage::log::{LogBatch, LogOptions, RaftLog};
use store::snapshot::{SnapshotFolder, SnapshotKey};
use store::{Birth, LocalState, Recovered, StoreIdent, bootstrap};

use super::StartError;
use crate::clock::Clock;
use crate::config::Config;
use crate::data_folder::DataFolder;
use crate::founding;
use crate::gc::Gc;
use crate::placement_link::Joiner;

/// Engine and log, open.
pub(super) struct Disk {
    pub(super) engine: Arc<dyn Engine>,
    gc: Gc,
    disk: Arc<dyn Medium>,
    log: RaftLog,
}

/// A disk for files, and the engine.
type Media = (Arc<dyn Medium>, Arc<dyn Engine>);

/// All of it, checked.
pub(super) struct Opened {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) gc: Gc,
    pub(super) log: RaftLog,
    pub(super) recovered: Recovered,
    pub(super) snapshots: SnapshotFolder,
}

impl Disk {
    pub(super) fn open(
        config: &Config,
        folder: &DataFolder,
        clock: &Clock,
    ) -> Result<Self, StartError> {
        let gc = Gc::new();
        let (disk, engine) = Self::media(config, folder, &gc)?;
        gc.state().recall(&*engine)?;
        let log_options = LogOptions { salt: random(clock), ..LogOptions::default() };
        let log = RaftLog::open(disk.clone(), &folder.log(), log_options)?;
        Ok(Self { engine, gc, disk, log })
    }

    /// What everything is kept on.
    fn media(config: &Config, folder: &DataFolder, gc: &Gc) -> Result<Media, StartError> {
        if folder.is_in_memory() {
            let disk = Arc::new(MemoryDisk::new());
            return Ok((disk.clone(), Arc::new(MemoryEngine::with_disk(disk))));
        }
        let engine = RocksEngine::open(&folder.engine(), &rocks(config, gc))?;
        Ok((Arc::new(RealDisk::new()), Arc::new(engine)))
    }

    /// Who the store here is. An empty one joins the cluster that the configuration names, or else
    /// founds one; whether it joined just now is returned too.
    pub(super) async fn identity(
        &self,
        config: &Config,
        clock: &Clock,
        listen: SocketAddr,
        advertise: &str,
    ) -> Result<(StoreIdent, bool), StartError> {
        let api_version = config.storage.api_version.version();
        let joiner = Joiner {
            targets: &config.join,
            timeout: Duration::from_secs(config.join_timeout_s.into()),
            listen,
            advertise,
            api_version,
        };
        if let Some(ident) = founding::identity(&*self.engine, api_version)? {
            joiner.check_cluster(&ident).await?;
            return Ok((ident, false));
        }
        let joins = !config.join.is_empty();
        let ident = match joins {
            true => joiner.run().await?,
            false => founding::founder(new_cluster_id(clock), api_version),
        };
        bootstrap::bootstrap_store(&*self.engine, &ident)?;
        Ok((ident, joins))
    }

    /// Brings engine and log together.
    pub(super) fn recover(
        self,
        folder: &DataFolder,
        ident: &StoreIdent,
    ) -> Result<Opened, StartError> {
        let Self { engine, gc, disk, mut log } = self;
        founding::system_region(&*engine, &mut log, ident)?;
        let recovered = store::recover(&*engine, &log.reader(), ident.store_id)?;
        repair_log(&mut log, &recovered.log_repairs)?;
        let snapshots = SnapshotFolder::open(disk, &folder.snapshots(), &installing(&recovered))?;
        Ok(Opened { engine, gc, log, recovered, snapshots })
    }
}

/// The received snapshots that are still to be installed: where they stand is where the region's
/// log begins.
fn installing(recovered: &Recovered) -> Vec<SnapshotKey> {
    let applying = recovered.births.iter().filter(|birth| birth.local == LocalState::Applying);
    let key = |birth: &Birth| {
        let (index, term) = birth.apply.truncated;
        SnapshotKey { region: birth.region.id, term, index }
    };
    applying.map(key).collect()
}

/// A cluster is known by a number that no other has: drawn once, from everything at hand that
/// differs.
fn new_cluster_id(clock: &Clock) -> ClusterId {
    // Clients of some languages read it as a signed number; some take zero for "none".
    ClusterId((random(clock) >> 1).max(1))
}

/// A number that nobody can foresee.
fn random(clock: &Clock) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    Prng::new(RandomState::new().hash_one(clock.wall_ms())).next_u64()
}

fn rocks(config: &Config, gc: &Gc) -> RocksOptions {
    let storage = &config.storage;
    RocksOptions {
        block_cache_bytes: (storage.block_cache_mib as usize) << 20,
        write_buffer_bytes: (storage.write_buffer_mib as usize) << 20,
        background_jobs: storage.background_jobs as usize,
        garbage: gc.rule(),
        ..RocksOptions::default()
    }
}

fn repair_log(log: &mut RaftLog, log_repairs: &LogBatch) -> Result<(), StartError> {
    if log_repairs.is_empty() {
        return Ok(());
    }
    log.write(log_repairs)?;
    log.sync()?;
    Ok(())
}
