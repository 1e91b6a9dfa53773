//! Real etcd servers: one node, or a cluster.

mod changes;
mod cluster;
mod member;
mod programs;

use std::path::{Path, PathBuf};

pub use cluster::EtcdCluster;
pub use programs::EtcdVersion;

use crate::Error;

/// A single etcd of its own. See [`EtcdCluster`] for more than one.
///
/// # Example
///
/// ```no_run
/// # async fn test() -> Result<(), palisade_test_support::Error> {
/// use palisade_test_support::{Etcd, EtcdVersion};
/// let mut etcd = Etcd::builder().version(EtcdVersion::V3_4).start().await?;
/// let snapshot = etcd.snapshot_save("before").await?;
/// etcd.etcdctl(&["put", "key", "value"]).await?;
/// etcd.restore_from(&snapshot).await?;
/// assert_eq!(etcd.etcdctl(&["get", "key"]).await?, "");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Etcd {
    cluster: EtcdCluster,
}

/// The settings of an [`Etcd`] or an [`EtcdCluster`] to start.
#[derive(Debug, Clone, Default)]
pub struct EtcdBuilder {
    version: EtcdVersion,
    args: Vec<String>,
    data_dir: Option<PathBuf>,
    tls: Option<EtcdTls>,
    peer_links: bool,
}

/// PEM files for an etcd that serves its clients over TLS, and only those with a certificate.
#[derive(Debug, Clone)]
pub struct EtcdTls {
    /// The authority of both sides' certificates.
    pub ca: PathBuf,
    /// The certificate of the server, for 127.0.0.1, and its private key.
    pub server: (PathBuf, PathBuf),
    /// The certificate that `etcdctl` shows, and its private key.
    pub client: (PathBuf, PathBuf),
}

impl EtcdBuilder {
    /// Which etcd; 3.5 unless set.
    #[must_use]
    pub fn version(mut self, version: EtcdVersion) -> Self {
        self.version = version;
        self
    }

    /// The size of the database, in bytes, from which on writes are refused (NOSPACE).
    #[must_use]
    pub fn quota_bytes(self, bytes: u64) -> Self {
        self.arg("--quota-backend-bytes").arg(bytes.to_string())
    }

    /// Serves clients over TLS, and only those with a certificate of the authority.
    #[must_use]
    pub fn tls(mut self, tls: EtcdTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Lets members reach each other through proxies, so that [`EtcdCluster::part`] works.
    #[must_use]
    pub fn peer_links(mut self) -> Self {
        self.peer_links = true;
        self
    }

    /// Another argument of the server.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Where to keep the data, in place of the server's own directory (a small file system, say). It need
    /// not exist, and is not removed. With several members each gets a subdirectory.
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// Starts one server; returns when it serves linearizable reads.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] without an etcd of that version, [`Error::Exited`] or [`Error::TimedOut`] when
    /// it does not come up.
    pub async fn start(self) -> Result<Etcd, Error> {
        Ok(Etcd {
            cluster: self.start_cluster(1).await?,
        })
    }

    /// Starts `size` servers that form one cluster; returns when all serve linearizable reads.
    ///
    /// # Errors
    ///
    /// As [`EtcdBuilder::start`].
    pub async fn start_cluster(self, size: usize) -> Result<EtcdCluster, Error> {
        EtcdCluster::start_with(self, size).await
    }
}

impl Etcd {
    /// Starts etcd 3.5 with default settings.
    ///
    /// # Errors
    ///
    /// As [`EtcdBuilder::start`].
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// An etcd with settings of its own.
    #[must_use]
    pub fn builder() -> EtcdBuilder {
        EtcdBuilder::default()
    }

    /// The client URL, the same over restarts.
    #[must_use]
    pub fn url(&self) -> String {
        self.cluster.url(0)
    }

    /// [`Etcd::url`] as a list of one.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.cluster.endpoints()
    }

    /// The client address, to put a proxy before.
    #[must_use]
    pub fn host_port(&self) -> String {
        self.cluster.host_port(0)
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    ///
    /// As [`Process::kill`](crate::Process::kill).
    pub fn kill(&mut self) -> Result<(), Error> {
        self.cluster.kill(0)
    }

    /// Stops it by SIGTERM.
    ///
    /// # Errors
    ///
    /// As [`Process::kill`](crate::Process::kill).
    pub async fn stop(&mut self) -> Result<(), Error> {
        self.cluster.stop(0).await
    }

    /// Starts it again on the same data and ports; returns when it serves. One that still runs is killed.
    ///
    /// # Errors
    ///
    /// [`Error::Exited`] or [`Error::TimedOut`] when it does not come up.
    pub async fn start_again(&mut self) -> Result<(), Error> {
        self.cluster.start_again(0).await
    }

    /// Freezes it with SIGSTOP.
    ///
    /// # Errors
    ///
    /// As [`Process::pause`](crate::Process::pause).
    pub fn pause(&mut self) -> Result<(), Error> {
        self.cluster.pause(0)
    }

    /// Lets it run on.
    ///
    /// # Errors
    ///
    /// As [`Process::pause`](crate::Process::pause).
    pub fn resume(&mut self) -> Result<(), Error> {
        self.cluster.resume(0)
    }

    /// Saves a snapshot to a file in the server's directory, and returns its path.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when the server is away, or the name is taken.
    pub async fn snapshot_save(&self, name: &str) -> Result<PathBuf, Error> {
        self.cluster.snapshot_save(name).await
    }

    /// Kills it, replaces its data by the snapshot's under the same name, URLs and token (so the same
    /// cluster id), and starts it again: revisions go back, released leases revive.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when the file is no snapshot, else as [`Etcd::start_again`].
    pub async fn restore_from(&mut self, snapshot: &Path) -> Result<(), Error> {
        self.cluster.restore_from(snapshot).await
    }

    /// [`Etcd::restore_from`] with revisions raised by `bump` (`--bump-revision`).
    ///
    /// # Errors
    ///
    /// [`Error::Command`] also where this etcd cannot (before 3.4.27 and 3.5.10).
    pub async fn restore_bumped(&mut self, snapshot: &Path, bump: u64) -> Result<(), Error> {
        self.cluster.restore_bumped(snapshot, bump).await
    }

    /// Kills it and starts it again with no data, under the same name, URLs and token.
    ///
    /// # Errors
    ///
    /// As [`Etcd::start_again`].
    pub async fn wipe(&mut self) -> Result<(), Error> {
        self.cluster.wipe().await
    }

    /// Kills it and starts it again on its data with `--force-new-cluster`, the way out of a lost quorum.
    ///
    /// # Errors
    ///
    /// As [`Etcd::start_again`].
    pub async fn force_new_cluster(&mut self) -> Result<(), Error> {
        self.cluster.force_new_cluster(0).await
    }

    /// Runs `etcdctl` against it and returns what it prints.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] with its message.
    pub async fn etcdctl(&self, args: &[&str]) -> Result<String, Error> {
        self.cluster.etcdctl(args).await
    }

    /// The store's revision, by a linearizable read.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when it does not serve.
    pub async fn revision(&self) -> Result<i64, Error> {
        self.cluster.revision().await
    }
}
