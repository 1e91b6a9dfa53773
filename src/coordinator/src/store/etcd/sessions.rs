//! Sessions: one etcd lease each, with a key that lives and dies with it.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, LeaseGrantOptions, TxnOp};
use futures::stream::{self, StreamExt};
use tracing::debug;

use super::EtcdStore;
use super::codec::{self, SeenSession};
use super::fault::{Fault, Kind};
use super::keepalive::{Answer, Unanswered};
use super::link::{Context, Link};
use super::reads::read;
use crate::domain::{
    Acquired, Caller, Hold, HoldName, Place, Refusal, Release, Session, SessionId, admit,
};
use crate::store::{Alive, Failure, StoreError};

/// How many connections a renewal is tried on: each may break beneath it.
const RENEWALS: usize = 3;
/// How often an opening looks again: a lease that ends between two steps is made anew.
const ROUNDS: usize = 8;
/// Leases of one closing session that are released at once: they travel together.
const RELEASES_AT_ONCE: usize = 64;

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

fn unknown(unanswered: Unanswered) -> StoreError {
    StoreError::unknown(Failure::Unavailable, unanswered)
}

/// etcd counts whole seconds: a part of one is rounded up.
fn whole_seconds(ttl_ms: u64) -> i64 {
    i64::try_from(ttl_ms.div_ceil(1000)).unwrap_or(i64::MAX)
}

impl EtcdStore {
    pub(super) async fn do_open(&self, session: Session) -> Result<Alive, StoreError> {
        for _ in 0..ROUNDS {
            let link = self.links.get().await?;
            if let Some(open) = read(&link, session.id).await? {
                return reopened(&open.record, &session);
            }
            let granted = grant_lease(&link, &session).await?;
            let session = Session {
                ttl_ms: u64::try_from(granted.as_millis()).unwrap_or(u64::MAX),
                ..session.clone()
            };
            let key = link.context().keys.session(session.id);
            let absent = Compare::create_revision(key.clone(), CompareOp::Equal, 0);
            let options = link.context().keys.on_lease(session.id);
            let put = TxnOp::put(key, codec::session_value(&session), Some(options));
            if let Some(committed) = link.write(vec![absent], vec![put]).await? {
                let id = session.id;
                let opened = SeenSession {
                    record: session,
                    written: committed.reached.revision,
                };
                link.known().session(Arc::new(opened));
                return Ok(Alive {
                    session: id,
                    ttl: granted,
                });
            }
        }
        Err(StoreError::not_applied(Failure::Unavailable))
    }

    pub(super) async fn do_renew(&self, caller: &Caller) -> Result<Alive, StoreError> {
        self.pace.keep().await;
        let mut failed = None;
        for _ in 0..RENEWALS {
            let link = match (self.links.get().await, failed) {
                (Ok(link), _) => link,
                (Err(error), None) => return Err(error),
                (Err(error), Some(_)) => return Err(error.or_happened()),
            };
            let Context {
                clock,
                keys,
                liveness,
                ..
            } = link.context();
            let began = clock.now();
            admit_renewal(&link, caller).await?;
            let lease = keys.lease_id(caller.session);
            match link.keepalive().renew(lease).await {
                Ok(Answer::Lives { ttl, sent }) => {
                    // Where it was sent for another caller, that was before this one came.
                    let ttl = ttl.saturating_sub(sent.until(began));
                    let session = caller.session;
                    return Ok(Alive { session, ttl });
                }
                Ok(Answer::Gone) => {
                    liveness.forget(lease);
                    return Err(self.not_renewed(caller.session).await);
                }
                Ok(Answer::GoAlone) => failed = Some(Unanswered::Silent),
                Err(Unanswered::Broken) => failed = Some(Unanswered::Broken),
                Err(unanswered) => return Err(unknown(unanswered)),
            }
        }
        Err(unknown(failed.unwrap_or(Unanswered::Broken)))
    }

    /// A keepalive reply proves nothing: whether the session lives, its key says.
    async fn not_renewed(&self, id: SessionId) -> StoreError {
        let found = async {
            let link = self.links.get().await?;
            read(&link, id).await
        };
        match found.await {
            Ok(None) => Refusal::SessionEnded { session: id }.into(),
            Ok(Some(_)) => StoreError::not_applied(Failure::Unavailable),
            Err(error) => error,
        }
    }

