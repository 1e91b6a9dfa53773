//! etcd as the models see it: one log of transactions, each with a revision of its own.
//!
//! Modelled: compares that see the state before the whole transaction, nested transactions, the refusal of a
//! key that is written twice and of a key on a lease that has ended, sessions that end with all their keys.
//! Left out: followers, terms, compaction, watches. Reads are linearizable.

use std::sync::LazyLock;

use palisade_coordinator::domain::{
    AttachMark, Caller, Claim, Generation, GrantNote, Hold, Nonce, OpenId, Place, Principal,
    RequestId, Revision, SecretHash, Session, SessionId, View,
};
use palisade_token::ResourceName;

/// An attach mark, small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Mark {
    pub(crate) epoch: u8,
    pub(crate) sub: u8,
    pub(crate) nonce: u8,
}

impl From<Mark> for AttachMark {
    fn from(mark: Mark) -> Self {
        Self {
            epoch: mark.epoch.into(),
            sub: mark.sub.into(),
            nonce: Nonce::from_bytes([mark.nonce; 16]),
        }
    }
}

impl From<AttachMark> for Mark {
    fn from(mark: AttachMark) -> Self {
        Self {
            epoch: small(mark.epoch),
            sub: small(mark.sub),
            nonce: mark.nonce.as_bytes()[0],
        }
    }
}

pub(crate) fn small(number: u64) -> u8 {
    u8::try_from(number).expect("the models count to few")
}

/// A request of a session for a resource, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ask {
    pub(crate) resource: usize,
    pub(crate) session: usize,
    pub(crate) request: usize,
}

/// The key of a session: when it was written, and its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Marked {
    pub(crate) mark: Mark,
    pub(crate) written: u8,
}

/// The key of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Held {
    pub(crate) by: Ask,
    pub(crate) granted: u8,
    pub(crate) generation: u8,
}

/// The key of a place in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Queued {
    pub(crate) since: u8,
    pub(crate) by: Ask,
}

/// What a transaction rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Compare {
    Vacant(usize),
    Held(usize),
    HeldSince(usize, u8),
    Marked(usize, u8),
    Generation(u8),
    NobodyWaits(usize),
    NobodyWaitsLonger(usize, u8),
    Queued(Queued),
    NoPlace(Ask),
}

/// What a transaction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Write {
    Hold { by: Ask, generation: u8 },
    Vacate(usize),
    Queue(Ask),
    Leave(Ask),
    Mark(usize, Mark),
}

/// The key that a write is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Lease(usize),
    Place(Ask),
    Session(usize),
}

impl Write {
    fn key(self) -> Key {
        match self {
            Self::Hold { by, .. } => Key::Lease(by.resource),
            Self::Vacate(resource) => Key::Lease(resource),
            Self::Queue(ask) | Self::Leave(ask) => Key::Place(ask),
            Self::Mark(session, _) => Key::Session(session),
        }
    }

