//! The first start of a store that joins a cluster: who it will be.
//!
//! ```text
//!   --join A,B ──> who are the members? ──> stores: same API version, address not taken?
//!               ──> AllocID ──> StoreIdent, synced           from here on it is a store
//!               ──> PutStore, heartbeats (node.rs)
//! ```
//!
//! A node that is told to join never founds a cluster: while nobody answers it waits, says so, and
//! gives up after a time. Every step may be the last one before a crash. Before the ident is synced
//! the next start does all of it again and an id is wasted; after that it is an ordinary restart.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base::{ClusterId, StoreId};
use placement::{PlacementError, api_version};
use proto::{metapb, pdpb};
use store::StoreIdent;
use tonic::{Response, Status};
use txn::ApiVersion;

use super::remote::{Failure, Pd, Remote, addresses_of, ask_members, cluster_of};

/// Time between two rounds of asking.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// How often a node that waits says so.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Why a store does not join. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// `--join` leads nowhere else.
    #[error("--join {0} is this node itself: name another node, or none to found a cluster")]
    Itself(String),
    /// Nobody answered in time.
    #[error("no member of a cluster answered at {targets} within {seconds} s: {last}")]
    Nobody {
        /// Who was asked.
        targets: String,
        /// How long.
        seconds: u64,
        /// What the last try came to.
        last: String,
    },
    /// The cluster's raw data is of another API version.
    #[error(
        "the cluster at {target} holds data of API version {found}, this node is to hold {asked}"
    )]
    ApiVersion {
        /// Who was asked.
        target: String,
        /// What its stores say.
        found: String,
        /// What the configuration says.
        asked: &'static str,
    },
    /// Another store is reached under our address, or was and has not left.
    #[error(
        "address {address} is that of store {store} of the cluster: advertise another one, or if \
         the disk of that store is gone: pontoon ctl remove-store {store} --destroyed"
    )]
    Address {
        /// The address.
        address: String,
        /// Whose it is.
        store: u64,
    },
    /// The data folder belongs to another cluster.
    #[error(
        "the data folder is that of store {store} of cluster {ours}, but {target} is of cluster \
         {theirs}: a store does not change its cluster"
    )]
    OtherCluster {
        /// The store in the folder.
        store: StoreId,
        /// Its cluster.
        ours: ClusterId,
        /// Who was asked.
        target: String,
        /// The cluster there.
        theirs: ClusterId,
    },
    /// The placement driver said no.
    #[error("the cluster at {target} refuses: {cause}")]
    Refused {
        /// Who was asked.
        target: String,
        /// Why.
        cause: PlacementError,
    },
}

/// A store that joins.
pub(crate) struct Joiner<'a> {
    /// Whom to ask.
    pub(crate) targets: &'a [String],
    /// How long to wait for them.
    pub(crate) timeout: Duration,
    /// Where this node listens.
    pub(crate) listen: SocketAddr,
    /// Where others reach it, `host:port`.
    pub(crate) advertise: &'a str,
    /// What it is to hold.
    pub(crate) api_version: ApiVersion,
}

