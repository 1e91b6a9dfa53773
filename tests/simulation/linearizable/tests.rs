//! Histories made by hand, good and bad, and small ones by chance against trying every order.

use palisade_token::{FencingToken, HolderId};
use proptest::prelude::*;

use super::mutex::{Call, Mutex};
use super::{MOST_VISITED, Sequential, Span, Verdict, check};

fn token(number: u64) -> FencingToken {
    FencingToken::new(number).unwrap()
}

fn holder(number: u64) -> HolderId {
    HolderId::from_bytes([u8::try_from(number).unwrap(); 16])
}

fn acquired(number: u64) -> Call {
    Call::Acquired(token(number), holder(number))
}

fn over(number: u64) -> Call {
    Call::Over(token(number))
}

fn told(call: Call, from: u64, to: u64) -> Span<Call> {
    let to = Some(to);
    Span { call, from, to }
}

fn untold(call: Call, from: u64) -> Span<Call> {
    let to = None;
    Span { call, from, to }
}

fn verdict(calls: &[Span<Call>]) -> Verdict {
    check::<Mutex>(calls, MOST_VISITED)
}

#[track_caller]
fn fits(calls: &[Span<Call>]) {
    assert_eq!(verdict(calls), Verdict::Fits);
}

#[track_caller]
fn is_broken(calls: &[Span<Call>]) {
    let verdict = verdict(calls);
    assert!(matches!(verdict, Verdict::Broken { .. }), "{verdict:?}");
}

#[test]
fn nothing_fits() {
    fits(&[]);
}

#[test]
fn one_after_the_other_fits() {
    fits(&[
        told(acquired(1), 0, 1),
        told(over(1), 2, 3),
        told(acquired(2), 4, 5),
    ]);
}

#[test]
fn two_at_once_are_broken_and_the_second_is_named() {
    let calls = [told(acquired(1), 0, 1), told(acquired(2), 2, 3)];
    let placed = vec![0];
    assert_eq!(verdict(&calls), Verdict::Broken { placed, stuck: 1 });
}

#[test]
fn a_release_that_overlaps_an_acquire_may_come_first() {
    fits(&[
        told(acquired(1), 0, 1),
        told(acquired(2), 2, 9),
        told(over(1), 3, 4),
    ]);
}

#[test]
fn a_release_that_came_later_explains_nothing() {
    is_broken(&[
        told(acquired(1), 0, 1),
        told(acquired(2), 2, 3),
        told(over(1), 4, 5),
    ]);
}

#[test]
fn a_token_that_is_not_above_all_before_is_broken() {
    is_broken(&[
        told(acquired(2), 0, 1),
        told(over(2), 2, 3),
        told(acquired(1), 4, 5),
    ]);
}

#[test]
fn a_hold_may_be_told_twice_but_not_of_another_holder() {
    fits(&[told(acquired(1), 0, 1), told(acquired(1), 2, 3)]);
    let other = Call::Acquired(token(1), holder(9));
    is_broken(&[told(acquired(1), 0, 1), told(other, 2, 3)]);
}

#[test]
fn a_release_acknowledged_but_not_done_is_broken() {
    is_broken(&[
        told(acquired(1), 0, 1),
        told(over(1), 2, 3),
        told(Call::Refused, 4, 5),
    ]);
}

#[test]
fn a_try_fails_only_where_somebody_holds_or_waits() {
    is_broken(&[told(Call::Refused, 0, 1)]);
    fits(&[told(acquired(1), 0, 3), told(Call::Refused, 1, 2)]);
    fits(&[told(Call::Queued, 0, 0), told(Call::Refused, 1, 2)]);
    is_broken(&[
        told(Call::Queued, 0, 0),
        told(Call::Left, 1, 1),
        told(Call::Refused, 2, 3),
    ]);
}

#[test]
fn a_lease_that_is_held_is_not_told_to_be_over() {
    is_broken(&[told(acquired(1), 0, 1), told(Call::NotHeld(token(1)), 2, 3)]);
    fits(&[
        told(acquired(1), 0, 1),
        told(over(1), 2, 4),
        told(Call::NotHeld(token(1)), 3, 5),
    ]);
}

