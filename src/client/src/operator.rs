//! What operators ask: revoke, check, advance, drain, and how coordinators stand.

use std::future::Future;
use std::time::Duration;

use futures::future::join_all;
use palisade_api::v1::{
    AdvanceGenerationRequest, CheckTokenRequest, DrainRequest, GetStatusRequest, RevokeLeaseRequest,
};
use palisade_token::{FencingToken, ResourceName};
use tonic::{Request, Response, Status};

use crate::calls::{Next, Shared, Tries};
use crate::client::Client;
use crate::clock::Moment;
use crate::endpoints::AdminStub;
use crate::epoch::Epochs;
use crate::error::ClientError;
use crate::error::status::Failure;
use crate::session::milliseconds;

mod answers;
mod options;
mod status;

pub use self::answers::{GenerationChange, Revocation, RevokeOutcome, TokenCheck, TokenState};
pub use self::options::{AdvanceOptions, DrainOptions, RevokeOptions};
pub use self::status::{
    CoordinatorLimits, CoordinatorStatus, CoordinatorUsage, EndpointStatus, StoreEndpoint,
    StoreKind,
};

/// What the coordinator takes to drain where it is not told.
const DRAIN_TIME: Duration = Duration::from_secs(10);

impl Client {
    /// The coordinators' addresses, as they were given.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.shared().endpoints.names().map(str::to_owned).collect()
    }

    /// How a token stands to a resource. For tools only: between this answer and a write anything may happen,
    /// so it replaces no guard.
    ///
    /// ```no_run
    /// # async fn example(client: palisade_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use palisade_client::TokenState;
    ///
    /// let check = client.check_token(&"orders".parse()?, "1732180000000000".parse()?).await?;
    /// if check.state == TokenState::Stale {
    ///     println!("its lease has ended; now it is {:?}", check.current);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Invalid`], [`ClientError::Denied`], [`ClientError::Unavailable`].
    pub async fn check_token(
        &self,
        resource: &ResourceName,
        token: FencingToken,
    ) -> Result<TokenCheck, ClientError> {
        let request = CheckTokenRequest {
            resource: resource.to_string(),
            token: token.as_i64(),
        };
        let answer = self
            .shared()
            .read(request, |mut stub, request| async move {
                stub.check_token(request).await
            })
            .await?;
        TokenCheck::try_from(answer)
    }

    /// Ends the lease of a resource that has this token: its holder is asked for as long as the options say,
    /// then it is forced. Returns once it has ended.
    ///
    /// **It stops no writer.** Only a seal by the next holder does; what the revoked one has under way
    /// is written until then.
    ///
    /// Only the lease with this token is ended, so the call is tried again until it is answered. If the future
    /// is dropped while the holder is being asked, call again.
    ///
    /// ```no_run
    /// # async fn example(client: palisade_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use palisade_client::RevokeOptions;
    ///
    /// let resource = "orders".parse()?;
    /// if let Some(lease) = client.get_lease(&resource, 0).await?.lease {
    ///     let why = RevokeOptions::because("host 7 is taken down", "alice");
    ///     let asked = why.ask_for(Duration::from_secs(30));
    ///     let revoked = client.revoke_lease(&resource, lease.grant.token, asked).await?;
    ///     println!("{:?} at revision {}", revoked.outcome, revoked.revision);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::StaleToken`] for a token above the current one, [`ClientError::Invalid`],
    /// [`ClientError::Denied`]. [`ClientError::Unavailable`]: where its `may_have_happened` is set, the
    /// lease may be revoked, and its holder may have been asked; call again to know.
    pub async fn revoke_lease(
        &self,
        resource: &ResourceName,
        token: FencingToken,
        options: RevokeOptions,
    ) -> Result<Revocation, ClientError> {
        milliseconds("cooperative", options.ask_for)?;
        let plan = Plan {
            patience: options.ask_for,
            ..Plan::default()
        };
        let message = |left: Duration| RevokeLeaseRequest {
            resource: resource.to_string(),
            token: token.as_i64(),
            // What does not fit was refused above.
            cooperative_ms: milliseconds("cooperative", left).unwrap_or(u64::MAX),
            reason: options.why.reason.clone(),
            actor: options.why.actor.clone(),
        };
        let done = self
            .shared()
            .operate(plan, message, |mut stub, request| async move {
                stub.revoke_lease(request).await
            })
            .await?;
        Revocation::of(done.body, done.earlier_unknown)
    }

    /// Makes a new generation, so that all tokens granted from now on are above the given one: after a wrong
    /// clock, or a restored guard database. Leases that stand keep their tokens. Tried again until it is
    /// answered: one generation more does no harm.
    ///
    /// ```no_run
    /// # async fn example(client: palisade_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use palisade_client::AdvanceOptions;
    ///
    /// let why = AdvanceOptions::because("the guard's database was restored", "alice");
    /// let change = client.advance_generation(why.past("1732180000000000".parse()?)).await?;
    /// println!("tokens now begin at {}", change.generation.base);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::ForceRequired`] for a token more than a day past the coordinator's clock,
    /// [`ClientError::Invalid`] for one above 2^52, [`ClientError::Denied`], [`ClientError::Unavailable`].
    pub async fn advance_generation(
        &self,
        options: AdvanceOptions,
    ) -> Result<GenerationChange, ClientError> {
        let message = |_| AdvanceGenerationRequest {
            past_token: options.past.map_or(0, FencingToken::as_i64),
            force: options.force,
            reason: options.why.reason.clone(),
            actor: options.why.actor.clone(),
        };
        let done = self
            .shared()
            .operate(Plan::default(), message, |mut stub, request| async move {
                stub.advance_generation(request).await
            })
            .await?;
        GenerationChange::try_from(done.body)
    }

    /// How a coordinator stands: whichever answers. See [`Client::statuses`] for all of them.
    ///
    /// ```no_run
    /// # async fn example(client: palisade_client::Client) -> Result<(), palisade_client::ClientError> {
    /// let status = client.status().await?;
    /// println!("version {}, ready: {}", status.version, status.ready);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Denied`], [`ClientError::Unavailable`].
    pub async fn status(&self) -> Result<CoordinatorStatus, ClientError> {
        let request = |_| GetStatusRequest {};
        let done = self
            .shared()
            .operate(Plan::default(), request, |mut stub, request| async move {
                stub.get_status(request).await
            })
            .await?;
        Ok(CoordinatorStatus::from(done.body))
    }

    /// How one coordinator stands, by the address that the client was given: one try, no other is asked.
    ///
    /// ```no_run
    /// # async fn example(client: palisade_client::Client) -> Result<(), palisade_client::ClientError> {
    /// let status = client.status_of("http://10.0.0.1:7650").await?;
    /// println!("{:?}", status.not_ready_reasons);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Invalid`] for an address that is not one of [`Client::endpoints`],
    /// [`ClientError::Denied`], [`ClientError::Unavailable`].
    pub async fn status_of(&self, endpoint: &str) -> Result<CoordinatorStatus, ClientError> {
        let endpoint = self.named(endpoint)?;
        let shared = self.shared();
        let send = |mut stub: AdminStub, request| async move { stub.get_status(request).await };
        let limit = shared.call_timeout;
        let asked = shared.operate_once(Some(endpoint), limit, GetStatusRequest {}, &send);
        match asked.await {
            Ok(answer) => Ok(CoordinatorStatus::from(answer)),
            Err(failure) => Err(failure.error),
        }
    }

    /// How each coordinator stands, in the order of [`Client::endpoints`]: one try each, at the same time.
    ///
    /// ```no_run
    /// # async fn example(client: palisade_client::Client) {
    /// for one in client.statuses().await {
    ///     match one.status {
    ///         Ok(status) => println!("{}: ready: {}", one.endpoint, status.ready),
    ///         Err(error) => println!("{}: {error}", one.endpoint),
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn statuses(&self) -> Vec<EndpointStatus> {
        let each = self.shared().endpoints.names().map(|endpoint| async move {
            EndpointStatus {
                endpoint: endpoint.to_owned(),
                status: self.status_of(endpoint).await,
            }
        });
        join_all(each).await
    }

    /// Drains one coordinator, by the address that the client was given: it is no longer ready, takes nothing
    /// new, and sends its streams elsewhere. Nothing is revoked; the process stays until it is stopped. Returns
    /// when its streams have gone or the time is over, with the number of those that it ended itself.
    ///
    /// Not sent again once it may have been heard: behind an address that several coordinators share, a
    /// second try could drain a second one.
    ///
    /// ```no_run
    /// # async fn example(client: palisade_client::Client) -> Result<(), palisade_client::ClientError> {
    /// use palisade_client::DrainOptions;
    ///
    /// let ended = client.drain("http://10.0.0.1:7650", DrainOptions::because("upgrade", "alice")).await?;
    /// println!("{ended} streams did not leave by themselves");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Invalid`], also for an address that is not one of [`Client::endpoints`],
    /// [`ClientError::Denied`], [`ClientError::Unavailable`]: where its `may_have_happened` is set it may
    /// be draining.
    pub async fn drain(&self, endpoint: &str, options: DrainOptions) -> Result<u32, ClientError> {
        let deadline_ms = milliseconds("deadline", options.within)?;
        let plan = Plan {
            endpoint: Some(self.named(endpoint)?),
            patience: if options.within.is_zero() {
                DRAIN_TIME
            } else {
                options.within
            },
            only_once: true,
        };
        let message = |_| DrainRequest {
            deadline_ms,
            reason: options.why.reason.clone(),
            actor: options.why.actor.clone(),
        };
        let done = self
            .shared()
            .operate(plan, message, |mut stub, request| async move {
                stub.drain(request).await
            })
            .await?;
        Ok(done.body.streams_ended)
    }

    fn named(&self, endpoint: &str) -> Result<usize, ClientError> {
        let endpoints = &self.shared().endpoints;
        endpoints.named(endpoint).ok_or_else(|| {
            let names: Vec<&str> = endpoints.names().collect();
            let bound = format!("one of this client's: {}", names.join(", "));
            ClientError::invalid("endpoint", bound, endpoint)
        })
    }
}

