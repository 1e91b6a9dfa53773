use palisade_coordinator::config::SettingsError;
use palisade_coordinator::serve::ServeError;

use super::{Failure, Kind, with_cause};

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        match &error {
            ServeError::Settings(error) => Self::from(error.clone()),
            ServeError::Credentials(cause) => Self::new(Kind::Config, with_cause(cause)),
            ServeError::Store(cause) => Self::other(with_cause(cause)),
            ServeError::AddressInUse { address, setting } => Self::other(format!(
                "{address} is in use by another process; choose another with --{setting}"
            )),
            other => Self::other(with_cause(other)),
        }
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::new(Kind::Usage, setting(&error))
    }
}

fn setting(error: &SettingsError) -> String {
    let name = match error.setting {
        "store.etcd" => "--etcd",
        "store.etcd_prefix" => "--etcd-prefix",
        "store.etcd_cert_file" => "--etcd-cert-file",
        "store.etcd_user" => "--etcd-user",
        "listen" => "--listen",
        "http" => "--http",
        other => other,
    };
    format!("{name} is {}; it must be {}", error.given, error.bound)
}
