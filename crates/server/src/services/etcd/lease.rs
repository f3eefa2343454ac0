//! `etcdserverpb.Lease`: keys that go away when nobody renews their lease.

use futures_util::{StreamExt, stream};
use placement::Placement;
use placement::etcd::{EtcdReply, EtcdWrite};
use proto::etcdserverpb::lease_server::Lease;
use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::Etcd;
use super::kv::another_kind;
use super::status::{of_host, stopped};

impl Etcd {
    async fn keep_alive(
        &self,
        request: LeaseKeepAliveRequest,
    ) -> Result<LeaseKeepAliveResponse, Status> {
        let EtcdReply::KeepAlive(mut response) = self.write(EtcdWrite::KeepAlive(request)).await?
        else {
            return Err(another_kind());
        };
        self.complete(&mut response.header);
        Ok(response)
    }
}

#[tonic::async_trait]
impl Lease for Etcd {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let write = EtcdWrite::Grant(request.into_inner());
        let EtcdReply::Grant(mut response) = self.write(write).await? else {
            return Err(another_kind());
        };
        self.complete(&mut response.header);
        Ok(Response::new(response))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let write = EtcdWrite::Revoke(request.into_inner());
        let EtcdReply::Revoke(mut response) = self.write(write).await? else {
            return Err(another_kind());
        };
        self.complete(&mut response.header);
        Ok(Response::new(response))
    }

    /// One answer for each message, until the client ends its side or an error ends both.
    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<BoxStream<LeaseKeepAliveResponse>>, Status> {
        let (etcd, requests, closed) = (self.clone(), request.into_inner(), self.closed.clone());
        // `None`: nothing follows.
        let state = Some((etcd, requests, closed));
        let answers = stream::unfold(state, |state| async move {
            let (etcd, mut requests, mut closed) = state?;
            let request = tokio::select! {
                _ = closed.wait_for(|closed| *closed) => Err(stopped()),
                request = requests.next() => request?,
            };
            let answer = match request {
                Ok(request) => etcd.keep_alive(request).await,
                Err(status) => Err(status),
            };
            let next = answer.is_ok().then_some((etcd, requests, closed));
            Some((answer, next))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let (request, now) = (request.into_inner(), self.desk.host().now());
        let read = |placement: &Placement| placement.etcd_lease_time_to_live(&request, now);
        let mut response = self.desk.read(read).await.map_err(|error| of_host(&error))?;
        self.complete(&mut response.header);
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        _: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let result = self.desk.read(Placement::etcd_leases).await;
        let mut response = result.map_err(|error| of_host(&error))?;
        self.complete(&mut response.header);
        Ok(Response::new(response))
    }
}
