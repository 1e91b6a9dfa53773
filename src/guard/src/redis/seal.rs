use ::redis::aio::ConnectionLike;
use ::redis::{Value, cmd};
use palisade_token::{Grant, ResourceName};
use tracing::Instrument as _;

use super::reply::Reply;
use super::{Guard, Sealed, errors, fence_key};
use crate::metrics::{self, StoreKind, Timer};
use crate::{Fence, GuardError, spans};

impl Guard {
    /// Raises the fence to the grant: once this returns, no guarded write with a lower token is made on this
    /// server, for as long as it keeps the fence. Do it before the first read. The same grant may be
    /// sealed any number of times.
    ///
    /// # Errors
    /// [`GuardError::Stale`] and [`GuardError::Collision`] are final; after [`GuardError::Backend`] it may be
    /// sealed or not: seal again.
    pub async fn seal(
        &self,
        connection: &mut impl ConnectionLike,
        grant: &Grant,
    ) -> Result<Sealed, GuardError> {
        let timer = Timer::start();
        let sealed = raise(connection, grant)
            .instrument(spans::seal(StoreKind::Redis, grant))
            .await;
        metrics::seal(StoreKind::Redis, timer, &sealed);
        sealed
    }

    /// Reads the fence of a resource, `None` if it was never sealed.
    ///
    /// # Errors
    /// [`GuardError::Backend`].
    pub async fn fence(
        &self,
        connection: &mut impl ConnectionLike,
        resource: &ResourceName,
    ) -> Result<Option<Fence>, GuardError> {
        let value: Value = cmd("FCALL")
            .arg("palisade_status_1")
            .arg(1)
            .arg(fence_key(resource))
            .arg(resource.as_str())
            .query_async(connection)
            .await
            .map_err(errors::plain)?;
        let reply = Reply::from(value).ok_or_else(no_fence)?;
        if reply.kind() == "none" {
            return Ok(None);
        }
        let words = reply.texts().ok_or_else(no_fence)?;
        let [token, holder, sealed_at] = words.as_slice() else {
            return Err(no_fence());
        };
        let fence = token.parse().ok().zip(sealed_at.parse().ok());
        fence
            .and_then(|(token, sealed_at)| Fence::from_store(resource, token, holder, sealed_at))
            .map(Some)
            .ok_or_else(no_fence)
    }
}

fn no_fence() -> GuardError {
    GuardError::Backend(Box::from("the key of the fence holds what is no fence"))
}

async fn raise(connection: &mut impl ConnectionLike, grant: &Grant) -> Result<Sealed, GuardError> {
    let value: Value = cmd("FCALL")
        .arg("palisade_seal_1")
        .arg(1)
        .arg(fence_key(&grant.resource))
        .arg(grant.resource.as_str())
        .arg(grant.token.to_string())
        .arg(grant.holder.to_string())
        .query_async(connection)
        .await
        .map_err(errors::plain)?;
    match Reply::from(value) {
        Some(reply) if reply.kind() == "ok" => Ok(Sealed::new(grant.clone())),
        Some(reply) => Err(reply.refusal(grant)),
        None => Err(no_fence()),
    }
}
