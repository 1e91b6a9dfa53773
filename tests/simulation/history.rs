//! What happened in a simulated run: the store's log, what clients asked and were told, what the client library
//! said, what the guard saw, what was done to hosts; in the order in which it happened, by true time.
//!
//! Two runs of one seed give equal histories.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use palisade_client::LostReason;
use palisade_coordinator::domain::{
    Acquired, Change, Hold, LeaseEnd, Ledger, Place, RequestId, Revision, SessionId,
};
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};

/// True time, in microseconds since the run began. No host's clock shows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct At(pub u64);

impl At {
    /// The moment `wait` later.
    #[must_use]
    pub(crate) fn after(self, wait: Duration) -> Self {
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// How long it is from here to a later moment.
    #[must_use]
    pub(crate) fn until(self, later: Self) -> Duration {
        Duration::from_micros(later.0.saturating_sub(self.0))
    }
}

impl fmt::Debug for At {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}.{:06}s",
            self.0 / 1_000_000,
            self.0 % 1_000_000
        )
    }
}

/// A party of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Host {
    /// A process with the client library.
    Client(u16),
    /// A coordinator.
    Coordinator(u16),
    /// What keeps the coordinators' state.
    Store,
    /// What is protected: guard and data.
    Guard,
}

/// What a run was made of, as far as checks need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// What everything follows from.
    pub seed: u64,
    /// Which configuration of the run: named in the command that replays it.
    pub configuration: &'static str,
    /// The sessions' time to live.
    pub ttl: Duration,
    /// How often a session's stream is renewed, with the library's jitter and one lost try.
    pub renewal: Duration,
    /// How many may wait for one resource.
    pub max_waiters: u64,
    /// Within which time after the faults have ended everybody who asks gets an answer, given how long those
    /// before work.
    pub answer: Duration,
    /// For how long the key of an effect is kept.
    pub key_lifetime: Duration,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            seed: 0,
            configuration: "by hand",
            ttl: Duration::from_secs(5),
            renewal: Duration::from_secs(2),
            max_waiters: 1024,
            answer: Duration::from_secs(60),
            key_lifetime: Duration::from_secs(24 * 3600),
        }
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct History {
    /// What it was made of.
    pub setting: Setting,
    /// What happened, in order.
    pub entries: Vec<Entry>,
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When.
    pub at: At,
    /// What.
    pub what: What,
}

impl fmt::Debug for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} {:?}", self.at, self.what)
    }
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// The store's log decided; several of one revision follow each other.
    Log {
        /// How often the store was restored before: revisions name things only within one history.
        incarnation: u32,
        /// When, by the store.
        revision: Revision,
        /// What.
        decision: Decision,
    },
    /// A client asks.
    Asked(Asked),
    /// A client is told.
    Told {
        /// Which call.
        call: CallId,
        /// What it came to.
        outcome: Outcome,
    },
    /// The client library says how it stands.
    Said {
        /// In which process.
        host: Host,
        /// Of which session.
        session: SessionId,
        /// Of one lease of it; of all where there is none.
        lease: Option<(ResourceName, FencingToken)>,
        /// What.
        standing: Standing,
    },
    /// Something came to the guard.
    Guarded {
        /// From whom.
        host: Host,
        /// What was shown.
        grant: Grant,
        /// What it came to, recorded at the moment at which it took effect.
        what: Guarded,
    },
    /// Something was done to a host.
    Fault(Fault),
    /// The run entered another phase.
    Phase(Phase),
    /// What is left.
    Census(Census),
}

