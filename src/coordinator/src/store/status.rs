//! How a store stands, for people.

use palisade_token::FencingToken;

use crate::domain::{Generation, Revision};

/// What keeps the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreKind {
    /// An etcd cluster.
    Etcd,
    /// A file of this process's own.
    Embedded,
    /// Memory.
    Memory,
}

/// One endpoint of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address, without credentials.
    pub address: String,
    /// It answers.
    pub is_healthy: bool,
    /// The id of its cluster, if it answered.
    pub cluster: Option<u64>,
    /// The version that it tells of itself, if it answered.
    pub version: Option<String>,
}

/// How a store stands. What is not known, because the store is away, is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What it is.
    pub kind: StoreKind,
    /// The cluster that the coordinator began with.
    pub cluster: Option<u64>,
    /// Its endpoints; none for a store of this process's own.
    pub endpoints: Vec<Endpoint>,
    /// The generation that is trusted now.
    pub generation: Option<Generation>,
    /// The highest revision that was seen.
    pub revision: Revision,
    /// Operations sent and not answered yet.
    pub in_flight: u64,
}

/// How a new generation is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Advance {
    /// All further tokens are above this one.
    pub past: Option<FencingToken>,
    /// Also where that is more than a day ahead of the clock.
    pub is_forced: bool,
}

/// A generation that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advanced {
    /// The one that counts now.
    pub generation: Generation,
    /// The one that it was made from, if there was one.
    pub previous: Option<Generation>,
}
