//! What a guard decides, and nothing else: no store, no clock, no I/O.
//!
//! SQLite asks these functions; PostgreSQL decides the same in SQL, because the decision has to be
//! taken under the lock, and a test holds the two against each other.

use palisade_token::{FencingToken, Grant, HolderId};

use crate::GuardError;

/// The token and holder that a store has last sealed for a resource.
///
/// ```
/// use palisade_guard::decide::Mark;
/// use palisade_token::Grant;
///
/// let grant: Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
/// let mark = Mark::from(&grant);
/// assert_eq!(mark, Mark { token: grant.token, holder: grant.holder });
/// # Ok::<(), palisade_token::ParseGrantError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The token.
    pub token: FencingToken,
    /// The hold that sealed it.
    pub holder: HolderId,
}

impl From<&Grant> for Mark {
    fn from(grant: &Grant) -> Self {
        Self {
            token: grant.token,
            holder: grant.holder,
        }
    }
}

/// What a write that shows a grant meets.
///
/// ```
/// use palisade_guard::decide::{Admission, Mark, admit};
///
/// fn answer(grant: Mark, fence: Option<Mark>) -> &'static str {
///     match admit(grant, fence) {
///         Admission::Admitted => "write",
///         Admission::Stale { .. } => "step down: somebody else leads",
///         Admission::Unsealed { .. } => "seal first, and read again",
///         Admission::Collision => "acquire again, for a greater token",
///     }
/// }
/// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
/// # let later: palisade_token::Grant = "orders#43#0f0e0d0c0b0a09080706050403020100".parse()?;
///
/// let (grant, later) = (Mark::from(&grant), Mark::from(&later));
/// assert_eq!(answer(grant, Some(grant)), "write");
/// assert_eq!(answer(grant, Some(later)), "step down: somebody else leads");
/// assert_eq!(answer(later, Some(grant)), "seal first, and read again");
/// # Ok::<(), palisade_token::ParseGrantError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The grant is the one that was sealed.
    Admitted,
    /// A greater token was sealed: final.
    Stale {
        /// Where the fence is.
        fence: FencingToken,
    },
    /// The grant was not sealed here. It is never sealed on the quiet: the new holder may have read
    /// already what an older one could still change.
    Unsealed {
        /// Where the fence is, if there is one.
        fence: Option<FencingToken>,
    },
    /// The token was sealed by another hold.
    Collision,
}

/// What a seal meets.
///
/// ```
/// use palisade_guard::decide::{Mark, Sealing, seal};
///
/// /// Seals in a store that is a variable; says whether the grant may be used.
/// fn raise(fence: &mut Option<Mark>, grant: Mark) -> bool {
///     match seal(grant, *fence) {
///         Sealing::Raise => *fence = Some(grant), // here a store makes it durable
///         Sealing::Already => {}
///         Sealing::Stale { .. } | Sealing::Collision => return false,
///     }
///     true
/// }
/// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
/// # let later: palisade_token::Grant = "orders#43#0f0e0d0c0b0a09080706050403020100".parse()?;
///
/// let (grant, later) = (Mark::from(&grant), Mark::from(&later));
/// let mut fence = None;
/// assert!(raise(&mut fence, grant) && raise(&mut fence, later));
/// assert!(!raise(&mut fence, grant));
/// # Ok::<(), palisade_token::ParseGrantError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealing {
    /// Raise the fence to this grant.
    Raise,
    /// It was sealed by this grant before: nothing to write.
    Already,
    /// A greater token was sealed: final.
    Stale {
        /// Where the fence is.
        fence: FencingToken,
    },
    /// The token was sealed by another hold.
    Collision,
}

/// Says whether a write with this grant is admitted while the fence is at `fence` (I2).
///
/// ```
/// use palisade_guard::decide::{Admission, Mark, admit};
/// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
///
/// let grant = Mark::from(&grant);
/// assert_eq!(admit(grant, Some(grant)), Admission::Admitted);
/// assert_eq!(admit(grant, None), Admission::Unsealed { fence: None });
/// # Ok::<(), palisade_token::ParseGrantError>(())
/// ```
#[must_use]
pub fn admit(grant: Mark, fence: Option<Mark>) -> Admission {
    match fence {
        None => Admission::Unsealed { fence: None },
        Some(fence) if grant.token < fence.token => Admission::Stale { fence: fence.token },
        Some(fence) if grant.token > fence.token => Admission::Unsealed {
            fence: Some(fence.token),
        },
        Some(fence) if grant.holder != fence.holder => Admission::Collision,
        Some(_) => Admission::Admitted,
    }
}

