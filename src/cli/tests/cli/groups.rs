//! Process groups as the kernel shows them.

use std::fs;
use std::time::Duration;

use palisade_test_support::eventually;

/// Starting and ending processes takes no time to speak of, but others need the machine, too.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A process that is neither a zombie nor dead.
#[derive(Debug, Clone)]
pub(crate) struct Living {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    state: char,
}

impl Living {
    fn read(pid: i32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat).into_owned();
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let living = Self {
            pid,
            parent: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
            state,
        };
        (!matches!(state, 'Z' | 'X')).then_some(living)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state == 'T'
    }

    fn command(&self) -> String {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ")
    }
}

fn all() -> Vec<Living> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Living::read).collect()
}

/// The living processes of a group.
pub(crate) fn members(group: i32) -> Vec<Living> {
    let mut all = all();
    all.retain(|one| one.group == group);
    all
}

pub(crate) fn find(pid: i32) -> Option<Living> {
    Living::read(pid)
}

pub(crate) fn lives(pid: i32) -> bool {
    find(pid).is_some()
}

/// The guardian that this `palisade run` has at the moment.
pub(crate) fn guardian_of(run: i32) -> i32 {
    let mut all = all();
    all.retain(|one| one.parent == run && one.command().contains(" run-guardian "));
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].pid
}

pub(crate) async fn is_gone(pid: i32) {
    let gone = async || !lives(pid);
    eventually("the process to be gone", SOON, gone)
        .await
        .unwrap();
}
