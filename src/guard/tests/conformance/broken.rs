//! Stores without a check, for which the suite must fail.

use std::time::Duration;

use palisade_guard::conformance::{Subject, verdicts};

/// In vain: a busy machine does not need as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Long enough for what waits to be waiting.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

#[allow(
    clippy::disallowed_methods,
    reason = "the suite asks its subject for the passing of time"
)]
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// How the check of a store is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Not at all.
    Whole,
    /// The store itself asks for nothing; those who use the guard are checked.
    NotByTheStore,
    /// Each write is checked, and then made in a transaction that is not.
    BeforeTheWrite,
    /// A seal, and plain transactions.
    Never,
}

/// What a store that asks for nothing lets pass.
pub(crate) const BYPASSED: &[&str] = &[
    "another_holder_collides",
    "unsealed_is_refused",
    "unguarded_is_refused",
    "one_entry_does_not_cover_another_resource",
];

/// What a store that is not checked lets pass, whatever it locks.
pub(crate) const UNCHECKED: &[&str] = &[
    "stale_is_refused",
    "stale_kills_every_clone",
    "same_token_of_two_resources",
    "one_stale_resource_stops_the_whole_write",
    "a_seal_given_up_blocks_nobody",
    "a_restart_keeps_the_fence",
    "a_restore_is_noticed",
    "a_restore_to_before_the_first_seal_is_noticed",
    "a_restore_and_another_holder_collide",
    "deleted_data_leaves_the_fence",
];

/// What a store lets pass that is checked too early.
pub(crate) const CHECKED_EARLY: &[&str] =
    &["a_writer_that_has_only_begun_writes_before_the_seal_returns_or_never"];

/// What a store lets pass whose writers do not lock either.
pub(crate) const UNLOCKED: &[&str] = &[
    "a_running_writer_commits_before_the_seal_returns_or_never",
    "a_writer_that_has_only_begun_writes_before_the_seal_returns_or_never",
    "a_running_writer_of_several_resources_holds_each_seal",
];

/// Runs these cases on a store that is broken on purpose: it must fail every one of them.
pub(crate) async fn fails<S: Subject>(fresh: impl AsyncFn() -> S, cases: &[&[&str]]) {
    let cases = cases.concat();
    let seen = verdicts(fresh, |case| cases.contains(&case)).await;
    assert_eq!(
        seen.len(),
        cases.len(),
        "each names a case, once: {cases:?}"
    );
    let passed: Vec<_> = seen.iter().filter(|seen| seen.failure.is_none()).collect();
    assert!(passed.is_empty(), "a broken store passed {passed:#?}");
}
