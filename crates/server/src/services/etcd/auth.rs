//! `etcdserverpb.Auth`: answers as an etcd whose authentication is off and that has no users.
//! Calls that would make users or roles, or turn it on, are not served.

use proto::etcdserverpb::auth_server::Auth;
use proto::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthRoleGetRequest, AuthRoleGetResponse,
    AuthRoleListRequest, AuthRoleListResponse, AuthStatusRequest, AuthStatusResponse,
    AuthUserGetRequest, AuthUserGetResponse, AuthUserListRequest, AuthUserListResponse,
    AuthenticateRequest, AuthenticateResponse,
};
use tonic::{Request, Response, Status};

use super::Etcd;

#[tonic::async_trait]
impl Auth for Etcd {
    async fn auth_status(
        &self,
        _: Request<AuthStatusRequest>,
    ) -> Result<Response<AuthStatusResponse>, Status> {
        // etcd counts its changes of users from 1.
        let auth_revision = 1;
        Ok(Response::new(AuthStatusResponse {
            header: self.header(),
            enabled: false,
            auth_revision,
        }))
    }

    async fn auth_disable(
        &self,
        _: Request<AuthDisableRequest>,
    ) -> Result<Response<AuthDisableResponse>, Status> {
        Ok(Response::new(AuthDisableResponse { header: self.header() }))
    }

    async fn authenticate(
        &self,
        _: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        Err(Status::failed_precondition("etcdserver: authentication is not enabled"))
    }

    async fn user_list(
        &self,
        _: Request<AuthUserListRequest>,
    ) -> Result<Response<AuthUserListResponse>, Status> {
        let header = self.header();
        Ok(Response::new(AuthUserListResponse { header, ..Default::default() }))
    }

    async fn user_get(
        &self,
        _: Request<AuthUserGetRequest>,
    ) -> Result<Response<AuthUserGetResponse>, Status> {
        Err(Status::failed_precondition("etcdserver: user name not found"))
    }

    async fn role_list(
        &self,
        _: Request<AuthRoleListRequest>,
    ) -> Result<Response<AuthRoleListResponse>, Status> {
        let header = self.header();
        Ok(Response::new(AuthRoleListResponse { header, ..Default::default() }))
    }

    async fn role_get(
        &self,
        _: Request<AuthRoleGetRequest>,
    ) -> Result<Response<AuthRoleGetResponse>, Status> {
        Err(Status::failed_precondition("etcdserver: role name not found"))
    }
}
