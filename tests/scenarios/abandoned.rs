//! Acquires that nobody waits for any more leave nothing behind while their session lives on (I5): no lease, and
//! no place in a queue.

use std::time::Duration;

use palisade_client::{Client, ClientError, Session, SessionOptions, SessionState, Transport};
use palisade_test_support::{Coordinator, Proxy, eventually};

use crate::setup::{LIMIT, acquired, client_of, name, waiting};

/// Nothing here waits for its end: what is left behind is not seen to be given back by it.
const LONG_TTL: Duration = Duration::from_secs(120);
/// How many are dropped at whatever moment.
const MANY: u64 = 40;

struct Abandoning {
    /// Looks past the link.
    direct: Client,
    link: Proxy,
    session: Session,
    _coordinator: Coordinator,
}

impl Abandoning {
    async fn start(transport: Transport) -> Self {
        let coordinator = Coordinator::builder().start().await.unwrap();
        let link = Proxy::start(&coordinator.host_port()).await.unwrap();
        let client = Client::builder()
            .endpoint(link.url())
            .transport(transport)
            .call_timeout(Duration::from_secs(2))
            .connect()
            .unwrap();
        let options = SessionOptions::default().ttl(LONG_TTL);
        Self {
            direct: client_of(&[&coordinator]),
            link,
            session: client.open_session(options).await.unwrap(),
            _coordinator: coordinator,
        }
    }

    /// Asks for a resource until `seen` of who holds it and how many wait, and then no more.
    async fn abandons(&self, resource: &str, seen: (bool, u32)) {
        let resource = name(resource);
        tokio::select! {
            lease = self.session.acquire(&resource, waiting(LONG_TTL)) => panic!("{lease:?}"),
            () = self.stands(resource.as_str(), seen) => {}
        }
    }

    async fn stands(&self, resource: &str, (held, waiters): (bool, u32)) {
        let what = format!("{resource} held: {held}, {waiters} wait");
        let seen = async || {
            let seen = self.direct.get_lease(&name(resource), 0).await.unwrap();
            (seen.lease.is_some(), seen.waiters) == (held, waiters)
        };
        eventually(&what, LIMIT, seen).await.unwrap();
    }

    /// Gets the resource, once what an abandoned request was granted meanwhile is given back, too.
    async fn acquires(&self, resource: &str) {
        let resource = name(resource);
        let mut lease = None;
        let got = async || match self.session.acquire(&resource, waiting(LIMIT)).await {
            Ok(granted) => {
                lease = Some(granted);
                true
            }
            Err(ClientError::AlreadyHeld { .. }) => false,
            Err(error) => panic!("{error:?}"),
        };
        eventually("a lease", LIMIT, got).await.unwrap();
        lease.unwrap().release().await.unwrap();
    }
}

async fn nothing_is_left(transport: Transport) {
    let here = Abandoning::start(transport).await;
    let other = acquired(&here.direct, "taken").await.unwrap();

    // While it waits.
    here.abandons("taken", (true, 1)).await;
    here.stands("taken", (true, 0)).await;

    // While it waits, and over a link that then breaks, for good or for a while.
    let resource = name("taken");
    tokio::select! {
        lease = here.session.acquire(&resource, waiting(LONG_TTL)) => panic!("{lease:?}"),
        () = async {
            here.stands("taken", (true, 1)).await;
            here.link.cut().await.unwrap();
        } => {}
    }
    here.link.heal().await.unwrap();
    here.stands("taken", (true, 0)).await;
    here.acquires("a").await;

    // Granted, and the answer is lost on its way.
    here.link.drop_replies();
    here.abandons("free", (true, 0)).await;
    here.link.heal().await.unwrap();
    here.stands("free", (false, 0)).await;
    here.acquires("free").await;

    // Nothing gets through before nobody waits any more.
    here.link.blackhole();
    let late = name("late");
    tokio::select! {
        lease = here.session.acquire(&late, waiting(LONG_TTL)) => panic!("{lease:?}"),
        () = pause(Duration::from_millis(100)) => {}
    }
    here.link.heal().await.unwrap();
    here.acquires("b").await;
    here.stands("late", (false, 0)).await;

    // At whatever moment.
    for round in 0..MANY {
        let resource = name(&format!("many/{}", round % 4));
        tokio::select! {
            lease = here.session.acquire(&resource, waiting(LONG_TTL)) => drop(lease),
            () = pause(Duration::from_micros(round * 100)) => {}
        }
    }
    for resource in 0..4 {
        here.stands(&format!("many/{resource}"), (false, 0)).await;
        here.acquires(&format!("many/{resource}")).await;
    }
    assert_eq!(here.session.state(), SessionState::Held);
    other.release().await.unwrap();
    here.acquires("taken").await;
}

#[allow(
    clippy::disallowed_methods,
    reason = "the moment at which somebody loses patience"
)]
async fn pause(length: Duration) {
    tokio::time::sleep(length).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_stream_an_abandoned_acquire_leaves_nothing() {
    nothing_is_left(Transport::Stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_calls_an_abandoned_acquire_leaves_nothing() {
    nothing_is_left(Transport::Unary).await;
}