/// Says what a seal with this grant does while the fence is at `fence` (I2).
///
/// ```
/// use palisade_guard::decide::{Mark, Sealing, seal};
/// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
/// # let later: palisade_token::Grant = "orders#43#0f0e0d0c0b0a09080706050403020100".parse()?;
///
/// let (grant, later) = (Mark::from(&grant), Mark::from(&later));
/// assert_eq!(seal(grant, None), Sealing::Raise);
/// assert_eq!(seal(grant, Some(grant)), Sealing::Already);
/// assert_eq!(seal(grant, Some(later)), Sealing::Stale { fence: later.token });
/// # Ok::<(), palisade_token::ParseGrantError>(())
/// ```
#[must_use]
pub fn seal(grant: Mark, fence: Option<Mark>) -> Sealing {
    match admit(grant, fence) {
        Admission::Admitted => Sealing::Already,
        Admission::Unsealed { .. } => Sealing::Raise,
        Admission::Stale { fence } => Sealing::Stale { fence },
        Admission::Collision => Sealing::Collision,
    }
}

/// The error of a grant that was not admitted, with its numbers.
pub(crate) fn refusal(grant: &Grant, admission: Admission) -> Option<GuardError> {
    if admission == Admission::Admitted {
        return None;
    }
    let resource = grant.resource.clone();
    match admission {
        Admission::Admitted => None,
        Admission::Stale { fence } => Some(GuardError::Stale {
            resource,
            presented: grant.token,
            fence,
        }),
        Admission::Unsealed { fence } => Some(GuardError::Unsealed {
            resource,
            presented: grant.token,
            fence,
        }),
        Admission::Collision => Some(GuardError::Collision {
            resource,
            token: grant.token,
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mark() -> impl Strategy<Value = Mark> {
        (1..6_u64, 0..3_u8).prop_map(|(token, holder)| Mark {
            token: FencingToken::new(token).unwrap(),
            holder: HolderId::from_bytes([holder; 16]),
        })
    }

    /// A write, or a seal, by some grant.
    fn steps() -> impl Strategy<Value = Vec<(bool, Mark)>> {
        prop::collection::vec((any::<bool>(), mark()), 0..60)
    }

    proptest! {
        #[test]
        fn accepted_tokens_never_decrease_and_equal_ones_have_one_holder(steps in steps()) {
            let (mut fence, mut written): (Option<Mark>, Option<Mark>) = (None, None);
            for (is_seal, grant) in steps {
                if is_seal {
                    if seal(grant, fence) == Sealing::Raise {
                        prop_assert!(fence.is_none_or(|fence| fence.token < grant.token));
                        fence = Some(grant);
                    }
                } else if admit(grant, fence) == Admission::Admitted {
                    prop_assert_eq!(Some(grant), fence);
                    if let Some(earlier) = written {
                        prop_assert!(earlier.token <= grant.token);
                        prop_assert!(earlier.token < grant.token || earlier.holder == grant.holder);
                    }
                    written = Some(grant);
                }
            }
        }

        #[test]
        fn a_sealed_grant_is_admitted_until_another_is_sealed(grant in mark(), fence in mark()) {
            match seal(grant, Some(fence)) {
                Sealing::Raise => prop_assert!(grant.token > fence.token),
                Sealing::Already => prop_assert_eq!(grant, fence),
                Sealing::Stale { fence: at } => {
                    prop_assert!(grant.token < at);
                    prop_assert_eq!(admit(grant, Some(fence)), Admission::Stale { fence: at });
                }
                Sealing::Collision => {
                    prop_assert!(grant.token == fence.token && grant.holder != fence.holder);
                }
            }
            prop_assert_eq!(admit(grant, Some(grant)), Admission::Admitted);
            prop_assert_eq!(admit(grant, None), Admission::Unsealed { fence: None });
        }
    }
}
