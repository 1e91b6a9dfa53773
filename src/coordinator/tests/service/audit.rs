//! What is written down for later.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palisade_api::v1::acquire_request::Owner;
use palisade_api::v1::admin_service_client::AdminServiceClient;
use palisade_api::v1::lease_service_client::LeaseServiceClient;
use palisade_api::v1::{
    AcquireRequest, CloseSessionRequest, OpenSessionRequest, RevokeLeaseRequest, SessionRef,
};
use palisade_coordinator::access::Verb;
use palisade_coordinator::audit;
use palisade_test_support::eventually;
use tracing::field::{Field, Visit};
use tracing::subscriber::{DefaultGuard, set_default};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;

use crate::access::{rules, write_tokens};
use crate::support::{
    Coordinator, LONG, Serving, acquire, acquiring, again, asking, channel, memory, open, opening,
    outcome, release, settings, token,
};

type Fields = BTreeMap<String, String>;

/// Keeps the audit events of this thread, on which all tasks of a test run.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<Fields>>>);

impl Kept {
    fn start() -> (Self, DefaultGuard) {
        let kept = Self::default();
        let guard = set_default(registry().with(kept.clone()));
        (kept, guard)
    }

    fn of(&self, event: &str) -> Vec<Fields> {
        let kept = self.0.lock().unwrap();
        let is_one = |fields: &&Fields| fields["event"] == event;
        kept.iter().filter(is_one).cloned().collect()
    }
}

impl<S: Subscriber> Layer<S> for Kept {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if event.metadata().target() == audit::TARGET {
            let mut fields = Found::default();
            event.record(&mut fields);
            self.0.lock().unwrap().push(fields.0);
        }
    }
}

#[derive(Default)]
struct Found(Fields);

impl Visit for Found {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

async fn open_short(coordinator: &Coordinator, name: &str) -> SessionRef {
    let mut opening = opening(name);
    opening.ttl_ms = 5000;
    let secret = opening.secret.clone();
    let request = OpenSessionRequest {
        opening: Some(opening),
    };
    let opened = coordinator.client.clone().open_session(request).await;
    SessionRef {
        session_id: opened.unwrap().into_inner().session_id,
        secret,
        epoch: 1,
    }
}

#[tokio::test]
async fn every_grant_and_end_is_written_down_once() {
    let (kept, _guard) = Kept::start();
    let coordinator = Coordinator::start().await;
    assert_eq!(kept.of("generation").len(), 1);
    let client = &coordinator.client;
    let (one, two) = (open(client, "one").await, open(client, "two").await);
    let mut asked = asking(&one, "r1", "orders/eu", Duration::ZERO);
    asked.metadata = b"confidential".to_vec();
    let first = token(&acquire(client, asked.clone()).await.unwrap());
    // An answer that is told again is no further grant.
    assert_eq!(token(&acquire(client, again(asked)).await.unwrap()), first);
    let waiting = acquiring(client, asking(&two, "r2", "orders/eu", LONG));
    coordinator.waiting("orders/eu", 1).await;
    let one = SessionRef { epoch: 2, ..one };
    release(client, &one, "orders/eu", first).await;
    let second = token(&outcome(waiting).await.unwrap());
    let close = CloseSessionRequest {
        session: Some(two.clone()),
    };
    client.clone().close_session(close).await.unwrap();

    let told: Vec<_> = [kept.of("grant"), kept.of("end")]
        .concat()
        .into_iter()
        .map(|fields| {
            assert_eq!(fields["resource"], "orders/eu");
            assert_eq!(fields["holder"].len(), 32);
            assert!(fields["revision"].parse::<u64>().unwrap() > 0);
            let of = |name: &str| fields.get(name).cloned().unwrap_or_default();
            (of("token"), of("session"), of("request"), of("reason"))
        })
        .collect();
    let row = |token: i64, session: &SessionRef, request: &str, reason: &str| {
        let session = session.session_id.clone();
        (
            token.to_string(),
            session,
            request.to_owned(),
            reason.to_owned(),
        )
    };
    assert_eq!(
        told,
        [
            row(first, &one, "r1", ""),
            row(second, &two, "r2", ""),
            row(first, &one, "r1", "released"),
            row(second, &two, "r2", "released"),
        ]
    );
    let whole = format!("{:?}", kept.0.lock().unwrap());
    let secret = hex::encode(&one.secret);
    for never in ["confidential", "636f6e66", &secret, "[7, 7"] {
        assert!(!whole.contains(never), "{never}: {whole}");
    }
    coordinator.stop().await;
}

#[tokio::test]
async fn an_end_for_want_of_renewal_is_written_down() {
    let (kept, _guard) = Kept::start();
    let coordinator = Coordinator::start().await;
    let session = open_short(&coordinator, "short").await;
    let asked = asking(&session, "r1", "x", Duration::ZERO);
    let granted = token(&acquire(&coordinator.client, asked).await.unwrap());
    let ended = async || kept.of("end").len() == 1;
    eventually("its lease ends", LONG, ended).await.unwrap();
    let end = kept.of("end").remove(0);
    assert_eq!(
        (&*end["token"], &*end["reason"]),
        (&*granted.to_string(), "expired")
    );
    coordinator.stop().await;
}

/// Who called, and in whose name and why in their words; the end itself is told besides.
#[tokio::test]
async fn a_revocation_says_who_called() {
    let (kept, _guard) = Kept::start();
    let files = tempfile::tempdir().unwrap();
    let token_file = files.path().join("tokens.toml");
    write_tokens(&token_file, &["alice"]);
    let all = rules(&[("alice", "", &[Verb::Acquire, Verb::Read, Verb::Admin])]);
    let mut settings = settings();
    settings.token_file = Some(token_file);
    settings.rules = all;
    let serving = Serving::start(memory().await, settings).await;
    let channel = channel(serving.addresses).await;
    let signed = |mut request: tonic::metadata::MetadataMap| {
        request.insert("authorization", "Bearer alice-token".parse().unwrap());
        request
    };
    let bearer = move |request: tonic::Request<()>| {
        let (headers, extensions, ()) = request.into_parts();
        Ok(tonic::Request::from_parts(signed(headers), extensions, ()))
    };
    let mut leases = LeaseServiceClient::with_interceptor(channel.clone(), bearer);
    let acquire = AcquireRequest {
        owner: Some(Owner::Opening(opening("s"))),
        request_id: "r".to_owned(),
        resource: "x".to_owned(),
        ..AcquireRequest::default()
    };
    let granted = leases.acquire(acquire).await.unwrap().into_inner();
    let mut admin = AdminServiceClient::with_interceptor(channel, bearer);
    let revoke = RevokeLeaseRequest {
        resource: "x".to_owned(),
        token: token(&granted),
        cooperative_ms: 0,
        reason: "it hangs".to_owned(),
        actor: "Bob of operations".to_owned(),
    };
    admin.revoke_lease(revoke).await.unwrap();
    let told = kept.of("revoke").remove(0);
    for (field, value) in [
        ("principal", "alice"),
        ("actor", "Bob of operations"),
        ("reason", "it hangs"),
        ("resource", "x"),
        ("token", &token(&granted).to_string()),
    ] {
        assert_eq!(told[field], value, "{field}");
    }
    assert_eq!(kept.of("end")[0]["reason"], "revoked");
    drop((leases, admin));
    serving.shutdown.cancel();
    serving.running.await.unwrap().unwrap();
}
