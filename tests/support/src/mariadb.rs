use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::home::Home;
use crate::owner::Owner;
use crate::{Error, Port, Process, program, template};

/// A start replays the log after a kill; on two busy cores that has its time.
const START_LIMIT: Duration = Duration::from_secs(60);

/// An orderly end closes sessions and writes its buffers.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A clash needs another program on a port that was free a moment ago: twice is no coincidence.
const START_ATTEMPTS: usize = 3;

/// Where the programs of packages lie: the server's not on everybody's PATH.
const USUAL: [&str; 3] = ["/usr/sbin", "/usr/bin", "/usr/local/bin"];

/// A MariaDB server of its own, with its data in a temporary directory: user `root` without a password, on
/// loopback and on a socket in that directory.
///
/// What it acknowledged survives a [`MariaDb::kill`], which takes nothing from the kernel's cache: the log
/// is written at each commit, and never flushed, to be quick.
///
/// As root it runs as user `mysql`, or `nobody` where that does not exist: MariaDB refuses root.
///
/// # Example
///
/// ```no_run
/// # async fn test() -> Result<(), palisade_test_support::Error> {
/// use palisade_test_support::MariaDb;
/// let mut server = MariaDb::start().await?;
/// let url = server.create_database("orders").await?;
/// server.kill()?;
/// server.start_again().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct MariaDb {
    process: Option<Process>,
    programs: Programs,
    settings: Vec<(String, String)>,
    port: Port,
    home: Home,
}

/// The settings of a [`MariaDb`] to start.
#[derive(Debug, Clone, Default)]
pub struct MariaDbBuilder {
    settings: Vec<(String, String)>,
}

