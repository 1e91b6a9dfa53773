//! What Linux tells about processes, in `/proc`. Elsewhere nothing is told, and nothing is known.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

use serde::Serialize;

/// The processes whose CPU time is measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watched {
    pub(crate) coordinator: Option<u32>,
    /// Empty where etcd runs elsewhere, or as somebody whose processes are not ours to look at.
    pub(crate) etcd: Vec<u32>,
}

/// CPU time by process, in seconds; `null` where it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Cpu {
    pub(crate) load: Option<f64>,
    pub(crate) coordinator: Option<f64>,
    pub(crate) etcd: Option<f64>,
}

impl Watched {
    /// What the processes have used since they started.
    pub(crate) fn cpu(&self) -> Cpu {
        let etcd: Option<Duration> = self.etcd.iter().map(|pid| cpu_time(*pid)).sum();
        Cpu {
            load: cpu_time(std::process::id()).map(|time| time.as_secs_f64()),
            coordinator: self
                .coordinator
                .and_then(cpu_time)
                .map(|time| time.as_secs_f64()),
            etcd: etcd
                .filter(|_| !self.etcd.is_empty())
                .map(|time| time.as_secs_f64()),
        }
    }
}

impl Cpu {
    /// Combines what is known on both sides.
    pub(crate) fn zip(self, other: Self, join: impl Fn(f64, f64) -> f64) -> Self {
        let both = |one: Option<f64>, other: Option<f64>| Some(join(one?, other?));
        Self {
            load: both(self.load, other.load),
            coordinator: both(self.coordinator, other.coordinator),
            etcd: both(self.etcd, other.etcd),
        }
    }

    pub(crate) fn map(self, change: impl Fn(f64) -> f64) -> Self {
        Self {
            load: self.load.map(&change),
            coordinator: self.coordinator.map(&change),
            etcd: self.etcd.map(&change),
        }
    }
}

/// What a process has used of all CPUs, with its threads that have ended.
pub(crate) fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = ticks(&stat)?;
    let second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_nanos(
        ticks.saturating_mul(1_000_000_000 / second),
    ))
}

/// The same to the nanosecond, for a process with one thread that has used little; where the kernel tells.
pub(crate) fn exact_cpu_time(pid: u32) -> Option<Duration> {
    let statistics = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    let nanoseconds = statistics.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

/// The name that a process has given itself.
pub(crate) fn name(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim().to_owned())
}

/// User and system time in a line of `/proc/PID/stat`.
fn ticks(stat: &str) -> Option<u64> {
    /// Counted from behind the program's name, which may hold blanks and brackets.
    const USER: usize = 11;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(USER);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user.saturating_add(system))
}

/// A process's resident memory, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes.saturating_mul(1_024))
}

/// The etcd servers behind these URLs, where all of them listen on this machine's loopback.
pub(crate) fn local_etcd(urls: &[String]) -> Vec<u32> {
    let found: Option<Vec<u32>> = urls.iter().map(|url| listening_etcd(url)).collect();
    let mut found = found.unwrap_or_default();
    found.sort_unstable();
    found.dedup();
    found
}

fn listening_etcd(url: &str) -> Option<u32> {
    let uri: http::Uri = url.parse().ok()?;
    let (host, port) = (uri.host()?, uri.port_u16()?);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut addresses = (host, port).to_socket_addrs().ok()?;
    // At any other address something else may listen on the port here.
    addresses
        .all(|address| is_loopback(address.ip()))
        .then_some(())?;
    let sockets: HashSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listeners(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        // What forwards to an etcd elsewhere, in a container say, is not etcd.
        .filter(|pid| is_etcd(*pid))
        .find(|pid| has_socket(*pid, &sockets))
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn is_etcd(pid: u32) -> bool {
    name(pid).is_some_and(|name| name == "etcd")
}

fn has_socket(pid: u32, sockets: &HashSet<String>) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    files
        .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
        .any(|target| target.to_str().is_some_and(|name| sockets.contains(name)))
}

/// The inodes of the sockets that listen on a port, from a table such as `/proc/net/tcp`.
fn listeners(table: &str, port: u16) -> Vec<String> {
    const LISTENS: &str = "0A";
    let port = format!(":{port:04X}");
    let rows = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        (local.ends_with(&port) && *state == LISTENS).then(|| (*inode).to_owned())
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::{listeners, local_etcd, resident_bytes, ticks};

    #[test]
    fn a_name_with_blanks_and_brackets_moves_no_field() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4194560 11 22 0 0 150 25 3 4 20 0 9 0 100 1 2 3";
        assert_eq!(ticks(stat), Some(175));
        assert_eq!(ticks("nothing"), None);
    }

    #[test]
    fn only_who_listens_on_the_port_is_found() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:094B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0
   1: 0100007F:094B 0100007F:8000 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0
   2: 0100007F:094C 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1 0";
        assert_eq!(listeners(table, 2379), ["11"]);
    }

    #[test]
    fn what_is_not_here_is_not_found() {
        assert!(local_etcd(&["http://192.0.2.1:2379".to_owned()]).is_empty());
        assert!(local_etcd(&["http://127.0.0.1:1".to_owned()]).is_empty());
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
    }
}