/// What a store's log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// A session was opened.
    Opened {
        /// Which.
        session: SessionId,
        /// Its time to live.
        ttl: Duration,
    },
    /// A session's time to live began anew. It is in no log, but nothing else says until when a session lives.
    Renewed {
        /// Which.
        session: SessionId,
    },
    /// A session's mark was raised.
    Marked {
        /// Which.
        session: SessionId,
        /// The client's number.
        epoch: u64,
        /// The coordinator's.
        sub: u64,
    },
    /// A session ended.
    Ended {
        /// Which.
        session: SessionId,
    },
    /// A lease was granted.
    Granted(Granted),
    /// A lease ended.
    Over {
        /// Of what.
        resource: ResourceName,
        /// Which.
        token: FencingToken,
        /// How.
        end: LeaseEnd,
    },
    /// A request was queued.
    Queued {
        /// For what.
        resource: ResourceName,
        /// By whom.
        session: SessionId,
        /// Under which name.
        request: RequestId,
        /// Its place: the smallest is first.
        place: Revision,
    },
    /// A request left the queue: with the grant that follows, or without one.
    Left {
        /// Of what.
        resource: ResourceName,
        /// Its place.
        place: Revision,
    },
    /// A resource is closed by a lock-delay, or is open again.
    Delayed {
        /// Which.
        resource: ResourceName,
    },
    /// A generation was made.
    Generation {
        /// The token of its first revision.
        base: u64,
        /// Its first revision.
        since: Revision,
    },
    /// The store was put back to an older point; the first entry of its incarnation.
    Restored(Kept),
    /// The store was started again on what it had kept.
    Restarted(Kept),
}

/// What a store shows that was started again, or put back to an older point.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Kept {
    /// What is held.
    pub holds: Vec<Granted>,
    /// Who waits, in order.
    pub places: Vec<(ResourceName, Revision, SessionId, RequestId)>,
    /// Which sessions live.
    pub sessions: Vec<(SessionId, Duration)>,
}

/// A lease as it was granted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Granted {
    /// Of what.
    pub resource: ResourceName,
    /// With which token.
    pub token: FencingToken,
    /// To which hold.
    pub holder: HolderId,
    /// To whom.
    pub session: SessionId,
    /// For which request.
    pub request: RequestId,
}

impl Decision {
    /// What changes of one transaction say, given the state that they were planned on.
    #[must_use]
    pub(crate) fn of(before: &Ledger, changes: &[Change]) -> Vec<Self> {
        let decided = changes.iter().map(|change| Self::of_one(before, change));
        decided.flatten().collect()
    }

    fn of_one(before: &Ledger, change: &Change) -> Option<Self> {
        Some(match change {
            Change::PutSession(session) if before.session(session.id).is_none() => Self::Opened {
                session: session.id,
                ttl: Duration::from_millis(session.ttl_ms),
            },
            Change::PutSession(session) => Self::Marked {
                session: session.id,
                epoch: session.mark.epoch,
                sub: session.mark.sub,
            },
            Change::DropSession(session) => Self::Ended { session: *session },
            Change::PutHold(hold) => Self::Granted(Granted::of(hold)?),
            Change::DropHold(ending) => Self::Over {
                resource: ending.resource.clone(),
                token: before.lease(&ending.resource).0?.token()?,
                end: ending.end,
            },
            Change::PutPlace(place) => Self::Queued {
                resource: place.claim.resource.clone(),
                session: place.claim.session,
                request: place.claim.request.clone(),
                place: place.since,
            },
            Change::DropPlace(place) => Self::Left {
                resource: place.claim.resource.clone(),
                place: place.since,
            },
            Change::PutGeneration(generation) => Self::Generation {
                base: generation.base,
                since: generation.since_revision,
            },
            Change::PutDelay(resource, _) | Change::DropDelay(resource) => Self::Delayed {
                resource: resource.clone(),
            },
        })
    }

    /// The resource that it is about, if it is about one.
    #[must_use]
    pub(crate) fn resource(&self) -> Option<&ResourceName> {
        match self {
            Self::Granted(granted) => Some(&granted.resource),
            Self::Over { resource, .. }
            | Self::Queued { resource, .. }
            | Self::Left { resource, .. }
            | Self::Delayed { resource } => Some(resource),
            Self::Opened { .. }
            | Self::Renewed { .. }
            | Self::Marked { .. }
            | Self::Ended { .. }
            | Self::Generation { .. }
            | Self::Restored(_)
            | Self::Restarted(_) => None,
        }
    }
}

