//! How a call is tried until it is answered: over the endpoints, for as long as it may take.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Request, Response, Status};
use tracing::debug;

use crate::client::Transport;
use crate::clock::{Clock, Moment, within};
use crate::endpoints::{Connected, Endpoints, Stub};
use crate::epoch::Epochs;
use crate::error::ClientError;
use crate::error::status::{Failure, Verdict};
use crate::random::Random;
use crate::tasks::Tasks;

/// The pause before the first retry, doubled with each further one...
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// ...up to this, so that a coordinator that is back is found soon.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How much later than this process the coordinator stops serving a try: the clock here decides.
const TIMEOUT_SLACK: Duration = Duration::from_millis(500);

/// What all of a client's sessions and calls share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) endpoints: Endpoints,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Random,
    pub(crate) tasks: Tasks,
    /// How new sessions speak.
    pub(crate) transport: Transport,
    /// How long one try may take.
    pub(crate) call_timeout: Duration,
    /// How long a call may be tried.
    pub(crate) operation_timeout: Duration,
}

/// The numbers of one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Try {
    /// 1 for the first; larger where an earlier one's outcome is unknown.
    pub(crate) attempt: u32,
    /// The session's epoch that this try carries.
    pub(crate) epoch: u64,
}

/// One call over its tries.
#[derive(Debug)]
pub(crate) struct Tries<'a> {
    shared: &'a Shared,
    epochs: &'a Epochs,
    /// The epoch that the first try must be above.
    above: u64,
    last: Try,
    failures: u32,
    may_have_happened: bool,
}

/// An answer, and when its call had been sent.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    /// Read before the call was sent: what the answer says of time counts from here.
    pub(crate) sent: Moment,
    pub(crate) body: T,
}

/// What to do after a try that failed.
#[derive(Debug)]
pub(crate) enum Next {
    Retry,
    GiveUp(ClientError),
}

impl<'a> Tries<'a> {
    pub(crate) fn new(shared: &'a Shared, epochs: &'a Epochs) -> Self {
        Self::above(shared, epochs, 0)
    }

    /// A call whose first try must already shut out copies of another that used `epoch`.
    pub(crate) fn above(shared: &'a Shared, epochs: &'a Epochs, epoch: u64) -> Self {
        Self {
            shared,
            epochs,
            above: epoch,
            last: Try {
                attempt: 1,
                epoch: 0,
            },
            failures: 0,
            may_have_happened: false,
        }
    }

    /// The numbers of the next try, to be sent at once: retries overtake each other as little as can be.
    pub(crate) fn next_try(&mut self) -> Try {
        self.last.epoch = if self.last.attempt > 1 {
            self.epochs.raised()
        } else {
            self.epochs.above(self.above).max(self.epochs.current())
        };
        self.last
    }

    /// Whether an earlier try's outcome is unknown.
    pub(crate) fn may_have_happened(&self) -> bool {
        self.may_have_happened
    }

    /// The call goes on waiting: not a failure, but a copy of its last try may still be under way.
    pub(crate) fn go_on(&mut self) {
        self.may_have_happened = true;
        self.failures = 0;
        self.last.attempt = self.last.attempt.saturating_add(1);
    }

    /// Learns from a failure, and pauses before a retry unless `deadline` comes first.
    pub(crate) async fn after(&mut self, failure: Failure, deadline: Moment) -> Next {
        match failure.verdict {
            Verdict::Final => {
                return Next::GiveUp(failure.error.after_tries(self.may_have_happened));
            }
            Verdict::NotDone | Verdict::Unknown => {}
            Verdict::EpochStale { stored } => {
                self.epochs.after_stale(self.last.epoch, stored);
            }
        }
        if failure.may_have_happened {
            self.may_have_happened = true;
            self.last.attempt = self.last.attempt.saturating_add(1);
        }
        debug!(verdict = ?failure.verdict, last = ?self.last, "trying again");
        let doubled = FIRST_PAUSE * (1 << self.failures.min(10));
        let pause = self.shared.random.jittered(doubled.min(LONGEST_PAUSE), 500);
        self.failures = self.failures.saturating_add(1);
        let clock = &self.shared.clock;
        if clock.now().until(deadline) <= pause {
            return Next::GiveUp(failure.error.after_tries(self.may_have_happened));
        }
        clock.sleep(pause).await;
        Next::Retry
    }
}

