use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use palisade_test_support::eventually;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// `palisade` with these arguments, in an environment without any settings.
pub(crate) fn palisade(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let bytes = name.as_encoded_bytes();
        let is_ours = [&b"PALISADE_"[..], b"OTEL_"];
        if is_ours.iter().any(|start| bytes.starts_with(start))
            || bytes == b"RUST_LOG"
            || bytes == b"STATE_DIRECTORY"
        {
            command.env_remove(name);
        }
    }
    command
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs it to its end.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    palisade(arguments).output().unwrap().into()
}

/// A command that goes on. Told to end by SIGTERM when dropped, and waited for.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// None where it goes elsewhere.
    stderr: Option<BufReader<ChildStderr>>,
}

impl Running {
    pub(crate) fn start(command: Command) -> Self {
        Self::start_logging_to(command, Stdio::piped())
    }

    pub(crate) fn start_logging_to(mut command: Command, log: Stdio) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = child.stderr.take().map(BufReader::new);
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// Its next line on stdout; empty if there is none any more.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Reads stderr up to a line with this text.
    pub(crate) fn says(&mut self, text: &str) {
        let mut said = String::new();
        while !said.lines().last().unwrap_or_default().contains(text) {
            let read = self.stderr.as_mut().unwrap().read_line(&mut said).unwrap();
            assert_ne!(read, 0, "{text} was not said: {said}");
        }
    }

    pub(crate) fn id(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.id()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end, which must come in time.
    pub(crate) async fn ends_within(mut self, limit: Duration) -> Ended {
        let ended = async || matches!(self.child.try_wait(), Ok(Some(_)));
        eventually("the command to end", limit, ended)
            .await
            .unwrap();
        self.ends()
    }

    /// The signals of this kind (`SigIgn`, `SigCgt`) as the kernel shows them, signal N as bit N - 1.
    pub(crate) fn signals(&self, kind: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(kind)?.strip_prefix(':'));
        u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
    }

    /// Waits for its end.
    pub(crate) fn ends(mut self) -> Ended {
        let code = self.child.wait().unwrap().code();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut stdout).unwrap();
        if let Some(from) = &mut self.stderr {
            from.read_to_string(&mut stderr).unwrap();
        }
        Ended {
            code,
            stdout,
            stderr,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
            self.child.wait().unwrap();
        }
    }
}

/// `palisade dev` on free ports, its files in a directory of the test's.
#[derive(Debug)]
pub(crate) struct Dev {
    pub(crate) running: Running,
    pub(crate) addr: String,
    pub(crate) home: TempDir,
}

impl Dev {
    pub(crate) fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = palisade(&["dev", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        command.env("TMPDIR", home.path());
        let mut running = Running::start(command);
        let addr = address(&mut running);
        Self {
            running,
            addr,
            home,
        }
    }

    /// Runs a client command against it.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.command(arguments).output().unwrap().into()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = palisade(arguments);
        command.env("PALISADE_ADDR", &self.addr);
        command
    }
}

/// Where a coordinator that was just started says that it listens.
pub(crate) fn address(running: &mut Running) -> String {
    let line = running.line();
    line.strip_prefix("PALISADE_ADDR=").expect(&line).to_owned()
}

pub(crate) fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}
