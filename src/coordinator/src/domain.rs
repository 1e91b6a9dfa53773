//! What a lease coordinator decides, as pure and synchronous code: no clock, no I/O, no async.

mod decide;
mod delay;
mod generation;
mod ids;
mod ledger;
mod news;
mod records;
mod refusal;
mod revoke;

pub use decide::{
    Acquire, AcquireStep, Acquired, Caller, HoldName, PromoteStep, Release, ReleaseStep, Released,
    View, admit, decide_acquire, decide_attach, decide_promotion, decide_raise, decide_release,
};
pub use delay::{Delay, Gate, Last};
pub use generation::{Generation, GenerationError, Span, WallClock};
pub use ids::{IdError, Nonce, OpenId, Principal, RequestId, Revision, SecretHash, SessionId};
pub use ledger::{Change, Ending, Ledger, Plan};
pub use news::{Batch, Ended, Event, Granted, Notice, ReadHold};
pub use records::{AttachMark, Claim, GrantNote, Hold, LeaseEnd, Place, Previous, Session};
pub use refusal::Refusal;
pub use revoke::{AskBack, Revoke, Revoked, decide_revoke};