impl Kept {
    /// What a ledger shows.
    #[must_use]
    pub(crate) fn of(ledger: &Ledger) -> Self {
        let holds = ledger.leases("", None, usize::MAX);
        let owned = ledger
            .sessions()
            .flat_map(|session| ledger.holdings(session.id));
        let mut places: Vec<_> = owned
            .filter_map(|one| match one {
                Acquired::Queued(Place { claim, since }) => {
                    Some((claim.resource, since, claim.session, claim.request))
                }
                Acquired::Held(_) => None,
            })
            .collect();
        places.sort_by_cached_key(|(resource, since, ..)| (resource.clone(), *since));
        let ttl = |ms| Duration::from_millis(ms);
        Self {
            holds: holds.filter_map(Granted::of).collect(),
            places,
            sessions: ledger
                .sessions()
                .map(|session| (session.id, ttl(session.ttl_ms)))
                .collect(),
        }
    }
}

impl Granted {
    /// The lease that a hold is; none where its token cannot be told.
    #[must_use]
    pub(crate) fn of(hold: &Hold) -> Option<Self> {
        Some(Self {
            resource: hold.claim.resource.clone(),
            token: hold.token()?,
            holder: hold.claim.holder,
            session: hold.claim.session,
            request: hold.claim.request.clone(),
        })
    }
}

/// Names a call of a client within a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CallId(pub u64);

/// A call of a client. Tries of the library below it are one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Its name.
    pub call: CallId,
    /// Who calls.
    pub host: Host,
    /// In which session, where it is in one.
    pub session: Option<SessionId>,
    /// Of what.
    pub resource: ResourceName,
    /// What.
    pub operation: Operation,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A lease.
    Acquire {
        /// Under which name, where the caller knows it.
        request: Option<RequestId>,
        /// Whether it may take a place in the queue.
        waits: bool,
    },
    /// The end of a lease.
    Release {
        /// Which.
        token: FencingToken,
    },
    /// The end of a lease, by an operator.
    Revoke {
        /// Which.
        token: FencingToken,
    },
    /// Something that must be refused, whatever the state: a broken name, a foreign secret.
    Nonsense,
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It holds the lease.
    Acquired {
        /// With this token.
        token: FencingToken,
        /// As this hold.
        holder: HolderId,
        /// Under this name, where it was told.
        request: Option<RequestId>,
    },
    /// The lease ended by this call.
    Ended,
    /// The lease had ended before, or never was.
    NotHeld,
    /// Nothing happened and nothing will, for this reason.
    Refused(Reason),
    /// It may have happened, or may happen yet.
    Unknown,
}

/// Why nothing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// Held or awaited by others.
    LeaseHeld,
    /// Held by this session for another request.
    AlreadyHeld,
    /// Waited out.
    WaitExpired,
    /// No such session.
    SessionEnded,
    /// A larger token than that of the lease, or somebody else's lease.
    StaleToken,
    /// A limit is reached.
    LimitReached,
    /// The store or the coordinator is away; nothing was submitted.
    Unavailable,
    /// What was asked made no sense.
    Invalid,
    /// Another reason.
    Other,
}

/// What the client library says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is held.
    Held,
    /// The last renewal failed.
    Suspect,
    /// The local deadline has passed.
    Expired,
    /// It is lost.
    Lost(LostReason),
    /// `Lease::grant` gave out the grant: whoever got it may act on it now.
    Gave,
}

impl Standing {
    /// Whether it says that work may go on.
    #[must_use]
    pub(crate) fn is_held(self) -> bool {
        matches!(self, Self::Held | Self::Suspect | Self::Gave)
    }
}

