//! Which region and which peer a key's request goes to, and what is learnt when that was wrong.

use std::sync::{Arc, Mutex};

use proto::{errorpb, kvrpcpb};

use super::region_cache::{CachedRegion, RegionCache};
use super::region_error::{self, Remedy};
use super::{Api, ApiVersion, ClientError, Placement};

/// Which region a data key stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    /// The one that holds it.
    Holding,
    /// The one that holds the keys right below it; an empty key is above all.
    Below,
}

/// Finds regions, by the cache first.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) api: Api,
    pub(crate) placement: Placement,
    cache: Mutex<RegionCache>,
}

impl Router {
    pub(crate) async fn connect(address: &str, version: ApiVersion) -> Result<Router, ClientError> {
        let placement = Placement::connect(address).await?;
        Ok(Router { api: Api::new(version), placement, cache: Mutex::default() })
    }

    /// The region for a data key.
    pub(crate) async fn locate(
        &self,
        data_key: &[u8],
        side: Side,
    ) -> Result<Arc<CachedRegion>, ClientError> {
        let key = self.api.placement_key(data_key);
        let cached = match side {
            Side::Holding => self.cache().holding(&key),
            Side::Below => self.cache().below(&key),
        };
        if let Some(region) = cached {
            return Ok(region);
        }
        let found = match side {
            Side::Holding => self.placement.region_holding(&key).await?,
            Side::Below => self.placement.region_below(&key).await?,
        };
        let region = CachedRegion::from_wire(found.region, found.leader)
            .ok_or(ClientError::Malformed { call: "GetRegion", what: "epoch or peer" })?;
        Ok(self.cache().insert(region))
    }

    /// The context that a request to this region carries.
    pub(crate) fn context(&self, region: &CachedRegion) -> kvrpcpb::Context {
        kvrpcpb::Context {
            region_id: region.id,
            region_epoch: Some(region.epoch),
            peer: Some(region.leader),
            api_version: self.api.wire_version(),
            cluster_id: self.placement.cluster_id(),
            ..Default::default()
        }
    }

    /// Takes in what a region error tells, and says what to do next.
    pub(crate) fn learn(&self, region: &Arc<CachedRegion>, error: &errorpb::Error) -> Remedy {
        let remedy = region_error::remedy(error);
        match &remedy {
            Remedy::FollowLeader(leader) => self.cache().set_leader(region, *leader),
            Remedy::AskAgain => self.cache().forget(region),
            Remedy::Wait | Remedy::GiveUp | Remedy::Undetermined => {}
        }
        remedy
    }

    /// The store of this region did not answer: ask anew where its leader is.
    pub(crate) fn forget(&self, region: &Arc<CachedRegion>) {
        self.cache().forget(region);
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, RegionCache> {
        self.cache.lock().expect("no holder of this lock panics")
    }
}
