//! Acquire, release and promotion: look, decide, and one transaction that compares what was decided on.
//!
//! The first look is a guess by what this coordinator remembers. Where the transaction finds it wrong, it
//! looks instead of writing, and the next step is decided on that: a step costs one commit when nobody
//! interferes, and nothing is ever decided on a guess but what the log then compares.

use std::sync::Arc;

use palisade_token::ResourceName;
use tracing::warn;

use super::EtcdStore;
use super::codec::{self, SeenSession, Stored};
use super::effort::{Effort, Taken};
use super::known::Listed;
use super::link::{Committed, Link};
use super::step;
use super::view::{self, Sight, Source, Spot, Subject};
use crate::domain::{
    Acquire, AcquireStep, Acquired, Claim, Generation, GrantNote, Hold, LeaseEnd, Place, Previous,
    PromoteStep, Refusal, Release, ReleaseStep, Released, RequestId, Revision, SessionId,
    decide_acquire, decide_promotion, decide_release,
};
use crate::store::{Failure, StoreError};

/// How often an operation looks again after another one was faster. Each time somebody else got on, so
/// this many in a row mean a load that had better be pushed back.
const ROUNDS: usize = 128;

fn contended() -> StoreError {
    StoreError::not_applied(Failure::Unavailable)
}

/// Refuses what would fill etcd further where it has no space.
fn unless_full(link: &Link, step: AcquireStep) -> Result<AcquireStep, StoreError> {
    match step {
        AcquireStep::Grant { .. } | AcquireStep::Enqueue(_) if link.is_full() => {
            Err(StoreError::not_applied(Failure::NoSpace))
        }
        step => Ok(step),
    }
}

impl EtcdStore {
    pub(super) async fn do_acquire(&self, acquire: &Acquire) -> Result<Acquired, StoreError> {
        let (resource, request) = (&acquire.resource, &acquire.request);
        let mut effort = Effort::new(Subject {
            resource,
            session: Some(acquire.caller.session),
            request: Some(request),
        });
        let mut acquire = acquire.clone();
        for _ in 0..ROUNDS {
            let link = self.links.get().await?;
            let generation = link.generation().await?;
            let sight = effort.look(&link).await?;
            let decided = decide_acquire(&sight.view, &acquire);
            if sight.source == Source::Guess
                && matches!(decided, Err(_) | Ok(AcquireStep::Answer(_)))
            {
                effort.stop_guessing();
                continue;
            }
            let step = unless_full(&link, decided?)?;
            let Some(session) = &sight.session else {
                return Err(session_ended(acquire.caller.session));
            };
            match step {
                AcquireStep::Answer(answer) => return Ok(answer),
                AcquireStep::Raise(mark) => {
                    if effort.raise(&link, session, mark).await? {
                        acquire.caller = acquire.caller.having_raised();
                    }
                }
                AcquireStep::Leave(place) => {
                    let spot = sight.spot(&link.context().keys, &place);
                    let step = step::leave(&spot, session);
                    if let Taken::Applied(..) = effort.take(&link, step).await? {
                        link.known().left(&spot);
                        effort.stop_guessing();
                    }
                }
                AcquireStep::Grant { .. } | AcquireStep::Enqueue(_)
                    if !is_current(&sight, &generation) =>
                {
                    effort.stop_guessing();
                }
                AcquireStep::BeginDelay(_) => {
                    let begun = self.begin_delay(&mut effort, &link, resource, &sight);
                    Box::pin(begun).await?;
                }
                AcquireStep::Grant { claim, place } => {
                    let left = sight.left.as_ref().map(|left| left.last.previous());
                    let note = note(&link, left.or_else(|| acquire.previous.clone()));
                    let hold = about_to_hold(claim, generation.record, note);
                    let given = (hold, place, &**session);
                    let told = self.grant(&mut effort, &link, &sight, &generation, given);
                    if let Some(told) = told.await? {
                        return Ok(told);
                    }
                }
                AcquireStep::Enqueue(claim) => {
                    let place = enqueue(&mut effort, &link, &sight, session, claim).await?;
                    if let Some(place) = place {
                        return Ok(Acquired::Queued(place));
                    }
                }
            }
        }
        Err(contended())
    }

    /// Grants, if everything is as it was seen.
    async fn grant(
        &self,
        effort: &mut Effort<'_>,
        link: &Arc<Link>,
        sight: &Sight,
        generation: &Stored<Generation>,
        (hold, place, session): (Stored<Hold>, Option<Place>, &SeenSession),
    ) -> Result<Option<Acquired>, StoreError> {
        let keys = &link.context().keys;
        let spot = place.map(|place| sight.spot(keys, &place));
        let spot = spot.as_ref();
        let step = step::grant(keys, sight, session, generation, &hold, spot);
        let Taken::Applied(committed, listed) = effort.take(link, step).await? else {
            return Ok(None);
        };
        let done = (committed, listed);
        let told = self.tell_granted(link, hold, spot, done).await?;
        if let Acquired::Held(hold) = &told {
            self.note_granted(hold, Some(&session.record.principal));
        }
        Ok(Some(told))
    }

