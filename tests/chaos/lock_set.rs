//! The workload by which fencing is judged, in its bounded form: `tests/chaos/lock-set`.

use std::process::Command;

/// Both workloads at once, each with the guard and under the lease alone: one row each, its holder, and two who wait.
const BOUNDED: [&str; 4] = ["--rows=1", "--workers=3", "--seconds=8", "--seed=7"];

fn lock_set(args: &[&str], more: &[&str]) -> (Option<i32>, String) {
    let mut field = Command::new(env!("CARGO_BIN_EXE_palisade-chaos"));
    field.arg("lock-set").args(args);
    let done = field.args(more).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    (
        done.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// The program says no unless the first loses nothing and the second loses something (I2, I14).
#[test]
fn the_guard_loses_nothing_where_the_lease_alone_does() {
    let (code, said) = lock_set(&BOUNDED, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("=> held").count(), 2, "{said}");
}

/// Sets committed without the guard's check, payments without their key: were it so in the guard, it would be seen.
#[test]
fn a_guard_that_checked_nothing_would_be_found() {
    let (code, said) = lock_set(&BOUNDED, &["--plant"]);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(said.matches("=> VIOLATION").count(), 2, "{said}");
}

#[test]
fn arguments_that_do_not_go_together_are_refused() {
    let (code, said) = lock_set(&["--workers=1"], &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--workers must be at least 2"), "{said}");
}
