//! The methods of `palisade.v1.LeaseService`, each a call of its own code with its errors made statuses.

use futures::StreamExt;
use futures::stream::BoxStream;
use palisade_api::v1::lease_service_server::LeaseService;
use palisade_api::v1::{
    CheckTokenRequest, CheckTokenResponse, CloseSessionRequest, CloseSessionResponse,
    GetLeaseRequest, GetLeaseResponse, ListLeasesRequest, ListLeasesResponse, OpenSessionRequest,
    OpenSessionResponse, RenewSessionRequest, RenewSessionResponse, WatchLeasesRequest,
    WatchLeasesResponse,
};
use palisade_api::{
    AcquireRequest, AcquireResponse, AttachRequest, AttachResponse, ReleaseRequest, ReleaseResponse,
};
use tonic::{Request, Response, Status, Streaming};

use super::error::About;
use super::{Service, answer};

#[tonic::async_trait]
impl LeaseService for Service {
    type AttachStream = BoxStream<'static, Result<AttachResponse, Status>>;
    type WatchLeasesStream = BoxStream<'static, Result<WatchLeasesResponse, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        answer(
            self.try_attach(request).map(StreamExt::boxed),
            &About::default(),
        )
    }

    async fn open_session(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        let mut about = About::default();
        answer(self.try_open(request, &mut about).await, &about)
    }

    async fn renew_session(
        &self,
        request: Request<RenewSessionRequest>,
    ) -> Result<Response<RenewSessionResponse>, Status> {
        let mut about = About::default();
        answer(self.try_renew(request, &mut about).await, &about)
    }

    async fn close_session(
        &self,
        request: Request<CloseSessionRequest>,
    ) -> Result<Response<CloseSessionResponse>, Status> {
        let mut about = About::default();
        answer(self.try_close(request, &mut about).await, &about)
    }

    async fn acquire(
        &self,
        request: Request<AcquireRequest>,
    ) -> Result<Response<AcquireResponse>, Status> {
        let mut about = About::default();
        answer(self.try_acquire(request, &mut about).await, &about)
    }

    async fn release(
        &self,
        request: Request<ReleaseRequest>,
    ) -> Result<Response<ReleaseResponse>, Status> {
        let mut about = About::default();
        answer(self.try_release(request, &mut about).await, &about)
    }

    async fn get_lease(
        &self,
        request: Request<GetLeaseRequest>,
    ) -> Result<Response<GetLeaseResponse>, Status> {
        let mut about = About::default();
        answer(self.try_get(request, &mut about).await, &about)
    }

    async fn list_leases(
        &self,
        request: Request<ListLeasesRequest>,
    ) -> Result<Response<ListLeasesResponse>, Status> {
        answer(self.try_list(request).await, &About::default())
    }

    async fn watch_leases(
        &self,
        request: Request<WatchLeasesRequest>,
    ) -> Result<Response<Self::WatchLeasesStream>, Status> {
        answer(self.try_watch(request), &About::default())
    }

    async fn check_token(
        &self,
        request: Request<CheckTokenRequest>,
    ) -> Result<Response<CheckTokenResponse>, Status> {
        let mut about = About::default();
        answer(self.try_check(request, &mut about).await, &about)
    }
}
