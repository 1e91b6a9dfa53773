//! What workers do, again and again, each round short.

mod lead;

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use palisade_client::{
    AcquireOptions, CancellationToken, Client, ResourceName, RevokeOptions, Session,
    SessionOptions, WatchOptions, WatchScope,
};
use palisade_test_support::within;
use sqlx::PgPool;

use crate::tally::{Early, Tally};
use crate::worker::Plant;

/// The least that etcd's coordinators grant: what is abandoned is soon gone.
const TTL: Duration = Duration::from_secs(5);
/// Between two rounds of a task: a modest load, since it is time that brings leaks to light.
const PAUSE: Duration = Duration::from_millis(400);
/// All workers want these.
const HOT: usize = 3;
/// All workers want these, with a lock-delay. What an unclean end leaves of one stays until its next release.
pub(crate) const DELAYED: usize = 2;
/// How much a planted defect leaks at most.
const MOST_LEAKS: usize = 4_096;
/// What one planted leak of memory takes.
const LEAK_BYTES: usize = 32 * 1024;

/// One sort of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Sessions come and go, each with leases, some still held at the end.
    Churn,
    /// Resources that all want: queues, waits that run out, acquires that are dropped.
    Contend,
    /// Sessions that end by their TTL, with what they hold and wait for.
    Abandon,
    /// Leases with a lock-delay, every other one abandoned.
    Delay,
    /// Leases that operators want back.
    Revoke,
    /// Watches that are resumed, slow, dropped.
    Watch,
    /// Reads.
    Look,
    /// Leaders that seal and write.
    Lead,
}

impl Kind {
    /// Every sort, with the number of tasks of it in one worker.
    pub(crate) const ALL: [(Self, usize); 8] = [
        (Self::Churn, 2),
        (Self::Contend, 2),
        (Self::Abandon, 1),
        (Self::Delay, 1),
        (Self::Revoke, 1),
        (Self::Watch, 2),
        (Self::Look, 1),
        (Self::Lead, 2),
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Churn => "churn",
            Self::Contend => "contend",
            Self::Abandon => "abandon",
            Self::Delay => "delay",
            Self::Revoke => "revoke",
            Self::Watch => "watch",
            Self::Look => "look",
            Self::Lead => "lead",
        }
    }
}

/// What a planted defect keeps for ever.
#[derive(Debug)]
#[allow(dead_code, reason = "kept, and that is the defect")]
pub(crate) enum Leak {
    Session(Session),
    Handle(File),
    Memory(Vec<u8>),
    Task(tokio::task::AbortHandle),
}

/// What one task works with.
pub(crate) struct Shop {
    pub(crate) stream: Client,
    pub(crate) unary: Client,
    pub(crate) pool: PgPool,
    pub(crate) stop: CancellationToken,
    pub(crate) tally: Arc<Tally>,
    pub(crate) worker: String,
    pub(crate) plant: Plant,
    pub(crate) leaks: Arc<Mutex<Vec<Leak>>>,
}

pub(crate) fn name(text: &str) -> ResourceName {
    ResourceName::new(text).unwrap()
}

fn waiting(wait: Duration) -> AcquireOptions {
    AcquireOptions::default().wait(wait)
}

impl Shop {
    /// Rounds until the stop; a round that is under way then is dropped where it stands.
    pub(crate) async fn repeats(self, kind: Kind, number: usize) {
        let mut round = number;
        while !self.stop.is_cancelled() {
            let done = async {
                let done = Box::pin(self.round(kind, number, round)).await;
                crate::sleep(PAUSE).await;
                done
            };
            // A campaign has a stop of its own, and ends in order.
            let drops = kind != Kind::Lead;
            let outcome = tokio::select! {
                done = done => done.map_or_else(|early| early.word(), |()| "ok"),
                () = self.stop.cancelled(), if drops => "dropped",
            };
            self.tally.count(kind.word(), outcome);
            round += 1;
        }
    }

    async fn round(&self, kind: Kind, number: usize, round: usize) -> Result<(), Early> {
        match kind {
            Kind::Churn => self.churn(number, round).await,
            Kind::Contend => self.contend(round).await,
            Kind::Abandon => self.abandon(round).await,
            Kind::Delay => self.delay(round).await,
            Kind::Revoke => self.revoke(round).await,
            Kind::Watch => self.watch(number, round).await,
            Kind::Look => self.look(round).await,
            Kind::Lead => self.lead(number).await,
        }
    }

    fn client(&self, round: usize) -> &Client {
        if round.is_multiple_of(3) {
            &self.unary
        } else {
            &self.stream
        }
    }

    async fn open(&self, round: usize) -> Result<Session, Early> {
        let options = SessionOptions::default().ttl(TTL).label(&self.worker);
        Ok(self.client(round).open_session(options).await?)
    }

