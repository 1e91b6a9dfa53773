//! Clients that acquire, look and release, and remember what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use palisade_client::{
    AcquireOptions, Client, ClientError, Clock as _, Grant, Lease, Moment, Session, SessionOptions,
    SystemClock,
};
use palisade_test_support::{Coordinator, eventually, within};
use tokio::task::JoinHandle;

use crate::setup::{name, spawn, waiting};

const SESSIONS: usize = 6;
/// No session is to end by itself, however long an election takes on a busy machine.
const TTL: Duration = Duration::from_secs(30);
/// A wait that may well be over before a resource is granted.
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(40);
/// For an answer: longer than any wait, and than the client goes on trying.
const ANSWERED: Duration = Duration::from_secs(90);
/// All of them want these.
const CONTENDED: [&str; 3] = ["hot/0", "hot/1", "hot/2"];

/// A lease as its client was told of it.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) grant: Grant,
    pub(super) session: String,
    pub(super) request: String,
    /// When it was believed in for certain: not before, and not after.
    believed: (Moment, Moment),
}

fn now() -> Moment {
    SystemClock.now()
}

impl Told {
    fn new(lease: &Lease) -> Self {
        let info = lease.info();
        let since = now();
        Self {
            grant: info.grant.clone(),
            session: info.session_id.clone(),
            request: info.request_id.clone(),
            believed: (since, since),
        }
    }

    /// Takes note that the client still believed in it at this moment.
    fn believes(&mut self, lease: &Lease, at: Moment) -> bool {
        let is_believed = lease.grant().is_ok();
        if is_believed {
            self.believed.1 = at;
        }
        is_believed
    }
}

/// No two clients believed at once that they hold a resource (I8).
pub(super) fn nobody_believed_at_once(told: &[Told]) {
    let mut resources: BTreeMap<&str, Vec<&Told>> = BTreeMap::new();
    for one in told {
        resources
            .entry(one.grant.resource.as_str())
            .or_default()
            .push(one);
    }
    for (resource, mut told) in resources {
        told.sort_by_key(|one| one.grant.token);
        for pair in told.windows(2) {
            assert!(
                pair[0].believed.1 < pair[1].believed.0,
                "two believed at once that they hold {resource}: {pair:?}"
            );
        }
    }
}

/// What one task of a session does, again and again.
#[derive(Debug, Clone)]
struct Work {
    client: Client,
    session: Session,
    resources: Vec<String>,
    /// In turn; none is a try.
    waits: Vec<Option<Duration>>,
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
}

impl Work {
    async fn run(self, from: usize) -> Vec<Told> {
        let mut told = Vec::new();
        let mut round = from;
        while !self.stop.load(Ordering::Relaxed) {
            let resource = &self.resources[round % self.resources.len()];
            let wait = self.waits[round % self.waits.len()];
            told.extend(self.round(resource, wait).await);
            self.rounds.fetch_add(1, Ordering::Relaxed);
            round += 1;
        }
        told
    }

    async fn round(&self, resource: &str, wait: Option<Duration>) -> Option<Told> {
        let options = wait.map_or_else(AcquireOptions::default, waiting);
        let resource = name(resource);
        let asked = self.session.acquire(&resource, options);
        let lease = match within("an answer to an acquire", ANSWERED, asked)
            .await
            .unwrap()
        {
            Ok(lease) => lease,
            Err(ClientError::Held { .. }) if wait.is_none() => return None,
            Err(ClientError::WaitExpired { .. }) if wait.is_some() => return None,
            Err(other) => panic!("{resource}: {other:?}"),
        };
        let mut told = Told::new(&lease);
        let seen = self.client.get_lease(&resource, 0).await;
        let is_believed = told.believes(&lease, now());
        // Sessions have time enough: none of them ends, and so no lease.
        assert!(is_believed, "{:?}, {:?}", lease.state(), lease.loss());
        if let Ok(seen) = seen {
            let token = seen.lease.map(|lease| lease.grant.token);
            assert_eq!(token, Some(lease.token()), "another one holds {resource}");
        }
        told.believes(&lease, now());
        let released = within("an answer to a release", ANSWERED, lease.release());
        // One whose answer was lost finds that it is done.
        let _released = released.await.unwrap().unwrap();
        if let Ok(seen) = self.client.get_lease(&resource, 0).await {
            let token = seen.lease.map(|lease| lease.grant.token);
            assert_ne!(token, Some(told.grant.token), "{resource} is not released");
        }
        Some(told)
    }
}

