//! A command under its guardian, as `palisade run` sees it.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use palisade_client::Moment;
use rustix::process::{Pid, Signal, kill_process};

use super::group::{Group, nanos};
use super::processes;
use super::wire::{Order, Report, Wire};
use crate::clock;
use crate::failure::Failure;

/// A process that was killed, or is about to end, ends within this, unless the machine is stuck.
const END_LIMIT: Duration = Duration::from_secs(5);

/// What is run, and how.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) command: &'a [OsString],
    pub(crate) environment: Vec<(&'static str, OsString)>,
    pub(crate) stdin: BorrowedFd<'a>,
    /// Whether its stdout is stderr: of what is not the command itself.
    pub(crate) is_aside: bool,
    pub(crate) deadline: Moment,
    pub(crate) grace: Duration,
    /// What the guardian removes if this process cannot.
    pub(crate) litter: Option<PathBuf>,
}

/// Dropped while its guardian lives, it is ended by that.
#[derive(Debug)]
pub(crate) struct Guarded {
    guardian: Child,
    wire: Wire,
    group: Option<Group>,
    /// The deadline that the guardian was told last.
    told: Moment,
}

impl Guarded {
    pub(crate) fn start(plan: &Plan<'_>) -> Result<Self, Failure> {
        let failed = || Failure::io("start the guardian");
        let (wire, there) = Wire::pair(plan.stdin).map_err(failed())?;
        let mut guardian = Command::new(env::current_exe().map_err(failed())?);
        guardian
            .arg("run-guardian")
            .args(["--deadline-ns", &nanos(plan.deadline).to_string()])
            .args(["--grace-ns", &plan.grace.as_nanos().to_string()]);
        if let Some(litter) = &plan.litter {
            guardian.arg("--litter").arg(litter);
        }
        guardian.arg("--").args(plan.command);
        for (name, value) in &plan.environment {
            guardian.env(name, value);
        }
        if plan.is_aside {
            let stderr = io::stderr().as_fd().try_clone_to_owned();
            guardian.stdout(Stdio::from(stderr.map_err(failed())?));
        }
        // In the session of the terminal, so that the command may have it; but not in this process's group, so
        // that no key reaches it.
        let guardian = guardian.stdin(there).process_group(0).spawn();
        Ok(Self {
            guardian: guardian.map_err(failed())?,
            wire,
            group: None,
            told: plan.deadline,
        })
    }

    /// The group, once it was started.
    pub(crate) fn group(&self) -> Option<Group> {
        self.group
    }

    /// What the guardian says next; none once it is gone.
    pub(crate) async fn report(&mut self) -> Option<Report> {
        let report = self.wire.hear().await;
        if let Some(Report::Started(leader)) = report {
            self.group = Pid::from_raw(leader).map(Group::of);
        }
        report
    }

    /// Tells the guardian of a deadline, if it is a new one.
    pub(crate) fn renewed(&mut self, deadline: Moment) {
        if deadline > self.told {
            self.told = deadline;
            self.tell(Order::Deadline(nanos(deadline)));
        }
    }

    /// Has the guardian end the group, and kill it then.
    pub(crate) fn stop(&self, kill_at: Moment) {
        self.tell(Order::Stop(nanos(kill_at)));
    }

    /// One that does not listen guards nobody: with its end this process takes over.
    fn tell(&self, order: Order) {
        if let Err(error) = self.wire.tell(&order) {
            tracing::debug!(%error, "the guardian does not listen");
            self.kill_guardian();
        }
    }

    /// Its wire closes, and this process has to do what it did not.
    pub(crate) fn kill_guardian(&self) {
        // It may be gone already; it is a child that was not waited for, so its id is no other's.
        let _gone = kill_process(Pid::from_child(&self.guardian), Signal::KILL);
    }

    /// Sends a signal to the group, if there is one yet; says whether there was.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        if let Some(group) = self.group
            && let Err(error) = group.signal(signal)
        {
            tracing::warn!(%error, "a signal was not passed on");
        }
        self.group.is_some()
    }

    /// The guardian has told that nobody is left.
    pub(crate) async fn ended(mut self) {
        self.wait_for_guardian().await;
        self.forget();
    }

    /// The guardian is gone without a word: kills all that it has started, which are this process's children or
    /// theirs now. Says whether nobody is left.
    pub(crate) async fn kill_all(mut self) -> bool {
        if let Some(group) = self.group {
            drop(group.kill());
        }
        // It may be about to end only, or have closed its end for another reason.
        drop(self.guardian.kill());
        self.wait_for_guardian().await;
        let gone = clock::poll(END_LIMIT, async || {
            let strays = processes::kill_strays(self.group.map(Group::leader));
            let is_gone = self.group.is_none_or(|group| {
                drop(group.kill());
                group.is_gone()
            });
            (is_gone && strays == 0).then_some(())
        });
        let is_gone = gone.await.is_some();
        self.forget();
        is_gone
    }

    async fn wait_for_guardian(&mut self) {
        let ended = clock::poll(END_LIMIT, async || self.guardian.try_wait().transpose());
        if ended.await.is_none() {
            tracing::warn!("the guardian does not end");
        }
    }

    /// Nobody signals the group any more, so its id may be used again.
    fn forget(&self) {
        if let Some(group) = self.group {
            group.forget();
        }
        processes::reap_strangers(&[Pid::from_child(&self.guardian)]);
    }
}
