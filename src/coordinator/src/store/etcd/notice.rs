//! Notices to holders whose leases are wanted back. They live and die with the holder's session, so that none
//! outlasts what it is about by more than that.

use etcd_client::{Compare, CompareOp, GetOptions, TxnOp, TxnOpResponse};
use palisade_token::{FencingToken, ResourceName};

use super::EtcdStore;
use super::codec;
use super::link::Link;
use super::revoke::{as_seen, subject};
use super::view::Sight;
use crate::domain::{AskBack, Notice, Revision, decide_revoke};
use crate::store::{Failure, StoreError};

/// How often a notice is tried again: each time the lease has changed meanwhile.
const ROUNDS: usize = 64;
/// Notices that are read when a watch begins: more than operators write by hand.
const MAX_STANDING: i64 = 1000;

impl EtcdStore {
    pub(super) async fn do_ask_back(&self, ask: &AskBack) -> Result<bool, StoreError> {
        let resource = &ask.revoke.resource;
        for _ in 0..ROUNDS {
            let link = self.links.get().await?;
            let sight = Sight::of(&link, subject(resource)).await?;
            let compares = as_seen(&link, resource, sight.hold.as_ref());
            let decided = decide_revoke(&sight.view, ask.revoke.token);
            let Ok(Some((hold, _))) = decided else {
                if !link.confirm_in_log(compares).await? {
                    continue;
                }
                decided?;
                return Ok(false);
            };
            let keys = &link.context().keys;
            let value = codec::notice_value(&ask.notice(hold, Revision::default()));
            let options = keys.on_lease(hold.claim.session);
            let put = TxnOp::put(keys.notice(resource), value, Some(options));
            if link.write(compares, vec![put]).await?.is_some() {
                return Ok(true);
            }
        }
        Err(StoreError::not_applied(Failure::Unavailable))
    }

    pub(super) async fn do_decline(
        &self,
        resource: &ResourceName,
        token: FencingToken,
    ) -> Result<(), StoreError> {
        for _ in 0..ROUNDS {
            let link = self.links.get().await?;
            let key = link.context().keys.notice(resource);
            let (replies, _) = link.read(vec![TxnOp::get(key.clone(), None)]).await?;
            let found = match replies.first() {
                Some(TxnOpResponse::Get(found)) => found.kvs().first(),
                _ => None,
            };
            let Some(found) = found else { return Ok(()) };
            if codec::notice(found).is_some_and(|notice| notice.token != token) {
                return Ok(());
            }
            let same = Compare::mod_revision(key.clone(), CompareOp::Equal, found.mod_revision());
            let delete = TxnOp::delete(key, None);
            if link.write(vec![same], vec![delete]).await?.is_some() {
                return Ok(());
            }
        }
        Err(StoreError::not_applied(Failure::Unavailable))
    }
}

/// The notices that stand.
pub(super) async fn standing(link: &Link) -> Result<Vec<Notice>, StoreError> {
    let range = link.context().keys.notices();
    let options = GetOptions::new()
        .with_range(range.end)
        .with_limit(MAX_STANDING);
    let read = link.read(vec![TxnOp::get(range.start, Some(options))]);
    let (replies, _) = read.await?;
    Ok(match replies.first() {
        Some(TxnOpResponse::Get(found)) => found.kvs().iter().filter_map(codec::notice).collect(),
        _ => Vec::new(),
    })
}
