//! Acquire, release and promotion: read, decide, and one transaction that compares what was decided on.

use std::sync::Arc;

use etcd_client::{Compare, CompareOp, TxnOp};
use palisade_token::ResourceName;
use tracing::warn;

use super::EtcdStore;
use super::codec::{self, Stored};
use super::link::{Committed, Link};
use super::view::{self, Sight, Subject};
use crate::domain::{
    Acquire, AcquireStep, Acquired, AttachMark, Claim, Generation, GrantNote, Hold, LeaseEnd,
    Place, Previous, Refusal, Release, ReleaseStep, Released, RequestId, Revision, Session,
    SessionId, decide_acquire, decide_promotion, decide_release,
};
use crate::store::{Failure, StoreError};

/// How often an operation looks again after another one was faster. Each time somebody else got on, so
/// this many in a row mean a load that had better be pushed back.
const ROUNDS: usize = 128;

fn contended() -> StoreError {
    StoreError::not_applied(Failure::Unavailable)
}

impl EtcdStore {
    pub(super) async fn do_acquire(&self, acquire: &Acquire) -> Result<Acquired, StoreError> {
        let mut acquire = acquire.clone();
        for _ in 0..ROUNDS {
            let link = self.links.get().await?;
            let generation = link.generation().await?;
            let sight = Sight::of(
                &link,
                Subject {
                    resource: &acquire.resource,
                    session: Some(acquire.caller.session),
                    request: Some(&acquire.request),
                },
            )
            .await?;
            let Some(session) = &sight.session else {
                return Err(Refusal::SessionEnded {
                    session: acquire.caller.session,
                }
                .into());
            };
            let is_current = sight
                .generation
                .as_ref()
                .is_some_and(|now| now.raw == generation.raw);
            let done = match decide_acquire(&sight.view, &acquire)? {
                AcquireStep::Answer(answer) => Some(answer),
                AcquireStep::Raise(mark) => {
                    if raise(&link, session, mark).await? {
                        acquire.caller = acquire.caller.having_raised();
                    }
                    None
                }
                AcquireStep::Leave(place) => {
                    let mark = acquire.caller.mark.map(|_| session);
                    let mark =
                        mark.map(|session| view::is_marked_as(&link.context().keys, session));
                    leave(&link, &place, mark).await?;
                    None
                }
                AcquireStep::Grant { .. } | AcquireStep::Enqueue(_) if !is_current => None,
                AcquireStep::Grant { claim, place } => {
                    let note = note(&link, acquire.previous.clone());
                    let asked = (claim, place);
                    let hold = self.grant(&link, session, &generation, asked, note).await?;
                    hold.map(Acquired::Held)
                }
                AcquireStep::Enqueue(claim) => enqueue(&link, &sight, session, claim)
                    .await?
                    .map(Acquired::Queued),
            };
            if let Some(done) = done {
                return Ok(done);
            }
        }
        Err(contended())
    }

    pub(super) async fn grant(
        &self,
        link: &Arc<Link>,
        session: &Stored<Session>,
        generation: &Stored<Generation>,
        (claim, place): (Claim, Option<Place>),
        note: GrantNote,
    ) -> Result<Option<Hold>, StoreError> {
        let keys = &link.context().keys;
        let mut compares = vec![
            view::is_vacant(keys, &claim.resource),
            view::is_marked_as(keys, session),
            view::is_generation(keys, generation),
        ];
        let mut hold = unwritten(claim, generation, note);
        let resource = &hold.claim.resource;
        let put = TxnOp::put(
            keys.lease(resource),
            codec::hold_value(&hold),
            Some(keys.on_lease(hold.claim.session)),
        );
        let mut writes = vec![put];
        match &place {
            None => compares.push(view::nobody_waits(keys, resource)),
            Some(place) => {
                let key = view::place_key(keys, place);
                compares.push(view::is_queued(key.clone(), place.since));
                compares.push(view::nobody_waits_longer(keys, place));
                writes.push(TxnOp::delete(key, None));
            }
        }
        let Some(committed) = link.write(compares, writes).await? else {
            return Ok(None);
        };
        hold.granted = committed.reached.revision;
        if committed.is_regress || hold.token().is_none() {
            let error = StoreError::not_applied(Failure::HistoryRegressed);
            return Err(match self.give_back(&hold).await {
                true => error,
                false => error.or_happened(),
            });
        }
        Ok(Some(hold))
    }

