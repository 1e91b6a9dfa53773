//! What is served besides leases, and what is not served yet.

use std::time::Duration;

use futures::stream;
use palisade_api::v1::admin_service_client::AdminServiceClient;
use palisade_api::v1::{
    AdvanceGenerationRequest, CheckTokenRequest, DrainRequest, GetLeaseRequest, GetStatusRequest,
    RevokeLeaseRequest, WatchLeasesRequest,
};
use palisade_api::{AttachRequest, ErrorReason};
use palisade_coordinator::serve::{ServeError, Server};
use tonic::{Code, Status};
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::{Coordinator, acquire, asking, channel, open, refused, settings};

fn not_served(status: &Status) {
    refused(status, Code::Unimplemented, ErrorReason::NotServed);
}

#[tokio::test]
async fn what_is_not_served_yet_says_so() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client.clone();
    let attach = client.attach(stream::empty::<AttachRequest>()).await;
    not_served(&attach.unwrap_err());
    let watch = client.watch_leases(WatchLeasesRequest::default()).await;
    not_served(&watch.unwrap_err());
    let check = client.check_token(CheckTokenRequest::default()).await;
    not_served(&check.unwrap_err());

    let session = open(&client, "s").await;
    let mut delayed = asking(&session, "r1", "x", Duration::ZERO);
    delayed.lock_delay_ms = 1;
    not_served(&acquire(&client, delayed).await.unwrap_err());
    let queue = GetLeaseRequest {
        resource: "x".to_owned(),
        queue_size: 1,
    };
    not_served(&client.get_lease(queue).await.unwrap_err());

    let mut admin = AdminServiceClient::new(channel(coordinator.addresses).await);
    let revoke = admin.revoke_lease(RevokeLeaseRequest::default()).await;
    not_served(&revoke.unwrap_err());
    let advance = AdvanceGenerationRequest::default();
    not_served(&admin.advance_generation(advance).await.unwrap_err());
    not_served(&admin.get_status(GetStatusRequest {}).await.unwrap_err());
    not_served(&admin.drain(DrainRequest::default()).await.unwrap_err());
    drop((client, admin));
    coordinator.stop().await;
}

#[tokio::test]
async fn reflection_answers_in_both_versions() {
    let coordinator = Coordinator::start().await;
    let expected = [
        "grpc.health.v1.Health",
        "palisade.v1.AdminService",
        "palisade.v1.LeaseService",
    ];

    let channel = channel(coordinator.addresses).await;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let list = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let answers = client.server_reflection_info(stream::iter([list])).await;
    let answer = answers.unwrap().into_inner().message().await.unwrap();
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        answer.unwrap().message_response
    else {
        panic!("no list")
    };
    let names: Vec<_> = list.service.into_iter().map(|found| found.name).collect();
    assert!(
        expected
            .iter()
            .all(|name| names.contains(&(*name).to_owned())),
        "{names:?}"
    );

    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let find = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                "palisade.v1.LeaseService".to_owned(),
            ),
        ),
    };
    let answers = client.server_reflection_info(stream::iter([find])).await;
    let answer = answers.unwrap().into_inner().message().await.unwrap();
    assert!(matches!(
        answer.unwrap().message_response,
        Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_))
    ));
    drop(client);
    coordinator.stop().await;
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let coordinator = Coordinator::start().await;
    for setting in ["listen", "http"] {
        let mut settings = settings();
        let taken = match setting {
            "listen" => {
                settings.listen = coordinator.addresses.grpc;
                settings.listen
            }
            _ => {
                settings.http = coordinator.addresses.http;
                settings.http
            }
        };
        match Server::open(settings).await {
            Err(error @ ServeError::AddressInUse { address, .. }) => {
                assert_eq!(address, taken);
                assert!(error.to_string().contains(&taken.to_string()), "{error}");
                assert!(error.to_string().contains(setting), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
    coordinator.stop().await;
}