impl Shared {
    /// One try over one endpoint. `at_fault` says whether no answer within `limit` is held against it.
    pub(crate) async fn try_once<Req, Resp, Sent>(
        &self,
        limit: Duration,
        at_fault: bool,
        message: Req,
        send: impl FnOnce(Stub, Request<Req>) -> Sent,
    ) -> Result<Answer<Resp>, Failure>
    where
        Sent: Future<Output = Result<Response<Resp>, Status>>,
    {
        let used = self.endpoints.connected(limit).await?;
        let send = |used: &Connected, request| send(used.stub.clone(), request);
        self.try_over(&used, limit, at_fault, message, send).await
    }

    /// As [`Shared::try_once`], over an endpoint that was chosen.
    pub(crate) async fn try_over<Req, Resp, Sent>(
        &self,
        used: &Connected,
        limit: Duration,
        at_fault: bool,
        message: Req,
        send: impl FnOnce(&Connected, Request<Req>) -> Sent,
    ) -> Result<Answer<Resp>, Failure>
    where
        Sent: Future<Output = Result<Response<Resp>, Status>>,
    {
        let mut request = Request::new(message);
        request.set_timeout(limit.saturating_add(TIMEOUT_SLACK));
        let sent = self.clock.now();
        // Boxed: a call's future has kilobytes, and users hold many of them.
        let answering = Box::pin(send(used, request));
        let failure = match within(&self.clock, limit, answering).await {
            Some(Ok(response)) => {
                self.endpoints.succeeded(used);
                return Ok(Answer {
                    sent,
                    body: response.into_inner(),
                });
            }
            Some(Err(status)) => {
                let timed_out = status.code() == Code::DeadlineExceeded;
                let mut failure = Failure::from(status);
                failure.endpoint_at_fault &= at_fault || !timed_out;
                failure
            }
            None => Failure::no_answer(at_fault),
        };
        if failure.endpoint_at_fault {
            self.endpoints.failed(used).await;
        }
        Err(failure)
    }

    /// A call that changes nothing, tried until it is answered or the operation's time is over.
    pub(crate) async fn read<Req: Clone, Resp, Sent>(
        &self,
        message: Req,
        send: impl Fn(Stub, Request<Req>) -> Sent,
    ) -> Result<Resp, ClientError>
    where
        Sent: Future<Output = Result<Response<Resp>, Status>>,
    {
        let epochs = Epochs::starting_at(1);
        let tries = Tries::new(self, &epochs);
        Ok(self.call(tries, |_| message.clone(), send).await?.body)
    }

    /// A call tried until it is answered or the operation's time is over.
    pub(crate) async fn call<Req, Resp, Sent>(
        &self,
        mut tries: Tries<'_>,
        message: impl Fn(Try) -> Req,
        send: impl Fn(Stub, Request<Req>) -> Sent,
    ) -> Result<Answer<Resp>, ClientError>
    where
        Sent: Future<Output = Result<Response<Resp>, Status>>,
    {
        let deadline = self.clock.now().after(self.operation_timeout);
        loop {
            let left = self.clock.now().until(deadline).min(self.call_timeout);
            let outcome = self
                .try_once(left, true, message(tries.next_try()), &send)
                .await;
            match outcome {
                Ok(answer) => return Ok(answer),
                Err(failure) => match tries.after(failure, deadline).await {
                    Next::Retry => {}
                    Next::GiveUp(error) => return Err(error),
                },
            }
        }
    }
}
