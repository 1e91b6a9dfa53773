use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::EtcdTls;
use super::programs::Programs;
use crate::home::Home;
use crate::{Error, Port, Process, Proxy, clock, http, program};

/// A start replays its log and elects a leader; three at once on two busy cores have their time.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A stopping leader first hands its office over.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Local servers answer health and metrics within milliseconds; a frozen one never does.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// What all members of a cluster share.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) programs: Programs,
    pub(super) args: Vec<String>,
    /// Part of every member's id, and of the cluster's.
    pub(super) token: String,
    pub(super) tls: Option<EtcdTls>,
    /// Whether members reach each other through proxies.
    pub(super) peer_links: bool,
}

impl Plan {
    /// The tool, without endpoints.
    pub(super) fn etcdctl(&self) -> Command {
        let mut etcdctl = self.programs.etcdctl();
        if let Some(EtcdTls { ca, client, .. }) = &self.tls {
            etcdctl.arg("--cacert").arg(ca);
            etcdctl.arg("--cert").arg(&client.0);
            etcdctl.arg("--key").arg(&client.1);
        }
        etcdctl
    }
}

/// One etcd server with its own data and ports.
#[derive(Debug)]
pub(super) struct Member {
    process: Option<Process>,
    name: String,
    data: PathBuf,
    client: Port,
    peer: Port,
    /// What the other members reach it through.
    link: Option<Proxy>,
    learner: bool,
    /// Where it is healthy in the clear, if it serves clients over TLS.
    probe: Option<Port>,
    home: Home,
}

impl Member {
    pub(super) fn new(name: String, data: Option<PathBuf>, has_tls: bool) -> Result<Self, Error> {
        let home = Home::new(&format!("etcd-{name}"))?;
        let data = data.unwrap_or_else(|| home.path().join("data"));
        Ok(Self {
            process: None,
            name,
            data,
            client: Port::reserve()?,
            peer: Port::reserve()?,
            link: None,
            learner: false,
            probe: has_tls.then(Port::reserve).transpose()?,
            home,
        })
    }

    pub(super) fn host_port(&self) -> String {
        format!("127.0.0.1:{}", self.client.number())
    }

    pub(super) fn url(&self) -> String {
        let scheme = match self.probe {
            Some(_) => "https",
            None => "http",
        };
        format!("{scheme}://{}", self.host_port())
    }

