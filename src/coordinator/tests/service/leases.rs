//! Sessions and leases by unary calls.

use std::time::Duration;

use palisade_api::v1::acquire_request::Owner;
use palisade_api::v1::release_request::Hold;
use palisade_api::v1::{
    CloseSessionRequest, ListLeasesRequest, OpenRequest, OpenSessionRequest, RenewSessionRequest,
};
use palisade_api::{AcquireRequest, ErrorReason, LeaseEnd, ReleaseOutcome};
use palisade_coordinator::domain::WallClock;
use tonic::Code;

use crate::store::Mode;
use crate::support::{
    Coordinator, LONG, acquire, acquiring, again, asking, get, open, opening, outcome, refused,
    release, releasing, token,
};

const NO_WAIT: Duration = Duration::ZERO;

#[tokio::test]
async fn a_lease_is_granted_seen_renewed_and_released() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let session = open(client, "s").await;
    let mut request = asking(&session, "r1", "orders/eu", NO_WAIT);
    request.metadata = b"who".to_vec();
    let granted = acquire(client, request.clone()).await.unwrap();
    let lease = granted.lease.clone().unwrap();
    assert_eq!(lease.resource, "orders/eu");
    assert_eq!(
        (lease.holder.len(), lease.metadata.as_slice()),
        (16, &b"who"[..])
    );
    assert!(lease.token > 0 && lease.token < 1 << 53);
    assert!((1..=300_000).contains(&granted.ttl_left_ms));

    // I4: a copy of the request, and a retry of it, have the same answer.
    let copy = acquire(client, request.clone()).await.unwrap();
    assert_eq!(token(&copy), lease.token);
    let retried = acquire(client, again(request)).await.unwrap();
    assert_eq!(token(&retried), lease.token);

    let shown = get(client, "orders/eu").await.lease.unwrap();
    assert_eq!((shown.token, shown.label.as_str()), (lease.token, "a test"));

    let mut session = session;
    session.epoch = 2;
    let renewal = RenewSessionRequest {
        session: Some(session.clone()),
        ..Default::default()
    };
    let renewed = client.clone().renew_session(renewal).await.unwrap();
    let renewed = renewed.into_inner();
    assert_eq!(renewed.ttl_ms, 300_000);
    assert!((299_000..=300_000).contains(&renewed.ttl_left_ms));
    assert!(renewed.open_requests.is_empty(), "{renewed:?}");

    let request = releasing(&session, "orders/eu", Hold::Token(lease.token));
    let released = client.clone().release(request.clone()).await.unwrap();
    assert_eq!(released.into_inner().outcome(), ReleaseOutcome::Released);
    let twice = client.clone().release(request).await.unwrap().into_inner();
    assert_eq!(twice.outcome(), ReleaseOutcome::NotHeld);
    assert_eq!(twice.end(), LeaseEnd::Unknown);
    assert_eq!(get(client, "orders/eu").await.lease, None);
    coordinator.stop().await;
}

#[tokio::test]
async fn a_renewal_tells_what_the_session_has_where_that_is_asked_for() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (one, other) = (open(client, "one").await, open(client, "other").await);
    let held = acquire(client, asking(&one, "held", "r1", NO_WAIT)).await;
    let held = token(&held.unwrap());
    let others = acquire(client, asking(&other, "others", "r2", NO_WAIT)).await;
    others.unwrap();
    let waiting = acquiring(client, asking(&one, "waiting", "r2", LONG));
    coordinator.waiting("r2", 1).await;
    let renewal = RenewSessionRequest {
        session: Some(one),
        list_open_requests: true,
    };
    let renewed = client.clone().renew_session(renewal).await.unwrap();
    let mut has = renewed.into_inner().open_requests;
    has.sort_by(|one, other| one.resource.cmp(&other.resource));
    let request = |resource: &str, request_id: &str, token| OpenRequest {
        resource: resource.into(),
        request_id: request_id.into(),
        token,
    };
    assert_eq!(
        has,
        [request("r1", "held", held), request("r2", "waiting", 0)]
    );
    waiting.abort();
    coordinator.stop().await;
}

#[tokio::test]
async fn what_stands_in_the_way_is_told() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (holder, other) = (open(client, "a").await, open(client, "b").await);
    let granted = acquire(client, asking(&holder, "r1", "x", NO_WAIT)).await;
    let held = token(&granted.unwrap()).to_string();

    let status = acquire(client, asking(&other, "r1", "x", NO_WAIT)).await;
    let told = refused(
        &status.unwrap_err(),
        Code::FailedPrecondition,
        ErrorReason::LeaseHeld,
    );
    assert_eq!(
        (&told["resource"], &told["token"]),
        (&"x".to_owned(), &held)
    );

    let status = acquire(client, asking(&holder, "r2", "x", NO_WAIT)).await;
    let told = refused(
        &status.unwrap_err(),
        Code::FailedPrecondition,
        ErrorReason::AlreadyHeld,
    );
    assert_eq!((told["requestId"].as_str(), &told["token"]), ("r1", &held));

    let mut reused = asking(&holder, "r1", "x", NO_WAIT);
    reused.metadata = b"other".to_vec();
    let status = acquire(client, reused).await.unwrap_err();
    refused(&status, Code::InvalidArgument, ErrorReason::RequestMismatch);

    let foreign = releasing(&other, "x", Hold::Token(held.parse().unwrap()));
    let status = client.clone().release(foreign).await.unwrap_err();
    let told = refused(&status, Code::FailedPrecondition, ErrorReason::StaleToken);
    assert_eq!((&told["token"], &told["currentToken"]), (&held, &held));
    coordinator.stop().await;
}

