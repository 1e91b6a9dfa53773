//! `palisade run`: a command that runs for as long as its lease stands.
//!
//! Two processes see to that. This one holds the lease; its guardian, told of each new deadline, owns the
//! command's process group and ends it in time, also when this one is killed or stopped. Should the guardian
//! die, this one kills the group at once.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use palisade_client::{Client, Clock, LostReason, Moment, SessionState, SystemClock};
use palisade_token::{FencingToken, Grant};
use rustix::process::{Signal, getpid, set_child_subreaper};

use crate::args::RunArgs;
use crate::clock;
use crate::failure::{Failure, Kind};
use crate::output;
use crate::units::show_duration;
use course::{Cause, Course, Mode, Next, Run};
use group::Exit;
use guarded::Plan;
use holding::Held;
use relay::Relay;
use round::{Round, Term};
use status::StatusFile;
use terminal::Terminal;

pub(crate) use guardian::guardian;
pub(crate) use stage::stage;

mod alarm;
mod course;
mod group;
mod guarded;
mod guardian;
mod holding;
mod processes;
mod relay;
mod round;
mod stage;
mod status;
mod terminal;
mod watch;
mod wire;

/// `palisade run`.
pub(crate) async fn run(args: RunArgs) -> Result<(), Failure> {
    let grace = args.grace().map_err(Failure::usage)?;
    // If the guardian dies, what it has started becomes this process's, and can be ended by it.
    set_child_subreaper(Some(getpid()))
        .map_err(io::Error::from)
        .map_err(Failure::io("look after the command"))?;
    let client = crate::connect(&args.client)?;
    let mode = if args.restart {
        Mode::Restart
    } else {
        Mode::Once
    };
    let mut runner = Runner {
        signals: Relay::to_pass_on()?,
        terminal: Terminal::find(),
        client,
        grace,
        mode,
        args,
    };
    runner.run().await
}

#[derive(Debug)]
struct Runner {
    args: RunArgs,
    client: Client,
    grace: Duration,
    mode: Mode,
    signals: Relay,
    terminal: Terminal,
}

impl Runner {
    async fn run(&mut self) -> Result<(), Failure> {
        let mut held = self.acquire(false).await?;
        loop {
            match self.hold(held).await? {
                Next::Acquire(_) => held = self.acquire(true).await?,
                Next::Exit(0) => return Ok(()),
                next => return Err(self.failure(next)),
            }
        }
    }

    async fn acquire(&mut self, is_again: bool) -> Result<Held, Failure> {
        let (args, client) = (&self.args, &self.client);
        let acquiring = async {
            if is_again {
                holding::acquire_again(args, client).await
            } else {
                holding::acquire(args, client).await
            }
        };
        let acquired = tokio::select! {
            acquired = Box::pin(acquiring) => acquired,
            signal = self.signals.next_end() => Err(before_the_start(signal)),
        };
        if acquired.is_err() {
            // What may have been granted or queued on the way is given back.
            tokio::select! {
                _ = client.settled(args.client.timeout) => {}
                _ = self.signals.next_end() => {}
            }
        }
        acquired
    }

    /// Runs the command under this lease until that is over, and gives the lease back if it still stands.
    async fn hold(&mut self, held: Held) -> Result<Next, Failure> {
        let done = Box::pin(self.run_under(&held)).await;
        let lost = match done {
            Ok(Next::Lost(cause) | Next::Acquire(cause)) => Some((cause, held.lease.state())),
            _ => None,
        };
        let token = held.lease.token();
        if matches!(done, Ok(Next::Stuck)) {
            holding::abandon(held);
        } else if held.lease.state().is_held() {
            tokio::select! {
                () = holding::release(held, &self.client, self.args.client.timeout) => {}
                _ = self.signals.next_end() => {}
            }
        }
        if let Some((cause, state)) = lost {
            self.on_lost(token, loss(cause, state)).await;
        }
        done
    }

    async fn run_under(&mut self, held: &Held) -> Result<Next, Failure> {
        let grant = held.lease.grant()?;
        let session = &held.session;
        let (id, ttl, deadline) = (session.id(), session.ttl(), session.deadline());
        let mut status = StatusFile::new(grant.clone(), id, ttl, deadline)?;
        let mut course = Course::default();
        if let Some(next) = self.on_acquired(held, &mut status, &mut course).await? {
            return Ok(next);
        }
        loop {
            let term = Term {
                held: Some(held),
                limit: None,
            };
            let command = self.args.command.clone();
            let stdin = io::stdin();
            let plan = Plan {
                command: &command,
                environment: environment(&grant, term, &status),
                stdin: stdin.as_fd(),
                is_aside: false,
                deadline: term.deadline(),
                grace: self.grace,
                litter: Some(status.home().to_owned()),
            };
            let round = Round {
                term,
                grace: self.grace,
                signals: &mut self.signals,
                terminal: Some(&mut self.terminal),
                status: Some(&mut status),
            };
            let run = round.run(&plan).await?;
            let next = course.after(self.mode, run, held.lease.state().is_held());
            let Next::Again(pause) = next else {
                return Ok(next);
            };
            output::note(format_args!(
                "palisade: the command ended with {}; starting it again in {}",
                run.code,
                show_duration(pause)
            ));
            if let Some(next) = self.pause(held, pause).await {
                return Ok(next);
            }
        }
    }

