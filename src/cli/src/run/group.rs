//! A process group whose leader is a child of this process and is not waited for until the group is gone: so its id
//! cannot come to mean another one.

use std::io;

use palisade_client::Moment;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use serde::{Deserialize, Serialize};

use super::processes::{self, Process};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// As shells tell it: 128 + N for signal N.
    pub(crate) fn code(self) -> u8 {
        let code = match self {
            Self::Code(code) => code,
            Self::Signal(number) => number.saturating_add(128),
        };
        u8::try_from(code).unwrap_or(u8::MAX)
    }

    /// Whether it is what Ctrl-C or Ctrl-\ makes of a program, or of what a shell runs.
    pub(crate) fn is_by_key(self) -> bool {
        let by_key = [Signal::INT, Signal::QUIT].map(|signal| Self::Signal(signal.as_raw()));
        by_key.iter().any(|end| end.code() == self.code())
    }
}

/// Named by its leader, which may have ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    leader: Pid,
}

impl Group {
    pub(crate) fn of(leader: Pid) -> Self {
        Self { leader }
    }

    pub(crate) fn leader(self) -> Pid {
        self.leader
    }

    /// Sends a signal to all of it. That nobody lives is no error.
    pub(crate) fn signal(self, signal: Signal) -> io::Result<()> {
        match kill_process_group(self.leader, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// SIGTERM; who is stopped must run to act on it.
    pub(crate) fn terminate(self) -> io::Result<()> {
        self.signal(Signal::TERM)?;
        self.signal(Signal::CONT)
    }

    pub(crate) fn kill(self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    /// Whether nobody of it lives: asked once its leader has ended. A look at the table of processes can miss one
    /// that is being forked, so whoever it missed is killed before the second look.
    pub(crate) fn is_gone(self) -> bool {
        self.is_empty() && self.kill().is_ok() && self.is_empty()
    }

    /// Where the system does not tell, somebody may live.
    fn is_empty(self) -> bool {
        let is_ours = |process: &Process| process.group == self.leader && process.is_alive;
        processes::all().is_ok_and(|processes| !processes.iter().any(is_ours))
    }

    /// How the leader ended, if it has. It stays a zombie.
    pub(crate) fn end_of_leader(self) -> io::Result<Option<Exit>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let Some(status) = waitid(WaitId::Pid(self.leader), options)? else {
            return Ok(None);
        };
        let signal = status.terminating_signal().map(Exit::Signal);
        Ok(signal.or_else(|| status.exit_status().map(Exit::Code)))
    }

    /// The signal that has stopped the leader, told once for each stop.
    pub(crate) fn stop_of_leader(self) -> Option<i32> {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::Pid(self.leader), options).ok()??;
        status.stopping_signal()
    }

    /// Lets go of the leader and so of the group's id: the last thing to do with it.
    pub(crate) fn forget(self) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        if let Err(error) = waitid(WaitId::Pid(self.leader), options) {
            tracing::debug!(%error, "the leader was not waited for");
        }
    }
}

/// Nanoseconds on the lease clock, which is the same for all processes of a machine.
pub(crate) fn nanos(moment: Moment) -> u64 {
    u64::try_from(moment.0.as_nanos()).unwrap_or(u64::MAX)
}
