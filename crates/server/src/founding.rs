//! The first start: a cluster is founded, its first region made. What is decided by [`FirstRegion`]
//! is done here.

use std::time::Duration;

use base::{ClusterId, Region, RegionId, StoreId};
use proto::{metapb, pdpb};
use storage::engine::Engine;
use storage::log::{LogBatch, RaftLog};
use store::bootstrap::{self, Action, Event, FirstRegion, Outcome};
use store::{Birth, Recovered, ShardInput, StoreIdent};
use tokio::sync::oneshot;

use crate::node::StartError;
use crate::placement_host::{HostError, PlacementHost};
use crate::runtime::Mailbox;

/// Gives an empty store its identity as the founder of a cluster, or reads the one it has, and
/// checks it against what the configuration asks for.
pub(crate) fn identity(
    engine: &dyn Engine,
    api_version: txn::ApiVersion,
    cluster_id: impl FnOnce() -> ClusterId,
) -> Result<StoreIdent, StartError> {
    if let Some(ident) = bootstrap::store_ident(engine)? {
        let found = u8::try_from(ident.api_version).ok().and_then(txn::ApiVersion::from_number);
        return match found {
            Some(found) if found == api_version => Ok(ident),
            Some(found) => {
                let (found, asked) = (found.name(), api_version.name());
                Err(StartError::ApiVersion { found, asked })
            }
            None => Err(StartError::UnknownApiVersion(ident.api_version)),
        };
    }
    let ident = StoreIdent {
        cluster_id: cluster_id(),
        store_id: StoreId::FOUNDER,
        api_version: i32::from(api_version.number()),
    };
    bootstrap::bootstrap_store(engine, &ident)?;
    Ok(ident)
}

/// Makes the system region if the founder's first start did not come that far. The log comes first:
/// until the region's states are there the region does not exist, and this is done again.
pub(crate) fn system_region(
    engine: &dyn Engine,
    log: &mut RaftLog,
    ident: &StoreIdent,
) -> Result<(), StartError> {
    if ident.store_id != StoreId::FOUNDER || bootstrap::has_system_region(engine)? {
        return Ok(());
    }
    let mut batch = LogBatch::new();
    bootstrap::initial_log(&mut batch, RegionId::SYSTEM);
    log.write(&batch)?;
    log.sync()?;
    bootstrap::write_system_region(engine)?;
    Ok(())
}

/// The first region's bootstrap, and what it acts on.
pub(crate) struct Founding<'a> {
    pub(crate) host: &'a PlacementHost,
    pub(crate) mailbox: &'a Mailbox,
    pub(crate) store: metapb::Store,
}

impl Founding<'_> {
    /// Goes through the bootstrap of the first region, or what is left of it. The region, if it is
    /// ours, begins to exist, and its id is returned.
    pub(crate) async fn run(&self, recovered: &Recovered) -> Result<Option<RegionId>, StartError> {
        let mut decision = FirstRegion::new(StoreId(self.store.id));
        let mut event = Event::Started { prepared: recovered.prepared.clone() };
        loop {
            let action = decision.next(self.host.now(), event);
            event = match action {
                Action::Finish(Outcome::Ours(region)) => {
                    let id = region.id;
                    self.tell(ShardInput::Create(Birth::initial(region)))?;
                    return Ok(Some(id));
                }
                Action::Finish(Outcome::Others) => return Ok(None),
                Action::Finish(Outcome::GaveUp(cause)) => return Err(StartError::Bootstrap(cause)),
                Action::WaitUntil(instant) => {
                    let wait = instant.since(self.host.now()).max(Duration::from_millis(1));
                    tokio::time::sleep(wait).await;
                    Event::TimeHasCome
                }
                Action::Prepare(region) => self.prepare(&region).await?,
                Action::Clear => {
                    bootstrap::clear_prepared(&**self.host.store().engine())?;
                    Event::Written
                }
                Action::Remove(region) => self.remove(region).await?,
                call => self.call(call).await.unwrap_or_else(|e| Event::CallFailed(e.to_string())),
            };
        }
    }

    async fn prepare(&self, region: &Region) -> Result<Event, StartError> {
        bootstrap::prepare_region(&**self.host.store().engine(), region)?;
        let mut batch = LogBatch::new();
        bootstrap::initial_log(&mut batch, region.id);
        self.write_log(batch).await
    }

    async fn remove(&self, region: RegionId) -> Result<Event, StartError> {
        let mut batch = LogBatch::new();
        batch.remove(region);
        let written = self.write_log(batch).await?;
        bootstrap::remove_prepared(&**self.host.store().engine(), region)?;
        Ok(written)
    }

    async fn write_log(&self, batch: LogBatch) -> Result<Event, StartError> {
        let (send, receive) = oneshot::channel();
        let done = Box::new(move || {
            // Whoever waits may have given up.
            let _ = send.send(());
        });
        self.tell(ShardInput::Log(batch, done))?;
        receive.await.map_err(|_| StartError::Stopped)?;
        Ok(Event::Written)
    }

    fn tell(&self, input: ShardInput) -> Result<(), StartError> {
        self.mailbox.tell(input).map_err(|_| StartError::Stopped)
    }

    /// The calls to placement.
    async fn call(&self, action: Action) -> Result<Event, HostError> {
        let header = || Some(self.header());
        match action {
            Action::AskBootstrapped => {
                let request = pdpb::IsBootstrappedRequest { header: header() };
                let response = self.host.read(|p| p.get_is_bootstrapped(&request))??;
                Ok(Event::Bootstrapped(response.bootstrapped))
            }
            Action::AllocId => {
                let request = pdpb::AllocIdRequest { header: header(), count: 1 };
                let response = self.host.write(|p| p.alloc_id(&request)).await?;
                Ok(Event::Id(response.id))
            }
            Action::Bootstrap(region) => {
                let region = Some(store::region_to_proto(&region));
                let store = Some(self.store.clone());
                let request = pdpb::BootstrapRequest { header: header(), store, region };
                let wall_ms = self.host.wall_ms();
                match self.host.write(|p| p.bootstrap(&request, wall_ms)).await {
                    Err(HostError::Placement(e)) if is_already_bootstrapped(&e) => {
                        Ok(Event::AlreadyBootstrapped)
                    }
                    result => result.map(|_| Event::Accepted),
                }
            }
            Action::AskFirstRegion => {
                let request = pdpb::GetRegionRequest { header: header(), ..Default::default() };
                let region = self.host.read(|p| p.get_region(&request))??.region;
                let region = region.as_ref().map(store::region_from_proto);
                let unknown = || Event::CallFailed("placement has no first region".to_owned());
                Ok(region.map_or_else(unknown, Event::PlacementRegion))
            }
            other => unreachable!("{other:?} is no call"),
        }
    }

    fn header(&self) -> pdpb::RequestHeader {
        pdpb::RequestHeader { cluster_id: self.host.cluster_id().0, ..Default::default() }
    }
}

fn is_already_bootstrapped(error: &placement::PlacementError) -> bool {
    error.in_header().is_some_and(|error| error.r#type() == pdpb::ErrorType::AlreadyBootstrapped)
}
