//! How a coordinator is told its settings on the command line, over those of the environment and of a file.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::etcd_access::EtcdAccessArgs;
use super::etcd_url::EtcdUrl;

/// What takes the place of what the environment and the file say.
#[derive(Debug, Args)]
pub(crate) struct SettingsArgs {
    /// Take settings from this TOML file; what is said here or in the environment comes before it
    #[arg(long, value_name = "FILE", env = "PALISADE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) words: Words,
}

/// Settings by flags of their own, and all others by their key.
#[derive(Debug, Args)]
pub(crate) struct Words {
    /// Keep the state in this etcd cluster
    #[arg(long, value_name = "URL[,URL...]", value_delimiter = ',', value_parser = EtcdUrl::Any)]
    pub(crate) etcd: Vec<String>,
    /// What the coordinator's keys in etcd begin with [default: /palisade/v1]
    #[arg(long, value_name = "TEXT")]
    pub(crate) etcd_prefix: Option<String>,
    #[command(flatten)]
    pub(crate) etcd_access: EtcdAccessArgs,
    /// Keep the state in this file; it is made if it is not there
    #[arg(long, value_name = "FILE", conflicts_with = "etcd")]
    pub(crate) embedded: Option<PathBuf>,
    /// Serve gRPC here; port 0 takes a free one [default: 127.0.0.1:7650]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Serve health (/livez, /readyz) and metrics over HTTP here; port 0 takes a free one
    /// [default: 127.0.0.1:7651]
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
    /// Serve over TLS with this certificate (PEM, with those between it and its authority)
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert_file: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key_file: Option<PathBuf>,
    /// Take only clients with a certificate of one of these authorities (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_client_ca_file: Option<PathBuf>,
    /// Take clients that show one of the bearer tokens whose hashes are in this TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) auth_token_file: Option<PathBuf>,
    /// Any setting by its key, such as `limits.max_ttl=2m`; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_word)]
    pub(crate) set: Vec<(String, String)>,
}

fn parse_word(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, such as limits.max_ttl=2m".to_owned()),
    }
}

/// Look at a coordinator's settings without running one.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[allow(
    clippy::large_enum_variant,
    reason = "there is one of them in a process"
)]
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    Check(CheckArgs),
    Dump(DumpArgs),
}

/// Say whether `serve` could use a file, and what is wrong with it.
///
/// The environment comes before the file. This also reads the certificates, keys and tokens that it names. No
/// address is taken and no store opened. The exit code is 78 if anything is wrong.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade config check /etc/palisade/palisade.toml
  PALISADE_LIMITS__MAX_TTL=2m palisade config check")]
pub(crate) struct CheckArgs {
    /// The file; without one the environment alone
    #[arg(value_name = "FILE", env = "PALISADE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

/// Print the settings that `serve` would run with.
///
/// Takes the same flags, environment and file as `serve`: a flag comes before a variable of the environment, that
/// before the file, and that before the default. Behind each is
/// where it was said. What is printed can be used as a file. Nothing secret is in it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade config dump
  palisade config dump | grep -v '# default'
  palisade config dump --config /etc/palisade/palisade.toml --set limits.max_ttl=2m")]
pub(crate) struct DumpArgs {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// How they are printed
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: DumpFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum DumpFormat {
    /// A file, with the origin of each setting as a comment
    #[default]
    Toml,
    /// A list of settings with key, value, origin and place
    Json,
}
