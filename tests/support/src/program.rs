//! Finding programs, and running tools to their end.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{Error, clock};

/// No tool that tests run takes longer, even with two busy cores.
const TOOL_LIMIT: Duration = Duration::from_secs(60);

/// The file that a shell would run for `name`.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Runs a tool to its end, away from the async threads, and returns what it wrote to stdout.
pub(crate) async fn run(command: Command) -> Result<String, Error> {
    let line = describe(&command);
    let mut command = tokio::process::Command::from(command);
    command
        .kill_on_drop(true)
        .stdin(std::process::Stdio::null());
    let output = clock::within(&format!("the end of {line}"), TOOL_LIMIT, command.output())
        .await?
        .map_err(Error::io(format!("run {line}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Command {
        command: line,
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn describe(command: &Command) -> String {
    let name = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default();
    let words: Vec<_> = std::iter::once(name)
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    words.join(" ")
}
