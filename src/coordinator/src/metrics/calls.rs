//! Counts and times gRPC calls under the names that go-grpc gives them, so that dashboards and alerts made
//! for those fit.

mod body;
mod methods;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use pin_project_lite::pin_project;
use tonic::Code;
use tonic::body::Body;
use tower::{Layer, Service};

use self::body::{Counted, Received};
use self::methods::{Method, Methods};
use super::Metrics;
use crate::clock::{Clock, Moment};
use crate::traces::{Begun, Trace, Traced, Traces};

/// A layer around all services of a gRPC server.
#[derive(Debug, Clone)]
pub(crate) struct CountCalls {
    methods: Arc<Methods>,
    clock: Arc<dyn Clock>,
    traces: Option<Arc<dyn Traces>>,
}

impl CountCalls {
    pub(crate) fn new(
        metrics: &Metrics,
        clock: &Arc<dyn Clock>,
        traces: Option<Arc<dyn Traces>>,
    ) -> Self {
        Self {
            methods: Arc::new(Methods::register(&mut metrics.registry())),
            clock: Arc::clone(clock),
            traces,
        }
    }

    /// Counts a call that came over HTTP, as one of the method of gRPC at this path.
    pub(crate) fn begin(&self, path: &str, headers: &HeaderMap) -> Counting {
        Counting(self.start(self.methods.of(path), "http", headers))
    }

    fn start(&self, method: &Arc<Method>, protocol: &'static str, headers: &HeaderMap) -> Call {
        let begin = |traces: &Arc<dyn Traces>| {
            let (service, method) = method.ours()?;
            Some(traces.begin(&Begun {
                protocol,
                service,
                method,
                headers,
            }))
        };
        method.started();
        Call {
            method: Arc::clone(method),
            clock: Arc::clone(&self.clock),
            since: self.clock.now(),
            // Unless it ends otherwise before it is dropped.
            code: Code::Cancelled,
            trace: self.traces.as_ref().and_then(begin),
        }
    }
}

/// A call that came by another way. One that is dropped was given up by its client.
#[derive(Debug)]
pub(crate) struct Counting(Call);

impl Counting {
    /// A message of its answer went out, where there can be several.
    pub(crate) fn sent(&self) {
        self.0.method.sent(1);
    }

    /// It ended.
    pub(crate) fn end(self, code: Code) {
        self.0.end(code);
    }
}

impl<S> Layer<S> for CountCalls {
    type Service = CountedService<S>;

    fn layer(&self, inner: S) -> CountedService<S> {
        CountedService {
            calls: self.clone(),
            inner,
        }
    }
}

/// A service whose calls are counted.
#[derive(Debug, Clone)]
pub(crate) struct CountedService<S> {
    calls: CountCalls,
    inner: S,
}

impl<S, B> Service<Request<Body>> for CountedService<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
{
    type Response = Response<Counted<B>>;
    type Error = S::Error;
    type Future = CountedFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let method = self.calls.methods.of(request.uri().path());
        let call = self.calls.start(method, "grpc", request.headers());
        if let Some(trace) = &call.trace {
            let traced = Traced(Arc::clone(trace));
            request.extensions_mut().insert(traced);
        }
        let request = if method.streams_requests() {
            let method = Arc::clone(method);
            request.map(|body| Body::new(Received::new(body, method)))
        } else {
            request
        };
        CountedFuture {
            inner: self.inner.call(request),
            call: Some(call),
        }
    }
}

/// A call under way. Whatever ends it is counted, also that its client hung up.
#[derive(Debug)]
struct Call {
    method: Arc<Method>,
    clock: Arc<dyn Clock>,
    since: Moment,
    code: Code,
    trace: Option<Arc<dyn Trace>>,
}

impl Call {
    fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let took = self.since.until(self.clock.now());
        self.method.handled(self.code, took);
        if let Some(trace) = &self.trace {
            trace.end(self.code);
        }
    }
}

pin_project! {
    /// An answer that is on its way.
    #[derive(Debug)]
    pub(crate) struct CountedFuture<F> {
        #[pin]
        inner: F,
        call: Option<Call>,
    }
}

impl<F, B, E> Future for CountedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Counted<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let done = std::task::ready!(this.inner.poll(context));
        let call = this.call.take();
        Poll::Ready(match done {
            Ok(response) => Ok(Counted::answer(response, call)),
            Err(error) => {
                if let Some(call) = call {
                    call.end(Code::Unknown);
                }
                Err(error)
            }
        })
    }
}