/// What each session holds all the while.
struct Kept {
    session: Session,
    lease: Lease,
    told: Told,
}

/// Several clients at work.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    rounds: Vec<Arc<AtomicU64>>,
    tasks: Vec<JoinHandle<Vec<Told>>>,
    kept: Vec<Kept>,
}

impl Load {
    pub(super) async fn start(coordinators: &[Coordinator; 2]) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            rounds: Vec::new(),
            tasks: Vec::new(),
            kept: Vec::new(),
        };
        for number in 0..SESSIONS {
            let (first, second) = (number % 2, (number + 1) % 2);
            let endpoints = [coordinators[first].addr(), coordinators[second].addr()];
            let client = Client::builder().endpoints(endpoints).connect().unwrap();
            let options = SessionOptions::default().ttl(TTL);
            let session = client.open_session(options).await.unwrap();
            load.keep(&session, number).await;
            load.works(&client, &session, number);
        }
        load
    }

    async fn keep(&mut self, session: &Session, number: usize) {
        let resource = name(&format!("kept/{number}"));
        let lease = session.acquire(&resource, waiting(LONG)).await.unwrap();
        let told = Told::new(&lease);
        self.kept.push(Kept {
            session: session.clone(),
            lease,
            told,
        });
    }

    /// Its tasks never want the same resource at once.
    fn works(&mut self, client: &Client, session: &Session, number: usize) {
        let contended = CONTENDED.map(str::to_owned).to_vec();
        let own = |kind: &str| vec![format!("own/{number}/{kind}")];
        let kinds = [
            (contended, vec![Some(LONG), Some(LONG), Some(SHORT), None]),
            (vec!["tried".to_owned()], vec![None]),
            (own("waits"), vec![Some(LONG)]),
            (own("tries"), vec![None]),
        ];
        for (resources, waits) in kinds {
            let rounds = Arc::<AtomicU64>::default();
            let work = Work {
                client: client.clone(),
                session: session.clone(),
                resources,
                waits,
                stop: Arc::clone(&self.stop),
                rounds: Arc::clone(&rounds),
            };
            self.rounds.push(rounds);
            self.tasks.push(spawn(work.run(number)));
        }
    }

    /// Waits until each task has got on.
    pub(super) async fn gets_on(&self) {
        let count = || {
            self.rounds
                .iter()
                .map(|rounds| rounds.load(Ordering::Relaxed))
        };
        let before: Vec<_> = count().collect();
        let moved = async || {
            let is_on = |(now, before): (u64, &u64)| now >= before + 2;
            count().zip(&before).all(is_on) || self.has_failed()
        };
        eventually("every task gets on", ANSWERED, moved)
            .await
            .unwrap();
        assert!(!self.has_failed(), "a task has failed: see above");
    }

    fn has_failed(&self) -> bool {
        self.tasks.iter().any(JoinHandle::is_finished)
    }

    /// Lets every task end its round.
    pub(super) async fn end(self) -> Rest {
        self.stop.store(true, Ordering::Relaxed);
        let mut told = Vec::new();
        for task in self.tasks {
            told.extend(within("a task", ANSWERED * 2, task).await.unwrap().unwrap());
        }
        let kept = self.kept;
        Rest { told, kept }
    }
}

/// What is left when the work is done.
pub(super) struct Rest {
    told: Vec<Told>,
    kept: Vec<Kept>,
}

impl Rest {
    pub(super) fn kept_resources(&self) -> BTreeSet<(String, i64)> {
        let of = |kept: &Kept| {
            let grant = &kept.told.grant;
            (grant.resource.to_string(), grant.token.as_i64())
        };
        self.kept.iter().map(of).collect()
    }

    /// Closes all sessions; tells what all clients were told.
    pub(super) async fn close(self) -> Vec<Told> {
        let mut all = self.told;
        for Kept {
            session,
            lease,
            mut told,
        } in self.kept
        {
            // No lease is lost, and so none without its client being told.
            let is_kept = told.believes(&lease, now());
            assert!(is_kept, "{:?}, {:?}", lease.state(), lease.loss());
            let closed = within("a session closes", ANSWERED, session.close()).await;
            closed.unwrap().unwrap();
            assert!(lease.grant().is_err());
            all.push(told);
        }
        all
    }
}