#[tokio::test]
async fn a_session_is_its_owners_and_its_epoch_only_grows() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let session = open(client, "s").await;

    let mut thief = session.clone();
    thief.secret = vec![8; 16];
    let status = acquire(client, asking(&thief, "r1", "x", NO_WAIT)).await;
    let denied = ErrorReason::PermissionDenied;
    refused(&status.unwrap_err(), Code::PermissionDenied, denied);
    let mut other = opening("s");
    other.secret = vec![8; 16];
    let request = OpenSessionRequest {
        opening: Some(other),
    };
    let status = client.clone().open_session(request).await.unwrap_err();
    refused(&status, Code::PermissionDenied, denied);

    let mut later = session.clone();
    later.epoch = 5;
    acquire(client, asking(&later, "r1", "x", NO_WAIT))
        .await
        .unwrap();
    let status = acquire(client, asking(&session, "r2", "y", NO_WAIT)).await;
    let told = refused(&status.unwrap_err(), Code::Aborted, ErrorReason::EpochStale);
    assert_eq!(
        (told["epoch"].as_str(), told["storedEpoch"].as_str()),
        ("1", "5")
    );

    let close = CloseSessionRequest {
        session: Some(later.clone()),
    };
    client.clone().close_session(close.clone()).await.unwrap();
    client.clone().close_session(close).await.unwrap();
    let status = acquire(client, asking(&later, "r3", "x", NO_WAIT)).await;
    let told = refused(
        &status.unwrap_err(),
        Code::NotFound,
        ErrorReason::SessionEnded,
    );
    assert_eq!(told["sessionId"], session.session_id);
    coordinator.stop().await;
}

#[tokio::test]
async fn an_opening_is_found_again_and_its_ttl_is_in_whole_seconds() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let mut odd = opening("odd");
    odd.ttl_ms = 5_001;
    let request = OpenSessionRequest { opening: Some(odd) };
    let first = client.clone().open_session(request.clone()).await.unwrap();
    let second = client.clone().open_session(request).await.unwrap();
    let (first, second) = (first.into_inner(), second.into_inner());
    assert_eq!(first.ttl_ms, 6_000);
    assert!((5_000..=6_000).contains(&first.ttl_left_ms));
    assert_eq!(first.session_id, second.session_id);

    let mut default = opening("default");
    default.ttl_ms = 0;
    let request = OpenSessionRequest {
        opening: Some(default),
    };
    let opened = client.clone().open_session(request).await.unwrap();
    assert_eq!(opened.into_inner().ttl_ms, 15_000);
    coordinator.stop().await;
}

#[tokio::test]
async fn an_acquire_opens_the_session_and_a_retry_of_it_finds_both() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    for (first_arrives, name) in [(true, "arrived"), (false, "lost")] {
        let request = AcquireRequest {
            owner: Some(Owner::Opening(opening(name))),
            request_id: "r1".to_owned(),
            resource: name.to_owned(),
            ..AcquireRequest::default()
        };
        let first = if first_arrives {
            Some(acquire(client, request.clone()).await.unwrap())
        } else {
            None
        };
        let retried = acquire(client, again(request)).await.unwrap();
        assert_eq!(retried.lease.as_ref().unwrap().ttl_ms, 300_000);
        if let Some(first) = first {
            assert_eq!(token(&first), token(&retried));
            assert_eq!(first.session_id, retried.session_id);
        }
    }
    coordinator.stop().await;
}

#[tokio::test]
async fn leases_are_listed_in_pages() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let session = open(client, "s").await;
    for resource in ["a/1", "a/2", "a/3", "b/1"] {
        let request = asking(&session, "r", resource, NO_WAIT);
        acquire(client, request).await.unwrap();
    }
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListLeasesRequest {
            prefix: "a/".to_owned(),
            page_size: 2,
            page_token,
        };
        let page = client
            .clone()
            .list_leases(request)
            .await
            .unwrap()
            .into_inner();
        assert!(page.leases.len() <= 2);
        found.extend(page.leases.into_iter().map(|lease| lease.resource));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        // It goes on with its own list only.
        let other = ListLeasesRequest {
            prefix: String::new(),
            page_size: 2,
            page_token: page_token.clone(),
        };
        let status = client.clone().list_leases(other).await.unwrap_err();
        refused(&status, Code::InvalidArgument, ErrorReason::InvalidField);
    }
    assert_eq!(found, ["a/1", "a/2", "a/3"]);
    coordinator.stop().await;
}

