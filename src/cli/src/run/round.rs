//! One run of a command under a lease: what is told to its guardian, and what is done if that fails.

use std::future;
use std::io;
use std::time::Duration;

use palisade_client::{Clock, Moment, RevokeRequest, SessionState, SystemClock};
use rustix::process::Signal;
use tokio::sync::watch;

use super::course::{Cause, Run};
use super::group::Exit;
use super::guarded::{Guarded, Plan};
use super::holding::Held;
use super::relay::{self, Relay};
use super::status::{State, StatusFile};
use super::terminal::Terminal;
use super::watch::Why;
use super::wire::Report;
use crate::clock::{self, Stopwatch};
use crate::failure::Failure;
use crate::output;

/// How often it looks whether the deadline has moved: far more often than it is renewed.
const TICK: Duration = Duration::from_millis(100);
/// How long a group has to end once the lease is lost and others may be at work already.
const LOST_GRACE: Duration = Duration::from_millis(500);
/// How much later than its guardian this process kills a group: the guardian was first, unless it is stuck.
const LATER: Duration = Duration::from_millis(100);
/// How long after that a guardian that has not told the end is taken for frozen.
const FROZEN: Duration = Duration::from_secs(1);

/// Until when it may run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Term<'a> {
    pub(crate) held: Option<&'a Held>,
    /// Besides the lease's.
    pub(crate) limit: Option<Moment>,
}

impl Term<'_> {
    pub(crate) fn deadline(self) -> Moment {
        let lease = self.held.map(|held| held.session.deadline());
        let earliest = lease.into_iter().chain(self.limit).min();
        earliest.unwrap_or_else(|| SystemClock.now())
    }

    fn state(self) -> SessionState {
        self.held
            .map_or(SessionState::Held, |held| held.lease.state())
    }

    async fn lost(self) {
        match self.held {
            Some(held) => held.lease.lost().cancelled_owned().await,
            None => future::pending().await,
        }
    }
}

/// What stands around it.
#[derive(Debug)]
pub(crate) struct Round<'a> {
    pub(crate) term: Term<'a>,
    pub(crate) grace: Duration,
    pub(crate) signals: &'a mut Relay,
    pub(crate) terminal: Option<&'a mut Terminal>,
    pub(crate) status: Option<&'a mut StatusFile>,
}

#[derive(Debug)]
enum Event {
    Report(Option<Report>),
    Signal(Signal),
    Lost,
    Wanted(RevokeRequest),
    Tick,
}

/// What is known of it on the way.
#[derive(Debug)]
struct Course {
    since: Stopwatch,
    cause: Option<Cause>,
    is_ending: bool,
    /// When this process kills the group, if it is still there.
    kill_at: Option<Moment>,
    was_told_to_end: bool,
    /// Came before there was a group.
    pending: Vec<Signal>,
}

