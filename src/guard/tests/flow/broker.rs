//! A broker in memory, which does as it is told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use palisade_guard::GuardError;
use palisade_guard::effects::{Envelope, Message, Name, PublishError, Publisher};
use palisade_guard::postgres::{Pass, Relay, Sealed};
use palisade_test_support::eventually;
use palisade_token::Grant;

use crate::db::{Db, PATIENCE};

pub(crate) fn named(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// What a broker does with the messages of a payload, instead of taking them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trouble {
    Fails,
    Refuses,
    Unavailable,
    /// Fails because the publisher's own grant was refused.
    FencedBelow,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Broker(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    taken: Vec<Envelope>,
    trouble: HashMap<String, Trouble>,
}

impl Broker {
    /// The payloads taken so far.
    pub(crate) fn taken(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        state.taken.iter().map(text).collect()
    }

    pub(crate) fn envelopes(&self) -> Vec<Envelope> {
        self.0.lock().unwrap().taken.clone()
    }

    pub(crate) fn trouble(&self, payload: &str, trouble: Option<Trouble>) {
        let mut state = self.0.lock().unwrap();
        match trouble {
            Some(trouble) => state.trouble.insert(payload.to_owned(), trouble),
            None => state.trouble.remove(payload),
        };
    }
}

pub(crate) fn text(envelope: &Envelope) -> String {
    String::from_utf8_lossy(&envelope.payload).into_owned()
}

impl Publisher for Broker {
    async fn publish(&self, message: &Envelope, relay: &Grant) -> Result<(), PublishError> {
        let mut state = self.0.lock().unwrap();
        match state.trouble.get(&text(message)) {
            None => {
                state.taken.push(message.clone());
                Ok(())
            }
            Some(Trouble::Fails) => Err(PublishError::Failed(Box::from("it did not work"))),
            Some(Trouble::Refuses) => Err(PublishError::Refused(Box::from("it never will"))),
            Some(Trouble::Unavailable) => Err(PublishError::Unavailable(Box::from("away"))),
            Some(Trouble::FencedBelow) => Err(PublishError::Failed(Box::new(GuardError::Stale {
                resource: relay.resource.clone(),
                presented: relay.token,
                fence: relay.token,
            }))),
        }
    }
}

pub(crate) fn message(payload: &str) -> Message {
    Message::new(named("topic"), payload.as_bytes().to_vec()).unwrap()
}

impl Db {
    /// Stages messages of one aggregate in a transaction of their own.
    pub(crate) async fn stage(&self, sealed: &Sealed, aggregate: &str, payloads: &[&str]) {
        let mut tx = self.guard.begin(&self.pool, sealed).await.unwrap();
        for payload in payloads {
            let message = message(payload).in_order_of(named(aggregate));
            tx.stage(&named("main"), &message).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// Waits for the transactions of other tests on this server, which hold the horizon as any would.
    pub(crate) async fn settle(&self) {
        let text = "SELECT count(*) FROM palisade.outbox AS o, pg_current_snapshot() AS s \
                    WHERE o.xid >= pg_snapshot_xmin(s) AND o.xid < pg_snapshot_xmax(s)";
        eventually("older transactions end", PATIENCE, async || {
            self.number(text).await == 0
        })
        .await
        .unwrap();
    }

    /// A pass over all that is staged.
    pub(crate) async fn pass<P: Publisher>(&self, relay: &Relay<P>) -> Result<Pass, GuardError> {
        self.settle().await;
        relay.pass(&self.pool, || true).await
    }

    pub(crate) fn relay(&self, sealed: &Sealed, broker: &Broker) -> Relay<Broker> {
        Relay::new(self.guard, sealed.clone(), named("main"), broker.clone())
    }
}
