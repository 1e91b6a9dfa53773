use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{Decided, LATENESS, MAX_BYTES, MAX_STEPS, Steps, Waiting, is_due, pack};
use crate::clock::Moment;
use crate::store::etcd::step::Step;
use crate::store::{Outcome, StoreError};

const LIMIT: Duration = Duration::from_secs(5);

type Told = oneshot::Receiver<Result<Decided, StoreError>>;

/// Stands for the hash of a key.
fn number(key: &str) -> u64 {
    let digits = key.bytes().map(u64::from);
    digits.fold(0, |number, digit| number.wrapping_mul(256) + digit)
}

fn step(keys: &[&str], bytes: usize, is_alone: bool) -> Step {
    Step {
        mark: None,
        compares: Vec::new(),
        writes: Vec::new(),
        looks: Vec::new(),
        keys: keys.iter().map(|key| number(key)).collect(),
        vacates: None,
        awaits: None,
        bytes,
        under: None,
        may_be_late: false,
        is_alone,
    }
}

fn wait(steps: Vec<Step>) -> (VecDeque<Waiting>, Vec<Told>) {
    let since = Moment::default();
    steps
        .into_iter()
        .map(|step| {
            let (told, receiver) = oneshot::channel();
            (Waiting { step, told, since }, receiver)
        })
        .unzip()
}

fn packed(waiting: &mut VecDeque<Waiting>) -> Vec<Vec<u64>> {
    let packed = pack(waiting, Moment::default(), LIMIT);
    let packed = packed.into_iter().flatten();
    packed.map(|waiting| waiting.step.keys).collect()
}

#[test]
fn no_key_travels_twice_and_the_order_stays() {
    let steps = vec![
        step(&["a", "b"], 1, false),
        step(&["c", "a"], 1, false),
        step(&["c"], 1, false),
        step(&["d"], 1, false),
    ];
    let (mut waiting, _told) = wait(steps);
    let first = packed(&mut waiting);
    assert_eq!(
        first,
        [
            vec![number("a"), number("b")],
            vec![number("c")],
            vec![number("d")]
        ]
    );
    assert_eq!(packed(&mut waiting), [vec![number("c"), number("a")]]);
    assert_eq!(packed(&mut waiting), Vec::<Vec<u64>>::new());
}

/// Both see how it was before: whoever came would wait for what is vacant. Others may wait beside him.
#[test]
fn nobody_who_waits_for_a_lease_travels_with_the_release_that_vacates_it() {
    let waits = |key: &str| Step {
        awaits: Some(number("lease")),
        ..step(&[key], 1, false)
    };
    let ends = || Step {
        vacates: Some(number("lease")),
        ..step(&["lease"], 1, false)
    };
    let (mut waiting, _told) = wait(vec![waits("a"), ends(), waits("b")]);
    assert_eq!(packed(&mut waiting), [vec![number("a")], vec![number("b")]]);
    assert_eq!(packed(&mut waiting), [vec![number("lease")]]);
    let (mut waiting, _told) = wait(vec![ends(), waits("a"), step(&["c"], 1, false)]);
    let first = packed(&mut waiting);
    assert_eq!(first, [vec![number("lease")], vec![number("c")]]);
    assert_eq!(packed(&mut waiting), [vec![number("a")]]);
}

#[test]
fn a_transaction_is_bounded_by_steps_and_bytes() {
    let names: Vec<_> = (0..=MAX_STEPS).map(|number| number.to_string()).collect();
    let steps = names.iter().map(|name| step(&[name], 1, false)).collect();
    let (mut waiting, _told) = wait(steps);
    assert_eq!(packed(&mut waiting).len(), MAX_STEPS);
    assert_eq!(packed(&mut waiting).len(), 1);

    let (mut waiting, _told) = wait(vec![
        step(&["large"], MAX_BYTES * 2, false),
        step(&["small"], 1, false),
    ]);
    assert_eq!(
        packed(&mut waiting),
        [vec![number("large")]],
        "it goes, but by itself"
    );
    assert_eq!(packed(&mut waiting), [vec![number("small")]]);
}

#[test]
fn a_step_that_was_refused_with_others_goes_alone() {
    let (mut waiting, _told) = wait(vec![
        step(&["a"], 1, false),
        step(&["b"], 1, true),
        step(&["c"], 1, false),
    ]);
    assert_eq!(packed(&mut waiting), [vec![number("a")], vec![number("c")]]);
    assert_eq!(packed(&mut waiting), [vec![number("b")]]);
}

/// A process that was frozen does not go on with what its callers gave up meanwhile (I4).
#[test]
fn what_is_late_or_given_up_is_not_sent() {
    let steps = vec![step(&["a"], 1, false), step(&["b"], 1, false)];
    let (mut waiting, mut told) = wait(steps);
    drop(told.remove(1));
    let now = Moment(LIMIT / 2);
    let sent = pack(&mut waiting, now, LIMIT).unwrap();
    assert_eq!(sent.len(), 1, "nobody waits for the other");

    let (mut waiting, mut told) = wait(vec![step(&["a"], 1, false)]);
    assert!(pack(&mut waiting, Moment(LIMIT), LIMIT).is_none());
    let told = told.remove(0).try_recv().unwrap();
    assert!(matches!(told, Err(error) if error.outcome() == Outcome::NotApplied));
}

#[test]
fn what_may_be_late_leaves_with_what_may_not_or_a_moment_later() {
    let late = || Step {
        may_be_late: true,
        ..step(&["late"], 1, false)
    };
    let now = Moment::default();
    let (waiting, _told) = wait(vec![late()]);
    assert!(!is_due(&waiting, now));
    assert!(is_due(&waiting, now.after(LATENESS)));
    let (waiting, _told) = wait(vec![late(), step(&["prompt"], 1, false)]);
    assert!(is_due(&waiting, now));
    let (waiting, _told) = wait((0..MAX_STEPS).map(|_| late()).collect());
    assert!(is_due(&waiting, now), "as many as travel together");
}

/// They are compared once for all: whoever rests on another generation goes with the next ones (I3).
#[test]
fn steps_under_different_generations_do_not_travel_together() {
    let under = |key, generation: &[u8]| Step {
        under: Some(generation.into()),
        ..step(&[key], 1, false)
    };
    let (mut waiting, _told) = wait(vec![
        step(&["none"], 1, false),
        under("old", b"1"),
        under("new", b"2"),
        under("old, too", b"1"),
    ]);
    let numbers = |keys: &[&str]| -> Vec<_> { keys.iter().map(|key| vec![number(key)]).collect() };
    let first = packed(&mut waiting);
    assert_eq!(first, numbers(&["none", "old", "old, too"]));
    assert_eq!(packed(&mut waiting), numbers(&["new"]));
}

/// So that what one caller sends is not overtaken by what it sends next, and etcd never has more to do at once than
/// group commit lets it have.
#[test]
fn one_caller_at_a_time_sends_its_step_itself_and_only_while_nothing_travels_together() {
    let (sender, _arriving) = mpsc::channel(1);
    let steps = Steps {
        sender,
        turn: Arc::default(),
    };
    let first = steps.direct();
    assert!(first.is_some());
    assert!(steps.direct().is_none(), "one is under way");
    assert!(steps.direct().is_none(), "asking changes nothing");
    drop(first);
    let next = steps.direct();
    assert!(next.is_some(), "it came back");
    drop(next);
    steps.turn.is_busy.store(true, Ordering::Release);
    assert!(steps.direct().is_none(), "others travel together");
    steps.turn.is_busy.store(false, Ordering::Release);
    assert!(steps.direct().is_some());
}
