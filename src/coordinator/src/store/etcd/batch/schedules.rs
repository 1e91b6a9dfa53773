//! Steps and their callers in many orders of their turns: nobody is forgotten, each is told the outcome of its own step
//! and no other, what its caller gave up does not leave, and no more is under way than may be (I4, I12, I13).
//!
//! shuttle decides whose turn it is at each await; all that stands for etcd is a carrier that takes its time. How many
//! schedules are tried is multiplied by `PALISADE_MODEL_DEPTH`; one that fails is printed, for `shuttle::replay`.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{Either, select};
use shuttle::future::{JoinHandle, block_on, spawn, yield_now};
use tokio_util::sync::CancellationToken;

use super::carry::Carrier;
use super::{Decided, MAX_STEPS, MAX_UNDER_WAY, Steps};
use crate::clock::{Clock, Moment};
use crate::domain::{Refusal, WallClock};
use crate::store::etcd::step::Step;
use crate::store::{Failure, Outcome, StoreError};

/// A wait is one turn of the others.
#[derive(Debug, Default)]
struct Turns(Mutex<Duration>);

#[async_trait]
impl Clock for Turns {
    fn now(&self) -> Moment {
        Moment(*self.0.lock().unwrap())
    }

    fn wall(&self) -> WallClock {
        WallClock::BUILT
    }

    async fn sleep(&self, while_: Duration) {
        yield_now().await;
        *self.0.lock().unwrap() += while_;
    }
}

/// What a carrier does that it must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    /// It says one outcome too few of several.
    Forgets,
    /// It says each outcome to another.
    Mixes,
    /// It never comes back.
    Stays,
}

#[derive(Debug)]
struct Slow {
    clock: Arc<dyn Clock>,
    broken: CancellationToken,
    defect: Option<Defect>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    under_way: usize,
    carried: HashSet<u64>,
    gone: HashSet<u64>,
}

impl Slow {
    fn new(defect: Option<Defect>) -> Arc<Self> {
        Arc::new(Self {
            clock: Arc::new(Turns::default()),
            broken: CancellationToken::new(),
            defect,
            seen: Mutex::default(),
        })
    }

    fn leaves(&self, steps: &[Step]) -> UnderWay<'_> {
        let mut seen = self.seen.lock().unwrap();
        seen.under_way += 1;
        // One besides may be sent by its caller.
        assert!(seen.under_way <= MAX_UNDER_WAY + 1, "too many at once");
        assert!(steps.len() <= MAX_STEPS, "too many together");
        let mut written = HashSet::new();
        for step in steps {
            assert!(written.insert(step.keys[1]), "a key is written twice");
            assert!(!seen.gone.contains(&id(step)), "its caller has gone");
            assert!(seen.carried.insert(id(step)), "it left before");
        }
        UnderWay(self)
    }
}

/// Counted for as long as anybody waits for it.
struct UnderWay<'a>(&'a Slow);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.seen.lock().unwrap().under_way -= 1;
    }
}

fn id(step: &Step) -> u64 {
    step.keys[0]
}

/// Stands for what a step came to: it names the step.
fn outcome(id: u64) -> Result<Decided, StoreError> {
    let limit = "step";
    Err(Refusal::LimitReached { limit, bound: id }.into())
}