    /// The session whose lease the key is put on.
    fn hangs_on(self) -> Option<usize> {
        match self {
            Self::Hold { by, .. } | Self::Queue(by) => Some(by.session),
            Self::Mark(session, _) => Some(session),
            Self::Vacate(_) | Self::Leave(_) => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Txn {
    pub(crate) compares: Vec<Compare>,
    pub(crate) writes: Vec<Write>,
}

impl Txn {
    /// Whether two write a key in common: then they never travel together.
    pub(crate) fn shares_key(&self, other: &Self) -> bool {
        let writes = |key: Key| other.writes.iter().any(|write| write.key() == key);
        self.writes.iter().any(|write| writes(write.key()))
    }
}

/// The transaction was refused as a whole: nothing of it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Etcd {
    pub(crate) revision: u8,
    pub(crate) generation: u8,
    pub(crate) sessions: Vec<Option<Marked>>,
    pub(crate) leases: Vec<Option<Held>>,
    /// In the order of service.
    pub(crate) queue: Vec<Queued>,
}

impl Etcd {
    pub(crate) fn new(resources: usize, sessions: usize) -> Self {
        let opened = Marked {
            mark: Mark::default(),
            written: 1,
        };
        Self {
            revision: 1,
            generation: 1,
            sessions: vec![Some(opened); sessions],
            leases: vec![None; resources],
            queue: Vec::new(),
        }
    }

    /// Those who wait for a resource.
    pub(crate) fn line(&self, resource: usize) -> impl Iterator<Item = &Queued> {
        self.queue
            .iter()
            .filter(move |queued| queued.by.resource == resource)
    }

    pub(crate) fn head(&self, resource: usize) -> Option<Queued> {
        self.line(resource).next().copied()
    }

    fn holds(&self, compare: Compare) -> bool {
        match compare {
            Compare::Vacant(resource) => self.leases[resource].is_none(),
            Compare::Held(resource) => self.leases[resource].is_some(),
            Compare::HeldSince(resource, granted) => {
                self.leases[resource].is_some_and(|held| held.granted == granted)
            }
            Compare::Marked(session, written) => {
                self.sessions[session].is_some_and(|marked| marked.written == written)
            }
            Compare::Generation(generation) => self.generation == generation,
            Compare::NobodyWaits(resource) => self.head(resource).is_none(),
            Compare::NobodyWaitsLonger(resource, since) => {
                self.line(resource).all(|queued| queued.since >= since)
            }
            Compare::Queued(queued) => self.queue.contains(&queued),
            Compare::NoPlace(ask) => self.queue.iter().all(|queued| queued.by != ask),
        }
    }

    /// Applies a transaction of nested ones: each does all that it writes, or nothing. Every compare sees the
    /// state before.
    pub(crate) fn apply(&mut self, nested: &[Txn]) -> Result<Vec<bool>, Refused> {
        let holds = |txn: &Txn| txn.compares.iter().all(|compare| self.holds(*compare));
        let done: Vec<_> = nested.iter().map(holds).collect();
        let writes = nested.iter().zip(&done).filter(|(_, done)| **done);
        let writes: Vec<_> = writes.flat_map(|(txn, _)| txn.writes.clone()).collect();
        // etcd looks for keys that are written twice before it compares anything.
        let all: Vec<_> = nested.iter().flat_map(|txn| &txn.writes).collect();
        let is_twice =
            (1..all.len()).any(|at| all[..at].iter().any(|before| before.key() == all[at].key()));
        let is_gone = |write: &Write| {
            let session = write.hangs_on();
            session.is_some_and(|session| self.sessions[session].is_none())
        };
        if is_twice || writes.iter().any(is_gone) {
            return Err(Refused);
        }
        self.commit(writes);
        Ok(done)
    }

    /// As an etcd would that does not look for keys that are written twice.
    pub(crate) fn apply_unchecked(&mut self, nested: &[Txn]) -> Vec<bool> {
        let holds = |txn: &Txn| txn.compares.iter().all(|compare| self.holds(*compare));
        let done: Vec<_> = nested.iter().map(holds).collect();
        let writes = nested.iter().zip(&done).filter(|(_, done)| **done);
        let writes = writes.flat_map(|(txn, _)| txn.writes.clone()).collect();
        self.commit(writes);
        done
    }

    fn commit(&mut self, writes: Vec<Write>) {
        if !writes.is_empty() {
            self.revision += 1;
        }
        writes.into_iter().for_each(|write| self.write(write));
    }

    fn write(&mut self, write: Write) {
        let revision = self.revision;
        match write {
            Write::Hold { by, generation } => {
                let granted = revision;
                self.leases[by.resource] = Some(Held {
                    by,
                    granted,
                    generation,
                });
            }
            Write::Vacate(resource) => self.leases[resource] = None,
            Write::Queue(by) => self.queue.push(Queued {
                since: revision,
                by,
            }),
            Write::Leave(ask) => self.queue.retain(|queued| queued.by != ask),
            Write::Mark(session, mark) => {
                let written = revision;
                self.sessions[session] = Some(Marked { mark, written });
            }
        }
    }

    /// A session's lease ends, and all that hangs on it in one step.
    pub(crate) fn end(&mut self, session: usize) {
        self.revision += 1;
        self.sessions[session] = None;
        self.queue.retain(|queued| queued.by.session != session);
        for lease in &mut self.leases {
            if lease.is_some_and(|held| held.by.session == session) {
                *lease = None;
            }
        }
    }

    pub(crate) fn session(&self, session: usize) -> Option<Session> {
        let mark = self.sessions[session]?.mark;
        Some(Session {
            mark: mark.into(),
            ..NAMES.sessions[session].clone()
        })
    }

    /// What a read shows to whoever asks.
    pub(crate) fn view(&self, ask: Ask) -> View {
        let mut line = self.line(ask.resource);
        let own = line.find(|queued| queued.by == ask);
        let head = self.head(ask.resource);
        View {
            session: self.session(ask.session),
            hold: self.leases[ask.resource].map(hold),
            own_place: own.copied().map(place),
            head: head.map(place),
            waiters: u64::try_from(self.line(ask.resource).count()).expect("few"),
            delay: None,
        }
    }
}

fn hold(held: Held) -> Hold {
    Hold {
        claim: claim(held.by),
        generation: Generation {
            nonce: Nonce::from_bytes([held.generation; 16]),
            base: 1,
            since_revision: Revision(0),
        },
        granted: Revision(held.granted.into()),
        note: GrantNote::default(),
    }
}

fn place(queued: Queued) -> Place {
    Place {
        claim: claim(queued.by),
        since: Revision(queued.since.into()),
    }
}

pub(crate) fn claim(ask: Ask) -> Claim {
    NAMES.claims[ask.resource][ask.session][ask.request].clone()
}

/// The caller of a session, as a coordinator or a stream with this nonce.
pub(crate) fn caller(session: usize, epoch: u8, nonce: u8) -> Caller {
    let Session {
        id,
        principal,
        secret,
        ..
    } = NAMES.sessions[session].clone();
    Caller {
        session: id,
        principal,
        secret,
        epoch: epoch.into(),
        is_retry: false,
        process: Nonce::from_bytes([nonce; 16]),
        mark: None,
    }
}

pub(crate) fn resource(number: usize) -> ResourceName {
    NAMES.resources[number].clone()
}

pub(crate) fn request(number: usize) -> RequestId {
    NAMES.requests[number].clone()
}

/// As many as any model needs: made once, since their hashes cost more than a step of a model.
const RESOURCES: usize = 2;
const SESSIONS: usize = 4;
const REQUESTS: usize = 2;

struct Names {
    resources: Vec<ResourceName>,
    requests: Vec<RequestId>,
    sessions: Vec<Session>,
    claims: Vec<Vec<Vec<Claim>>>,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let resource = |number| ResourceName::new(format!("r{number}")).expect("a name");
    let request = |number| RequestId::new(&format!("q{number}")).expect("an id");
    let resources: Vec<_> = (0..RESOURCES).map(resource).collect();
    let requests: Vec<_> = (0..REQUESTS).map(request).collect();
    let sessions: Vec<_> = (0..SESSIONS).map(session).collect();
    let claim = |resource: &ResourceName, session: &Session, request: &RequestId| {
        Claim::new(session, resource.clone(), request.clone(), Vec::new())
    };
    let of_session = |resource: &ResourceName, session: &Session| {
        let claims = requests.iter();
        claims
            .map(|request| claim(resource, session, request))
            .collect()
    };
    let claims = resources
        .iter()
        .map(|resource| sessions.iter().map(|of| of_session(resource, of)).collect());
    Names {
        claims: claims.collect(),
        resources: resources.clone(),
        requests: requests.clone(),
        sessions: sessions.clone(),
    }
});

fn session(number: usize) -> Session {
    let principal = Principal::anonymous();
    let open_id = OpenId::new(&format!("s{number}")).expect("an id");
    Session {
        id: SessionId::derive(&principal, &open_id),
        principal,
        secret: SecretHash::of(b"secret"),
        label: String::new(),
        ttl_ms: 5000,
        opening: Nonce::from_bytes([0; 16]),
        mark: Mark::default().into(),
    }
}
