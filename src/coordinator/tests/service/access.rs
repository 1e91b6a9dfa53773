//! Bearer tokens and rules, over the wire.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use palisade_api::v1::attach_open::Owner;
use palisade_api::v1::attach_request::Message as Ask;
use palisade_api::v1::attach_response::Message as Told;
use palisade_api::v1::release_request::Hold;
use palisade_api::v1::{
    AttachAcquire, AttachOpen, CloseSessionRequest, GetLeaseRequest, ListLeasesRequest,
    ListLeasesResponse, OpenSessionRequest, RenewSessionRequest,
};
use palisade_api::{AttachRequest, AttachResponse, ErrorReason, SessionRef};
use palisade_coordinator::access::{Rule, Rules, Verb};
use palisade_coordinator::config::Settings;
use palisade_test_support::eventually;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Code, Request, Status};

use crate::store::Switch;
use crate::support::{
    Client, LONG, Serving, asking, channel, http_get, memory, opening, refused, releasing, settings,
};

const EVERY_VERB: [Verb; 3] = [Verb::Acquire, Verb::Read, Verb::Admin];

/// Each principal's token is its name with "-token" behind it.
pub(crate) fn write_tokens(file: &Path, principals: &[&str]) {
    let entries = principals.iter().map(|principal| {
        let hash = hex::encode(Sha256::digest(format!("{principal}-token")));
        format!("[[token]]\nprincipal = \"{principal}\"\nsha256 = \"{hash}\"\n")
    });
    std::fs::write(file, entries.collect::<String>()).unwrap();
}

pub(crate) fn rules(all: &[(&str, &str, &[Verb])]) -> Rules {
    let rules = all.iter().map(|(principal, prefix, verbs)| Rule {
        principal: principal.parse().unwrap(),
        prefix: prefix.parse().unwrap(),
        verbs: verbs.to_vec(),
    });
    Rules::new(rules.collect()).unwrap()
}

struct Guarded {
    serving: Serving,
    client: Client,
    files: tempfile::TempDir,
}

impl Guarded {
    async fn start(rules: Rules) -> Self {
        let files = tempfile::tempdir().unwrap();
        let token_file = files.path().join("tokens.toml");
        write_tokens(&token_file, &["alice", "bob", "carol"]);
        let settings = Settings {
            token_file: Some(token_file),
            rules,
            ..settings()
        };
        let store = Arc::new(Switch::new(memory().await));
        let serving = Serving::start(store, settings).await;
        let client = Client::new(channel(serving.addresses).await);
        Self {
            serving,
            client,
            files,
        }
    }

    async fn session(&self, who: &str) -> SessionRef {
        let request = OpenSessionRequest {
            opening: Some(opening("one")),
        };
        let opened = self.client.clone().open_session(by(who, request)).await;
        SessionRef {
            session_id: opened.unwrap().into_inner().session_id,
            secret: vec![7; 16],
            epoch: 1,
        }
    }

    async fn acquire(&self, who: &str, session: &SessionRef, what: &str) -> Result<i64, Status> {
        let request = asking(session, &format!("r-{}", what.len()), what, Duration::ZERO);
        let granted = self.client.clone().acquire(by(who, request)).await?;
        Ok(granted.into_inner().lease.unwrap().token)
    }

    async fn list(&self, who: &str, list: ListLeasesRequest) -> Result<ListLeasesResponse, Status> {
        let listed = self.client.clone().list_leases(by(who, list)).await?;
        Ok(listed.into_inner())
    }
}

fn by<T>(who: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let credentials = format!("Bearer {who}-token").parse().unwrap();
    request.metadata_mut().insert("authorization", credentials);
    request
}

fn denied(status: &Status) {
    refused(
        status,
        Code::PermissionDenied,
        ErrorReason::PermissionDenied,
    );
}

