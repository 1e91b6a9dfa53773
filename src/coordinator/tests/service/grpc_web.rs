//! gRPC-web, as browsers speak it, on the port of gRPC.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use palisade_api::v1::{GetLeaseRequest, GetLeaseResponse, OpenSessionRequest};
use palisade_test_support::within;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::support::{Coordinator, LONG, http_get, open, opening};

const SERVICE: &str = "palisade.v1.LeaseService";
/// Marks the frame of trailers.
const TRAILERS: u8 = 0x80;

struct Answer {
    head: String,
    body: Vec<u8>,
}

async fn exchange(coordinator: &Coordinator, head: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(coordinator.addresses.grpc)
        .await
        .unwrap();
    let length = body.len();
    let head = format!("{head}host: test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    let read = within("an answer", LONG, stream.read_to_end(&mut answer)).await;
    read.unwrap().unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = answer.split_at(end.unwrap() + 4);
    let head = String::from_utf8(head.to_vec()).unwrap().to_lowercase();
    let body = if head.contains("transfer-encoding: chunked") {
        joined(body)
    } else {
        body.to_vec()
    };
    Answer { head, body }
}

/// What chunks carry.
fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = chunks.windows(2).position(|two| two == b"\r\n").unwrap();
        let length = std::str::from_utf8(&chunks[..end]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return body;
        }
        let begin = end + 2;
        body.extend_from_slice(&chunks[begin..begin + length]);
        chunks = &chunks[begin + length + 2..];
    }
}

async fn call(
    coordinator: &Coordinator,
    method: &str,
    kind: &str,
    message: &impl Message,
) -> Answer {
    let message = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    if kind.contains("text") {
        frame = BASE64_STANDARD.encode(frame).into_bytes();
    }
    let head = format!(
        "POST /{SERVICE}/{method} HTTP/1.1\r\ncontent-type: {kind}\r\naccept: {kind}\r\nx-grpc-web: 1\r\n"
    );
    exchange(coordinator, &head, &frame).await
}

/// The frames of a body: what each is, and what is in it.
fn frames(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [kind, a, b, c, d, rest @ ..] = body {
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap();
        frames.push((*kind, rest[..length].to_vec()));
        body = &rest[length..];
    }
    frames
}

#[tokio::test]
async fn a_call_over_http_1_1_is_answered_with_its_trailers_in_the_body() {
    let coordinator = Coordinator::start().await;
    let asked = GetLeaseRequest {
        resource: "x".to_owned(),
        queue_size: 0,
    };
    for kind in [
        "application/grpc-web+proto",
        "application/grpc-web-text+proto",
    ] {
        let answer = call(&coordinator, "GetLease", kind, &asked).await;
        assert!(answer.head.starts_with("http/1.1 200"), "{}", answer.head);
        assert!(answer.head.contains(&format!("content-type: {kind}")));
        let body = if kind.contains("text") {
            // Each part of it is padded by itself.
            let fours = answer.body.chunks(4);
            let decoded = fours.flat_map(|four| BASE64_STANDARD.decode(four).unwrap());
            decoded.collect()
        } else {
            answer.body
        };
        let frames = frames(&body);
        assert_eq!(frames.len(), 2, "{frames:?}");
        let message = GetLeaseResponse::decode(frames[0].1.as_slice()).unwrap();
        assert!(message.lease.is_none());
        assert!(message.revision >= 0);
        let trailers = String::from_utf8(frames[1].1.clone()).unwrap();
        assert_eq!((frames[0].0, frames[1].0), (0, TRAILERS));
        assert!(
            trailers.replace(' ', "").contains("grpc-status:0"),
            "{trailers}"
        );
    }
    // gRPC itself goes on beside it, and both are counted as what they are.
    open(&coordinator.client, "s").await;
    let (_, counted) = http_get(coordinator.addresses, "/metrics").await;
    let line = counted.lines().find(|line| {
        line.starts_with("grpc_server_handled_total")
            && line.contains("GetLease\"")
            && line.contains("\"OK\"")
    });
    assert!(line.unwrap().ends_with(" 2"), "{line:?}");
    coordinator.stop().await;
}

#[tokio::test]
async fn its_errors_are_those_of_grpc() {
    let coordinator = Coordinator::start().await;
    let mut wrong = opening("s");
    wrong.secret.clear();
    let message = OpenSessionRequest {
        opening: Some(wrong),
    };
    let kind = "application/grpc-web";
    let answer = call(&coordinator, "OpenSession", kind, &message).await;
    let mut told = answer.head.clone();
    for (_, trailers) in frames(&answer.body) {
        told += &String::from_utf8_lossy(&trailers).to_lowercase();
    }
    let code = i32::from(Code::InvalidArgument);
    let told = told.replace(' ', "");
    assert!(told.contains(&format!("grpc-status:{code}")), "{told}");
    assert!(told.contains("grpc-status-details-bin:"), "{told}");
    assert!(told.contains("opening.secret"), "{told}");

    // Neither gRPC nor gRPC-web.
    for line in ["GET / HTTP/1.1\r\n", "POST /v1/leases:acquire HTTP/1.1\r\n"] {
        let answer = exchange(&coordinator, line, b"").await;
        assert!(answer.head.starts_with("http/1.1 400"), "{}", answer.head);
    }
    // Browsers of other sites are told nothing that lets them in.
    let preflight = format!(
        "OPTIONS /{SERVICE}/GetLease HTTP/1.1\r\norigin: http://elsewhere\r\n\
         access-control-request-method: POST\r\n"
    );
    let answer = exchange(&coordinator, &preflight, b"").await;
    assert!(
        !answer.head.contains("access-control-allow"),
        "{}",
        answer.head
    );
    coordinator.stop().await;
}
