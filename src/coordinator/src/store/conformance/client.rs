use std::sync::Arc;
use std::time::Duration;

use palisade_token::{FencingToken, ResourceName};

use crate::domain::{
    Acquire, Acquired, AttachMark, Caller, Hold, HoldName, Nonce, OpenId, Place, Principal,
    Release, Released, RequestId, SecretHash, Session, SessionId,
};
use crate::entropy::{Entropy, SystemEntropy};
use crate::store::{Alive, Store, StoreError};

/// A session as a client has it, for tests of stores.
#[derive(Debug, Clone)]
pub struct Client {
    /// The store that its calls go to.
    pub store: Arc<dyn Store>,
    /// What its calls say of it.
    pub caller: Caller,
    /// How many may wait where it waits.
    pub max_waiters: u64,
}

/// A resource's name.
pub(super) fn resource(name: &str) -> ResourceName {
    ResourceName::new(name).expect("tests use good names")
}

/// A request's id.
pub(super) fn request(name: &str) -> RequestId {
    RequestId::new(name).expect("tests use good ids")
}

/// The lease that an acquire came to.
pub(super) fn held(acquired: Acquired) -> Hold {
    match acquired {
        Acquired::Held(hold) => hold,
        Acquired::Queued(place) => panic!("it waits: {place:?}"),
    }
}

/// The place that an acquire came to.
pub(super) fn queued(acquired: Acquired) -> Place {
    match acquired {
        Acquired::Queued(place) => place,
        Acquired::Held(hold) => panic!("it holds: {hold:?}"),
    }
}

/// The token of a lease.
pub(super) fn token(hold: &Hold) -> FencingToken {
    hold.token().expect("what was granted has a token")
}

impl Client {
    /// What a session of this name is opened with.
    ///
    /// # Panics
    /// Where the name is not an id.
    #[must_use]
    pub fn session(name: &str, ttl: Duration) -> Session {
        let principal = Principal::anonymous();
        let open_id = OpenId::new(name).expect("tests use good ids");
        let entropy = SystemEntropy;
        Session {
            id: SessionId::derive(&principal, &open_id),
            principal,
            secret: SecretHash::of(name.as_bytes()),
            label: name.to_owned(),
            ttl_ms: u64::try_from(ttl.as_millis()).expect("tests use short times"),
            opening: entropy.nonce(),
            mark: AttachMark {
                epoch: 1,
                sub: 0,
                nonce: Nonce::from_bytes([0; 16]),
            },
        }
    }

    /// The client that opened a session.
    #[must_use]
    pub fn of(store: &Arc<dyn Store>, session: &Session) -> Self {
        Self {
            store: Arc::clone(store),
            caller: Caller {
                session: session.id,
                principal: session.principal.clone(),
                secret: session.secret,
                epoch: session.mark.epoch,
                is_retry: false,
                process: SystemEntropy.nonce(),
                mark: None,
            },
            max_waiters: 1000,
        }
    }

    /// Opens a session.
    ///
    /// # Panics
    /// Where that fails.
    pub async fn open(store: &Arc<dyn Store>, name: &str, ttl: Duration) -> Self {
        let session = Self::session(name, ttl);
        let client = Self::of(store, &session);
        let alive = store.open_session(session).await;
        let alive = alive.expect("a session can be opened");
        assert_eq!(alive.session, client.caller.session);
        assert!(alive.ttl >= ttl, "a shorter time to live than asked for");
        client
    }

    /// The same client, speaking through another coordinator.
    #[must_use]
    pub fn through(&self, store: &Arc<dyn Store>) -> Self {
        let mut client = self.clone();
        client.store = Arc::clone(store);
        client.caller.process = SystemEntropy.nonce();
        client
    }

    /// The same client at another epoch.
    #[must_use]
    pub fn at(&self, epoch: u64) -> Self {
        let mut client = self.clone();
        client.caller.epoch = epoch;
        client
    }

