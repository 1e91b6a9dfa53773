//! Getting the lease, and giving it back.

use std::time::Duration;

use palisade_client::{
    AcquireOptions, Client, ClientError, Clock, Lease, Moment, Session, SessionOptions, SystemClock,
};

use crate::args::RunArgs;
use crate::clock;
use crate::failure::{Failure, Kind};
use crate::output;
use crate::units::show_duration;

/// What a wait without end is made of: as long as coordinators allow unless configured otherwise. Between two of
/// them the place in the queue is gone.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// A coordinator that allows less is not worth asking.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// Between two tries to reach a coordinator, for a command that is to be restarted.
const PAUSE: Duration = Duration::from_secs(2);

/// A lease and its session.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) session: Session,
    pub(crate) lease: Lease,
}

/// How long to wait for others.
#[derive(Debug, Clone, Copy)]
enum Patience {
    Try,
    Until(Moment),
    Endless,
}

impl Patience {
    fn of(args: &RunArgs) -> Self {
        match args.wait {
            _ if args.only_try => Self::Try,
            Some(wait) => Self::Until(SystemClock.now().after(wait)),
            None => Self::Endless,
        }
    }

    fn wait(self, longest: Duration) -> Duration {
        match self {
            Self::Try => Duration::ZERO,
            Self::Until(end) => SystemClock.now().until(end),
            Self::Endless => longest,
        }
    }
}

/// Acquires, as patiently as was asked.
pub(crate) async fn acquire(args: &RunArgs, client: &Client) -> Result<Held, Failure> {
    let mut patience = None;
    let mut longest = LONGEST_WAIT;
    loop {
        let session = client.open_session(options(args)).await?;
        // From here on it waits for others, and not for a coordinator.
        let patience = *patience.get_or_insert_with(|| Patience::of(args));
        let error = loop {
            let wanted = AcquireOptions::default().wait(patience.wait(longest));
            match session.acquire(&args.resource, wanted).await {
                Ok(lease) => return Ok(Held { session, lease }),
                Err(ClientError::WaitExpired { .. }) if matches!(patience, Patience::Endless) => {}
                // This coordinator wants shorter ones.
                Err(ClientError::Invalid { field, .. })
                    if field.contains("wait")
                        && matches!(patience, Patience::Endless)
                        && longest > SHORTEST_WAIT =>
                {
                    longest /= 2;
                }
                Err(error) => break error,
            }
        };
        let may_wait = !patience.wait(longest).is_zero();
        if !(may_wait && matches!(error, ClientError::SessionLost { .. })) {
            // Else it would stand until its TTL is over. It holds nothing: no harm if this fails.
            if let Err(error) = session.close().await {
                tracing::debug!(%error, "the session was not closed");
            }
            return Err(refused(error, args));
        }
        // Waiting, it could not be renewed for too long: a new one asks anew.
    }
}

/// Acquires again, for a command that is to be restarted: coordinators may be away for a while.
pub(crate) async fn acquire_again(args: &RunArgs, client: &Client) -> Result<Held, Failure> {
    let mut is_told = false;
    loop {
        match acquire(args, client).await {
            Err(failure) if failure.kind == Kind::Unreachable => {
                if !std::mem::replace(&mut is_told, true) {
                    output::note(format_args!("palisade: {failure}; trying on"));
                }
                clock::pause(PAUSE).await;
            }
            done => return done,
        }
    }
}

fn options(args: &RunArgs) -> SessionOptions {
    let default = || {
        let program = args.command.first().map(|word| word.display().to_string());
        let mut label = format!("palisade run, pid {}", std::process::id());
        label.extend(program.map(|name| format!(": {name}")));
        // Labels are short, and show no control characters.
        label.retain(|letter| !letter.is_control());
        label.truncate(label.floor_char_boundary(MOST_LABEL));
        label
    };
    let label = args.label.clone().unwrap_or_else(default);
    SessionOptions::default().ttl(args.ttl).label(label)
}

/// The bytes that a label may have.
const MOST_LABEL: usize = 128;

fn refused(error: ClientError, args: &RunArgs) -> Failure {
    let resource = &args.resource;
    match error {
        ClientError::Held { .. } if args.only_try => Failure::new(
            Kind::Busy,
            format!(
                "{resource} is held; see `palisade get {resource}`, or leave out --try to wait"
            ),
        ),
        ClientError::Held { .. } | ClientError::WaitExpired { .. } => {
            let wait = show_duration(args.wait.unwrap_or_default());
            Failure::new(
                Kind::Busy,
                format!("{resource} was not granted within {wait}"),
            )
        }
        other => other.into(),
    }
}

/// Gives it back; returns when a coordinator has it, or when it has ended by itself.
pub(crate) async fn release(held: Held, client: &Client, limit: Duration) {
    let Held { session, lease } = held;
    // Past its end there is nothing to release, and nobody to wait for.
    let limit = limit.min(lease.time_left());
    let (resource, begun) = (lease.resource().clone(), SystemClock.now());
    let released = match clock::within(limit, lease.release()).await {
        Some(released) => released.map(|_| ()).map_err(Failure::from),
        None => Err(Failure::other("no coordinator took it back in time")),
    };
    if let Err(failure) = released {
        output::note(format_args!(
            "palisade: {resource} was not released ({failure}); it ends with the session's TTL"
        ));
    }
    drop(session);
    let left = limit.saturating_sub(begun.until(SystemClock.now()));
    if !client.settled(left).await {
        tracing::debug!("the session was not closed; it ends by its TTL");
    }
}

/// Lets it run out: somebody may still be at work under it.
pub(crate) fn abandon(held: Held) {
    let Held { session, lease } = held;
    // Detached it is neither renewed nor released when the lease is dropped.
    if let Err(error) = session.detach() {
        tracing::debug!(%error, "it has ended before");
    }
    drop(lease);
}
