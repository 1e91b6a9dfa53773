use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::home::Home;
use crate::{Error, Port, Process, clock, http};

/// A coordinator that has its store is ready at once; on two busy cores, with etcd starting beside it,
/// later.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Longer than the drain that a coordinator allows itself.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A health page is local and small; a frozen coordinator never answers.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A clash needs another program on a port that was free a moment ago: twice is no coincidence.
const START_ATTEMPTS: usize = 3;

/// A coordinator as users run it: the process `palisade serve`.
///
/// The program is `$PALISADE_BIN`, else `palisade` in the target directory of the running test.
///
/// # Example
///
/// ```no_run
/// # async fn test() -> Result<(), palisade_test_support::Error> {
/// use palisade_test_support::{Coordinator, Etcd};
/// let etcd = Etcd::start().await?;
/// let mut one = Coordinator::builder().etcd(&etcd.endpoints()).start().await?;
/// let two = Coordinator::builder().etcd(&etcd.endpoints()).start().await?;
/// one.kill()?;
/// assert_eq!(two.http_get("/readyz").await?.0, 200);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Coordinator {
    process: Option<Process>,
    program: PathBuf,
    plan: CoordinatorBuilder,
    ports: (Port, Port),
    home: Home,
}

/// The settings of a [`Coordinator`] to start.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct CoordinatorBuilder {
    store: Vec<String>,
    listen: Option<String>,
    http: Option<String>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    unready: bool,
    program: Option<PathBuf>,
}

impl CoordinatorBuilder {
    /// Keeps its state in etcd (`--etcd`).
    pub fn etcd<S: AsRef<str>>(mut self, urls: &[S]) -> Self {
        let urls: Vec<_> = urls.iter().map(AsRef::as_ref).collect();
        self.store = vec!["--etcd".to_owned(), urls.join(",")];
        self
    }

    /// Keeps its state in a file (`--embedded`). Without this and without etcd it is a file in the
    /// coordinator's own directory.
    pub fn embedded(mut self, file: &Path) -> Self {
        self.store = vec!["--embedded".to_owned(), file.display().to_string()];
        self
    }

    /// Serves gRPC on this address in place of a free port of loopback (`--listen`).
    pub fn listen(mut self, address: &str) -> Self {
        self.listen = Some(address.to_owned());
        self
    }

    /// Serves health and metrics on this address in place of a free port of loopback (`--http`).
    pub fn http(mut self, address: &str) -> Self {
        self.http = Some(address.to_owned());
        self
    }

    /// Another argument of `palisade serve`.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// A variable of its environment, which holds nothing else that starts with `PALISADE_`.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Does not wait for readiness on a start, for coordinators that have no store yet.
    pub fn without_waiting(mut self) -> Self {
        self.unready = true;
        self
    }

    /// Runs this program, of another version say.
    pub fn program(mut self, program: &Path) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// Starts the coordinator; returns when its `/readyz` answers 200.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] when `palisade` was not built, [`Error::Exited`] when it refuses its settings,
    /// [`Error::TimedOut`] when it does not become ready.
    pub async fn start(self) -> Result<Coordinator, Error> {
        let program = self.program.clone().map_or_else(find_program, Ok)?;
        let home = Home::new("coordinator")?;
        let ports = (Port::reserve()?, Port::reserve()?);
        let mut coordinator = Coordinator {
            process: None,
            program,
            plan: self,
            ports,
            home,
        };
        for _ in 1..START_ATTEMPTS {
            match coordinator.start_again().await {
                Err(error) if error.is_port_clash() => {
                    coordinator.ports = (Port::reserve()?, Port::reserve()?);
                }
                result => return result.map(|()| coordinator),
            }
        }
        coordinator.start_again().await.map(|()| coordinator)
    }
}

impl Coordinator {
    /// A coordinator with settings of its own.
    pub fn builder() -> CoordinatorBuilder {
        CoordinatorBuilder::default()
    }

    /// The gRPC address as clients take it, `http://127.0.0.1:PORT`; the same over restarts.
    #[must_use]
    pub fn addr(&self) -> String {
        format!("http://{}", self.host_port())
    }

    /// The gRPC address without a scheme, to put a proxy before.
    #[must_use]
    pub fn host_port(&self) -> String {
        let free = || format!("127.0.0.1:{}", self.ports.0.number());
        self.plan.listen.clone().unwrap_or_else(free)
    }

