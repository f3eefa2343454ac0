//! How a request finds its region, and what is learnt when that was wrong. One value that every
//! part of a client shares.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base::{KeyRange, Prng, TimeStamp};
use bytes::Bytes;
use proto::pdpb::{self, RequestHeader};
use proto::{errorpb, kvrpcpb, metapb};

use crate::backoff::Backoff;
use crate::calls::{PlacementReply, PlacementRequest, StoreReply, StoreRequest};
use crate::error::ClientError;
use crate::keys::{ApiVersion, Keys};
use crate::link::{Link, LinkError};
use crate::region_cache::{CachedRegion, RegionCache};
use crate::region_error::{self, Remedy};
use crate::resolver::Decided;

/// Which region a placement key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The one that holds it.
    Holding,
    /// The one that holds the keys right below it; an empty key is above all.
    Below,
}

/// Why one try did not succeed, if another one may.
#[derive(Clone, Debug)]
pub(crate) struct Passing {
    pub(crate) why: String,
    /// The request may have been served all the same, or may be later.
    pub(crate) lost: bool,
}

/// Everything that the handles of one client have in common.
pub(crate) struct Core<L> {
    pub(crate) link: L,
    pub(crate) version: ApiVersion,
    /// How long a call goes on trying.
    pub(crate) patience: Duration,
    cache: Mutex<RegionCache>,
    prng: Mutex<Prng>,
    /// Transactions whose end is known, so that each of their locks costs one call.
    pub(crate) decided: Mutex<Decided>,
}

impl<L: Link> Core<L> {
    pub(crate) fn new(link: L, version: ApiVersion, patience: Duration) -> Self {
        let prng = Mutex::new(Prng::new(link.seed()));
        let (cache, decided) = (Mutex::default(), Mutex::default());
        Self { link, version, patience, cache, prng, decided }
    }

    /// Waits between two tries for as long as a call may go on from now.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::until(self.link.now() + self.patience)
    }

    /// Waits before another try, or says that there shall be none.
    pub(crate) async fn pause(
        &self,
        backoff: &mut Backoff,
        call: &'static str,
        last: String,
    ) -> Result<(), ClientError> {
        let wait = {
            let mut prng = self.prng.lock().expect("no holder of this lock panics");
            backoff.next_wait(self.link.now(), &mut prng)
        };
        match wait {
            Some(wait) => {
                self.link.wait(wait).await;
                Ok(())
            }
            None => Err(ClientError::GaveUp { call, tries: backoff.tries(), last }),
        }
    }

    /// The region for a data key.
    pub(crate) async fn locate(
        &self,
        keys: Keys,
        data_key: &[u8],
        side: Side,
    ) -> Result<Arc<CachedRegion>, ClientError> {
        let key = keys.placement_key(data_key);
        let cached = match side {
            Side::Holding => self.cache().holding(&key),
            Side::Below => self.cache().below(&key),
        };
        if let Some(region) = cached {
            return Ok(region);
        }
        let (region, leader) = match side {
            Side::Holding => Box::pin(self.region_holding(key)).await?,
            Side::Below => Box::pin(self.region_below(key)).await?,
        };
        let region = CachedRegion::from_wire(region, leader)
            .ok_or(ClientError::Malformed { call: "GetRegion", what: "epoch or peer" })?;
        Ok(self.cache().insert(region))
    }

    /// One try: the answer, or why to try again. An error is for good.
    pub(crate) async fn send(
        &self,
        region: &Arc<CachedRegion>,
        mut request: StoreRequest,
    ) -> Result<Result<StoreReply, Passing>, ClientError> {
        let (call, is_repeatable) = (request.name(), request.is_repeatable());
        self.fill(region, request.context_mut());
        // Boxed, as other calls are that take long anyway: futures stay small.
        match Box::pin(self.link.store(region.leader.store_id, request)).await {
            Ok(reply) => self.read_errors(region, call, is_repeatable, reply),
            Err(LinkError::Refused(message)) => Err(ClientError::Refused { call, message }),
            Err(LinkError::Unsent(why)) => {
                self.cache().forget(region);
                Ok(Err(Passing { why, lost: false }))
            }
            Err(LinkError::Lost(cause)) if !is_repeatable => {
                self.cache().forget(region);
                Err(ClientError::Undetermined { call, cause })
            }
            Err(LinkError::Lost(why)) => {
                self.cache().forget(region);
                Ok(Err(Passing { why, lost: true }))
            }
        }
    }

    fn read_errors(
        &self,
        region: &Arc<CachedRegion>,
        call: &'static str,
        is_repeatable: bool,
        mut reply: StoreReply,
    ) -> Result<Result<StoreReply, Passing>, ClientError> {
        if let Some(error) = reply.region_error().take() {
            let why = region_error::describe(&error);
            return match self.learn(region, &error) {
                Remedy::GiveUp => Err(ClientError::Refused { call, message: why }),
                Remedy::Undetermined if !is_repeatable => {
                    Err(ClientError::Undetermined { call, cause: why })
                }
                remedy => Ok(Err(Passing { why, lost: remedy == Remedy::Undetermined })),
            };
        }
        match reply.take_refusal() {
            message if message.is_empty() => Ok(Ok(reply)),
            message => Err(ClientError::Refused { call, message }),
        }
    }

    /// Sends what `build` makes for the region of a data key, as often as it takes. Returns the
    /// region that answered.
    pub(crate) async fn run(
        &self,
        keys: Keys,
        data_key: &[u8],
        side: Side,
        build: impl Fn(&CachedRegion) -> StoreRequest,
    ) -> Result<(StoreReply, Arc<CachedRegion>), ClientError> {
        let mut backoff = self.backoff();
        loop {
            let region = self.locate(keys, data_key, side).await?;
            let request = build(&region);
            let call = request.name();
            match self.send(&region, request).await? {
                Ok(reply) => return Ok((reply, region)),
                Err(passing) => self.pause(&mut backoff, call, passing.why).await?,
            }
        }
    }

    /// Fills in whom a request is for; what else is in its context stays.
    fn fill(&self, region: &CachedRegion, context: &mut kvrpcpb::Context) {
        context.region_id = region.id;
        context.region_epoch = Some(region.epoch);
        context.peer = Some(region.leader);
        context.api_version = self.version.on_the_wire();
        context.cluster_id = self.link.cluster_id();
    }

    /// Takes in what a region error tells, and says what to do next.
    fn learn(&self, region: &Arc<CachedRegion>, error: &errorpb::Error) -> Remedy {
        let remedy = region_error::remedy(error);
        match &remedy {
            Remedy::FollowLeader(leader) => self.cache().set_leader(region, *leader),
            Remedy::AskAgain => self.cache().forget(region),
            Remedy::Wait | Remedy::GiveUp | Remedy::Undetermined => {}
        }
        remedy
    }

    fn cache(&self) -> MutexGuard<'_, RegionCache> {
        self.cache.lock().expect("no holder of this lock panics")
    }
}

