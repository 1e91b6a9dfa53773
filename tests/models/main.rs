//! The protocol of grants, retries, restores, seals and queues, as small models of which every state is looked at.
//!
//! What is decided is decided by the product's own code wherever that is pure: `domain`, the guard's `decide`, a
//! stream's marks and a connection's trust. What each transaction compares is written out here after
//! `store/etcd/step.rs`. Each model is run as the protocol is, where nothing may be found, and with one defence taken
//! out, where the checker has to find how that breaks the promise.
//!
//! `PALISADE_MODEL_DEPTH=2` (and above) widens the bounds; each model says what they are.

mod batch;
mod check;
mod etcd;
mod queue;
mod real;
mod restore;
mod retry;
mod seal;

/// As the product's files call it that are read in here.
pub(crate) mod domain {
    #[cfg(test)]
    pub(crate) use palisade_coordinator::domain::Nonce;
    pub(crate) use palisade_coordinator::domain::{AttachMark, Generation, Revision};
}
