//! The placement driver: who holds what, and where they are.
//!
//! Any address that was given, and any member that was heard of since, may be asked who leads: the
//! node that was named first may be the one that is down.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{ClientError, LinkError, PlacementReply, PlacementRequest};
use proto::pdpb::pd_client::PdClient;
use proto::{metapb, pdpb};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::{CALL_TIMEOUT, channel, describe};

/// How long a call waits in all for a leader to appear or a cluster to be bootstrapped.
const BUDGET: Duration = Duration::from_secs(10);

/// The wait after a failed try; each is twice the last one, up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Members that are kept in mind; more only if an address changes again and again.
const MEMBERS_MAX: usize = 32;

/// How long one node may take to say who the members are.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

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
    /// Whom to ask who the members are: what was given, then what they said.
    known: Mutex<Vec<String>>,
    cluster_id: u64,
    client: Mutex<PdClient<Channel>>,
}

impl Placement {
    /// Connects to a node, or to the first of several (`A,B,C`) that answers, and from there to the
    /// leader.
    pub async fn connect(addresses: &str) -> Result<Placement, ClientError> {
        let mut known: Vec<String> = addresses.split(',').map(str::to_owned).collect();
        let (client, members) = first_answer(&known).await?;
        let cluster_id = members.header.as_ref().map_or(0, |header| header.cluster_id);
        if cluster_id == 0 {
            return Err(ClientError::Malformed { call: "GetMembers", what: "cluster id" });
        }
        let client = open_leader(&members).await.unwrap_or(client);
        learn(&mut known, &members);
        Ok(Placement { known: Mutex::new(known), cluster_id, client: Mutex::new(client) })
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// The members, and which of them leads.
    pub async fn members(&self) -> Result<pdpb::GetMembersResponse, ClientError> {
        Ok(first_answer(&self.known()).await?.1)
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

    /// Cuts regions at these keys, in the form in which regions are split; those that are a
    /// region's first already are passed over. Returns how many new regions there are.
    pub async fn split(&self, keys: &[Bytes]) -> Result<usize, ClientError> {
        let (header, split_keys) = (self.header(), keys.to_vec());
        let request = pdpb::SplitRegionsRequest { header, split_keys, ..Default::default() };
        let call = |mut client: PdClient<Channel>| {
            let request = request.clone();
            async move { client.split_regions(request).await }
        };
        let reply = self.call("SplitRegions", call, |reply| reply.header.as_ref()).await?;
        match reply.finished_percentage {
            100 => Ok(reply.regions_id.len()),
            _ => Err(ClientError::Malformed { call: "SplitRegions", what: "all its splits" }),
        }
    }

    fn header(&self) -> Option<pdpb::RequestHeader> {
        Some(pdpb::RequestHeader { cluster_id: self.cluster_id, ..Default::default() })
    }

    fn known(&self) -> Vec<String> {
        self.known.lock().expect("no holder of this lock panics").clone()
    }

    /// A connection to the leader, as far as it is known.
    pub(super) fn leader(&self) -> PdClient<Channel> {
        self.client.lock().expect("no holder of this lock panics").clone()
    }

    /// One try of one of the client's calls. After a failure the next goes to whoever leads then.
    pub(super) async fn ask(&self, request: PlacementRequest) -> Result<PlacementReply, LinkError> {
        let mut leader = self.leader();
        let call = async move {
            Ok(match request {
                PlacementRequest::GetRegion(request) => {
                    PlacementReply::GetRegion(leader.get_region(request).await?.into_inner())
                }
                PlacementRequest::GetPrevRegion(request) => {
                    let reply = leader.get_prev_region(request).await?.into_inner();
                    PlacementReply::GetPrevRegion(reply)
                }
                PlacementRequest::ScanRegions(request) => {
                    PlacementReply::ScanRegions(leader.scan_regions(request).await?.into_inner())
                }
                PlacementRequest::Tso(_) => unreachable!("timestamps have a stream of their own"),
            })
        };
        self.try_once(call).await
    }

    /// A call that only reads: lost and not sent are the same.
    async fn try_once<T>(
        &self,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, LinkError> {
        match with_timeout(call).await {
            Ok(reply) => Ok(reply),
            Err(status) if passes(&status) => {
                self.find_leader().await;
                Err(LinkError::Lost(describe(&status)))
            }
            Err(status) => Err(LinkError::Refused(describe(&status))),
        }
    }

    /// Sends a call until it is answered without an error that passes.
    async fn call<T, F>(
        &self,
        name: &'static str,
        send: impl Fn(PdClient<Channel>) -> F,
        header: fn(&T) -> Option<&pdpb::ResponseHeader>,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let (begun, mut wait, mut tries) = (Instant::now(), FIRST_WAIT, 0);
        loop {
            let last = match self.try_once(send(self.leader())).await {
                Ok(reply) => match header_error(name, header(reply.get_ref()))? {
                    None => return Ok(reply.into_inner()),
                    Some(passing) => passing,
                },
                Err(LinkError::Refused(message)) => {
                    return Err(ClientError::Refused { call: name, message });
                }
                Err(LinkError::Lost(why) | LinkError::Unsent(why)) => why,
            };
            tries += 1;
            if begun.elapsed() + wait > BUDGET {
                return Err(ClientError::GaveUp { call: name, tries, last });
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Turns to the present leader, if a member can be asked for it.
    pub(super) async fn find_leader(&self) {
        let Ok((member, members)) = first_answer(&self.known()).await else { return };
        learn(&mut self.known.lock().expect("no holder of this lock panics"), &members);
        let leader = open_leader(&members).await.unwrap_or(member);
        *self.client.lock().expect("no holder of this lock panics") = leader;
    }
}

async fn open(address: &str) -> Result<PdClient<Channel>, ClientError> {
    Ok(PdClient::new(channel(address).await?).max_decoding_message_size(usize::MAX))
}

/// The first node that says who the members are, and of these rather one that knows a leader.
async fn first_answer(
    known: &[String],
) -> Result<(PdClient<Channel>, pdpb::GetMembersResponse), ClientError> {
    let (mut without_leader, mut failure) = (None, None);
    for address in known {
        let asked = async {
            let client = open(address).await?;
            let members = ask_members(client.clone(), address).await?;
            Ok((client, members))
        };
        match asked.await {
            Ok((client, members)) if members.leader.is_some() => return Ok((client, members)),
            Ok(answer) => without_leader = Some(answer),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    without_leader.ok_or_else(|| {
        let nobody = ClientError::Address { address: String::new() };
        failure.unwrap_or(nobody)
    })
}

/// Adds members that were not known.
fn learn(known: &mut Vec<String>, members: &pdpb::GetMembersResponse) {
    for url in members.members.iter().filter_map(|member| member.client_urls.first()) {
        let address = url.split_once("://").map_or(&url[..], |(_, address)| address);
        if !known.iter().any(|known| known == address) && known.len() < MEMBERS_MAX {
            known.push(address.to_owned());
        }
    }
}

async fn open_leader(members: &pdpb::GetMembersResponse) -> Option<PdClient<Channel>> {
    let url = members.leader.as_ref()?.client_urls.first()?;
    open(url).await.ok()
}

async fn ask_members(
    mut client: PdClient<Channel>,
    address: &str,
) -> Result<pdpb::GetMembersResponse, ClientError> {
    let asked = client.get_members(pdpb::GetMembersRequest::default());
    let reply = tokio::time::timeout(ASK_TIMEOUT, asked).await;
    let reply = reply.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
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
