//! `etcdserverpb.Cluster`: the members. They come and go with the replicas of the system region,
//! which the placement driver sees to, so the calls that change them are not served.

use base::{PeerRole, RegionId, StoreId};
use proto::etcdserverpb::cluster_server::Cluster;
use proto::etcdserverpb::{Member, MemberListRequest, MemberListResponse};
use tonic::{Request, Response, Status};

use super::Etcd;
use super::status::no_leader;

impl Etcd {
    /// Whether a member has no vote yet. A node without a replica does not know, and says no.
    pub(super) fn learns(&self, store: StoreId) -> bool {
        let view = self.desk.host().store().views().get(RegionId::SYSTEM);
        let peer = view.as_ref().and_then(|view| view.region.peer_on(store));
        peer.is_some_and(|peer| peer.role == PeerRole::Learner)
    }
}

#[tonic::async_trait]
impl Cluster for Etcd {
    async fn member_list(
        &self,
        _: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let known = self.members.now().await.ok_or_else(no_leader)?;
        let members = known.members.into_iter().map(|member| Member {
            id: member.store.0,
            name: member.name,
            peer_ur_ls: vec![member.peer_url],
            client_ur_ls: vec![member.client_url],
            is_learner: self.learns(member.store),
        });
        let members = members.collect();
        Ok(Response::new(MemberListResponse { header: self.header(), members }))
    }
}
