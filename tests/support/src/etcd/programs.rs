use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::home::workspace;
use crate::{Error, program};

/// Which etcd to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EtcdVersion {
    /// 3.4: Debian 12's, without the later fixes of leases and reads, and without revision bumps.
    V3_4,
    /// 3.5: what tests use unless they say otherwise.
    #[default]
    V3_5,
}

impl EtcdVersion {
    fn minor(self) -> &'static str {
        match self {
            Self::V3_4 => "3.4",
            Self::V3_5 => "3.5",
        }
    }
}

/// etcd and its tools, of one version.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    etcd: PathBuf,
}

impl Programs {
    /// From the environment, else the checkout's cache, else PATH.
    pub(super) async fn find(version: EtcdVersion) -> Result<Self, Error> {
        let minor = version.minor();
        let variable = format!("PALISADE_TEST_ETCD_{}", minor.replace('.', "_"));
        let named = env::var_os(&variable).map(PathBuf::from);
        let cached = Some(workspace().join("target/etcd").join(minor).join("etcd"));
        for etcd in [named, cached, program::on_path("etcd")]
            .into_iter()
            .flatten()
        {
            if is_minor(&etcd, minor).await {
                return Ok(Self { etcd });
            }
        }
        Err(Error::Missing {
            program: format!("etcd {minor}"),
            advice: format!(
                "run tests/run, which fetches it, or set {variable} to an etcd {minor} with etcdctl \
                 beside it"
            ),
        })
    }

    /// The server, free of the caller's etcd settings.
    pub(super) fn etcd(&self) -> Command {
        let mut command = without_settings(&self.etcd);
        if cfg!(target_arch = "aarch64") {
            // 3.4 asks for this wherever it is not amd64.
            command.env("ETCD_UNSUPPORTED_ARCH", "arm64");
        }
        command
    }

    pub(super) fn etcdctl(&self) -> Command {
        let mut command = without_settings(&self.etcd.with_file_name("etcdctl"));
        command.env("ETCDCTL_API", "3");
        command
    }

    /// The tool for data files; before 3.5 that is etcdctl.
    pub(super) fn etcdutl(&self) -> Command {
        let etcdutl = self.etcd.with_file_name("etcdutl");
        if etcdutl.is_file() {
            without_settings(&etcdutl)
        } else {
            self.etcdctl()
        }
    }
}

fn without_settings(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"ETCD"))
    {
        command.env_remove(name);
    }
    command
}

async fn is_minor(etcd: &Path, minor: &str) -> bool {
    let mut version = without_settings(etcd);
    version.arg("--version");
    let said = program::run(version).await.unwrap_or_default();
    said.lines()
        .any(|line| line.starts_with(&format!("etcd Version: {minor}.")))
}
