use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::home::Home;
use crate::{Error, Port, Process, program, within};

/// It loads what it has before it answers; on two busy cores that has its time.
const START_LIMIT: Duration = Duration::from_secs(60);

/// An orderly end writes what it has not written yet.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A server that took the connection and is not loading answers at once.
const PING_LIMIT: Duration = Duration::from_secs(2);

/// A clash needs another program on a port that was free a moment ago: twice is no coincidence.
const START_ATTEMPTS: usize = 3;

/// A Redis server of its own, with its data in a temporary directory and no password.
///
/// Its append-only file is on and left to the kernel to flush: what it acknowledged survives a
/// [`Redis::kill`], which takes nothing from the kernel's cache, and costs no fsync.
///
/// # Example
///
/// ```no_run
/// # async fn test() -> Result<(), palisade_test_support::Error> {
/// use palisade_test_support::Redis;
/// let mut server = Redis::start().await?;
/// server.cli(&["SET", "greeting", "hello"]).await?;
/// server.kill()?;
/// server.start_again().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Redis {
    process: Option<Process>,
    bin: PathBuf,
    settings: Vec<(String, String)>,
    port: Port,
    home: Home,
}

/// The settings of a [`Redis`] to start.
#[derive(Debug, Clone, Default)]
pub struct RedisBuilder {
    settings: Vec<(String, String)>,
}

impl RedisBuilder {
    /// A server setting, as in `redis.conf`. The last one of a name counts.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the server; returns when it answers.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] without Redis' programs, [`Error::Exited`] when the server does not accept its
    /// settings.
    pub async fn start(self) -> Result<Redis, Error> {
        let mut server = Redis {
            process: None,
            bin: find()?,
            settings: self.settings,
            port: Port::reserve()?,
            home: Home::new("redis")?,
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

impl Redis {
    /// Starts a server with the default settings.
    ///
    /// # Errors
    ///
    /// As [`RedisBuilder::start`].
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// A server with settings of its own.
    #[must_use]
    pub fn builder() -> RedisBuilder {
        RedisBuilder::default()
    }

    /// The URL of database 0.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}/", self.host_port())
    }

    /// The loopback address, to put a proxy before.
    #[must_use]
    pub fn host_port(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// Runs one command through `redis-cli`. Returns the reply, raw; an error reply is an error.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] with the server's message.
    pub async fn cli(&self, command: &[&str]) -> Result<String, Error> {
        let mut cli = Command::new(self.bin.join("redis-cli"));
        let port = self.port.number().to_string();
        cli.args(["-h", "127.0.0.1", "-p", &port, "-e", "--raw"])
            .args(command)
            .env_remove("REDISCLI_AUTH");
        program::run(cli).await
    }

    /// Kills the server with SIGKILL.
    ///
    /// # Errors
    ///
    /// As [`Process::kill`].
    pub fn kill(&mut self) -> Result<(), Error> {
        self.process.as_mut().map_or(Ok(()), Process::kill)
    }

    /// An orderly end.
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

    /// Freezes the server.
    ///
    /// # Errors
    ///
    /// As [`Process::pause`].
    pub fn pause(&mut self) -> Result<(), Error> {
        self.process.as_mut().map_or(Ok(()), Process::pause)
    }

    /// Lets it run on.
    ///
    /// # Errors
    ///
    /// As [`Process::pause`].
    pub fn resume(&mut self) -> Result<(), Error> {
        self.process.as_mut().map_or(Ok(()), Process::resume)
    }

    /// Starts it again on the same data and port; returns when it answers. A server that still runs is
    /// killed first.
    ///
    /// # Errors
    ///
    /// [`Error::Exited`] or [`Error::TimedOut`] when it does not come up.
    pub async fn start_again(&mut self) -> Result<(), Error> {
        self.kill()?;
        let mut redis = Command::new(self.bin.join("redis-server"));
        redis.current_dir(self.home.path());
        let port = self.port.number().to_string();
        let directory = self.home.path().display().to_string();
        let fixed = [
            ("bind", "127.0.0.1"),
            ("port", &port),
            ("dir", &directory),
            ("daemonize", "no"),
            ("save", ""),
            ("appendonly", "yes"),
            ("appendfsync", "no"),
        ];
        let own = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in fixed.into_iter().chain(own) {
            redis.arg(format!("--{name}")).arg(value);
        }
        let log = self.home.path().join("redis.log");
        let process = self.process.insert(Process::spawn("redis", &redis, &log)?);
        let wait = process.starting(START_LIMIT);
        loop {
            if answers(self.port.number()).await {
                return process.check_running();
            }
            process.check_running()?;
            wait.tick().await?;
        }
    }
}

/// Whether the server there has loaded its data: a PING is answered with an error until then, and with one
/// for want of a password where a test set one.
async fn answers(port: u16) -> bool {
    let ping = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut reply = [0; 5];
        stream.read_exact(&mut reply).await?;
        std::io::Result::Ok(reply)
    };
    let reply = within("an answer of redis", PING_LIMIT, ping).await;
    matches!(reply, Ok(Ok(reply)) if &reply == b"+PONG" || &reply == b"-NOAU")
}

/// The directory of Redis' programs.
fn find() -> Result<PathBuf, Error> {
    let bin = env::var_os("PALISADE_TEST_REDIS_BIN")
        .map(PathBuf::from)
        .or_else(|| {
            program::on_path("redis-server")?
                .parent()
                .map(PathBuf::from)
        });
    bin.filter(|bin| bin.join("redis-server").is_file() && bin.join("redis-cli").is_file())
        .ok_or_else(|| Error::Missing {
            program: "Redis' server (redis-server, redis-cli)".to_owned(),
            advice: "run tests/run, which installs it, or set PALISADE_TEST_REDIS_BIN to the \
                     directory of its programs"
                .to_owned(),
        })
}
