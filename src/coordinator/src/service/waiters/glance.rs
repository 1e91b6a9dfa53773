//! Where those who wait stand in their queues: one read tells it to all who ask for it meanwhile, and is not
//! repeated soon, so that telling it costs the same however many wait.

use std::sync::Arc;
use std::time::Duration;

use palisade_token::{FencingToken, ResourceName};
use tokio::sync::Mutex;

use super::{LOOK_LIMIT, Shared};
use crate::clock::{Moment, within};
use crate::domain::{Hold, RequestId, SessionId};
use crate::store::Standing;

/// So many of a queue are looked at for a place in it; whoever is further back hears about how many wait.
const SHOWN_QUEUE: usize = 64;
/// How long one resource's queue is not looked at again.
const PAUSE: Duration = Duration::from_millis(500);

/// The last glance at a queue: when it began, and what it showed.
pub(super) type Glanced = Mutex<Option<(Moment, Option<Arc<Glance>>)>>;

/// Whose turn it is, and who waits.
#[derive(Debug)]
pub(crate) struct Glance {
    holder: Option<FencingToken>,
    waiters: u64,
    first: Vec<(SessionId, RequestId)>,
}

impl Glance {
    fn of(standing: Standing) -> Self {
        let claims = standing.queue.into_iter().map(|place| place.claim);
        Self {
            holder: standing.hold.as_ref().and_then(Hold::token),
            waiters: standing.waiters,
            first: claims.map(|claim| (claim.session, claim.request)).collect(),
        }
    }

    /// The holder's token, if the resource is held.
    pub(crate) fn holder(&self) -> Option<FencingToken> {
        self.holder
    }

    /// How many wait before a request.
    pub(crate) fn ahead(&self, session: SessionId, request: &RequestId) -> u64 {
        let mut first = self.first.iter();
        match first.position(|(of, name)| *of == session && name == request) {
            Some(ahead) => u64::try_from(ahead).unwrap_or(u64::MAX),
            // Further back: those who came later are counted, too.
            None => self.waiters.saturating_sub(1),
        }
    }
}

impl Shared {
    /// The queue of a resource as it is at some moment from now on; `None` where it cannot be read then, or nobody
    /// waits for it here.
    pub(super) async fn glance(&self, resource: &ResourceName) -> Option<Arc<Glance>> {
        let asked = self.clock.now();
        let last = self.registry.glanced(resource)?;
        let mut last = last.lock().await;
        if let Some((began, glance)) = &*last {
            if *began >= asked {
                return glance.clone();
            }
            let pause = self.clock.now().until(began.after(PAUSE));
            self.clock.sleep(pause).await;
        }
        let began = self.clock.now();
        let read = self.store.lease_and_queue(resource, SHOWN_QUEUE);
        let read = within(&self.clock, LOOK_LIMIT, read).await;
        let glance = read.ok().and_then(Result::ok).map(Glance::of).map(Arc::new);
        *last = Some((began, glance.clone()));
        glance
    }
}
