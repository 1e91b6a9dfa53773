//! What a lease coordinator decides, as pure and synchronous code: no clock, no I/O, no async.

mod decide;
mod generation;
mod ids;
mod ledger;
mod records;
mod refusal;

pub use decide::{
    Acquire, AcquireStep, Acquired, Caller, HoldName, Release, ReleaseStep, Released, View, admit,
    decide_acquire, decide_attach, decide_promotion, decide_raise, decide_release,
};
pub use generation::{Generation, GenerationError, Span, WallClock};
pub use ids::{IdError, Nonce, OpenId, Principal, RequestId, Revision, SecretHash, SessionId};
pub use ledger::{Change, Ending, Ledger, Plan};
pub use records::{AttachMark, Claim, Event, GrantNote, Hold, LeaseEnd, Place, Previous, Session};
pub use refusal::Refusal;
