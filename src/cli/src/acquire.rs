use std::convert::Infallible;
use std::time::Duration;

use palisade_client::{
    AcquireOptions, Client, ClientError, Lease, LostReason, Occupancy, Session, SessionOptions,
};
use palisade_token::{FencingToken, HolderId, ResourceName};
use serde::Serialize;

use crate::args::{AcquireArgs, AcquireOutput};
use crate::clock;
use crate::failure::{Failure, Kind};
use crate::output;
use crate::progress::{self, Progress};
use crate::signals::Stop;
use crate::table::plain;
use crate::units::show_duration;

/// How often a waiting person is told of the queue, and how far into it this looks.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const SEEN_OF_QUEUE: u16 = 100;

const ONCE_MORE: &str = "a second signal ends it at once";

/// What is printed with `-o json`.
#[derive(Debug, Serialize)]
struct Acquired<'a> {
    resource: &'a ResourceName,
    token: FencingToken,
    holder: HolderId,
    /// `resource#token#holder`, as a guard's text form has it.
    grant: String,
    session: &'a str,
    request: &'a str,
    ttl_ms: u128,
    /// With `--detach` only: without it the secret stays in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    credentials: Option<Detached>,
}

#[derive(Debug, Serialize)]
struct Detached {
    secret: String,
    epoch: u64,
}

/// `palisade acquire`.
pub(crate) async fn run(args: AcquireArgs) -> Result<(), Failure> {
    let client = crate::connect(&args.client)?;
    let mut stop = Stop::listen()?;
    let acquired = tokio::select! {
        acquired = acquire(&args, &client) => acquired,
        signal = stop.asked() => {
            output::note(format_args!("palisade: ending; {ONCE_MORE}"));
            Err(signal.failure("ended before the resource was granted"))
        }
    };
    let limit = args.client.timeout;
    match acquired {
        Ok(Some((session, lease))) => {
            // Told at once when it is lost: there is nothing left to give back, and work to be stopped.
            hold(&lease, &mut stop).await?;
            output::note(format_args!(
                "palisade: releasing {}; {ONCE_MORE}",
                lease.resource()
            ));
            // Past its end there is nothing to release, and nobody to wait for.
            let limit = limit.min(lease.time_left());
            unless_stopped(&mut stop, release(session, lease, &client, limit)).await
        }
        Ok(None) => Ok(()),
        Err(failure) => {
            unless_stopped(&mut stop, async {
                settle(&client, limit).await;
                Err(failure)
            })
            .await
        }
    }
}

async fn unless_stopped(
    stop: &mut Stop,
    ending: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    tokio::select! {
        result = ending => result,
        signal = stop.asked() => Err(signal.failure(
            "ended at once; what was not given back yet ends with the session's TTL",
        )),
    }
}

/// Waits until what was given back on the way has arrived.
async fn settle(client: &Client, limit: Duration) {
    if !client.settled(limit).await {
        tracing::warn!("not everything was given back; it ends with the session's TTL");
    }
}

/// Acquires and prints. What is left is to be held, unless it was detached.
async fn acquire(args: &AcquireArgs, client: &Client) -> Result<Option<(Session, Lease)>, Failure> {
    let label = args.label.clone().unwrap_or_else(default_label);
    let options = SessionOptions::default().ttl(args.ttl).label(label);
    let session = client.open_session(options);
    let session = progress::during("opening a session", session).await?;
    let wanted = AcquireOptions::default()
        .wait(args.wait)
        .metadata(args.metadata.as_bytes());
    let acquired = waiting(
        client,
        &session,
        args,
        session.acquire(&args.resource, wanted),
    )
    .await;
    let lease = match acquired {
        Ok(lease) => lease,
        Err(error) => {
            // Else the session would stand until its TTL is over. It holds nothing: no harm if this fails.
            if let Err(error) = session.close().await {
                tracing::debug!(%error, "the session was not closed");
            }
            return Err(refused(error, &args.resource, args.wait));
        }
    };
    let grant = lease.grant()?;
    let info = lease.info().clone();
    let session_id = session.id().to_owned();
    let mut acquired = Acquired {
        resource: &grant.resource,
        token: grant.token,
        holder: grant.holder,
        grant: grant.to_string(),
        session: &session_id,
        request: &info.request_id,
        ttl_ms: session.ttl().as_millis(),
        credentials: None,
    };
    if !args.detach {
        print(&acquired, args.output)?;
        return Ok(Some((session, lease)));
    }
    let credentials = session.detach()?;
    drop(lease);
    acquired.credentials = Some(Detached {
        secret: credentials.secret.expose_hex(),
        epoch: credentials.epoch,
    });
    let printed = print(&acquired, args.output);
    if printed.is_err() {
        // Nobody knows how to release it. If this fails it ends with its TTL, as it would without.
        if let Err(error) = client.detached(credentials).close().await {
            tracing::warn!(%error, "not given back; it ends with the session's TTL");
        }
    }
    printed.map(|()| None)
}

