//! Tracing spans of what asks a store: resource, token and holder, never a connection's secrets and never
//! an idempotency key as it is. Without a subscriber no field is even formatted.

use palisade_token::Grant;
use tracing::Span;
use tracing::field::Empty;

use crate::metrics::StoreKind;

pub(crate) fn seal(store: StoreKind, grant: &Grant) -> Span {
    tracing::info_span!(
        "seal",
        store = store.name(),
        resource = %grant.resource,
        token = %grant.token,
        holder = %grant.holder,
    )
}

/// `first` stands for all where there are several; `resources` says how many there are.
#[allow(dead_code, reason = "which store calls it depends on what is built")]
pub(crate) fn begin(store: StoreKind, first: Option<&Grant>, resources: usize) -> Span {
    let span = tracing::debug_span!(
        "begin",
        store = store.name(),
        resource = Empty,
        token = Empty,
        holder = Empty,
        resources,
    );
    with_grant(span, first)
}

#[allow(dead_code, reason = "which store calls it depends on what is built")]
pub(crate) fn commit(store: StoreKind, first: Option<&Grant>, resources: usize) -> Span {
    let span = tracing::debug_span!(
        "commit",
        store = store.name(),
        resource = Empty,
        token = Empty,
        holder = Empty,
        resources,
    );
    with_grant(span, first)
}

#[allow(dead_code, reason = "which store calls it depends on what is built")]
fn with_grant(span: Span, grant: Option<&Grant>) -> Span {
    if let (false, Some(grant)) = (span.is_disabled(), grant) {
        span.record("resource", tracing::field::display(&grant.resource));
        span.record("token", tracing::field::display(grant.token));
        span.record("holder", tracing::field::display(grant.holder));
    }
    span
}
