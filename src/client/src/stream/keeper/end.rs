//! How a session with a stream ends.

use std::sync::Arc;

use tracing::debug;

use crate::clock::within;
use crate::error::ClientError;
use crate::error::status::Failure;
use crate::standing::{LostReason, SessionState};

use super::super::Told;
use super::super::request::Command;
use super::super::table::News;
use super::{Keeper, lost_error};

impl Keeper {
    pub(super) async fn end(mut self) {
        let state = self.core.state();
        self.table.end(|| lost_error(state));
        if state == SessionState::Lost(LostReason::Closed)
            && let Some(told) = self.told_to_close().await
        {
            let closed = Box::pin(self.close()).await;
            drop(told.map(|told| told.send(closed)));
        }
        self.wire = None;
        self.commands.close();
        while let Some(told) = self.told_to_close().await {
            let closed = Box::pin(self.core.ask_to_close()).await;
            drop(told.map(|told| told.send(closed)));
        }
    }

    /// Whoever closes the session says so right after it has ended here, if not before that was seen. Where to tell
    /// how it went; nothing once there is nobody who could.
    async fn told_to_close(&mut self) -> Option<Option<Told>> {
        if let Some(told) = self.closing.take() {
            return Some(told);
        }
        loop {
            if let Command::Close(told) = self.commands.recv().await? {
                return Some(told);
            }
        }
    }

    /// Over the stream if there is one that answers; else by a call of its own.
    async fn close(&mut self) -> Result<(), ClientError> {
        let clock = Arc::clone(&self.core.shared.clock);
        let limit = self.answer_limit();
        let closing = self.close_over_stream();
        match within(&clock, limit, closing).await {
            Some(Ok(())) => return Ok(()),
            Some(Err(failure)) => debug!(error = ?failure.error, "not closed over the stream"),
            None => debug!("not closed over the stream in time"),
        }
        let closed = self.core.ask_to_close().await;
        if let Err(error) = &closed {
            debug!(%error, "session not closed; it ends by its TTL");
        }
        closed
    }

    async fn close_over_stream(&mut self) -> Result<(), Failure> {
        let now = self.core.shared.clock.now();
        self.table.close();
        self.flush(now);
        loop {
            let Some(wire) = &mut self.wire else {
                return Err(Failure::no_answer(false));
            };
            let answer = match wire.next().await {
                Ok(answer) => answer,
                Err(failure) if is_lost(&failure.error) => return Ok(()),
                Err(failure) => return Err(failure),
            };
            match self.table.heard(now, answer).map_err(Failure::garbled)? {
                News::Closed => return Ok(()),
                News::CloseRefused(failure) if is_lost(&failure.error) => return Ok(()),
                News::CloseRefused(failure) => return Err(failure),
                _ => {}
            }
        }
    }
}

fn is_lost(error: &ClientError) -> bool {
    matches!(error, ClientError::SessionLost { .. })
}
