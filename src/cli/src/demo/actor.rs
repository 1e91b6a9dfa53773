//! A worker process as the stage sees it.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::script::{Cue, Line, Part};
use crate::clock;
use crate::failure::Failure;

/// Stopping a process takes microseconds; on a machine that is very busy, a while.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);

/// Killed when dropped.
#[derive(Debug)]
pub(crate) struct Actor {
    name: String,
    process: Child,
    pid: Pid,
    cues: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Actor {
    /// Starts `palisade demo-worker` and tells it its part.
    pub(crate) async fn enter(part: &Part, log: &File) -> Result<Self, Failure> {
        let failed = || Failure::io(format!("start the worker {}", part.name));
        let mut command = crate::child::this_program()?;
        command
            .arg("demo-worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command.stderr(log.try_clone().map_err(failed())?);
        let mut process = command.spawn().map_err(failed())?;
        let pid = process
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let (Some(pid), Some(cues), Some(lines)) =
            (pid, process.stdin.take(), process.stdout.take())
        else {
            return Err(Failure::other(format!(
                "the worker {} did not start",
                part.name
            )));
        };
        let mut actor = Self {
            name: part.name.clone(),
            process,
            pid,
            cues,
            lines: BufReader::new(lines).lines(),
        };
        actor.tell(part).await?;
        Ok(actor)
    }

    /// Tells it what to do. A frozen worker hears it when it wakes.
    pub(crate) async fn cue(&mut self, cue: Cue) -> Result<(), Failure> {
        self.tell(&cue).await
    }

    async fn tell(&mut self, what: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(what)
            .map_err(|error| Failure::other(format!("cannot write JSON: {error}")))?;
        line.push(b'\n');
        let told = self.cues.write_all(&line).await;
        told.map_err(Failure::io(format!("talk to the worker {}", self.name)))
    }

    /// What it does next.
    pub(crate) async fn says(&mut self, limit: Duration) -> Result<Line, Failure> {
        let name = &self.name;
        let Some(line) = clock::within(limit, self.lines.next_line()).await else {
            return Err(Failure::other(format!(
                "the worker {name} did nothing for {} s",
                limit.as_secs()
            )));
        };
        match line.map_err(Failure::io(format!("hear the worker {name}")))? {
            None => Err(Failure::other(format!(
                "the worker {name} has ended too early"
            ))),
            Some(line) => match serde_json::from_str(&line) {
                Ok(Line::Broken { message }) => Err(Failure::other(format!(
                    "the worker {name} cannot go on: {message}"
                ))),
                Ok(line) => Ok(line),
                Err(error) => Err(Failure::other(format!(
                    "the worker {name} mumbles: {error}"
                ))),
            },
        }
    }

    /// Stops it with SIGSTOP; returns once it stands still.
    pub(crate) async fn freeze(&self) -> Result<(), Failure> {
        self.signal(Signal::STOP)?;
        let stopped = clock::poll(FREEZE_LIMIT, async || {
            let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
            waitid(WaitId::Pid(self.pid), options).transpose()
        });
        match stopped.await {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(Failure::io(format!("watch the worker {}", self.name))(
                error.into(),
            )),
            None => Err(Failure::other(format!(
                "the worker {} did not stop",
                self.name
            ))),
        }
    }

    /// Lets it go on, with SIGCONT.
    pub(crate) fn thaw(&self) -> Result<(), Failure> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        // Its process id is its own until it was waited for, and nobody does that but `Child`.
        kill_process(self.pid, signal)
            .map_err(|error| Failure::io(format!("signal the worker {}", self.name))(error.into()))
    }

    /// Waits for its end.
    pub(crate) async fn exits(&mut self, limit: Duration) -> Result<(), Failure> {
        match clock::within(limit, self.process.wait()).await {
            Some(Ok(status)) if status.success() => Ok(()),
            Some(Ok(status)) => Err(Failure::other(format!(
                "the worker {}: {status}",
                self.name
            ))),
            Some(Err(error)) => Err(Failure::io(format!("wait for the worker {}", self.name))(
                error,
            )),
            None => Err(Failure::other(format!(
                "the worker {} did not end",
                self.name
            ))),
        }
    }
}