    /// A grant that is in the log, unless the reply shows that history went backwards.
    async fn tell_granted(
        &self,
        link: &Link,
        mut hold: Stored<Hold>,
        spot: Option<&Spot>,
        (committed, listed): (Committed, Option<Listed>),
    ) -> Result<Acquired, StoreError> {
        hold.record.granted = committed.reached.revision;
        if committed.is_regress || hold.record.token().is_none() {
            let error = StoreError::not_applied(Failure::HistoryRegressed);
            return Err(match Box::pin(self.give_back(&hold)).await {
                true => error,
                false => error.or_happened(),
            });
        }
        let granted = hold.record.clone();
        link.known().granted(hold, spot, listed.as_ref());
        Ok(Acquired::Held(granted))
    }

    /// Ends a lease whose grant is not told; false where that is left to its session's end (I5).
    pub(super) async fn give_back(&self, stored: &Stored<Hold>) -> bool {
        let hold = &stored.record;
        let given_back = async {
            let link = self.links.get().await?;
            let keys = &link.context().keys;
            let delete = etcd_client::TxnOp::delete(keys.lease(&hold.claim.resource), None);
            let compares = view::is_held_as(keys, stored).into();
            link.write(compares, vec![delete]).await
        };
        match given_back.await {
            Ok(_) => {
                warn!(resource = %hold.claim.resource, "a grant that cannot be told was given back");
                true
            }
            Err(error) => {
                warn!(resource = %hold.claim.resource, %error, "a grant that cannot be told is left to its session's end");
                false
            }
        }
    }

    /// The lease that a hand-over granted; one whose reply shows that history went backwards is given back.
    async fn promoted(
        &self,
        link: &Link,
        spot: &Spot,
        mut hold: Stored<Hold>,
        (committed, listed): (Committed, Option<Listed>),
    ) -> Option<Hold> {
        hold.record.granted = committed.reached.revision;
        if committed.is_regress || hold.record.token().is_none() {
            Box::pin(self.give_back(&hold)).await;
            return None;
        }
        let granted = hold.record.clone();
        link.known().granted(hold, Some(spot), listed.as_ref());
        self.note_granted(&granted, None);
        Some(granted)
    }

    pub(super) async fn do_release(&self, release: &Release) -> Result<Released, StoreError> {
        let mut release = release.clone();
        let resource = release.resource.clone();
        let request = release.request().cloned();
        let mut effort = Effort::new(Subject {
            resource: &resource,
            session: Some(release.caller.session),
            request: request.as_ref(),
        });
        for _ in 0..ROUNDS {
            let link = self.links.get().await?;
            let sight = effort.look(&link).await?;
            let decided = decide_release(&sight.view, &release);
            if sight.source == Source::Guess
                && matches!(decided, Err(_) | Ok(ReleaseStep::Answer(_)))
            {
                effort.stop_guessing();
                continue;
            }
            let Some(session) = &sight.session else {
                return Err(session_ended(release.caller.session));
            };
            // What a read shows may be stale: the log decides what ends a request.
            let ends_it = sight.source == Source::Read
                && matches!(
                    decided,
                    Err(Refusal::StaleToken { .. }) | Ok(ReleaseStep::Answer(_))
                );
            let keys = &link.context().keys;
            if ends_it
                && !Box::pin(link.confirm_in_log(step::is_as_seen(keys, &sight, &release))).await?
            {
                continue;
            }
            match decided? {
                ReleaseStep::Answer(answer) => return Ok(answer),
                ReleaseStep::Raise(mark) => {
                    if effort.raise(&link, session, mark).await? {
                        release.caller = release.caller.having_raised();
                    }
                }
                ReleaseStep::Leave(place) => {
                    let spot = sight.spot(keys, &place);
                    let step = step::leave(&spot, session);
                    if let Taken::Applied(committed, _) = effort.take(&link, step).await? {
                        link.known().left(&spot);
                        let ended = committed.reached.revision;
                        return Ok(Released::Place { ended });
                    }
                }
                ReleaseStep::End { hold, successor } => {
                    let ending = (&sight, hold, successor);
                    if let Some(released) = self.end(&mut effort, &link, ending, session).await? {
                        return Ok(released);
                    }
                }
            }
        }
        Err(contended())
    }

    /// Ends a lease that was seen, if it is as it was seen.
    async fn end(
        &self,
        effort: &mut Effort<'_>,
        link: &Arc<Link>,
        (sight, hold, successor): (&Sight, Hold, Option<Place>),
        session: &SeenSession,
    ) -> Result<Option<Released>, StoreError> {
        let previous = Previous::of(&hold, LeaseEnd::Released, "");
        let heir = heir(link, sight, successor, previous);
        let named = heir.as_ref().map(|(spot, hold)| (spot, hold));
        let Some(step) = step::end(&link.context().keys, sight, named, session) else {
            return Ok(None);
        };
        let Taken::Applied(committed, listed) = effort.take(link, step).await? else {
            return Ok(None);
        };
        let ended = committed.reached.revision;
        let owner = Some(&session.record.principal);
        self.note_ended(&hold, owner, (LeaseEnd::Released, ended));
        let done = (committed, listed);
        let successor = self.ended(link, &hold, heir, done).await.map(Box::new);
        Ok(Some(Released::Lease {
            hold,
            ended,
            successor,
        }))
    }

