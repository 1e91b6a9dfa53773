//! `LeaseService.Attach`: one stream is one session.
//!
//! A stream is one task. It reads messages, has jobs under way in the store (one at a time for each resource, see
//! `job.rs`), and puts what it says into an outbox from which the transport sends. While nothing happens it
//! costs its few fields.

mod asks;
mod desk;
mod gives;
mod heard;
mod job;
mod mark;
mod open;
mod outbox;
mod parse;
mod renew;
mod reply;
mod stream;
mod streams;
mod work;

use std::sync::Arc;

use palisade_api::AttachRequest;
use tonic::{Code, Request, Status, Streaming};

use self::outbox::{Outbox, outbox};
use self::stream::{End, Running};
use self::streams::Post;
use super::Service;
use super::error::{About, BadField, CallError};
use super::parse::bad;
use super::status;
use crate::config::Limits;
use crate::domain::Principal;
use crate::traces::Traced;

pub(super) use self::outbox::Responses;
#[cfg(any(test, fuzzing))]
pub(super) use self::parse::fuzz_message;
pub(crate) use self::streams::Streams;

impl Service {
    /// Starts a stream. Whatever is wrong with its messages is told on it.
    pub(super) fn try_attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Responses, CallError> {
        let (headers, extensions, inbound) = request.into_parts();
        let principal = self.principal(&headers, &extensions)?;
        let trace = extensions.get::<Traced>().cloned();
        self.leases.admit_new()?;
        let permit = self.streams.permit()?;
        let post = Arc::new(Post::default());
        let bound = self.leases.limits.max_backlog_bytes;
        let (outbox, responses) = outbox(bound, &post, permit);
        // What a stream keeps while it waits is most of what a session costs. So what is needed only to open it is
        // in a box that is gone once it is open.
        let opening =
            Box::pin(
                self.clone()
                    .begin_stream((principal, trace), inbound, post, outbox),
            );
        self.streams.tasks().spawn_many(async move {
            if let Some(running) = opening.await {
                running.serve().await;
            }
        });
        Ok(responses)
    }

    /// Opens a stream, or tells its client why not.
    async fn begin_stream(
        self,
        whose: (Principal, Option<Traced>),
        inbound: Streaming<AttachRequest>,
        post: Arc<Post>,
        outbox: Outbox,
    ) -> Option<Box<Running>> {
        let mut about = About::default();
        match self.open_stream(whose, inbound, &mut about).await {
            Ok(opened) => {
                let (session, epoch) = (opened.living.session, opened.shared.caller.epoch);
                let entered = self.streams.enter(session, epoch, &post);
                Running::begin(opened, entered, post, outbox)
            }
            Err(error) => {
                finish(End::Error(error), outbox, &about);
                None
            }
        }
    }
}

/// Tells the client how its stream ends.
fn finish(end: End, outbox: Outbox, about: &About) {
    match end {
        End::Closed | End::Gone => outbox.end(Ok(())),
        End::Error(error) => {
            status::log(&error, about);
            outbox.end(Err(status::status(&error, about)));
        }
        End::Backlog => {
            let bound = u64::try_from(outbox.bound()).unwrap_or(u64::MAX);
            let limit = "backlog";
            let error = CallError::Limit { limit, bound };
            status::log(&error, about);
            outbox.cut(status::status(&error, about));
        }
    }
}

/// Messages are numbered from 1.
fn first_seq(given: u64) -> Result<u64, BadField> {
    match given {
        1 => Ok(1),
        other => Err(bad("seq", "1, for the first message", other)),
    }
}

/// A message that the transport could not read.
fn unreadable(status: &Status, limits: &Limits) -> CallError {
    let bound = match status.code() {
        Code::OutOfRange => format!("at most {} bytes", limits.max_message_bytes),
        _ => "a message of palisade.v1".to_owned(),
    };
    bad("message", bound, "something else").into()
}
