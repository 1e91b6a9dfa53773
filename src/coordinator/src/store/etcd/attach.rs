//! Streams: whose a session is, and what it has (I4, I5).

use std::sync::Arc;

use etcd_client::{GetOptions, LeaseTimeToLiveOptions, TxnOp, TxnOpResponse};

use super::EtcdStore;
use super::batch::Decided;
use super::codec::{self, SeenSession};
use super::fault::Fault;
use super::keys::Owned;
use super::link::Link;
use super::reads::read;
use super::step;
use crate::domain::{
    Acquired, AttachMark, Caller, Session, SessionId, decide_attach, decide_raise,
};
use crate::store::{Failure, StoreError};

/// How often a mark is looked at again after another one was faster: each time somebody else raised it.
const ROUNDS: usize = 8;
/// Operations that one transaction of etcd's may have, by its default.
const MAX_TXN_OPS: usize = 128;

impl EtcdStore {
    pub(super) async fn do_attach(&self, caller: &Caller) -> Result<Session, StoreError> {
        for _ in 0..ROUNDS {
            let link = self.links.get().await?;
            let stored = read(&link, caller.session).await?;
            let found = stored.as_ref().map(|stored| &stored.record);
            let mark = decide_attach(found, caller)?;
            let Some(stored) = stored else { continue };
            let Some(mark) = mark else {
                return Ok(stored.record);
            };
            if self.do_mark(&link, &stored, mark).await? {
                return Ok(Session {
                    mark,
                    ..stored.record
                });
            }
        }
        Err(StoreError::not_applied(Failure::Unavailable))
    }

    pub(super) async fn do_raise(&self, caller: &Caller, to: AttachMark) -> Result<(), StoreError> {
        for _ in 0..ROUNDS {
            let link = self.links.get().await?;
            let stored = read(&link, caller.session).await?;
            let found = stored.as_ref().map(|stored| &stored.record);
            if !decide_raise(found, caller, to)? {
                return Ok(());
            }
            let Some(stored) = stored else { continue };
            if self.do_mark(&link, &stored, to).await? {
                return Ok(());
            }
        }
        Err(StoreError::not_applied(Failure::Unavailable))
    }

    /// Raises the mark, if it is as it was seen.
    async fn do_mark(
        &self,
        link: &Link,
        seen: &SeenSession,
        mark: AttachMark,
    ) -> Result<bool, StoreError> {
        let step = step::raise(&link.context().keys, seen, mark);
        let Decided::Applied(committed, _) = link.submit(step).await? else {
            return Ok(false);
        };
        let raised = step::raised(seen, mark, committed);
        link.known().session(Arc::new(raised));
        Ok(true)
    }

    pub(super) async fn do_holdings(&self, id: SessionId) -> Result<Vec<Acquired>, StoreError> {
        let link = self.links.get().await?;
        let keys = &link.context().keys;
        let mut client = link.leases();
        let options = LeaseTimeToLiveOptions::new().with_keys();
        let asked = client.time_to_live(keys.lease_id(id), Some(options));
        let reply = link.call(asked).await.map_err(Fault::into_unsent)?;
        let owned: Vec<_> = reply
            .keys()
            .iter()
            .filter_map(|key| keys.owned(key).map(|owned| (owned, key.clone())))
            .collect();
        let mut holdings = Vec::with_capacity(owned.len());
        for some in owned.chunks(MAX_TXN_OPS) {
            holdings.extend(look(&link, some).await?);
        }
        holdings.retain(|found| match found {
            Acquired::Held(hold) => hold.claim.session == id,
            Acquired::Queued(place) => place.claim.session == id,
        });
        Ok(holdings)
    }
}

async fn look(link: &Link, owned: &[(Owned, Vec<u8>)]) -> Result<Vec<Acquired>, StoreError> {
    let get = |(_, key): &(Owned, Vec<u8>)| TxnOp::get(key.clone(), None::<GetOptions>);
    let (replies, _) = link.read(owned.iter().map(get).collect()).await?;
    let mut found = Vec::with_capacity(owned.len());
    for ((kind, _), reply) in owned.iter().zip(replies) {
        let TxnOpResponse::Get(reply) = reply else {
            return Err(StoreError::not_applied(Failure::Damaged(
                "a reply of another kind",
            )));
        };
        let Some(key) = reply.kvs().first() else {
            continue;
        };
        found.push(match kind {
            Owned::Lease => Acquired::Held(codec::hold(key)?.record),
            Owned::Place => Acquired::Queued(codec::place(key)?),
        });
    }
    Ok(found)
}
