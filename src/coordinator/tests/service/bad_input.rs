//! Every bad field and what it is answered with; `bad_rows` has what else can be wrong.

use std::time::Duration;

use palisade_api::v1::acquire_request::Owner;
use palisade_api::v1::release_request::Hold;
use palisade_api::v1::{
    CloseSessionRequest, GetLeaseRequest, ListLeasesRequest, OpenSessionRequest,
    RenewSessionRequest,
};
use palisade_api::{AcquireRequest, ErrorReason, ReleaseRequest, SessionOpening, SessionRef};
use tonic::{Code, Request, Status};

use crate::support::{Client, Coordinator, asking, open, opening, refused, releasing};

/// What is sent, the field that is named, and a part of the bound.
struct Row(Call, &'static str, &'static str);

enum Call {
    Open(Option<SessionOpening>),
    Renew(Option<SessionRef>),
    Close(Option<SessionRef>),
    Acquire(AcquireRequest),
    Release(ReleaseRequest),
    Get(GetLeaseRequest),
    List(ListLeasesRequest),
}

impl Call {
    async fn send(self, client: &Client) -> Status {
        let mut client = client.clone();
        let result = match self {
            Self::Open(opening) => client
                .open_session(OpenSessionRequest { opening })
                .await
                .map(drop),
            Self::Renew(session) => client
                .renew_session(RenewSessionRequest {
                    session,
                    ..Default::default()
                })
                .await
                .map(drop),
            Self::Close(session) => client
                .close_session(CloseSessionRequest { session })
                .await
                .map(drop),
            Self::Acquire(request) => client.acquire(request).await.map(drop),
            Self::Release(request) => client.release(request).await.map(drop),
            Self::Get(request) => client.get_lease(request).await.map(drop),
            Self::List(request) => client.list_leases(request).await.map(drop),
        };
        result.unwrap_err()
    }
}

fn with<T>(mut value: T, spoil: impl FnOnce(&mut T)) -> T {
    spoil(&mut value);
    value
}

fn names() -> Vec<Row> {
    let get = |resource: String| {
        Call::Get(GetLeaseRequest {
            resource,
            queue_size: 0,
        })
    };
    let mut rows: Vec<Row> = [
        "", "/", "/a", "a/", "a//b", ".", "a/..", "a b", "a\0", "ä", "a\n",
    ]
    .into_iter()
    .map(|name| Row(get(name.to_owned()), "resource", "1 to 256 bytes"))
    .collect();
    rows.push(Row(get("a".repeat(257)), "resource", "1 to 256 bytes"));
    let queue = GetLeaseRequest {
        resource: "a".to_owned(),
        queue_size: 1001,
    };
    rows.push(Row(Call::Get(queue), "queue_size", "0 to 1000"));
    rows
}

fn openings() -> Vec<Row> {
    let row = |spoil: fn(&mut SessionOpening), field, bound| {
        Row(Call::Open(Some(with(opening("bad"), spoil))), field, bound)
    };
    vec![
        Row(Call::Open(None), "opening", "set"),
        row(|o| o.open_id.clear(), "opening.open_id", "1 to 64"),
        row(|o| o.open_id = "a".repeat(65), "opening.open_id", "1 to 64"),
        row(
            |o| o.open_id = "a/b".to_owned(),
            "opening.open_id",
            "A-Za-z0-9._:-",
        ),
        row(
            |o| o.secret = vec![1; 15],
            "opening.secret",
            "16 to 64 bytes",
        ),
        row(
            |o| o.secret = vec![1; 65],
            "opening.secret",
            "16 to 64 bytes",
        ),
        row(|o| o.ttl_ms = 4_999, "opening.ttl_ms", "5000 to 300000 ms"),
        row(|o| o.ttl_ms = 1, "opening.ttl_ms", "5000 to 300000 ms"),
        row(
            |o| o.ttl_ms = 300_001,
            "opening.ttl_ms",
            "5000 to 300000 ms",
        ),
        row(
            |o| o.ttl_ms = u64::MAX,
            "opening.ttl_ms",
            "5000 to 300000 ms",
        ),
        row(
            |o| o.label = "a".repeat(129),
            "opening.label",
            "at most 128 bytes",
        ),
        row(
            |o| o.label = "a\u{7}".to_owned(),
            "opening.label",
            "control characters",
        ),
    ]
}

fn sessions() -> Vec<Row> {
    let good = SessionRef {
        session_id: "0000000000000001".to_owned(),
        secret: vec![7; 16],
        epoch: 1,
    };
    let row = |spoil: fn(&mut SessionRef), field, bound| {
        Row(Call::Renew(Some(with(good.clone(), spoil))), field, bound)
    };
    vec![
        Row(Call::Renew(None), "session", "set"),
        Row(Call::Close(None), "session", "set"),
        row(
            |s| s.session_id.clear(),
            "session.session_id",
            "16 of [0-9a-f]",
        ),
        row(
            |s| s.session_id = "0".repeat(16),
            "session.session_id",
            "16 of [0-9a-f]",
        ),
        row(
            |s| s.session_id = "F".repeat(16),
            "session.session_id",
            "16 of [0-9a-f]",
        ),
        row(
            |s| s.session_id = "f".repeat(16),
            "session.session_id",
            "7fffffffffffffff",
        ),
        row(
            |s| s.session_id = "-1".to_owned(),
            "session.session_id",
            "16 of [0-9a-f]",
        ),
        row(|s| s.secret.clear(), "session.secret", "16 to 64 bytes"),
    ]
}

