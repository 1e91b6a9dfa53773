//! Who is let in, and what each may do: the same as by gRPC.

use palisade_coordinator::access::Verb;
use palisade_coordinator::config::Settings;
use serde_json::json;

use super::refused::expect;
use super::{SECRET, opening, send};
use crate::access::{rules, write_tokens};
use crate::store::Switch;
use crate::support::{Coordinator, memory, settings};

const ALICE: (&str, &str) = ("authorization", "Bearer alice-token");
const BOB: (&str, &str) = ("authorization", "bearer bob-token");
const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn who_is_not_let_in_is_told_nothing_of_what_was_sent() {
    let files = tempfile::tempdir().unwrap();
    let token_file = files.path().join("tokens.toml");
    write_tokens(&token_file, &["alice", "bob"]);
    let settings = Settings {
        token_file: Some(token_file),
        rules: rules(&[
            ("alice", "orders", &[Verb::Acquire]),
            ("bob", "orders", &[Verb::Read]),
        ]),
        ..settings()
    };
    let coordinator = Coordinator::with(Switch::new(memory().await), settings).await;
    let at = coordinator.addresses;
    for line in [
        "POST /v1/sessions",
        "POST /v1/sessions/0000000000000001:renew",
        "DELETE /v1/sessions/0000000000000001",
        "POST /v1/leases:acquire",
        "POST /v1/leases:release",
        "GET /v1/leases/orders",
        "GET /v1/leases?page_size=x",
        "GET /v1/leases:watch?nonsense",
        "GET /v1/tokens:check",
    ] {
        for headers in [
            &[][..],
            &[("authorization", "Bearer mallory-token")],
            &[("authorization", "Basic YWxpY2U6")],
            &[ALICE, BOB],
        ] {
            let answer = send(at, line, headers, "{").await;
            expect(&answer, 401, "UNAUTHENTICATED", "UNAUTHENTICATED");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{line}");
        }
    }
    // Probes know no tokens.
    assert_eq!(send(at, "GET /livez", &[], "").await.status, 200);

    let body = json!({ "opening": opening("s"), "request_id": "r", "resource": "orders/1" });
    let line = "POST /v1/leases:acquire";
    let granted = send(at, line, &[ALICE, JSON], &body.to_string()).await;
    let session = granted.good()["session_id"].clone();
    let denied = send(at, line, &[BOB, JSON], &body.to_string()).await;
    let metadata = expect(&denied, 403, "PERMISSION_DENIED", "PERMISSION_DENIED");
    assert_eq!(metadata["verb"], "acquire");
    let read = send(at, "GET /v1/leases/orders/1", &[BOB], "").await.good();
    assert_eq!(read["lease"]["session_id"], session);
    // Another's session, though its secret is right.
    let body = json!({ "session": { "secret": SECRET } }).to_string();
    let line = format!("DELETE /v1/sessions/{}", session.as_str().unwrap());
    let stolen = send(at, &line, &[BOB, JSON], &body).await;
    expect(&stolen, 403, "PERMISSION_DENIED", "PERMISSION_DENIED");
    coordinator.stop().await;
}
