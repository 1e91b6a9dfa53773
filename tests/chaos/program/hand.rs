//! A worker process as the field sees it: what it says, what it is told, and signals.

use std::env;
use std::process::{self, Stdio};
use std::time::Duration;

use palisade_test_support::within;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::workload::Failed;

/// Longer than a place in the longest queue takes; reached only by what hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(180);

/// The same command, whose process ends with this one, however that ends, also when it is frozen.
pub(crate) fn mortal(command: &process::Command) -> Command {
    let mut mortal = Command::new("setpriv");
    mortal
        .args(["--pdeathsig", "KILL", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => mortal.env(name, value),
            None => mortal.env_remove(name),
        };
    }
    mortal
}

#[derive(Debug)]
pub(crate) struct Hand {
    child: Child,
    orders: ChildStdin,
    words: Lines<BufReader<ChildStdout>>,
}

impl Hand {
    /// Starts this program with these arguments.
    pub(crate) fn start(args: &[String]) -> Result<Self, Failed> {
        let mut program = process::Command::new(env::current_exe()?);
        program.args(args);
        let mut child = mortal(&program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = child.stdin.take().ok_or("a worker without stdin")?;
        let words = child.stdout.take().ok_or("a worker without stdout")?;
        Ok(Self {
            child,
            orders,
            words: BufReader::new(words).lines(),
        })
    }

    /// The next thing that it says; nothing when it has ended.
    pub(crate) async fn hear(&mut self) -> Result<Option<String>, Failed> {
        Ok(within("a worker's word", ANSWER_LIMIT, self.words.next_line()).await??)
    }

    /// A frozen worker finds it when it wakes.
    pub(crate) async fn tell(&mut self, order: &str) -> Result<(), Failed> {
        self.orders
            .write_all(format!("{order}\n").as_bytes())
            .await?;
        Ok(self.orders.flush().await?)
    }

    pub(crate) fn freeze(&self) -> Result<(), Failed> {
        self.signal(Signal::STOP)
    }

    pub(crate) fn thaw(&self) -> Result<(), Failed> {
        self.signal(Signal::CONT)
    }

    pub(crate) async fn kill(&mut self) -> Result<(), Failed> {
        Ok(self.child.kill().await?)
    }

    /// Waits for it to end by itself, and kills it if it does not.
    pub(crate) async fn end(mut self) -> Result<(), Failed> {
        if within("a worker's end", ANSWER_LIMIT, self.child.wait())
            .await
            .is_err()
        {
            self.child.kill().await?;
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<(), Failed> {
        let id = self.child.id().ok_or("the worker has ended")?;
        let id = Pid::from_raw(i32::try_from(id)?).ok_or("no process id")?;
        Ok(kill_process(id, signal)?)
    }
}
