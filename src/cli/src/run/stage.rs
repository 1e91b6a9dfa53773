//! What the command is before it is itself.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::course::{CANNOT_EXECUTE, NOT_FOUND};
use crate::args::StageArgs;
use crate::failure::{Failure, Kind};

/// Becomes the command. The kernel kills it with its guardian from here on: `palisade run` does that, too, but
/// whoever kills the one by name may kill the other.
pub(crate) fn stage(args: StageArgs) -> Failure {
    let guardian = Pid::from_raw(args.guardian.get());
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return Failure::io("be killed with the guardian")(error.into());
    }
    // Asked after, so that it cannot have died unnoticed.
    if getppid() != guardian {
        return Failure::other("the guardian is gone");
    }
    let mut words = args.command.into_iter();
    let program = words.next().unwrap_or_default();
    let error = Command::new(&program).args(words).exec();
    cannot_execute(&program, &error)
}

fn cannot_execute(program: &OsString, error: &io::Error) -> Failure {
    let program = program.display();
    let (code, message) = match error.kind() {
        ErrorKind::NotFound => (NOT_FOUND, format!("{program} was not found")),
        _ => (
            CANNOT_EXECUTE,
            format!("{program} cannot be executed: {error}"),
        ),
    };
    Failure::new(Kind::Child(code), message)
}
