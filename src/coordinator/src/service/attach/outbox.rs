//! What waits to be sent on a stream: between the stream's own task and the transport, which takes messages
//! only as fast as the client reads. It costs nothing while it is empty.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::Stream;
use palisade_api::AttachResponse;
use tonic::Status;

use super::streams::{Permit, Post, Stir};
use crate::service::error::{About, CallError};
use crate::service::status::status;

/// What one message counts besides its metadata, in bytes: names and ids at their longest.
const MESSAGE_BYTES: usize = 512;

/// The client does not read: more waits for it than is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backlog;

/// Where a stream's task puts what it says. Dropping it ends the stream.
#[derive(Debug)]
pub(super) struct Outbox {
    shared: Arc<Shared>,
    bound: usize,
    /// Whether its task leaves the stream without a word, if it is dropped now.
    is_left: bool,
}

/// What the transport sends.
#[derive(Debug)]
pub(crate) struct Responses {
    shared: Arc<Shared>,
    post: Arc<Post>,
    /// Held until the transport is done with the stream, so that those which nobody reads count.
    _permit: Permit,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<AttachResponse>,
    bytes: usize,
    /// How it ends, once everything before is sent.
    end: Option<Result<(), Status>>,
    waker: Option<Waker>,
}

/// An outbox with room for so many bytes.
pub(super) fn outbox(bound: usize, post: &Arc<Post>, permit: Permit) -> (Outbox, Responses) {
    let shared = Arc::new(Shared::default());
    let responses = Responses {
        shared: Arc::clone(&shared),
        post: Arc::clone(post),
        _permit: permit,
    };
    let outbox = Outbox {
        shared,
        bound,
        is_left: true,
    };
    (outbox, responses)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight(message: &AttachResponse) -> usize {
    use palisade_api::v1::attach_response::Message;
    let metadata = match &message.message {
        Some(Message::Granted(granted)) => granted.lease.as_ref().map_or(0, |l| l.metadata.len()),
        Some(Message::Opened(opened)) => opened.requests.len() * MESSAGE_BYTES,
        _ => 0,
    };
    MESSAGE_BYTES + metadata
}

impl Outbox {
    /// How many bytes may wait.
    pub(super) fn bound(&self) -> usize {
        self.bound
    }

    /// Puts a message behind those that wait.
    pub(super) fn send(&self, message: AttachResponse) -> Result<(), Backlog> {
        let mut state = self.shared.lock();
        let bytes = weight(&message);
        // One message fits, however large: else it could never be sent.
        if !state.messages.is_empty() && state.bytes + bytes > self.bound {
            return Err(Backlog);
        }
        state.bytes += bytes;
        if state.messages.is_empty() {
            // For most there is never more than one.
            state.messages.reserve_exact(1);
        }
        state.messages.push_back(message);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Ends the stream behind what waits.
    pub(super) fn end(mut self, how: Result<(), Status>) {
        self.is_left = false;
        self.finish(how, false);
    }

    /// Ends a stream that is not read: what waits is not sent any more.
    pub(super) fn cut(mut self, status: Status) {
        self.is_left = false;
        self.finish(Err(status), true);
    }

    fn finish(&self, how: Result<(), Status>, is_cut: bool) {
        let mut state = self.shared.lock();
        if is_cut {
            state.messages = VecDeque::new();
            state.bytes = 0;
        }
        state.end = Some(how);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        if self.is_left {
            let status = status(&CallError::Draining, &About::default());
            self.finish(Err(status), false);
        }
    }
}

impl Stream for Responses {
    type Item = Result<AttachResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.shared.lock();
        if let Some(message) = state.messages.pop_front() {
            state.bytes = state.bytes.saturating_sub(weight(&message));
            return Poll::Ready(Some(Ok(message)));
        }
        match state.end.take() {
            Some(how) => {
                state.end = Some(Ok(()));
                Poll::Ready(how.err().map(Err))
            }
            None => {
                // While nothing waits there is no room for it.
                state.messages = VecDeque::new();
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Responses {
    fn drop(&mut self) {
        self.post.stir(Stir::Gone);
    }
}
