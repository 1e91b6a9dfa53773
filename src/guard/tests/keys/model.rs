//! Random sequences of operations against a pure model: deliveries and redeliveries, takeovers, crashes between
//! any two statements, attempts, purges, transactions side by side. Each key's effect is applied exactly once
//! per lifetime, nothing is written below the fence, and every replay gives the answer of the first time.
//!
//! `PALISADE_EFFECT_CASES` says how many sequences are tried (20 unless given).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use palisade_guard::GuardError;
use palisade_guard::effects::{
    Attempt, Begun, Claim, IdempotencyKey, KeyPolicy, KeyState, Known, Outcome, claim,
};
use palisade_guard::postgres::{GuardedTx, Isolation, Sealed};
use palisade_test_support::eventually;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sqlx::PgConnection;

use crate::db::{Db, PATIENCE, grant, name};
use crate::ledger::asked;

const RESOURCES: [&str; 2] = ["a", "b"];
const LEVELS: [Isolation; 3] = [
    Isolation::ReadCommitted,
    Isolation::RepeatableRead,
    Isolation::Serializable,
];

/// How a transaction ends, or where it is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Commit,
    RollBack,
    Drop,
    /// Its connection is ended by the server.
    Kill,
    /// Inside the effect, after its write.
    CutInEffect,
}

#[derive(Debug, Clone)]
struct Asked {
    resource: usize,
    /// How many seals ago the grant was sealed: above 0 it is a zombie's.
    age: usize,
    key: u8,
    amount: i64,
    level: usize,
}

#[derive(Debug, Clone)]
enum Step {
    Seal(usize),
    Deliver(Asked, End),
    /// Deliver, and leave the transaction open.
    Hold(usize, Asked),
    Settle(usize, End),
    /// Several deliveries at once.
    Race(Asked),
    Begin(Asked),
    Complete(usize, End),
    GiveUp(usize),
    /// Every attempt's lifetime is over.
    TimePasses,
    /// A key's lifetime is over.
    Age(u8),
    Purge,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let asked = (0..2_usize, 0..5_usize, 0..3_u8, 0..6_i64, 0..3_usize).prop_map(
        |(resource, age, key, amount, level)| Asked {
            resource,
            age: age.saturating_sub(3),
            key,
            amount: i64::from(amount == 0),
            level,
        },
    );
    let end = prop_oneof![
        4 => Just(End::Commit),
        1 => Just(End::RollBack),
        1 => Just(End::Drop),
        1 => Just(End::Kill),
        1 => Just(End::CutInEffect),
    ];
    let step = prop_oneof![
        2 => (0..2_usize).prop_map(Step::Seal),
        6 => (asked.clone(), end.clone()).prop_map(|(asked, end)| Step::Deliver(asked, end)),
        2 => (0..2_usize, asked.clone()).prop_map(|(slot, asked)| Step::Hold(slot, asked)),
        2 => (0..2_usize, end.clone()).prop_map(|(slot, end)| Step::Settle(slot, end)),
        2 => asked.clone().prop_map(Step::Race),
        4 => asked.prop_map(Step::Begin),
        4 => (0..4_usize, end).prop_map(|(attempt, end)| Step::Complete(attempt, end)),
        1 => (0..4_usize).prop_map(Step::GiveUp),
        1 => Just(Step::TimePasses),
        2 => (0..3_u8).prop_map(Step::Age),
        2 => Just(Step::Purge),
    ];
    prop::collection::vec(step, 1..40)
}

/// What should be so. It decides with the crate's pure code.
#[derive(Default)]
struct Model {
    keys: BTreeMap<u8, (Known, i32, i64)>,
    expired: BTreeSet<u8>,
    /// How often each key's effect should be there.
    applied: BTreeMap<u8, i64>,
    clock: u64,
}

