mod programs;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use self::programs::Programs;
use crate::home::Home;
use crate::{Error, Port, Process, program, template};

/// A start replays the log after a kill; on two busy cores that has its time.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A fast shutdown ends its sessions and writes a checkpoint.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// After 5 s a server in an immediate shutdown kills its sessions itself.
const QUIT_LIMIT: Duration = Duration::from_secs(10);

/// A clash needs another program on a port that was free a moment ago: twice is no coincidence.
const START_ATTEMPTS: usize = 3;

/// A PostgreSQL server of its own, with its data in a temporary directory: superuser `postgres`, trusted
/// on loopback and on a socket in that directory.
///
/// As root it runs as user `postgres`, or `nobody` where that does not exist: PostgreSQL refuses root.
///
/// # Example
///
/// ```no_run
/// # async fn test() -> Result<(), palisade_test_support::Error> {
/// use palisade_test_support::Postgres;
/// let mut server = Postgres::start().await?;
/// let url = server.create_database("orders").await?;
/// server.kill()?;
/// server.start_again().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Postgres {
    process: Option<Process>,
    programs: Programs,
    settings: Vec<(String, String)>,
    port: Port,
    home: Home,
}

/// The settings of a [`Postgres`] to start.
#[derive(Debug, Clone, Default)]
pub struct PostgresBuilder {
    settings: Vec<(String, String)>,
}

impl PostgresBuilder {
    /// A server setting, as in `postgresql.conf`. The last one of a name counts.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Whether writes are forced to disk; on unless set. Off is quicker, and still durable over a
    /// [`Postgres::kill`], which takes nothing from the kernel's cache.
    #[must_use]
    pub fn fsync(self, on: bool) -> Self {
        self.setting("fsync", if on { "on" } else { "off" })
    }

    /// Makes a data directory and starts the server; returns when it takes connections.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] without PostgreSQL's server programs, [`Error::Exited`] when the server does
    /// not accept its settings, [`Error::Command`] when `initdb` fails.
    pub async fn start(self) -> Result<Postgres, Error> {
        let programs = Programs::find().await?;
        let home = Home::new("postgres")?;
        programs.give(home.path())?;
        let mut initdb = programs.command("initdb");
        initdb
            .args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ])
            .arg("-D")
            .arg(home.path().join("data"))
            .current_dir(home.path());
        let data = home.path().join("data");
        template::fill(&data, "postgres", &programs.path("postgres"), initdb).await?;
        let mut server = Postgres {
            process: None,
            programs,
            settings: self.settings,
            port: Port::reserve()?,
            home,
        };
        for _ in 1..START_ATTEMPTS {
            match server.start_again().await {
                Err(error) if error.is_port_clash() => server.port = Port::reserve()?,
                result => return result.map(|()| server),
            }
        }
        server.start_again().await.map(|()| server)
    }
}

impl Postgres {
    /// Starts a server with the default settings.
    ///
    /// # Errors
    ///
    /// As [`PostgresBuilder::start`].
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// A server with settings of its own.
    #[must_use]
    pub fn builder() -> PostgresBuilder {
        PostgresBuilder::default()
    }