#[test]
fn an_unknown_release_may_have_happened_at_any_time_or_never() {
    let begin = [told(acquired(1), 0, 1), untold(over(1), 2)];
    fits(&begin);
    fits(&[&begin[..], &[told(acquired(2), 900, 901)]].concat());
    fits(&[&begin[..], &[told(over(1), 900, 901)]].concat());
    // Not before it was asked for.
    is_broken(&[
        told(acquired(1), 0, 1),
        told(acquired(2), 2, 3),
        untold(over(1), 4),
    ]);
}

#[test]
fn an_unknown_acquire_has_some_token_that_is_above() {
    let begin = [
        told(acquired(3), 0, 1),
        told(over(3), 2, 3),
        untold(Call::AcquiredUntold, 4),
    ];
    fits(&[&begin[..], &[told(Call::Refused, 5, 6)]].concat());
    fits(&[&begin[..], &[told(over(4), 5, 6)]].concat());
    is_broken(&[&begin[..], &[told(over(2), 5, 6)]].concat());
}

#[test]
fn a_restore_brings_back_an_older_state_but_no_older_tokens() {
    let revived = Call::Restored(Some((token(1), holder(1))), 0);
    let begin = [
        told(acquired(1), 0, 1),
        told(over(1), 2, 3),
        told(revived, 4, 4),
    ];
    fits(&[&begin[..], &[told(over(1), 5, 5), told(acquired(2), 6, 7)]].concat());
    is_broken(&[&begin[..], &[told(acquired(2), 6, 7)]].concat());
    let empty = Call::Restored(None, 0);
    is_broken(&[
        told(acquired(5), 0, 1),
        told(empty, 2, 2),
        told(acquired(5), 3, 4),
    ]);
}

#[test]
fn a_search_that_is_too_large_says_so() {
    // Twenty unknown releases in any order, and at the end something that never fits.
    let mut calls: Vec<_> = (1..=20)
        .map(|number| untold(acquired(number), number))
        .collect();
    calls.extend((1..=20).map(|number| untold(over(number), number)));
    calls.push(told(Call::Left, 100, 101));
    assert_eq!(check::<Mutex>(&calls, 1000), Verdict::Undecided);
}

/// Every order of every choice of those that may not have happened.
fn fits_by_trying(calls: &[Span<Call>], done: &mut Vec<bool>, state: &Mutex) -> bool {
    let open = |index: &usize| !done[*index];
    let all: Vec<usize> = (0..calls.len()).filter(open).collect();
    if all.iter().all(|&index| calls[index].to.is_none()) {
        return true;
    }
    all.iter().any(|&index| {
        let is_late = all
            .iter()
            .any(|&other| calls[other].to.is_some_and(|to| to < calls[index].from));
        let Some(after) = (!is_late)
            .then(|| Mutex::step(state, &calls[index].call))
            .flatten()
        else {
            return false;
        };
        done[index] = true;
        let is_found = fits_by_trying(calls, done, &after);
        done[index] = false;
        is_found
    })
}

fn any_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        4 => (1..5_u64).prop_map(acquired),
        4 => (1..5_u64).prop_map(over),
        1 => Just(Call::AcquiredUntold),
        1 => (1..5_u64).prop_map(|number| Call::NotHeld(token(number))),
        1 => Just(Call::Refused),
        1 => Just(Call::Queued),
        1 => Just(Call::Left),
        1 => Just(Call::Restored(None, 0)),
    ]
}

fn any_span() -> impl Strategy<Value = Span<Call>> {
    let when = (
        0..12_u64,
        prop_oneof![4 => (0..8_u64).prop_map(Some), 1 => Just(None)],
    );
    (any_call(), when).prop_map(|(call, (from, takes))| Span {
        call,
        from,
        to: takes.map(|takes| from + takes),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]
    #[test]
    fn it_says_what_trying_every_order_says(calls in proptest::collection::vec(any_span(), 0..7)) {
        let mut done = vec![false; calls.len()];
        let expected = fits_by_trying(&calls, &mut done, &Mutex::default());
        prop_assert_eq!(verdict(&calls) == Verdict::Fits, expected);
    }
}
