//! A watch as server-sent events.
//!
//! An event's id is where a client that connects again goes on: browsers send it as `Last-Event-ID`. So only the
//! last event of a revision has one, and none within a snapshot: going on from the middle would miss the rest.
//! RESYNC takes the id back, for revisions may fall there; what follows it begins with a snapshot.

use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use palisade_api::v1::{LeaseEvent, LeaseEventType, WatchLeasesResponse};
use tonic::Status;

use super::answer;
use super::fault::Fault;
use crate::metrics::Counting;
use crate::service::CallError;

/// Proxies that would gather an answer before they pass it on know this one.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The events of a watch. The last is an `error` with the status that ended it.
pub(super) fn response<S>(watch: S, counting: Counting) -> Response
where
    S: Stream<Item = Result<WatchLeasesResponse, Status>> + Send + Unpin + 'static,
{
    let events = stream::unfold(Some((watch, counting)), |watch| async {
        let (mut watch, counting) = watch?;
        let fault: Fault = match watch.next().await {
            Some(Ok(message)) => {
                counting.sent();
                return Some((events(&message), Some((watch, counting))));
            }
            Some(Err(status)) => status.into(),
            None => CallError::Broken("a watch ended without a status").into(),
        };
        counting.end(fault.grpc_code());
        Some((vec![last(&fault)], None))
    });
    let events =
        events.flat_map(|events| stream::iter(events.into_iter().map(Ok::<_, Infallible>)));
    // Comments keep proxies from ending what is quiet, and find out that a client is gone.
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(UNBUFFERED, HeaderValue::from_static("no"));
    response
}

fn events(message: &WatchLeasesResponse) -> Vec<Event> {
    let following = message.events.iter().skip(1).map(Some).chain([None]);
    let pairs = message.events.iter().zip(following);
    pairs.map(|(event, next)| one(event, next)).collect()
}

fn one(event: &LeaseEvent, next: Option<&LeaseEvent>) -> Event {
    let told = Event::default()
        .event(answer::event_type(event))
        .data(answer::event(event).to_string());
    match id(event, next) {
        Some(id) => told.id(id),
        None => told,
    }
}

/// Where a client goes on that has handled this event and whatever came before it.
fn id(event: &LeaseEvent, next: Option<&LeaseEvent>) -> Option<String> {
    match event.r#type() {
        LeaseEventType::Snapshot => None,
        LeaseEventType::Resync => Some(String::new()),
        _ if next.is_some_and(|next| next.revision == event.revision) => None,
        _ => Some(event.revision.to_string()),
    }
}

fn last(fault: &Fault) -> Event {
    let event = Event::default()
        .event("error")
        .data(fault.json().to_string());
    match fault.retry_after() {
        Some(after) => event.retry(after),
        None => event,
    }
}

#[cfg(test)]
mod tests;