impl<L: Link> Core<L> {
    /// A timestamp that is larger than every one that was given out before this call.
    pub(crate) async fn timestamp(&self) -> Result<TimeStamp, ClientError> {
        let request = PlacementRequest::Tso(pdpb::TsoRequest { count: 1, ..Default::default() });
        let PlacementReply::Tso(reply) = self.ask(request).await? else {
            return Err(ClientError::Malformed { call: "Tso", what: "answer of its kind" });
        };
        let timestamp =
            reply.timestamp.ok_or(ClientError::Malformed { call: "Tso", what: "timestamp" })?;
        let parts = (u64::try_from(timestamp.physical), u64::try_from(timestamp.logical));
        match parts {
            (Ok(physical), Ok(logical)) if logical <= TimeStamp::LOGICAL_MAX => {
                Ok(TimeStamp::compose(physical, logical))
            }
            _ => Err(ClientError::Malformed { call: "Tso", what: "timestamp in its bounds" }),
        }
    }

    async fn region_holding(
        &self,
        region_key: Bytes,
    ) -> Result<(metapb::Region, Option<metapb::Peer>), ClientError> {
        let request = pdpb::GetRegionRequest { region_key, ..Default::default() };
        match self.ask(PlacementRequest::GetRegion(request)).await? {
            PlacementReply::GetRegion(reply) => region_of(reply),
            _ => Err(ClientError::Malformed { call: "GetRegion", what: "answer of its kind" }),
        }
    }

    async fn region_below(
        &self,
        key: Bytes,
    ) -> Result<(metapb::Region, Option<metapb::Peer>), ClientError> {
        if key.is_empty() {
            return self.last_region().await;
        }
        let here = self.region_holding(key.clone()).await?;
        if here.0.start_key < key {
            return Ok(here);
        }
        let request = pdpb::GetRegionRequest { region_key: key, ..Default::default() };
        match self.ask(PlacementRequest::GetPrevRegion(request)).await? {
            PlacementReply::GetPrevRegion(reply) => region_of(reply),
            _ => Err(ClientError::Malformed { call: "GetPrevRegion", what: "answer of its kind" }),
        }
    }

    async fn last_region(&self) -> Result<(metapb::Region, Option<metapb::Peer>), ClientError> {
        let missing = |what| ClientError::Malformed { call: "ScanRegions", what };
        let mut start_key = Bytes::new();
        loop {
            let limit = REGIONS_A_PAGE;
            let request = pdpb::ScanRegionsRequest { start_key, limit, ..Default::default() };
            let reply = self.ask(PlacementRequest::ScanRegions(request)).await?;
            let PlacementReply::ScanRegions(reply) = reply else {
                return Err(missing("answer of its kind"));
            };
            let last = reply.regions.into_iter().next_back().ok_or(missing("region"))?;
            let region = last.region.ok_or(missing("region"))?;
            if region.end_key.is_empty() {
                return Ok((region, last.leader));
            }
            start_key = region.end_key;
        }
    }

