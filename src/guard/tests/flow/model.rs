//! Random writers, relays and takeovers against what they should have come to.

use std::collections::BTreeMap;

use palisade_guard::GuardError;
use palisade_guard::postgres::{GuardedTx, Relay, RelayPolicy, Sealed};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::broker::{Broker, Trouble, message, named};
use crate::db::{Db, grant};

/// Their locks differ, or one writer would wait for another that this very test has to move.
const AGGREGATES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Step {
    /// A writer stages a message, in a transaction that it begins if it has none.
    Stage {
        writer: usize,
        aggregate: usize,
    },
    End {
        writer: usize,
        commits: bool,
    },
    /// The relay publishes a batch; the broker fails at every so many messages.
    Pass {
        fails_at: usize,
    },
    /// Another relay seals.
    Takeover,
    /// Every relay that was replaced tries once more.
    Zombies,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize, 0..3_usize).prop_map(|(writer, aggregate)| Step::Stage { writer, aggregate }),
        4 => (0..3_usize, prop::bool::weighted(0.75))
            .prop_map(|(writer, commits)| Step::End { writer, commits }),
        3 => (2..6_usize).prop_map(|fails_at| Step::Pass { fails_at }),
        1 => Just(Step::Takeover),
        1 => Just(Step::Zombies),
    ]
}

#[derive(Default)]
struct Writer {
    tx: Option<GuardedTx>,
    staged: Vec<(usize, String)>,
}

struct World<'d> {
    db: &'d Db,
    sealed: Sealed,
    writers: [Writer; 3],
    /// What each aggregate's committed messages are, in the order of the commits.
    committed: BTreeMap<usize, Vec<String>>,
    broker: Broker,
    relays: Vec<Relay<Broker>>,
    staged: u32,
    token: u64,
}

impl World<'_> {
    async fn stage(&mut self, writer: usize, aggregate: usize) {
        let is_locked = self.writers.iter().enumerate().any(|(other, state)| {
            other != writer && state.staged.iter().any(|(held, _)| *held == aggregate)
        });
        if is_locked {
            return;
        }
        self.staged += 1;
        let payload = self.staged.to_string();
        let writer = &mut self.writers[writer];
        if writer.tx.is_none() {
            writer.tx = Some(
                self.db
                    .guard
                    .begin(&self.db.pool, &self.sealed)
                    .await
                    .unwrap(),
            );
        }
        let message = message(&payload).in_order_of(named(AGGREGATES[aggregate]));
        let tx = writer.tx.as_mut().unwrap();
        tx.stage(&named("main"), &message).await.unwrap();
        writer.staged.push((aggregate, payload));
    }

    async fn end(&mut self, writer: usize, commits: bool) {
        let Writer { tx, staged } = std::mem::take(&mut self.writers[writer]);
        match tx {
            Some(tx) if commits => {
                tx.commit().await.unwrap();
                for (aggregate, payload) in staged {
                    self.committed.entry(aggregate).or_default().push(payload);
                }
            }
            Some(tx) => tx.rollback().await.unwrap(),
            None => {}
        }
    }

    async fn take_over(&mut self) {
        self.token += 1;
        let sealed = self.db.seal(&grant("relay", self.token)).await;
        let policy = RelayPolicy::new()
            .with_batch(3)
            .with_attempts(u32::MAX)
            .with_waits(std::time::Duration::ZERO, std::time::Duration::ZERO);
        self.relays
            .push(self.db.relay(&sealed, &self.broker).with_policy(policy));
    }

    async fn pass(&self) -> u64 {
        let relay = self.relays.last().unwrap();
        relay.pass(&self.db.pool, || true).await.unwrap().published
    }

    fn trouble(&self, fails_at: Option<usize>) {
        for number in 1..=self.staged {
            let fails = fails_at.is_some_and(|at| usize::try_from(number).unwrap() % at == 0);
            self.broker
                .trouble(&number.to_string(), fails.then_some(Trouble::Fails));
        }
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Stage { writer, aggregate } => self.stage(writer, aggregate).await,
            Step::End { writer, commits } => self.end(writer, commits).await,
            Step::Pass { fails_at } => {
                self.trouble(Some(fails_at));
                self.pass().await;
            }
            Step::Takeover => self.take_over().await,
            Step::Zombies => {
                let taken = self.broker.taken().len();
                for relay in &self.relays[..self.relays.len() - 1] {
                    let refused = relay.pass(&self.db.pool, || true).await;
                    assert!(
                        matches!(refused, Err(GuardError::Stale { .. })),
                        "{refused:?}"
                    );
                }
                assert_eq!(self.broker.taken().len(), taken);
            }
        }
        self.assert_order();
    }

    /// What was published so far is, for each aggregate, the beginning of what was committed.
    fn assert_order(&self) {
        for (number, name) in AGGREGATES.iter().enumerate() {
            let published: Vec<String> = self
                .broker
                .envelopes()
                .iter()
                .filter(|envelope| envelope.aggregate.as_ref() == Some(&named(name)))
                .map(crate::broker::text)
                .collect();
            let committed = self.committed.get(&number).map_or(&[][..], Vec::as_slice);
            assert!(
                committed.starts_with(&published),
                "{name}: {published:?} of {committed:?}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_committed_is_published_once_and_in_the_order_of_its_aggregate() {
    let db = Db::new().await;
    let stripes = "SELECT count(DISTINCT hashtext(E'main\\n' || name) & 1023) \
                   FROM unnest(ARRAY['a', 'b', 'c']) AS name";
    assert_eq!(db.number(stripes).await, 3);
    let mut runner = TestRunner::deterministic();
    let mut token = 0;
    for _ in 0..12 {
        db.run("TRUNCATE palisade.outbox, palisade.relay").await;
        let steps = prop::collection::vec(step(), 50)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let mut world = World {
            db: &db,
            sealed: db.seal(&grant("r", 5)).await,
            writers: Default::default(),
            committed: BTreeMap::new(),
            broker: Broker::default(),
            relays: Vec::new(),
            staged: 0,
            token,
        };
        world.take_over().await;
        for step in &steps {
            world.step(step).await;
        }
        for writer in 0..3 {
            world.end(writer, true).await;
        }
        world.trouble(None);
        db.settle().await;
        while world.pass().await > 0 {}
        world.assert_order();
        let all: usize = world.committed.values().map(Vec::len).sum();
        assert_eq!(world.broker.taken().len(), all, "{steps:?}");
        token = world.token;
    }
}
