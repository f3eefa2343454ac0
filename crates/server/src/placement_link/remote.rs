//! The placement driver on another node: who leads it, a connection to it, and one try of a call.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base::ClusterId;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use placement::PlacementError;
use proto::pdpb;
use proto::pdpb::pd_client::PdClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

/// A connection to a member, and its answer to who the members are, must be there in this time.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// A call that was not answered in this time is sent to whoever leads then.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// What the members said counts for this long.
const MEMBERS_LAST: Duration = Duration::from_secs(1);

/// The largest answer: no call between nodes needs more.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Connections that stand idle are looked after, so that a peer that vanished is noticed.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// A client of the placement driver.
pub(crate) type Pd = PdClient<Channel>;

/// Why a try failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It may work later or elsewhere.
    Passing(String),
    /// The placement driver said no.
    Refused(PlacementError),
}

/// Addresses, `host:port`, of nodes that know the members, the best first.
pub(crate) type Known = Box<dyn Fn() -> Vec<String> + Send + Sync>;

struct Leader {
    url: String,
    client: Pd,
}

struct Shared {
    cluster_id: ClusterId,
    known: Known,
    leader: Mutex<Option<Leader>>,
    /// The last answer that named members, and when it came.
    members: Mutex<Option<(Instant, pdpb::GetMembersResponse)>>,
    asking: tokio::sync::Mutex<()>,
}

/// The way to it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Remote(Arc<Shared>);

impl Remote {
    pub(crate) fn new(cluster_id: ClusterId, known: Known) -> Self {
        Self(Arc::new(Shared {
            cluster_id,
            known,
            leader: Mutex::default(),
            members: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }))
    }

    /// The cluster.
    pub(crate) fn cluster_id(&self) -> ClusterId {
        self.0.cluster_id
    }

    /// Addresses of nodes that may know the members.
    pub(crate) fn known_addresses(&self) -> Vec<String> {
        (self.0.known)()
    }

    /// What a member says of the members: a fresh answer, or else the last one.
    pub(crate) async fn members(&self) -> Option<pdpb::GetMembersResponse> {
        let fresh = |members: &Option<(Instant, _)>| {
            members.as_ref().is_some_and(|(at, _)| at.elapsed() < MEMBERS_LAST)
        };
        if !fresh(&self.last_members()) {
            let _asking = self.0.asking.lock().await;
            if !fresh(&self.last_members()) {
                // If nobody answers, the last answer has to do.
                let _ = self.ask().await;
            }
        }
        self.last_members().as_ref().map(|(_, members)| members.clone())
    }

    /// A client of the leader.
    pub(crate) async fn leader(&self) -> Result<Pd, String> {
        if let Some(leader) = &*self.cached() {
            return Ok(leader.client.clone());
        }
        // One asks, the others wait for what comes of it.
        let _asking = self.0.asking.lock().await;
        if let Some(leader) = &*self.cached() {
            return Ok(leader.client.clone());
        }
        let members = self.ask().await?;
        let url = leader_url(&members).ok_or("no member knows of a leader")?;
        let client = connect(&url).await?;
        tracing::debug!(url, "the placement driver's leader");
        *self.cached() = Some(Leader { url, client: client.clone() });
        Ok(client)
    }

    /// The next call asks anew who leads.
    pub(crate) fn forget_leader(&self) {
        if let Some(leader) = self.cached().take() {
            tracing::debug!(url = leader.url, "no longer taken for the placement driver's leader");
        }
    }

