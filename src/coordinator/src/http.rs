//! What is served over HTTP: health, metrics, and the routes of `rest`.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::sync::watch;

use crate::health::Health;
use crate::metrics::{Exported, Metrics};
use crate::rest;

/// `/livez`: the process runs. `/readyz`: it would grant now; with `?verbose` it says as JSON what is wrong.
/// `/metrics`: what was counted and timed, for Prometheus. `/v1/…`: see `rest`.
pub(crate) fn router(health: watch::Receiver<Health>, exported: Exported, calls: Router) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(health)
        .route("/metrics", get(metrics))
        .with_state(Arc::new(exported))
        .merge(calls)
        .fallback(rest::unknown)
        .method_not_allowed_fallback(rest::other_method)
}

async fn livez() -> &'static str {
    "alive\n"
}

async fn metrics(State(exported): State<Arc<Exported>>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)],
        exported.text(),
    )
}

async fn readyz(
    State(health): State<watch::Receiver<Health>>,
    RawQuery(query): RawQuery,
) -> Response {
    let health = *health.borrow();
    let status = if health.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    // A probe's answer is worth nothing later.
    let fresh = [(header::CACHE_CONTROL, "no-store")];
    if is_verbose(query.as_deref()) {
        let body = json!({
            "ready": health.is_ready(),
            "draining": health == Health::Draining,
            "reasons": health.reason().into_iter().collect::<Vec<_>>(),
        });
        return (status, fresh, axum::Json(body)).into_response();
    }
    let body = match health.reason() {
        None => "ready\n".to_owned(),
        Some(reason) => format!("not ready: {reason}\n"),
    };
    (status, fresh, body).into_response()
}

fn is_verbose(query: Option<&str>) -> bool {
    let mut pairs = query.unwrap_or_default().split('&');
    pairs.any(|pair| matches!(pair, "verbose" | "verbose=" | "verbose=1" | "verbose=true"))
}

#[cfg(test)]
mod tests {
    use super::is_verbose;

    #[test]
    fn verbose_is_asked_for_in_the_usual_ways() {
        for query in ["verbose", "verbose=1", "a=b&verbose", "verbose=true"] {
            assert!(is_verbose(Some(query)), "{query}");
        }
        for query in [None, Some(""), Some("verbose=0"), Some("verbosely")] {
            assert!(!is_verbose(query), "{query:?}");
        }
    }
}
