use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::clock::{self, Wait};
use crate::{Error, program, tree};

/// How much of a log an error quotes.
const TAIL_LINES: usize = 20;

/// A child process with its output in a log file. Dropping it kills it and all that it has forked.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` in its own process group, with stdin closed and stdout and stderr appended to
    /// the file `log`.
    ///
    /// Where `setpriv` is on PATH, the kernel kills the process when this test process ends.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the log cannot be opened or the program cannot be started.
    pub fn spawn(name: &str, command: &Command, log: &Path) -> Result<Self, Error> {
        let open = || {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(log)
                .map_err(Error::io(format!("open the log of {name}")))
        };
        let mut command = ending_with_this_process(command);
        command
            .stdin(Stdio::null())
            .stdout(open()?)
            .stderr(open()?)
            .process_group(0);
        let child =
            spawn_from_lasting_thread(command).map_err(Error::io(format!("start {name}")))?;
        Ok(Self {
            name: name.to_owned(),
            log: log.to_owned(),
            child,
            ended: None,
        })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file that its output goes to.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Everything it has written so far.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Kills it and its descendants with SIGKILL, and returns when they are gone. Nothing happens if it
    /// has ended before.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the system refuses the signal.
    pub fn kill(&mut self) -> Result<(), Error> {
        if self.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = self.pid();
        tree::kill(pid)
            .and_then(|()| self.child.wait())
            .map_or_else(
                |source| {
                    Err(Error::Io {
                        action: format!("kill {}", self.name),
                        source,
                    })
                },
                |status| {
                    self.ended = Some(status);
                    Ok(())
                },
            )
    }

    /// Sends SIGTERM, waits up to `limit` for the end, then kills. The status tells which it was.
    ///
    /// # Errors
    ///
    /// As [`Process::kill`].
    pub async fn stop_gracefully(&mut self, limit: Duration) -> Result<ExitStatus, Error> {
        self.stop_by(Signal::TERM, limit).await
    }

    /// [`Process::stop_gracefully`] for servers that have another signal for it.
    pub(crate) async fn stop_by(
        &mut self,
        signal: Signal,
        limit: Duration,
    ) -> Result<ExitStatus, Error> {
        self.signal(signal)?;
        match self.wait(limit).await {
            Ok(status) => Ok(status),
            Err(Error::TimedOut { .. }) => {
                self.kill()?;
                self.wait(limit).await
            }
            Err(error) => Err(error),
        }
    }

    /// [`Process::stop_by`] for drops: sends the signal and waits for the end, at most `limit`.
    pub(crate) fn end_by(&mut self, signal: Signal, limit: Duration) {
        if self.signal(signal).is_ok() {
            clock::eventually_blocking(limit, || !matches!(self.try_wait(), Ok(None)));
        }
    }

    /// Freezes it and its descendants with SIGSTOP; returns when it stands still.
    ///
    /// # Errors
    ///
    /// [`Error::Exited`] when it runs no more, [`Error::Io`] when the system refuses the signal.
    pub fn pause(&mut self) -> Result<(), Error> {
        self.check_running()?;
        tree::stop(self.pid()).map_err(Error::io(format!("pause {}", self.name)))
    }

    /// Lets a paused process run on (SIGCONT).
    ///
    /// # Errors
    ///
    /// As [`Process::pause`].
    pub fn resume(&mut self) -> Result<(), Error> {
        self.check_running()?;
        tree::resume(self.pid()).map_err(Error::io(format!("resume {}", self.name)))
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] after `limit`; it runs on then.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus, Error> {
        let wait = Wait::new(format!("the end of {}", self.name), limit);
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            wait.tick().await?;
        }
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the system cannot tell.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, Error> {
        if self.ended.is_none() {
            self.ended = self
                .child
                .try_wait()
                .map_err(Error::io(format!("wait for {}", self.name)))?;
        }
        Ok(self.ended)
    }

    /// An error with the end of its log if it has ended.
    pub(crate) fn check_running(&mut self) -> Result<(), Error> {
        let Some(status) = self.try_wait()? else {
            return Ok(());
        };
        let output = self.output();
        let lines: Vec<_> = output.lines().collect();
        let tail = lines
            .get(lines.len().saturating_sub(TAIL_LINES)..)
            .unwrap_or_default()
            .join("\n");
        Err(Error::Exited {
            name: self.name.clone(),
            status: status.to_string(),
            log: self.log.clone(),
            tail,
        })
    }

    /// Deadline of a start; the loop that uses it also looks at [`Process::check_running`].
    pub(crate) fn starting(&self, limit: Duration) -> Wait {
        Wait::new(
            format!("{} ready (log: {})", self.name, self.log.display()),
            limit,
        )
    }

    /// Sends a signal to the process alone. A frozen one is thawed, or it would not act on it.
    fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        if self.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = self.pid();
        tree::signal(pid, signal)
            .and_then(|()| tree::resume(pid))
            .map_err(Error::io(format!("signal {}", self.name)))
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is left to tell; and the kernel ends it with this process at the latest.
        drop(self.kill());
    }
}

/// `command` under `setpriv --pdeathsig KILL` where that exists: what std offers for it is unsafe.
fn ending_with_this_process(command: &Command) -> Command {
    let mut wrapped = match program::on_path("setpriv") {
        Some(setpriv) => {
            let mut wrapped = Command::new(setpriv);
            wrapped
                .args(["--pdeathsig", "KILL", "--"])
                .arg(command.get_program());
            wrapped
        }
        None => Command::new(command.get_program()),
    };
    wrapped.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    }
    wrapped
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts children from a thread that lasts as long as the process: the kernel's "parent" of a
/// parent-death signal is the *thread* that forked, and threads of tests and of runtimes end early.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    static ORDERS: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in receiver {
                drop(reply.send(command.spawn()));
            }
        });
        Mutex::new(sender)
    });
    let (reply, answer) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts processes is gone");
    let sent = orders
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, reply));
    sent.map_err(|_order| gone())?;
    answer.recv().map_err(|_gone| gone())?
}
