//! Reads of leases for people and tools. Ownership is never decided by them.

use std::time::Duration;

use etcd_client::{GetOptions, SortOrder, SortTarget, TxnOp, TxnOpResponse};
use palisade_token::ResourceName;

use super::EtcdStore;
use super::codec::{self, revision};
use super::delay::delay_left;
use super::link::Link;
use crate::domain::Hold;
use crate::store::{Failure, Listed, Page, Standing, StoreError};

/// Operations that one transaction of etcd's may have, by its default.
const MAX_TXN_OPS: usize = 128;

/// Leases read at once: with the largest metadata they stay below the 4 MiB that a reply may have.
const MAX_RANGE: usize = 256;

impl EtcdStore {
    pub(super) async fn do_lease(
        &self,
        resource: &ResourceName,
        queue_size: usize,
    ) -> Result<Standing, StoreError> {
        let link = self.links.get().await?;
        let keys = &link.context().keys;
        let reads = vec![
            TxnOp::get(keys.lease(resource), None),
            queue(&link, resource, queue_size),
            TxnOp::get(keys.generation(), None),
        ];
        let (replies, header) = link.read(reads).await?;
        let mut replies = replies.into_iter();
        let hold = match replies.next() {
            Some(TxnOpResponse::Get(get)) => get.kvs().first().map(codec::hold).transpose()?,
            _ => {
                return Err(StoreError::not_applied(Failure::Damaged(
                    "a reply of another kind",
                )));
            }
        };
        let (waiters, queue) = match replies.next() {
            Some(TxnOpResponse::Get(found)) => {
                let places = found.kvs().iter().map(codec::place);
                let count = u64::try_from(found.count()).unwrap_or(0);
                (count, places.collect::<Result<_, _>>()?)
            }
            _ => (0, Vec::new()),
        };
        // Most that is asked about is held, or was released in order.
        let lock_delay_left = match hold {
            Some(_) => Duration::ZERO,
            None => Box::pin(delay_left(&link, resource)).await?,
        };
        let generation = match replies.next() {
            Some(TxnOpResponse::Get(found)) => {
                found.kvs().first().map(codec::generation).transpose()?
            }
            _ => None,
        };
        Ok(Standing {
            hold: hold.map(|stored| stored.record),
            waiters,
            queue,
            lock_delay_left,
            generation: generation.map(|stored| stored.record),
            revision: revision(header.revision())?,
        })
    }

    pub(super) async fn do_leases_held(&self) -> Result<u64, StoreError> {
        let link = self.links.get().await?;
        let all = link.context().keys.leases("");
        let options = GetOptions::new().with_range(all.end).with_count_only();
        let (replies, _) = link
            .read(vec![TxnOp::get(all.start, Some(options))])
            .await?;
        Ok(replies.into_iter().next().map_or(0, counted))
    }

    pub(super) async fn do_leases(
        &self,
        prefix: &str,
        after: Option<&ResourceName>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let link = self.links.get().await?;
        let keys = &link.context().keys;
        let range = keys.leases(prefix);
        let start = match after {
            // The next key there can be: the name with the least byte behind it.
            Some(after) => [keys.lease(after), vec![0]].concat().max(range.start),
            None => range.start,
        };
        let wanted = i64::try_from(limit.min(MAX_RANGE)).unwrap_or(i64::MAX);
        let options = GetOptions::new().with_range(range.end).with_limit(wanted);
        let (replies, header) = link.read(vec![TxnOp::get(start, Some(options))]).await?;
        let Some(TxnOpResponse::Get(found)) = replies.first() else {
            return Err(StoreError::not_applied(Failure::Damaged(
                "a reply of another kind",
            )));
        };
        let holds: Vec<Hold> = found
            .kvs()
            .iter()
            .map(|key| codec::hold(key).map(|stored| stored.record))
            .collect::<Result<_, _>>()?;
        let next = holds
            .last()
            .filter(|_| found.more())
            .map(|hold| hold.claim.resource.clone());
        let mut leases = Vec::with_capacity(holds.len());
        for some in holds.chunks(MAX_TXN_OPS) {
            leases.extend(with_waiters(&link, some).await?);
        }
        Ok(Page {
            leases,
            next,
            revision: revision(header.revision())?,
        })
    }
}

/// The first of a queue, if any are asked for; how many there are is told in any case.
fn queue(link: &Link, resource: &ResourceName, size: usize) -> TxnOp {
    if size == 0 {
        return count_waiters(link, resource);
    }
    let queue = link.context().keys.queue(resource);
    let options = GetOptions::new()
        .with_range(queue.end)
        .with_sort(SortTarget::Create, SortOrder::Ascend)
        .with_limit(i64::try_from(size).unwrap_or(i64::MAX));
    TxnOp::get(queue.start, Some(options))
}

fn count_waiters(link: &Link, resource: &ResourceName) -> TxnOp {
    let queue = link.context().keys.queue(resource);
    let options = GetOptions::new().with_range(queue.end).with_count_only();
    TxnOp::get(queue.start, Some(options))
}

fn counted(reply: TxnOpResponse) -> u64 {
    match reply {
        TxnOpResponse::Get(get) => u64::try_from(get.count()).unwrap_or(0),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => 0,
    }
}

async fn with_waiters(link: &Link, holds: &[Hold]) -> Result<Vec<Listed>, StoreError> {
    let count = |hold: &Hold| count_waiters(link, &hold.claim.resource);
    let (replies, _) = link.read(holds.iter().map(count).collect()).await?;
    let standings = holds.iter().zip(replies).map(|(hold, reply)| Listed {
        hold: hold.clone(),
        waiters: counted(reply),
    });
    Ok(standings.collect())
}
