//! Delayed copies (I4): an operation looks and decides, the world moves on through another coordinator,
//! and the old step is carried out all the same. Whatever it rested on must be compared in its
//! transaction, so that it does nothing.

mod batches;
mod connections;
mod copies;
mod credentials;
mod delays;
mod endings;
mod endpoints;
mod grants;
mod handovers;
mod pauses;
mod queues;
mod reads;
mod renewals;
mod revocations;
mod sessions;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{GetOptions, TxnOp, TxnOpResponse};
use palisade_test_support::Etcd;
use palisade_token::ResourceName;

use super::batch::Decided;
use super::codec::{self, Stored};
use super::leases::about_to_hold;
use super::link::Link;
use super::step;
use super::view::{Sight, Subject};
use super::{EtcdOptions, EtcdStore};
use crate::clock::{Clock, SystemClock};
use crate::domain::{
    Acquire, AcquireStep, Claim, Generation, GrantNote, Hold, HoldName, Release, ReleaseStep,
    RequestId, decide_acquire, decide_release,
};
use crate::entropy::SystemEntropy;
use crate::store::Store;
use crate::store::conformance::Client;
use crate::tasks::Tasks;

/// No session of these tests ends by itself.
const TTL: Duration = Duration::from_secs(60);

/// One etcd with two coordinators.
struct World {
    etcd: Etcd,
    /// The one whose operations are late.
    late: Arc<EtcdStore>,
    /// The one that the world moves on through.
    prompt: Arc<EtcdStore>,
}

/// What an operation has decided on, and what it has seen.
struct Late {
    link: Arc<Link>,
    sight: Sight,
    generation: Stored<Generation>,
    step: Step,
}

#[allow(clippy::large_enum_variant, reason = "a test has one of them")]
#[derive(Debug)]
enum Step {
    Acquire(AcquireStep),
    Release(Release, ReleaseStep),
}

impl Step {
    fn kind(&self) -> &'static str {
        match self {
            Self::Acquire(AcquireStep::Grant { place: None, .. }) => "grant",
            Self::Acquire(AcquireStep::Grant { .. }) => "grant the head",
            Self::Acquire(AcquireStep::Enqueue(_)) => "enqueue",
            Self::Acquire(AcquireStep::BeginDelay(_)) => "begin a delay",
            Self::Acquire(AcquireStep::Answer(_)) => "say how it is",
            Self::Acquire(AcquireStep::Raise(_)) | Self::Release(_, ReleaseStep::Raise(_)) => {
                "raise"
            }
            Self::Acquire(AcquireStep::Leave(_)) | Self::Release(_, ReleaseStep::Leave(_)) => {
                "leave"
            }
            Self::Release(_, ReleaseStep::End { successor, .. }) => match successor {
                Some(_) => "hand over",
                None => "end",
            },
            Self::Release(_, ReleaseStep::Answer(_)) => "say that it ended",
        }
    }
}

fn name() -> ResourceName {
    ResourceName::new("r").unwrap()
}

fn coordinator(etcd: &Etcd, prefix: &str) -> Arc<EtcdStore> {
    coordinator_at(etcd.endpoints(), prefix, SystemClock::shared())
}

fn coordinator_with(options: EtcdOptions) -> Arc<EtcdStore> {
    EtcdStore::new(
        options,
        SystemClock::shared(),
        SystemEntropy::shared(),
        &Tasks::default(),
    )
}

fn coordinator_at(endpoints: Vec<String>, prefix: &str, clock: Arc<dyn Clock>) -> Arc<EtcdStore> {
    let mut options = EtcdOptions::new(endpoints);
    prefix.clone_into(&mut options.prefix);
    EtcdStore::new(options, clock, SystemEntropy::shared(), &Tasks::default())
}

fn heir(claim: Claim, generation: &Stored<Generation>) -> Stored<Hold> {
    about_to_hold(claim, generation.record, GrantNote::default())
}

fn stored(hold: &Hold) -> Stored<Hold> {
    Stored {
        record: hold.clone(),
        raw: codec::hold_value(hold).into(),
    }
}

impl World {
    async fn new() -> Self {
        let etcd = Etcd::start().await.unwrap();
        let late = coordinator(&etcd, EtcdOptions::PREFIX);
        let prompt = coordinator(&etcd, EtcdOptions::PREFIX);
        // Each makes a generation on its connection, and the first one sees the other's: from here on no
        // step is late by a generation that a test did not ask for.
        for store in [&late, &prompt, &late] {
            store.ready().await.unwrap();
        }
        Self { etcd, late, prompt }
    }

    /// Opens a session through the coordinator that is not late.
    async fn client(&self, name: &str) -> Client {
        let prompt: Arc<dyn Store> = Arc::<EtcdStore>::clone(&self.prompt);
        Client::open(&prompt, name, TTL).await
    }

    /// A vacant resource with a queue: its holder's session has ended, and nobody was promoted yet.
    async fn vacate(&self, name: &str, waiters: &[&Client]) {
        let holder = self.client("dying").await;
        holder.take(name, "dies").await;
        for waiter in waiters {
            waiter.queue(name, "waits").await;
        }
        self.end_session(&holder).await;
    }

    /// Ends a session as etcd does when its time is over: nobody is promoted.
    async fn end_session(&self, client: &Client) {
        let link = Box::pin(self.prompt.links.get()).await.unwrap();
        let id = link.context().keys.lease_id(client.caller.session);
        link.leases().revoke(id).await.unwrap();
    }

    /// The late coordinator looks, decides on an acquire, and stops there.
    async fn decides(&self, acquire: &Acquire) -> Late {
        let subject = Subject {
            resource: &acquire.resource,
            session: Some(acquire.caller.session),
            request: Some(&acquire.request),
        };
        self.looks(subject, |sight| {
            Step::Acquire(decide_acquire(&sight.view, acquire).unwrap())
        })
        .await
    }

