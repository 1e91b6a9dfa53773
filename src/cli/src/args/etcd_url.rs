use std::ffi::OsStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};

/// Reads the URL of an etcd. One that is refused is not shown: it may carry a password, and what a service
/// writes to stderr is kept.
#[derive(Debug, Clone, Copy)]
pub(super) enum EtcdUrl {
    /// Of `http` or `https`.
    Any,
    /// Of `http` alone.
    Clear,
}

impl TypedValueParser for EtcdUrl {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        _: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, Error> {
        let text = value.to_str().unwrap_or_default();
        match refusal(text, *self) {
            None => Ok(text.to_owned()),
            Some(why) => {
                let message = format!("a value of --etcd cannot be used: {why}");
                Err(command.clone().error(ErrorKind::ValueValidation, message))
            }
        }
    }
}

fn refusal(text: &str, which: EtcdUrl) -> Option<&'static str> {
    const FORM: &str = "write http://HOST:PORT or https://HOST:PORT";
    const CLEAR: &str = "this command does not speak TLS with etcd; write http://HOST:PORT";
    if matches!(which, EtcdUrl::Clear) && text.starts_with("https://") {
        return Some(CLEAR);
    }
    let Ok(uri) = text.parse::<http::Uri>() else {
        return Some(FORM);
    };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    match (uri.scheme_str(), uri.port_u16()) {
        (Some("http" | "https"), _) if authority.contains('@') => {
            Some("a user goes with --etcd-user and --etcd-password-file")
        }
        (Some("http" | "https"), Some(_)) => None,
        (Some("http" | "https"), None) => Some("the port is missing; write http://HOST:PORT"),
        _ => Some(FORM),
    }
}
