//! Watches of leases, and what is told of queues, tokens and former leases.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use palisade_api::v1::watch_leases_request::Scope;
use palisade_api::v1::{
    CheckTokenRequest, GetLeaseRequest, LeaseEvent, LeaseEventType as Type, TokenState,
    WatchLeasesRequest, WatchLeasesResponse,
};
use palisade_api::{ErrorReason, LeaseEnd};
use palisade_coordinator::domain::{Principal, Revoke, Revoked};
use palisade_coordinator::store::memory::MemoryStore;
use palisade_coordinator::store::{Store, conformance};
use palisade_test_support::{eventually, within};
use palisade_token::{FencingToken, ResourceName};
use tonic::{Code, Status, Streaming};

use crate::store::{Mode, Switch};
use crate::support::{
    Client, Coordinator, LONG, acquire, acquiring, asking, get, memory, open, outcome, refused,
    release, settings, token,
};

const HOUR: Duration = Duration::from_secs(3600);

struct Watcher {
    stream: Streaming<WatchLeasesResponse>,
    ready: VecDeque<LeaseEvent>,
}

fn prefix(text: &str) -> WatchLeasesRequest {
    WatchLeasesRequest {
        scope: Some(Scope::Prefix(text.to_owned())),
        ..WatchLeasesRequest::default()
    }
}

fn one(name: &str) -> WatchLeasesRequest {
    WatchLeasesRequest {
        scope: Some(Scope::Resource(name.to_owned())),
        ..WatchLeasesRequest::default()
    }
}

async fn watch(client: &Client, request: WatchLeasesRequest) -> Result<Watcher, Status> {
    let stream = client.clone().watch_leases(request).await?;
    Ok(Watcher {
        stream: stream.into_inner(),
        ready: VecDeque::new(),
    })
}

impl Watcher {
    async fn message(&mut self) -> Result<Option<WatchLeasesResponse>, Status> {
        let message = within("news of a watch", LONG, self.stream.message()).await;
        message.unwrap()
    }

    async fn next(&mut self) -> LeaseEvent {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            let message = self.message().await.unwrap().expect("a watch goes on");
            assert!(!message.events.is_empty());
            let first = message.events[0].revision;
            let is_one = message.events.iter().all(|event| event.revision == first);
            assert!(is_one, "{message:?}");
            self.ready.extend(message.events);
        }
    }

    async fn sees(&mut self, kind: Type, name: &str) -> LeaseEvent {
        let mut event = self.next().await;
        // On a slow machine they come in between.
        while event.r#type() == Type::Bookmark && kind != Type::Bookmark {
            event = self.next().await;
        }
        assert_eq!(
            (event.r#type(), event.resource.as_str()),
            (kind, name),
            "{event:?}"
        );
        event
    }

    async fn ends(&mut self) -> Status {
        loop {
            match self.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a watch ended without a status"),
                Err(status) => return status,
            }
        }
    }
}

fn token_of(event: &LeaseEvent) -> i64 {
    event.lease.as_ref().unwrap().token
}

async fn take(client: &Client, session: &palisade_api::SessionRef, id: &str, name: &str) -> i64 {
    let request = asking(session, id, name, Duration::ZERO);
    token(&acquire(client, request).await.unwrap())
}