    /// The same client, trying again.
    #[must_use]
    pub fn retrying(&self) -> Self {
        let mut client = self.clone();
        client.caller.is_retry = true;
        client
    }

    /// The same client with a stream of its own at an epoch.
    ///
    /// # Errors
    /// What the store says.
    pub async fn attached(&self, epoch: u64) -> Result<Self, StoreError> {
        let mut client = self.at(epoch);
        client.caller.process = SystemEntropy.nonce();
        let session = self.store.attach(&client.caller).await?;
        client.caller.mark = Some(session.mark);
        Ok(client)
    }

    /// The same stream after it raised its mark.
    ///
    /// # Errors
    /// What the store says.
    ///
    /// # Panics
    /// Where it has no stream.
    pub async fn raised(&self) -> Result<Self, StoreError> {
        let mut client = self.clone();
        let from = self.caller.mark.expect("it is attached");
        let to = AttachMark {
            sub: from.sub + 1,
            ..from
        };
        self.store.raise(&self.caller, to).await?;
        client.caller.mark = Some(to);
        Ok(client)
    }

    /// An acquire of this client.
    #[must_use]
    pub fn wish(&self, name: &str, id: &str, waits: bool) -> Acquire {
        Acquire {
            caller: self.caller.clone(),
            resource: resource(name),
            request: request(id),
            metadata: Vec::new(),
            waits,
            max_waiters: self.max_waiters,
            previous: None,
            lock_delay_ms: 0,
        }
    }

    /// Acquires without waiting.
    ///
    /// # Errors
    /// What the store says.
    pub async fn try_acquire(&self, name: &str, id: &str) -> Result<Acquired, StoreError> {
        self.store.acquire(&self.wish(name, id, false)).await
    }

    /// Acquires, or takes a place in the queue.
    ///
    /// # Errors
    /// What the store says.
    pub async fn acquire(&self, name: &str, id: &str) -> Result<Acquired, StoreError> {
        self.store.acquire(&self.wish(name, id, true)).await
    }

    /// Takes what is free.
    ///
    /// # Panics
    /// Where it is not free.
    pub async fn take(&self, name: &str, id: &str) -> Hold {
        held(self.try_acquire(name, id).await.expect("it is free"))
    }

    /// Queues for what is not free.
    ///
    /// # Panics
    /// Where it is free.
    pub async fn queue(&self, name: &str, id: &str) -> Place {
        queued(self.acquire(name, id).await.expect("it can be waited for"))
    }

    /// Releases.
    ///
    /// # Errors
    /// What the store says.
    pub async fn release(&self, name: &str, hold: HoldName) -> Result<Released, StoreError> {
        let release = Release {
            caller: self.caller.clone(),
            resource: resource(name),
            hold,
        };
        self.store.release(&release).await
    }

    /// Releases what it holds.
    ///
    /// # Panics
    /// Where it does not hold it.
    pub async fn give_back(&self, hold: &Hold) {
        let name = hold.claim.resource.as_str();
        let released = self.release(name, HoldName::Token(token(hold))).await;
        match released.expect("a holder can release") {
            Released::Lease { hold: ended, .. } => assert_eq!(ended, *hold),
            other => panic!("it was held, and yet: {other:?}"),
        }
    }

    /// What a request came to.
    ///
    /// # Panics
    /// Where the store does not say.
    pub async fn standing(&self, name: &str, id: &str) -> Option<Acquired> {
        let session = self.caller.session;
        let (resource, request) = (resource(name), request(id));
        let standing = self.store.standing(session, &resource, &request).await;
        standing.expect("the store can be read")
    }

    /// Renews.
    ///
    /// # Errors
    /// What the store says.
    pub async fn renew(&self) -> Result<Alive, StoreError> {
        self.store.renew_session(&self.caller).await
    }

    /// Ends the session.
    ///
    /// # Errors
    /// What the store says.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.store.close_session(&self.caller).await
    }
}