    /// Waits before a restart, unless something else comes first.
    async fn pause(&mut self, held: &Held, pause: Duration) -> Option<Next> {
        let mut wanted = held.lease.revoke_requested();
        let lost = held.lease.lost();
        tokio::select! {
            () = lost.cancelled() => Some(Next::Acquire(Cause::Lost)),
            Ok(_) = wanted.wait_for(Option::is_some) => {
                held.lease.answer_revoke(true);
                Some(Next::Acquire(Cause::Wanted))
            }
            signal = self.signals.next_end() => Some(Next::Exit(Exit::Signal(signal.as_raw()).code())),
            () = clock::pause(pause) => None,
        }
    }

    /// Runs a line of shell under a guardian of its own.
    async fn hook(
        &mut self,
        line: &str,
        term: Term<'_>,
        environment: Vec<(&'static str, OsString)>,
        status: Option<&mut StatusFile>,
    ) -> Result<Run, Failure> {
        // A part of the hook's own time.
        let grace = self.grace.min(self.args.hook_timeout / 5);
        let nothing = File::open("/dev/null").map_err(Failure::io("open /dev/null"))?;
        let command = ["sh", "-c", line].map(OsString::from);
        let plan = Plan {
            command: &command,
            environment,
            stdin: nothing.as_fd(),
            is_aside: true,
            deadline: term.deadline(),
            grace,
            litter: status.as_ref().map(|status| status.home().to_owned()),
        };
        let round = Round {
            term,
            grace,
            signals: &mut self.signals,
            terminal: None,
            status,
        };
        round.run(&plan).await
    }

    fn hook_end(&self) -> Moment {
        SystemClock.now().after(self.args.hook_timeout)
    }

    /// What follows instead of the command, if something does.
    async fn on_acquired(
        &mut self,
        held: &Held,
        status: &mut StatusFile,
        course: &mut Course,
    ) -> Result<Option<Next>, Failure> {
        let Some(line) = self.args.on_acquired.clone() else {
            return Ok(None);
        };
        let term = Term {
            held: Some(held),
            limit: Some(self.hook_end()),
        };
        let environment = environment(&held.lease.grant()?, term, status);
        let run = self.hook(&line, term, environment, Some(status)).await?;
        let is_held = held.lease.state().is_held();
        match run.cause {
            _ if !run.is_empty => Ok(Some(Next::Stuck)),
            Some(Cause::NotRenewed) if is_held => Err(Failure::other(
                "--on-acquired took longer than --hook-timeout: the command was not started",
            )),
            Some(_) => Ok(Some(course.after(self.mode, run, is_held))),
            None if run.was_told_to_end && run.code != 0 => Ok(Some(Next::Exit(run.code))),
            None if run.code != 0 => Err(Failure::other(format!(
                "--on-acquired failed with {}: the command was not started",
                run.code
            ))),
            None => Ok(None),
        }
    }

    async fn on_lost(&mut self, token: FencingToken, loss: &'static str) {
        let Some(line) = self.args.on_lost.clone() else {
            return;
        };
        let environment = vec![
            (RESOURCE, self.args.resource.to_string().into()),
            (TOKEN, token.to_string().into()),
            ("PALISADE_LOSS", loss.into()),
        ];
        let term = Term {
            held: None,
            limit: Some(self.hook_end()),
        };
        match self.hook(&line, term, environment, None).await {
            Ok(run) if run.code == 0 => {}
            Ok(run) => output::note(format_args!("palisade: --on-lost failed with {}", run.code)),
            Err(failure) => output::note(format_args!("palisade: --on-lost: {failure}")),
        }
    }

    fn failure(&self, next: Next) -> Failure {
        let resource = &self.args.resource;
        let lost = |why: &str| Failure::new(Kind::Lost, format!("the command was ended: {why}"));
        match next {
            Next::Exit(code) => Failure::silent(Kind::Child(code)),
            Next::Lost(Cause::Wanted) => lost(&format!("an operator wanted {resource} back")),
            Next::Stuck => lost(&format!(
                "its processes cannot be killed, so the lease of {resource} is not released; it ends with \
                 the session's TTL"
            )),
            Next::Unguarded => Failure::other("the command was ended: its guardian was killed"),
            Next::Lost(_) | Next::Again(_) | Next::Acquire(_) => {
                lost(&format!("the lease of {resource} was lost"))
            }
        }
    }
}

const RESOURCE: &str = "PALISADE_RESOURCE";
const TOKEN: &str = "PALISADE_TOKEN";

fn environment(
    grant: &Grant,
    term: Term<'_>,
    status: &StatusFile,
) -> Vec<(&'static str, OsString)> {
    let deadline = status::unix_ms(term.deadline());
    vec![
        (RESOURCE, grant.resource.to_string().into()),
        (TOKEN, grant.token.to_string().into()),
        ("PALISADE_HOLDER", grant.holder.to_string().into()),
        ("PALISADE_GRANT", grant.to_string().into()),
        ("PALISADE_DEADLINE_UNIX_MS", deadline.to_string().into()),
        ("PALISADE_STATUS_FILE", status.path().into()),
    ]
}

fn before_the_start(signal: Signal) -> Failure {
    let number = u8::try_from(signal.as_raw()).unwrap_or_default();
    Failure::new(
        Kind::Signal(number),
        "ended before the resource was granted",
    )
}

/// Why it was lost, in a word.
fn loss(cause: Cause, state: SessionState) -> &'static str {
    match (cause, state) {
        (Cause::Wanted, _) | (_, SessionState::Lost(LostReason::Revoked)) => "revoked",
        (Cause::NotRenewed, _) | (_, SessionState::Expired) => "expired",
        (_, SessionState::Lost(LostReason::Expired)) => "expired",
        _ => "lost",
    }
}
