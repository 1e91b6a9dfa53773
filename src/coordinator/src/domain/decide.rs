//! Who gets what: from what a store shows to what it shall do next.
//!
//! A store reads a [`View`], asks here for a step, and carries it out in one transaction that compares
//! whatever the step rests on. When the comparison fails, it reads again and asks again.

use palisade_token::{FencingToken, ResourceName};

use super::{
    AttachMark, Claim, Delay, Gate, Hold, Last, LeaseEnd, Nonce, Place, Previous, Principal,
    Refusal, RequestId, Revision, SecretHash, Session, SessionId,
};

/// Who asks, as every call of a session says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The session named.
    pub session: SessionId,
    /// The authenticated principal.
    pub principal: Principal,
    /// The hash of the secret shown.
    pub secret: SecretHash,
    /// The client's growing number.
    pub epoch: u64,
    /// Whether the call is marked as one that was sent before.
    pub is_retry: bool,
    /// Names whoever raises marks for this caller: the coordinator process that serves the call, or the
    /// one stream that it came on.
    pub process: Nonce,
    /// The mark that the caller's stream wrote last; `None` for a unary call, which is served under
    /// whatever mark is found.
    pub mark: Option<AttachMark>,
}

impl Caller {
    /// The same caller once the mark is raised to its epoch: a delayed copy of its first try is refused
    /// from there on, so that it need not be taken for a retry any more.
    #[must_use]
    pub fn having_raised(&self) -> Self {
        Self {
            is_retry: false,
            ..self.clone()
        }
    }
}

/// An acquire of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquire {
    /// Who asks.
    pub caller: Caller,
    /// What for.
    pub resource: ResourceName,
    /// The client's name for it.
    pub request: RequestId,
    /// What the client attached.
    pub metadata: Vec<u8>,
    /// For how long nobody gets the resource after an unclean end of this lease, in milliseconds.
    pub lock_delay_ms: u64,
    /// Whether to take a place in the queue when the resource is not free.
    pub waits: bool,
    /// How many may wait for one resource.
    pub max_waiters: u64,
    /// How the lease before ended, as far as the coordinator has seen: noted in a grant that finds the
    /// resource vacant.
    pub previous: Option<Previous>,
}

/// Which hold a release means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldName {
    /// The lease with this token.
    Token(FencingToken),
    /// The hold or the queue place of this request.
    Request(RequestId),
}

/// A release by a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Who asks.
    pub caller: Caller,
    /// Of what.
    pub resource: ResourceName,
    /// Which hold.
    pub hold: HoldName,
}

impl Release {
    /// The request whose place in the queue it may mean.
    #[must_use]
    pub fn request(&self) -> Option<&RequestId> {
        match &self.hold {
            HoldName::Request(request) => Some(request),
            HoldName::Token(_) => None,
        }
    }
}

/// What a store shows of one resource and one session, at one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The session that asks, if it lives.
    pub session: Option<Session>,
    /// The lease that is held.
    pub hold: Option<Hold>,
    /// The place in the queue of the request that is asked about.
    pub own_place: Option<Place>,
    /// The first in the queue.
    pub head: Option<Place>,
    /// How many wait.
    pub waiters: u64,
    /// What the last lease left behind, if it had a lock-delay and was not released. While the lease is held it
    /// means nothing.
    pub delay: Option<Delay>,
}

/// What an acquire came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquired {
    /// The lease is held by this request.
    Held(Hold),
    /// The request waits.
    Queued(Place),
}

/// What a store shall do next for an acquire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AcquireStep {
    /// Raise the session's mark; once that is done, look again [as one who did](Caller::having_raised).
    Raise(AttachMark),
    /// Grant, and take the request's own place out of the queue.
    Grant {
        /// What to grant.
        claim: Claim,
        /// The place to take out.
        place: Option<Place>,
    },
    /// Put the request into the queue.
    Enqueue(Claim),
    /// The last lease ended uncleanly: begin its lock-delay, then look again.
    BeginDelay(Last),
    /// Give the place back, then refuse.
    Leave(Place),
    /// Say what is so already.
    Answer(Acquired),
}

/// What a release came to.
#[allow(
    clippy::large_enum_variant,
    reason = "it is an answer, made once and read once"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Released {
    /// The lease ended by this release.
    Lease {
        /// The lease.
        hold: Hold,
        /// When it ended.
        ended: Revision,
        /// Who got the resource in the same transaction, where that is known.
        successor: Option<Box<Hold>>,
    },
    /// The request waited, and does not any more.
    Place {
        /// When it left the queue.
        ended: Revision,
    },
    /// There was nothing to end; how the lease ended before, where that is known.
    NotHeld(Option<LeaseEnd>),
}

/// What a store shall do next for a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReleaseStep {
    /// Raise the session's mark; once that is done, look again [as one who did](Caller::having_raised).
    Raise(AttachMark),
    /// End the lease; hand the resource over to the place, if there is one.
    End {
        /// The lease to end.
        hold: Hold,
        /// Who gets the resource in the same transaction.
        successor: Option<Place>,
    },
    /// Give the place back.
    Leave(Place),
    /// Say what is so already.
    Answer(Released),
}

