//! Code of the coordinator that it keeps to itself, read in from its own files: a model of a paraphrase would
//! prove the paraphrase.

use futures::FutureExt;

use self::codec::Stored;
use self::mark::Marks;
use self::trust::{Reached, Trust, Verdict};
use crate::domain::{AttachMark, Generation, Revision};

#[allow(dead_code, reason = "the models need some of it")]
#[path = "../../src/coordinator/src/service/attach/mark.rs"]
mod mark;
#[allow(dead_code, reason = "the models need some of it")]
#[path = "../../src/coordinator/src/store/etcd/trust.rs"]
mod trust;

mod codec {
    use std::sync::Arc;

    /// A record with the bytes it was read from.
    #[derive(Debug, Clone)]
    pub(super) struct Stored<T> {
        pub(super) record: T,
        pub(super) raw: Arc<[u8]>,
    }
}

/// What a stream has to do before it submits something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// Nothing: it submits under this mark.
    Nothing(AttachMark),
    /// Raise its mark.
    Raise { from: AttachMark, to: AttachMark },
}

/// Asks a stream's marks what has to be done before something is submitted that may have been submitted under
/// `stale`.
pub(crate) fn before(present: AttachMark, is_raising: bool, stale: Option<AttachMark>) -> Before {
    let marks = Marks::new(present);
    if is_raising {
        marks.doubt();
    }
    let raise = |from, to| async move { Err((from, to)) };
    let asked = marks.above(stale, raise).now_or_never();
    match asked.expect("nobody else raises") {
        Ok(mark) => Before::Nothing(mark),
        Err((from, to)) => Before::Raise { from, to },
    }
}

/// Whether a mark that was found is a stream's own, raised since it submitted something.
pub(crate) fn has_raised(submitted: AttachMark, found: AttachMark) -> bool {
    Marks::new(submitted).has_raised(submitted, found)
}

/// What a connection has seen, as its trust keeps it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) read: Option<Generation>,
    /// Whether what it has read last may be granted under.
    pub(crate) is_trusted: bool,
    pub(crate) reached: Revision,
}

fn stored(record: Generation) -> Stored<Generation> {
    let raw = format!("{record:?}").into_bytes().into();
    Stored { record, raw }
}

fn reached(revision: Revision) -> Reached {
    Reached { revision, term: 1 }
}

impl Seen {
    /// What it has seen once it has read the generation once more.
    pub(crate) fn after_read(self, found: Option<Generation>, revision: Revision) -> Self {
        let mut trust = Trust::default();
        match self.read.map(stored) {
            Some(read) if self.is_trusted => trust.made(read, reached(self.reached)),
            read => {
                trust.read(read, reached(self.reached));
                trust.saw(reached(self.reached));
            }
        }
        let verdict = trust.read(found.map(stored), reached(revision));
        Self {
            read: found,
            is_trusted: matches!(verdict, Verdict::Trusted(_)),
            reached: trust.reached().revision,
        }
    }
}

/// Whether the reply of a committed write shows that history went backwards since it was sent.
pub(crate) fn is_regress(sent: Revision, committed: Revision) -> bool {
    Trust::is_regress(reached(sent), reached(committed))
}
