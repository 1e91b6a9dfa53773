use std::time::Duration;

use super::{CANNOT_EXECUTE, Cause, Course, Mode, NOT_FOUND, Next, Run};

const CAUSES: [Cause; 4] = [
    Cause::Lost,
    Cause::NotRenewed,
    Cause::Wanted,
    Cause::Unguarded,
];

fn ended(code: u8) -> Run {
    Run {
        code,
        cause: None,
        is_empty: true,
        was_told_to_end: false,
        ran: Duration::ZERO,
    }
}

fn caused(cause: Cause) -> Run {
    Run {
        cause: Some(cause),
        ..ended(143)
    }
}

fn after(mode: Mode, run: Run, is_held: bool) -> Next {
    Course::default().after(mode, run, is_held)
}

#[test]
fn once_passes_the_code_on_whether_the_lease_still_stands_or_not() {
    for code in [0, 1, 3, 127, 143] {
        for is_held in [true, false] {
            assert_eq!(after(Mode::Once, ended(code), is_held), Next::Exit(code));
        }
    }
}

#[test]
fn once_says_what_ended_the_command() {
    for cause in CAUSES {
        let expected = match cause {
            Cause::Unguarded => Next::Unguarded,
            cause => Next::Lost(cause),
        };
        assert_eq!(after(Mode::Once, caused(cause), true), expected);
    }
}

#[test]
fn restart_starts_again_while_it_holds_and_acquires_when_it_does_not() {
    let again = Next::Again(Duration::from_millis(500));
    assert_eq!(after(Mode::Restart, ended(0), true), again);
    assert_eq!(after(Mode::Restart, ended(1), true), again);
    assert_eq!(after(Mode::Restart, caused(Cause::Unguarded), true), again);
    for cause in CAUSES {
        let next = after(Mode::Restart, caused(cause), false);
        assert_eq!(next, Next::Acquire(cause));
    }
    let next = after(Mode::Restart, ended(0), false);
    assert_eq!(next, Next::Acquire(Cause::Lost));
    let wanted = after(Mode::Restart, caused(Cause::Wanted), true);
    assert_eq!(
        wanted,
        Next::Acquire(Cause::Wanted),
        "it is given back first"
    );
}

#[test]
fn what_was_told_to_end_or_cannot_be_started_is_not_started_again() {
    let told = Run {
        was_told_to_end: true,
        ..ended(143)
    };
    assert_eq!(after(Mode::Restart, told, true), Next::Exit(143));
    for code in [CANNOT_EXECUTE, NOT_FOUND] {
        assert_eq!(after(Mode::Restart, ended(code), true), Next::Exit(code));
    }
}

#[test]
fn while_somebody_may_be_at_work_nothing_else_follows() {
    for mode in [Mode::Once, Mode::Restart] {
        for cause in [None, Some(Cause::Lost), Some(Cause::Unguarded)] {
            let run = Run {
                cause,
                is_empty: false,
                ..ended(0)
            };
            assert_eq!(after(mode, run, true), Next::Stuck);
        }
    }
}

#[test]
fn pauses_grow_to_their_bound_and_begin_anew_after_a_long_run() {
    let mut course = Course::default();
    let mut pause = |ran| match course.after(Mode::Restart, Run { ran, ..ended(1) }, true) {
        Next::Again(pause) => pause,
        other => panic!("{other:?}"),
    };
    let pauses: Vec<_> = (0..40).map(|_| pause(Duration::from_secs(1))).collect();
    assert!(pauses.is_sorted());
    assert_eq!(pauses[0], Duration::from_millis(500));
    assert_eq!(pauses[39], Duration::from_secs(30));
    assert_eq!(pause(Duration::from_secs(60)), Duration::from_millis(500));
}
