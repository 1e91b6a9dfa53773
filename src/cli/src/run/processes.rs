//! What `/proc` tells of processes.

use std::collections::HashMap;
use std::{fs, io};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use rustix::process::{getpid, pidfd_open, pidfd_send_signal, waitid};

/// How many processes may call each other parent on the way up: more than any machine has.
const MOST_ANCESTORS: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) parent: Option<Pid>,
    pub(crate) group: Pid,
    /// Neither a zombie nor dead.
    pub(crate) is_alive: bool,
    /// By a signal, until it is continued.
    pub(crate) is_stopped: bool,
    /// In clock ticks since the machine started: with its id it names a process for ever.
    pub(crate) started: u64,
}

impl Process {
    /// Reads a line as `/proc/PID/stat` has it; the name, in brackets, may hold anything.
    fn parse(stat: &str) -> Option<Self> {
        let (before, after) = stat.rsplit_once(')')?;
        let pid = before.split_once(' ')?.0.parse().ok()?;
        let fields: Vec<_> = after.split_whitespace().collect();
        let id = |at: usize| fields.get(at)?.parse().ok();
        Some(Self {
            pid: Pid::from_raw(pid)?,
            parent: id(1).and_then(Pid::from_raw),
            group: id(2).and_then(Pid::from_raw)?,
            is_alive: !matches!(*fields.first()?, "Z" | "X" | "x"),
            is_stopped: *fields.first()? == "T",
            started: fields.get(19)?.parse().ok()?,
        })
    }

    pub(crate) fn read(pid: Pid) -> Option<Self> {
        let path = format!("/proc/{}/stat", pid.as_raw_pid());
        // A name need not be UTF-8.
        Self::parse(&String::from_utf8_lossy(&fs::read(path).ok()?))
    }

    /// Kills this process and no other, though its id may have come to mean another since it was seen.
    fn kill(self) {
        let Ok(handle) = pidfd_open(self.pid, PidfdFlags::empty()) else {
            return;
        };
        // Still the same after it was opened, so what was opened is the same.
        if Self::read(self.pid).is_some_and(|now| now.started == self.started)
            && let Err(error) = pidfd_send_signal(&handle, Signal::KILL)
        {
            tracing::debug!(%error, pid = self.pid.as_raw_pid(), "not killed");
        }
    }
}

/// All processes that this one may see.
pub(crate) fn all() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        found.extend(pid.and_then(Pid::from_raw).and_then(Process::read));
    }
    Ok(found)
}

/// The living descendants of this process but these and theirs. As a subreaper it keeps those whose parents have
/// ended.
pub(crate) fn descendants(but: &[Pid]) -> Vec<Process> {
    let all = all().unwrap_or_default();
    let parents: HashMap<_, _> = all.iter().map(|one| (one.pid, one.parent)).collect();
    let me = getpid();
    let is_below = |one: &&Process| {
        let mut at = Some(one.pid);
        for _ in 0..MOST_ANCESTORS {
            match at {
                Some(pid) if but.contains(&pid) => return false,
                Some(pid) if pid == me => return one.pid != me,
                Some(pid) => at = parents.get(&pid).copied().flatten(),
                None => return false,
            }
        }
        false
    };
    all.iter()
        .filter(|one| one.is_alive)
        .filter(is_below)
        .copied()
        .collect()
}

/// Kills the living descendants that are not in `group`, and says how many there were.
pub(crate) fn kill_strays(group: Option<Pid>) -> usize {
    let strays = strays(group);
    strays.iter().copied().for_each(Process::kill);
    strays.len()
}

/// The living descendants that are not in `group`.
pub(crate) fn strays(group: Option<Pid>) -> Vec<Process> {
    let mut found = descendants(&[]);
    found.retain(|one| Some(one.group) != group);
    found
}

/// Waits for children that have ended and that nobody else waits for: those of ended descendants. `known`
/// are not touched.
pub(crate) fn reap_strangers(known: &[Pid]) {
    let me = getpid();
    for child in all().unwrap_or_default() {
        if child.parent == Some(me) && !child.is_alive && !known.contains(&child.pid) {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            let _gone = waitid(WaitId::Pid(child.pid), options);
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{getpgrp, getpid, getppid};

    use super::{Process, all};

    #[test]
    fn this_process_is_found_as_it_is() {
        let all = all().unwrap();
        let me = all.iter().find(|one| one.pid == getpid()).unwrap();
        assert_eq!((me.parent, me.group), (getppid(), getpgrp()));
        assert!(me.is_alive);
    }

    #[test]
    fn names_may_hold_anything() {
        let rest = "5 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0";
        for (name, state, alive) in [("sh", 'S', true), (") R 1 1 (", 'Z', false)] {
            let read = Process::parse(&format!("42 ({name}) {state} {rest}")).unwrap();
            assert_eq!((read.pid.as_raw_pid(), read.is_alive), (42, alive));
            assert_eq!((read.group.as_raw_pid(), read.started), (7, 4711));
        }
        assert_eq!(Process::parse("42 (sh) S 5"), None);
    }
}
