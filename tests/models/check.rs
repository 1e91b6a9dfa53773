//! Runs models to their end, and says what it took.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "what a check costs is measured and shown; nothing depends on it"
)]

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// States that one model may have: more would take all memory before they take all time.
const MAX_STATES: usize = 4_000_000;

/// How far the bounds of the models go: 1 is what fits a quick run; `PALISADE_MODEL_DEPTH` says another.
pub(crate) fn depth() -> u8 {
    let given = std::env::var("PALISADE_MODEL_DEPTH");
    given.map_or(1, |given| {
        given.parse().expect("PALISADE_MODEL_DEPTH is a number")
    })
}

fn run<M>(name: &str, model: M, until: HasDiscoveries) -> impl Checker<M>
where
    M: Model + Send + Sync + 'static,
    M::State: Debug + Hash + Clone + PartialEq + Send + Sync,
    M::Action: Debug + Clone + PartialEq + Send + Sync,
{
    let began = Instant::now();
    let checker = model
        .checker()
        .finish_when(until)
        .target_state_count(MAX_STATES)
        .spawn_bfs()
        .join();
    eprintln!(
        "{name}: {} states, {} steps deep, {:?}",
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed()
    );
    checker
}

/// Every reachable state keeps what always holds, and what may happen does somewhere.
#[track_caller]
pub(crate) fn holds<M>(name: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Debug + Hash + Clone + PartialEq + Send + Sync,
    M::Action: Debug + Clone + PartialEq + Send + Sync,
{
    let checker = run(name, model, HasDiscoveries::AnyFailures);
    for property in checker.model().properties() {
        let found = checker.discovery(property.name);
        match property.expectation {
            Expectation::Always | Expectation::Eventually => {
                let Some(path) = found else { continue };
                panic!("{name}: not {}: {}", property.name, told(path));
            }
            Expectation::Sometimes => {
                assert!(found.is_some(), "{name}: never {}", property.name);
            }
        }
    }
    assert!(
        checker.state_count() < MAX_STATES,
        "{name}: too many states to see all of them"
    );
}

/// Without a defence, a property is broken: the checker finds how.
#[track_caller]
pub(crate) fn refuted<M>(name: &str, model: M, property: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Debug + Hash + Clone + PartialEq + Send + Sync,
    M::Action: Debug + Clone + PartialEq + Send + Sync,
{
    let until = HasDiscoveries::AllOf([property].into());
    let checker = run(name, model, until);
    let Some(path) = checker.discovery(property) else {
        panic!(
            "{name}: nothing found against {property}, but against {:?}",
            checker.discoveries().into_keys().collect::<Vec<_>>()
        );
    };
    eprintln!("{name}: not {property}: {}", told(path));
}

/// The steps, and the state that they lead to.
fn told<S: Debug, A: Debug>(path: stateright::Path<S, A>) -> String {
    let steps = path.into_vec();
    let last = steps.last().map(|(state, _)| format!("{state:?}"));
    let steps: Vec<_> = steps
        .iter()
        .filter_map(|(_, action)| action.as_ref())
        .map(|action| format!("\n  {action:?}"))
        .collect();
    format!("{}\n  = {}", steps.concat(), last.unwrap_or_default())
}