#[tokio::test]
async fn a_watch_shows_what_is_and_then_what_changes() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (holder, heir) = (open(client, "holder").await, open(client, "heir").await);
    let first = take(client, &holder, "r1", "a/x").await;
    take(client, &holder, "r2", "b/x").await;
    let mut watcher = watch(client, prefix("a/")).await.unwrap();
    let shown = watcher.sees(Type::Snapshot, "a/x").await;
    assert_eq!(token_of(&shown), first);
    let end = watcher.sees(Type::SnapshotEnd, "").await;
    assert!(end.revision > 0 && shown.revision == end.revision);
    let waiting = acquiring(client, asking(&heir, "r1", "a/x", HOUR));
    coordinator.waiting("a/x", 1).await;
    release(client, &holder, "a/x", first).await;
    let released = watcher.sees(Type::Released, "a/x").await;
    assert_eq!(token_of(&released), first);
    let granted = watcher.sees(Type::Granted, "a/x").await;
    let second = token(&outcome(waiting).await.unwrap());
    assert_eq!(
        (token_of(&granted), granted.revision),
        (second, released.revision)
    );
    take(client, &holder, "r3", "b/y").await;
    let revoke = Revoke {
        resource: ResourceName::new("a/x").unwrap(),
        token: FencingToken::try_from(second).unwrap(),
        reason: "it hangs".to_owned(),
        actor: "somebody".to_owned(),
        principal: Principal::anonymous(),
    };
    let revoked = coordinator.store.revoke(&revoke).await.unwrap();
    assert!(matches!(revoked, Revoked::Lease { .. }));
    let revoked = watcher.sees(Type::Revoked, "a/x").await;
    assert_eq!(
        (token_of(&revoked), revoked.reason.as_str()),
        (second, "it hangs")
    );
    let vacant = watcher.sees(Type::Vacant, "a/x").await;

    // A watch of one resource, resumed where another one was, shows what came after.
    let request = WatchLeasesRequest {
        resume_revision: released.revision,
        ..one("a/x")
    };
    let mut resumed = watch(client, request).await.unwrap();
    assert_eq!(resumed.sees(Type::Revoked, "a/x").await, revoked);
    assert_eq!(resumed.sees(Type::Vacant, "a/x").await, vacant);
    let mut alone = watch(client, one("a/x")).await.unwrap();
    alone.sees(Type::SnapshotEnd, "").await;
    take(client, &heir, "r2", "a/x/below").await;
    let third = take(client, &heir, "r3", "a/x").await;
    for watcher in [&mut resumed, &mut alone] {
        assert_eq!(token_of(&watcher.sees(Type::Granted, "a/x").await), third);
    }
    coordinator.stop().await;
}

#[tokio::test]
async fn what_cannot_be_resumed_begins_anew() {
    let memory = memory().await;
    let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&memory);
    conformance::Client::open(&store, "before", HOUR).await;
    let coordinator = Coordinator::with(Switch::new(memory), settings()).await;
    let client = &coordinator.client;
    let holder = open(client, "holder").await;
    take(client, &holder, "r1", "x").await;
    // One that was before the coordinator's time, and one that was never.
    for resume_revision in [1, i64::MAX] {
        let request = WatchLeasesRequest {
            resume_revision,
            ..prefix("")
        };
        let mut watcher = watch(client, request).await.unwrap();
        watcher.sees(Type::Resync, "").await;
        watcher.sees(Type::Snapshot, "x").await;
        watcher.sees(Type::SnapshotEnd, "").await;
    }
    coordinator.stop().await;
}

#[tokio::test]
async fn a_bookmark_can_be_resumed_from() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let holder = open(client, "holder").await;
    let request = WatchLeasesRequest {
        bookmark_interval_ms: 1000,
        ..prefix("a/")
    };
    let mut watcher = watch(client, request).await.unwrap();
    watcher.sees(Type::SnapshotEnd, "").await;
    take(client, &holder, "r1", "b").await;
    let bookmark = watcher.sees(Type::Bookmark, "").await;
    drop(watcher);
    let granted = take(client, &holder, "r2", "a/x").await;
    let request = WatchLeasesRequest {
        resume_revision: bookmark.revision,
        ..prefix("a/")
    };
    let mut watcher = watch(client, request).await.unwrap();
    assert_eq!(token_of(&watcher.sees(Type::Granted, "a/x").await), granted);
    coordinator.stop().await;
}

#[tokio::test]
async fn watches_are_bounded_and_end_with_a_status() {
    let mut settings = settings();
    settings.limits.max_watchers = 1;
    let coordinator = Coordinator::with(Switch::new(memory().await), settings).await;
    let client = &coordinator.client;
    let mut first = watch(client, prefix("")).await.unwrap();
    first.sees(Type::SnapshotEnd, "").await;
    let status = watch(client, prefix("")).await.err().unwrap();
    let told = refused(&status, Code::ResourceExhausted, ErrorReason::LimitReached);
    assert_eq!(
        (told["limit"].as_str(), told["bound"].as_str()),
        ("watchers", "1")
    );
    drop(first);
    eventually("there is room again", LONG, async || {
        watch(client, prefix("")).await.is_ok()
    })
    .await
    .unwrap();
    // The room of what was dropped comes back a moment later.
    let mut last = loop {
        if let Ok(last) = watch(client, prefix("")).await {
            break last;
        }
        tokio::task::yield_now().await;
    };
    last.sees(Type::SnapshotEnd, "").await;
    coordinator.shutdown.cancel();
    let status = last.ends().await;
    refused(&status, Code::Unavailable, ErrorReason::Draining);
    drop(last);
    coordinator.stop().await;
}

