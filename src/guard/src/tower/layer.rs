use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures::future::Either;
use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::{Carried, Fault, HeaderError, IDEMPOTENCY_KEY, Protocol, RESOURCE};

/// Reads the grants of requests in front of a service, and refuses what cannot be one.
///
/// A request without a grant is refused (428, `FENCE_MISSING`) unless
/// [`GrantLayer::without_grant`] lets it pass; one with a header that cannot be right is refused in any case
/// (400, `HEADER_INVALID`). The service finds [`Carried`] in the request's extensions.
///
/// ```
/// use palisade_guard::tower::GrantLayer;
///
/// // In front of what writes: a grant, and a key. With axum: `axum::body::Body::from`.
/// let writes = GrantLayer::new(Vec::from).with_key();
/// // In front of what reads too: handlers look whether `Carried::grants` has one.
/// let both = GrantLayer::new(Vec::from).without_grant();
/// # fn takes<M: Fn(Vec<u8>) -> Vec<u8>>(_: GrantLayer<M>) {}
/// # takes(writes);
/// # takes(both);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct GrantLayer<M> {
    make_body: M,
    policy: Policy,
}

#[derive(Debug, Clone, Copy, Default)]
struct Policy {
    grant_may_lack: bool,
    key_must_be: bool,
}

impl<M> GrantLayer<M> {
    /// A layer that makes the body of a refusal with `make_body`, from the bytes of a problem; for a gRPC call
    /// there are none.
    pub fn new<R>(make_body: M) -> Self
    where
        M: Fn(Vec<u8>) -> R + Clone,
    {
        Self {
            make_body,
            policy: Policy::default(),
        }
    }

    /// Lets requests without a grant pass, as those that only read.
    #[must_use]
    pub fn without_grant(mut self) -> Self {
        self.policy.grant_may_lack = true;
        self
    }

    /// Refuses requests without an idempotency key (400).
    #[must_use]
    pub fn with_key(mut self) -> Self {
        self.policy.key_must_be = true;
        self
    }
}

impl<S, M: Clone> Layer<S> for GrantLayer<M> {
    type Service = GrantService<S, M>;

    fn layer(&self, inner: S) -> GrantService<S, M> {
        GrantService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service of a [`GrantLayer`].
///
/// ```
/// use palisade_guard::tower::{GrantLayer, GrantService};
/// use tower_layer::Layer as _;
///
/// fn guarded<S>(handler: S) -> GrantService<S, fn(Vec<u8>) -> Vec<u8>> {
///     let make_body: fn(Vec<u8>) -> Vec<u8> = Vec::from;
///     GrantLayer::new(make_body).layer(handler) // a service of requests, as the handler is
/// }
/// ```
#[derive(Debug, Clone)]
pub struct GrantService<S, M> {
    inner: S,
    layer: GrantLayer<M>,
}

impl Policy {
    fn admit(self, carried: &Carried) -> Result<(), HeaderError> {
        if carried.grants().is_empty() && !self.grant_may_lack {
            let bound = "a write carries the grant of its resource";
            return Err(HeaderError::missing(RESOURCE, bound));
        }
        if carried.idempotency_key().is_none() && self.key_must_be {
            let bound = "an effect has a key that is the same for every retry";
            return Err(HeaderError::missing(IDEMPOTENCY_KEY, bound));
        }
        Ok(())
    }
}

impl<S, M, B, R> Service<Request<B>> for GrantService<S, M>
where
    S: Service<Request<B>, Response = Response<R>>,
    M: Fn(Vec<u8>) -> R + Clone,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<R>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let carried = Carried::read(request.headers())
            .and_then(|carried| self.layer.policy.admit(&carried).map(|()| carried));
        match carried {
            Ok(carried) => {
                request.extensions_mut().insert(carried);
                Either::Left(self.inner.call(request))
            }
            Err(error) => {
                let protocol = Protocol::of(request.headers());
                let response = Fault::from(error).response(protocol);
                Either::Right(ready(Ok(response.map(&self.layer.make_body))))
            }
        }
    }
}