impl Round<'_> {
    pub(crate) async fn run(mut self, plan: &Plan<'_>) -> Result<Run, Failure> {
        let mut guarded = Guarded::start(plan)?;
        let mut wanted = self.term.held.map(|held| held.lease.revoke_requested());
        let mut course = Course {
            since: Stopwatch::start(),
            cause: None,
            is_ending: false,
            kill_at: None,
            was_told_to_end: false,
            pending: Vec::new(),
        };
        let (exit, is_empty) = loop {
            let event = self.next(&mut guarded, wanted.as_mut(), &course).await;
            match event {
                Event::Report(None) => {
                    course.cause.get_or_insert(Cause::Unguarded);
                    break (
                        Exit::Signal(Signal::KILL.as_raw()),
                        guarded.kill_all().await,
                    );
                }
                Event::Report(Some(Report::Ended { exit, why, strays })) => {
                    course.settle(why);
                    tell_of_strays(strays);
                    guarded.ended().await;
                    break (exit, true);
                }
                event => self.handle(event, &mut guarded, &mut course),
            }
        };
        if let Some(terminal) = &mut self.terminal {
            // The key went to the group alone, and whoever pressed it wanted an end.
            course.was_told_to_end |= terminal.is_lent() && exit.is_by_key();
            terminal.end(matches!(exit, Exit::Signal(_)));
        }
        Ok(Run {
            code: exit.code(),
            cause: course.cause,
            is_empty,
            was_told_to_end: course.was_told_to_end,
            ran: course.since.elapsed(),
        })
    }

    async fn next(
        &mut self,
        guarded: &mut Guarded,
        wanted: Option<&mut watch::Receiver<Option<RevokeRequest>>>,
        course: &Course,
    ) -> Event {
        let asked = async {
            match wanted {
                Some(wanted) => wanted
                    .wait_for(Option::is_some)
                    .await
                    .ok()
                    .and_then(|r| r.clone()),
                None => None,
            }
        };
        tokio::select! {
            biased;
            report = guarded.report() => Event::Report(report),
            () = self.term.lost(), if course.cause.is_none() => Event::Lost,
            Some(request) = asked, if course.cause.is_none() => Event::Wanted(request),
            signal = self.signals.next() => Event::Signal(signal),
            () = clock::pause(TICK) => Event::Tick,
        }
    }

    fn handle(&mut self, event: Event, guarded: &mut Guarded, course: &mut Course) {
        let now = SystemClock.now();
        let deadline = self.term.deadline();
        match event {
            Event::Report(report) => self.heard(report, guarded, course),
            Event::Lost => {
                self.note("is lost");
                let kill_at = deadline.min(now.after(self.grace.min(LOST_GRACE)));
                course.stop(Cause::Lost, kill_at, guarded);
            }
            Event::Wanted(request) => {
                let held = self.term.held.map(|held| held.lease.answer_revoke(true));
                debug_assert!(held.is_some(), "only a lease is wanted back");
                self.note("is wanted back by an operator");
                let kill_at = deadline.min(request.deadline).min(now.after(self.grace));
                course.stop(Cause::Wanted, kill_at, guarded);
            }
            Event::Signal(signal) => self.pass_on(signal, guarded, course),
            Event::Tick => {}
        }
        guarded.renewed(deadline);
        let late = course
            .kill_at
            .map_or(deadline, |kill_at| kill_at.min(deadline))
            .after(LATER);
        if now >= late {
            // The guardian should have done that.
            course.kill_at.get_or_insert(deadline);
            guarded.signal(Signal::KILL);
        }
        if now >= late.after(FROZEN) {
            guarded.kill_guardian();
        }
        if let Some(status) = &mut self.status {
            status.tell(state(self.term.state(), course), deadline);
        }
    }

    fn heard(&mut self, report: Option<Report>, guarded: &Guarded, course: &mut Course) {
        match report {
            Some(Report::Started(_)) => {
                if let (Some(terminal), Some(group)) = (&mut self.terminal, guarded.group()) {
                    terminal.lend_at_start(group);
                }
                for signal in std::mem::take(&mut course.pending) {
                    guarded.signal(signal);
                }
            }
            Some(Report::Stopped(signal)) => {
                if let (Some(terminal), Some(group)) = (&mut self.terminal, guarded.group()) {
                    warn(terminal.stopped(group, signal));
                }
            }
            Some(Report::Ending(why)) => {
                course.is_ending = why.is_loss();
                if why == Why::Deadline {
                    self.note("could not be renewed in time");
                }
            }
            Some(Report::Ended { .. }) | None => {}
        }
    }

    fn pass_on(&mut self, signal: Signal, guarded: &Guarded, course: &mut Course) {
        course.was_told_to_end |= relay::asks_to_end(signal);
        match (&mut self.terminal, guarded.group()) {
            (Some(terminal), Some(group)) if signal == Signal::TSTP => warn(terminal.stop(group)),
            (Some(terminal), Some(group)) if signal == Signal::CONT => warn(terminal.go_on(group)),
            (_, Some(_)) => {
                guarded.signal(signal);
            }
            // What stops is not kept: a stop that comes late stops for good.
            (_, None) if relay::asks_to_end(signal) => course.pending.push(signal),
            (_, None) => {}
        }
    }

    fn note(&self, what: &str) {
        if let Some(held) = self.term.held {
            output::note(format_args!(
                "palisade: the lease of {} with token {} {what}: ending what runs under it",
                held.lease.resource(),
                held.lease.token()
            ));
        }
    }
}

impl Course {
    fn stop(&mut self, cause: Cause, kill_at: Moment, guarded: &Guarded) {
        self.cause = Some(cause);
        self.is_ending = true;
        self.kill_at = Some(kill_at);
        guarded.stop(kill_at);
    }

    /// The guardian knows what came first.
    fn settle(&mut self, why: Option<Why>) {
        let said = why.and_then(Cause::of);
        self.cause = match (said, self.cause) {
            (Some(Cause::Lost), Some(cause)) => Some(cause),
            (said, _) => said,
        };
    }
}

fn state(lease: SessionState, course: &Course) -> State {
    match lease {
        _ if course.is_ending && lease.is_held() => State::Stopping,
        SessionState::Held => State::Held,
        SessionState::Suspect => State::Suspect,
        _ => State::Lost,
    }
}

fn tell_of_strays(strays: usize) {
    if strays > 0 {
        output::note(format_args!(
            "palisade: {strays} of the processes that it started have left its process group and go on"
        ));
    }
}

fn warn(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "the command was not stopped or continued");
    }
}