#[tokio::test]
async fn who_shows_no_good_token_is_not_let_into_any_call() {
    let guarded = Guarded::start(Rules::default()).await;
    let session = guarded.session("alice").await;
    let mut client = guarded.client.clone();
    let open = OpenSessionRequest {
        opening: Some(opening("two")),
    };
    let renew = RenewSessionRequest {
        session: Some(session.clone()),
        ..Default::default()
    };
    let close = CloseSessionRequest {
        session: Some(session.clone()),
    };
    let acquire = asking(&session, "r", "a", Duration::ZERO);
    let release = releasing(&session, "a", Hold::Token(1));
    let get = GetLeaseRequest {
        resource: "a".to_owned(),
        queue_size: 0,
    };
    let list = ListLeasesRequest::default();
    for who in [None, Some("mallory"), Some("")] {
        macro_rules! refuse {
            ($($method:ident($message:expr)),*) => {$({
                let request = match who {
                    Some(who) => by(who, $message.clone()),
                    None => Request::new($message.clone()),
                };
                let status = client.$method(request).await.unwrap_err();
                let told = refused(&status, Code::Unauthenticated, ErrorReason::Unauthenticated);
                assert!(told.is_empty(), "{told:?}");
            })*};
        }
        refuse!(
            open_session(open),
            renew_session(renew),
            close_session(close),
            acquire(acquire),
            release(release),
            get_lease(get),
            list_leases(list)
        );
    }
    // Health is for those who have no credentials, too.
    let (status, _) = http_get(guarded.serving.addresses, "/livez").await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_session_is_its_principals_alone_and_nothing_is_told_of_it() {
    let guarded = Guarded::start(Rules::default()).await;
    let session = guarded.session("alice").await;
    let token = guarded.acquire("alice", &session, "a").await.unwrap();
    let mut client = guarded.client.clone();

    let stolen = guarded.acquire("bob", &session, "b").await.unwrap_err();
    let unknown = SessionRef {
        secret: vec![8; 16],
        ..session.clone()
    };
    let guessed = guarded.acquire("alice", &unknown, "b").await.unwrap_err();
    for status in [&stolen, &guessed] {
        denied(status);
    }
    // Whose it is, and which of the two was wrong, cannot be told from the answers.
    assert_eq!(stolen.message(), guessed.message());
    assert_eq!(stolen.details(), guessed.details());
    assert!(!stolen.message().contains("alice"));

    let release = releasing(&session, "a", Hold::Token(token));
    denied(&client.release(by("bob", release)).await.unwrap_err());
    let renew = RenewSessionRequest {
        session: Some(session.clone()),
        ..Default::default()
    };
    denied(&client.renew_session(by("bob", renew)).await.unwrap_err());
    let close = CloseSessionRequest {
        session: Some(session.clone()),
    };
    denied(&client.close_session(by("bob", close)).await.unwrap_err());
    // The same open id is another session for another principal.
    assert_ne!(guarded.session("bob").await.session_id, session.session_id);
    assert_eq!(
        guarded.acquire("alice", &session, "a").await.unwrap(),
        token
    );
}

#[tokio::test]
async fn what_no_rule_allows_is_denied() {
    let guarded = Guarded::start(rules(&[
        ("alice", "orders", &EVERY_VERB),
        ("bob", "orders/eu", &[Verb::Read]),
    ]))
    .await;
    let session = guarded.session("alice").await;
    guarded
        .acquire("alice", &session, "orders/eu/1")
        .await
        .unwrap();
    for what in ["invoices", "orders-old", "orders-old/eu"] {
        denied(&guarded.acquire("alice", &session, what).await.unwrap_err());
    }
    let mut client = guarded.client.clone();
    let open = OpenSessionRequest {
        opening: Some(opening("one")),
    };
    // Who may acquire nothing opens no session either.
    for who in ["bob", "carol"] {
        denied(
            &client
                .open_session(by(who, open.clone()))
                .await
                .unwrap_err(),
        );
    }
    let get = |what: &str| GetLeaseRequest {
        resource: what.to_owned(),
        queue_size: 0,
    };
    client
        .get_lease(by("bob", get("orders/eu/1")))
        .await
        .unwrap();
    for (who, what) in [
        ("bob", "orders"),
        ("bob", "orders/europe"),
        ("carol", "orders/eu/1"),
    ] {
        denied(&client.get_lease(by(who, get(what))).await.unwrap_err());
    }
    // A release could tell the token of a lease that is none of the caller's business.
    let release = releasing(&session, "invoices", Hold::Token(1));
    denied(&client.release(by("alice", release)).await.unwrap_err());
}

#[tokio::test]
async fn a_list_leaves_out_what_its_caller_may_not_read_page_by_page() {
    let guarded = Guarded::start(rules(&[
        ("alice", "", &EVERY_VERB),
        ("bob", "a/b", &[Verb::Read]),
        ("bob", "c/", &[Verb::Read]),
        ("bob", "e/f", &[Verb::Read]),
        ("carol", "a", &[Verb::Acquire]),
    ]))
    .await;
    let session = guarded.session("alice").await;
    let seen = ["a/b", "a/b/x", "a/b/y", "c/d"];
    for (number, what) in [
        "a", "a/b", "a/b-c", "a/b/x", "a/b/y", "a/bc/d", "c", "c/d", "e/f-g", "d",
    ]
    .iter()
    .enumerate()
    {
        let request = asking(&session, &format!("r{number}"), what, Duration::ZERO);
        let request = by("alice", request);
        guarded.client.clone().acquire(request).await.unwrap();
    }
    for page_size in 1..=5 {
        let mut found = Vec::new();
        let mut page_token = String::new();
        loop {
            let list = ListLeasesRequest {
                page_size,
                page_token,
                ..ListLeasesRequest::default()
            };
            let page = guarded.list("bob", list).await.unwrap();
            assert!(page.leases.len() <= usize::try_from(page_size).unwrap());
            assert!(page.revision > 0);
            found.extend(page.leases.into_iter().map(|lease| lease.resource));
            page_token = page.next_page_token;
            // A page token, too, names only what the caller may see.
            let named = hex::decode(&page_token).unwrap();
            let named = String::from_utf8(named.get(8..).unwrap_or_default().to_vec()).unwrap();
            assert!(
                named.is_empty() || seen.contains(&named.as_str()),
                "{named}"
            );
            if page_token.is_empty() {
                break;
            }
        }
        found.sort();
        assert_eq!(found, seen, "{page_size} a page");
    }
    let list = |prefix: &str| ListLeasesRequest {
        prefix: prefix.to_owned(),
        ..ListLeasesRequest::default()
    };
    assert_eq!(
        guarded
            .list("bob", list("a/b-"))
            .await
            .map_err(|e| e.code()),
        Err(Code::PermissionDenied)
    );
    denied(&guarded.list("bob", list("d")).await.unwrap_err());
    denied(&guarded.list("carol", list("")).await.unwrap_err());
    let all = guarded.list("alice", list("")).await.unwrap();
    assert_eq!(all.leases.len(), 10);
}

#[tokio::test]
async fn tokens_change_while_it_runs() {
    let guarded = Guarded::start(Rules::default()).await;
    let file = guarded.files.path().join("tokens.toml");
    let known = async |who: &str| {
        guarded
            .list(who, ListLeasesRequest::default())
            .await
            .is_ok()
    };
    assert!(known("alice").await && known("bob").await && !known("dave").await);

    write_tokens(&file, &["alice", "dave"]);
    guarded.serving.reload.now();
    eventually("dave is known", LONG, async || known("dave").await)
        .await
        .unwrap();
    assert!(known("alice").await && !known("bob").await);

    write_tokens(&file, &["alice"]);
    guarded.serving.reload.now();
    eventually("dave is gone", LONG, async || !known("dave").await)
        .await
        .unwrap();
    assert!(known("alice").await);
}

#[tokio::test]
async fn calls_in_progress_are_bounded() {
    let mut settings = settings();
    settings.limits.max_calls = 1;
    let coordinator =
        crate::support::Coordinator::with(Switch::new(memory().await), settings).await;
    let client = &coordinator.client;
    let session = crate::support::open(client, "one").await;
    let held = asking(&session, "r1", "a", Duration::ZERO);
    crate::support::acquire(client, held).await.unwrap();
    let other = crate::support::open(client, "two").await;
    let waiting = crate::support::acquiring(client, asking(&other, "r2", "a", LONG));
    let get = || GetLeaseRequest {
        resource: "a".to_owned(),
        queue_size: 0,
    };
    let mut last = None;
    eventually("a call is refused", LONG, async || {
        last = client.clone().get_lease(get()).await.err();
        last.is_some()
    })
    .await
    .unwrap();
    let told = refused(
        &last.unwrap(),
        Code::ResourceExhausted,
        ErrorReason::LimitReached,
    );
    assert_eq!((&*told["limit"], &*told["bound"]), ("calls", "1"));
    // Room is made by a call that ends, also one whose client went away.
    waiting.abort();
    eventually("there is room again", LONG, async || {
        client.clone().get_lease(get()).await.is_ok()
    })
    .await
    .unwrap();
    coordinator.stop().await;
}

#[tokio::test]
async fn http_takes_the_same_tokens() {
    let guarded = Guarded::start(rules(&[("alice", "", &[Verb::Read])])).await;
    let status = async |header: &str| {
        let address = guarded.serving.addresses.http;
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request =
            format!("GET /v1/leases HTTP/1.1\r\nHost: test\r\n{header}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    for (header, expected) in [
        ("Authorization: Bearer alice-token\r\n", "200"),
        ("authorization: bearer alice-token\r\n", "200"),
        ("Authorization: Bearer bob-token\r\n", "403"),
        ("Authorization: Bearer mallory-token\r\n", "401"),
        ("", "401"),
    ] {
        assert_eq!(status(header).await, expected, "{header}");
    }
}

/// A stream that begins with these messages, and what comes back on it.
async fn attached(
    client: &Client,
    who: &str,
    messages: Vec<Ask>,
) -> Result<tonic::Streaming<AttachResponse>, Status> {
    let (to, rest) = tokio::sync::mpsc::channel(8);
    for (seq, message) in (1..).zip(messages) {
        let request = AttachRequest {
            seq,
            message: Some(message),
        };
        to.send(request).await.unwrap();
    }
    // The stream stays open for as long as somebody could send.
    tokio::spawn(async move { to.closed().await });
    let request = by(who, tokio_stream::wrappers::ReceiverStream::new(rest));
    let answer = client.clone().attach(request).await?;
    Ok(answer.into_inner())
}

fn opening_with(owner: Owner) -> Ask {
    Ask::Open(AttachOpen {
        owner: Some(owner),
        ..AttachOpen::default()
    })
}

#[tokio::test]
async fn a_stream_is_let_in_as_calls_are() {
    let guarded = Guarded::start(rules(&[
        ("alice", "orders", &EVERY_VERB),
        ("bob", "orders", &EVERY_VERB),
        ("carol", "orders", &[Verb::Read]),
    ]))
    .await;
    let client = &guarded.client;
    let hers = guarded.session("alice").await;
    let stolen = SessionRef {
        epoch: 2,
        ..hers.clone()
    };
    let mallory = attached(client, "mallory", Vec::new()).await.unwrap_err();
    refused(
        &mallory,
        Code::Unauthenticated,
        ErrorReason::Unauthenticated,
    );
    for (who, owner) in [
        ("bob", Owner::Session(stolen)),
        ("carol", Owner::Opening(opening("c"))),
    ] {
        let stream = attached(client, who, vec![opening_with(owner)]).await;
        let told = palisade_test_support::within("it is told", LONG, async {
            stream.unwrap().message().await
        });
        denied(&told.await.unwrap().unwrap_err());
    }
    // Her session is as it was: her stream takes it up, and takes what rules let her.
    let acquire = |request: &str, resource: &str| {
        Ask::Acquire(AttachAcquire {
            request_id: request.to_owned(),
            resource: resource.to_owned(),
            ..AttachAcquire::default()
        })
    };
    let resumed = SessionRef { epoch: 3, ..hers };
    let messages = vec![
        opening_with(Owner::Session(resumed)),
        acquire("r1", "invoices"),
        acquire("r2", "orders/eu"),
    ];
    let mut stream = attached(client, "alice", messages).await.unwrap();
    let (mut opened, mut not_allowed, mut granted) = (false, false, false);
    while !(opened && not_allowed && granted) {
        let told = palisade_test_support::within("it is told", LONG, stream.message());
        let told = told.await.unwrap().unwrap().unwrap();
        match told.message {
            Some(Told::Opened(_)) => opened = true,
            Some(Told::Granted(_)) => granted = told.reply_to == 3,
            Some(Told::Refused(told)) => {
                let why = told.refusal.unwrap();
                not_allowed = why.reason == ErrorReason::PermissionDenied.reason();
            }
            _ => {}
        }
    }
}