#[tokio::test]
async fn a_watch_of_a_store_that_is_away_says_so() {
    let mut settings = settings();
    settings.timeouts.default_call = Duration::from_millis(500);
    let coordinator = Coordinator::with(Switch::new(memory().await), settings).await;
    let client = &coordinator.client;
    for mode in [Mode::Away, Mode::Hangs] {
        coordinator.store.mode.send_replace(mode);
        let mut watcher = watch(client, prefix("")).await.unwrap();
        let status = watcher.ends().await;
        refused(&status, Code::Unavailable, ErrorReason::StoreUnavailable);
    }
    coordinator.store.mode.send_replace(Mode::Up);
    coordinator.stop().await;
}

/// I12, I13: who does not read is cut off with a status, and others are told as before.
#[tokio::test]
async fn a_slow_watcher_is_cut_off() {
    let mut settings = settings();
    settings.limits.max_backlog_bytes = 16 * 1024;
    let coordinator = Coordinator::with(Switch::new(memory().await), settings).await;
    let client = &coordinator.client;
    let holder = open(client, "holder").await;
    let mut slow = watch(client, prefix("")).await.unwrap();
    let mut quick = watch(client, prefix("q")).await.unwrap();
    slow.sees(Type::SnapshotEnd, "").await;
    quick.sees(Type::SnapshotEnd, "").await;
    // Far more than fits: what the transport holds, and what may wait behind it.
    let mut metadata = asking(&holder, "large", "busy", Duration::ZERO);
    for round in 0..2_000 {
        metadata.metadata = vec![7; 4000];
        metadata.request_id = format!("r{round}");
        let granted = acquire(client, metadata.clone()).await.unwrap();
        release(client, &holder, "busy", token(&granted)).await;
    }
    take(client, &holder, "q", "q").await;
    quick.sees(Type::Granted, "q").await;
    let status = slow.ends().await;
    let told = refused(&status, Code::ResourceExhausted, ErrorReason::LimitReached);
    assert_eq!(told["limit"], "backlog");
    coordinator.stop().await;
}

/// Connections of a client that takes little and reads nothing.
async fn narrow(coordinator: &Coordinator) -> Client {
    let url = format!("http://{}", coordinator.addresses.grpc);
    let channel = tonic::transport::Channel::from_shared(url).unwrap();
    let channel = channel
        .initial_stream_window_size(16 * 1024)
        .connect()
        .await;
    Client::new(channel.unwrap())
}

