//! Reads of sessions that travel together: each renewal of a session may ask whose it is, and one transaction
//! answers many of them for what a call costs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use etcd_client::{TxnOp, TxnOpResponse};
use tokio::sync::oneshot;

use super::codec::{self, SeenSession};
use super::link::Link;
use crate::domain::SessionId;
use crate::store::{Failure, StoreError};

/// Sessions that one transaction reads: half of what etcd takes by its default.
const MAX_TOGETHER: usize = 64;
/// Transactions under way at a time. Whoever comes while they are collects behind them.
const MAX_UNDER_WAY: usize = 2;

type Found = Result<Option<SeenSession>, StoreError>;

/// What waits to be read over one connection: no more than callers wait for it.
#[derive(Debug, Default)]
pub(super) struct Reads {
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    waiting: Vec<Ask>,
    under_way: usize,
    /// Transactions so far.
    #[cfg(test)]
    sent: u64,
}

#[derive(Debug)]
struct Ask {
    id: SessionId,
    told: oneshot::Sender<Found>,
}

/// A session as it is now. What is read together was asked for before the transaction was sent, so it is as if
/// each had been read by itself.
pub(super) async fn read(link: &Arc<Link>, id: SessionId) -> Found {
    if !link.context().is_batching {
        return alone(link, id).await;
    }
    let (told, answer) = oneshot::channel();
    if link.reads().put(Ask { id, told }) {
        let turn = Turn {
            link: Arc::clone(link),
            is_over: false,
        };
        link.context().tasks.spawn_many(turn.run());
    }
    match link.waited_for(answer).await {
        Ok(found) => found,
        Err(_untold) if link.broken().is_cancelled() => {
            Err(StoreError::not_applied(Failure::Unavailable))
        }
        // What they failed of together may be one's fault.
        Err(_untold) => alone(link, id).await,
    }
}

async fn alone(link: &Link, id: SessionId) -> Found {
    let get = TxnOp::get(link.context().keys.session(id), None);
    let (replies, _) = link.read(vec![get]).await?;
    found(replies.first())
}

fn found(reply: Option<&TxnOpResponse>) -> Found {
    match reply {
        Some(TxnOpResponse::Get(get)) => get.kvs().first().map(codec::session).transpose(),
        _ => Err(StoreError::not_applied(Failure::Damaged(
            "a reply of another kind",
        ))),
    }
}

impl Reads {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many transactions were made.
    #[cfg(test)]
    pub(super) fn sent(&self) -> u64 {
        self.line().sent
    }

    /// Whether another transaction is to be started for it.
    fn put(&self, ask: Ask) -> bool {
        let mut line = self.line();
        line.waiting.push(ask);
        let starts = line.under_way < MAX_UNDER_WAY;
        line.under_way += usize::from(starts);
        starts
    }

    /// What is read next; `None` where nothing waits, and then whoever asks has ended.
    fn take(&self) -> Option<Vec<Ask>> {
        let mut line = self.line();
        if line.waiting.is_empty() {
            line.under_way -= 1;
            return None;
        }
        #[cfg(test)]
        {
            line.sent += 1;
        }
        let most = line.waiting.len().min(MAX_TOGETHER);
        Some(line.waiting.drain(..most).collect())
    }
}

/// One of those that read, until nothing waits.
struct Turn {
    link: Arc<Link>,
    is_over: bool,
}

impl Turn {
    async fn run(mut self) {
        while let Some(mut asks) = self.link.reads().take() {
            // Whoever has gone away meanwhile needs no answer.
            asks.retain(|ask| !ask.told.is_closed());
            if !asks.is_empty() {
                self.read(asks).await;
            }
        }
        self.is_over = true;
    }

    /// Reads for all of them. Those that are not told find out by themselves.
    async fn read(&self, asks: Vec<Ask>) {
        let keys = &self.link.context().keys;
        let gets = asks
            .iter()
            .map(|ask| TxnOp::get(keys.session(ask.id), None));
        let Ok((replies, _)) = self.link.read(gets.collect()).await else {
            return;
        };
        for (at, ask) in asks.into_iter().enumerate() {
            let _gone = ask.told.send(found(replies.get(at)));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // It was stopped halfway: whoever waits is told by being told nothing.
        let mut line = self.link.reads().line();
        line.under_way -= 1;
        if line.under_way == 0 {
            line.waiting.clear();
        }
    }
}
