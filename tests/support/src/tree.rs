//! A process and what it has forked. PostgreSQL's backends leave the process group of their parent, so
//! that a signal to the group would miss them.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::clock;

/// A killed or stopped process is gone or stopped well within this, unless the kernel is stuck.
const SIGNAL_LIMIT: Duration = Duration::from_secs(10);

/// Freezes the process, then its descendants; returns once the process itself is stopped (or has ended).
pub(crate) fn stop(root: Pid) -> io::Result<()> {
    signal(root, Signal::STOP)?;
    let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(root), options)?;
    for child in descendants(root) {
        signal(child, Signal::STOP)?;
        clock::eventually_blocking(SIGNAL_LIMIT, || {
            !matches!(state(child), Some('R' | 'S' | 'D'))
        });
    }
    Ok(())
}

/// Lets descendants, then the process, run on.
pub(crate) fn resume(root: Pid) -> io::Result<()> {
    for child in descendants(root) {
        signal(child, Signal::CONT)?;
    }
    signal(root, Signal::CONT)
}

/// Kills the process and all its descendants with SIGKILL; returns when the descendants are gone. The
/// process itself is for the caller to reap.
pub(crate) fn kill(root: Pid) -> io::Result<()> {
    // Stopped first, so that it cannot fork on while its descendants are counted.
    signal(root, Signal::STOP)?;
    let children = descendants(root);
    for child in &children {
        signal(*child, Signal::KILL)?;
    }
    signal(root, Signal::KILL)?;
    for child in children {
        clock::eventually_blocking(SIGNAL_LIMIT, || {
            matches!(state(child), None | Some('Z' | 'X'))
        });
    }
    Ok(())
}

/// Sends a signal; that the process has ended already is no error.
pub(crate) fn signal(pid: Pid, signal: Signal) -> io::Result<()> {
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// All living descendants, by way of `/proc`; where there is none (macOS), nobody.
fn descendants(root: Pid) -> Vec<Pid> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Some((_, parent)) = stat(pid)
        {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent.as_raw_pid())
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found.split_off(1)
}

fn state(pid: Pid) -> Option<char> {
    stat(pid).map(|(state, _)| state)
}

/// State and parent from `/proc/PID/stat`; the name before them, in brackets, may hold anything.
fn stat(pid: Pid) -> Option<(char, i32)> {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
