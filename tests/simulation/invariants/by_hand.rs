//! Histories written by hand, to see that each check says what it should.

use std::time::Duration;

use palisade_coordinator::domain::{LeaseEnd, RequestId, Revision, SessionId};
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};

use super::{Check, Violation};
use crate::history::{
    Asked, At, CallId, Decision, Entry, Granted, Guarded, History, Host, Kept, Operation, Outcome,
    Phase, Standing, What,
};

pub(super) const CLIENT: Host = Host::Client(0);

pub(super) fn r() -> ResourceName {
    ResourceName::new("r").unwrap()
}

pub(super) fn token(number: u64) -> FencingToken {
    FencingToken::new(number).unwrap()
}

pub(super) fn session(number: u8) -> SessionId {
    format!("{number:016x}").parse().unwrap()
}

/// The request, the hold and the grant that belong to a token.
pub(super) fn request(number: u64) -> RequestId {
    RequestId::new(&number.to_string()).unwrap()
}

pub(super) fn holder(number: u64) -> HolderId {
    HolderId::from_bytes([u8::try_from(number).unwrap(); 16])
}

pub(super) fn grant(number: u64) -> Grant {
    Grant {
        resource: r(),
        token: token(number),
        holder: holder(number),
    }
}

pub(super) fn hold(number: u64, of: u8) -> Granted {
    Granted {
        resource: r(),
        token: token(number),
        holder: holder(number),
        session: session(of),
        request: request(number),
    }
}

pub(super) fn opened(number: u8) -> Decision {
    Decision::Opened {
        session: session(number),
        ttl: Duration::from_secs(5),
    }
}

pub(super) fn ended(number: u8) -> Decision {
    Decision::Ended {
        session: session(number),
    }
}

pub(super) fn renewed(number: u8) -> Decision {
    Decision::Renewed {
        session: session(number),
    }
}

pub(super) fn granted(number: u64, of: u8) -> Decision {
    Decision::Granted(hold(number, of))
}

pub(super) fn over(number: u64, end: LeaseEnd) -> Decision {
    Decision::Over {
        resource: r(),
        token: token(number),
        end,
    }
}

pub(super) fn queued(number: u64, of: u8, place: u64) -> Decision {
    Decision::Queued {
        resource: r(),
        session: session(of),
        request: request(number),
        place: Revision(place),
    }
}

pub(super) fn left(place: u64) -> Decision {
    Decision::Left {
        resource: r(),
        place: Revision(place),
    }
}

pub(super) fn kept(holds: Vec<Granted>, sessions: &[u8]) -> Kept {
    let ttl = Duration::from_secs(5);
    Kept {
        holds,
        places: Vec::new(),
        sessions: sessions
            .iter()
            .map(|number| (session(*number), ttl))
            .collect(),
    }
}

pub(super) fn acquire(number: u64) -> Operation {
    Operation::Acquire {
        request: Some(request(number)),
        waits: true,
    }
}

pub(super) fn acquired(number: u64) -> Outcome {
    Outcome::Acquired {
        token: token(number),
        holder: holder(number),
        request: Some(request(number)),
    }
}

/// A history that grows.
#[derive(Debug, Clone, Default)]
pub(super) struct ByHand {
    history: History,
    now: At,
    incarnation: u32,
    revision: u64,
}

impl ByHand {
    /// With sessions 1 and 2, and a generation whose tokens are the revisions.
    pub(super) fn new() -> Self {
        let generation = Decision::Generation {
            base: 0,
            since: Revision(0),
        };
        Self::default()
            .log(generation)
            .log(opened(1))
            .log(opened(2))
    }

    pub(super) fn at_ms(mut self, millis: u64) -> Self {
        self.now = At(millis * 1000);
        self
    }

    pub(super) fn note(mut self, what: What) -> Self {
        let at = self.now;
        self.history.entries.push(Entry { at, what });
        self
    }

    /// A decision of a revision of its own. Grants set it to their token, as long as that is greater.
    pub(super) fn log(mut self, decision: Decision) -> Self {
        self.revision = match &decision {
            Decision::Granted(granted) => granted.token.get(),
            Decision::Queued { place, .. } => place.0,
            _ => self.revision + 1,
        };
        self.also(decision)
    }

    /// Another decision of the same revision.
    pub(super) fn also(self, decision: Decision) -> Self {
        let (incarnation, revision) = (self.incarnation, Revision(self.revision));
        self.note(What::Log {
            incarnation,
            revision,
            decision,
        })
    }

    pub(super) fn restored(mut self, kept: Kept) -> Self {
        self.incarnation += 1;
        self.revision = 0;
        self.log(Decision::Restored(kept))
    }

    pub(super) fn ask(self, call: u64, of: u8, operation: Operation) -> Self {
        self.note(What::Asked(Asked {
            call: CallId(call),
            host: CLIENT,
            session: Some(session(of)),
            resource: r(),
            operation,
        }))
    }

    pub(super) fn tell(self, call: u64, outcome: Outcome) -> Self {
        let call = CallId(call);
        self.note(What::Told { call, outcome })
    }

    pub(super) fn say(self, of: u8, number: u64, standing: Standing) -> Self {
        self.note(What::Said {
            host: CLIENT,
            session: session(of),
            lease: Some((r(), token(number))),
            standing,
        })
    }

    pub(super) fn guarded(self, number: u64, what: Guarded) -> Self {
        self.note(What::Guarded {
            host: CLIENT,
            grant: grant(number),
            what,
        })
    }

    pub(super) fn phase(self, phase: Phase) -> Self {
        self.note(What::Phase(phase))
    }

    /// With the setting changed.
    pub(super) fn with(mut self, change: impl FnOnce(&mut History)) -> Self {
        change(&mut self.history);
        self
    }

    pub(super) fn violation(&self, check: Check) -> Option<Violation> {
        check(&self.history).err()
    }

    #[track_caller]
    pub(super) fn fits(self, check: Check) {
        assert_eq!(self.violation(check), None);
    }

    #[track_caller]
    pub(super) fn breaks(self, check: Check) {
        assert!(
            self.violation(check).is_some(),
            "{:#?}",
            self.history.entries
        );
    }
}
