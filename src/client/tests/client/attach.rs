//! Sessions over streams.

use std::sync::Arc;
use std::time::Duration;

use palisade_client::{AcquireOptions, Client, ClientBuilder, Lease, Session, SessionOptions};

use crate::clock::ManualClock;
use crate::fake::in_time;

mod basics;
mod deadline;
mod many;
mod news;
mod streams;
pub(crate) mod world;

use self::world::Host;

fn builder(hosts: &[&Host]) -> ClientBuilder {
    Client::builder()
        .endpoints(hosts.iter().map(|host| host.address.clone()))
        .call_timeout(Duration::from_secs(2))
}

async fn session_of(hosts: &[&Host]) -> Session {
    let client = builder(hosts).connect().unwrap();
    in_time(client.open_session(SessionOptions::default()))
        .await
        .unwrap()
}

async fn with_clock(hosts: &[&Host], clock: &Arc<ManualClock>) -> Session {
    let client = builder(hosts).clock(Arc::<ManualClock>::clone(clock));
    let client = client.connect().unwrap();
    in_time(client.open_session(SessionOptions::default()))
        .await
        .unwrap()
}

async fn held(session: &Session, resource: &str) -> Lease {
    let name = resource.parse().unwrap();
    in_time(session.try_acquire(&name)).await.unwrap()
}

fn waiting() -> AcquireOptions {
    AcquireOptions::default().wait(Duration::from_secs(60))
}
