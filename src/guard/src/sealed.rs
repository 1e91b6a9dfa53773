use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use palisade_token::{FencingToken, Grant};

use crate::GuardError;
use crate::memory::Seat;

/// The right to begin guarded transactions: a grant that this process has sealed in the store `S`.
///
/// Only a guard's `seal` makes one. Clones share their fate: once the store has refused one of them,
/// all refuse at once, without asking the store. (A `memory::Handle` asks its table, which costs no more.)
///
/// ```compile_fail,E0624
/// # fn forge(grant: palisade_token::Grant) {
/// let sealed = palisade_guard::Sealed::<()>::new(grant); // private
/// # }
/// ```
pub struct Sealed<S> {
    state: Arc<State>,
    store: PhantomData<fn() -> S>,
}

#[repr(C)]
struct State {
    /// First, so that it seldom lies on two cache lines. Where the in-memory table has sealed it; `None` elsewhere.
    seat: Option<Seat>,
    grant: Grant,
    dead: OnceLock<Death>,
}

#[derive(Debug, Clone, Copy)]
enum Death {
    Stale(FencingToken),
    Backwards(Option<FencingToken>),
    Collision,
}

impl<S> Sealed<S> {
    #[allow(
        dead_code,
        reason = "each store makes its own; the in-memory table with a seat"
    )]
    pub(crate) fn new(grant: Grant) -> Self {
        Self::with_seat(grant, None)
    }

    pub(crate) fn with_seat(grant: Grant, seat: Option<Seat>) -> Self {
        Self {
            state: Arc::new(State {
                seat,
                grant,
                dead: OnceLock::new(),
            }),
            store: PhantomData,
        }
    }

    /// The grant that was sealed.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.state.grant
    }

    #[inline]
    pub(crate) fn seat(&self) -> Option<&Seat> {
        self.state.seat.as_ref()
    }

    /// Says whether the store has not refused this grant yet. True is no promise: the next write decides.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.state.dead.get().is_none()
    }

    /// The refusal that killed it, if one did.
    pub(crate) fn alive(&self) -> Result<(), GuardError> {
        let Some(death) = self.state.dead.get() else {
            return Ok(());
        };
        let (resource, token) = (self.state.grant.resource.clone(), self.state.grant.token);
        Err(match *death {
            Death::Stale(fence) => GuardError::Stale {
                resource,
                presented: token,
                fence,
            },
            Death::Backwards(fence) => GuardError::StoreWentBackwards {
                resource,
                sealed: token,
                fence,
            },
            Death::Collision => GuardError::Collision { resource, token },
        })
    }

    /// If the error is the store's refusal of this very grant, every clone is dead from here on; what
    /// was sealed and is unsealed now means that the store went backwards.
    pub(crate) fn learn(&self, error: GuardError) -> GuardError {
        let grant = &self.state.grant;
        let (death, error) = match error {
            GuardError::Stale {
                ref resource,
                presented,
                fence,
            } if *resource == grant.resource && presented == grant.token => {
                (Death::Stale(fence), error)
            }
            GuardError::Unsealed {
                resource,
                presented,
                fence,
            } if resource == grant.resource && presented == grant.token => (
                Death::Backwards(fence),
                GuardError::StoreWentBackwards {
                    resource,
                    sealed: presented,
                    fence,
                },
            ),
            GuardError::Collision {
                ref resource,
                token,
            } if *resource == grant.resource && token == grant.token => (Death::Collision, error),
            other => return other,
        };
        if self.state.dead.set(death).is_ok() {
            tracing::warn!(resource = %grant.resource, token = %grant.token, %error, "grant refused");
        }
        error
    }
}

impl<S> Clone for Sealed<S> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
            store: PhantomData,
        }
    }
}

impl<S> fmt::Debug for Sealed<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Sealed")
            .field("grant", &self.state.grant)
            .field("live", &self.is_live())
            .finish()
    }
}

/// Orders what one transaction is to carry by resource: 1 to `most` of them, each resource once.
pub(crate) fn distinct<S>(
    sealed: &[&Sealed<S>],
    most: usize,
) -> Result<Vec<Sealed<S>>, GuardError> {
    if sealed.is_empty() || sealed.len() > most {
        return Err(GuardError::Misuse(
            "a guarded transaction has at least one resource, and at most MAX_RESOURCES",
        ));
    }
    let mut sealed: Vec<Sealed<S>> = sealed.iter().copied().cloned().collect();
    sealed.sort_by(|a, b| a.grant().resource.cmp(&b.grant().resource));
    let is_double = |pair: &[Sealed<S>]| pair[0].grant().resource == pair[1].grant().resource;
    if sealed.windows(2).any(is_double) {
        return Err(GuardError::Misuse(
            "a guarded transaction names each resource once",
        ));
    }
    Ok(sealed)
}