    /// What the end of a lease came to for the one who waited, if anybody did.
    pub(super) async fn ended(
        &self,
        link: &Link,
        hold: &Hold,
        heir: Option<(Spot, Stored<Hold>)>,
        done: (Committed, Option<Listed>),
    ) -> Option<Hold> {
        match heir {
            Some((spot, hold)) => self.promoted(link, &spot, hold, done).await,
            None => {
                link.known().vacated(&hold.claim.resource);
                None
            }
        }
    }

    pub(super) async fn do_promote(
        &self,
        resource: &ResourceName,
    ) -> Result<Option<Hold>, StoreError> {
        let mut effort = Effort::new(Subject {
            resource,
            session: None,
            request: None,
        });
        for _ in 0..ROUNDS {
            let link = self.links.get().await?;
            let generation = link.generation().await?;
            let sight = effort.look(&link).await?;
            let place = match decide_promotion(&sight.view) {
                PromoteStep::Nothing => return Ok(None),
                PromoteStep::BeginDelay(_) => {
                    let begun = self.begin_delay(&mut effort, &link, resource, &sight);
                    Box::pin(begun).await?;
                    continue;
                }
                PromoteStep::Grant(place) => place,
            };
            let left = sight.left.as_ref().map(|left| left.last.previous());
            let hold = about_to_hold(place.claim.clone(), generation.record, note(&link, left));
            let keys = &link.context().keys;
            let spot = sight.spot(keys, place);
            let step = step::promote(keys, &sight, &generation, (&spot, &hold));
            if let Taken::Applied(committed, listed) = effort.take(&link, step).await? {
                let done = (committed, listed);
                return Ok(self.promoted(&link, &spot, hold, done).await);
            }
        }
        Err(contended())
    }

    pub(super) async fn do_standing(
        &self,
        session: SessionId,
        resource: &ResourceName,
        request: &RequestId,
    ) -> Result<Option<Acquired>, StoreError> {
        let link = self.links.get().await?;
        let (hold, place) = view::standing(&link, resource, session, request).await?;
        Ok(match hold {
            Some(hold) if hold.claim.is_of(session, request) => Some(Acquired::Held(hold)),
            _ => place.map(Acquired::Queued),
        })
    }
}

fn session_ended(session: SessionId) -> StoreError {
    Refusal::SessionEnded { session }.into()
}

/// Takes a place in the queue, if everything is as it was seen.
async fn enqueue(
    effort: &mut Effort<'_>,
    link: &Arc<Link>,
    sight: &Sight,
    session: &SeenSession,
    claim: Claim,
) -> Result<Option<Place>, StoreError> {
    let keys = &link.context().keys;
    let key = step::place_key(keys, sight, &claim);
    let step = step::enqueue(keys, sight, session, &claim);
    let Taken::Applied(committed, _) = effort.take(link, step).await? else {
        return Ok(None);
    };
    let since = committed.reached.revision;
    let place = Place { claim, since };
    let spot = Spot { place, key };
    link.known().queued(&spot);
    Ok(Some(spot.place))
}

/// Whether what was seen can be granted under the generation that the connection may grant under.
fn is_current(sight: &Sight, generation: &Stored<Generation>) -> bool {
    let seen = sight.generation.as_ref();
    seen.is_some_and(|seen| seen.raw == generation.raw)
}

/// A lease that a transaction is about to grant: its revision is that transaction's.
pub(super) fn about_to_hold(claim: Claim, generation: Generation, note: GrantNote) -> Stored<Hold> {
    let record = Hold {
        claim,
        generation,
        granted: Revision::default(),
        note,
    };
    let raw = codec::hold_value(&record).into();
    Stored { record, raw }
}

fn note(link: &Link, previous: Option<Previous>) -> GrantNote {
    GrantNote::at(link.context().clock.wall(), previous)
}

/// The lease that the head of a queue is about to be granted. `None` where nobody waits, and where no
/// generation is trusted: then nobody is promoted, and the head is granted the resource later.
pub(super) fn heir(
    link: &Link,
    sight: &Sight,
    head: Option<Place>,
    previous: Previous,
) -> Option<(Spot, Stored<Hold>)> {
    let generation = sight.generation.as_ref()?.record;
    let spot = sight.spot(&link.context().keys, &head?);
    let claim = spot.place.claim.clone();
    let hold = about_to_hold(claim, generation, note(link, Some(previous)));
    Some((spot, hold))
}