/// Checks that a caller may use a session, and returns it.
///
/// # Errors
/// [`Refusal::SessionEnded`], [`Refusal::NotYours`], [`Refusal::EpochStale`], or for a stream
/// [`Refusal::Superseded`].
pub fn admit<'a>(session: Option<&'a Session>, caller: &Caller) -> Result<&'a Session, Refusal> {
    let session = recognise(session, caller)?;
    if let Some(mark) = caller.mark {
        return match session.mark == mark {
            true => Ok(session),
            false => Err(superseded(session)),
        };
    }
    let stored = session.mark.epoch;
    // A retry under the stored epoch could be overtaken by a delayed copy of its first try.
    if caller.epoch < stored || (caller.epoch == stored && caller.is_retry) {
        return Err(Refusal::EpochStale {
            given: caller.epoch,
            stored,
        });
    }
    Ok(session)
}

/// Checks that a session lives and is the caller's own.
fn recognise<'a>(session: Option<&'a Session>, caller: &Caller) -> Result<&'a Session, Refusal> {
    let Some(session) = session else {
        return Err(Refusal::SessionEnded {
            session: caller.session,
        });
    };
    if session.principal != caller.principal || session.secret != caller.secret {
        return Err(Refusal::NotYours {
            session: caller.session,
        });
    }
    Ok(session)
}

fn superseded(session: &Session) -> Refusal {
    Refusal::Superseded {
        session: session.id,
        stored: session.mark,
    }
}

/// Decides whether a new stream becomes the session's own: the mark to raise to, or `None` where a first
/// try has raised it already (I4).
///
/// # Errors
/// [`Refusal::SessionEnded`], [`Refusal::NotYours`] or [`Refusal::EpochStale`].
pub fn decide_attach(
    session: Option<&Session>,
    caller: &Caller,
) -> Result<Option<AttachMark>, Refusal> {
    let session = recognise(session, caller)?;
    let wanted = AttachMark {
        epoch: caller.epoch,
        sub: 0,
        nonce: caller.process,
    };
    if session.mark == wanted {
        return Ok(None);
    }
    if caller.epoch <= session.mark.epoch {
        return Err(Refusal::EpochStale {
            given: caller.epoch,
            stored: session.mark.epoch,
        });
    }
    Ok(Some(wanted))
}

/// Decides whether a stream may raise the mark from the one that it wrote last; false where that is done.
/// Any other mark that is found means that the stream is superseded (I4).
///
/// # Errors
/// [`Refusal::SessionEnded`], [`Refusal::NotYours`] or [`Refusal::Superseded`].
pub fn decide_raise(
    session: Option<&Session>,
    caller: &Caller,
    to: AttachMark,
) -> Result<bool, Refusal> {
    let session = recognise(session, caller)?;
    if session.mark == to {
        return Ok(false);
    }
    if caller.mark == Some(session.mark) {
        return Ok(true);
    }
    Err(superseded(session))
}

fn raise(session: &Session, caller: &Caller) -> Option<AttachMark> {
    let is_above = caller.mark.is_none() && caller.epoch > session.mark.epoch;
    is_above.then_some(AttachMark {
        epoch: caller.epoch,
        sub: 0,
        nonce: caller.process,
    })
}

/// Decides the next step of an acquire (I1, I4, I11).
///
/// # Errors
/// A [`Refusal`]: nothing happened and nothing will.
pub fn decide_acquire(view: &View, acquire: &Acquire) -> Result<AcquireStep, Refusal> {
    let session = admit(view.session.as_ref(), &acquire.caller)?;
    if let Some(mark) = raise(session, &acquire.caller) {
        return Ok(AcquireStep::Raise(mark));
    }
    let known = [
        view.hold.as_ref().map(|hold| &hold.claim),
        view.own_place.as_ref().map(|p| &p.claim),
    ];
    for claim in known.into_iter().flatten() {
        if claim.is_of(session.id, &acquire.request)
            && let Some(field) = mismatch(claim, acquire)
        {
            let request = acquire.request.clone();
            return Err(Refusal::RequestMismatch { request, field });
        }
    }
    if let Some(hold) = &view.hold {
        return decide_held(view, hold, session, acquire);
    }
    match (Gate::of(view.delay.as_ref()), &view.delay) {
        (Gate::ToClose, Some(delay)) => return Ok(AcquireStep::BeginDelay(delay.last.clone())),
        (Gate::Closed, _) => return decide_wait(view, session, acquire),
        (Gate::Open | Gate::ToClose, _) => {}
    }
    let is_next = match (&view.head, &view.own_place) {
        (None, _) => true,
        (Some(head), Some(own)) => head == own,
        (Some(_), None) => false,
    };
    if is_next {
        return Ok(AcquireStep::Grant {
            claim: claim(session, acquire),
            place: view.own_place.clone(),
        });
    }
    decide_wait(view, session, acquire)
}

