//! This very program as a child, and a coordinator that a command runs for itself.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::clock;
use crate::failure::Failure;
use crate::log;

/// A coordinator that has its store is there at once; on a busy machine, later.
pub(crate) const OPENING_LIMIT: Duration = Duration::from_secs(15);

/// This very program as a child: in a process group of its own, so that Ctrl-C reaches the parent alone
/// and, should the parent be killed, the kernel wakes and ends a child that is frozen.
pub(crate) fn this_program() -> Result<Command, Failure> {
    let program = env::current_exe().map_err(Failure::io("find this program"))?;
    let mut command = Command::new(program);
    command.process_group(0).kill_on_drop(true);
    // Settings of this process are not those of what it tries out; where its log goes to is.
    for (name, _) in env::vars_os() {
        let bytes = name.as_encoded_bytes();
        let is_setting = bytes.starts_with(b"PALISADE_") && bytes != b"PALISADE_LOG";
        if is_setting || bytes == b"STATE_DIRECTORY" {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// A coordinator on free ports. It ends with this process at the latest; dropped, it is killed.
#[derive(Debug)]
pub(crate) struct OwnCoordinator {
    process: Child,
    addr: String,
}

impl OwnCoordinator {
    /// `palisade serve` with these arguments besides; returns once it listens. Its log goes to a file, filtered
    /// like this where the user has not said how.
    pub(crate) async fn start<A: AsRef<OsStr>>(
        more: impl IntoIterator<Item = A>,
        (log, filter): (File, &str),
    ) -> Result<Self, Failure> {
        let mut command = this_program()?;
        if log::FILTERS.iter().all(|name| env::var_os(name).is_none()) {
            command.env(log::FILTERS[0], filter);
        }
        command.args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        command.arg("--end-with-stdin").args(more);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.stderr(log).spawn().map_err(failed())?;
        match listening(&mut process).await {
            Ok(addr) => Ok(Self { process, addr }),
            Err(failure) => {
                process.kill().await.map_err(failed())?;
                Err(failure)
            }
        }
    }

    /// Where it serves gRPC.
    pub(crate) fn addr(&self) -> &str {
        &self.addr
    }

    /// Its process id, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Ends it at once: its state is thrown away, and there is nothing that it would have to end in order.
    pub(crate) async fn end(mut self) -> Result<(), Failure> {
        let killed = self.process.kill().await;
        killed.map_err(Failure::io("end the coordinator"))
    }
}

async fn listening(process: &mut Child) -> Result<String, Failure> {
    let cannot = || Failure::other("the coordinator did not start");
    let stdout = process.stdout.take().ok_or_else(cannot)?;
    let mut lines = BufReader::new(stdout).lines();
    let first = clock::within(OPENING_LIMIT, lines.next_line()).await;
    let first = first.ok_or_else(cannot)?.map_err(failed())?;
    let addr = first
        .as_deref()
        .and_then(|line| line.strip_prefix("PALISADE_ADDR="));
    addr.map(str::to_owned).ok_or_else(cannot)
}

fn failed() -> impl FnOnce(std::io::Error) -> Failure {
    Failure::io("start the coordinator")
}