impl Model {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.clock)
    }

    fn done(&mut self, asked: &Asked, answer: i64) {
        let known = Known {
            fingerprint: self::asked(asked.amount),
            state: KeyState::Done,
        };
        self.expired.remove(&asked.key);
        self.keys.insert(asked.key, (known, 0, answer));
        *self.applied.entry(asked.key).or_default() += 1;
    }
}

struct Open {
    tx: GuardedTx,
    asked: Asked,
    executed: Option<i64>,
}

struct World<'a> {
    db: &'a Db,
    case: u32,
    model: Model,
    sealed: [Vec<Sealed>; 2],
    open: [Option<Open>; 2],
    attempts: Vec<(Attempt, Asked, Sealed)>,
}

/// What a delivery came to, errors by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Executed(i64),
    Replayed(i64),
    InProgress,
    Mismatch,
    Superseded,
    Stale,
    /// Run it again: as if it had not been.
    Again,
}

fn seen(result: Result<Outcome<i64>, GuardError>) -> Seen {
    match result {
        Ok(Outcome::Executed(answer)) => Seen::Executed(answer),
        Ok(Outcome::Replayed { value, .. }) => Seen::Replayed(value),
        Err(GuardError::InProgress { .. }) => Seen::InProgress,
        Err(GuardError::FingerprintMismatch { .. }) => Seen::Mismatch,
        Err(GuardError::Superseded { .. }) => Seen::Superseded,
        Err(GuardError::Stale { .. }) => Seen::Stale,
        Err(GuardError::Serialization(_)) => Seen::Again,
        Err(other) => panic!("{other:?}"),
    }
}

async fn apply(
    connection: &mut PgConnection,
    resource: usize,
    entry: String,
    token: i64,
) -> Result<i64, GuardError> {
    let text = [
        "INSERT INTO facts_a VALUES ($1, $2) RETURNING id",
        "INSERT INTO facts_b VALUES ($1, $2) RETURNING id",
    ];
    let insert = sqlx::query_scalar(text[resource]).bind(entry).bind(token);
    Ok(insert.fetch_one(connection).await?)
}