fn acquires(session: &SessionRef) -> Vec<Row> {
    let row = |spoil: fn(&mut AcquireRequest), field, bound| {
        let request = asking(session, "r1", "a", Duration::ZERO);
        Row(Call::Acquire(with(request, spoil)), field, bound)
    };
    vec![
        row(|a| a.owner = None, "owner", "set"),
        row(|a| a.request_id.clear(), "request_id", "1 to 64"),
        row(|a| a.request_id = "a".repeat(65), "request_id", "1 to 64"),
        row(|a| a.resource = "a//b".to_owned(), "resource", "1 to 256"),
        row(|a| a.wait_ms = 3_600_001, "wait_ms", "0 to 3600000 ms"),
        row(|a| a.wait_ms = u64::MAX, "wait_ms", "0 to 3600000 ms"),
        row(
            |a| a.lock_delay_ms = 300_001,
            "lock_delay_ms",
            "0 to 300000 ms",
        ),
        row(
            |a| a.metadata = vec![0; 4097],
            "metadata",
            "at most 4096 bytes",
        ),
        row(
            |a| a.owner = Some(Owner::Opening(SessionOpening::default())),
            "opening.open_id",
            "1 to 64",
        ),
    ]
}

fn releases(session: &SessionRef) -> Vec<Row> {
    let row = |spoil: fn(&mut ReleaseRequest), field, bound| {
        let request = releasing(session, "a", Hold::Token(1));
        Row(Call::Release(with(request, spoil)), field, bound)
    };
    vec![
        row(|r| r.session = None, "session", "set"),
        row(|r| r.hold = None, "hold", "set"),
        row(
            |r| r.hold = Some(Hold::Token(0)),
            "token",
            "1 to 9007199254740991",
        ),
        row(
            |r| r.hold = Some(Hold::Token(-1)),
            "token",
            "1 to 9007199254740991",
        ),
        row(
            |r| r.hold = Some(Hold::Token(1 << 53)),
            "token",
            "1 to 9007199254740991",
        ),
        row(
            |r| r.hold = Some(Hold::RequestId(String::new())),
            "request_id",
            "1 to 64",
        ),
        row(
            |r| r.refused_by_fence = -1,
            "refused_by_fence",
            "0 to 9007199254740991",
        ),
    ]
}

fn lists() -> Vec<Row> {
    let row = |spoil: fn(&mut ListLeasesRequest), field, bound| {
        Row(
            Call::List(with(ListLeasesRequest::default(), spoil)),
            field,
            bound,
        )
    };
    vec![
        row(|l| l.page_size = -1, "page_size", "0 or above"),
        row(|l| l.prefix = "a b".to_owned(), "prefix", "A-Za-z0-9"),
        row(|l| l.prefix = "a".repeat(257), "prefix", "at most 256"),
        row(
            |l| l.page_token = "zz".to_owned(),
            "page_token",
            "next_page_token",
        ),
        row(
            |l| l.page_token = "61".repeat(9),
            "page_token",
            "next_page_token",
        ),
    ]
}

#[tokio::test]
async fn every_bad_field_is_named_with_its_bound() {
    let coordinator = Coordinator::start().await;
    let session = open(&coordinator.client, "s").await;
    let rows = [
        names(),
        openings(),
        sessions(),
        acquires(&session),
        releases(&session),
        lists(),
    ];
    for Row(call, field, bound) in rows.into_iter().flatten() {
        let status = call.send(&coordinator.client).await;
        let told = refused(&status, Code::InvalidArgument, ErrorReason::InvalidField);
        assert_eq!(told["field"], field, "{status:?}");
        assert!(told["bound"].contains(bound), "{status:?}");
        assert!(told.contains_key("given"), "{status:?}");
    }
    coordinator.stop().await;
}

#[tokio::test]
async fn a_deadline_that_cannot_be_read_is_refused() {
    let coordinator = Coordinator::start().await;
    let request = |timeout: &'static str| {
        let opening = Some(opening("late"));
        let mut request = Request::new(OpenSessionRequest { opening });
        let timeout = tonic::metadata::MetadataValue::from_static(timeout);
        request.metadata_mut().insert("grpc-timeout", timeout);
        request
    };
    for timeout in ["soon", "1", "-1S", "123456789S", "1.5S"] {
        let mut client = coordinator.client.clone();
        let status = client.open_session(request(timeout)).await.unwrap_err();
        let told = refused(&status, Code::InvalidArgument, ErrorReason::InvalidField);
        assert_eq!(told["field"], "grpc-timeout");
    }
    coordinator.stop().await;
}

#[tokio::test]
async fn a_message_that_is_too_large_is_not_read() {
    let coordinator = Coordinator::start().await;
    let session = open(&coordinator.client, "s").await;
    let mut request = asking(&session, "r1", "a", Duration::ZERO);
    request.metadata = vec![0; 65 * 1024];
    let mut client = coordinator.client.clone();
    let status = client.acquire(request).await.unwrap_err();
    let told = refused(&status, Code::InvalidArgument, ErrorReason::InvalidField);
    assert_eq!(
        (told["field"].as_str(), told["bound"].as_str()),
        ("message", "at most 65536 bytes")
    );
    coordinator.stop().await;
}
