//! What the stage and a worker tell each other: one line of JSON each, over stdin and stdout.

use std::path::PathBuf;
use std::time::Duration;

use palisade_token::{FencingToken, ResourceName};
use serde::{Deserialize, Serialize};

/// What a worker is told first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Where the coordinator is.
    pub(crate) addr: String,
    /// The worker's name.
    pub(crate) name: String,
    /// What its lease is for.
    pub(crate) resource: ResourceName,
    /// How long its lease stands without a renewal.
    pub(crate) ttl: Duration,
    /// How much it brings to the bank.
    pub(crate) deposit: i64,
    /// Where the bank keeps its books.
    pub(crate) books: Books,
    /// Whether the account is guarded.
    pub(crate) guarded: bool,
}

/// A database with two accounts, one of them guarded.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Books {
    Sqlite { file: PathBuf },
    Postgres { server: String, database: String },
}

impl std::fmt::Debug for Books {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite { file } => write!(formatter, "Sqlite({})", file.display()),
            // Not the server: its URL carries a password.
            Self::Postgres { database, .. } => write!(formatter, "Postgres({database})"),
        }
    }
}

/// What a worker is to do next.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Cue {
    /// Become leader, read, and be ready to write.
    Lead,
    /// Write what was worked out.
    Write,
    /// Release the lease, if it is still held, and end.
    Leave,
}

/// What a worker has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Line {
    /// It has a session and asks for the lease.
    Asks,
    /// It was granted the lease.
    Leads { token: FencingToken },
    /// It has raised the fence to its token.
    Sealed,
    /// It has read, knows what it will write, and has found its lease good for a while.
    Ready {
        balance: i64,
        next: i64,
        lease_left: Duration,
    },
    /// It has written.
    Wrote,
    /// Its write was refused.
    Refused {
        presented: FencingToken,
        fence: FencingToken,
    },
    /// What its own client says of its lease, asked after the write.
    Lease { held: bool },
    /// It cannot go on.
    Broken { message: String },
}
