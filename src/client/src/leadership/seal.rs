//! What is sealed before a leadership begins.

use std::future::Future;
use std::sync::Arc;

use palisade_token::{FencingToken, Grant};

use crate::error::Source;

/// Raises the fences of the stores that a leadership will write to, before it reads anything from them.
///
/// An `async` closure that takes the [`Grant`] is a sealer, and so are tuples and vectors of sealers, which seal
/// one after another: for many stores. Sealing the same grant again must do no harm: after a failure all of
/// them are sealed again. `()` seals nothing: then nothing stops a leader that was paused, and its writes.
///
/// With the PostgreSQL guard of `palisade-guard`, of which this library knows nothing:
///
/// ```
/// # mod palisade_guard {
/// #     use palisade_client::{FencingToken, Grant};
/// #     #[derive(Debug, thiserror::Error)]
/// #     pub enum GuardError { #[error("stale")] Stale { fence: FencingToken }, #[error("else")] Other }
/// #     pub mod postgres {
/// #         pub struct Guard;
/// #         impl Guard {
/// #             pub fn new() -> Self { Self }
/// #             pub async fn seal(&self, _: &(), grant: &super::Grant) -> Result<super::Grant, super::GuardError> {
/// #                 Ok(grant.clone())
/// #             }
/// #         }
/// #     }
/// # }
/// # let pool = ();
/// use palisade_client::{Grant, SealError};
/// use palisade_guard::GuardError;
/// use palisade_guard::postgres::Guard;
///
/// let orders = move |grant: Grant| {
///     let pool = pool.clone();
///     async move {
///         match Guard::new().seal(&pool, &grant).await {
///             Ok(sealed) => Ok(sealed),
///             Err(GuardError::Stale { fence, .. }) => Err(SealError::Refused { fence }),
///             Err(other) => Err(SealError::transient(other)),
///         }
///     }
/// };
/// # fn takes(_sealer: impl palisade_client::Sealer) {}
/// # takes(orders);
/// ```
///
/// What it returns is handed to the work, as [`Leadership::sealed`](crate::Leadership::sealed).
///
/// ```
/// use palisade_client::{Grant, SealError, Sealer};
///
/// fn takes(_sealer: impl Sealer) {}
///
/// let one = async |grant: Grant| Ok::<_, SealError>(grant.token);
/// let other = async |_grant: Grant| Ok::<_, SealError>("sealed");
/// takes((one, other));
/// ```
pub trait Sealer: Send + Sync + 'static {
    /// What sealing gives: what the work will write with.
    type Sealed: Send + Sync + 'static;

    /// Seals. Dropped where the lease is lost or wanted back before it is done.
    ///
    /// # Errors
    /// [`SealError`] says whether it helps to try again.
    fn seal(&self, grant: &Grant) -> impl Future<Output = Result<Self::Sealed, SealError>> + Send;
}

/// Why a seal failed: what is to be done about it.
///
/// ```
/// use palisade_client::{FencingToken, SealError};
///
/// /// What a store said, which is at `fence`.
/// fn refused(token: FencingToken, fence: FencingToken) -> SealError {
///     if fence > token {
///         SealError::Refused { fence }
///     } else {
///         SealError::transient("the store is busy")
///     }
/// }
/// # let _ = refused;
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The fence is above the token. The lease is released and the fence told, so that the next token is above it.
    #[error("the fence, {fence}, is above the lease's token; the next token will be above it")]
    Refused {
        /// The fence.
        fence: FencingToken,
    },
    /// It may be better soon: tried again while the lease is held, up to the limit for sealing.
    #[error("not sealed; trying again")]
    Transient(#[source] Source),
    /// Trying again does not help. The lease is released, and the campaign ends.
    #[error("not sealed, and trying again does not help")]
    Fatal(#[source] Source),
}

impl SealError {
    /// As [`SealError::Transient`].
    pub fn transient(error: impl Into<Source>) -> Self {
        Self::Transient(error.into())
    }

    /// As [`SealError::Fatal`].
    ///
    /// ```
    /// use palisade_client::SealError;
    ///
    /// let error = SealError::fatal("there is no table of fences: install it first");
    /// assert!(matches!(error, SealError::Fatal(_)));
    /// ```
    pub fn fatal(error: impl Into<Source>) -> Self {
        Self::Fatal(error.into())
    }
}

impl<F, Sealing, S> Sealer for F
where
    F: Fn(Grant) -> Sealing + Send + Sync + 'static,
    Sealing: Future<Output = Result<S, SealError>> + Send,
    S: Send + Sync + 'static,
{
    type Sealed = S;

    fn seal(&self, grant: &Grant) -> impl Future<Output = Result<S, SealError>> + Send {
        self(grant.clone())
    }
}

impl Sealer for () {
    type Sealed = ();

    async fn seal(&self, _grant: &Grant) -> Result<(), SealError> {
        Ok(())
    }
}

impl<G: Sealer> Sealer for Arc<G> {
    type Sealed = G::Sealed;

    async fn seal(&self, grant: &Grant) -> Result<Self::Sealed, SealError> {
        self.as_ref().seal(grant).await
    }
}

impl<G: Sealer> Sealer for Vec<G> {
    type Sealed = Vec<G::Sealed>;

    async fn seal(&self, grant: &Grant) -> Result<Self::Sealed, SealError> {
        let mut sealed = Self::Sealed::with_capacity(self.len());
        for each in self {
            sealed.push(each.seal(grant).await?);
        }
        Ok(sealed)
    }
}

impl<A: Sealer, B: Sealer> Sealer for (A, B) {
    type Sealed = (A::Sealed, B::Sealed);

    async fn seal(&self, grant: &Grant) -> Result<Self::Sealed, SealError> {
        Ok((self.0.seal(grant).await?, self.1.seal(grant).await?))
    }
}

impl<A: Sealer, B: Sealer, C: Sealer> Sealer for (A, B, C) {
    type Sealed = (A::Sealed, B::Sealed, C::Sealed);

    async fn seal(&self, grant: &Grant) -> Result<Self::Sealed, SealError> {
        Ok((
            self.0.seal(grant).await?,
            self.1.seal(grant).await?,
            self.2.seal(grant).await?,
        ))
    }
}
