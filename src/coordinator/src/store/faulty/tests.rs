//! Clients that do as they are told, on a store that does not: whatever the seed, no request has two
//! tokens and no resource two holders (I1, I4).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use palisade_token::{FencingToken, ResourceName};
use proptest::prelude::*;
use tokio::task::unconstrained;

use super::{Faulty, Plot};
use crate::clock::SystemClock;
use crate::domain::{Acquired, Event, Hold, HoldName, RequestId, SessionId};
use crate::entropy::SystemEntropy;
use crate::store::conformance::Client;
use crate::store::memory::MemoryStore;
use crate::store::{Outcome, Store, StoreError};
use crate::tasks::Tasks;

const HOUR: Duration = Duration::from_secs(3600);
const CLIENTS: usize = 4;
const RESOURCES: u64 = 2;
const STEPS: usize = 400;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Doing {
    Nothing,
    Acquiring { waits: bool },
    Holding(FencingToken),
    Releasing { by_token: Option<FencingToken> },
}

/// A client by the rules: after an unknown outcome it uses a larger epoch, and marks the same call as
/// tried before.
#[derive(Debug)]
struct Player {
    client: Client,
    resource: String,
    request: u64,
    doing: Doing,
    is_unsure: bool,
}

impl Player {
    fn request(&self) -> String {
        self.request.to_string()
    }

    fn speaker(&mut self) -> Client {
        if self.is_unsure {
            self.client.caller.epoch += 1;
            self.client.retrying()
        } else {
            self.client.clone()
        }
    }

    fn turn(&mut self, dice: &mut Plot) {
        let next = match &self.doing {
            Doing::Nothing => {
                self.request += 1;
                self.resource = format!("r/{}", dice.roll(RESOURCES));
                Doing::Acquiring {
                    waits: dice.roll(2) == 0,
                }
            }
            // Whoever waits may have enough of it, sure of the last outcome or not.
            Doing::Acquiring { .. } if dice.roll(8) == 0 => {
                if self.is_unsure {
                    self.client.caller.epoch += 1;
                    self.is_unsure = false;
                }
                Doing::Releasing { by_token: None }
            }
            Doing::Holding(token) if dice.roll(3) == 0 => Doing::Releasing {
                by_token: (dice.roll(2) == 0).then_some(*token),
            },
            same => same.clone(),
        };
        self.doing = next;
    }

    /// Plays one call. What it is told to hold comes back.
    async fn play(&mut self) -> Option<Hold> {
        match self.doing.clone() {
            Doing::Nothing | Doing::Holding(_) => None,
            Doing::Acquiring { waits } => {
                let speaker = self.speaker();
                let wish = speaker.wish(&self.resource, &self.request(), waits);
                match self.heard(speaker.store.acquire(&wish).await)? {
                    Some(Acquired::Held(hold)) => {
                        self.doing = Doing::Holding(hold.token().unwrap());
                        Some(hold)
                    }
                    Some(Acquired::Queued(_)) => None,
                    None => {
                        self.doing = Doing::Nothing;
                        None
                    }
                }
            }
            Doing::Releasing { by_token } => {
                let request = RequestId::new(&self.request()).unwrap();
                let name = by_token.map_or(HoldName::Request(request), HoldName::Token);
                let speaker = self.speaker();
                let released = speaker.release(&self.resource.clone(), name).await;
                if self.heard(released)?.is_some() {
                    self.doing = Doing::Nothing;
                }
                None
            }
        }
    }

    /// `None`: play it again. `Some(None)`: refused.
    fn heard<T: std::fmt::Debug>(&mut self, result: Result<T, StoreError>) -> Option<Option<T>> {
        match result {
            Ok(told) => {
                self.is_unsure = false;
                Some(Some(told))
            }
            Err(StoreError::Refused(crate::domain::Refusal::LeaseHeld { .. })) => {
                self.is_unsure = false;
                Some(None)
            }
            Err(StoreError::Refused(refusal)) => panic!("by the rules, and yet: {refusal:?}"),
            Err(error @ StoreError::Failed { .. }) => {
                self.is_unsure |= error.outcome() == Outcome::Unknown;
                None
            }
        }
    }
}

/// What really happened, from the store below.
#[derive(Debug, Default)]
struct Log {
    holders: BTreeMap<ResourceName, Hold>,
    highest: BTreeMap<ResourceName, FencingToken>,
    granted: BTreeSet<(SessionId, RequestId)>,
}

impl Log {
    fn add(&mut self, event: Event) {
        match event {
            Event::Granted(granted) => {
                let hold = granted.hold().unwrap().clone();
                let resource = hold.claim.resource.clone();
                let token = hold.token();
                let of = (hold.claim.session, hold.claim.request.clone());
                assert!(self.granted.insert(of), "granted twice: {hold:?}");
                let before = self.highest.insert(resource.clone(), token.unwrap());
                assert!(token > before, "{token:?} after {before:?}");
                let other = self.holders.insert(resource, hold);
                assert_eq!(other, None, "granted over a lease");
            }
            Event::Ended(ended) => {
                let hold = self.holders.remove(&ended.resource);
                assert_eq!(hold.and_then(|hold| hold.token()), ended.token());
            }
            _ => {}
        }
    }
}

async fn play(seed: u64, faults: u64) {
    let tasks = Tasks::default();
    let memory = MemoryStore::start(SystemClock::shared(), SystemEntropy::shared(), &tasks);
    let memory = memory.await.unwrap();
    let mut events = memory.watch().await.unwrap();
    let faulty = Faulty::new(Arc::<MemoryStore>::clone(&memory), seed, faults);
    let store: Arc<dyn Store> = Arc::<Faulty>::clone(&faulty);
    let mut players = Vec::new();
    for number in 0..CLIENTS {
        let session = Client::session(&format!("c{number}"), HOUR);
        while store.open_session(session.clone()).await.is_err() {}
        players.push(Player {
            client: Client::of(&store, &session),
            resource: String::new(),
            request: 0,
            doing: Doing::Nothing,
            is_unsure: false,
        });
    }
    let mut dice = Plot {
        random: !seed,
        faults: 0,
        late: std::collections::VecDeque::new(),
    };
    let mut log = Log::default();
    for step in 0..STEPS {
        if step == STEPS - STEPS / 4 {
            faulty.calm().await;
        }
        let number = usize::try_from(dice.roll(4)).unwrap();
        players[number].turn(&mut dice);
        let told = players[number].play().await;
        while let Some(Some(event)) = unconstrained(events.next()).now_or_never() {
            for event in event.unwrap().iter() {
                log.add(event.clone());
            }
        }
        // What was told is what is so, and nobody else believes to hold it.
        let Some(hold) = told else { continue };
        assert_eq!(log.holders.get(&hold.claim.resource), Some(&hold));
        for (other, player) in players.iter().enumerate() {
            let believes = matches!(player.doing, Doing::Holding(_));
            let same = player.resource == hold.claim.resource.as_str();
            assert!(
                other == number || !believes || !same,
                "two holders: {player:?}"
            );
        }
    }
    assert!(log.granted.len() > 5, "nothing much happened: {log:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_fault_makes_two_of_one(seed in any::<u64>(), faults in 0_u64..600) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(play(seed, faults));
    }
}
