//! What etcd's log says of leases, from its beginning.

use std::collections::{BTreeMap, BTreeSet};

use etcd_client::{Client, EventType, GetOptions, WatchOptions};
use palisade_test_support::within;
use serde_json::Value;

use super::load::Told;
use crate::setup::LIMIT;

const PREFIX: &str = "/palisade/v1/";
/// In no name of a resource.
const MARKER: &str = "/palisade/v1/lease/~";

/// A lease from its grant to its end.
#[derive(Debug)]
pub(super) struct Held {
    resource: String,
    session: String,
    request: String,
    holder: String,
    token: i64,
    granted: i64,
    ended: Option<i64>,
}

pub(super) struct Log {
    etcd: Client,
}

impl Log {
    pub(super) async fn of(endpoints: &[String]) -> Self {
        let etcd = Client::connect(endpoints, None).await.unwrap();
        Self { etcd }
    }

    async fn keys(&self, prefix: &str) -> Vec<(String, Held)> {
        let options = GetOptions::new().with_prefix();
        let found = self.etcd.kv_client().get(prefix, Some(options)).await;
        let found = found.unwrap();
        let read = |kv: &etcd_client::KeyValue| {
            let key = kv.key_str().unwrap().to_owned();
            (key, held(kv.value(), kv.mod_revision()))
        };
        found.kvs().iter().map(read).collect()
    }

    /// What is held now, and by which token.
    pub(super) async fn held(&self) -> BTreeSet<(String, i64)> {
        let held = self.keys(&format!("{PREFIX}lease/")).await;
        let named = held
            .into_iter()
            .map(|(_, held)| (held.resource, held.token));
        named.collect()
    }

    /// How many wait now.
    pub(super) async fn queued(&self) -> usize {
        self.keys(&format!("{PREFIX}queue/")).await.len()
    }

    /// No session, no lease, no place and no etcd lease.
    pub(super) async fn is_empty(&self) -> bool {
        let names = [format!("{PREFIX}generation"), format!("{PREFIX}revoked")];
        let keys = self.keys(PREFIX).await;
        let leases = self.etcd.lease_client().leases().await.unwrap();
        keys.iter().all(|(key, _)| names.contains(key)) && leases.leases().is_empty()
    }

    /// All leases, in the order in which they were granted.
    pub(super) async fn holds(&self) -> Vec<Held> {
        let mut etcd = self.etcd.clone();
        etcd.put(MARKER, "", None).await.unwrap();
        let prefix = format!("{PREFIX}lease/");
        let options = WatchOptions::new().with_prefix().with_start_revision(1);
        let mut stream = etcd.watch(prefix, Some(options)).await.unwrap();
        let mut holds: Vec<Held> = Vec::new();
        let mut open: BTreeMap<String, usize> = BTreeMap::new();
        loop {
            let next = within("the log goes on", LIMIT, stream.message()).await;
            let response = next.unwrap().unwrap().unwrap();
            assert!(!response.canceled(), "{}", response.cancel_reason());
            for event in response.events() {
                let kv = event.kv().unwrap();
                let key = kv.key_str().unwrap();
                if key == MARKER {
                    return holds;
                }
                if let Some(before) = open.remove(key) {
                    holds[before].ended = Some(kv.mod_revision());
                }
                if event.event_type() == EventType::Put {
                    open.insert(key.to_owned(), holds.len());
                    holds.push(held(kv.value(), kv.mod_revision()));
                }
            }
        }
    }
}

/// Of a key that is no lease most is empty.
fn held(value: &[u8], revision: i64) -> Held {
    let record: Value = serde_json::from_slice(value).unwrap_or_default();
    let text = |field: &str| record[field].as_str().unwrap_or_default().to_owned();
    let generation = &record["generation"];
    let number = |field: &str| generation[field].as_i64().unwrap_or_default();
    Held {
        resource: text("resource"),
        session: text("session"),
        request: text("request"),
        holder: text("holder"),
        token: number("base") + revision - number("since_revision"),
        granted: revision,
        ended: None,
    }
}

/// Tokens grow with each lease of a resource (I3).
pub(super) fn tokens_grow(holds: &[Held]) {
    let mut last: BTreeMap<&str, &Held> = BTreeMap::new();
    for held in holds {
        if let Some(before) = last.insert(&held.resource, held) {
            assert!(before.token < held.token, "{before:?} before {held:?}");
            let ended = before.ended.unwrap();
            assert!(ended <= held.granted, "{before:?} before {held:?}");
        }
    }
}

/// Each request was granted once at most, however often it was tried, and by whom (I4).
pub(super) fn requests_are_granted_once(holds: &[Held]) {
    let mut granted: BTreeMap<[&str; 3], &Held> = BTreeMap::new();
    for held in holds {
        let request = [&*held.resource, &*held.session, &*held.request];
        if let Some(before) = granted.insert(request, held) {
            panic!("granted twice: {before:?} and {held:?}");
        }
    }
}

/// Every grant that was told is in the log as it was told (I7).
pub(super) fn has_what_was_told(holds: &[Held], told: &[Told]) {
    let name = |held: &Held| (held.resource.clone(), held.token);
    let holds: BTreeMap<_, _> = holds.iter().map(|held| (name(held), held)).collect();
    let mut seen = BTreeSet::new();
    for one in told {
        let grant = &one.grant;
        let name = (grant.resource.to_string(), grant.token.as_i64());
        let held = holds
            .get(&name)
            .unwrap_or_else(|| panic!("told only: {one:?}"));
        assert_eq!(
            (&held.session, &held.request, &held.holder),
            (&one.session, &one.request, &grant.holder.to_string()),
            "{held:?}"
        );
        assert!(held.ended.is_some(), "{held:?}");
        assert!(seen.insert(name), "told twice: {one:?}");
    }
}