/// How an operator's call is tried.
#[derive(Debug, Clone, Copy, Default)]
struct Plan {
    /// At this one and no other.
    endpoint: Option<usize>,
    /// How long the coordinator itself may take for it, besides.
    patience: Duration,
    /// Not once more if it may have been heard.
    only_once: bool,
}

/// What an operator's call came to.
struct Done<T> {
    body: T,
    /// An earlier try of it may have been served.
    earlier_unknown: bool,
}

impl Shared {
    async fn operate_once<Req, Resp, Sent>(
        &self,
        endpoint: Option<usize>,
        limit: Duration,
        message: Req,
        send: &impl Fn(AdminStub, Request<Req>) -> Sent,
    ) -> Result<Resp, Failure>
    where
        Sent: Future<Output = Result<Response<Resp>, Status>>,
    {
        let used = match endpoint {
            Some(index) => self.endpoints.connected_to(index, limit).await?,
            None => self.endpoints.connected(limit).await?,
        };
        let answer = self
            .try_over(&used, limit, true, message, |used, request| {
                send(used.admin.clone(), request)
            })
            .await?;
        Ok(answer.body)
    }

    /// A call tried until it is answered or its time is over. `message` is given what is left of the patience:
    /// it runs from the first try that may have been heard.
    async fn operate<Req, Resp, Sent>(
        &self,
        plan: Plan,
        message: impl Fn(Duration) -> Req,
        send: impl Fn(AdminStub, Request<Req>) -> Sent,
    ) -> Result<Done<Resp>, ClientError>
    where
        Sent: Future<Output = Result<Response<Resp>, Status>>,
    {
        let epochs = Epochs::starting_at(1);
        let mut tries = Tries::new(self, &epochs);
        let begun = self.clock.now();
        let deadline = begun.after(self.operation_timeout.saturating_add(plan.patience));
        let mut heard_at: Option<Moment> = None;
        loop {
            let now = self.clock.now();
            let gone = heard_at.map_or(Duration::ZERO, |heard| heard.until(now));
            let left = plan.patience.saturating_sub(gone);
            let limit = left.saturating_add(self.call_timeout);
            let limit = limit.min(now.until(deadline));
            let outcome = self.operate_once(plan.endpoint, limit, message(left), &send);
            let failure = match outcome.await {
                Ok(body) => {
                    return Ok(Done {
                        body,
                        earlier_unknown: heard_at.is_some(),
                    });
                }
                Err(failure) => failure,
            };
            if failure.may_have_happened {
                if plan.only_once {
                    return Err(failure.error);
                }
                heard_at = heard_at.or(Some(now));
            }
            match tries.after(failure, deadline).await {
                Next::Retry => {}
                Next::GiveUp(error) => return Err(error),
            }
        }
    }
}
