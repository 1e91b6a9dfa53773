//! The terminal, lent to the command's process group while it runs.

use std::fs::{File, OpenOptions};
use std::io;

use nix::sys::signal::{SigSet, Signal as NixSignal};
use rustix::process::{Pid, Signal, getpgrp, getpid, getppid, getsid, kill_current_process_group};
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcsetattr, tcsetpgrp,
};

use super::group::Group;
use super::processes::Process;
use super::relay;
use crate::output;

/// The terminal that this process is controlled by, if there is one.
#[derive(Debug)]
pub(crate) struct Terminal {
    tty: Option<File>,
    own: Pid,
    /// To whom it is lent, and how it was set before.
    lent: Option<(Pid, Option<Termios>)>,
}

impl Terminal {
    pub(crate) fn find() -> Self {
        Self {
            tty: OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/tty")
                .ok(),
            own: getpgrp(),
            lent: None,
        }
    }

    /// Puts the group into the foreground from its start, where all that people see and type is its own. In a
    /// pipeline others may want to read the keys: there it must ask for them first, by being stopped.
    pub(crate) fn lend_at_start(&mut self, group: Group) {
        if isatty(io::stdin()) && isatty(io::stdout()) {
            self.lend(group);
        }
    }

    /// Puts the group into the foreground, if it is for this process to give; says whether the group is there.
    fn lend(&mut self, group: Group) -> bool {
        let Some(tty) = &self.tty else {
            return false;
        };
        let foreground = tcgetpgrp(tty).ok();
        if foreground == Some(group.leader()) {
            return true;
        }
        if foreground != Some(self.own) {
            return false;
        }
        let before = tcgetattr(tty).ok();
        let is_lent = as_if_in_foreground(|| tcsetpgrp(tty, group.leader())).is_ok();
        if is_lent {
            self.lent = Some((group.leader(), before));
        }
        is_lent
    }

    /// Whether the keys are the group's.
    pub(crate) fn is_lent(&self) -> bool {
        self.lent.is_some()
    }

    /// Takes it back, if the group still has it.
    fn take_back(&mut self) -> Option<Termios> {
        let (group, before) = self.lent.take()?;
        let tty = self.tty.as_ref()?;
        if tcgetpgrp(tty).ok() != Some(group) {
            return None;
        }
        as_if_in_foreground(|| tcsetpgrp(tty, self.own)).ok()?;
        before
    }

    /// The group has ended. One that was killed had no chance to leave the terminal as it was.
    pub(crate) fn end(&mut self, was_killed: bool) {
        if let Some(before) = self.take_back()
            && let Some(tty) = &self.tty
            && was_killed
        {
            let _gone = tcsetattr(tty, OptionalActions::Drain, &before);
        }
    }

    /// The group's leader was stopped by a signal. It may have wanted the terminal; else whoever stopped it
    /// wants the whole job to be stopped: this process, too. Returns once it goes on.
    pub(crate) fn stopped(&mut self, group: Group, signal: i32) -> io::Result<()> {
        let leader = Process::read(group.leader());
        if !leader.is_some_and(|leader| leader.is_stopped) {
            // Old news: it was continued since.
            return Ok(());
        }
        let wants_terminal = [Signal::TTIN, Signal::TTOU]
            .map(Signal::as_raw)
            .contains(&signal);
        if wants_terminal && self.lend(group) {
            return group.signal(Signal::CONT);
        }
        if signal == Signal::STOP.as_raw() || self.tty.is_none() {
            // Not by keys: whoever did that to it alone will continue it alone.
            return Ok(());
        }
        let _modes = self.take_back();
        if !is_orphaned() {
            output::note(
                "palisade: stopped, so the lease is not renewed: what runs under it is ended at the \
                 deadline unless it is continued before",
            );
            // With those that were started together with it, a script say, as the terminal would have done.
            kill_current_process_group(Signal::STOP)?;
        }
        self.go_on(group)
    }

    /// This process was asked to stop: the group stops first.
    pub(crate) fn stop(&mut self, group: Group) -> io::Result<()> {
        group.signal(Signal::TSTP)?;
        let _modes = self.take_back();
        relay::stop_this_process();
        self.go_on(group)
    }

    /// This process goes on, in the foreground or not.
    pub(crate) fn go_on(&mut self, group: Group) -> io::Result<()> {
        self.lend_at_start(group);
        group.signal(Signal::CONT)
    }
}

/// Nobody could continue a group that no other one of the session looks after.
fn is_orphaned() -> bool {
    let session = getsid(None).ok();
    session == Some(getpid()) || getsid(getppid()).ok() != session
}

/// The kernel stops who gives a terminal away from the background, unless it does not hear of that.
fn as_if_in_foreground<T>(give: impl FnOnce() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    let mut quiet = SigSet::empty();
    quiet.add(NixSignal::SIGTTOU);
    let was_quiet = SigSet::thread_get_mask().is_ok_and(|mask| mask.contains(NixSignal::SIGTTOU));
    let blocked = quiet.thread_block().is_ok();
    let given = give();
    if blocked && !was_quiet {
        let _stays_quiet = quiet.thread_unblock();
    }
    given
}
