//! What is refused, and how that is told.

use palisade_test_support::within;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Answer, SECRET, asking, call, exchange, get, open, opening, send};
use crate::store::Switch;
use crate::support::{Coordinator, LONG, memory, settings};

/// Checks the shape of an error, and returns the metadata of its `ErrorInfo`.
pub(super) fn expect(answer: &Answer, http: u16, status: &str, reason: &str) -> Value {
    let error = &answer.body["error"];
    let details = error["details"].as_array();
    let details = details.unwrap_or_else(|| panic!("{answer:?}"));
    let info = &details[0];
    assert_eq!(answer.status, http, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(error["code"], http, "{answer:?}");
    assert_eq!(error["status"], status, "{answer:?}");
    assert!(!error["message"].as_str().unwrap().is_empty());
    let kind = "type.googleapis.com/google.rpc.ErrorInfo";
    assert_eq!(info["@type"], kind, "{answer:?}");
    assert_eq!(info["reason"], reason, "{answer:?}");
    assert_eq!(info["domain"], "palisade");
    let infos = details.iter().filter(|detail| detail["@type"] == kind);
    assert_eq!(infos.count(), 1, "{answer:?}");
    let retries = details.iter().any(|detail| {
        detail["@type"] == "type.googleapis.com/google.rpc.RetryInfo"
            && detail["retryDelay"].as_str().unwrap().ends_with('s')
    });
    assert_eq!(
        retries,
        answer.header("retry-after").is_some(),
        "{answer:?}"
    );
    info["metadata"].clone()
}

/// That a field is refused, by its name.
fn expect_field(answer: &Answer, http: u16, field: &str) -> Value {
    let metadata = expect(answer, http, "INVALID_ARGUMENT", "INVALID_FIELD");
    assert_eq!(metadata["field"], field, "{answer:?}");
    metadata
}

const POSTS: [&str; 4] = [
    "POST /v1/sessions",
    "POST /v1/sessions/0000000000000001:renew",
    "POST /v1/leases:acquire",
    "POST /v1/leases:release",
];

#[tokio::test]
async fn bodies_that_are_no_call_are_refused_by_what_is_wrong_with_them() {
    let coordinator = Coordinator::start().await;
    let at = coordinator.addresses;
    let json = [("content-type", "application/json")];
    for line in POSTS
        .into_iter()
        .chain(["DELETE /v1/sessions/0000000000000001"])
    {
        for garbage in [
            "{",
            "nonsense",
            "{\"a\":}",
            "{} {}",
            "\u{0}",
            "{\"a\": 1e999}",
        ] {
            let metadata = expect_field(&send(at, line, &json, garbage).await, 400, "body");
            let given = metadata["given"].as_str().unwrap();
            assert!(given.starts_with("not JSON at line 1"), "{line} {given}");
        }
        let deep = "[".repeat(10_000);
        expect_field(&send(at, line, &json, &deep).await, 400, "body");
        for other in ["[]", "null", "1", "\"text\""] {
            let metadata = expect_field(&send(at, line, &json, other).await, 400, "body");
            assert_eq!(metadata["bound"], "one JSON object");
        }
        let unknown = call(at, line, &json!({ "resorce": "x" })).await;
        let metadata = expect_field(&unknown, 400, "resorce");
        assert!(!metadata["bound"].as_str().unwrap().is_empty());
        for (name, value) in [
            ("content-type", "text/plain"),
            ("content-type", "application/jsonx"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("accept", "application/json"),
        ] {
            let other = send(at, line, &[(name, value)], "{}").await;
            expect_field(&other, 415, "content-type");
        }
    }
    coordinator.stop().await;
}

#[tokio::test]
async fn fields_of_another_kind_are_refused_by_their_path() {
    let coordinator = Coordinator::start().await;
    let at = coordinator.addresses;
    let session = open(at, "s").await;
    let with = |path: &[&str], value: Value| {
        let mut body = asking(&session, "r", "x", 0);
        let (last, before) = path.split_last().unwrap();
        let mut inner = &mut body;
        for name in before {
            inner = &mut inner[*name];
        }
        inner[*last] = value;
        body
    };
    for (path, value, field) in [
        (&["resource"][..], json!(7), "resource"),
        (&["resource"], json!("a//b"), "resource"),
        (&["request_id"], Value::Null, "request_id"),
        (&["wait_ms"], json!("5"), "wait_ms"),
        (&["wait_ms"], json!(-1), "wait_ms"),
        (&["wait_ms"], json!(1.5), "wait_ms"),
        (&["wait_ms"], json!(100_000_000), "wait_ms"),
        (&["attempt"], json!(1_u64 << 32), "attempt"),
        (&["metadata"], json!("no base64!"), "metadata"),
        (&["metadata"], json!([1, 2]), "metadata"),
        (&["session"], json!("s"), "session"),
        (&["session", "secret"], json!("?"), "session.secret"),
        (&["session", "secret"], json!("BwcH"), "session.secret"),
        (&["session", "secret"], Value::Null, "session.secret"),
        (&["session", "session_id"], json!("S"), "session.session_id"),
        (&["session", "sesion_id"], json!("S"), "session.sesion_id"),
        (&["opening"], opening("both"), "owner"),
        (&["session"], Value::Null, "owner"),
        (&["timeout_ms"], json!(5), "timeout_ms"),
    ] {
        let body = with(path, value);
        let answer = call(at, "POST /v1/leases:acquire", &body).await;
        let metadata = expect_field(&answer, 400, field);
        let told = metadata.to_string();
        assert!(!told.contains("BwcH"), "a secret is told back: {told}");
    }
    let hold = json!({ "session": session, "resource": "x" });
    let line = "POST /v1/leases:release";
    expect_field(&call(at, line, &hold).await, 400, "hold");
    let mut both = hold.clone();
    both["token"] = json!(1);
    both["request_id"] = json!("r");
    expect_field(&call(at, line, &both).await, 400, "hold");
    let mut none = hold;
    none["token"] = json!(0);
    expect_field(&call(at, line, &none).await, 400, "token");
    coordinator.stop().await;
}

#[tokio::test]
async fn queries_are_read_as_strictly() {
    let coordinator = Coordinator::start().await;
    let at = coordinator.addresses;
    for (path, field) in [
        ("/v1/leases?page_size=x", "page_size"),
        ("/v1/leases?page_size=-1", "page_size"),
        ("/v1/leases?page_size=99999999999", "page_size"),
        ("/v1/leases?page_token=zz", "page_token"),
        ("/v1/leases?prefix=a&prefix=b", "prefix"),
        ("/v1/leases?prefix=%20", "prefix"),
        ("/v1/leases?pagesize=1", "pagesize"),
        ("/v1/leases?timeout_ms=0", "timeout_ms"),
        ("/v1/leases?timeout_ms=100000000", "timeout_ms"),
        ("/v1/leases/x?queue_size=1001", "queue_size"),
        ("/v1/leases/x?resource=y", "resource"),
        ("/v1/leases/a//b", "resource"),
        ("/v1/leases/a/../b", "resource"),
        ("/v1/leases/a%20b", "resource"),
        ("/v1/leases/%ff", "path"),
        ("/v1/leases:watch?resource=x&prefix=y", "scope"),
        (
            "/v1/leases:watch?resource=x&resume_revision=z",
            "resume_revision",
        ),
        ("/v1/tokens:check?resource=x&token=1.5", "token"),
    ] {
        expect_field(&get(at, path).await, 400, field);
    }
    let wrong = [("grpc-timeout", "1s")];
    let answer = send(at, "GET /v1/leases", &wrong, "").await;
    expect_field(&answer, 400, "grpc-timeout");
    let wrong = [("last-event-id", "x")];
    let answer = send(at, "GET /v1/leases:watch?prefix=", &wrong, "").await;
    expect_field(&answer, 400, "last-event-id");
    coordinator.stop().await;
}

#[tokio::test]
async fn paths_and_methods_that_are_not_served_say_so_in_the_same_shape() {
    let coordinator = Coordinator::start().await;
    let at = coordinator.addresses;
    for line in [
        "GET /",
        "GET /v1",
        "GET /v2/leases",
        "GET /v1/leases/",
        "POST /v1/leases:steal",
        "GET /v1/sessions/0000000000000001/x",
    ] {
        let answer = send(at, line, &[], "").await;
        expect(&answer, 404, "UNIMPLEMENTED", "NOT_SERVED");
    }
    for (line, allowed) in [
        ("GET /v1/sessions", "POST"),
        ("PUT /v1/leases", "GET,HEAD"),
        ("GET /v1/leases:acquire", "POST"),
        ("POST /v1/leases:watch", "GET,HEAD"),
        ("DELETE /v1/leases/x", "GET,HEAD"),
        ("POST /v1/tokens:check", "GET,HEAD"),
        ("POST /v1/sessions/0000000000000001", "DELETE"),
        ("DELETE /v1/sessions/0000000000000001:renew", "POST"),
        ("OPTIONS /v1/leases:acquire", "POST"),
        ("POST /livez", "GET,HEAD"),
    ] {
        let answer = send(at, line, &[], "").await;
        expect(&answer, 405, "UNIMPLEMENTED", "NOT_SERVED");
        assert_eq!(answer.header("allow"), Some(allowed), "{line}");
        // No site but this one's own is let in by a browser.
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    coordinator.stop().await;
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_refused_however_it_comes() {
    let mut settings = settings();
    settings.limits.max_message_bytes = 8 * 1024;
    let coordinator = Coordinator::with(Switch::new(memory().await), settings).await;
    let at = coordinator.addresses;
    let session = open(at, "s").await;
    let mut body = asking(&session, "r", "x", 0);
    // JSON may be filled up with spaces: the bound is of the body.
    let text = body.to_string();
    let padded = |length: usize| format!("{text}{}", " ".repeat(length - text.len()));
    let json = [("content-type", "application/json")];
    let line = "POST /v1/leases:acquire";
    assert_eq!(send(at, line, &json, &padded(8 * 1024)).await.status, 200);
    let large = send(at, line, &json, &padded(8 * 1024 + 1)).await;
    let metadata = expect_field(&large, 413, "body");
    assert_eq!(metadata["bound"], "at most 8192 bytes");

    let chunk = " ".repeat(4096);
    let head = format!(
        "{line} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    let chunks = format!("1000\r\n{chunk}\r\n").repeat(3);
    let answer = exchange(at, format!("{head}{chunks}0\r\n\r\n").as_bytes()).await;
    expect_field(&Answer::read(&answer), 413, "body");

    body["metadata"] = json!("A".repeat(4 * 1368));
    let metadata = expect_field(&call(at, line, &body).await, 400, "metadata");
    assert_eq!(metadata["bound"], "at most 4096 bytes");
    coordinator.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let mut settings = settings();
    settings.timeouts.default_call = std::time::Duration::from_millis(200);
    let coordinator = Coordinator::with(Switch::new(memory().await), settings).await;
    let mut stream = TcpStream::connect(coordinator.addresses.http)
        .await
        .unwrap();
    let head = "POST /v1/sessions HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
                content-length: 10\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = within("an answer", LONG, stream.read_to_string(&mut answer)).await;
    read.unwrap().unwrap();
    let metadata = expect(
        &Answer::read(&answer),
        504,
        "DEADLINE_EXCEEDED",
        "DEADLINE_EXCEEDED",
    );
    assert_eq!(metadata["mayHaveHappened"], "false");
    coordinator.stop().await;
}

#[tokio::test]
async fn what_the_service_refuses_has_its_code_of_http() {
    let coordinator = Coordinator::start().await;
    let at = coordinator.addresses;
    let (one, other) = (open(at, "one").await, open(at, "other").await);
    let acquire = "POST /v1/leases:acquire";
    let held = call(at, acquire, &asking(&one, "r", "x", 0)).await.good();
    let token = held["lease"]["token"].as_i64().unwrap();

    let answer = call(at, acquire, &asking(&other, "r", "x", 0)).await;
    let metadata = expect(&answer, 400, "FAILED_PRECONDITION", "LEASE_HELD");
    assert_eq!(metadata["token"], token.to_string());
    assert_eq!(answer.header("retry-after"), Some("1"));
    let resource = answer.body["error"]["details"].as_array().unwrap().last();
    assert_eq!(resource.unwrap()["resourceName"], "x");

    let answer = call(at, acquire, &asking(&one, "r2", "x", 0)).await;
    let metadata = expect(&answer, 400, "FAILED_PRECONDITION", "ALREADY_HELD");
    assert_eq!(metadata["requestId"], "r");
    let answer = call(at, acquire, &asking(&other, "w", "x", 1)).await;
    expect(&answer, 409, "ABORTED", "WAIT_EXPIRED");
    let timed = format!("{acquire}?timeout_ms=100");
    let answer = call(at, &timed, &asking(&other, "late", "x", 60_000)).await;
    expect(&answer, 504, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED");

    let release = "POST /v1/leases:release";
    let body = json!({ "session": one, "resource": "x", "token": token + 1 });
    let answer = call(at, release, &body).await;
    expect(&answer, 400, "FAILED_PRECONDITION", "STALE_TOKEN");
    let mut stranger = one.clone();
    stranger["secret"] = json!("CAgICAgICAgICAgICAgICA==");
    let answer = call(at, acquire, &asking(&stranger, "r", "y", 0)).await;
    expect(&answer, 403, "PERMISSION_DENIED", "PERMISSION_DENIED");
    let mut ended = one.clone();
    ended["session_id"] = json!("00000000000000ff");
    let answer = call(at, acquire, &asking(&ended, "r", "y", 0)).await;
    expect(&answer, 404, "NOT_FOUND", "SESSION_ENDED");
    let mut retry = asking(&one, "r", "x", 0);
    retry["attempt"] = json!(2);
    let answer = call(at, acquire, &retry).await;
    expect(&answer, 409, "ABORTED", "EPOCH_STALE");
    coordinator.stop().await;
}

#[tokio::test]
async fn a_session_of_a_path_is_proved_by_one_secret_that_no_url_has() {
    let coordinator = Coordinator::start().await;
    let at = coordinator.addresses;
    let session = open(at, "s").await;
    let id = session["session_id"].as_str().unwrap();
    let header = [
        ("x-palisade-session-secret", SECRET),
        ("content-type", "application/json"),
    ];
    for line in [
        format!("POST /v1/sessions/{id}:renew"),
        format!("DELETE /v1/sessions/{id}"),
    ] {
        let line = line.as_str();
        let missing = send(at, line, &[], "").await;
        expect_field(&missing, 400, "session.secret");
        let in_url = send(at, &format!("{line}?secret={SECRET}"), &[], "").await;
        let metadata = expect_field(&in_url, 400, "secret");
        assert!(!metadata.to_string().contains(SECRET));
        let body = json!({ "session": session }).to_string();
        let twice = send(at, line, &header, &body).await;
        expect_field(&twice, 400, "x-palisade-session-secret");
        let bad = [("x-palisade-session-secret", "?")];
        let bad = send(at, line, &bad, "").await;
        expect_field(&bad, 400, "x-palisade-session-secret");
        let mut other = session.clone();
        other["session_id"] = json!("0000000000000001");
        let other = call(at, line, &json!({ "session": other })).await;
        expect_field(&other, 400, "session.session_id");
        let wrong = [("x-palisade-session-secret", "CAgICAgICAgICAgICAgICA")];
        let wrong = send(at, line, &wrong, "").await;
        expect(&wrong, 403, "PERMISSION_DENIED", "PERMISSION_DENIED");
        let stray = call(
            at,
            &format!("{line}?epoch=1"),
            &json!({ "session": session }),
        )
        .await;
        expect_field(&stray, 400, "epoch");
    }
    coordinator.stop().await;
}