    /// One try.
    pub(crate) async fn call<R, F>(
        &self,
        send: impl FnOnce(Pd) -> F,
        header: fn(&R) -> Option<&pdpb::ResponseHeader>,
    ) -> Result<R, Failure>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let client = self.leader().await.map_err(Failure::Passing)?;
        match tokio::time::timeout(CALL_TIMEOUT, send(client)).await {
            Ok(Ok(response)) => {
                let response = response.into_inner();
                refusal(header(&response)).map_or(Ok(response), Err)
            }
            Ok(Err(status)) => {
                if !passes(&status) {
                    let message = status.message().to_owned();
                    return Err(Failure::Refused(PlacementError::Invalid { message }));
                }
                self.forget_leader();
                Err(Failure::Passing(describe(&status)))
            }
            Err(_) => {
                self.forget_leader();
                Err(Failure::Passing("the leader did not answer".to_owned()))
            }
        }
    }

    /// Asks all known members at once; the first who knows a leader is right. The caller holds
    /// `asking`.
    async fn ask(&self) -> Result<pdpb::GetMembersResponse, String> {
        let addresses = (self.0.known)();
        let mut asked: FuturesUnordered<_> =
            addresses.iter().map(|address| self.ask_one(address)).collect();
        let mut last = Err("no member is known".to_owned());
        while let Some(answer) = asked.next().await {
            let leads = |answer: &pdpb::GetMembersResponse| leader_url(answer).is_some();
            match answer {
                Ok(members) if leads(&members) => {
                    last = Ok(members);
                    break;
                }
                Err(_) if last.is_ok() => {}
                other => last = other,
            }
        }
        if let Ok(members) = &last {
            *self.last_members() = Some((Instant::now(), members.clone()));
        }
        last
    }

    async fn ask_one(&self, address: &str) -> Result<pdpb::GetMembersResponse, String> {
        let members = ask_members(address).await?;
        let theirs = cluster_of(&members);
        if theirs == self.0.cluster_id {
            return Ok(members);
        }
        tracing::warn!(address, %theirs, ours = %self.0.cluster_id, "a member of another cluster");
        Err(format!("{address} is of cluster {theirs}, this store of {}", self.0.cluster_id))
    }

    fn cached(&self) -> MutexGuard<'_, Option<Leader>> {
        self.0.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_members(&self) -> MutexGuard<'_, Option<(Instant, pdpb::GetMembersResponse)>> {
        self.0.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the node at `address`, `host:port` or a URL, who the members are.
pub(crate) async fn ask_members(address: &str) -> Result<pdpb::GetMembersResponse, String> {
    let ask = async {
        let mut client = connect(address).await?;
        let answer = client.get_members(pdpb::GetMembersRequest::default()).await;
        answer.map(Response::into_inner).map_err(|status| describe(&status))
    };
    let answer = tokio::time::timeout(ASK_TIMEOUT, ask).await;
    let answer = answer.unwrap_or_else(|_| Err("no answer".to_owned()));
    answer.map_err(|cause| format!("{address}: {cause}"))
}

/// The cluster that an answer is of.
pub(crate) fn cluster_of(members: &pdpb::GetMembersResponse) -> ClusterId {
    ClusterId(members.header.as_ref().map_or(0, |header| header.cluster_id))
}

/// Where clients reach the members, `host:port`, each with its store.
pub(crate) fn addresses_of(members: &pdpb::GetMembersResponse) -> BTreeMap<u64, String> {
    let address = |member: &pdpb::Member| Some(without_scheme(member.client_urls.first()?));
    let members = members.members.iter();
    members.filter_map(|member| Some((member.member_id, address(member)?))).collect()
}

fn leader_url(members: &pdpb::GetMembersResponse) -> Option<String> {
    members.leader.as_ref()?.client_urls.first().cloned()
}

/// `host:port` of a URL, or of what is `host:port` already.
pub(crate) fn without_scheme(url: &str) -> String {
    let address = url.split_once("://").map_or(url, |(_, address)| address);
    address.trim_end_matches('/').to_owned()
}

async fn connect(address: &str) -> Result<Pd, String> {
    let endpoint = Endpoint::from_shared(format!("http://{}", without_scheme(address)))
        .map_err(|error| error.to_string())?
        .connect_timeout(ASK_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    let channel = endpoint.connect().await.map_err(|error| root_cause(&error))?;
    Ok(PdClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
}

/// What an answer's header says against it.
fn refusal(header: Option<&pdpb::ResponseHeader>) -> Option<Failure> {
    let error = header?.error.as_ref()?;
    let refusal = match error.r#type() {
        pdpb::ErrorType::Ok => return None,
        pdpb::ErrorType::NotBootstrapped => PlacementError::NotBootstrapped,
        kind => PlacementError::Refused { kind, message: error.message.clone() },
    };
    Some(Failure::Refused(refusal))
}

/// Whether another member, or the same one later, may answer.
fn passes(status: &Status) -> bool {
    let code = status.code();
    matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
        || std::error::Error::source(status).is_some()
}

/// A status in a few words.
pub(crate) fn describe(status: &Status) -> String {
    let source = std::error::Error::source(status);
    source.map_or_else(|| status.message().to_owned(), root_cause)
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
