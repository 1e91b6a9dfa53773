//! `palisade watch`, and `palisade list --watch` where no terminal shows it: news of leases, line by line.

use std::future;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;

use palisade_client::{
    Client, LeaseEnd, LeaseWatch, Unavailable, WatchEvent, WatchOptions, WatchPosition, WatchScope,
};
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;

use crate::args::{Format, Until, WatchArgs, Watched};
use crate::clock;
use crate::failure::{Failure, Kind};
use crate::output;
use crate::progress;
use crate::signals::Stop;

mod line;
mod live;

pub(crate) use live::show as live;

/// `palisade watch`.
pub(crate) async fn run(args: WatchArgs) -> Result<(), Failure> {
    let scope = match args.what {
        Watched::Resource(resource) => WatchScope::Resource(resource),
        Watched::Prefix(_) if args.until.is_some() => {
            return Err(Failure::usage(
                "--until is for one resource: name it, with no / at its end",
            ));
        }
        Watched::Prefix(prefix) => WatchScope::Prefix(prefix),
    };
    let mut options = WatchOptions::default();
    if let Some(revision) = args.from {
        let position: WatchPosition = revision.to_string().parse()?;
        options = options.resume(position);
    }
    let client = crate::connect(&args.client)?;
    let watch = client.watch_leases(scope, options)?;
    let lines = Lines {
        as_json: args.output != Format::Table,
        until: args.until,
        held: 0,
    };
    follow(News::of(watch, args.client.timeout), lines).await
}

/// The changes below a prefix, in JSON.
pub(crate) async fn changes(
    client: &Client,
    prefix: String,
    patience: std::time::Duration,
) -> Result<(), Failure> {
    let watch = client.watch_leases(WatchScope::Prefix(prefix), WatchOptions::default())?;
    let lines = Lines {
        as_json: true,
        until: None,
        held: 0,
    };
    follow(News::of(watch, patience), lines).await
}

/// How events are told as lines.
#[derive(Debug)]
struct Lines {
    as_json: bool,
    until: Option<Until>,
    /// How many the snapshot had so far.
    held: usize,
}

async fn follow(mut news: News, mut lines: Lines) -> Result<(), Failure> {
    let mut stop = Stop::listen()?;
    let waits_for_something = lines.until.is_some();
    let mut gone = std::pin::pin!(reader_gone());
    loop {
        let event = tokio::select! {
            biased;
            signal = stop.asked() => {
                // To be told to end is how a watch ends, unless it was waiting for something.
                return match waits_for_something {
                    true => Err(signal.failure("ended before the resource was so")),
                    false => Ok(()),
                };
            }
            () = &mut gone => return Ok(()),
            event = news.next() => event?,
        };
        if lines.tell(&event)?.is_break() {
            return Ok(());
        }
    }
}

impl Lines {
    /// Breaks off where nobody reads any more, or what was waited for is so.
    fn tell(&mut self, event: &WatchEvent) -> Result<ControlFlow<()>, Failure> {
        match event {
            WatchEvent::Stands { .. } => self.held += 1,
            WatchEvent::SnapshotEnd { revision, .. } => {
                let held = std::mem::take(&mut self.held);
                if !self.as_json {
                    output::note(format_args!(
                        "palisade: {held} held at revision {revision}; what happens from here on follows"
                    ));
                }
                if held == 0 && self.until == Some(Until::Vacant) {
                    return self.print(event).map(|_| ControlFlow::Break(()));
                }
            }
            WatchEvent::Resync { .. } => {
                self.held = 0;
                output::note("palisade: changes were missed: what is held now is told anew");
            }
            _ => {}
        }
        if self.print(event)?.is_break() || self.is_what_was_waited_for(event) {
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    }

    fn print(&self, event: &WatchEvent) -> Result<ControlFlow<()>, Failure> {
        let line = if self.as_json {
            line::json(event)?
        } else {
            line::text(event)
        };
        line.map_or(Ok(ControlFlow::Continue(())), output::next)
    }

    fn is_what_was_waited_for(&self, event: &WatchEvent) -> bool {
        match self.until {
            None => false,
            Some(Until::Granted) => {
                matches!(
                    event,
                    WatchEvent::Stands { .. } | WatchEvent::Granted { .. }
                )
            }
            Some(Until::Vacant) => matches!(event, WatchEvent::Vacant { .. }),
        }
    }
}

/// A watch whose breaks are told on stderr. The first connection must come within the patience of a call; from then
/// on it is waited for as long as it takes.
#[derive(Debug)]
struct News {
    watch: LeaseWatch,
    patience: std::time::Duration,
    has_begun: bool,
    is_interrupted: bool,
}

impl News {
    fn of(watch: LeaseWatch, patience: std::time::Duration) -> Self {
        Self {
            watch,
            patience,
            has_begun: false,
            is_interrupted: false,
        }
    }

    /// The next event that is of leases.
    async fn next(&mut self) -> Result<WatchEvent, Failure> {
        loop {
            let event = self.heard().await?;
            if let WatchEvent::Interrupted { cause, .. } = event {
                self.is_interrupted = true;
                output::note(format_args!(
                    "palisade: {}; it is tried again until one does",
                    interrupted(cause)
                ));
                continue;
            }
            if std::mem::take(&mut self.is_interrupted) {
                output::note("palisade: going on");
            }
            if matches!(event, WatchEvent::Bookmark { .. }) {
                continue;
            }
            return Ok(event);
        }
    }

    /// The next event of any kind. Nothing is lost if it is not waited for to the end.
    async fn heard(&mut self) -> Result<WatchEvent, Failure> {
        if self.has_begun {
            return Ok(self.watch.next().await?);
        }
        let mut cause = Unavailable::NoAnswer;
        let begin = async {
            loop {
                match self.watch.next().await {
                    Ok(WatchEvent::Interrupted { cause: met, .. }) => cause = met,
                    event => return event,
                }
            }
        };
        let connecting = clock::within(self.patience, begin);
        let Some(event) = progress::during("connecting", connecting).await else {
            return Err(Failure::from(palisade_client::ClientError::Unavailable {
                cause,
                may_have_happened: false,
                retry_after: None,
                source: None,
            }));
        };
        self.has_begun = true;
        Ok(event?)
    }
}

/// Why there is no news at present.
fn interrupted(cause: Unavailable) -> &'static str {
    match cause {
        Unavailable::Store => "no coordinator reaches its store",
        Unavailable::Draining => "the coordinator is shutting down",
        Unavailable::Limit => "no coordinator has room for one more watch",
        Unavailable::Unreachable => "no coordinator can be reached",
        _ => "no coordinator tells news now",
    }
}

/// How an end is called.
fn ending(end: LeaseEnd) -> &'static str {
    match end {
        LeaseEnd::Released => "released",
        LeaseEnd::Expired => "expired",
        LeaseEnd::Revoked => "revoked",
        _ => "ended",
    }
}

/// Waits until nobody reads stdout any more: else that would be noticed with the next event only, which may be
/// never. Where stdout is no pipe there is nothing to wait for.
async fn reader_gone() {
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    let pipe = stdout.and_then(Sender::from_owned_fd_unchecked);
    if let Ok(pipe) = pipe
        && pipe.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    future::pending().await
}

/// The failure of a terminal that cannot be used.
fn no_terminal(error: io::Error) -> Failure {
    Failure::new(Kind::Other, format!("cannot use the terminal: {error}"))
}
