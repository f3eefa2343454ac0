//! The first start: a cluster is founded, its first region made. What is decided by [`FirstRegion`]
//! is done here.

use std::time::Duration;

use base::{ClusterId, Instant, Region, RegionId, StoreId};
use placement::PlacementError;
use proto::{metapb, pdpb};
use storage::engine::Engine;
use storage::log::{LogBatch, RaftLog};
use store::bootstrap::{self, Action, Event, FirstRegion, Outcome};
use store::{Birth, Recovered, ShardInput, StoreIdent};
use tokio::sync::oneshot;

use crate::node::StartError;
use crate::placement_link::{LinkError, PlacementLink};
use crate::runtime::Mailbox;

/// How long the placement driver may take to answer a call.
const CALL_BUDGET: Duration = Duration::from_secs(10);

/// The identity of the store in the folder, if it has one, checked against what the configuration
/// asks for.
pub(crate) fn identity(
    engine: &dyn Engine,
    api_version: txn::ApiVersion,
) -> Result<Option<StoreIdent>, StartError> {
    let Some(ident) = bootstrap::store_ident(engine)? else {
        return Ok(None);
    };
    let found = u8::try_from(ident.api_version).ok().and_then(txn::ApiVersion::from_number);
    match found {
        Some(found) if found == api_version => Ok(Some(ident)),
        Some(found) => {
            let (found, asked) = (found.name(), api_version.name());
            Err(StartError::ApiVersion { found, asked })
        }
        None => Err(StartError::UnknownApiVersion(ident.api_version)),
    }
}

/// The identity of a store that founds a cluster.
pub(crate) fn founder(cluster_id: ClusterId, api_version: txn::ApiVersion) -> StoreIdent {
    let api_version = i32::from(api_version.number());
    StoreIdent { cluster_id, store_id: StoreId::FOUNDER, api_version }
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
    pub(crate) link: &'a PlacementLink,
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
            let action = decision.next(self.now(), event);
            event = match action {
                Action::Finish(Outcome::Ours(region)) => {
                    let id = region.id;
                    self.tell(ShardInput::Create(Birth::initial(region)))?;
                    return Ok(Some(id));
                }
                Action::Finish(Outcome::Others) => return Ok(None),
                Action::Finish(Outcome::GaveUp(cause)) => return Err(StartError::Bootstrap(cause)),
                Action::WaitUntil(instant) => {
                    let wait = instant.since(self.now()).max(Duration::from_millis(1));
                    tokio::time::sleep(wait).await;
                    Event::TimeHasCome
                }
                Action::Prepare(region) => self.prepare(&region).await?,
                Action::Clear => {
                    bootstrap::clear_prepared(self.engine())?;
                    Event::Written
                }
                Action::Remove(region) => self.remove(region).await?,
                call => self.call(call).await.unwrap_or_else(|e| Event::CallFailed(e.to_string())),
            };
        }
    }

    async fn prepare(&self, region: &Region) -> Result<Event, StartError> {
        bootstrap::prepare_region(self.engine(), region)?;
        let mut batch = LogBatch::new();
        bootstrap::initial_log(&mut batch, region.id);
        self.write_log(batch).await
    }

    async fn remove(&self, region: RegionId) -> Result<Event, StartError> {
        let mut batch = LogBatch::new();
        batch.remove(region);
        let written = self.write_log(batch).await?;
        bootstrap::remove_prepared(self.engine(), region)?;
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
    async fn call(&self, action: Action) -> Result<Event, LinkError> {
        match action {
            Action::AskBootstrapped => {
                Ok(Event::Bootstrapped(self.link.is_bootstrapped(CALL_BUDGET).await?))
            }
            Action::AllocId => Ok(Event::Id(self.link.alloc_id(CALL_BUDGET).await?)),
            Action::Bootstrap(region) => {
                let region = Some(proto::region_to_proto(&region));
                let (header, store) = (self.link.header(), Some(self.store.clone()));
                let request = pdpb::BootstrapRequest { header, store, region };
                match self.link.bootstrap(&request, CALL_BUDGET).await {
                    Err(LinkError::Refused(e)) if is_already_bootstrapped(&e) => {
                        Ok(Event::AlreadyBootstrapped)
                    }
                    result => result.map(|()| Event::Accepted),
                }
            }
            Action::AskFirstRegion => {
                let region = self.link.region_of_key(b"", CALL_BUDGET).await?.region;
                let region = region.as_ref().map(proto::region_from_proto);
                let unknown = || Event::CallFailed("placement has no first region".to_owned());
                Ok(region.map_or_else(unknown, Event::PlacementRegion))
            }
            other => unreachable!("{other:?} is no call"),
        }
    }

    fn now(&self) -> Instant {
        self.link.host().now()
    }

    fn engine(&self) -> &dyn Engine {
        &**self.link.host().store().engine()
    }
}

fn is_already_bootstrapped(error: &PlacementError) -> bool {
    error.in_header().is_some_and(|error| error.r#type() == pdpb::ErrorType::AlreadyBootstrapped)
}
