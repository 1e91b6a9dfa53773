//! The dashboard and the alerts that are shipped, against a coordinator on a real etcd.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use palisade_api::v1::RenewSessionRequest;
use palisade_api::v1::lease_service_client::LeaseServiceClient;
use palisade_coordinator::config::{EtcdAccess, Settings, StoreChoice};
use palisade_coordinator::serve::{Addresses, Server};
use palisade_coordinator::store::etcd::EtcdOptions;
use palisade_test_support::{Etcd, eventually, within};
use tokio_util::sync::CancellationToken;

use crate::support::{LONG, acquire, asking, channel, http_get, open, release, token};

/// What counts on streams, for which this test has none.
const ON_STREAMS: [&str; 2] = [
    "grpc_server_msg_received_total",
    "grpc_server_msg_sent_total",
];

#[tokio::test]
async fn every_metric_and_label_in_the_shipped_files_is_exported() {
    let etcd = Etcd::start().await.unwrap();
    let store = StoreChoice::Etcd {
        endpoints: etcd.endpoints(),
        prefix: EtcdOptions::PREFIX.to_owned(),
        access: EtcdAccess::default(),
    };
    let server = Server::open(Settings::local(store)).await.unwrap();
    let addresses = server.addresses();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(server.run(shutdown.clone()));
    let ready = async || http_get(addresses, "/readyz").await.0 == 200;
    eventually("it is ready", LONG, ready).await.unwrap();
    use_it(addresses).await;

    let counted = async || {
        exported(addresses)
            .await
            .contains("\npalisade_leases_active")
    };
    eventually("leases are counted", LONG, counted)
        .await
        .unwrap();
    let text = exported(addresses).await;
    for (series, value) in [
        ("palisade_etcd_up", 1.0),
        ("palisade_tokens_issued_total", 1.0),
        (r#"palisade_lease_ended_total{reason="released"}"#, 1.0),
        ("palisade_lease_renew_slack_seconds_count", 1.0),
    ] {
        let line = format!("\n{series} ");
        let found = text.split_once(&line).expect(series).1;
        let found: f64 = found.lines().next().unwrap().parse().unwrap();
        assert_eq!(
            found.total_cmp(&value),
            std::cmp::Ordering::Equal,
            "{series} {found}"
        );
    }
    let mut seen = 0;
    for file in ["dashboard.json", "alerts.yml"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/observability");
        let file = fs::read_to_string(directory.join(file)).unwrap();
        for (name, pairs) in uses(&file.replace("\\\"", "\"")) {
            seen += 1;
            if ON_STREAMS.contains(&&*name) {
                continue;
            }
            let mut series = text.lines().filter(|line| {
                line.strip_prefix(&*name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            });
            let is_there = series.any(|line| pairs.iter().all(|pair| line.contains(pair)));
            assert!(is_there, "{name} with {pairs:?} is not exported:\n{text}");
        }
    }
    assert!(seen > 30, "{seen}");
    shutdown.cancel();
    let ended = within("it ends", LONG, running).await;
    ended.unwrap().unwrap().unwrap();
}

async fn exported(addresses: Addresses) -> String {
    http_get(addresses, "/metrics").await.1
}

async fn use_it(addresses: Addresses) {
    let client = LeaseServiceClient::new(channel(addresses).await);
    let session = open(&client, "s").await;
    let granted = acquire(&client, asking(&session, "r", "x", Duration::ZERO)).await;
    let renewal = RenewSessionRequest {
        session: Some(session.clone()),
        ..Default::default()
    };
    client.clone().renew_session(renewal).await.unwrap();
    release(&client, &session, "x", token(&granted.unwrap())).await;
}

/// Metrics that a text names, each with the pairs of label and value that it asks for.
fn uses(text: &str) -> BTreeSet<(String, Vec<String>)> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut uses = BTreeSet::new();
    for (at, _) in text
        .match_indices("palisade_")
        .chain(text.match_indices("grpc_server_"))
    {
        if text[..at].ends_with(is_name) {
            continue;
        }
        let rest = &text[at..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let selector = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let wanted = selector.map_or("", |(selector, _)| selector);
        let mut pairs = vec![Vec::new()];
        for matcher in wanted.split(',').filter(|matcher| !matcher.contains('$')) {
            let Some((label, values)) = matcher.split_once('=') else {
                continue;
            };
            let (label, values) = (label.trim_end_matches('!'), values.trim_start_matches('~'));
            let alternatives = values.trim_matches('"').split('|');
            let pair = |value| format!(r#"{label}="{value}""#);
            pairs = alternatives
                .flat_map(|value| {
                    pairs
                        .iter()
                        .map(move |some| [&some[..], &[pair(value)]].concat())
                })
                .collect();
        }
        uses.extend(pairs.into_iter().map(|pairs| (name.to_owned(), pairs)));
    }
    uses
}
