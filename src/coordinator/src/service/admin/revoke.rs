//! Revocation: first the holder is asked, then it is forced.

use std::time::Duration;

use palisade_api::v1::{RevokeLeaseRequest, RevokeLeaseResponse, RevokeOutcome};
use tonic::Request;
use tracing::warn;

use super::{Admin, parse};
use crate::access::Verb;
use crate::clock::Moment;
use crate::domain::{AskBack, Ended, Event, LeaseEnd, Principal, Revision, Revoke, Revoked};
use crate::service::deadline::{Deadline, Kind};
use crate::service::error::{About, CallError};
use crate::service::news::{WatchNews, WatchSubscription};
use crate::service::parse::{millis, resource, token};
use crate::service::reply;

/// How often the store is looked at while a holder is asked, in case news of its end is missed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// News of one resource that may wait meanwhile.
const BACKLOG: usize = 256;

/// What asking came to.
enum Asked {
    /// The lease had ended before it was asked for.
    Before,
    /// The lease has ended.
    Ended(Option<Ended>),
    /// It has to be forced.
    Not,
}

/// What news say.
enum Heard {
    Ended(Ended),
    Declined,
}

impl Admin {
    pub(super) async fn try_revoke(
        &self,
        request: Request<RevokeLeaseRequest>,
        about: &mut About,
    ) -> Result<RevokeLeaseResponse, CallError> {
        let (headers, extensions, given) = request.into_parts();
        let (principal, _counted) = self.service.begin(&headers, &extensions)?;
        let patience = parse::cooperative("cooperative_ms", given.cooperative_ms)?;
        let deadline = self.service.deadline(&headers, patience)?;
        let resource = resource("resource", &given.resource)?;
        about.resource = Some(resource.clone());
        let token = token("token", given.token)?;
        let (reason, actor) = parse::why(&given.reason, &given.actor)?;
        self.service
            .access
            .check(&principal, Verb::Admin, &resource)?;
        warn!(principal = Principal::name(&principal), %actor, %reason, %resource, %token, ?patience,
            "an operator revokes a lease");
        let revoke = Revoke {
            resource,
            token,
            reason: reason.to_owned(),
            actor: actor.to_owned(),
            principal,
        };
        if patience.is_zero() {
            return self.force(&revoke, &deadline, false).await;
        }
        match self.ask(&revoke, patience, &deadline).await? {
            Asked::Before => Ok(self.ended_before(&revoke, false)),
            Asked::Ended(None) => Ok(self.ended_before(&revoke, true)),
            Asked::Ended(Some(ended)) => Ok(told(&ended)),
            Asked::Not => self.force(&revoke, &deadline, true).await,
        }
    }

    /// Asks the holder, and waits until it has released, has declined, or its time is over.
    async fn ask(
        &self,
        revoke: &Revoke,
        patience: Duration,
        deadline: &Deadline,
    ) -> Result<Asked, CallError> {
        let leases = &self.service.leases;
        // From before it is asked: a holder may be quick.
        let news = leases.news.subscribe_from_now(&revoke.resource, BACKLOG);
        let ask = AskBack {
            revoke: revoke.clone(),
            left_ms: millis(patience),
        };
        let asked = deadline.run(Kind::Write, leases.store.ask_back(&ask));
        if !asked.await? {
            return Ok(Asked::Before);
        }
        let until = leases.clock.now().after(patience);
        self.wait(revoke, &news, until, deadline).await
    }

    async fn wait(
        &self,
        revoke: &Revoke,
        news: &WatchSubscription,
        until: Moment,
        deadline: &Deadline,
    ) -> Result<Asked, CallError> {
        let leases = &self.service.leases;
        let mut listens = true;
        let mut end = None;
        loop {
            let left = leases.clock.now().until(until);
            if left.is_zero() {
                return Ok(Asked::Not);
            }
            tokio::select! {
                biased;
                told = news.next(), if listens => match told {
                    Some(WatchNews::Batch(batch)) => match heard(&batch, revoke) {
                        Some(Heard::Ended(ended)) => end = Some(ended),
                        Some(Heard::Declined) => return Ok(Asked::Not),
                        None => continue,
                    },
                    Some(WatchNews::Resync) => {}
                    None => listens = false,
                },
                () = leases.clock.sleep(left.min(LOOK_EVERY)) => {}
            }
            // News may be late, and from before a restore that has brought the lease back.
            let standing = match leases.lease(&revoke.resource, deadline).await {
                Ok(standing) => standing,
                // It is looked at again, for as long as the holder may take.
                Err(_) if end.is_some() => {
                    listens = false;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let current = standing.hold.and_then(|hold| hold.token());
            if current != Some(revoke.token) {
                return Ok(Asked::Ended(end));
            }
            end = None;
        }
    }

    async fn force(
        &self,
        revoke: &Revoke,
        deadline: &Deadline,
        was_asked: bool,
    ) -> Result<RevokeLeaseResponse, CallError> {
        let leases = &self.service.leases;
        let forced = deadline.run(Kind::Write, leases.store.revoke(revoke));
        match forced.await? {
            Revoked::Lease { hold, ended } => {
                let end = LeaseEnd::Revoked;
                leases.news.note_end(&hold, end, ended, &revoke.reason);
                Ok(outcome(RevokeOutcome::Revoked, Some(end), ended))
            }
            Revoked::NotHeld => Ok(self.ended_before(revoke, was_asked)),
        }
    }

    /// The lease has ended, as far as is known by what was heard of it.
    fn ended_before(&self, revoke: &Revoke, was_asked: bool) -> RevokeLeaseResponse {
        let known = self.service.leases.news.last_end(&revoke.resource);
        let known = known.filter(|ended| ended.token() == Some(revoke.token));
        match known {
            Some(ended) if was_asked => told(&ended),
            Some(ended) => outcome(RevokeOutcome::NotHeld, ended.end, Revision::default()),
            None => outcome(RevokeOutcome::NotHeld, None, Revision::default()),
        }
    }
}

/// What the news of the resource mean for a lease that is asked for.
fn heard(batch: &[Event], revoke: &Revoke) -> Option<Heard> {
    batch.iter().find_map(|event| match event {
        Event::Ended(ended) if ended.resource == revoke.resource => {
            let is_other = ended.token().is_some_and(|token| token != revoke.token);
            (!is_other).then(|| Heard::Ended(ended.clone()))
        }
        Event::Declined { resource, .. } if *resource == revoke.resource => Some(Heard::Declined),
        _ => None,
    })
}

/// How a lease ended whose holder was asked.
fn told(ended: &Ended) -> RevokeLeaseResponse {
    let how = match ended.end {
        Some(LeaseEnd::Released) => RevokeOutcome::Released,
        Some(LeaseEnd::Revoked) => RevokeOutcome::Revoked,
        Some(LeaseEnd::Expired) | None => RevokeOutcome::NotHeld,
    };
    outcome(how, ended.end, ended.revision)
}

fn outcome(
    outcome: RevokeOutcome,
    end: Option<LeaseEnd>,
    revision: Revision,
) -> RevokeLeaseResponse {
    RevokeLeaseResponse {
        outcome: outcome.into(),
        end: reply::end(end).into(),
        revision: reply::signed(revision.0),
    }
}
