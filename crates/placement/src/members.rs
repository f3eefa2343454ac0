//! The members: the nodes that may become the placement driver, and where clients reach them.
//!
//! Every member tells the same, leader or not, and whatever the request's header says: this is the
//! first thing a client asks, before it knows the cluster's id. So it is no part of
//! [`Placement`](crate::Placement), which only the leader has.

use base::{ClusterId, StoreId};
use proto::pdpb;

use crate::header;

/// One node that may become the placement driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its store; the member's id on the wire, where 0 would mean "nobody".
    pub store: StoreId,
    /// For people.
    pub name: String,
    /// Where clients reach it, with scheme: `http://host:port`.
    pub client_url: String,
    /// Where other members reach it, in the same form.
    pub peer_url: String,
    /// Its program's version.
    pub version: String,
}

impl Member {
    /// As it travels.
    pub fn to_wire(&self) -> pdpb::Member {
        assert!(self.store.0 != 0, "a member without a store");
        // Clients parse the URL and cannot do without a scheme, nor with a path.
        assert!(self.client_url.contains("://") && !self.client_url.ends_with('/'));
        pdpb::Member {
            name: self.name.clone(),
            member_id: self.store.0,
            peer_urls: vec![self.peer_url.clone()],
            client_urls: vec![self.client_url.clone()],
            binary_version: self.version.clone(),
            ..Default::default()
        }
    }
}

/// The members and who leads them, as a node sees it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// All of them.
    pub members: Vec<Member>,
    /// The leader's store; `None` if the node knows of no leader.
    pub leader: Option<StoreId>,
}

impl Members {
    /// GetMembers: answers any request.
    pub fn get_members(&self) -> pdpb::GetMembersResponse {
        let leader = self.members.iter().find(|member| Some(member.store) == self.leader);
        let leader = leader.map(Member::to_wire);
        assert!(!self.members.is_empty(), "the node that answers is one");
        assert!(leader.is_some() || self.leader.is_none(), "the leader is a member");
        pdpb::GetMembersResponse {
            header: Some(header::success(self.cluster_id)),
            members: self.members.iter().map(Member::to_wire).collect(),
            etcd_leader: leader.clone(),
            leader,
            ..Default::default()
        }
    }
}

/// GetClusterInfo: answers any request. Timestamps come from the placement driver itself.
pub fn cluster_info(cluster_id: ClusterId) -> pdpb::GetClusterInfoResponse {
    pdpb::GetClusterInfoResponse {
        header: Some(header::success(cluster_id)),
        service_modes: vec![pdpb::ServiceMode::PdSvcMode.into()],
        tso_urls: Vec::new(),
    }
}
