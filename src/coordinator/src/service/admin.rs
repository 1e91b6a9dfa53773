use palisade_api::v1::admin_service_server::AdminService;
use palisade_api::v1::{
    AdvanceGenerationRequest, AdvanceGenerationResponse, DrainRequest, DrainResponse,
    GetStatusRequest, GetStatusResponse, RevokeLeaseRequest, RevokeLeaseResponse,
};
use tonic::{Request, Response, Status};

use super::not_served;

/// `palisade.v1.AdminService`, of which this version serves nothing and says so.
#[derive(Debug, Clone, Copy, Default)]
pub struct Admin;

#[tonic::async_trait]
impl AdminService for Admin {
    async fn revoke_lease(
        &self,
        _request: Request<RevokeLeaseRequest>,
    ) -> Result<Response<RevokeLeaseResponse>, Status> {
        not_served("RevokeLease")
    }

    async fn advance_generation(
        &self,
        _request: Request<AdvanceGenerationRequest>,
    ) -> Result<Response<AdvanceGenerationResponse>, Status> {
        not_served("AdvanceGeneration")
    }

    async fn get_status(
        &self,
        _request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        not_served("GetStatus")
    }

    async fn drain(
        &self,
        _request: Request<DrainRequest>,
    ) -> Result<Response<DrainResponse>, Status> {
        not_served("Drain")
    }
}
