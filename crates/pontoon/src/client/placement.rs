//! The placement driver: who holds what, and where they are.

use std::sync::Mutex;
use std::time::Duration;

use proto::pdpb::pd_client::PdClient;
use proto::{metapb, pdpb};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::backoff::Backoff;
use super::error::{describe, root_cause};
use super::{CALL_TIMEOUT, ClientError, endpoint};

/// How long a call waits in all for a leader to appear or a cluster to be bootstrapped.
const BUDGET: Duration = Duration::from_secs(10);

/// Regions asked for at once when all of them are wanted.
const REGIONS_A_PAGE: i32 = 512;

/// A region and the peer that leads it, if one does.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionInfo {
    /// Its descriptor.
    pub region: metapb::Region,
    /// Its leader.
    pub leader: Option<metapb::Peer>,
}

/// A connection to the placement driver's leader.
#[derive(Debug)]
pub struct Placement {
    address: String,
    cluster_id: u64,
    client: Mutex<PdClient<Channel>>,
}

impl Placement {
    /// Connects to the member at `address` and from there to the leader.
    pub async fn connect(address: &str) -> Result<Placement, ClientError> {
        let client = open(address).await?;
        let members = ask_members(client.clone(), address).await?;
        let cluster_id = members.header.as_ref().map_or(0, |header| header.cluster_id);
        if cluster_id == 0 {
            return Err(ClientError::Malformed { call: "GetMembers", what: "cluster id" });
        }
        let client = open_leader(&members).await.unwrap_or(client);
        Ok(Placement { address: address.to_owned(), cluster_id, client: Mutex::new(client) })
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// The members, and which of them leads.
    pub async fn members(&self) -> Result<pdpb::GetMembersResponse, ClientError> {
        ask_members(self.client(), &self.address).await
    }

    /// The region that holds a placement key.
    pub async fn region_holding(&self, key: &[u8]) -> Result<RegionInfo, ClientError> {
        let request = pdpb::GetRegionRequest {
            header: self.header(),
            region_key: key.to_vec().into(),
            ..Default::default()
        };
        let call = |mut client: PdClient<Channel>| {
            let request = request.clone();
            async move { client.get_region(request).await }
        };
        let reply = self.call("GetRegion", call, |reply| reply.header.as_ref()).await?;
        region_info("GetRegion", reply)
    }

    /// The region that holds the keys right below a placement key; an empty key means: the last
    /// region.
    pub async fn region_below(&self, key: &[u8]) -> Result<RegionInfo, ClientError> {
        if key.is_empty() {
            let regions = self.regions(b"", usize::MAX).await?;
            return regions
                .into_iter()
                .next_back()
                .ok_or(ClientError::Malformed { call: "ScanRegions", what: "region" });
        }
        let here = self.region_holding(key).await?;
        if here.region.start_key < *key {
            return Ok(here);
        }
        let request = pdpb::GetRegionRequest {
            header: self.header(),
            region_key: key.to_vec().into(),
            ..Default::default()
        };
        let call = |mut client: PdClient<Channel>| {
            let request = request.clone();
            async move { client.get_prev_region(request).await }
        };
        let reply = self.call("GetPrevRegion", call, |reply| reply.header.as_ref()).await?;
        region_info("GetPrevRegion", reply)
    }

    /// Up to `limit` regions from the one that holds the placement key `start` on, in key order.
    pub async fn regions(
        &self,
        start: &[u8],
        limit: usize,
    ) -> Result<Vec<RegionInfo>, ClientError> {
        let mut regions: Vec<RegionInfo> = Vec::new();
        let mut start = start.to_vec();
        while regions.len() < limit {
            let page = self.region_page(&start, limit - regions.len()).await?;
            let Some(last) = page.last() else { break };
            start = last.region.end_key.to_vec();
            regions.extend(page);
            if start.is_empty() {
                break;
            }
        }
        Ok(regions)
    }

    async fn region_page(
        &self,
        start: &[u8],
        limit: usize,
    ) -> Result<Vec<RegionInfo>, ClientError> {
        let request = pdpb::ScanRegionsRequest {
            header: self.header(),
            start_key: start.to_vec().into(),
            limit: i32::try_from(limit).map_or(REGIONS_A_PAGE, |limit| limit.min(REGIONS_A_PAGE)),
            ..Default::default()
        };
        let call = |mut client: PdClient<Channel>| {
            let request = request.clone();
            async move { client.scan_regions(request).await }
        };
        let reply = self.call("ScanRegions", call, |reply| reply.header.as_ref()).await?;
        let whole = reply.regions.into_iter();
        let known = whole.filter_map(|r| Some(RegionInfo { region: r.region?, leader: r.leader }));
        Ok(known.collect())
    }

    /// One store.
    pub async fn store(&self, id: u64) -> Result<metapb::Store, ClientError> {
        let request = pdpb::GetStoreRequest { header: self.header(), store_id: id };
        let call = |mut client: PdClient<Channel>| {
            let request = request.clone();
            async move { client.get_store(request).await }
        };
        let reply = self.call("GetStore", call, |reply| reply.header.as_ref()).await?;
        reply.store.ok_or(ClientError::Malformed { call: "GetStore", what: "store" })
    }

    /// All stores that were not removed for good.
    pub async fn stores(&self) -> Result<Vec<metapb::Store>, ClientError> {
        let request =
            pdpb::GetAllStoresRequest { header: self.header(), exclude_tombstone_stores: true };
        let call = |mut client: PdClient<Channel>| {
            let request = request.clone();
            async move { client.get_all_stores(request).await }
        };
        let reply = self.call("GetAllStores", call, |reply| reply.header.as_ref()).await?;
        Ok(reply.stores)
    }

    fn header(&self) -> Option<pdpb::RequestHeader> {
        Some(pdpb::RequestHeader { cluster_id: self.cluster_id, ..Default::default() })
    }

    fn client(&self) -> PdClient<Channel> {
        self.client.lock().expect("no holder of this lock panics").clone()
    }

    /// Sends a call until it is answered without an error that passes: every call here only reads.
    async fn call<T, F>(
        &self,
        name: &'static str,
        send: impl Fn(PdClient<Channel>) -> F,
        header: fn(&T) -> Option<&pdpb::ResponseHeader>,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut backoff = Backoff::new(BUDGET);
        loop {
            let last = match with_timeout(send(self.client())).await {
                Ok(reply) => match header_error(name, header(reply.get_ref()))? {
                    None => return Ok(reply.into_inner()),
                    Some(passing) => passing,
                },
                Err(status) if passes(&status) => {
                    self.find_leader().await;
                    describe(&status)
                }
                Err(status) => {
                    return Err(ClientError::Refused { call: name, message: describe(&status) });
                }
            };
            let tries = backoff.tries() + 1;
            let Some(wait) = backoff.next_wait() else {
                return Err(ClientError::GaveUp { call: name, tries, last });
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Turns to the present leader, if a member can be asked for it.
    async fn find_leader(&self) {
        let Ok(member) = open(&self.address).await else { return };
        let Ok(members) = ask_members(member.clone(), &self.address).await else { return };
        let leader = open_leader(&members).await.unwrap_or(member);
        *self.client.lock().expect("no holder of this lock panics") = leader;
    }
}

async fn open(address: &str) -> Result<PdClient<Channel>, ClientError> {
    let channel = endpoint(address)?.connect().await.map_err(|error| ClientError::Unreachable {
        address: address.to_owned(),
        cause: root_cause(&error),
    })?;
    Ok(PdClient::new(channel).max_decoding_message_size(usize::MAX))
}

async fn open_leader(members: &pdpb::GetMembersResponse) -> Option<PdClient<Channel>> {
    let url = members.leader.as_ref()?.client_urls.first()?;
    open(url).await.ok()
}

async fn ask_members(
    mut client: PdClient<Channel>,
    address: &str,
) -> Result<pdpb::GetMembersResponse, ClientError> {
    let reply = with_timeout(client.get_members(pdpb::GetMembersRequest::default())).await;
    let reply = reply.map_err(|status| ClientError::Unreachable {
        address: address.to_owned(),
        cause: describe(&status),
    })?;
    Ok(reply.into_inner())
}

async fn with_timeout<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}

/// Whether another try, perhaps at another member, may succeed.
fn passes(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
}

/// The error in a header: none, one that passes, or one that does not.
fn header_error(
    call: &'static str,
    header: Option<&pdpb::ResponseHeader>,
) -> Result<Option<String>, ClientError> {
    let Some(error) = header.and_then(|header| header.error.as_ref()) else { return Ok(None) };
    match error.r#type() {
        pdpb::ErrorType::Ok => Ok(None),
        pdpb::ErrorType::NotBootstrapped => Ok(Some("the cluster is not bootstrapped yet".into())),
        _ => Err(ClientError::Refused { call, message: error.message.clone() }),
    }
}

fn region_info(
    call: &'static str,
    reply: pdpb::GetRegionResponse,
) -> Result<RegionInfo, ClientError> {
    let region = reply.region.ok_or(ClientError::Malformed { call, what: "region" })?;
    Ok(RegionInfo { region, leader: reply.leader })
}
