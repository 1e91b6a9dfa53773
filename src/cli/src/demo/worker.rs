//! A worker: what a user's own process would be. It acquires, seals, reads, checks its lease, writes.

use std::time::Duration;

use palisade_client::{AcquireOptions, Client, Lease, Session, SessionOptions};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

use super::bank::{self, Bank, BankError};
use super::script::{Cue, Line, Part};
use crate::failure::Failure;
use crate::output;

/// Longer than the leader before may be silent, and some more on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs until it is told to leave, or whoever tells has gone.
pub(crate) async fn run() -> Result<(), Failure> {
    let mut cues = BufReader::new(tokio::io::stdin()).lines();
    let Some(part) = next(&mut cues).await? else {
        return Err(Failure::usage("this command is a part of `palisade demo`"));
    };
    if let Err(failure) = play(part, &mut cues).await {
        say(&Line::Broken {
            message: failure.to_string(),
        })?;
        return Err(failure);
    }
    Ok(())
}

/// What it takes to write.
struct Leadership {
    session: Session,
    lease: Lease,
    next: i64,
}

async fn play(part: Part, cues: &mut Lines<BufReader<Stdin>>) -> Result<(), Failure> {
    let client = Client::connect(part.addr.as_str())?;
    let mut bank = bank::open(&part.books, part.guarded)
        .await
        .map_err(broken)?;
    let mut leading: Option<Leadership> = None;
    while let Some(cue) = next(cues).await? {
        match cue {
            Cue::Lead => leading = Some(lead(&part, &client, bank.as_mut()).await?),
            Cue::Write => {
                let leading = leading
                    .as_ref()
                    .ok_or_else(|| Failure::usage("not leading"))?;
                write(leading, bank.as_mut()).await?;
            }
            Cue::Leave => break,
        }
    }
    if let Some(Leadership { session, lease, .. }) = leading.take() {
        // What is over need not be given back.
        if lease.grant().is_ok() {
            lease.release().await?;
        }
        session.close().await?;
    }
    Ok(())
}

async fn lead(part: &Part, client: &Client, bank: &mut dyn Bank) -> Result<Leadership, Failure> {
    let options = SessionOptions::default().ttl(part.ttl).label(&part.name);
    let session = client.open_session(options).await?;
    say(&Line::Asks)?;
    let lease = session
        .acquire(&part.resource, AcquireOptions::default().wait(PATIENCE))
        .await?;
    let grant = lease.grant()?;
    say(&Line::Leads { token: grant.token })?;
    if part.guarded {
        bank.seal(&grant).await.map_err(broken)?;
        say(&Line::Sealed)?;
    }
    let balance = bank.balance().await.map_err(broken)?;
    let next = balance + part.deposit;
    // A careful worker looks at its lease before it writes. It helps only until the next instruction.
    lease.grant()?;
    say(&Line::Ready {
        balance,
        next,
        lease_left: session.time_left(),
    })?;
    Ok(Leadership {
        session,
        lease,
        next,
    })
}

async fn write(leading: &Leadership, bank: &mut dyn Bank) -> Result<(), Failure> {
    match bank.write(leading.next).await {
        Ok(()) => say(&Line::Wrote)?,
        Err(BankError::Stale { presented, fence }) => say(&Line::Refused { presented, fence })?,
        Err(error) => return Err(broken(error)),
    }
    say(&Line::Lease {
        held: leading.lease.grant().is_ok(),
    })
}

fn broken(error: BankError) -> Failure {
    Failure::other(format!("the bank: {error}"))
}

fn say(line: &Line) -> Result<(), Failure> {
    output::json(line)
}

async fn next<T: serde::de::DeserializeOwned>(
    lines: &mut Lines<BufReader<Stdin>>,
) -> Result<Option<T>, Failure> {
    let line = lines.next_line().await.map_err(Failure::io("read stdin"))?;
    line.map(|line| {
        serde_json::from_str(&line)
            .map_err(|error| Failure::usage(format!("not a part of `palisade demo`: {error}")))
    })
    .transpose()
}
