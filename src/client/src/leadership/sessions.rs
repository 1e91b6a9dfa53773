//! A session that is opened when it is needed, and again when it has ended.

use std::sync::Arc;

use tokio::sync::Mutex;
use tracing::debug;

use crate::calls::Shared;
use crate::clock::within;
use crate::error::ClientError;
use crate::session::{Session, SessionOptions};

#[derive(Debug)]
pub(crate) struct Kept {
    shared: Arc<Shared>,
    options: SessionOptions,
    session: Mutex<Option<Session>>,
}

impl Kept {
    pub(crate) fn new(shared: Arc<Shared>, options: SessionOptions) -> Self {
        Self {
            shared,
            options,
            session: Mutex::new(None),
        }
    }

    pub(crate) async fn session(&self) -> Result<Session, ClientError> {
        let mut kept = self.session.lock().await;
        if let Some(session) = &*kept
            && session.state().is_held()
        {
            return Ok(session.clone());
        }
        *kept = None;
        let opening = Box::pin(Session::open(
            Arc::clone(&self.shared),
            self.options.clone(),
        ));
        Ok(kept.insert(opening.await?).clone())
    }

    /// The session, if it is open.
    pub(crate) async fn present(&self) -> Option<Session> {
        self.session.lock().await.clone()
    }

    /// Closes it, and waits for that no longer than a call may take; it goes on in the background.
    pub(crate) async fn close(&self) {
        let Some(session) = self.session.lock().await.take() else {
            return;
        };
        let limit = self.shared.call_timeout;
        match within(&self.shared.clock, limit, session.close()).await {
            Some(Err(error)) => debug!(%error, "session not closed; it ends by its TTL"),
            None => debug!("session not closed yet"),
            Some(Ok(())) => {}
        }
    }

    /// Lets it expire: something still runs under it.
    pub(crate) async fn let_expire(&self) {
        let kept = self.session.lock().await.take();
        if let Some(session) = kept {
            drop(session.detach());
        }
    }
}
