//! All leases of a prefix as they were at one revision: pages of etcd's history.

use std::ops::Range;
use std::sync::Arc;

use etcd_client::{GetOptions, TxnOp, TxnOpResponse};
use futures::StreamExt;
use futures::stream;

use super::EtcdStore;
use super::codec::{self, as_i64, revision};
use super::link::Link;
use crate::domain::Revision;
use crate::store::{Failure, Listed, Page, Pages, StoreError};

/// Leases read at once: with the largest metadata they stay below the 4 MiB that a reply may have.
const PAGE: i64 = 256;

struct Reading {
    link: Arc<Link>,
    /// What is left to read.
    left: Range<Vec<u8>>,
    /// That of the first page, once it was read.
    at: Option<Revision>,
    is_over: bool,
}

impl EtcdStore {
    pub(super) async fn do_snapshot(&self, prefix: &str) -> Result<Pages, StoreError> {
        let link = self.links.get().await?;
        let left = link.context().keys.leases(prefix);
        let reading = Reading {
            link,
            left,
            at: None,
            is_over: false,
        };
        let pages = stream::unfold(reading, |mut reading| async {
            if reading.is_over {
                return None;
            }
            let page = reading.next().await;
            reading.is_over |= page.is_err();
            Some((page, reading))
        });
        Ok(pages.boxed())
    }
}

impl Reading {
    async fn next(&mut self) -> Result<Page, StoreError> {
        let options = GetOptions::new()
            .with_range(self.left.end.clone())
            .with_limit(PAGE)
            .with_revision(self.at.map_or(0, as_i64));
        let get = TxnOp::get(self.left.start.clone(), Some(options));
        let (replies, header) = self.link.read(vec![get]).await?;
        let Some(TxnOpResponse::Get(found)) = replies.first() else {
            let damaged = Failure::Damaged("a reply of another kind");
            return Err(StoreError::not_applied(damaged));
        };
        let at = match self.at {
            Some(at) => at,
            None => revision(header.revision())?,
        };
        self.at = Some(at);
        let last = found.kvs().last().filter(|_| found.more());
        match last {
            Some(last) => self.left.start = [last.key(), &[0]].concat(),
            None => self.is_over = true,
        }
        let listed = |key| {
            codec::hold(key).map(|stored| Listed {
                hold: stored.record,
                waiters: 0,
            })
        };
        let leases: Vec<_> = found.kvs().iter().map(listed).collect::<Result<_, _>>()?;
        let next = leases.last().filter(|_| !self.is_over);
        Ok(Page {
            next: next.map(|last| last.hold.claim.resource.clone()),
            leases,
            revision: at,
        })
    }
}