    /// Where it answers about itself in the clear.
    fn probe_address(&self) -> String {
        let port = self.probe.as_ref().unwrap_or(&self.client);
        format!("127.0.0.1:{}", port.number())
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    pub(super) fn is_learner(&self) -> bool {
        self.learner
    }

    pub(super) fn set_learner(&mut self, learner: bool) {
        self.learner = learner;
    }

    /// Puts a proxy before its port for other members. Only when it was told to nobody yet.
    pub(super) async fn link_peers(&mut self) -> Result<(), Error> {
        let target = format!("127.0.0.1:{}", self.peer.number());
        self.link = Some(Proxy::start_with(&target, true).await?);
        Ok(())
    }

    /// What the other members reach it through.
    pub(super) fn link(&self) -> Result<&Proxy, Error> {
        let name = &self.name;
        self.link.as_ref().ok_or_else(|| {
            Error::Unexpected(format!("{name} has no link: start it with peer_links"))
        })
    }

    fn listening_peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer.number())
    }

    /// Where the other members reach it.
    pub(super) fn peer_url(&self) -> String {
        let listening = || self.listening_peer_url();
        self.link.as_ref().map_or_else(listening, Proxy::url)
    }

    /// Its entry in `--initial-cluster`.
    pub(super) fn peer_entry(&self) -> String {
        format!("{}={}", self.name, self.peer_url())
    }

    /// The server process, if it was started.
    pub(super) fn process(&mut self) -> Result<&mut Process, Error> {
        let name = &self.name;
        self.process
            .as_mut()
            .ok_or_else(|| Error::Unexpected(format!("{name} was never started")))
    }

    /// Starts the process, without waiting for it to serve. One that still runs is killed first.
    pub(super) fn launch(
        &mut self,
        plan: &Plan,
        cluster: &str,
        extra: &[&str],
    ) -> Result<(), Error> {
        if let Some(process) = &mut self.process {
            process.kill()?;
        }
        let mut etcd = plan.programs.etcd();
        self.identify(&mut etcd, plan, cluster);
        etcd.args([
            "--listen-client-urls",
            &self.url(),
            "--advertise-client-urls",
            &self.url(),
        ])
        .args([
            "--listen-peer-urls",
            &self.listening_peer_url(),
            "--logger",
            "zap",
        ])
        .args(&plan.args)
        .args(self.tls_args(plan))
        .args(extra)
        .current_dir(self.home.path());
        self.process = Some(Process::spawn(&self.name, &etcd, &self.log())?);
        Ok(())
    }

    fn tls_args(&self, plan: &Plan) -> Vec<OsString> {
        let (Some(tls), Some(probe)) = (&plan.tls, &self.probe) else {
            return Vec::new();
        };
        let probe = format!("http://127.0.0.1:{}", probe.number());
        vec![
            "--cert-file".into(),
            tls.server.0.clone().into(),
            "--key-file".into(),
            tls.server.1.clone().into(),
            "--client-cert-auth".into(),
            "--trusted-ca-file".into(),
            tls.ca.clone().into(),
            "--listen-metrics-urls".into(),
            probe.into(),
            // It would be a client with the server's certificate.
            "--enable-grpc-gateway=false".into(),
        ]
    }

    /// Waits until it serves linearizable reads, which needs a leader and a quorum.
    pub(super) async fn ready(&mut self) -> Result<(), Error> {
        let address = self.probe_address();
        let process = self.process()?;
        let wait = process.starting(START_LIMIT);
        while !is_healthy(&address).await {
            process.check_running()?;
            wait.tick().await?;
        }
        process.check_running()
    }

    /// New ports, as long as nobody was told the old ones.
    pub(super) fn move_away(&mut self) -> Result<(), Error> {
        self.client = Port::reserve()?;
        self.peer = Port::reserve()?;
        self.probe = self.probe.is_some().then(Port::reserve).transpose()?;
        self.wipe()
    }

    pub(super) fn kill(&mut self) -> Result<(), Error> {
        self.process.as_mut().map_or(Ok(()), Process::kill)
    }

    pub(super) async fn stop(&mut self) -> Result<(), Error> {
        if let Some(process) = &mut self.process {
            process.stop_gracefully(STOP_LIMIT).await?;
        }
        Ok(())
    }

    /// Removes its data. Only when it does not run.
    pub(super) fn wipe(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.data) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove the data of an etcd")(error))
            }
            _ => Ok(()),
        }
    }

    /// Replaces its data by a snapshot's. Only when it does not run.
    pub(super) async fn restore(
        &self,
        plan: &Plan,
        cluster: &str,
        snapshot: &Path,
        extra: &[String],
    ) -> Result<(), Error> {
        self.wipe()?;
        let mut etcdutl = plan.programs.etcdutl();
        etcdutl
            .args(["snapshot", "restore"])
            .arg(snapshot)
            .args(extra);
        self.identify_restored(&mut etcdutl, plan, cluster);
        program::run(etcdutl).await.map(drop)
    }

    /// Whether it says that it leads, or nothing if it does not answer.
    pub(super) async fn says_it_leads(&self) -> Option<bool> {
        let (_, metrics) = ask(&self.probe_address(), "/metrics").await?;
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix("etcd_server_is_leader "))?;
        Some(value.trim() == "1")
    }

    fn identify(&self, etcd: &mut Command, plan: &Plan, cluster: &str) {
        self.identify_restored(etcd, plan, cluster);
        etcd.args(["--initial-cluster-state", "new"]);
    }

    fn identify_restored(&self, command: &mut Command, plan: &Plan, cluster: &str) {
        command
            .args(["--name", &self.name, "--initial-cluster", cluster])
            .args(["--initial-cluster-token", &plan.token])
            .args(["--initial-advertise-peer-urls", &self.peer_url()])
            .arg("--data-dir")
            .arg(&self.data);
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("etcd.log")
    }
}

async fn is_healthy(address: &str) -> bool {
    // `/health` is a linearizable read; its body is {"health":"true"}, with a reason since 3.5. A full
    // database is no reason not to have started: it serves reads.
    ask(address, "/health?exclude=NOSPACE")
        .await
        .is_some_and(|(status, body)| status == 200 && body.contains(r#""health":"true""#))
}

async fn ask(address: &str, path: &str) -> Option<(u16, String)> {
    clock::within("an answer of etcd", ANSWER_LIMIT, http::get(address, path))
        .await
        .ok()?
        .ok()
}
