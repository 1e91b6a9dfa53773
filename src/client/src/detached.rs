use std::sync::Arc;
use std::time::Duration;

use palisade_api::v1::{CloseSessionRequest, RenewSessionRequest};
use palisade_token::{FencingToken, ResourceName};

use crate::calls::{Shared, Tries};
use crate::clock::Moment;
use crate::credentials::Credentials;
use crate::epoch::Epochs;
use crate::error::ClientError;
use crate::release::{Hold, Release, Released};

/// A session of another process, by its credentials: nothing happens by itself, and nothing when it is
/// dropped.
///
/// Its calls carry a larger epoch than the credentials name. With the largest that the other process used,
/// what that one may still have under way is shut out from the first [`DetachedSession::release`] on, and
/// not by renewals: an acquire that it sent can be granted until then.
///
/// ```no_run
/// # async fn example(client: palisade_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use palisade_client::{Credentials, Hold, Secret};
///
/// let secret = Secret::from_hex("000102030405060708090a0b0c0d0e0f")?;
/// let session = client.detached(Credentials::new("0123456789abcdef", secret, 0));
/// session.release(&"orders".parse()?, Hold::Token("42".parse()?), None).await?;
/// session.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DetachedSession {
    shared: Arc<Shared>,
    credentials: Credentials,
    epochs: Epochs,
}

impl DetachedSession {
    pub(crate) fn new(shared: Arc<Shared>, credentials: Credentials) -> Self {
        // Above what the other process used: the first release shuts out what it may still have under way.
        let epochs = Epochs::starting_at(credentials.epoch.saturating_add(1));
        Self {
            shared,
            credentials,
            epochs,
        }
    }

    /// The session's credentials, with the largest epoch used by now.
    ///
    /// ```no_run
    /// # async fn example(session: palisade_client::DetachedSession) {
    /// if let Err(error) = session.renew().await {
    ///     eprintln!("not renewed: {error}");
    /// }
    /// let for_whoever_goes_on = session.credentials();
    /// # drop(for_whoever_goes_on);
    /// # }
    /// ```
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        Credentials {
            epoch: self.epochs.current(),
            ..self.credentials.clone()
        }
    }

    /// Releases a hold, or gives back a queue place; `refused_by_fence` is the fence with which a guard
    /// refused the token, where that is the cause.
    ///
    /// # Errors
    /// [`ClientError::SessionLost`]: there is nothing left to release. [`ClientError::StaleToken`],
    /// [`ClientError::FenceAhead`], [`ClientError::Denied`], [`ClientError::Unavailable`].
    pub async fn release(
        &self,
        resource: &ResourceName,
        hold: Hold,
        refused_by_fence: Option<FencingToken>,
    ) -> Result<Released, ClientError> {
        Release::new(resource.clone(), hold)
            .refused_by(refused_by_fence)
            .run(&self.shared, &self.credentials, &self.epochs)
            .await
    }

    /// Renews the session once. Answers what is left of its TTL and when that counts from, on the client's
    /// [`Clock`](crate::Clock); no drift and no margin is taken off. Shuts out nothing of the other process.
    ///
    /// # Errors
    /// [`ClientError::SessionLost`], [`ClientError::Denied`], [`ClientError::Unavailable`].
    pub async fn renew(&self) -> Result<(Moment, Duration), ClientError> {
        let message = |epoch| RenewSessionRequest {
            session: Some(self.credentials.at(epoch)),
            ..Default::default()
        };
        let answer = self
            .shared
            .call(
                Tries::new(&self.shared, &self.epochs),
                |next| message(next.epoch),
                |mut stub, request| async move { stub.renew_session(request).await },
            )
            .await?;
        Ok((answer.sent, Duration::from_millis(answer.body.ttl_left_ms)))
    }

    /// Closes the session: all that it holds is released. One that has ended already is closed: no error.
    ///
    /// # Errors
    /// [`ClientError::Denied`], [`ClientError::Unavailable`].
    pub async fn close(self) -> Result<(), ClientError> {
        let message = |epoch| CloseSessionRequest {
            session: Some(self.credentials.at(epoch)),
        };
        let closed = self
            .shared
            .call(
                Tries::new(&self.shared, &self.epochs),
                |next| message(next.epoch),
                |mut stub, request| async move { stub.close_session(request).await },
            )
            .await;
        match closed {
            Ok(_) | Err(ClientError::SessionLost { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