    pub(super) async fn do_close(&self, caller: &Caller) -> Result<(), StoreError> {
        let link = self.links.get().await?;
        let Some(stored) = read(&link, caller.session).await? else {
            return Ok(());
        };
        let session = admit(Some(&stored.record), caller)?;
        self.release_all(caller).await;
        let lease = link.context().keys.lease_id(session.id);
        link.context().liveness.forget(lease);
        let mut leases = link.leases();
        match link.call(leases.revoke(lease)).await {
            Ok(_revoked) => Ok(()),
            Err(fault) if fault.kind == Kind::LeaseGone => Ok(()),
            Err(fault) => Err(fault.into_error()),
        }
    }

    /// Releases what a session has, so that those who wait get it at once, and so that its end is seen as
    /// released. What is left ends with the session.
    async fn release_all(&self, caller: &Caller) {
        let holdings = match self.do_holdings(caller.session).await {
            Ok(holdings) => holdings,
            Err(error) => {
                debug!(%error, session = %caller.session, "what a closing session has is not known");
                return;
            }
        };
        let releases = holdings.into_iter().map(|held| {
            let (Acquired::Held(Hold { claim, .. }) | Acquired::Queued(Place { claim, .. })) = held;
            Release {
                caller: caller.clone(),
                resource: claim.resource,
                hold: HoldName::Request(claim.request),
            }
        });
        let ended = stream::iter(releases).map(|release| async move {
            if let Err(error) = Box::pin(self.do_release(&release)).await {
                debug!(%error, resource = %release.resource, "left to the session's end");
            }
        });
        ended
            .buffer_unordered(RELEASES_AT_ONCE)
            .collect::<()>()
            .await;
    }

    pub(super) async fn do_time_left(&self, id: SessionId) -> Result<Duration, StoreError> {
        let link = self.links.get().await?;
        let mut leases = link.leases();
        let reply = link
            .call(leases.time_to_live(link.context().keys.lease_id(id), None))
            .await;
        match reply.map_err(Fault::into_unsent)?.ttl() {
            // Not linearizable, and wrong in some versions: whether the session lives, its key says.
            ..0 => match read(&link, id).await? {
                None => Err(Refusal::SessionEnded { session: id }.into()),
                Some(_) => Ok(Duration::ZERO),
            },
            left => Ok(seconds(left)),
        }
    }
}

/// Refuses a caller that may not renew. A stream whose mark was found in the session's key less than one time
/// to live ago is not looked up again: what it wrote last is compared by all that it does besides.
async fn admit_renewal(link: &Arc<Link>, caller: &Caller) -> Result<(), StoreError> {
    let Context {
        clock,
        keys,
        liveness,
        ..
    } = link.context();
    let lease = keys.lease_id(caller.session);
    let looked = clock.now();
    let is_known = |mark| liveness.is_owned(lease, mark, looked);
    if caller.mark.is_some_and(is_known) {
        return Ok(());
    }
    let stored = read(link, caller.session).await?;
    admit(stored.as_ref().map(|stored| &stored.record), caller)?;
    if let Some(mark) = caller.mark {
        liveness.owned(lease, mark, looked);
    }
    Ok(())
}

/// A retry finds the session that its first try opened (I4).
fn reopened(open: &Session, asked: &Session) -> Result<Alive, StoreError> {
    if open.secret != asked.secret || open.principal != asked.principal {
        return Err(Refusal::OpenIdTaken { session: asked.id }.into());
    }
    Ok(Alive {
        session: open.id,
        ttl: Duration::from_millis(open.ttl_ms),
    })
}

/// Makes the lease, or finds the one that a first try made; returns the time to live that it has.
async fn grant_lease(link: &Link, session: &Session) -> Result<Duration, StoreError> {
    let id = link.context().keys.lease_id(session.id);
    let mut leases = link.leases();
    let options = LeaseGrantOptions::new().with_id(id);
    let asked = link.context().clock.now();
    match link
        .call(leases.grant(whole_seconds(session.ttl_ms), Some(options)))
        .await
    {
        Ok(reply) => {
            let ttl = seconds(reply.ttl());
            link.context().liveness.lives(id, asked, ttl);
            Ok(ttl)
        }
        Err(fault) if fault.kind == Kind::LeaseExists => {
            let reply = link.call(leases.time_to_live(id, None)).await;
            Ok(seconds(reply.map_err(Fault::into_unsent)?.granted_ttl()))
        }
        Err(fault) => Err(fault.into_error()),
    }
}
