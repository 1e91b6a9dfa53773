//! Grants in headers, and refusals as responses: for HTTP and gRPC services alike, on the [`http`] types.
//!
//! A service that writes for others must write with *their* grants, or a paused client could write through it
//! after its lease has ended. [`CarryLayer`] puts a client's grants into the headers of its requests;
//! [`GrantLayer`] takes them out in front of the service, refuses what cannot be a grant, and leaves
//! [`Carried`] in the request's extensions. The headers are no check: the service seals or begins with the
//! grants, and the store decides.
//!
//! | header | holds |
//! |---|---|
//! | `x-fence-resource`, `x-fence-token`, `x-fence-holder` | a grant; with several grants each header is repeated, or is a list with commas, in one order |
//! | `idempotency-key` | 1 to 255 visible ASCII characters, bare or as a quoted string |
//! | `x-palisade-reason` | in a response: what went wrong ([`Fault::reason`]) |
//! | `x-palisade-detail` | in a response: its facts as JSON, as `{"resource":"orders","presented":41,"fence":42}` |
//!
//! ```
//! use palisade_guard::tower::{CarryLayer, Carried, Fault, GrantLayer};
//! use tower_layer::Layer as _;
//! # use std::future::{Ready, ready};
//! # use std::task::{Context, Poll};
//! # use http::{Request, Response};
//! # #[derive(Clone)]
//! # struct Handler;
//! # impl tower_service::Service<Request<()>> for Handler {
//! #     type Response = Response<Vec<u8>>;
//! #     type Error = std::convert::Infallible;
//! #     type Future = Ready<Result<Self::Response, Self::Error>>;
//! #     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> { Poll::Ready(Ok(())) }
//! #     fn call(&mut self, request: Request<()>) -> Self::Future {
//! #         let carried = request.extensions().get::<Carried>().unwrap();
//! #         let grant = &carried.grants()[0];
//! #         let refused = palisade_guard::GuardError::Stale { resource: grant.resource.clone(),
//! #             presented: grant.token, fence: palisade_token::FencingToken::new(43).unwrap() };
//! #         ready(Ok(Fault::from(refused).response(carried.protocol())))
//! #     }
//! # }
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! # use tower_service::Service as _;
//! let grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse::<palisade_token::Grant>()?;
//! // With axum: GrantLayer::new(axum::body::Body::from); with tonic: GrantLayer::new(|_| Body::empty()).
//! let service = GrantLayer::new(Vec::from).layer(Handler);
//! let mut client = CarryLayer::new(&[grant])?.layer(service);
//!
//! let response = client.call(Request::new(())).await?;
//! assert_eq!(response.status(), 412);
//! let fault = Fault::of_headers(response.headers()).ok_or("no refusal")?;
//! assert_eq!(fault.to_string(), "stale token 42 for orders: the fence is at 43");
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With tonic, a handler answers `Status::from_header_map(&fault.headers(Protocol::Grpc))`, and a client reads
//! [`Fault::of_headers`] from the status's metadata. Behind `tonic-web` the layer belongs next to the service.
//!
//! No text of a store is ever sent: a [`GuardError::Backend`](crate::GuardError::Backend) arrives as such,
//! without its source.

mod carry;
mod fault;
mod grpc;
mod headers;
mod layer;

pub use carry::{Carry, CarryLayer};
pub use fault::{Fault, Reason};
pub use headers::{Carried, HeaderError};
pub use layer::{GrantLayer, GrantService};

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// The header of a grant's resource.
pub const RESOURCE: &str = "x-fence-resource";
/// The header of a grant's token.
pub const TOKEN: &str = "x-fence-token";
/// The header of a grant's holder.
pub const HOLDER: &str = "x-fence-holder";
/// The header of an idempotency key.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The response header that says what went wrong.
pub const REASON: &str = "x-palisade-reason";
/// The response header with the facts, as JSON.
pub const DETAIL: &str = "x-palisade-detail";

/// Most grants of one request: with the longest names they fit into what servers take as headers.
pub const MAX_GRANTS: usize = 32;

/// How a request is to be answered.
///
/// ```
/// use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
/// use palisade_guard::tower::Protocol;
///
/// let mut headers = HeaderMap::new();
/// assert_eq!(Protocol::of(&headers), Protocol::Http);
/// headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
/// assert_eq!(Protocol::of(&headers), Protocol::Grpc);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Protocol {
    /// With a status code and a problem (RFC 9457).
    #[default]
    Http,
    /// With status 200 and a `grpc-status`.
    Grpc,
}

impl Protocol {
    /// Says by its content type what a request speaks.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        const GRPC: &[u8] = b"application/grpc";
        let Some(rest) = headers
            .get(CONTENT_TYPE)
            .and_then(|value| {
                value
                    .as_bytes()
                    .get(..GRPC.len())
                    .map(|start| (start, value))
            })
            .filter(|(start, _)| start.eq_ignore_ascii_case(GRPC))
            .and_then(|(_, value)| value.as_bytes().get(GRPC.len()..))
        else {
            return Self::Http;
        };
        match rest.first() {
            None | Some(b'+' | b';' | b' ') => Self::Grpc,
            Some(_) => Self::Http,
        }
    }
}