impl MariaDbBuilder {
    /// A server setting, as in `my.cnf`. The last one of a name counts.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Makes a data directory and starts the server; returns when it takes connections.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] without MariaDB's server programs, [`Error::Exited`] when the server does not
    /// accept its settings, [`Error::Command`] when `mariadb-install-db` fails.
    pub async fn start(self) -> Result<MariaDb, Error> {
        let programs = Programs::find().await?;
        let home = Home::new("mariadb")?;
        programs.owner.give(home.path())?;
        let install = programs.path("mariadb-install-db")?;
        let mut install = programs.owner.command(&install, &[]);
        install
            .args([
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
                LOG_SIZE,
                NO_FSYNC,
            ])
            .arg(format!("--datadir={}", home.path().join("data").display()))
            .arg(tmpdir(&home))
            .current_dir(home.path());
        let data = home.path().join("data");
        template::fill(&data, "mariadb", &programs.path("mariadbd")?, install).await?;
        let mut server = MariaDb {
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

/// The default of 96 MiB is written in full by each new server.
const LOG_SIZE: &str = "--innodb-log-file-size=8M";

/// Nothing is forced to disk: what a killed server has written is in the kernel's cache.
const NO_FSYNC: &str = "--innodb-flush-method=nosync";

impl MariaDb {
    /// Starts a server with the default settings.
    ///
    /// # Errors
    ///
    /// As [`MariaDbBuilder::start`].
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// A server with settings of its own.
    #[must_use]
    pub fn builder() -> MariaDbBuilder {
        MariaDbBuilder::default()
    }

    /// The URL of the database `mysql`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_for("mysql")
    }

    /// The URL of a database, on loopback TCP.
    #[must_use]
    pub fn url_for(&self, database: &str) -> String {
        format!("mysql://root@{}/{database}", self.host_port())
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
        self.sql("mysql", &format!("CREATE DATABASE `{name}`"))
            .await?;
        Ok(self.url_for(name))
    }

    /// Runs SQL through the `mariadb` client in one database, stopping at the first error. Returns the
    /// rows without their heading, columns split by tabs.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] with the server's message.
    pub async fn sql(&self, database: &str, sql: &str) -> Result<String, Error> {
        let mut client = Command::new(self.programs.path("mariadb")?);
        client
            .args(["--no-defaults", "--batch", "--skip-column-names"])
            .args(["--user=root", "--host=127.0.0.1"])
            .arg(format!("--port={}", self.port.number()))
            .arg(format!("--database={database}"))
            .arg(format!("--execute={sql}"));
        program::run(client).await
    }

    /// Kills the server and with it every one of its sessions, with SIGKILL.
    ///
    /// # Errors
    ///
    /// As [`Process::kill`].
    pub fn kill(&mut self) -> Result<(), Error> {
        self.process.as_mut().map_or(Ok(()), Process::kill)
    }

    /// An orderly end: sessions are ended, buffers written.
    ///
    /// # Errors
    ///
    /// As [`Process::kill`].
    pub async fn stop(&mut self) -> Result<(), Error> {
        if let Some(process) = &mut self.process {
            process.stop_by(Signal::TERM, STOP_LIMIT).await?;
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
        let server = self.programs.server()?;
        // The kernel forgets at a change of user which signal a process gets when its parent ends.
        let mut command = self
            .programs
            .owner
            .command(&server, &["--pdeathsig", "KILL"]);
        let home = self.home.path();
        command
            .args(["--no-defaults", "--bind-address=127.0.0.1", LOG_SIZE])
            .args(["--skip-name-resolve", "--innodb-flush-log-at-trx-commit=2"])
            .args(["--innodb-buffer-pool-size=32M", "--skip-log-bin", NO_FSYNC])
            .arg("--sync-frm=0")
            .arg(format!("--port={}", self.port.number()))
            .arg(format!("--datadir={}", home.join("data").display()))
            .arg(format!("--socket={}", home.join("socket").display()))
            .arg(format!("--pid-file={}", home.join("pid").display()))
            .arg(tmpdir(&self.home))
            .args(self.settings.iter().map(|(name, value)| {
                // Underscores and hyphens are one to the server.
                format!("--{name}={value}")
            }))
            .current_dir(home);
        let log = home.join("mariadb.log");
        let process = self
            .process
            .insert(Process::spawn("mariadb", &command, &log)?);
        let wait = process.starting(START_LIMIT);
        let admin = self.programs.path("mariadb-admin")?;
        loop {
            let mut ping = Command::new(&admin);
            ping.args(["--no-defaults", "--silent", "--user=root"])
                .args(["--host=127.0.0.1", "--connect-timeout=2"])
                .arg(format!("--port={}", self.port.number()))
                .arg("ping");
            if program::run(ping).await.is_ok() {
                return process.check_running();
            }
            process.check_running()?;
            wait.tick().await?;
        }
    }
}

/// A server that starts removes what it takes for its own leavings there.
fn tmpdir(home: &Home) -> String {
    format!("--tmpdir={}", home.path().display())
}

/// MariaDB's programs, and whom they run as.
#[derive(Debug, Clone)]
struct Programs {
    named: Option<PathBuf>,
    owner: Owner,
}

impl Programs {
    async fn find() -> Result<Self, Error> {
        let programs = Self {
            named: env::var_os("PALISADE_TEST_MARIADB_BIN").map(PathBuf::from),
            owner: Owner::find("MariaDB", &["mysql", "nobody"]).await?,
        };
        programs.server()?;
        Ok(programs)
    }

    fn server(&self) -> Result<PathBuf, Error> {
        self.path("mariadbd")
    }

    fn path(&self, name: &str) -> Result<PathBuf, Error> {
        let found = match &self.named {
            Some(bin) => Some(bin.join(name)),
            None => USUAL
                .iter()
                .map(|bin| Path::new(bin).join(name))
                .find(|file| file.is_file())
                .or_else(|| program::on_path(name)),
        };
        found
            .filter(|file| file.is_file())
            .ok_or_else(|| Error::Missing {
                program: format!("MariaDB's {name}"),
                advice:
                    "run tests/run, which installs it, or set PALISADE_TEST_MARIADB_BIN to the \
                         directory of its programs"
                        .to_owned(),
            })
    }
}
