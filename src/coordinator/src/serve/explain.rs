//! What the transport refuses by itself (a message that cannot be read or is too large, a method that is not there)
//! is refused as everything else is: with one `ErrorInfo`, and as the client's mistake that it is.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response, StatusCode, header};
use pin_project_lite::pin_project;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::service::{CallError, bad, refuse};

/// Where a status has its details.
const DETAILS: &str = "grpc-status-details-bin";

/// A layer around all services of a gRPC server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Explain {
    pub(super) max_message_bytes: usize,
}

impl<S> Layer<S> for Explain {
    type Service = Explained<S>;

    fn layer(&self, inner: S) -> Explained<S> {
        Explained { by: *self, inner }
    }
}

/// A service whose refusals all say why.
#[derive(Debug, Clone)]
pub(super) struct Explained<S> {
    by: Explain,
    inner: S,
}

impl<S> Service<Request<Body>> for Explained<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Explaining<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Explaining {
            by: self.by,
            inner: is_grpc(&request).then(|| self.inner.call(request)),
        }
    }
}

pin_project! {
    /// An answer that is on its way.
    #[derive(Debug)]
    pub(super) struct Explaining<F> {
        by: Explain,
        // None for what is no call of gRPC.
        #[pin]
        inner: Option<F>,
    }
}

impl<F, E> Future for Explaining<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else {
            return Poll::Ready(Ok(unsupported()));
        };
        let response = ready!(inner.poll(context))?;
        Poll::Ready(Ok(match this.by.error(&response) {
            Some(error) => explained(response, &error),
            None => response,
        }))
    }
}

/// What is not labelled as gRPC is not read as gRPC: browsers may send anything else to other sites unasked.
fn is_grpc(request: &Request<Body>) -> bool {
    let sent = request.headers().get(header::CONTENT_TYPE);
    sent.is_some_and(|sent| sent.as_bytes().starts_with(b"application/grpc"))
}

fn unsupported() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

/// The answer with the error's status; with its other headers, such as which encodings are served.
fn explained(response: Response<Body>, error: &CallError) -> Response<Body> {
    let mut told: Response<Body> = refuse(error).into_http();
    let (head, _) = response.into_parts();
    for (name, value) in head.headers {
        if let Some(name) = name.filter(|name| !told.headers().contains_key(name)) {
            told.headers_mut().insert(name, value);
        }
    }
    told
}

impl Explain {
    /// The error that an answer without details means. Whatever the service itself refuses has some.
    fn error(self, response: &Response<Body>) -> Option<CallError> {
        let headers = response.headers();
        if !headers.contains_key(Status::GRPC_STATUS) || headers.contains_key(DETAILS) {
            return None;
        }
        match Status::from_header_map(headers)?.code() {
            Code::Internal => Some(bad("message", "one of this method", "something else").into()),
            Code::OutOfRange => {
                let bound = format!("at most {} bytes", self.max_message_bytes);
                Some(bad("message", bound, "more").into())
            }
            Code::Unimplemented => Some(CallError::NotServed("this method, or this encoding")),
            _ => None,
        }
    }
}
