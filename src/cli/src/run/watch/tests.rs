use std::time::Duration;

use palisade_client::Moment;

use super::{Act, Watch, Why};

const GRACE: Duration = Duration::from_secs(2);

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(seconds))
}

fn watch() -> Watch {
    Watch::new(at(10), GRACE)
}

/// What it does at each of these seconds.
fn acts(watch: &mut Watch, seconds: impl IntoIterator<Item = u64>) -> Vec<Option<Act>> {
    seconds
        .into_iter()
        .map(|second| watch.decide(at(second)))
        .collect()
}

#[test]
fn without_news_it_terminates_a_grace_before_the_deadline_and_kills_at_it() {
    let mut watch = watch();
    assert_eq!(watch.wake(), at(8));
    let acts = acts(&mut watch, [0, 7, 8, 9, 10, 11]);
    let (term, kill) = (Some(Act::Terminate), Some(Act::Kill));
    assert_eq!(acts, [None, None, term, None, kill, kill]);
    assert_eq!((watch.why(), watch.wake()), (Some(Why::Deadline), at(10)));
}

#[test]
fn renewals_keep_it_running() {
    let mut watch = watch();
    for second in (5..100).step_by(5) {
        assert_eq!(watch.decide(at(second)), None);
        watch.renewed(at(second), at(second + 10));
    }
    assert_eq!(watch.wake(), at(103));
}

#[test]
fn one_that_wakes_too_late_kills_at_once() {
    assert_eq!(watch().decide(at(10)), Some(Act::Kill));
    assert_eq!(watch().decide(at(1_000)), Some(Act::Kill));
}

#[test]
fn what_has_begun_is_not_taken_back_by_a_renewal() {
    let mut watch = watch();
    assert_eq!(watch.decide(at(8)), Some(Act::Terminate));
    watch.renewed(at(9), at(19));
    assert_eq!(watch.decide(at(10)), Some(Act::Kill));
}

#[test]
fn a_renewal_that_comes_after_the_deadline_counts_for_nothing() {
    let mut watch = watch();
    watch.renewed(at(10), at(20));
    assert_eq!(watch.decide(at(10)), Some(Act::Kill));
}

#[test]
fn an_older_deadline_does_not_shorten_a_newer_one() {
    let mut watch = watch();
    watch.renewed(at(1), at(9));
    assert_eq!(watch.wake(), at(8));
}

#[test]
fn an_orphan_is_terminated_at_once_and_killed_after_the_grace() {
    let mut watch = watch();
    watch.orphaned(at(3));
    let (term, kill) = (Some(Act::Terminate), Some(Act::Kill));
    assert_eq!(acts(&mut watch, [3, 4, 5]), [term, None, kill]);
    assert_eq!(watch.why(), Some(Why::Orphaned));
}

#[test]
fn no_reason_to_end_moves_the_kill_beyond_the_deadline() {
    let late = at(1_000);
    let reasons: [fn(&mut Watch); 3] = [
        |watch| watch.asked(at(1_000)),
        |watch| watch.orphaned(at(9)),
        |watch| watch.finished(at(9)),
    ];
    for reason in reasons {
        let mut watch = watch();
        reason(&mut watch);
        assert_eq!(watch.wake(), at(10));
        assert_eq!(watch.decide(at(10)), Some(Act::Kill));
        watch.asked(late);
        assert_eq!(watch.wake(), at(10));
    }
}

#[test]
fn the_earliest_time_to_kill_counts_and_a_loss_is_told_before_an_end() {
    let mut watch = watch();
    watch.finished(at(1));
    assert_eq!(watch.decide(at(1)), Some(Act::Terminate));
    watch.asked(at(2));
    assert_eq!(watch.why(), Some(Why::Asked));
    assert_eq!(watch.decide(at(2)), Some(Act::Kill));
    watch.orphaned(at(2));
    assert_eq!(watch.why(), Some(Why::Asked), "the first loss stays");
}

#[test]
fn a_grace_longer_than_what_is_left_terminates_at_once() {
    let mut watch = Watch::new(at(1), GRACE);
    assert_eq!(watch.decide(at(0)), Some(Act::Terminate));
    assert_eq!(watch.decide(at(1)), Some(Act::Kill));
}