/// I12, I13: so many watch and no more; those that do not read are cut off and make room; who reads is told all.
#[tokio::test]
async fn a_flood_of_watchers_is_bounded_and_disturbs_nobody() {
    const MOST: usize = 64;
    let mut settings = settings();
    settings.limits.max_watchers = MOST;
    settings.limits.max_backlog_bytes = 16 * 1024;
    let coordinator = Coordinator::with(Switch::new(memory().await), settings).await;
    let client = &coordinator.client;
    let holder = open(client, "holder").await;
    let mut reader = watch(client, prefix("q")).await.unwrap();
    reader.sees(Type::SnapshotEnd, "").await;
    let mut flood = Vec::new();
    for number in 0..3 * MOST {
        let client = narrow(&coordinator).await;
        match watch(&client, prefix("")).await {
            Ok(watcher) => flood.push(watcher),
            Err(status) => {
                let limit = ErrorReason::LimitReached;
                let told = refused(&status, Code::ResourceExhausted, limit);
                assert_eq!(
                    (told["limit"].as_str(), number < MOST - 1),
                    ("watchers", false)
                );
            }
        }
    }
    assert_eq!(flood.len(), MOST - 1);
    let shown = crate::rest::get(coordinator.addresses, "/v1/leases:watch?prefix=").await;
    assert_eq!(shown.status, 429, "{shown:?}");
    let watches = async || crate::metrics::scrape(coordinator.addresses).await["palisade_watches"];
    assert_eq!(watches().await, 64.0);
    // More than the window of a stream takes, and than may wait behind it.
    for round in 0..300 {
        let mut asked = asking(&holder, &format!("r{round}"), "busy", Duration::ZERO);
        asked.metadata = vec![7; 4000];
        let granted = acquire(client, asked).await.unwrap();
        release(client, &holder, "busy", token(&granted)).await;
    }
    for mut slow in flood {
        let status = slow.ends().await;
        let told = refused(&status, Code::ResourceExhausted, ErrorReason::LimitReached);
        assert_eq!(told["limit"], "backlog");
    }
    take(client, &holder, "q", "q").await;
    reader.sees(Type::Granted, "q").await;
    eventually("there is room again", LONG, async || watches().await == 1.0)
        .await
        .unwrap();
    coordinator.stop().await;
}

#[tokio::test]
async fn a_token_is_compared_with_the_current_one() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (holder, heir) = (open(client, "holder").await, open(client, "heir").await);
    let check = async |given: i64| {
        let request = CheckTokenRequest {
            resource: "x".to_owned(),
            token: given,
        };
        let checked = client
            .clone()
            .check_token(request)
            .await
            .unwrap()
            .into_inner();
        (checked.state(), checked.current_token)
    };
    let first = take(client, &holder, "r1", "x").await;
    assert_eq!(check(first).await, (TokenState::Current, first));
    assert_eq!(check(first - 1).await, (TokenState::Stale, first));
    release(client, &holder, "x", first).await;
    assert_eq!(check(first).await, (TokenState::Vacant, 0));
    let second = take(client, &heir, "r1", "x").await;
    assert_eq!(check(first).await, (TokenState::Stale, second));
    assert_eq!(
        check(FencingToken::MAX.cast_signed()).await,
        (TokenState::Ahead, second)
    );
    coordinator.stop().await;
}

#[tokio::test]
async fn a_queue_is_shown_and_how_the_lease_before_ended() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let holder = open(client, "holder").await;
    let first = take(client, &holder, "r1", "x").await;
    let mut waiting = Vec::new();
    let mut sessions = Vec::new();
    for number in 0..3_u32 {
        let session = open(client, &format!("waiter-{number}")).await;
        waiting.push(acquiring(client, asking(&session, "w", "x", HOUR)));
        coordinator.waiting("x", number + 1).await;
        sessions.push(session.session_id);
    }
    let request = GetLeaseRequest {
        resource: "x".to_owned(),
        queue_size: 2,
    };
    let shown = client
        .clone()
        .get_lease(request)
        .await
        .unwrap()
        .into_inner();
    let queue: Vec<_> = shown
        .queue
        .iter()
        .map(|waiter| &waiter.session_id)
        .collect();
    assert_eq!(queue, [&sessions[0], &sessions[1]]);
    assert_eq!(shown.waiters, 3);
    for task in &waiting {
        task.abort();
    }
    let alone = take(client, &holder, "r2", "y").await;
    release(client, &holder, "y", alone).await;
    let previous = get(client, "y").await.previous.unwrap();
    assert_eq!(
        (previous.end(), previous.token),
        (LeaseEnd::Released, alone)
    );
    let again = acquire(client, asking(&holder, "r3", "y", Duration::ZERO))
        .await
        .unwrap();
    let previous = again.previous.unwrap();
    assert_eq!(
        (previous.end(), previous.token),
        (LeaseEnd::Released, alone)
    );
    assert!(again.lease.unwrap().granted_unix_ms > 0);
    let never = acquire(client, asking(&holder, "r4", "z", Duration::ZERO))
        .await
        .unwrap();
    assert_eq!(never.previous.unwrap().end(), LeaseEnd::Unknown);
    release(client, &holder, "x", first).await;
    coordinator.stop().await;
}