/// What another try of a request asks for differently. How long it waits may differ.
fn mismatch(claim: &Claim, acquire: &Acquire) -> Option<&'static str> {
    if claim.metadata != acquire.metadata {
        return Some("metadata");
    }
    (claim.lock_delay_ms != acquire.lock_delay_ms).then_some("lock_delay_ms")
}

fn decide_held(
    view: &View,
    hold: &Hold,
    session: &Session,
    acquire: &Acquire,
) -> Result<AcquireStep, Refusal> {
    if hold.claim.is_of(session.id, &acquire.request) {
        return Ok(AcquireStep::Answer(Acquired::Held(hold.clone())));
    }
    match (hold.token(), &view.own_place) {
        // Two requests of one session waited, and the other was served: this one is told so, which is
        // its outcome, and so it must not be served later.
        (Some(_), Some(place)) if hold.claim.session == session.id => {
            Ok(AcquireStep::Leave(place.clone()))
        }
        (Some(token), None) if hold.claim.session == session.id => Err(Refusal::AlreadyHeld {
            request: hold.claim.request.clone(),
            token,
        }),
        (Some(_) | None, _) => decide_wait(view, session, acquire),
    }
}

fn decide_wait(view: &View, session: &Session, acquire: &Acquire) -> Result<AcquireStep, Refusal> {
    match (&view.own_place, acquire.waits) {
        (Some(place), true) => Ok(AcquireStep::Answer(Acquired::Queued(place.clone()))),
        (Some(place), false) => Ok(AcquireStep::Leave(place.clone())),
        (None, false) => Err(Refusal::LeaseHeld {
            token: view.hold.as_ref().and_then(Hold::token),
        }),
        (None, true) if view.waiters >= acquire.max_waiters => Err(Refusal::LimitReached {
            limit: "waiters per resource",
            bound: acquire.max_waiters,
        }),
        (None, true) => Ok(AcquireStep::Enqueue(claim(session, acquire))),
    }
}

fn claim(session: &Session, acquire: &Acquire) -> Claim {
    Claim::new(
        session,
        acquire.resource.clone(),
        acquire.request.clone(),
        acquire.metadata.clone(),
    )
    .with_lock_delay(acquire.lock_delay_ms)
}

/// Decides the next step of a release (I4, I7). A release that hands over is one transaction.
///
/// # Errors
/// A [`Refusal`]: nothing happened and nothing will.
pub fn decide_release(view: &View, release: &Release) -> Result<ReleaseStep, Refusal> {
    let session = admit(view.session.as_ref(), &release.caller)?;
    if let Some(mark) = raise(session, &release.caller) {
        return Ok(ReleaseStep::Raise(mark));
    }
    match &release.hold {
        HoldName::Token(token) => decide_release_by_token(view, session, *token),
        HoldName::Request(request) => Ok(decide_release_by_request(view, session, request)),
    }
}

fn decide_release_by_token(
    view: &View,
    session: &Session,
    given: FencingToken,
) -> Result<ReleaseStep, Refusal> {
    let Some(hold) = &view.hold else {
        return Ok(ReleaseStep::Answer(Released::NotHeld(None)));
    };
    let current = hold.token();
    let is_mine = hold.claim.session == session.id;
    if is_mine && current == Some(given) {
        return Ok(end(view, hold));
    }
    if current.is_some_and(|current| given < current) {
        return Ok(ReleaseStep::Answer(Released::NotHeld(None)));
    }
    Err(Refusal::StaleToken { given, current })
}

fn decide_release_by_request(view: &View, session: &Session, request: &RequestId) -> ReleaseStep {
    match (&view.hold, &view.own_place) {
        (Some(hold), _) if hold.claim.is_of(session.id, request) => end(view, hold),
        (_, Some(place)) => ReleaseStep::Leave(place.clone()),
        (_, None) => ReleaseStep::Answer(Released::NotHeld(None)),
    }
}

fn end(view: &View, hold: &Hold) -> ReleaseStep {
    ReleaseStep::End {
        hold: hold.clone(),
        successor: view.head.clone(),
    }
}

/// What a store shall do next for a resource that may be vacant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromoteStep<'a> {
    /// Nothing: it is held, closed for a while, or nobody waits.
    Nothing,
    /// The last lease ended uncleanly: begin its lock-delay, then look again.
    BeginDelay(&'a Last),
    /// Grant it to the head of its queue (I6, I11).
    Grant(&'a Place),
}

/// Decides what becomes of a resource that may be vacant.
#[must_use]
pub fn decide_promotion(view: &View) -> PromoteStep<'_> {
    if view.hold.is_some() {
        return PromoteStep::Nothing;
    }
    match (Gate::of(view.delay.as_ref()), &view.delay, &view.head) {
        (Gate::ToClose, Some(delay), _) => PromoteStep::BeginDelay(&delay.last),
        (Gate::Open, _, Some(place)) => PromoteStep::Grant(place),
        (Gate::Open | Gate::ToClose | Gate::Closed, _, _) => PromoteStep::Nothing,
    }
}

#[cfg(test)]
mod tests;
