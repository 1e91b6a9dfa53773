//! What is counted and timed.

use std::collections::BTreeMap;
use std::time::Duration;

use palisade_api::v1::release_request::Hold;
use palisade_coordinator::serve::Addresses;
use tonic::Code;

use crate::support::{Coordinator, acquire, asking, http_get, open, release, releasing, token};

/// The value of every series, by name and labels as they are written.
pub(crate) async fn scrape(addresses: Addresses) -> BTreeMap<String, f64> {
    let (code, text) = http_get(addresses, "/metrics").await;
    assert_eq!(code, 200);
    assert!(text.ends_with("# EOF\n"), "{text}");
    let series = text.lines().filter(|line| !line.starts_with('#'));
    series
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn counters_equal_what_was_done() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (one, two) = (open(client, "one").await, open(client, "two").await);
    for round in 0..3 {
        let request = asking(&one, &format!("r{round}"), "x", Duration::ZERO);
        let granted = acquire(client, request).await.unwrap();
        let refused = acquire(client, asking(&two, "r", "x", Duration::ZERO)).await;
        assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition);
        release(client, &one, "x", token(&granted)).await;
    }
    let again = releasing(&one, "x", Hold::RequestId("r1".to_owned()));
    client.clone().release(again).await.unwrap();

    let found = scrape(coordinator.addresses).await;
    for (series, value) in [
        (r#"palisade_lease_acquire_total{outcome="granted"}"#, 3.0),
        (r#"palisade_lease_acquire_total{outcome="held"}"#, 3.0),
        (r#"palisade_lease_acquire_total{outcome="limit"}"#, 0.0),
        ("palisade_lease_acquire_wait_seconds_count", 3.0),
        (r#"palisade_lease_ended_total{reason="released"}"#, 3.0),
        ("palisade_waiters", 0.0),
    ] {
        assert_eq!(found.get(series), Some(&value), "{series}: {found:?}");
    }
    coordinator.stop().await;
}
