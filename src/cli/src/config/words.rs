//! What flags say.

use std::path::Path;

use palisade_coordinator::config::{Document, DocumentError};

use super::origins::Origins;
use crate::args::{Switch, Words};
use crate::failure::Failure;

/// The settings that are said by flags.
pub(super) fn of(words: &Words, origins: &mut Origins) -> Result<Document, Failure> {
    // A flag of its own comes before the same setting by its key; of two by key the last one counts.
    let mut all = Document::default();
    for (key, value) in &words.set {
        all = word(key, value)?.over(all);
        origins.flag(key, &format!("--set {key}"));
    }
    for (key, flag, value) in own(words)? {
        all = word(key, &value)?.over(all);
        origins.flag(key, flag);
    }
    Ok(all)
}

/// A setting by its key, the flag that it has of its own, and what was said there.
type OwnFlag = (&'static str, &'static str, String);

fn own(words: &Words) -> Result<Vec<OwnFlag>, Failure> {
    let access = &words.etcd_access;
    let known = &access.credentials;
    let paths = [
        ("store.file", "--embedded", &words.embedded),
        ("store.etcd_ca_file", "--etcd-ca-file", &known.etcd_ca_file),
        (
            "store.etcd_cert_file",
            "--etcd-cert-file",
            &known.etcd_cert_file,
        ),
        (
            "store.etcd_key_file",
            "--etcd-key-file",
            &known.etcd_key_file,
        ),
        (
            "store.etcd_password_file",
            "--etcd-password-file",
            &known.etcd_password_file,
        ),
        ("tls.cert_file", "--tls-cert-file", &words.tls_cert_file),
        ("tls.key_file", "--tls-key-file", &words.tls_key_file),
        (
            "tls.client_ca_file",
            "--tls-client-ca-file",
            &words.tls_client_ca_file,
        ),
        (
            "auth.token_file",
            "--auth-token-file",
            &words.auth_token_file,
        ),
    ];
    let mut said = Vec::new();
    for (key, flag, path) in paths {
        if let Some(path) = path {
            said.push((key, flag, text(path)?));
        }
    }
    for (key, flag, at) in [
        ("listen", "--listen", words.listen),
        ("http", "--http", words.http),
    ] {
        said.extend(at.map(|at| (key, flag, at.to_string())));
    }
    if !words.etcd.is_empty() {
        said.push(("store.etcd", "--etcd", words.etcd.join(",")));
    }
    if let Some(prefix) = &words.etcd_prefix {
        said.push(("store.etcd_prefix", "--etcd-prefix", prefix.clone()));
    }
    if let Some(user) = &known.etcd_user {
        said.push(("store.etcd_user", "--etcd-user", user.clone()));
    }
    if let Some(batching) = access.batching {
        let is_on = (batching == Switch::On).to_string();
        said.push(("store.etcd_batching", "--batching", is_on));
    }
    if access.strict_etcd {
        said.push(("store.etcd_strict", "--strict-etcd", "true".to_owned()));
    }
    Ok(said)
}

fn text(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().map(ToOwned::to_owned);
    text.ok_or_else(|| Failure::usage(format!("{} is no text", path.display())))
}

fn word(key: &str, value: &str) -> Result<Document, Failure> {
    Document::word(key, value).map_err(|error| {
        let DocumentError::Named { name, message } = &error else {
            return Failure::usage(error.to_string());
        };
        Failure::usage(format!("--set {name}: {message}"))
    })
}
