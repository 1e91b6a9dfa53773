use axum::body::to_bytes;
use futures::stream;
use http::HeaderMap;
use palisade_api::v1::{LeaseEvent, LeaseEventType, WatchLeasesResponse};
use serde_json::Value;
use tonic::Status;

use super::response;
use crate::clock::SystemClock;
use crate::metrics::{CountCalls, Metrics};
use crate::service::{CallError, refuse};

fn event(what: LeaseEventType, revision: i64) -> LeaseEvent {
    LeaseEvent {
        r#type: what.into(),
        revision,
        ..LeaseEvent::default()
    }
}

fn message(events: &[(LeaseEventType, i64)]) -> Result<WatchLeasesResponse, Status> {
    let events = events.iter();
    Ok(WatchLeasesResponse {
        events: events.map(|(what, at)| event(*what, *at)).collect(),
    })
}

/// Name, id and data of each event.
async fn sent(
    messages: Vec<Result<WatchLeasesResponse, Status>>,
) -> Vec<(String, Option<String>, Value)> {
    let calls = CountCalls::new(&Metrics::default(), &SystemClock::shared(), None);
    let counting = calls.begin("a watch", &HeaderMap::new());
    let body = response(stream::iter(messages), counting).into_body();
    let bytes = to_bytes(body, 1024 * 1024).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let blocks = text.split("\n\n").filter(|block| !block.is_empty());
    let field = |block: &str, name: &str| {
        let mut lines = block.lines();
        lines.find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    };
    blocks
        .map(|block| {
            (
                field(block, "event:").unwrap(),
                field(block, "id:"),
                serde_json::from_str(&field(block, "data:").unwrap()).unwrap(),
            )
        })
        .collect()
}

#[tokio::test]
async fn only_where_a_client_can_go_on_from_there_is_an_id() {
    use LeaseEventType as Is;
    let told = sent(vec![
        message(&[(Is::Snapshot, 7), (Is::Snapshot, 7)]),
        message(&[(Is::SnapshotEnd, 7)]),
        message(&[(Is::Released, 9), (Is::Granted, 9), (Is::Vacant, 10)]),
        message(&[(Is::Bookmark, 12)]),
        message(&[(Is::Resync, 3)]),
        Err(refuse(&CallError::Draining)),
        message(&[(Is::Bookmark, 99)]),
    ])
    .await;
    let seen: Vec<_> = told
        .iter()
        .map(|(name, id, _)| (name.as_str(), id.as_deref()))
        .collect();
    assert_eq!(
        seen,
        [
            ("SNAPSHOT", None),
            ("SNAPSHOT", None),
            ("SNAPSHOT_END", Some("7")),
            ("RELEASED", None),
            ("GRANTED", Some("9")),
            ("VACANT", Some("10")),
            ("BOOKMARK", Some("12")),
            ("RESYNC", Some("")),
            ("error", None),
        ]
    );
    assert_eq!(told[4].2["revision"], 9);
    let error = &told[8].2["error"];
    assert_eq!(error["code"], 503);
    assert_eq!(error["details"][0]["reason"], "DRAINING");
}

#[tokio::test]
async fn no_watch_ends_silently() {
    let told = sent(vec![message(&[(LeaseEventType::Bookmark, 1)])]).await;
    let (name, _, data) = told.last().unwrap();
    assert_eq!(name, "error");
    assert_eq!(data["error"]["status"], "INTERNAL");
}