impl Joiner<'_> {
    /// Who this store will be. The caller writes it down.
    pub(crate) async fn run(&self) -> Result<StoreIdent, JoinError> {
        let targets = self.others().await?;
        let mut patience = Patience::new(targets.join(","), self.timeout);
        let members = loop {
            match ask_any(&targets).await {
                Ok(members) => break members,
                Err(cause) => patience.wait(cause).await?,
            }
        };
        let cluster_id = cluster_of(&members);
        let mut known: Vec<_> = addresses_of(&members).into_values().collect();
        known.extend(targets);
        let remote = Remote::new(cluster_id, Box::new(move || known.clone()));
        self.check_stores(&self.stores(&remote, &mut patience).await?, &patience)?;
        let request = &pdpb::AllocIdRequest { header: super::header(cluster_id), count: 1 };
        let alloc = |mut pd: Pd| async move { pd.alloc_id(request.clone()).await };
        let answer = call(&remote, &mut patience, alloc, |answer| answer.header.as_ref()).await?;
        let api_version = i32::from(self.api_version.number());
        Ok(StoreIdent { cluster_id, store_id: StoreId(answer.id), api_version })
    }

    /// For a store that has its identity: checks that none of the targets that answers is of
    /// another cluster. Those that do not answer are not waited for.
    pub(crate) async fn check_cluster(&self, ident: &StoreIdent) -> Result<(), JoinError> {
        for target in self.targets {
            if self.is_here(target).await {
                continue;
            }
            let Ok(members) = ask_members(target).await else { continue };
            let (ours, theirs) = (ident.cluster_id, cluster_of(&members));
            if theirs != ours {
                let (store, target) = (ident.store_id, target.clone());
                return Err(JoinError::OtherCluster { store, ours, target, theirs });
            }
        }
        Ok(())
    }

    /// The targets without this node: one list may be given to all nodes.
    async fn others(&self) -> Result<Vec<String>, JoinError> {
        let mut others = Vec::new();
        for target in self.targets {
            if !self.is_here(target).await {
                others.push(target.clone());
            }
        }
        if others.is_empty() {
            return Err(JoinError::Itself(self.targets.join(",")));
        }
        Ok(others)
    }

    async fn is_here(&self, target: &str) -> bool {
        if target == self.advertise {
            return true;
        }
        // A name that is not known now may be later.
        let Ok(mut addresses) = tokio::net::lookup_host(target).await else { return false };
        let listen = self.listen;
        let is_listen = |address: SocketAddr| {
            let on_this_host = listen.ip().is_unspecified() && address.ip().is_loopback();
            address.port() == listen.port() && (address.ip() == listen.ip() || on_this_host)
        };
        addresses.any(is_listen)
    }

    async fn stores(
        &self,
        remote: &Remote,
        patience: &mut Patience,
    ) -> Result<Vec<metapb::Store>, JoinError> {
        let header = super::header(remote.cluster_id());
        let request = &pdpb::GetAllStoresRequest { header, exclude_tombstone_stores: true };
        let stores = |mut pd: Pd| async move { pd.get_all_stores(request.clone()).await };
        Ok(call(remote, patience, stores, |answer| answer.header.as_ref()).await?.stores)
    }

    fn check_stores(&self, stores: &[metapb::Store], patience: &Patience) -> Result<(), JoinError> {
        let asked = self.api_version.name();
        if let Some(found) = stores.iter().filter_map(api_version).find(|found| *found != asked) {
            let (target, found) = (patience.targets.clone(), found.to_owned());
            return Err(JoinError::ApiVersion { target, found, asked });
        }
        let is_ours =
            |store: &&metapb::Store| store.address == self.advertise && !store.physically_destroyed;
        if let Some(store) = stores.iter().find(is_ours) {
            let address = self.advertise.to_owned();
            return Err(JoinError::Address { address, store: store.id });
        }
        Ok(())
    }
}

/// The first answer that names members and a cluster.
async fn ask_any(targets: &[String]) -> Result<pdpb::GetMembersResponse, String> {
    let mut last = "nobody to ask".to_owned();
    for target in targets {
        match ask_members(target).await {
            Ok(members) if cluster_of(&members).0 != 0 => return Ok(members),
            Ok(_) => last = format!("{target}: no member of a cluster"),
            Err(cause) => last = cause,
        }
    }
    Err(last)
}

/// Calls until the placement driver answers.
async fn call<R, F>(
    remote: &Remote,
    patience: &mut Patience,
    send: impl Fn(Pd) -> F,
    header: fn(&R) -> Option<&pdpb::ResponseHeader>,
) -> Result<R, JoinError>
where
    F: Future<Output = Result<Response<R>, Status>>,
{
    loop {
        let cause = match remote.call(&send, header).await {
            Ok(answer) => return Ok(answer),
            Err(Failure::Refused(cause @ PlacementError::NotBootstrapped)) => cause.to_string(),
            Err(Failure::Refused(cause)) => {
                let target = patience.targets.clone();
                return Err(JoinError::Refused { target, cause });
            }
            Err(Failure::Passing(cause)) => cause,
        };
        patience.wait(cause).await?;
    }
}

/// Waits between tries, says what for, and ends.
struct Patience {
    targets: String,
    timeout: Duration,
    started: Instant,
    logged: Option<Instant>,
}

impl Patience {
    fn new(targets: String, timeout: Duration) -> Self {
        Self { targets, timeout, started: Instant::now(), logged: None }
    }

    async fn wait(&mut self, last: String) -> Result<(), JoinError> {
        if self.started.elapsed() >= self.timeout {
            let (targets, seconds) = (self.targets.clone(), self.timeout.as_secs());
            return Err(JoinError::Nobody { targets, seconds, last });
        }
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            let left = (self.timeout.saturating_sub(self.started.elapsed())).as_secs();
            tracing::warn!(join = self.targets, cause = last, left_s = left, "waiting to join");
            self.logged = Some(Instant::now());
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
        Ok(())
    }
}
