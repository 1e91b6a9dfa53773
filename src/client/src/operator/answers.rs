//! What operators are answered.

use palisade_api::v1;
use palisade_token::FencingToken;

use crate::error::ClientError;
use crate::error::status::Failure;
use crate::info::{Generation, LeaseEnd};

/// How a token stands to a resource.
///
/// ```
/// use palisade_client::TokenState;
///
/// fn line(state: TokenState) -> &'static str {
///     match state {
///         TokenState::Current => "the present lease's, when it was looked at",
///         TokenState::Stale | TokenState::Vacant => "no lease with it stands",
///         TokenState::Ahead => "not of this store, or the store was set back: alarm",
///         _ => "not known to this version",
///     }
/// }
/// assert_eq!(line(TokenState::Stale), line(TokenState::Vacant));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenState {
    /// It is the present lease's.
    Current,
    /// Its lease has ended, and another one stands.
    Stale,
    /// Nobody holds the resource.
    Vacant,
    /// It is above any token that this store can have issued: its history went backwards, or the token is
    /// not of this store. Coordinators raise an alarm.
    Ahead,
}

/// How a token stood to a resource, when it was looked at. See
/// [`Client::check_token`](crate::Client::check_token).
///
/// ```
/// use palisade_client::{TokenCheck, TokenState};
///
/// fn line(check: &TokenCheck) -> String {
///     match (check.state, check.current) {
///         (TokenState::Stale, Some(current)) => format!("{current} came after it"),
///         (state, _) => format!("{state:?} at revision {}", check.revision),
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenCheck {
    /// How it stood.
    pub state: TokenState,
    /// The present lease's token; none if the resource is vacant.
    pub current: Option<FencingToken>,
    /// The store's revision at which this was true.
    pub revision: i64,
}

impl TryFrom<v1::CheckTokenResponse> for TokenCheck {
    type Error = ClientError;

    fn try_from(answer: v1::CheckTokenResponse) -> Result<Self, ClientError> {
        let state = match answer.state() {
            v1::TokenState::Current => TokenState::Current,
            v1::TokenState::Stale => TokenState::Stale,
            v1::TokenState::Vacant => TokenState::Vacant,
            v1::TokenState::Ahead => TokenState::Ahead,
            v1::TokenState::Unspecified => {
                return Err(Failure::unexpected("a state of a token that is not known").error);
            }
        };
        Ok(Self {
            state,
            current: FencingToken::try_from(answer.current_token).ok(),
            revision: answer.revision,
        })
    }
}

/// What ended a lease that was to be revoked.
///
/// ```
/// use palisade_client::RevokeOutcome;
///
/// fn line(outcome: RevokeOutcome) -> &'static str {
///     match outcome {
///         RevokeOutcome::Released => "the holder released it when asked",
///         RevokeOutcome::Revoked => "forced: it may write until the next holder seals",
///         RevokeOutcome::EndedBefore => "it had ended before",
///         _ => "it has ended; by this call or not, is not known",
///     }
/// }
/// assert!(line(RevokeOutcome::Revoked).starts_with("forced"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RevokeOutcome {
    /// The holder released it when asked.
    Released,
    /// It was ended by force: the holder may still believe that it holds. Only a seal stops it.
    Revoked,
    /// It had ended before.
    EndedBefore,
    /// It has ended, and whether this call did it is not known: an earlier try of it may have been served,
    /// and was not answered.
    Unknown,
}

/// A lease that was to be revoked has ended. See [`Client::revoke_lease`](crate::Client::revoke_lease).
///
/// ```
/// use palisade_client::{LeaseEnd, Revocation, RevokeOutcome};
///
/// fn is_clean(revoked: &Revocation) -> bool {
///     match revoked.outcome {
///         RevokeOutcome::Released => true,
///         _ => revoked.end == LeaseEnd::Released,
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Revocation {
    /// What ended it.
    pub outcome: RevokeOutcome,
    /// How it ended, as far as the coordinator knows.
    pub end: LeaseEnd,
    /// The store's revision of the end; 0 where it had ended before.
    pub revision: i64,
}

impl Revocation {
    pub(super) fn of(
        answer: v1::RevokeLeaseResponse,
        earlier_unknown: bool,
    ) -> Result<Self, ClientError> {
        let (outcome, end) = match answer.outcome() {
            v1::RevokeOutcome::Released => (RevokeOutcome::Released, LeaseEnd::Released),
            v1::RevokeOutcome::Revoked => (RevokeOutcome::Revoked, LeaseEnd::Revoked),
            v1::RevokeOutcome::NotHeld if earlier_unknown => {
                (RevokeOutcome::Unknown, answer.end().into())
            }
            v1::RevokeOutcome::NotHeld => (RevokeOutcome::EndedBefore, answer.end().into()),
            v1::RevokeOutcome::Unspecified => {
                return Err(Failure::unexpected("an end of a lease that is not known").error);
            }
        };
        Ok(Self {
            outcome,
            end,
            revision: answer.revision,
        })
    }
}

/// A generation was made. See [`Client::advance_generation`](crate::Client::advance_generation).
///
/// ```
/// fn line(change: &palisade_client::GenerationChange) -> String {
///     let before = change.previous.as_ref().map_or("none", |before| before.nonce.as_str());
///     let now = &change.generation;
///     format!("{} from token {}; before: {before}", now.nonce, now.base)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GenerationChange {
    /// The one that counts now.
    pub generation: Generation,
    /// The one that counted before; where a try had not been answered, the one which that may have made.
    pub previous: Option<Generation>,
}

impl TryFrom<v1::AdvanceGenerationResponse> for GenerationChange {
    type Error = ClientError;

    fn try_from(answer: v1::AdvanceGenerationResponse) -> Result<Self, ClientError> {
        let Some(generation) = answer.generation else {
            return Err(Failure::unexpected("no generation").error);
        };
        Ok(Self {
            generation: generation.into(),
            previous: answer.previous.map(Generation::from),
        })
    }
}