    async fn churn(&self, number: usize, round: usize) -> Result<(), Early> {
        let session = self.open(round).await?;
        self.leak(&session);
        for part in 0..3 {
            let resource = name(&format!("own/{}/{number}/{part}", self.worker));
            let options = waiting(TTL).metadata(vec![7; 64]);
            let lease = session.acquire(&resource, options).await?;
            // The last is ended by the session's end.
            if part < 2 {
                let _released = lease.release().await?;
            }
        }
        if self.plant == Plant::Session {
            return Ok(());
        }
        session.close().await?;
        Ok(())
    }

    async fn contend(&self, round: usize) -> Result<(), Early> {
        let session = self.open(round).await?;
        for step in 0..8 {
            let resource = name(&format!("hot/{}", (round + step) % HOT));
            let asked = session.acquire(&resource, waiting(TTL * 2));
            let asked = match step % 4 {
                // Dropped while it waits, or after it was granted.
                0 => match within("a grant", PAUSE / 2, asked).await {
                    Ok(asked) => asked,
                    Err(_dropped) => continue,
                },
                1 => session.acquire(&resource, waiting(PAUSE)).await,
                2 => session.try_acquire(&resource).await,
                _ => asked.await,
            };
            match asked {
                Ok(lease) => {
                    crate::sleep(PAUSE / 8).await;
                    let _released = lease.release().await?;
                }
                Err(error) => self.tally.count("contend.step", Early::from(error).word()),
            }
        }
        session.close().await?;
        Ok(())
    }

    async fn abandon(&self, round: usize) -> Result<(), Early> {
        let session = self.open(round).await?;
        let own = name(&format!("abandoned/{}/{}", self.worker, round % 4));
        let lease = session.acquire(&own, waiting(TTL * 2)).await?;
        let hot = name(&format!("hot/{}", round % HOT));
        drop(within("a grant", PAUSE, session.acquire(&hot, waiting(TTL))).await);
        drop((lease, session));
        Ok(())
    }

    async fn delay(&self, round: usize) -> Result<(), Early> {
        let session = self.open(round).await?;
        let resource = name(&format!("delayed/{}", round % DELAYED));
        let options = waiting(TTL * 3).lock_delay(Duration::from_secs(1));
        let lease = session.acquire(&resource, options).await?;
        if round.is_multiple_of(2) {
            let _released = lease.release().await?;
            session.close().await?;
        }
        Ok(())
    }

    async fn revoke(&self, round: usize) -> Result<(), Early> {
        let page = self.client(round).list_leases("hot/", 0, None).await?;
        if let Some(lease) = page.leases.first() {
            let mut why = RevokeOptions::because("the soak wants it back", &self.worker);
            if round.is_multiple_of(2) {
                why = why.ask_for(PAUSE);
            }
            let grant = &lease.grant;
            let client = self.client(round);
            let _ended = client
                .revoke_lease(&grant.resource, grant.token, why)
                .await?;
        }
        crate::sleep(PAUSE * 5).await;
        Ok(())
    }

    async fn watch(&self, number: usize, round: usize) -> Result<(), Early> {
        let client = self.client(round);
        let scope = || WatchScope::Prefix(if number == 0 { "" } else { "hot/" }.to_owned());
        let options = WatchOptions::default().bookmarks(Duration::from_secs(1));
        let mut watch = client.watch_leases(scope(), options.clone())?;
        for _event in 0..60 {
            let _event = watch.next().await?;
            if round.is_multiple_of(2) {
                crate::sleep(PAUSE / 20).await;
            }
        }
        let position = watch.position();
        drop(watch);
        if let Some(position) = position {
            let mut resumed = client.watch_leases(scope(), options.resume(position))?;
            for _event in 0..20 {
                let _event = resumed.next().await?;
            }
        }
        Ok(())
    }

    async fn look(&self, round: usize) -> Result<(), Early> {
        let client = self.client(round);
        let mut next = None;
        loop {
            let page = client.list_leases("", 5, next.as_deref()).await?;
            for lease in &page.leases {
                let grant = &lease.grant;
                let _check = client.check_token(&grant.resource, grant.token).await?;
            }
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        let hot = name(&format!("hot/{}", round % HOT));
        let _seen = client.get_lease(&hot, 10).await?;
        let _status = client.status().await?;
        Ok(())
    }

    /// What the planted defect leaks with each session of the churn.
    fn leak(&self, session: &Session) {
        let leak = match self.plant {
            Plant::None | Plant::Rows => return,
            Plant::Session => Leak::Session(session.clone()),
            Plant::Handle => Leak::Handle(File::open("/dev/null").unwrap()),
            Plant::Memory => Leak::Memory(vec![1; LEAK_BYTES]),
            Plant::Task => {
                let mut tasks = tokio::task::JoinSet::new();
                let task = tasks.spawn(std::future::pending::<()>());
                tasks.detach_all();
                Leak::Task(task)
            }
        };
        let mut leaks = self.leaks.lock().unwrap_or_else(PoisonError::into_inner);
        if leaks.len() < MOST_LEAKS {
            leaks.push(leak);
        }
    }
}
