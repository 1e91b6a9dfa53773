//! What is served besides leases.

use std::time::Duration;

use futures::{FutureExt, stream};
use palisade_api::ErrorReason;
use palisade_api::v1::RenewSessionRequest;
use palisade_coordinator::serve::{Addresses, ServeError, Server};
use palisade_test_support::within;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_reflection::pb::{v1, v1alpha};

use crate::store::Switch;
use crate::support::{Coordinator, LONG, channel, memory, open, refused, settings};

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

/// Somebody took the port of HTTP for that of gRPC: the connection ends at once, or says what is wrong.
#[tokio::test]
async fn the_port_of_http_ends_what_begins_as_http_2() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    let coordinator = Coordinator::start().await;
    let address = coordinator.addresses.http;
    for parts in [
        vec![PREFACE, SETTINGS],
        vec![&PREFACE[..14], &PREFACE[14..]],
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        for part in parts {
            stream.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = Vec::new();
        let ended = within("an end", LONG, stream.read_to_end(&mut answer)).await;
        ended.unwrap().unwrap();
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "),
            "{answer:?}"
        );
    }
    let url = format!("http://{address}");
    let channel = tonic::transport::Channel::from_shared(url).unwrap();
    let mut client = crate::support::Client::new(channel.connect_lazy());
    let asked = client.renew_session(RenewSessionRequest::default());
    let status = within("an answer", LONG, asked).await.unwrap().unwrap_err();
    assert!(
        matches!(status.code(), Code::Unavailable | Code::Unknown),
        "{status:?}"
    );
    assert_eq!(
        crate::support::http_get(coordinator.addresses, "/livez")
            .await
            .0,
        200
    );
    coordinator.stop().await;
}

#[tokio::test]
async fn connections_on_which_nothing_comes_are_ended() {
    let mut settings = settings();
    settings.timeouts.preface = Duration::from_millis(50);
    settings.timeouts.http_connection = Duration::from_millis(50);
    let coordinator = Coordinator::with(Switch::new(memory().await), settings).await;
    // One that was used stays.
    open(&coordinator.client, "s").await;
    let Addresses { grpc, http, .. } = coordinator.addresses;
    for (address, beginning) in [
        (grpc, ""),
        (grpc, "P"),
        (grpc, "PRI * HTTP/2.0"),
        (grpc, "GET / HTTP/1.1\r\n"),
        (http, ""),
        (http, "GET /livez HTTP/1.1\r\nhost: x\r\n"),
    ] {
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(beginning.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let ended = within("it is closed", LONG, silent.read_to_end(&mut answer)).await;
        // Closed or reset, either way it is over.
        drop(ended.unwrap());
    }
    let mut client = coordinator.client.clone();
    let renewal = RenewSessionRequest::default();
    let status = client.renew_session(renewal).await.unwrap_err();
    refused(&status, Code::InvalidArgument, ErrorReason::InvalidField);
    drop(client);
    coordinator.stop().await;
}

#[tokio::test]
async fn connections_are_bounded_and_those_that_go_make_room() {
    let mut settings = settings();
    settings.limits.max_connections = 1;
    let coordinator = Coordinator::with(Switch::new(memory().await), settings).await;
    let mut second = TcpStream::connect(coordinator.addresses.grpc)
        .await
        .unwrap();
    second
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let mut byte = [0];
    open(&coordinator.client, "s").await;
    assert!(
        second.read(&mut byte).now_or_never().is_none(),
        "not taken while there is another"
    );
    let Coordinator {
        client,
        shutdown,
        running,
        ..
    } = coordinator;
    drop(client);
    let answered = within("it is taken now", LONG, second.read(&mut byte)).await;
    assert_eq!(answered.unwrap().unwrap(), 1);
    shutdown.cancel();
    drop(second);
    within("it ends", LONG, running)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