    /// The URL of the database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_for("postgres")
    }

    /// The URL of a database, on loopback TCP.
    #[must_use]
    pub fn url_for(&self, database: &str) -> String {
        format!(
            "postgres://postgres@127.0.0.1:{}/{database}",
            self.port.number()
        )
    }

    /// The loopback address, to put a proxy before.
    #[must_use]
    pub fn host_port(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// The directory of its Unix socket.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        self.home.path()
    }

    /// Creates an empty database and returns its URL.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when it exists, or the server is away.
    pub async fn create_database(&self, name: &str) -> Result<String, Error> {
        let mut createdb = self.client("createdb");
        createdb.args(["--", name]);
        program::run(createdb).await?;
        Ok(self.url_for(name))
    }

    /// Runs SQL through `psql` in one database, stopping at the first error. Returns the rows, unaligned.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] with the server's message.
    pub async fn psql(&self, database: &str, sql: &str) -> Result<String, Error> {
        let mut psql = self.client("psql");
        psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]);
        program::run(psql).await
    }

    /// Runs one of PostgreSQL's client programs (`pg_dump`, `pg_restore`) against this server.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when it fails.
    pub async fn tool(&self, name: &str, args: &[&str]) -> Result<String, Error> {
        let mut tool = self.client(name);
        tool.args(args);
        program::run(tool).await
    }

    /// Kills the server and every one of its sessions with SIGKILL.
    ///
    /// # Errors
    ///
    /// As [`Process::kill`].
    pub fn kill(&mut self) -> Result<(), Error> {
        self.process.as_mut().map_or(Ok(()), Process::kill)
    }

    /// A fast shutdown: sessions are ended, what is committed is checkpointed.
    ///
    /// # Errors
    ///
    /// As [`Process::kill`].
    pub async fn stop(&mut self) -> Result<(), Error> {
        if let Some(process) = &mut self.process {
            process.stop_by(Signal::INT, STOP_LIMIT).await?;
        }
        Ok(())
    }

    /// Freezes the server and its sessions.
    ///
    /// # Errors
    ///
    /// As [`Process::pause`].
    pub fn pause(&mut self) -> Result<(), Error> {
        self.process.as_mut().map_or(Ok(()), Process::pause)
    }

    /// Lets them run on.
    ///
    /// # Errors
    ///
    /// As [`Process::pause`].
    pub fn resume(&mut self) -> Result<(), Error> {
        self.process.as_mut().map_or(Ok(()), Process::resume)
    }

    /// Starts it again on the same data and port; returns when it takes connections. A server that still
    /// runs is killed first.
    ///
    /// # Errors
    ///
    /// [`Error::Exited`] or [`Error::TimedOut`] when it does not come up.
    pub async fn start_again(&mut self) -> Result<(), Error> {
        self.kill()?;
        let mut postgres = self.programs.server();
        postgres
            .arg("-D")
            .arg(self.home.path().join("data"))
            .current_dir(self.home.path());
        let socket = self.home.path().display().to_string();
        let port = self.port.number().to_string();
        let fixed = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port),
            ("unix_socket_directories", &socket),
            ("shared_buffers", "32MB"),
            // In the data directory: what a kill leaves behind goes with it, instead of filling /dev/shm.
            ("dynamic_shared_memory_type", "mmap"),
        ];
        let own = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in fixed.into_iter().chain(own) {
            postgres.arg("-c").arg(format!("{name}={value}"));
        }
        let log = self.home.path().join("postgres.log");
        let process = self
            .process
            .insert(Process::spawn("postgres", &postgres, &log)?);
        let wait = process.starting(START_LIMIT);
        loop {
            let mut ready = Command::new(self.programs.path("pg_isready"));
            ready.args(["-q", "-h", "127.0.0.1", "-p", &port]);
            if program::run(ready).await.is_ok() {
                return process.check_running();
            }
            process.check_running()?;
            wait.tick().await?;
        }
    }

    /// Removes the System V segment of a server that did not live to do it. The kernel would keep it, and
    /// has room for 4096.
    fn remove_segment(&self) {
        let file = self.home.path().join("data/postmaster.pid");
        let Ok(text) = fs::read_to_string(file) else {
            return;
        };
        // Line 7 is the segment's key and id; the file is gone after a shutdown.
        let id = text
            .lines()
            .nth(6)
            .and_then(|line| line.split_whitespace().nth(1));
        if let Some(id) = id {
            drop(Command::new("ipcrm").args(["-m", id]).output());
        }
    }

    fn client(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.path(name));
        command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.number().to_string())
            .env("PGUSER", "postgres");
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // An immediate shutdown gives its shared memory back; SIGKILL, which comes after it, does not.
            process.end_by(Signal::QUIT, QUIT_LIMIT);
            drop(process);
            self.remove_segment();
        }
    }
}