impl World<'_> {
    fn key(&self, key: u8) -> IdempotencyKey {
        IdempotencyKey::new("tenant", "model", &self.entry(key)).unwrap()
    }

    fn entry(&self, key: u8) -> String {
        format!("{}-{key}", self.case)
    }

    fn sealed(&self, asked: &Asked) -> Sealed {
        let all = &self.sealed[asked.resource];
        all[all.len().saturating_sub(1 + asked.age)].clone()
    }

    fn is_stale(&self, sealed: &Sealed, resource: usize) -> bool {
        let fence = self.sealed[resource].last().unwrap();
        sealed.grant().token < fence.grant().token
    }

    async fn seal(&mut self, resource: usize) {
        // A seal waits for writers; those that still run have crashed.
        for slot in 0..self.open.len() {
            self.settle(slot, End::Drop).await;
        }
        let token = self.db.number("SELECT nextval('tokens')").await;
        let grant = grant(RESOURCES[resource], token.try_into().unwrap());
        self.sealed[resource].push(self.db.seal(&grant).await);
    }

    /// What a claim of this key should meet.
    fn expected(&self, asked: &Asked, sealed: &Sealed, as_attempt: bool) -> Result<Claim, Seen> {
        if self.is_stale(sealed, asked.resource) {
            return Err(Seen::Stale);
        }
        let is_held = |open: &Option<Open>| open.as_ref().is_some_and(|o| o.asked.key == asked.key);
        if self.open.iter().any(is_held) {
            return Err(Seen::InProgress);
        }
        let known = self.model.keys.get(&asked.key).map(|(known, ..)| known);
        let asked = self::asked(asked.amount);
        match claim(sealed.grant(), &asked, known, as_attempt, self.model.now()) {
            Claim::InProgress => Err(Seen::InProgress),
            Claim::Mismatch => Err(Seen::Mismatch),
            decided => Ok(decided),
        }
    }

    fn answer(&self, key: u8) -> i64 {
        self.model.keys[&key].2
    }

    fn check(&self, asked: &Asked, sealed: &Sealed, seen: &Seen) {
        match (self.expected(asked, sealed, false), seen) {
            (_, Seen::Again) => assert_ne!(asked.level, 0, "{asked:?}"),
            (Err(expected), seen) => assert_eq!(*seen, expected, "{asked:?}"),
            (Ok(Claim::Replayed), seen) => {
                assert_eq!(*seen, Seen::Replayed(self.answer(asked.key)), "{asked:?}");
            }
            (Ok(_), seen) => assert!(matches!(seen, Seen::Executed(_)), "{asked:?}: {seen:?}"),
        }
    }

    /// Begins and claims; the transaction is given only if the claim was answered.
    async fn start(&self, asked: &Asked) -> (Option<GuardedTx>, Seen) {
        let sealed = self.sealed(asked);
        let guard = self.db.guard.with_isolation(LEVELS[asked.level]);
        let (key, entry) = (self.key(asked.key), self.entry(asked.key));
        let mut tx = match guard.begin(&self.db.pool, &sealed).await {
            Ok(tx) => tx,
            Err(error) => return (None, seen(Err(error))),
        };
        let token = sealed.grant().token.as_i64();
        let outcome = tx
            .once(&key, &self::asked(asked.amount), async |c| {
                apply(c, asked.resource, entry, token).await
            })
            .await;
        let is_answered = outcome.is_ok();
        let seen = seen(outcome);
        if is_answered {
            return (Some(tx), seen);
        }
        tx.rollback().await.unwrap();
        (None, seen)
    }

    async fn deliver(&mut self, asked: &Asked, end: End) {
        if end == End::CutInEffect {
            return self.deliver_cut(asked).await;
        }
        let (tx, seen) = self.start(asked).await;
        self.check(asked, &self.sealed(asked), &seen);
        if let Some(tx) = tx {
            let executed = match seen {
                Seen::Executed(answer) => Some(answer),
                _ => None,
            };
            self.end(tx, end, asked, executed).await;
        }
    }

    /// The effect writes and is never heard of again; whoever still holds the transaction tries to commit.
    async fn deliver_cut(&mut self, asked: &Asked) {
        let sealed = self.sealed(asked);
        let (key, entry) = (self.key(asked.key), self.entry(asked.key));
        let token = sealed.grant().token.as_i64();
        let Ok(mut tx) = self.db.guard.begin(&self.db.pool, &sealed).await else {
            return;
        };
        let (written, mut cut) = tokio::sync::mpsc::channel::<()>(1);
        let fingerprint = self::asked(asked.amount);
        let effect = tx.once(&key, &fingerprint, async |c| {
            let answer = apply(c, asked.resource, entry, token).await;
            written.send(()).await.unwrap();
            std::future::pending::<()>().await;
            answer
        });
        let outcome = tokio::select! {
            outcome = effect => Some(outcome),
            _ = cut.recv() => None,
        };
        match outcome {
            Some(outcome) => {
                let seen = seen(outcome);
                self.check(
                    &Asked {
                        level: 0,
                        ..asked.clone()
                    },
                    &sealed,
                    &seen,
                );
                tx.rollback().await.unwrap();
            }
            None => {
                let error = tx.commit().await.unwrap_err();
                assert!(matches!(error, GuardError::RolledBack(_)), "{error:?}");
            }
        }
    }

    /// Ends a transaction whose effect should be there afterwards if it commits.
    async fn end(&mut self, mut tx: GuardedTx, end: End, asked: &Asked, executed: Option<i64>) {
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        match end {
            End::Commit | End::CutInEffect => match tx.commit().await {
                Ok(_) => {
                    if let Some(answer) = executed {
                        self.model.done(asked, answer);
                    }
                }
                Err(error) => assert_eq!(seen(Err(error)), Seen::Again, "{asked:?}"),
            },
            End::RollBack => tx.rollback().await.unwrap(),
            End::Drop => drop(tx),
            End::Kill => {
                self.db
                    .run(&format!("SELECT pg_terminate_backend({pid})"))
                    .await;
                drop(tx);
            }
        }
        let held =
            format!("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = {pid}");
        eventually("its locks are gone", PATIENCE, async || {
            self.db.number(&held).await == 0
        })
        .await
        .unwrap();
    }

    async fn settle(&mut self, slot: usize, end: End) {
        if let Some(Open {
            tx,
            asked,
            executed,
        }) = self.open[slot].take()
        {
            self.end(tx, end, &asked, executed).await;
        }
    }

    async fn hold(&mut self, slot: usize, asked: &Asked) {
        self.settle(slot, End::RollBack).await;
        let (tx, seen) = self.start(asked).await;
        self.check(asked, &self.sealed(asked), &seen);
        let executed = match seen {
            Seen::Executed(answer) => Some(answer),
            _ => None,
        };
        self.open[slot] = tx.map(|tx| Open {
            tx,
            asked: asked.clone(),
            executed,
        });
    }

    async fn race(&mut self, asked: &Asked) {
        let asked = Asked {
            level: 0,
            ..asked.clone()
        };
        let one = async || {
            let (tx, seen) = self.start(&asked).await;
            if let Some(tx) = tx {
                tx.commit().await.unwrap();
            }
            seen
        };
        let (a, b, c) = tokio::join!(one(), one(), one());
        let all = [a, b, c];
        let executed: Vec<i64> = all
            .iter()
            .filter_map(|seen| match seen {
                Seen::Executed(answer) => Some(*answer),
                _ => None,
            })
            .collect();
        let expected = match self.expected(&asked, &self.sealed(&asked), false) {
            Err(expected) => Some(expected),
            Ok(Claim::Replayed) => Some(Seen::Replayed(self.answer(asked.key))),
            Ok(_) => None,
        };
        let answer = executed.first().copied();
        assert_eq!(
            executed.len(),
            usize::from(expected.is_none()),
            "{asked:?}: {all:?}"
        );
        for seen in &all {
            let is_fine = *seen == Seen::InProgress
                || expected.as_ref().is_some_and(|expected| seen == expected)
                || answer.is_some_and(|a| *seen == Seen::Executed(a) || *seen == Seen::Replayed(a));
            assert!(is_fine, "{asked:?}: {seen:?} of {all:?}");
        }
        if let Some(answer) = answer {
            self.model.done(&asked, answer);
        }
    }

    async fn begin(&mut self, asked: &Asked) {
        let sealed = self.sealed(asked);
        let guard = self.db.guard.with_isolation(LEVELS[asked.level]);
        let (key, fingerprint) = (self.key(asked.key), self::asked(asked.amount));
        let begun = guard
            .begin_attempt::<i64>(
                &self.db.pool,
                &sealed,
                &key,
                &fingerprint,
                &KeyPolicy::new(),
            )
            .await;
        let expected = self.expected(asked, &sealed, true);
        match begun {
            Ok(Begun::Replayed { value, .. }) => {
                assert_eq!(expected, Ok(Claim::Replayed), "{asked:?}");
                assert_eq!(value, self.answer(asked.key), "{asked:?}");
            }
            Ok(Begun::Attempt(attempt)) => {
                let before = self
                    .model
                    .keys
                    .get(&asked.key)
                    .map_or(0, |(_, number, _)| *number);
                let taken = if before == 0 {
                    Claim::Claimed
                } else {
                    Claim::TakenOver
                };
                assert_eq!(expected, Ok(taken), "{asked:?}");
                assert_eq!(attempt.number(), before + 1);
                let state = KeyState::Begun {
                    by: sealed.grant().clone(),
                    until: self.model.now() + Duration::from_secs(1),
                };
                self.model
                    .keys
                    .insert(asked.key, (Known { fingerprint, state }, before + 1, 0));
                self.attempts.push((attempt, asked.clone(), sealed));
            }
            Err(error) => match seen(Err(error)) {
                Seen::Again => assert_ne!(asked.level, 0),
                seen => assert_eq!(expected, Err(seen), "{asked:?}"),
            },
        }
    }

    /// One of the latest attempts, and what finishing it should meet.
    fn attempt(&self, back: usize) -> Option<(usize, Result<(), Seen>)> {
        let index = self.attempts.len().checked_sub(1 + back)?;
        let (attempt, asked, sealed) = &self.attempts[index];
        if self.is_stale(sealed, asked.resource) {
            return Some((index, Err(Seen::Stale)));
        }
        let expected = match self.model.keys.get(&asked.key) {
            Some((
                Known {
                    state: KeyState::Done,
                    ..
                },
                _,
                answer,
            )) => Err(Seen::Replayed(*answer)),
            Some((
                Known {
                    state: KeyState::Begun { by, .. },
                    ..
                },
                number,
                _,
            )) if by == attempt.grant() && *number == attempt.number() => Ok(()),
            _ => Err(Seen::Superseded),
        };
        Some((index, expected))
    }

    async fn complete(&mut self, back: usize, end: End) {
        let Some((index, expected)) = self.attempt(back) else {
            return;
        };
        let (attempt, asked, sealed) = &self.attempts[index];
        let (asked, entry) = (asked.clone(), self.entry(asked.key));
        let token = sealed.grant().token.as_i64();
        let mut tx = match self.db.guard.begin(&self.db.pool, sealed).await {
            Ok(tx) => tx,
            Err(error) => return assert_eq!(Err(seen(Err(error))), expected),
        };
        let outcome = tx
            .complete(attempt, async |c| {
                apply(c, asked.resource, entry, token).await
            })
            .await;
        match seen(outcome) {
            Seen::Executed(answer) => {
                assert_eq!(expected, Ok(()), "{asked:?}");
                self.end(tx, end, &asked, Some(answer)).await;
            }
            seen => {
                assert_eq!(Err(seen), expected, "{asked:?}");
                tx.rollback().await.unwrap();
            }
        }
    }

    async fn give_up(&mut self, back: usize) {
        let Some((index, expected)) = self.attempt(back) else {
            return;
        };
        let (attempt, asked, sealed) = &self.attempts[index];
        let done = async {
            let mut tx = self.db.guard.begin(&self.db.pool, sealed).await?;
            match tx.give_up(attempt).await {
                Ok(()) => tx.commit().await.map(drop),
                Err(error) => {
                    tx.rollback().await.unwrap();
                    Err(error)
                }
            }
        };
        match done.await {
            Ok(()) => {
                assert_eq!(expected, Ok(()));
                let now = self.model.now();
                let (known, ..) = self.model.keys.get_mut(&asked.key).unwrap();
                if let KeyState::Begun { until, .. } = &mut known.state {
                    *until = now;
                }
            }
            Err(error) => match (seen(Err(error)), expected) {
                // There is nothing to give up.
                (Seen::Superseded, Err(Seen::Replayed(_))) => {}
                (seen, expected) => assert_eq!(Err(seen), expected),
            },
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Seal(resource) => self.seal(resource).await,
            Step::Deliver(asked, end) => self.deliver(&asked, end).await,
            Step::Hold(slot, asked) => self.hold(slot, &asked).await,
            Step::Settle(slot, end) => self.settle(slot, end).await,
            Step::Race(asked) => self.race(&asked).await,
            Step::Begin(asked) => self.begin(&asked).await,
            Step::Complete(back, end) => self.complete(back, end).await,
            Step::GiveUp(back) => self.give_up(back).await,
            Step::TimePasses => {
                self.model.clock += 1;
                let text = "UPDATE palisade.effect SET attempt_until = clock_timestamp() WHERE attempt_until IS NOT NULL";
                self.db.run(text).await;
            }
            Step::Age(key) => {
                let is_done = |(known, ..): &(Known, i32, i64)| known.state == KeyState::Done;
                if self.model.keys.get(&key).is_some_and(is_done) {
                    self.model.expired.insert(key);
                }
                self.db.run(&format!(
                    "UPDATE palisade.effect SET keep_until = clock_timestamp() - interval '1 s' \
                     WHERE key = '{}' AND answer IS NOT NULL",
                    self.entry(key)
                )).await;
            }
            Step::Purge => {
                let purged = self
                    .db
                    .guard
                    .purge_effects(&self.db.pool, 1_000)
                    .await
                    .unwrap();
                let expired = std::mem::take(&mut self.model.expired);
                assert_eq!(purged, u64::try_from(expired.len()).unwrap());
                for key in expired {
                    self.model.keys.remove(&key);
                }
            }
        }
    }

    /// The store holds what the model holds.
    async fn compare(&mut self) {
        for slot in 0..self.open.len() {
            self.settle(slot, End::RollBack).await;
        }
        for key in 0..3 {
            let entry = self.entry(key);
            let applied = self.db.number(&format!(
                "SELECT count(*) FROM (SELECT entry FROM facts_a UNION ALL SELECT entry FROM facts_b) AS f \
                 WHERE entry = '{entry}'"
            )).await;
            assert_eq!(
                applied,
                self.model.applied.get(&key).copied().unwrap_or_default(),
                "{entry}"
            );
            let rows = self
                .db
                .number(&format!(
                    "SELECT coalesce(sum(CASE WHEN answer IS NULL THEN 1 ELSE 2 END), 0)::bigint \
                 FROM palisade.effect WHERE key = '{entry}'"
                ))
                .await;
            let expected = match self.model.keys.get(&key) {
                None => 0,
                Some((
                    Known {
                        state: KeyState::Begun { .. },
                        ..
                    },
                    ..,
                )) => 1,
                Some((
                    Known {
                        state: KeyState::Done,
                        ..
                    },
                    ..,
                )) => 2,
            };
            assert_eq!(rows, expected, "{entry}");
        }
    }
}

