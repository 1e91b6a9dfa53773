//! What every store must do, as tests that every implementation runs.
//!
//! A store's tests give a [`Harness`] and call [`run`]. Every case has a state of its own, so all of
//! them run at once: those that wait for sessions to end wait together.
#![allow(
    clippy::unwrap_used,
    reason = "these are tests, though the build does not know them as such"
)]

mod client;
mod delays;
mod endings;
mod history;
mod leases;
mod news;
mod queues;
mod sessions;
mod streams;
mod views;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};

use super::Store;
use crate::clock::Clock;
use crate::domain::Session;
use crate::entropy::{Entropy, SystemEntropy};

pub use client::Client;

/// How many cases run at once: enough that those that wait do so together, few enough that the waits of
/// one are not the work of the others.
const CASES_AT_ONCE: usize = 16;

/// How long past the end of its time a session may be ended (I6), and how long a busy machine may take
/// to show it.
pub const TAKEOVER: Duration = Duration::from_secs(1);

/// What a machine that is busy with other tests may add to any bound.
const SLACK: Duration = Duration::from_secs(2);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Makes states for cases.
#[async_trait]
pub trait Harness: Send + Sync {
    /// An empty state of its own.
    async fn fresh(&self) -> Box<dyn Subject>;
}

/// A state, and coordinators on it.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The first coordinator's store.
    fn store(&self) -> Arc<dyn Store>;

    /// Another coordinator's store on the same state; the same one where there can be only one.
    async fn another(&self) -> Arc<dyn Store>;

    /// Ends all coordinators as a crash would, and starts one anew on what is durable. `None` where
    /// nothing is.
    async fn restart(&mut self) -> Option<Arc<dyn Store>>;

    /// The clock that the store lives by.
    fn clock(&self) -> Arc<dyn Clock>;
}

/// What a case is given.
pub(crate) struct Fixture {
    subject: Box<dyn Subject>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// Tells the sessions of this case from those of others, and of other runs, on one etcd.
    scope: String,
}

impl Fixture {
    /// Long enough that no session of a case ends by itself.
    const LONG: Duration = Duration::from_secs(120);

    /// What a session of this case that outlives it is opened with.
    fn session(&self, name: &str) -> Session {
        Client::session(&format!("{}.{name}", self.scope), Self::LONG)
    }

    /// A session that outlives the case.
    async fn client(&self, name: &str) -> Client {
        Client::open(&self.store, &format!("{}.{name}", self.scope), Self::LONG).await
    }

    /// A session that ends as soon as the store can make it.
    async fn short_lived(&self, name: &str) -> Client {
        let ttl = self.store.least_ttl();
        Client::open(&self.store, &format!("{}.{name}", self.scope), ttl).await
    }

    /// Looks until something is so.
    ///
    /// # Panics
    /// When it is not so after `limit` and the slack of a busy machine.
    async fn eventually<F: Future<Output = bool>>(
        &self,
        what: &str,
        limit: Duration,
        look: impl Fn() -> F,
    ) {
        let end = self.clock.now().after(limit).after(SLACK);
        while !look().await {
            assert!(self.clock.now() < end, "not within {limit:?}: {what}");
            self.clock.sleep(LOOK_EVERY).await;
        }
    }
}

type Case = fn(Fixture) -> BoxFuture<'static, ()>;

macro_rules! cases {
    ($($module:ident: $($case:ident),+;)+) => {
        &[$($((
            concat!(stringify!($module), "::", stringify!($case)),
            |fixture| $module::$case(fixture).boxed(),
        )),+),+]
    };
}

const CASES: &[(&str, Case)] = cases! {
    sessions: opening_again_finds_the_session, another_secret_opens_nothing,
        sessions_that_never_were, strangers_are_refused_and_change_nothing,
        a_closed_session_is_over, an_older_epoch_is_refused, a_retry_needs_a_larger_epoch;
    leases: a_free_resource_is_granted, a_held_resource_is_refused,
        the_same_request_has_one_token, a_second_request_is_told_of_the_first,
        metadata_belongs_to_the_request, release_by_token, release_by_request,
        tokens_of_others_release_nothing, tokens_grow, racing_requests_have_one_winner,
        a_call_given_up_can_be_made_again;
    streams: a_newer_stream_supersedes, attaching_again_finds_the_mark,
        a_raised_mark_shuts_out_copies, calls_beside_a_stream, holdings_are_found;
    queues: waiters_are_served_in_order, a_try_takes_no_place, a_try_gives_the_place_back,
        a_request_waits_in_one_place, a_refused_request_is_not_served_later,
        a_place_can_be_left, waiters_are_limited,
        release_hands_over, a_closed_session_leaves_its_places,
        a_closed_session_hands_over, another_coordinator_promotes;
    views: pages_by_prefix, a_queue_is_listed_in_order, a_snapshot_is_of_one_revision,
        a_store_tells_how_it_stands, a_store_that_works_is_ready;
    news: a_watch_shows_what_happens, a_hand_over_tells_how_the_lease_before_ended,
        a_watch_tells_the_dead_from_the_released, an_operator_ends_a_lease,
        a_holder_is_asked_for_its_lease;
    delays: a_release_leaves_no_delay, an_unclean_end_closes_the_resource,
        waiters_wait_for_the_delay, a_delay_survives_a_restart, a_revocation_closes_the_resource,
        an_heir_by_revocation_has_its_own_delay;
    endings: a_session_ends_when_it_is_not_renewed, a_renewed_session_lives,
        the_dead_hand_over, dead_waiters_are_skipped;
    history: a_new_generation_is_above, a_generation_starts_past_a_token,
        a_token_far_ahead_is_refused, a_new_generation_ends_no_lease,
        a_restart_keeps_leases_and_places, tokens_grow_through_restarts;
};

/// Runs all cases on states of a harness.
///
/// # Panics
/// When a case fails, after all have run; the names of those that failed are in the message.
pub async fn run(harness: &dyn Harness) {
    let results = stream::iter(CASES)
        .map(|(name, case)| async move {
            let subject = harness.fresh().await;
            let fixture = Fixture {
                store: subject.store(),
                clock: subject.clock(),
                scope: hex::encode(SystemEntropy.nonce().as_bytes()),
                subject,
            };
            let result = AssertUnwindSafe(case(fixture)).catch_unwind().await;
            result.is_err().then_some(*name)
        })
        .buffer_unordered(CASES_AT_ONCE);
    let failed: Vec<_> = results
        .filter_map(|name| async move { name })
        .collect()
        .await;
    assert!(
        failed.is_empty(),
        "{} of {} cases failed: {failed:?}",
        failed.len(),
        CASES.len()
    );
}