/// Tells its place in the queue to whoever waits at a terminal.
async fn waiting<T>(
    client: &Client,
    session: &Session,
    args: &AcquireArgs,
    acquired: impl Future<Output = T>,
) -> T {
    let progress = Progress::new(&format!("waiting for {}", args.resource));
    let told = async {
        if !progress::is_watched() {
            return std::future::pending::<Infallible>().await;
        }
        loop {
            clock::pause(LOOK_AGAIN).await;
            if let Ok(found) = client.get_lease(&args.resource, SEEN_OF_QUEUE).await {
                progress.say(&place(&args.resource, session.id(), &found));
            }
        }
    };
    let acquired = async {
        tokio::select! {
            acquired = acquired => acquired,
            never = told => match never {},
        }
    };
    progress.during(acquired).await
}

fn place(resource: &ResourceName, session: &str, found: &Occupancy) -> String {
    let mut queue = found.queue.iter();
    let before = queue.position(|waiter| waiter.session_id == session);
    let holder = found.lease.as_ref().map(|lease| plain(&lease.label));
    let holder = holder.map_or_else(String::new, |label| format!(", held by {label}"));
    match before {
        Some(0) => format!("waiting for {resource}: next in the queue{holder}"),
        Some(before) => format!("waiting for {resource}: {before} before this one{holder}"),
        None => format!("waiting for {resource}{holder}"),
    }
}

fn default_label() -> String {
    format!("palisade acquire, pid {}", std::process::id())
}

/// Why it was not granted.
pub(crate) fn refused(error: ClientError, resource: &ResourceName, wait: Duration) -> Failure {
    match error {
        ClientError::Held { .. } => Failure::new(
            Kind::Busy,
            format!(
                "{resource} is held; see `palisade get {resource}`, or wait for it with --wait 30s"
            ),
        ),
        ClientError::WaitExpired { .. } => Failure::new(
            Kind::Busy,
            format!("{resource} was not granted within {}", show_duration(wait)),
        ),
        other => other.into(),
    }
}

fn print(acquired: &Acquired<'_>, format: AcquireOutput) -> Result<(), Failure> {
    match (format, &acquired.credentials) {
        (AcquireOutput::Json, _) => output::data_once(output::json_line(acquired)?),
        (AcquireOutput::Grant, _) => output::data_once(&acquired.grant),
        (AcquireOutput::Text, None) => output::data_once(acquired.token),
        // Nothing in it needs more quotes: names, numbers and hexadecimal digits, and `#` in the grant.
        (AcquireOutput::Text, Some(Detached { secret, epoch })) => output::data_once(format_args!(
            "token={}\nholder={}\ngrant='{}'\nsession={}\nsecret={secret}\nepoch={epoch}",
            acquired.token, acquired.holder, acquired.grant, acquired.session
        )),
    }
}

/// Holds until a signal; fails if the lease is lost before.
async fn hold(lease: &Lease, stop: &mut Stop) -> Result<(), Failure> {
    let lost = lease.lost();
    tokio::select! {
        biased;
        () = lost.cancelled() => Err(gone(lease.resource(), lease.token())),
        _ = stop.asked() => Ok(()),
    }
}

fn gone(resource: &ResourceName, token: FencingToken) -> Failure {
    let message =
        format!("the lease of {resource} with token {token} is lost: stop what relies on it");
    Failure::new(Kind::Lost, message)
}

async fn release(
    session: Session,
    lease: Lease,
    client: &Client,
    limit: Duration,
) -> Result<(), Failure> {
    let (resource, token) = (lease.resource().clone(), lease.token());
    if lease.grant().is_err() {
        return Err(gone(&resource, token));
    }
    match clock::within(limit, lease.release()).await {
        Some(Ok(released)) if released.ended_before.is_none() => {}
        None => return Err(not_released(&resource)),
        // Its time was over before a coordinator answered.
        Some(Err(ClientError::SessionLost {
            reason: LostReason::Expired,
        })) => return Err(not_released(&resource)),
        Some(Ok(_) | Err(ClientError::SessionLost { .. })) => return Err(gone(&resource, token)),
        Some(Err(error)) => return Err(error.into()),
    }
    output::note(format_args!("palisade: released {resource}"));
    // It holds nothing any more: no harm if its end is not heard of.
    drop(session);
    settle(client, limit).await;
    Ok(())
}

fn not_released(resource: &ResourceName) -> Failure {
    let message =
        format!("no coordinator took back {resource} in time; it ends with the session's TTL");
    Failure::new(Kind::Unreachable, message)
}