    /// Ends a lease whose grant is not told; false where that is left to its session's end (I5).
    pub(super) async fn give_back(&self, hold: &Hold) -> bool {
        let given_back = async {
            let link = self.links.get().await?;
            let raw = codec::hold_value(hold);
            let stored = Stored {
                record: hold.clone(),
                raw,
            };
            let keys = &link.context().keys;
            let delete = TxnOp::delete(keys.lease(&hold.claim.resource), None);
            link.write(view::is_held_as(keys, &stored).into(), vec![delete])
                .await
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

    /// A promotion whose reply shows that history went backwards is given back, like a grant.
    pub(super) async fn check_promoted(
        &self,
        place: &Place,
        generation: &Stored<Generation>,
        note: GrantNote,
        committed: Committed,
    ) {
        let hold = Hold {
            granted: committed.reached.revision,
            ..unwritten(place.claim.clone(), generation, note)
        };
        if committed.is_regress || hold.token().is_none() {
            self.give_back(&hold).await;
        }
    }

    pub(super) async fn do_release(&self, release: &Release) -> Result<Released, StoreError> {
        let mut release = release.clone();
        for _ in 0..ROUNDS {
            let link = self.links.get().await?;
            let session = release.caller.session;
            let subject = Subject {
                resource: &release.resource,
                session: Some(session),
                request: release.request(),
            };
            let sight = Sight::of(&link, subject).await?;
            let Some(session) = &sight.session else {
                return Err(Refusal::SessionEnded { session }.into());
            };
            let decided = decide_release(&sight.view, &release);
            // What a read shows may be stale: the log decides what ends a request.
            let ends_it = matches!(
                decided,
                Err(Refusal::StaleToken { .. }) | Ok(ReleaseStep::Answer(_))
            );
            if ends_it
                && !link
                    .confirm_in_log(is_as_seen(&link, &sight, &release))
                    .await?
            {
                continue;
            }
            let done = match decided? {
                ReleaseStep::Answer(answer) => Some(answer),
                ReleaseStep::Raise(mark) => {
                    if raise(&link, session, mark).await? {
                        release.caller = release.caller.having_raised();
                    }
                    None
                }
                ReleaseStep::Leave(place) => {
                    leave(&link, &place, own_mark(&link, session, &release))
                        .await?
                        .map(|committed| Released::Place {
                            ended: committed.reached.revision,
                        })
                }
                ReleaseStep::End { hold, successor } => {
                    let mark = own_mark(&link, session, &release);
                    let previous = Previous::of(&hold, LeaseEnd::Released, "");
                    let note = note(&link, Some(previous));
                    let ended = end(&link, &sight, successor.as_ref(), &note, mark).await?;
                    let promoted = successor.zip(sight.generation).zip(ended);
                    if let Some(((place, generation), committed)) = promoted {
                        self.check_promoted(&place, &generation, note, committed)
                            .await;
                    }
                    ended.map(|committed| Released::Lease {
                        hold,
                        ended: committed.reached.revision,
                    })
                }
            };
            if let Some(done) = done {
                return Ok(done);
            }
        }
        Err(contended())
    }

    pub(super) async fn do_promote(&self, resource: &ResourceName) -> Result<(), StoreError> {
        for _ in 0..ROUNDS {
            let link = self.links.get().await?;
            let generation = link.generation().await?;
            let subject = Subject {
                resource,
                session: None,
                request: None,
            };
            let sight = Sight::of(&link, subject).await?;
            let Some(place) = decide_promotion(&sight.view) else {
                return Ok(());
            };
            let keys = &link.context().keys;
            let mut compares = vec![view::is_vacant(keys, resource)];
            let note = note(&link, None);
            let writes = hand_over(&link, &mut compares, &generation, place, &note);
            if let Some(committed) = link.write(compares, writes).await? {
                self.check_promoted(place, &generation, note, committed)
                    .await;
                return Ok(());
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

/// What a grant made now notes down.
pub(super) fn note(link: &Link, previous: Option<Previous>) -> GrantNote {
    GrantNote::at(link.context().clock.wall(), previous)
}

/// A lease that is about to be granted: its revision is not known yet.
fn unwritten(claim: Claim, generation: &Stored<Generation>, note: GrantNote) -> Hold {
    Hold {
        claim,
        generation: generation.record,
        granted: Revision::default(),
        note,
    }
}

/// That a release has nothing to end: the lease is as it was seen, and no place of the request is there.
pub(super) fn is_as_seen(link: &Link, sight: &Sight, release: &Release) -> Vec<Compare> {
    let keys = &link.context().keys;
    let mut compares = match &sight.hold {
        Some(hold) => Vec::from(view::is_held_as(keys, hold)),
        None => vec![view::is_vacant(keys, &release.resource)],
    };
    compares.extend(release.request().map(|request| {
        let place = keys.place(&release.resource, release.caller.session, request);
        Compare::create_revision(place, CompareOp::Equal, 0)
    }));
    compares
}

/// Raises the mark; false where it is not as it was seen any more.
pub(super) async fn raise(
    link: &Link,
    session: &Stored<Session>,
    mark: AttachMark,
) -> Result<bool, StoreError> {
    let keys = &link.context().keys;
    let raised = Session {
        mark,
        ..session.record.clone()
    };
    let key = keys.session(raised.id);
    let put = TxnOp::put(
        key,
        codec::session_value(&raised),
        Some(keys.on_lease(raised.id)),
    );
    let committed = link
        .write(vec![view::is_marked_as(keys, session)], vec![put])
        .await?;
    Ok(committed.is_some())
}

fn own_mark(link: &Link, session: &Stored<Session>, release: &Release) -> Option<Compare> {
    let is_stream = release.caller.mark.is_some();
    is_stream.then(|| view::is_marked_as(&link.context().keys, session))
}

pub(super) async fn leave(
    link: &Link,
    place: &Place,
    mark: Option<Compare>,
) -> Result<Option<Committed>, StoreError> {
    let key = view::place_key(&link.context().keys, place);
    let mut compares = vec![view::is_queued(key.clone(), place.since)];
    compares.extend(mark);
    link.write(compares, vec![TxnOp::delete(key, None)]).await
}

pub(super) async fn enqueue(
    link: &Link,
    sight: &Sight,
    session: &Stored<Session>,
    claim: Claim,
) -> Result<Option<Place>, StoreError> {
    let keys = &link.context().keys;
    let key = keys.place(&claim.resource, claim.session, &claim.request);
    let mut compares = Vec::new();
    // Joining a queue of a resource that has just become vacant would wait for nobody.
    match (&sight.hold, &sight.view.head) {
        (Some(_), _) => {
            let lease = keys.lease(&claim.resource);
            compares.push(Compare::create_revision(lease, CompareOp::Greater, 0));
        }
        (None, Some(head)) => {
            compares.push(view::is_queued(view::place_key(keys, head), head.since));
        }
        (None, None) => {}
    }
    compares.push(view::is_marked_as(keys, session));
    compares.push(Compare::create_revision(key.clone(), CompareOp::Equal, 0));
    let put = TxnOp::put(
        key,
        codec::place_value(&claim),
        Some(keys.on_lease(claim.session)),
    );
    let committed = link.write(compares, vec![put]).await?;
    Ok(committed.map(|committed| Place {
        claim,
        since: committed.reached.revision,
    }))
}

/// Ends the lease that was seen, and hands the resource over in the same transaction. Without a trusted
/// generation nobody is promoted: the head of the queue is granted the resource later.
pub(super) async fn end(
    link: &Link,
    sight: &Sight,
    successor: Option<&Place>,
    note: &GrantNote,
    mark: Option<Compare>,
) -> Result<Option<Committed>, StoreError> {
    let Some(hold) = &sight.hold else {
        return Ok(None);
    };
    let keys = &link.context().keys;
    let resource = &hold.record.claim.resource;
    let mut compares = Vec::from(view::is_held_as(keys, hold));
    compares.extend(mark);
    let writes = match (successor, &sight.generation) {
        (Some(place), Some(generation)) => hand_over(link, &mut compares, generation, place, note),
        (Some(_), None) => vec![TxnOp::delete(keys.lease(resource), None)],
        (None, _) => {
            compares.push(view::nobody_waits(keys, resource));
            vec![TxnOp::delete(keys.lease(resource), None)]
        }
    };
    link.write(compares, writes).await
}

/// Overwrites the lease's key with the head of the queue: etcd refuses to delete and put one key at once.
pub(super) fn hand_over(
    link: &Link,
    compares: &mut Vec<Compare>,
    generation: &Stored<Generation>,
    place: &Place,
    note: &GrantNote,
) -> Vec<TxnOp> {
    let keys = &link.context().keys;
    let key = view::place_key(keys, place);
    compares.push(view::is_queued(key.clone(), place.since));
    compares.push(view::is_generation(keys, generation));
    compares.push(view::nobody_waits_longer(keys, place));
    let value = codec::hold_value(&unwritten(place.claim.clone(), generation, note.clone()));
    let options = keys.on_lease(place.claim.session);
    vec![
        TxnOp::put(keys.lease(&place.claim.resource), value, Some(options)),
        TxnOp::delete(key, None),
    ]
}
