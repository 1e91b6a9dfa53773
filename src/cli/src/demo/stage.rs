//! What the demo needs: a coordinator, a database, and room for workers. All of it goes away again.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::time::Duration;

use palisade_client::{Client, ClientError};
use palisade_token::ResourceName;
use tempfile::TempDir;

use super::actor::Actor;
use super::bank;
use super::scratch;
use super::script::{Books, Part};
use crate::args::DemoArgs;
use crate::child::{OPENING_LIMIT, OwnCoordinator};
use crate::failure::{Failure, Kind};

/// So that databases of demos side by side, or of one that was killed, do not meet.
const MARK_BYTES: usize = 6;
/// Lines of the processes' logs that are shown when the demo fails.
const LOG_LINES: usize = 15;

/// Dropped, it kills its processes and deletes its files; [`Stage::strike`] also clears databases.
#[derive(Debug)]
pub(crate) struct Stage {
    coordinator: Option<OwnCoordinator>,
    home: TempDir,
    etcd: Vec<String>,
    mark: String,
    ttl: Duration,
    books: Books,
    log: File,
}

impl Stage {
    /// Makes the directory; nothing runs yet.
    pub(crate) fn build(args: &DemoArgs) -> Result<Self, Failure> {
        let home = tempfile::Builder::new()
            .prefix("palisade-demo-")
            .tempdir()
            .map_err(Failure::io("make a directory for the demo"))?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log_file(&home))
            .map_err(Failure::io("make the demo's log"))?;
        let mut mark = [0; MARK_BYTES];
        getrandom::fill(&mut mark)
            .map_err(|error| Failure::other(format!("no random numbers: {error}")))?;
        let mark = hex::encode(mark);
        let books = match &args.postgres {
            None => Books::Sqlite {
                file: home.path().join("bank.db"),
            },
            Some(server) => Books::Postgres {
                server: server.clone(),
                database: format!("palisade_demo_{mark}"),
            },
        };
        Ok(Self {
            coordinator: None,
            home,
            etcd: args.etcd.clone(),
            mark,
            ttl: args.ttl,
            books,
            log,
        })
    }

    /// Starts the coordinator, and opens the bank.
    pub(crate) async fn open(&mut self, guarded: &ResourceName) -> Result<(), Failure> {
        if let Books::Postgres { server, database } = &self.books {
            scratch::create_database(server, database).await?;
        }
        let founded = bank::found(&self.books, guarded).await;
        founded.map_err(|error| Failure::other(format!("cannot make the accounts: {error}")))?;
        let addr = self.start_coordinator().await?;
        let client = Client::builder()
            .endpoint(addr)
            .operation_timeout(OPENING_LIMIT)
            .connect()?;
        // Answered from the store, so that both are there before the first worker asks.
        match client.get_lease(guarded, 0).await {
            Ok(_) => Ok(()),
            Err(ClientError::Unavailable { .. }) if !self.etcd.is_empty() => {
                let urls = self.etcd.join(",");
                Err(Failure::new(
                    Kind::Unreachable,
                    format!("the demo's coordinator cannot use etcd at {urls}; is it running?"),
                ))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn start_coordinator(&mut self) -> Result<String, Failure> {
        let log = self.log.try_clone();
        let log = log.map_err(Failure::io("open the demo's log"))?;
        let store: Vec<OsString> = if self.etcd.is_empty() {
            let file = self.home.path().join("palisade.db");
            vec!["--embedded".into(), file.into()]
        } else {
            let (urls, prefix) = (self.etcd.join(","), self.prefix());
            vec![
                "--etcd".into(),
                urls.into(),
                "--etcd-prefix".into(),
                prefix.into(),
            ]
        };
        let coordinator = OwnCoordinator::start(store, (log, "info")).await?;
        let addr = coordinator.addr().to_owned();
        self.coordinator = Some(coordinator);
        Ok(addr)
    }

    /// A worker enters.
    pub(crate) async fn actor(
        &self,
        name: &str,
        resource: &ResourceName,
        deposit: i64,
        guarded: bool,
    ) -> Result<Actor, Failure> {
        let part = Part {
            addr: self.addr().to_owned(),
            name: name.to_owned(),
            resource: resource.clone(),
            ttl: self.ttl,
            deposit,
            books: self.books.clone(),
            guarded,
        };
        Actor::enter(&part, &self.log).await
    }

    /// What an account holds, as anybody may read it.
    pub(crate) async fn balance(&self, guarded: bool) -> Result<i64, Failure> {
        let read = async { bank::open(&self.books, guarded).await?.balance().await };
        read.await
            .map_err(|error| Failure::other(format!("cannot read the account: {error}")))
    }

    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    pub(crate) fn addr(&self) -> &str {
        self.coordinator.as_ref().map_or("", OwnCoordinator::addr)
    }

    /// Where the coordinator keeps its state, for people.
    pub(crate) fn store(&self) -> &'static str {
        if self.etcd.is_empty() {
            "a file of its own"
        } else {
            "etcd"
        }
    }

    /// Which database the account is in, for people.
    pub(crate) fn database(&self) -> String {
        match &self.books {
            Books::Sqlite { .. } => "an SQLite file".to_owned(),
            Books::Postgres { database, .. } => format!("PostgreSQL, in the database {database}"),
        }
    }

    /// The last lines that its processes have logged.
    pub(crate) fn log_lines(&self) -> Vec<String> {
        let log = fs::read(log_file(&self.home)).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        lines.into_iter().skip(from).map(str::to_owned).collect()
    }

    fn prefix(&self) -> String {
        format!("palisade-demo-{}/", self.mark)
    }

    /// Ends everything and clears away what the demo has put into databases: all that can be, and then
    /// says what could not.
    pub(crate) async fn strike(mut self) -> Result<(), Failure> {
        let ended = match self.coordinator.take() {
            Some(coordinator) => coordinator.end().await,
            None => Ok(()),
        };
        let cleared = if self.etcd.is_empty() {
            Ok(())
        } else {
            scratch::delete_prefix(&self.etcd, &self.prefix()).await
        };
        let dropped = match &self.books {
            Books::Sqlite { .. } => Ok(()),
            Books::Postgres { server, database } => scratch::drop_database(server, database).await,
        };
        let deleted = self
            .home
            .close()
            .map_err(Failure::io("delete the demo's directory"));
        ended.and(cleared).and(dropped).and(deleted)
    }
}

fn log_file(home: &TempDir) -> PathBuf {
    home.path().join("log")
}