    /// The late coordinator looks, decides on a release, and stops there.
    async fn decides_release(&self, client: &Client, hold: HoldName) -> Late {
        let release = Release {
            caller: client.caller.clone(),
            resource: name(),
            hold,
        };
        let subject = Subject {
            resource: &release.resource,
            session: Some(release.caller.session),
            request: release.request(),
        };
        self.looks(subject, |sight| {
            let step = decide_release(&sight.view, &release).unwrap();
            Step::Release(release.clone(), step)
        })
        .await
    }

    async fn looks(&self, subject: Subject<'_>, decide: impl FnOnce(&Sight) -> Step) -> Late {
        let link = self.late.links.get().await.unwrap();
        let generation = link.generation().await.unwrap();
        let sight = Sight::of(&link, subject).await.unwrap();
        let seen = sight.generation.as_ref().map(|seen| &seen.raw);
        assert_eq!(seen, Some(&generation.raw), "it could not grant even now");
        Late {
            step: decide(&sight),
            link,
            sight,
            generation,
        }
    }

    /// Carries the step out; whether it did anything.
    async fn carries_out(&self, late: Late) -> bool {
        let Late {
            link,
            sight,
            generation,
            step,
        } = late;
        let session = sight.session.as_ref().expect("it saw its session");
        let keys = &link.context().keys;
        let step = match step {
            Step::Acquire(AcquireStep::Grant { claim, place }) => {
                let hold = heir(claim, &generation);
                let spot = place.map(|place| sight.spot(keys, &place));
                step::grant(keys, &sight, session, &generation, &hold, spot.as_ref())
            }
            Step::Acquire(AcquireStep::Enqueue(claim)) => {
                step::enqueue(keys, &sight, session, &claim)
            }
            Step::Acquire(AcquireStep::Raise(mark))
            | Step::Release(_, ReleaseStep::Raise(mark)) => step::raise(keys, session, mark),
            Step::Acquire(AcquireStep::Leave(place))
            | Step::Release(_, ReleaseStep::Leave(place)) => {
                step::leave(&sight.spot(keys, &place), session)
            }
            Step::Release(_, ReleaseStep::End { successor, .. }) => {
                let heir = successor.map(|place| {
                    let hold = heir(place.claim.clone(), &generation);
                    (sight.spot(keys, &place), hold)
                });
                let heir = heir.as_ref().map(|(spot, hold)| (spot, hold));
                step::end(keys, &sight, heir, session).expect("it saw the lease")
            }
            Step::Release(release, ReleaseStep::Answer(_)) => {
                let seen = step::is_as_seen(keys, &sight, &release);
                return link.confirm_in_log(seen).await.unwrap();
            }
            Step::Acquire(AcquireStep::Answer(_) | AcquireStep::BeginDelay(_)) => {
                panic!("that is no step of one transaction")
            }
        };
        matches!(link.submit(step).await.unwrap(), Decided::Applied(..))
    }

    /// Carries out a step of this kind, and sees that it is done.
    async fn is_in_time(&self, late: Late, kind: &str) {
        assert_eq!(late.step.kind(), kind);
        assert!(
            Box::pin(self.carries_out(late)).await,
            "not carried out: {kind}"
        );
    }

    /// Carries the step out, and sees that it does nothing.
    async fn is_too_late(&self, late: Late) {
        let before = self.all_keys().await;
        assert!(
            !Box::pin(self.carries_out(late)).await,
            "a late step was carried out"
        );
        assert_eq!(
            self.all_keys().await,
            before,
            "a late step changed the store"
        );
    }

    /// Everything that etcd holds: keys, values, revisions and leases.
    async fn all_keys(&self) -> Vec<String> {
        let link = Box::pin(self.prompt.links.get()).await.unwrap();
        let all = TxnOp::get(vec![0], Some(GetOptions::new().with_all_keys()));
        let (replies, _) = link.read(vec![all]).await.unwrap();
        let Some(TxnOpResponse::Get(found)) = replies.first() else {
            panic!("a read is answered by a read");
        };
        found.kvs().iter().map(|key| format!("{key:?}")).collect()
    }
}

/// Without this, a step that never does anything would pass for one that is always too late.
#[tokio::test]
async fn a_step_that_is_not_late_is_carried_out() {
    let world = World::new().await;
    let (one, other) = (world.client("one").await, world.client("other").await);
    let request = |id| HoldName::Request(RequestId::new(id).unwrap());

    let raise = world.decides(&one.at(2).wish("r", "1", true)).await;
    world.is_in_time(raise, "raise").await;
    let one = one.at(2);
    let grant = world.decides(&one.wish("r", "1", true)).await;
    world.is_in_time(grant, "grant").await;
    let enqueue = world.decides(&other.wish("r", "2", true)).await;
    world.is_in_time(enqueue, "enqueue").await;
    let hand_over = world.decides_release(&one, request("1")).await;
    world.is_in_time(hand_over, "hand over").await;
    let nothing_left = world.decides_release(&one, request("1")).await;
    world.is_in_time(nothing_left, "say that it ended").await;
    one.queue("r", "3").await;
    let leave = world.decides_release(&one, request("3")).await;
    world.is_in_time(leave, "leave").await;
    let end = world.decides_release(&other, request("2")).await;
    world.is_in_time(end, "end").await;
    world.vacate("r", &[&one]).await;
    let head = world.decides(&one.wish("r", "waits", true)).await;
    world.is_in_time(head, "grant the head").await;
    world.vacate("s", &[&one]).await;
    let behind = world.decides(&other.wish("s", "2", true)).await;
    world.is_in_time(behind, "enqueue").await;
}