#[tokio::test]
async fn a_fence_that_is_ahead_is_stepped_past_unless_it_is_far_ahead() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let session = open(client, "s").await;
    let hour = i64::try_from(WallClock::DAY_MICROS / 24).unwrap();

    let first = acquire(client, asking(&session, "r1", "x", NO_WAIT)).await;
    let first = token(&first.unwrap());
    let fence = first + hour;
    let mut request = releasing(&session, "x", Hold::Token(first));
    request.refused_by_fence = fence;
    client.clone().release(request).await.unwrap();
    let second = acquire(client, asking(&session, "r2", "x", NO_WAIT)).await;
    let second = token(&second.unwrap());
    assert!(second > fence, "{second} is above {fence}");

    let far = second + 48 * hour;
    let mut request = releasing(&session, "x", Hold::Token(second));
    request.refused_by_fence = far;
    let status = client.clone().release(request).await.unwrap_err();
    let told = refused(&status, Code::FailedPrecondition, ErrorReason::FenceAhead);
    assert_eq!(
        (&told["token"], &told["fence"]),
        (&second.to_string(), &far.to_string())
    );
    assert_eq!(get(client, "x").await.lease, None, "released all the same");
    coordinator.stop().await;
}

#[tokio::test]
async fn a_fence_of_a_later_lease_moves_nothing() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (old, new) = (open(client, "old").await, open(client, "new").await);
    let first = acquire(client, asking(&old, "r1", "x", NO_WAIT))
        .await
        .unwrap();
    release(client, &old, "x", token(&first)).await;
    let second = acquire(client, asking(&new, "r1", "x", NO_WAIT))
        .await
        .unwrap();

    let mut request = releasing(&old, "x", Hold::Token(token(&first)));
    request.refused_by_fence = token(&second);
    client.clone().release(request).await.unwrap();
    release(client, &new, "x", token(&second)).await;
    let third = acquire(client, asking(&new, "r2", "x", NO_WAIT))
        .await
        .unwrap();
    let generation = |of: &palisade_api::AcquireResponse| of.lease.clone().unwrap().generation;
    assert_eq!(generation(&second), generation(&third));
    coordinator.stop().await;
}

#[tokio::test]
async fn the_heir_of_a_lease_that_a_fence_refused_is_above_the_fence() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (holder, heir) = (open(client, "holder").await, open(client, "heir").await);
    let first = acquire(client, asking(&holder, "r", "x", NO_WAIT)).await;
    let first = token(&first.unwrap());
    let waiting = acquiring(client, asking(&heir, "r", "x", LONG));
    coordinator.waiting("x", 1).await;

    let fence = first + i64::try_from(WallClock::DAY_MICROS / 24).unwrap();
    let mut request = releasing(&holder, "x", Hold::Token(first));
    request.refused_by_fence = fence;
    client.clone().release(request).await.unwrap();
    let next = token(&outcome(waiting).await.unwrap());
    assert!(next > fence, "{next} is above {fence}");
    coordinator.stop().await;
}

#[tokio::test]
async fn only_the_holder_of_a_lease_moves_tokens_past_a_fence() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (holder, other) = (open(client, "holder").await, open(client, "other").await);
    let held = acquire(client, asking(&holder, "r", "x", NO_WAIT)).await;
    let held = token(&held.unwrap());
    let fence = held + i64::try_from(WallClock::DAY_MICROS / 24).unwrap();
    for (session, resource, hold) in [
        (&other, "x", Hold::Token(1)),
        (&other, "x", Hold::RequestId("r".to_owned())),
        (&holder, "vacant", Hold::Token(1)),
        (&holder, "x", Hold::RequestId("another".to_owned())),
    ] {
        let mut request = releasing(session, resource, hold);
        request.refused_by_fence = fence;
        client.clone().release(request).await.unwrap();
    }
    let next = acquire(client, asking(&other, "r", "y", NO_WAIT)).await;
    let next = token(&next.unwrap());
    assert!(next < fence, "{next} is not moved past {fence}");
    coordinator.stop().await;
}

#[tokio::test]
async fn a_fence_that_cannot_be_stepped_past_keeps_no_lease_from_being_released() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let session = open(client, "s").await;
    let held = acquire(client, asking(&session, "r", "x", NO_WAIT)).await;
    let held = token(&held.unwrap());
    coordinator.store.mode.send_replace(Mode::IsFull);
    let mut request = releasing(&session, "x", Hold::Token(held));
    request.refused_by_fence = held + 1;
    let status = client.clone().release(request).await.unwrap_err();
    let told = refused(&status, Code::ResourceExhausted, ErrorReason::LimitReached);
    assert_eq!(told["mayHaveHappened"], "true");
    assert_eq!(get(client, "x").await.lease, None, "released all the same");
    coordinator.stop().await;
}