async fn case(db: &Db, case: u32, steps: Vec<Step>) {
    // What earlier cases left is none of this one's.
    db.run("DELETE FROM palisade.effect").await;
    let mut world = World {
        db,
        case,
        model: Model::default(),
        sealed: [Vec::new(), Vec::new()],
        open: [None, None],
        attempts: Vec::new(),
    };
    world.seal(0).await;
    world.seal(1).await;
    for step in steps {
        world.step(step).await;
    }
    world.compare().await;
}

#[test]
fn random_sequences_apply_each_effect_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let cases = std::env::var("PALISADE_EFFECT_CASES").map_or(20, |cases| cases.parse().unwrap());
    let db = runtime.block_on(async {
        let db = Db::new().await;
        db.run("CREATE SEQUENCE tokens; CREATE SEQUENCE ids").await;
        for (resource, table) in [("a", "facts_a"), ("b", "facts_b")] {
            db.run(&format!(
                "CREATE TABLE {table} (entry text, token bigint, id bigint DEFAULT nextval('ids'))"
            ))
            .await;
            db.guard
                .protect(&db.pool, table, &name(resource))
                .await
                .unwrap();
        }
        db
    });
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let number = std::cell::Cell::new(0);
    let result = TestRunner::new(config).run(&steps(), |steps| {
        number.set(number.get() + 1);
        let one = std::panic::AssertUnwindSafe(|| runtime.block_on(case(&db, number.get(), steps)));
        std::panic::catch_unwind(one).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            TestCaseError::fail(text.unwrap_or_else(|| "an assertion failed".to_owned()))
        })
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
    // Across all cases: the tokens of what was written never decrease (I2).
    for table in ["facts_a", "facts_b"] {
        let decreasing = format!(
            "SELECT count(*) FROM (SELECT token, lag(token) OVER (ORDER BY id) AS before FROM {table}) AS f \
             WHERE token < before"
        );
        assert_eq!(runtime.block_on(db.number(&decreasing)), 0, "{table}");
    }
}
