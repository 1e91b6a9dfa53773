use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// A setting that is on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

/// How etcd is talked to.
#[derive(Debug, Args)]
pub(crate) struct EtcdAccessArgs {
    #[command(flatten)]
    pub(crate) credentials: EtcdCredentialsArgs,
    /// Whether the operations of many clients travel to etcd as one transaction
    #[arg(long, value_name = "on|off", value_enum)]
    pub(crate) batching: Option<Switch>,
    /// Refuse an etcd that loses sessions or history: before 3.4.32 and 3.5.14
    #[arg(long)]
    pub(crate) strict_etcd: bool,
}

/// Whom etcd is trusted to be, and as whom it is met.
#[derive(Debug, Args)]
pub(crate) struct EtcdCredentialsArgs {
    /// Trust https endpoints of etcd by these authorities (PEM), in place of this machine's own
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_ca_file: Option<PathBuf>,
    /// Show this certificate (PEM) to etcd
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_cert_file: Option<PathBuf>,
    /// The private key (PEM) of that certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_key_file: Option<PathBuf>,
    /// Be this user of etcd's
    #[arg(long, value_name = "NAME")]
    pub(crate) etcd_user: Option<String>,
    /// The file with that user's password
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_password_file: Option<PathBuf>,
}
