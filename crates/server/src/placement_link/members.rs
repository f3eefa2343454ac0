//! The members as this node sees them: the nodes with a replica of the system region, and the one
//! that leads it.

use std::sync::Arc;

use base::{KeyRange, RegionId, StoreId};
use placement::{Member, Members, STORE_ROWS, known_stores};
use proto::{metapb, pdpb};
use storage::engine::Engine;
use store::{RegionView, RegionViews};

use super::KnownMembers;
use super::remote::{Remote, addresses_of, cluster_of};
use crate::node::COMPATIBLE_VERSION;
use crate::placement_host::rows;

/// What to look at. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LocalMembers(Arc<Shared>);

struct Shared {
    engine: Arc<dyn Engine>,
    views: Arc<RegionViews>,
    remote: Remote,
    /// Where this node is reached, `host:port`.
    advertise: String,
}

impl LocalMembers {
    pub(crate) fn new(
        engine: &Arc<dyn Engine>,
        views: &Arc<RegionViews>,
        remote: &Remote,
        advertise: &str,
    ) -> Self {
        let (engine, views) = (engine.clone(), views.clone());
        let (remote, advertise) = (remote.clone(), advertise.to_owned());
        Self(Arc::new(Shared { engine, views, remote, advertise }))
    }

    /// Where this node is reached, `host:port`.
    pub(crate) fn advertise(&self) -> &str {
        &self.0.advertise
    }

    /// The members; `None` if this node is none and no member answers.
    pub(crate) async fn now(&self) -> Option<Members> {
        if let Some(members) = self.in_replica() {
            return Some(members);
        }
        let answer = self.0.remote.members().await?;
        let leader = answer.leader.as_ref().map(|leader| StoreId(leader.member_id));
        let members: Vec<_> = answer.members.iter().filter_map(from_wire).collect();
        let leader = leader.filter(|leader| members.iter().any(|m| m.store == *leader));
        let cluster_id = cluster_of(&answer);
        (!members.is_empty()).then_some(Members { cluster_id, members, leader })
    }

    /// The members as the replica of the system region here knows them, if there is one.
    pub(crate) fn in_replica(&self) -> Option<Members> {
        let view = self.0.views.get(RegionId::SYSTEM)?;
        let stores = stores(&*self.0.engine);
        let members: Vec<_> = view
            .region
            .peers
            .iter()
            .filter_map(|peer| Some(member(peer.store_id, &self.address(peer.store_id, &stores)?)))
            .collect();
        let leader = view.leader.map(|leader| leader.store_id);
        let leader = leader.filter(|leader| members.iter().any(|m| m.store == *leader));
        let cluster_id = self.0.remote.cluster_id();
        (!members.is_empty()).then_some(Members { cluster_id, members, leader })
    }

    /// Where the leader is reached, `host:port`, if it is another node.
    pub(crate) async fn leader_elsewhere(&self) -> Option<String> {
        let members = self.now().await?;
        let leader = members.members.iter().find(|member| Some(member.store) == members.leader)?;
        let address = leader.client_url.split_once("://").map(|(_, address)| address.to_owned())?;
        (address != self.0.advertise).then_some(address)
    }

    /// Keeps what is known of the members for the next start.
    pub(crate) async fn remember(&self, known: &KnownMembers) {
        let Some(members) = self.now().await else { return };
        let addresses = addresses_of(&members.get_members());
        let others = addresses.into_values().filter(|address| *address != self.0.advertise);
        known.remember(others.collect());
    }

    /// This node knows best where it is itself.
    fn address(&self, id: StoreId, stores: &[metapb::Store]) -> Option<String> {
        if id == self.0.views.store_id() {
            return Some(self.0.advertise.clone());
        }
        let known = stores.iter().find(|store| store.id == id.0);
        // What was another's address before is ours now: where that one is nobody knows.
        known.map(|store| store.address.clone()).filter(|address| *address != self.0.advertise)
    }
}

/// Addresses of the other members, as far as the system region's replica here knows them.
pub(crate) fn members_in(engine: &dyn Engine, views: &RegionViews) -> Vec<String> {
    let Some(view) = views.get(RegionId::SYSTEM) else { return Vec::new() };
    let others = |view: &RegionView| {
        let us = views.store_id();
        let ids = view.region.peers.iter().map(|peer| peer.store_id);
        ids.filter(move |id| *id != us).collect::<Vec<_>>()
    };
    let stores = stores(engine);
    let address = |id: &StoreId| stores.iter().find(|store| store.id == id.0);
    others(&view).iter().filter_map(address).map(|store| store.address.clone()).collect()
}

/// The stores as the system region's replica here has them; none if there is no replica.
pub(super) fn stores(engine: &dyn Engine) -> Vec<metapb::Store> {
    let (start, end) = STORE_ROWS;
    match rows(engine, &KeyRange::new(start, end)) {
        Ok(rows) => known_stores(rows.iter().map(|(key, value)| (key, value))),
        Err(error) => {
            tracing::warn!(%error, "the stores' rows cannot be read");
            Vec::new()
        }
    }
}

fn member(store: StoreId, address: &str) -> Member {
    let url = format!("http://{address}");
    Member {
        store,
        name: format!("pontoon-{store}"),
        client_url: url.clone(),
        peer_url: url,
        version: COMPATIBLE_VERSION.to_owned(),
    }
}

fn from_wire(member: &pdpb::Member) -> Option<Member> {
    let client_url = member.client_urls.first()?.clone();
    Some(Member {
        store: StoreId(member.member_id),
        name: member.name.clone(),
        peer_url: member.peer_urls.first().unwrap_or(&client_url).clone(),
        client_url,
        version: member.binary_version.clone(),
    })
}