    /// The address of its health and metrics pages, `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn http_addr(&self) -> String {
        format!("http://{}", self.http_host_port())
    }

    /// Status and body of one of its pages.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it does not listen, [`Error::TimedOut`] when it does not answer within 5 s.
    pub async fn http_get(&self, path: &str) -> Result<(u16, String), Error> {
        let page = self.http_host_port();
        let what = format!("an answer of {page}{path}");
        clock::within(&what, ANSWER_LIMIT, http::get(&page, path)).await?
    }

    /// Whether it says that it can serve.
    pub async fn is_ready(&self) -> bool {
        matches!(self.http_get("/readyz").await, Ok((200, _)))
    }

    /// Waits until it says that it can serve.
    ///
    /// # Errors
    ///
    /// [`Error::Exited`] when it ends instead, [`Error::TimedOut`] after `limit`.
    pub async fn ready(&mut self, limit: Duration) -> Result<(), Error> {
        let page = self.http_host_port();
        let process = self.process.as_mut().ok_or_else(never_started)?;
        let wait = process.starting(limit);
        loop {
            let answer =
                clock::within("readiness", ANSWER_LIMIT, http::get(&page, "/readyz")).await;
            process.check_running()?;
            if matches!(answer, Ok(Ok((200, _)))) {
                return Ok(());
            }
            wait.tick().await?;
        }
    }

    /// The process, to wait for its end or to read its log.
    ///
    /// # Errors
    ///
    /// [`Error::Unexpected`] when a start failed before there was one.
    pub fn process(&mut self) -> Result<&mut Process, Error> {
        self.process.as_mut().ok_or_else(never_started)
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    ///
    /// As [`Process::kill`].
    pub fn kill(&mut self) -> Result<(), Error> {
        self.process.as_mut().map_or(Ok(()), Process::kill)
    }

    /// Stops it by SIGTERM, as a service manager does, and tells how it ended; killed after 20 s.
    ///
    /// # Errors
    ///
    /// As [`Process::kill`].
    pub async fn terminate(&mut self) -> Result<ExitStatus, Error> {
        self.process()?.stop_gracefully(STOP_LIMIT).await
    }

    /// Freezes it with SIGSTOP.
    ///
    /// # Errors
    ///
    /// As [`Process::pause`].
    pub fn pause(&mut self) -> Result<(), Error> {
        self.process()?.pause()
    }

    /// Lets it run on.
    ///
    /// # Errors
    ///
    /// As [`Process::pause`].
    pub fn resume(&mut self) -> Result<(), Error> {
        self.process()?.resume()
    }

    /// Starts it again with the same settings and ports; returns when it is ready, unless it was built
    /// without waiting. One that still runs is killed first.
    ///
    /// # Errors
    ///
    /// As [`CoordinatorBuilder::start`].
    pub async fn start_again(&mut self) -> Result<(), Error> {
        self.kill()?;
        let mut serve = Command::new(&self.program);
        serve.arg("serve").current_dir(self.home.path());
        if self.plan.store.is_empty() {
            serve
                .arg("--embedded")
                .arg(self.home.path().join("palisade.db"));
        }
        serve
            .args(&self.plan.store)
            .args([
                "--listen",
                &self.host_port(),
                "--http",
                &self.http_host_port(),
            ])
            .args(&self.plan.args);
        for (name, _) in
            env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PALISADE_"))
        {
            serve.env_remove(name);
        }
        serve.envs(self.plan.env.iter().map(|(name, value)| (name, value)));
        let log = self.home.path().join("coordinator.log");
        self.process = Some(Process::spawn("coordinator", &serve, &log)?);
        if self.plan.unready {
            Ok(())
        } else {
            self.ready(START_LIMIT).await
        }
    }

    fn http_host_port(&self) -> String {
        let free = || format!("127.0.0.1:{}", self.ports.1.number());
        self.plan.http.clone().unwrap_or_else(free)
    }
}

fn never_started() -> Error {
    Error::Unexpected("the coordinator was never started".to_owned())
}

/// `$PALISADE_BIN`, else the binary beside the running test: `target/debug/deps/test-…` has it one up.
fn find_program() -> Result<PathBuf, Error> {
    let named = env::var_os("PALISADE_BIN").map(PathBuf::from);
    let test = env::current_exe().map_err(Error::io("find the running test"))?;
    let built = test
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("palisade"));
    named.into_iter().chain(built).find(|program| program.is_file()).ok_or_else(|| Error::Missing {
        program: "palisade".to_owned(),
        advice: "build it first (`cargo build -p palisade`, which tests/run does), or set PALISADE_BIN"
            .to_owned(),
    })
}
