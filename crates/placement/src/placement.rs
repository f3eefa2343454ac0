//! [`Placement`] itself: how rows become memory, and what all calls check first.

use std::sync::Arc;

use base::{ClusterId, Instant, TimeStamp};
use bytes::Bytes;
use proto::{metapb, pdpb};

use crate::cluster::Cluster;
use crate::etcd::EtcdStore;
use crate::gc_state::GcStates;
use crate::global_config::GlobalConfig;
use crate::ids::Ids;
use crate::keyspace::Keyspaces;
use crate::operators::Operators;
use crate::rows::{self, RowKey};
use crate::tso::Tso;
use crate::{PlacementError, RegionInfo, RegionMap, RowChanges, header};

/// The placement driver's memory while its node leads the system region. The crate's page says how
/// a host drives it; the calls are in the modules by subject.
#[derive(Debug)]
pub struct Placement {
    pub(crate) cluster_id: ClusterId,
    pub(crate) ids: Ids,
    pub(crate) tso: Tso,
    /// Stores, the cluster's version, whether it is bootstrapped.
    pub(crate) cluster: Cluster,
    /// Heard from heartbeats; only the first region is a row.
    pub(crate) regions: RegionMap,
    /// Heard from its leader's heartbeats.
    pub(crate) system_region: Option<Arc<RegionInfo>>,
    /// What is being done to regions.
    pub(crate) operators: Operators,
    pub(crate) gc: GcStates,
    pub(crate) keyspaces: Keyspaces,
    pub(crate) config: GlobalConfig,
    pub(crate) external_timestamp: TimeStamp,
    pub(crate) etcd: EtcdStore,
}

impl Placement {
    /// Makes memory of the system region's rows, in any order. Called when the host's node has
    /// become leader and applied its first entry of the term; from then on timestamps are above
    /// all that an earlier leader gave out.
    ///
    /// Fails with `BadRow` if a row is damaged, of a newer version, or of another cluster.
    pub fn load(
        cluster_id: ClusterId,
        rows: impl IntoIterator<Item = (Bytes, Bytes)>,
        now: Instant,
        wall_ms: u64,
    ) -> Result<Placement, PlacementError> {
        assert!(cluster_id.0 != 0, "no cluster has the id zero");
        let mut placement = Placement {
            cluster_id,
            ids: Ids::new(),
            tso: Tso::new(),
            cluster: Cluster::new(now),
            regions: RegionMap::default(),
            system_region: None,
            operators: Operators::default(),
            gc: GcStates::default(),
            keyspaces: Keyspaces::new(wall_ms),
            config: GlobalConfig::default(),
            external_timestamp: TimeStamp(0),
            etcd: EtcdStore::default(),
        };
        for (key, value) in rows {
            placement.apply(&key, Some(&value))?;
        }
        placement.tso.start();
        assert!(placement.cluster.meta.is_none_or(|meta| meta.id == cluster_id.0), "checked");
        Ok(placement)
    }

    /// Lets memory follow rows that the system region has applied. They must be those of a plan of
    /// this very `Placement`, with no other commit between.
    pub fn commit(&mut self, rows: &RowChanges) {
        for (key, value) in rows.iter() {
            self.apply(key, value).expect("this struct planned the row");
        }
    }

    /// The one place where a row becomes memory.
    fn apply(&mut self, key: &Bytes, value: Option<&Bytes>) -> Result<(), PlacementError> {
        let unknown = || rows::bad_row(key, "unknown; a newer version may have written it");
        let row = RowKey::parse(key).ok_or_else(unknown)?;
        let Some(value) = value else {
            return self.apply_delete(&row);
        };
        match &row {
            RowKey::Cluster => self.apply_cluster(&row, value),
            RowKey::BootstrappedAt => {
                self.cluster.bootstrapped_at_ms = rows::read_u64(&row, value)?;
                Ok(())
            }
            RowKey::ClusterVersion => self.cluster.apply_version(&row, value),
            RowKey::LastId => {
                let last = rows::read_u64(&row, value)?;
                self.ids.restore(last).map_err(|reason| row.bad(reason))
            }
            RowKey::TsoBound => {
                let bound_ms = rows::read_u64(&row, value)?;
                self.tso.save(bound_ms).map_err(|reason| row.bad(reason))
            }
            RowKey::ExternalTimestamp => {
                self.external_timestamp = TimeStamp(rows::read_u64(&row, value)?);
                Ok(())
            }
            RowKey::Store(_) => self.cluster.apply_store(&row, value),
            RowKey::Region(_) => self.apply_region(&row, value),
            RowKey::GcState(_) | RowKey::GcBarrier(..) | RowKey::GlobalGcBarrier(_) => {
                self.gc.apply_put(&row, value)
            }
            RowKey::Keyspace(_) | RowKey::KeyspaceConfig(..) => self.keyspaces.apply(&row, value),
            RowKey::Config(path) => self.config.apply(&row, path, value),
            RowKey::EtcdEvent(_) | RowKey::EtcdCompacted | RowKey::EtcdLease(_) => {
                self.etcd.apply_put(&row, value)
            }
        }
    }

    /// Barriers, leases and what history of keys was given up are the only rows that ever go away.
    fn apply_delete(&mut self, row: &RowKey) -> Result<(), PlacementError> {
        match row {
            RowKey::GcBarrier(..) | RowKey::GlobalGcBarrier(_) => {
                self.gc.apply_delete(row);
                Ok(())
            }
            RowKey::EtcdEvent(_) | RowKey::EtcdLease(_) => {
                self.etcd.apply_delete(row);
                Ok(())
            }
            _ => Err(row.bad("cannot be deleted")),
        }
    }

    fn apply_cluster(&mut self, row: &RowKey, value: &Bytes) -> Result<(), PlacementError> {
        let meta: metapb::Cluster = rows::read_message(row, value)?;
        if meta.id != self.cluster_id.0 {
            return Err(row.bad(format!("of cluster {}, not {}", meta.id, self.cluster_id)));
        }
        self.cluster.meta = Some(meta);
        Ok(())
    }

    fn apply_region(&mut self, row: &RowKey, value: &Bytes) -> Result<(), PlacementError> {
        let meta: metapb::Region = rows::read_message(row, value)?;
        let region = RegionInfo::new(meta).map_err(|reason| row.bad(reason))?;
        self.regions.put(region);
        Ok(())
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// The region map, as heard from heartbeats.
    pub fn regions(&self) -> &RegionMap {
        &self.regions
    }

    /// The header of a successful answer.
    pub(crate) fn header(&self) -> pdpb::ResponseHeader {
        header::success(self.cluster_id)
    }

    /// Checks that the request is for this cluster.
    pub(crate) fn check_cluster(
        &self,
        header: Option<&pdpb::RequestHeader>,
    ) -> Result<(), PlacementError> {
        header::check(self.cluster_id, header)
    }

    /// Checks that the request is for this cluster, and then that it is bootstrapped.
    pub(crate) fn check_bootstrapped(
        &self,
        header: Option<&pdpb::RequestHeader>,
    ) -> Result<(), PlacementError> {
        self.check_cluster(header)?;
        if self.is_bootstrapped() { Ok(()) } else { Err(PlacementError::NotBootstrapped) }
    }
}