impl Carrier for Slow {
    fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    fn call_limit(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn broken(&self) -> &CancellationToken {
        &self.broken
    }

    async fn carry(&self, steps: Vec<Step>) -> Vec<Result<Decided, StoreError>> {
        let _under_way = self.leaves(&steps);
        yield_now().await;
        if self.defect == Some(Defect::Stays) {
            std::future::pending::<()>().await;
        }
        let mut ids: Vec<_> = steps.iter().map(id).collect();
        match self.defect {
            Some(Defect::Forgets) if ids.len() > 1 => drop(ids.pop()),
            Some(Defect::Mixes) => ids.reverse(),
            Some(Defect::Forgets | Defect::Stays) | None => {}
        }
        ids.into_iter().map(outcome).collect()
    }
}

/// A step of its own name that writes one of a few keys.
fn step(id: u64, key: u64, may_be_late: bool) -> Step {
    Step {
        keys: vec![id, 1000 + key],
        may_be_late,
        ..Step::new(Vec::new())
    }
}

/// What a caller was told.
fn check(slow: &Slow, id: u64, told: Result<Decided, StoreError>) {
    let seen = slow.seen.lock().unwrap();
    match told {
        Err(StoreError::Refused(Refusal::LimitReached { bound, .. })) => {
            assert_eq!(bound, id, "another's outcome");
            assert!(seen.carried.contains(&id));
        }
        Err(StoreError::Failed {
            failure: Failure::Unavailable,
            outcome: Outcome::NotApplied,
            ..
        }) => {
            assert!(slow.broken.is_cancelled(), "nothing was wrong");
            assert!(
                !seen.carried.contains(&id),
                "it left, and may have happened"
            );
        }
        other => panic!("no outcome of its own: {other:?}"),
    }
}

/// As a link submits: by itself where nothing is under way, else with others.
async fn submit(slow: &Slow, steps: &Steps, step: Step) -> Result<Decided, StoreError> {
    let may_go = !step.may_be_late && !slow.broken.is_cancelled();
    let turn = if may_go { steps.direct() } else { None };
    match turn {
        Some(_turn) => slow.carry(vec![step]).await.remove(0),
        None => steps.submit(step, slow.clock.now()).await,
    }
}

fn caller(slow: &Arc<Slow>, steps: &Arc<Steps>, (id, patience): (u64, usize)) -> JoinHandle<()> {
    let (slow, steps) = (Arc::clone(slow), Arc::clone(steps));
    spawn(async move {
        let step = step(id, id % 3, id % 4 == 3);
        let asked = Box::pin(submit(&slow, &steps, step));
        let gives_up = Box::pin(async {
            for _ in 0..patience {
                yield_now().await;
            }
        });
        match select(asked, gives_up).await {
            Either::Left((told, _)) => check(&slow, id, told),
            Either::Right(((), asked)) => {
                drop(asked);
                slow.seen.lock().unwrap().gone.insert(id);
            }
        }
    })
}

/// So patient that its outcome comes first.
const PATIENT: usize = 100_000;

fn run(defect: Option<Defect>, callers: &[usize], breaks_after: Option<usize>) {
    let callers = callers.to_vec();
    block_on(async move {
        let slow = Slow::new(defect);
        let (steps, work) = Steps::new(&slow);
        let steps = Arc::new(steps);
        let work = spawn(work);
        let patience = callers.into_iter().enumerate();
        let callers: Vec<_> = patience
            .map(|(id, patience)| {
                let id = u64::try_from(id).unwrap();
                caller(&slow, &steps, (id, patience))
            })
            .collect();
        if let Some(turns) = breaks_after {
            for _ in 0..turns {
                yield_now().await;
            }
            slow.broken.cancel();
        }
        for caller in callers {
            caller.await.unwrap();
        }
        // Nobody asks any more: what sends for them ends, and leaves nothing.
        drop(steps);
        work.await.unwrap();
        assert_eq!(slow.seen.lock().unwrap().under_way, 0, "something is left");
    });
}

fn schedules(many: usize) -> usize {
    let depth = std::env::var("PALISADE_MODEL_DEPTH");
    let depth = depth.map_or(1, |depth| depth.parse().unwrap());
    many * depth
}

#[test]
fn each_is_told_its_own_outcome_once() {
    shuttle::check_random(|| run(None, &[PATIENT; 7], None), schedules(300));
    shuttle::check_pct(|| run(None, &[PATIENT; 7], None), schedules(300), 3);
}

#[test]
fn what_its_caller_gave_up_does_not_leave_later() {
    let callers = [PATIENT, 0, 1, 2, 3, PATIENT];
    shuttle::check_random(move || run(None, &callers, None), schedules(500));
}

#[test]
fn all_are_told_when_the_connection_breaks() {
    for turns in 0..5 {
        let callers = [PATIENT; 5];
        shuttle::check_random(move || run(None, &callers, Some(turns)), schedules(100));
    }
}

#[test]
fn every_order_of_a_few_turns_is_right() {
    shuttle::check_dfs(|| run(None, &[PATIENT, 1], None), Some(schedules(2000)));
}

#[test]
#[should_panic(expected = "no outcome of its own")]
fn a_carrier_that_forgets_one_is_found_out() {
    shuttle::check_random(|| run(Some(Defect::Forgets), &[PATIENT; 7], None), 300);
}

#[test]
#[should_panic(expected = "another's outcome")]
fn a_carrier_that_mixes_them_up_is_found_out() {
    shuttle::check_random(|| run(Some(Defect::Mixes), &[PATIENT; 7], None), 300);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_carrier_that_never_comes_back_is_found_out() {
    shuttle::check_random(|| run(Some(Defect::Stays), &[PATIENT; 3], None), 300);
}