/// What came to the guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Guarded {
    /// The fence is at this token from now on, and no writer of an older one is under way.
    Sealed,
    /// The data was read.
    Read,
    /// The data was written.
    Wrote {
        /// The key of the effect, where it has one.
        key: Option<u64>,
    },
    /// The effect of this key had been applied before: nothing was written.
    Replayed {
        /// Its key.
        key: u64,
    },
    /// Nothing was written.
    Refused(Barred),
}

/// Why the guard refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Barred {
    /// The token is below the fence.
    Stale,
    /// It is above.
    Unsealed,
    /// It is another hold's.
    Collision,
    /// The guard could not tell.
    Unavailable,
}

/// What was done to a host or a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It ended at once, with all that it had not made durable.
    Crash(Host),
    /// It was started again.
    Restart(Host),
    /// Its process stands still; its clock goes on.
    Pause(Host),
    /// Its process goes on.
    Resume(Host),
    /// The machine stands still, and with it every clock that does not count suspends.
    Suspend(Host),
    /// The machine goes on.
    Wake(Host),
    /// Nothing gets from the one to the other.
    Cut(Host, Host),
    /// The link works again.
    Heal(Host, Host),
}

/// What a run goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No fault happens from now on; what was cut is healed, what was paused goes on.
    FaultsEnd,
    /// No client asks for anything new, and all have closed their sessions or are gone for longer than their time
    /// to live.
    Quiet,
}

/// What is left, counted after [`Phase::Quiet`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Census {
    /// Sessions in the store.
    pub sessions: u64,
    /// Leases in the store.
    pub leases: Vec<(ResourceName, FencingToken)>,
    /// Places in queues.
    pub places: u64,
    /// Tasks of coordinators beyond those of an idle one, each by its name.
    pub tasks: Vec<&'static str>,
    /// Streams that are open at a coordinator.
    pub streams: u64,
}

/// Writes a history down, from wherever something happens. Clones write the same one.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    written: Arc<Mutex<Written>>,
}

#[derive(Default)]
struct Written {
    now: At,
    calls: u64,
    entries: Vec<Entry>,
}

/// More than this no run records: it would be one that does not end.
const MOST_ENTRIES: usize = 1_000_000;

impl fmt::Debug for Recorder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets true time: the run's clock calls it whenever it moves.
    pub(crate) fn set_now(&self, now: At) {
        self.written().now = now;
    }

    /// True time.
    #[must_use]
    pub(crate) fn now(&self) -> At {
        self.written().now
    }

    /// Writes down what happens now.
    pub(crate) fn note(&self, what: What) {
        let mut written = self.written();
        assert!(written.entries.len() < MOST_ENTRIES, "the run does not end");
        let at = written.now;
        written.entries.push(Entry { at, what });
    }

    /// Writes down what one transaction decided.
    pub(crate) fn log(&self, incarnation: u32, revision: Revision, decisions: Vec<Decision>) {
        for decision in decisions {
            self.note(What::Log {
                incarnation,
                revision,
                decision,
            });
        }
    }

    /// Writes down that a client asks, and names the call.
    pub(crate) fn ask(
        &self,
        host: Host,
        session: Option<SessionId>,
        resource: ResourceName,
        operation: Operation,
    ) -> CallId {
        let call = {
            let mut written = self.written();
            written.calls += 1;
            CallId(written.calls)
        };
        self.note(What::Asked(Asked {
            call,
            host,
            session,
            resource,
            operation,
        }));
        call
    }

    /// Writes down what a client was told.
    pub(crate) fn tell(&self, call: CallId, outcome: Outcome) {
        self.note(What::Told { call, outcome });
    }

    /// Writes down what came to the guard.
    pub(crate) fn guarded(&self, host: Host, grant: &Grant, what: Guarded) {
        let grant = grant.clone();
        self.note(What::Guarded { host, grant, what });
    }

    /// The run so far.
    #[must_use]
    pub(crate) fn history(&self, setting: Setting) -> History {
        History {
            setting,
            entries: self.written().entries.clone(),
        }
    }
}
