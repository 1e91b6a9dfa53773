//! Holders, waiters and newcomers of Palisade.

use std::time::{Duration, Instant};

use palisade_client::{AcquireOptions, Client, ClientError, Lease, Session, SessionOptions};
use palisade_test_support::{eventually, within};
use palisade_token::{FencingToken, ResourceName};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{LIMIT, ON_ITS_WAY, Times, free, since};
use crate::field::TTL;
use crate::hand::Hand;
use crate::workload::Failed;

/// The next in the queue, waiting in a task of its own.
struct Waiter {
    granted: JoinSet<Result<(Lease, Instant), ClientError>>,
}

/// A holder in a process of its own, and the next in the queue.
pub(super) struct Abandoned {
    holder: Hand,
    held: FencingToken,
    waiter: Waiter,
}

/// A holder, the next in the queue, and a second lease that its holder keeps.
pub(super) struct Scene {
    client: Client,
    addresses: Vec<String>,
    held: Lease,
    keeper: Session,
    _kept: Lease,
    waiter: Waiter,
    /// The coordinator that both sessions of the holder are attached to.
    pub(super) served_by: usize,
}

fn client(addresses: &[String]) -> Result<Client, ClientError> {
    Client::builder().endpoints(addresses.to_vec()).connect()
}

async fn open(client: &Client) -> Result<Session, ClientError> {
    client
        .open_session(SessionOptions::default().ttl(TTL))
        .await
}

impl Waiter {
    /// Returns once it waits in the queue.
    async fn queue(addresses: &[String], name: &ResourceName) -> Result<Self, Failed> {
        let session = open(&client(addresses)?).await?;
        let (place, mut seen) = watch::channel(None);
        let options = AcquireOptions::default().wait(LIMIT * 2).progress(place);
        let name = name.clone();
        let mut granted = JoinSet::new();
        granted.spawn(async move {
            let lease = session.acquire(&name, options).await?;
            Ok((lease, crate::clock::now()))
        });
        within(
            "a place in the queue",
            LIMIT,
            seen.wait_for(Option::is_some),
        )
        .await??;
        Ok(Self { granted })
    }

    /// From `killed` to its grant. A token that is not above the last is a violation.
    async fn time(
        mut self,
        killed: Instant,
        above: FencingToken,
    ) -> Result<Option<Duration>, Failed> {
        let Ok(granted) = within("a grant", LIMIT, self.granted.join_next()).await else {
            return Ok(None);
        };
        let (lease, at) = granted.ok_or("no waiter")???;
        if lease.token() <= above {
            return Err(format!("VIOLATION of I3: {} after {above}", lease.token()).into());
        }
        drop(lease.release().await);
        Ok(Some(at.saturating_duration_since(killed)))
    }
}

impl Abandoned {
    pub(super) async fn set(addresses: &[String], name: &ResourceName) -> Result<Self, Failed> {
        let args = [
            "hold".to_owned(),
            format!("--coordinators={}", addresses.join(",")),
            format!("--resource={name}"),
            format!("--ttl-s={}", TTL.as_secs()),
        ];
        let mut holder = Hand::start(&args)?;
        let held = holder.hear().await?.ok_or("the holder has ended")?;
        let held: u64 = held.strip_prefix("held ").ok_or("not held")?.parse()?;
        Ok(Self {
            holder,
            held: FencingToken::new(held)?,
            waiter: Waiter::queue(addresses, name).await?,
        })
    }

    pub(super) async fn kill_holder(&mut self) -> Result<(), Failed> {
        self.holder.kill().await
    }

    pub(super) async fn next_grant(self, killed: Instant) -> Result<Option<Duration>, Failed> {
        self.waiter.time(killed, self.held).await
    }
}

impl Scene {
    pub(super) async fn set(addresses: &[String], name: &ResourceName) -> Result<Self, Failed> {
        let client = client(addresses)?;
        let before = streams(&client).await;
        let holder = open(&client).await?;
        let keeper = open(&client).await?;
        let held = holder.acquire(name, AcquireOptions::default()).await?;
        let other = ResourceName::new(format!("{name}/kept"))?;
        let kept = keeper.acquire(&other, AcquireOptions::default()).await?;
        let after = streams(&client).await;
        let served_by = before
            .iter()
            .zip(&after)
            .position(|(before, after)| after > before);
        Ok(Self {
            held,
            keeper,
            _kept: kept,
            waiter: Waiter::queue(addresses, name).await?,
            served_by: served_by.ok_or("the holder is attached to no coordinator")?,
            client,
            addresses: addresses.to_vec(),
        })
    }

    /// From the kill on the holder releases, another client acquires what is free, and the keeper renews.
    pub(super) async fn times(self, killed: Instant, name: &ResourceName) -> Result<Times, Failed> {
        let above = self.held.token();
        let next = async {
            // It is tried further by itself where this says that it is not sure.
            drop(self.held.release().await);
            Ok::<_, Failed>(())
        };
        let next = async {
            let (_, time) = tokio::try_join!(next, self.waiter.time(killed, above))?;
            Ok::<_, Failed>(time)
        };
        let free = free(name)?;
        let newcomer = acquire_anew(&self.addresses, &free, killed);
        let renewed = renewed(&self.keeper, killed);
        let (next_grant, new_acquire, holder_renewed) =
            tokio::try_join!(next, newcomer, async { Ok(renewed.await) })?;
        drop(self.client);
        Ok(Times {
            next_grant,
            new_acquire,
            holder_renewed,
        })
    }
}

/// Sessions attached to each coordinator.
async fn streams(client: &Client) -> Vec<u32> {
    let statuses = client.statuses().await;
    let streams = statuses
        .into_iter()
        .map(|one| one.status.map(|status| status.usage.streams));
    streams.map(Result::unwrap_or_default).collect()
}

/// Tries until it has it; the client itself tries for a while each time.
async fn acquire_anew(
    addresses: &[String],
    name: &ResourceName,
    killed: Instant,
) -> Result<Option<Duration>, Failed> {
    let client = client(addresses)?;
    let acquired = async {
        loop {
            let Ok(session) = open(&client).await else {
                continue;
            };
            let options = AcquireOptions::default().wait(LIMIT);
            if let Ok(lease) = session.acquire(name, options).await {
                let time = since(killed);
                drop(lease.release().await);
                return time;
            }
        }
    };
    Ok(within("an acquire", LIMIT, acquired).await.ok())
}

/// Until its deadline moves; never, if it is lost instead.
async fn renewed(session: &Session, killed: Instant) -> Option<Duration> {
    let before = session.deadline();
    let moved = async || {
        !session.state().is_held() || (since(killed) > ON_ITS_WAY && session.deadline() > before)
    };
    let came = eventually("a renewal", LIMIT, moved).await.is_ok();
    (came && session.state().is_held()).then(|| since(killed))
}