    /// Asks the placement driver until it answers without an error that passes: every call here
    /// may be repeated.
    async fn ask(&self, mut request: PlacementRequest) -> Result<PlacementReply, ClientError> {
        let (call, cluster_id) = (request.name(), self.link.cluster_id());
        request.set_header(RequestHeader { cluster_id, ..Default::default() });
        let mut backoff = self.backoff();
        loop {
            let last = match Box::pin(self.link.placement(request.clone())).await {
                Ok(reply) => match passing_error(call, &reply)? {
                    None => return Ok(reply),
                    Some(passing) => passing,
                },
                Err(LinkError::Refused(message)) => {
                    return Err(ClientError::Refused { call, message });
                }
                Err(LinkError::Unsent(why) | LinkError::Lost(why)) => why,
            };
            self.pause(&mut backoff, call, last).await?;
        }
    }
}

/// Regions asked for at once on the way to the last one.
const REGIONS_A_PAGE: i32 = 512;

fn region_of(
    reply: pdpb::GetRegionResponse,
) -> Result<(metapb::Region, Option<metapb::Peer>), ClientError> {
    let region =
        reply.region.ok_or(ClientError::Malformed { call: "GetRegion", what: "region" })?;
    Ok((region, reply.leader))
}

/// The error in a header: none, one that passes, or one that does not. A region that is asked for
/// and not there is one that is being split or whose leader has not reported yet.
fn passing_error(
    call: &'static str,
    reply: &PlacementReply,
) -> Result<Option<String>, ClientError> {
    if let Some(error) = reply.header().and_then(|header| header.error.as_ref()) {
        return match error.r#type() {
            pdpb::ErrorType::Ok => Ok(None),
            pdpb::ErrorType::NotBootstrapped => {
                Ok(Some("the cluster is not bootstrapped yet".to_owned()))
            }
            _ => Err(ClientError::Refused { call, message: error.message.clone() }),
        };
    }
    let is_hole = match reply {
        PlacementReply::GetRegion(reply) | PlacementReply::GetPrevRegion(reply) => {
            reply.region.is_none()
        }
        _ => false,
    };
    Ok(is_hole.then(|| "no region is known there".to_owned()))
}

/// Data keys cut at the borders of regions, in order.
pub(crate) struct Group {
    pub(crate) region: Arc<CachedRegion>,
    /// How many of the keys.
    pub(crate) count: usize,
}

impl<L: Link> Core<L> {
    /// How many of `sorted` data keys, from the first on, lie in one region, and in which; at most
    /// as many as `fits` allows, and at least one.
    pub(crate) async fn first_group(
        &self,
        keys: Keys,
        sorted: &[Bytes],
        fits: usize,
    ) -> Result<Group, ClientError> {
        let first = sorted.first().expect("there is a key to send for");
        let region = self.locate(keys, first, Side::Holding).await?;
        let inside: &KeyRange = &region.range;
        let rest = sorted[1..].iter().take(fits.saturating_sub(1));
        let inside = rest.take_while(|key| inside.contains(&keys.placement_key(key)));
        let count = 1 + inside.count();
        Ok(Group { region, count })
    }

    /// Sends what `build` makes of `sorted` data keys to the regions that hold them, one after
    /// another, as often as it takes. Each answer comes with its keys.
    pub(crate) async fn each_region(
        &self,
        keys: Keys,
        sorted: &[Bytes],
        build: &(dyn Fn(&[Bytes]) -> StoreRequest + Sync),
    ) -> Result<Vec<(Vec<Bytes>, StoreReply)>, ClientError> {
        let (mut left, mut replies) = (sorted, Vec::new());
        let mut backoff = self.backoff();
        while !left.is_empty() {
            let group = self.first_group(keys, left, KEYS_A_CALL).await?;
            let (these, rest) = left.split_at(group.count);
            let request = build(these);
            let call = request.name();
            match self.send(&group.region, request).await? {
                Ok(reply) => {
                    replies.push((these.to_vec(), reply));
                    left = rest;
                    backoff = self.backoff();
                }
                Err(passing) => self.pause(&mut backoff, call, passing.why).await?,
            }
        }
        Ok(replies)
    }

    /// The same, many regions at a time.
    pub(crate) async fn all_regions(
        &self,
        keys: Keys,
        sorted: &[Bytes],
        build: &(dyn Fn(&[Bytes]) -> StoreRequest + Sync),
    ) -> Result<Vec<(Vec<Bytes>, StoreReply)>, ClientError> {
        let (mut left, mut parts) = (sorted, Vec::new());
        while !left.is_empty() {
            let group = self.first_group(keys, left, KEYS_A_CALL).await?;
            let (these, rest) = left.split_at(group.count);
            parts.push(self.each_region(keys, these, build));
            left = rest;
        }
        let replies = futures_util::future::try_join_all(parts).await?;
        Ok(replies.into_iter().flatten().collect())
    }
}

/// Keys in one request that only names keys.
const KEYS_A_CALL: usize = 1024;

/// The answer is not of the kind of its request.
pub(crate) fn other_kind(call: &'static str) -> ClientError {
    ClientError::Malformed { call, what: "answer of its kind" }
}
