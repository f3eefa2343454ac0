//! The services of etcd, version 3, on the placement driver's address.
//!
//! ```text
//!   KV, Lease, Watch, Maintenance.Hash*   where the placement driver runs; elsewhere passed on
//!   Cluster, Maintenance, Auth            each node for itself
//!
//!   call ──> forward ──┬─ it runs here ──> desk ──> rows of the system region, or memory
//!                      └─ it does not ──> the node where it does, byte for byte, and back
//! ```
//!
//! Unlike the calls of [`super::pd`], these are passed on: a client of etcd takes any member for as
//! good as any other, and never looks for the leader.
//!
//! What the words mean is the placement driver's (`placement::etcd`); here they get headers and
//! gRPC's codes. Where to start: [`server`], then `kv`; `forward` for the way to the leader.

mod auth;
mod cluster;
mod forward;
mod kv;
mod lease;
mod maintenance;
mod status;
mod watch;

use proto::etcdserverpb::ResponseHeader;
use proto::etcdserverpb::auth_server::AuthServer;
use proto::etcdserverpb::cluster_server::ClusterServer;
use proto::etcdserverpb::kv_server::KvServer;
use proto::etcdserverpb::lease_server::LeaseServer;
use proto::etcdserverpb::maintenance_server::MaintenanceServer;
use proto::etcdserverpb::watch_server::WatchServer;
use tokio::sync::watch as channel;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;

pub(crate) use forward::{Forwarder, Route};

use crate::placement_host::EtcdDesk;
use crate::placement_link::LocalMembers;

/// The release of etcd whose API this is, as `endpoint status` shows it.
pub(crate) const COMPATIBLE_ETCD: &str = "3.5.0";

/// The largest message that is read; what the rules allow is smaller and gets an answer in etcd's
/// words.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// What every service here has.
#[derive(Clone)]
pub(crate) struct Etcd {
    desk: EtcdDesk,
    members: LocalMembers,
    closed: channel::Receiver<bool>,
}

impl Etcd {
    pub(crate) fn new(
        desk: EtcdDesk,
        members: LocalMembers,
        closed: channel::Receiver<bool>,
    ) -> Self {
        Self { desk, members, closed }
    }

    /// Adds who answers to a header.
    fn complete(&self, header: &mut Option<ResponseHeader>) {
        let store = self.desk.host().store();
        let header = header.get_or_insert_default();
        header.cluster_id = store.cluster_id().0;
        header.member_id = store.store_id().0;
        header.raft_term = self.term();
    }

    /// A header that tells no revision.
    fn header(&self) -> Option<ResponseHeader> {
        let mut header = None;
        self.complete(&mut header);
        header
    }

    /// The term of the system region as its replica here knows it; 0 if there is none.
    fn term(&self) -> u64 {
        let views = self.desk.host().store().views();
        views.get(base::RegionId::SYSTEM).map_or(0, |view| view.term)
    }
}

/// Adds the services.
pub(super) fn add(routes: Routes, etcd: &Etcd) -> Routes {
    // Each is a type of its own, so there is no loop.
    routes
        .add_service(
            KvServer::new(etcd.clone())
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(WatchServer::new(etcd.clone()).accept_compressed(CompressionEncoding::Gzip))
        .add_service(LeaseServer::new(etcd.clone()).accept_compressed(CompressionEncoding::Gzip))
        .add_service(ClusterServer::new(etcd.clone()).accept_compressed(CompressionEncoding::Gzip))
        .add_service(
            MaintenanceServer::new(etcd.clone()).accept_compressed(CompressionEncoding::Gzip),
        )
        .add_service(AuthServer::new(etcd.clone()).accept_compressed(CompressionEncoding::Gzip))
}
