use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use palisade_token::Grant;
use tower_layer::Layer;
use tower_service::Service;

use super::{HOLDER, IDEMPOTENCY_KEY, MAX_GRANTS, RESOURCE, TOKEN};
use crate::GuardError;
use crate::effects::IdempotencyKey;

const FIELDS: [HeaderName; 3] = [
    HeaderName::from_static(RESOURCE),
    HeaderName::from_static(TOKEN),
    HeaderName::from_static(HOLDER),
];

/// Puts grants into the headers of a client's requests, in place of what was there.
///
/// ```
/// use http::HeaderMap;
/// use palisade_guard::tower::{CarryLayer, RESOURCE, TOKEN};
///
/// let grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
/// let layer = CarryLayer::new(&[grant])?;
/// let mut headers = HeaderMap::new(); // without tower; with it: `layer.layer(client)`
/// layer.write(&mut headers);
/// assert_eq!((&headers[RESOURCE], &headers[TOKEN]), (&"orders".parse()?, &"42".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct CarryLayer {
    grants: Arc<[[HeaderValue; 3]]>,
}

impl CarryLayer {
    /// A layer that carries these grants: 1 to [`MAX_GRANTS`], each resource once.
    ///
    /// # Errors
    /// [`GuardError::Misuse`] for another number, or a resource named twice.
    pub fn new(grants: &[Grant]) -> Result<Self, GuardError> {
        if grants.is_empty() || grants.len() > MAX_GRANTS {
            return Err(GuardError::Misuse(
                "a request carries at least one grant, and at most MAX_GRANTS",
            ));
        }
        let is_double = |(at, grant): (usize, &Grant)| {
            let earlier = grants.iter().take(at);
            earlier
                .into_iter()
                .any(|other| other.resource == grant.resource)
        };
        if grants.iter().enumerate().any(is_double) {
            return Err(GuardError::Misuse(
                "a request carries one grant for a resource",
            ));
        }
        Ok(Self {
            grants: grants.iter().map(values).collect(),
        })
    }

    /// Writes the headers, for a client without tower.
    pub fn write(&self, headers: &mut HeaderMap) {
        for (at, name) in FIELDS.iter().enumerate() {
            headers.remove(name);
            for grant in &*self.grants {
                headers.append(name, grant[at].clone());
            }
        }
    }
}

impl IdempotencyKey {
    /// Writes the header `idempotency-key`, as a quoted string, in place of what was there. Only the key
    /// itself is sent: who asks, and for what, the service knows by other means.
    ///
    /// ```
    /// use palisade_guard::effects::IdempotencyKey;
    ///
    /// let mut headers = http::HeaderMap::new();
    /// IdempotencyKey::new("tenant-7", "charge", "5f0c8d1e42aa7b90")?.write(&mut headers);
    /// assert_eq!(headers["idempotency-key"], "\"5f0c8d1e42aa7b90\"");
    /// # Ok::<(), palisade_guard::effects::KeyError>(())
    /// ```
    pub fn write(&self, headers: &mut HeaderMap) {
        let mut quoted = String::with_capacity(self.key().len() + 2);
        quoted.push('"');
        for letter in self.key().chars() {
            if matches!(letter, '"' | '\\') {
                quoted.push('\\');
            }
            quoted.push(letter);
        }
        quoted.push('"');
        headers.insert(HeaderName::from_static(IDEMPOTENCY_KEY), ascii(&quoted));
    }
}

fn values(grant: &Grant) -> [HeaderValue; 3] {
    [
        ascii(grant.resource.as_str()),
        HeaderValue::from(grant.token.get()),
        ascii(&grant.holder.to_string()),
    ]
}

fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("names, holders and keys are visible ASCII")
}

impl<S> Layer<S> for CarryLayer {
    type Service = Carry<S>;

    fn layer(&self, inner: S) -> Carry<S> {
        Carry {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service of a [`CarryLayer`].
///
/// ```
/// use http::{Request, Response};
/// use palisade_guard::tower::{Carry, CarryLayer, TOKEN};
/// use tower_layer::Layer as _;
/// use tower_service::Service;
///
/// fn carrying<S: Service<Request<()>, Response = Response<()>>>(client: S, layer: &CarryLayer)
///     -> Carry<S> {
///     layer.layer(client) // each request of it has the layer's grants
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Carry<S> {
    inner: S,
    layer: CarryLayer,
}

impl<S, B> Service<Request<B>> for Carry<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        self.layer.write(request.headers_mut());
        self.inner.call(request)
    }
}
