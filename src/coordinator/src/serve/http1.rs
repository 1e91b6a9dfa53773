//! Serves HTTP/1.1, each connection in a task of its own.
//!
//! A call may take as long as its wait, and a watch as long as its client likes. So a connection is not ended for
//! its age: it is ended if no request comes on it for a while, or if nothing of an answer can be sent for as long.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use tower::ServiceExt;
use tracing::debug;

use super::accept::Acceptor;
use crate::tasks::Tasks;

/// How much is read ahead on a connection, in bytes: a request's line and headers must fit.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// Serves until `closing` is cancelled, and from then on until the requests under way have been answered.
pub(super) async fn serve(
    mut door: Acceptor,
    router: Router,
    idle: Duration,
    tasks: &Tasks,
    closing: CancellationToken,
) {
    let mut builder = Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(MAX_BUFFER_BYTES);
    let open = GracefulShutdown::new();
    loop {
        let connection = tokio::select! {
            () = closing.cancelled() => break,
            connection = door.next() => connection,
        };
        let (peer, router) = (connection.connect_info(), router.clone());
        let answer = tower::service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer.clone());
            router.clone().oneshot(request)
        });
        let io = TokioIo::new(connection);
        let served = open.watch(builder.serve_connection(io, TowerToHyperService::new(answer)));
        tasks.spawn("http: connection", async move {
            if let Err(error) = served.await {
                debug!(%error, "an HTTP connection ended");
            }
        });
    }
    drop(door);
    open.shutdown().await;
}
