//! What is measured: a coordinator of the bench's own, and etcd. All of it is put back as it was found.

use std::fs::{self, File};
use std::time::Duration;

use palisade_api::v1::GetLeaseRequest;
use palisade_api::v1::lease_service_client::LeaseServiceClient;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use super::failure::{etcd_failed, refused, unreachable};
use super::processes::{Watched, local_etcd};
use crate::args::Target;
use crate::child::{OPENING_LIMIT, OwnCoordinator};
use crate::clock;
use crate::demo::delete_prefix;
use crate::failure::Failure;
use crate::output;

/// How a coordinator is called.
pub(crate) type Caller = LeaseServiceClient<Channel>;

/// What an etcd that is well does at once.
const ETCD_LIMIT: Duration = Duration::from_secs(5);
/// So that benches side by side, or one that was killed, do not meet.
const MARK_BYTES: usize = 6;
/// What the coordinator logs: etcd's lock service keeps no audit trail either.
const LOG_FILTER: &str = "info,palisade::audit=off";
/// Lines of the coordinator's log that are shown when the bench fails.
const LOG_LINES: usize = 10;

/// Dropped, it kills its coordinator; [`Rig::strike`] also clears etcd.
#[derive(Debug)]
pub(crate) struct Rig {
    home: TempDir,
    coordinator: Option<OwnCoordinator>,
    etcd: Vec<String>,
    prefix: String,
    etcd_version: String,
    watched: Watched,
}

impl Rig {
    /// Nothing runs yet.
    pub(crate) fn build(target: &Target) -> Result<Self, Failure> {
        let home = tempfile::Builder::new()
            .prefix("palisade-bench-")
            .tempdir()
            .map_err(Failure::io("make a directory for the bench"))?;
        let mut mark = [0; MARK_BYTES];
        getrandom::fill(&mut mark)
            .map_err(|error| Failure::other(format!("no random numbers: {error}")))?;
        let etcd = if target.etcd_pid.is_empty() {
            local_etcd(&target.etcd)
        } else {
            target.etcd_pid.clone()
        };
        Ok(Self {
            home,
            coordinator: None,
            etcd: target.etcd.clone(),
            prefix: format!("palisade-bench-{}/", hex::encode(mark)),
            etcd_version: String::new(),
            watched: Watched {
                coordinator: None,
                etcd,
            },
        })
    }

    /// Looks at etcd, and starts the coordinator.
    pub(crate) async fn open(&mut self, more: &[String]) -> Result<(), Failure> {
        let mut etcd = self.etcd().await?;
        let status = etcd.status().await.map_err(|error| etcd_failed(&error))?;
        status.version().clone_into(&mut self.etcd_version);
        self.start_coordinator(more).await?;
        let mut caller = self.caller().await?;
        let mut last = None;
        let ready = clock::poll(OPENING_LIMIT, async || {
            let asked = caller.get_lease(GetLeaseRequest {
                resource: "bench".to_owned(),
                queue_size: 0,
            });
            asked.await.map_err(|status| last = Some(status)).ok()
        });
        let ready = ready.await.is_some();
        match last {
            _ if ready => Ok(()),
            Some(status) => Err(refused("the coordinator is not ready", &status)),
            None => Err(unreachable("the coordinator does not answer")),
        }
    }

    /// A connection to etcd, which is seen to serve.
    pub(crate) async fn etcd(&self) -> Result<etcd_client::Client, Failure> {
        let urls = self.etcd.join(",");
        let work = async {
            let options = etcd_client::ConnectOptions::new().with_connect_timeout(ETCD_LIMIT);
            let mut client = etcd_client::Client::connect(&self.etcd, Some(options)).await?;
            client.status().await?;
            Ok::<_, etcd_client::Error>(client)
        };
        match clock::within(ETCD_LIMIT, work).await {
            Some(Ok(client)) => Ok(client),
            Some(Err(error)) => {
                tracing::debug!(%error, "etcd cannot be used");
                Err(unreachable(format!(
                    "etcd at {urls} cannot be used; is it running?"
                )))
            }
            None => Err(unreachable(format!("etcd at {urls} does not answer"))),
        }
    }

    async fn start_coordinator(&mut self, more: &[String]) -> Result<(), Failure> {
        let log = File::create(self.home.path().join("log"));
        let log = log.map_err(Failure::io("make the coordinator's log"))?;
        let (urls, prefix) = (self.etcd.join(","), format!("{}coordinator/", self.prefix));
        let store = ["--etcd", &urls, "--etcd-prefix", &prefix];
        let arguments = store.into_iter().chain(more.iter().map(String::as_str));
        let coordinator = OwnCoordinator::start(arguments, (log, LOG_FILTER)).await?;
        self.watched.coordinator = coordinator.id();
        self.coordinator = Some(coordinator);
        Ok(())
    }

    /// A connection to the coordinator.
    pub(crate) async fn caller(&self) -> Result<Caller, Failure> {
        let addr = self.coordinator.as_ref().map_or("", OwnCoordinator::addr);
        let endpoint = Endpoint::from_shared(addr.to_owned())
            .map_err(|_| Failure::other("the coordinator told no address"))?;
        let connected = endpoint.connect_timeout(OPENING_LIMIT).connect().await;
        let channel = connected.map_err(|error| {
            unreachable(format!(
                "the coordinator at {addr} cannot be reached: {error}"
            ))
        })?;
        Ok(LeaseServiceClient::new(channel))
    }

    /// What etcd's own locks begin with: beside the coordinator's keys, so that it does not watch them.
    pub(crate) fn lock_prefix(&self) -> String {
        format!("{}lock/", self.prefix)
    }

    pub(crate) fn etcd_version(&self) -> &str {
        &self.etcd_version
    }

    pub(crate) fn etcd_urls(&self) -> String {
        self.etcd.join(",")
    }

    pub(crate) fn watched(&self) -> &Watched {
        &self.watched
    }

    /// Shows the last lines that the coordinator has logged.
    pub(crate) fn tell_log(&self) {
        let log = fs::read(self.home.path().join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        for line in lines.into_iter().skip(from) {
            output::note(format_args!("coordinator: {line}"));
        }
    }

    /// Ends the coordinator and deletes what it kept: all that can be, and then says what could not.
    pub(crate) async fn strike(mut self) -> Result<(), Failure> {
        let ended = match self.coordinator.take() {
            Some(coordinator) => coordinator.end().await,
            None => Ok(()),
        };
        // An etcd that was not reached at the start has nothing of ours.
        let cleared = if self.etcd_version.is_empty() {
            Ok(())
        } else {
            delete_prefix(&self.etcd, &self.prefix).await
        };
        let deleted = self
            .home
            .close()
            .map_err(Failure::io("delete the bench's directory"));
        ended.and(cleared).and(deleted)
    }
}
