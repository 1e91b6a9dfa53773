//! The first message of a stream: whose session it is.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use palisade_api::AttachRequest;
use palisade_api::v1::attach_request::Message;
use tonic::Streaming;

use super::mark::Marks;
use super::parse::{self, Named, Whose};
use super::work::Shared;
use super::{Service, first_seq, unreadable};
use crate::access::Verb;
use crate::clock::within;
use crate::domain::{Acquired, AttachMark, Caller, Principal};
use crate::service::deadline::{Deadline, Kind};
use crate::service::error::{About, CallError};
use crate::service::lease::Living;
use crate::service::news::SessionSubscription;
use crate::service::parse::{Credentials, Opening, bad, missing};
use crate::traces::Traced;

/// Open requests that are looked up at a time.
const CONCURRENT_LOOKS: usize = 16;

/// A session whose own stream this is now.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) shared: Arc<Shared>,
    pub(super) seq: u64,
    pub(super) living: Living,
    pub(super) resumed: bool,
    /// What the client named, and where it stands.
    pub(super) statuses: Vec<(Named, Option<Acquired>)>,
    pub(super) news: SessionSubscription,
    /// What the client sends from now on.
    pub(super) inbound: Streaming<AttachRequest>,
}

impl Service {
    /// Reads the first message and makes the stream its session's own.
    pub(super) async fn open_stream(
        &self,
        (principal, trace): (Principal, Option<Traced>),
        mut inbound: Streaming<AttachRequest>,
        about: &mut About,
    ) -> Result<Opened, CallError> {
        let leases = &self.leases;
        let patience = leases.timeouts.default_call;
        let first = within(&leases.clock, patience, inbound.next()).await;
        let first = match first.map_err(|_| CallError::from(missing("open")))? {
            Some(Ok(first)) => first,
            Some(Err(status)) => return Err(unreadable(&status, &leases.limits)),
            None => return Err(missing("open").into()),
        };
        let seq = first_seq(first.seq)?;
        let Some(Message::Open(open)) = first.message else {
            return Err(bad("message", "open, as the first of a stream", "another").into());
        };
        self.access.check_any(&principal, Verb::Acquire)?;
        let least_ttl = leases.store.least_ttl();
        let (whose, named) = parse::open(open, &leases.limits, least_ttl)?;
        leases.admit_new()?;
        let deadline = Deadline::within(&leases.clock, patience);
        let (caller, living, resumed) = match whose {
            Whose::Session(credentials) => {
                about.session = Some(credentials.session);
                let caller = self.streaming(credentials, principal);
                let living = self.resume(&caller, &deadline).await?;
                (caller, living, true)
            }
            Whose::Opening(opening) => self.open(&opening, principal, &deadline, about).await?,
        };
        // From here on, so that no end is missed between the look and the news.
        let news = leases.news.subscribe_session(caller.session);
        let statuses = self.statuses(&caller, named, &deadline).await?;
        let shared = Arc::new(Shared {
            leases: Arc::clone(leases),
            access: self.access.clone(),
            marks: Marks::new(first_mark(&caller)),
            caller,
            trace,
        });
        Ok(Opened {
            shared,
            seq,
            living,
            resumed,
            statuses,
            news,
            inbound,
        })
    }

    /// The caller that a stream is: its nonce is its own, so that no other stream's mark is taken for it.
    fn streaming(&self, credentials: Credentials, principal: Principal) -> Caller {
        Caller {
            process: self.leases.entropy.nonce(),
            ..self.caller(credentials, principal, false)
        }
    }

    async fn open(
        &self,
        opening: &Opening,
        principal: Principal,
        deadline: &Deadline,
        about: &mut About,
    ) -> Result<(Caller, Living, bool), CallError> {
        let leases = &self.leases;
        let nonce = leases.entropy.nonce();
        let session = leases.session(opening, &principal, nonce);
        about.session = Some(session.id);
        let made = session.opening;
        let caller = Caller {
            session: session.id,
            principal,
            secret: session.secret,
            epoch: opening.epoch,
            is_retry: false,
            process: nonce,
            mark: None,
        };
        let sent = leases.clock.now();
        let asked = deadline.run(Kind::Write, leases.store.open_session(session));
        let alive = asked.await?;
        let asked = deadline.run(Kind::Write, leases.store.attach(&caller));
        let attached = asked.await.map_err(CallError::or_happened)?;
        if attached.opening == made {
            let living = leases.living(alive, sent, deadline).await?;
            return Ok((caller, living, false));
        }
        let living = self.renewed(&caller, deadline).await?;
        Ok((caller, living, true))
    }

    async fn resume(&self, caller: &Caller, deadline: &Deadline) -> Result<Living, CallError> {
        let asked = deadline.run(Kind::Write, self.leases.store.attach(caller));
        asked.await?;
        self.renewed(caller, deadline).await
    }

    /// To resume a session is a sign of life, too.
    async fn renewed(&self, caller: &Caller, deadline: &Deadline) -> Result<Living, CallError> {
        let own = Caller {
            mark: Some(first_mark(caller)),
            ..caller.clone()
        };
        let renewed = self.leases.renew(&own, deadline).await;
        renewed.map_err(CallError::or_happened)
    }

    async fn statuses(
        &self,
        caller: &Caller,
        named: Vec<Named>,
        deadline: &Deadline,
    ) -> Result<Vec<(Named, Option<Acquired>)>, CallError> {
        let look = async |named: Named| {
            let store = &self.leases.store;
            let asked = store.standing(caller.session, &named.resource, &named.request);
            let found = deadline.run(Kind::Read, asked).await;
            found.map(|found| (named, found))
        };
        let looks = stream::iter(named.into_iter().map(look));
        let found = looks.buffered(CONCURRENT_LOOKS).try_collect().await;
        found.map_err(CallError::or_happened)
    }
}

/// The mark that makes the stream its session's own.
fn first_mark(caller: &Caller) -> AttachMark {
    AttachMark {
        epoch: caller.epoch,
        sub: 0,
        nonce: caller.process,
    }
}
