//! The programs of tests/chaos: the workload that only the guard survives, and recovery times.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its report is for people at a terminal"
)]

mod clock;
mod field;
mod hand;
mod hold;
mod lock_set;
mod recovery;
mod schedule;
mod stage;
mod summary;
mod tally;
mod worker;
mod workload;

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use workload::Failed;

/// As clap has it for wrong arguments.
const MISUSED: u8 = 2;

/// Arguments that do not go together.
#[derive(Debug)]
struct Misused(String);

impl fmt::Display for Misused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Misused {}

/// Faults on real processes. Called by the commands of tests/chaos.
#[derive(Debug, Parser)]
#[command(name = "palisade-chaos")]
struct Chaos {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read-modify-write and payments under a lease, with the guard and without.
    LockSet(lock_set::Options),
    /// Seconds from kill -9 until work goes on, beside etcd's own lock.
    Recovery(recovery::Options),
    /// One report of what the parts of `tests/chaos/run` have left.
    Report(summary::Options),
    /// A holder of one lease; started by `recovery`.
    #[command(hide = true)]
    Hold(hold::Options),
    /// A worker of the field; started by it.
    #[command(hide = true)]
    Worker(worker::Options),
}

// One thread: what it starts ends with it, and the kernel's "parent" of a process is a thread.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let run = async {
        match Chaos::parse().command {
            Command::LockSet(options) => lock_set::run(options).await,
            Command::Recovery(options) => Box::pin(recovery::run(options)).await,
            Command::Report(options) => summary::run(&options),
            Command::Hold(options) => hold::run(options).await.map(|()| true),
            Command::Worker(options) => worker::run(options).await.map(|()| true),
        }
    };
    let result: Result<bool, Failed> = tokio::select! {
        result = run => result,
        // What it has started is dropped, and so ended.
        _interrupted = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("palisade-chaos: {error}");
            let wrong = error.is::<Misused>();
            if wrong {
                ExitCode::from(MISUSED)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
