//! A service that tells what it was given, without a network.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use http::{Request, Response};
use palisade_guard::tower::{Carried, GrantLayer};
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};
use tower_layer::Layer;
use tower_service::Service;

/// Answers with what it was given, in the extensions.
#[derive(Debug, Clone)]
pub(crate) struct Echo;

impl Service<Request<()>> for Echo {
    type Response = Response<Vec<u8>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let mut response = Response::new(Vec::new());
        response
            .extensions_mut()
            .insert(request.extensions().get::<Carried>().unwrap().clone());
        *response.headers_mut() = request.headers().clone();
        ready(Ok(response))
    }
}

pub(crate) fn call<S>(mut service: S, request: Request<()>) -> S::Response
where
    S: Service<Request<()>, Error = Infallible>,
{
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let mut answer = pin!(service.call(request));
    match answer.as_mut().poll(&mut context) {
        Poll::Ready(Ok(response)) => response,
        Poll::Ready(Err(never)) => match never {},
        Poll::Pending => panic!("nothing here waits"),
    }
}

/// Behind the layer, with these headers.
pub(crate) fn ask(
    layer: GrantLayer<fn(Vec<u8>) -> Vec<u8>>,
    headers: &[(&'static str, &str)],
) -> Response<Vec<u8>> {
    let mut request = Request::new(());
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    call(layer.layer(Echo), request)
}

pub(crate) fn layer() -> GrantLayer<fn(Vec<u8>) -> Vec<u8>> {
    GrantLayer::new(std::convert::identity)
}

pub(crate) fn name(text: &str) -> ResourceName {
    ResourceName::new(text).unwrap()
}

pub(crate) fn token(number: u64) -> FencingToken {
    FencingToken::new(number).unwrap()
}

pub(crate) fn grant(resource: &str, number: u64) -> Grant {
    Grant {
        resource: name(resource),
        token: token(number),
        holder: HolderId::from_bytes([0xab; 16]),
    }
}
