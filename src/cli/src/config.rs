//! A coordinator's settings: flags over the environment over a file over the defaults.

use std::path::{Path, PathBuf};
use std::{env, fs};

use palisade_coordinator::config::{Document, DocumentError, Settings, StoreChoice};
use palisade_coordinator::serve::check_files;

use crate::args::{CheckArgs, ConfigCommand, DumpArgs, SettingsArgs, Switch, Words};
use crate::failure::{Failure, Kind, with_cause};
use crate::output;

/// The file of the state where nothing else is said.
pub(crate) const FILE_NAME: &str = "palisade.db";

/// `palisade config`.
pub(crate) async fn run(command: ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check(args) => check(&args).await,
        ConfigCommand::Dump(args) => dump(&args),
    }
}

async fn check(args: &CheckArgs) -> Result<(), Failure> {
    let settings = settings(beneath(args.config.as_deref())?)?;
    settings.validate().map_err(|error| wrong(&error))?;
    check_files(&settings)
        .await
        .map_err(|error| wrong(&with_cause(&error)))?;
    match &args.config {
        Some(path) => output::note(format_args!("{} can be used", path.display())),
        None => output::note("the environment and the defaults can be used"),
    }
    Ok(())
}

fn dump(args: &DumpArgs) -> Result<(), Failure> {
    let settings = of(&args.settings)?;
    let text = Document::of(&settings).to_toml();
    output::data(text.map_err(|error| wrong(&error))?.trim_end())
}

/// The settings that `serve` runs with.
pub(crate) fn of(args: &SettingsArgs) -> Result<Settings, Failure> {
    let beneath = beneath(args.config.as_deref())?;
    let is_told = beneath != Document::default();
    let settings = settings(words(&args.words)?.over(beneath))?;
    settings.validate().map_err(|error| {
        // Where only flags say anything, it is they that are wrong.
        let kind = if is_told { Kind::Config } else { Kind::Usage };
        Failure::new(kind, Failure::from(error).to_string())
    })?;
    Ok(settings)
}

/// The environment over the file.
fn beneath(config: Option<&Path>) -> Result<Document, Failure> {
    let variables = env::vars_os().filter_map(|(name, value)| {
        // What is no text is no setting of ours.
        Some((name.into_string().ok()?, value.into_string().ok()?))
    });
    let environment = Document::from_variables(variables).map_err(|error| wrong(&error))?;
    let Some(path) = config else {
        return Ok(environment);
    };
    let said = |error: &dyn std::fmt::Display| {
        Failure::new(Kind::Config, format!("{}: {error}", path.display()))
    };
    let text = fs::read_to_string(path).map_err(|error| said(&error))?;
    let file = Document::parse(&text).map_err(|error| said(&error))?;
    Ok(environment.over(file))
}

fn words(words: &Words) -> Result<Document, Failure> {
    let text = |path: &PathBuf| {
        let text = path.to_str().map(ToOwned::to_owned);
        text.ok_or_else(|| Failure::usage(format!("{} is no text", path.display())))
    };
    let access = &words.etcd_access;
    let paths = [
        ("store.file", &words.embedded),
        ("store.etcd_ca_file", &access.etcd_ca_file),
        ("store.etcd_cert_file", &access.etcd_cert_file),
        ("store.etcd_key_file", &access.etcd_key_file),
        ("store.etcd_password_file", &access.etcd_password_file),
        ("tls.cert_file", &words.tls_cert_file),
        ("tls.key_file", &words.tls_key_file),
        ("tls.client_ca_file", &words.tls_client_ca_file),
        ("auth.token_file", &words.auth_token_file),
    ];
    let mut said: Vec<(&str, String)> = Vec::new();
    for (key, path) in paths {
        if let Some(path) = path {
            said.push((key, text(path)?));
        }
    }
    let addresses = [("listen", words.listen), ("http", words.http)];
    let addresses = addresses.map(|(key, at)| at.map(|at| (key, at.to_string())));
    said.extend(addresses.into_iter().flatten());
    if !words.etcd.is_empty() {
        said.push(("store.etcd", words.etcd.join(",")));
    }
    if let Some(prefix) = &words.etcd_prefix {
        said.push(("store.etcd_prefix", prefix.clone()));
    }
    if let Some(user) = &access.etcd_user {
        said.push(("store.etcd_user", user.clone()));
    }
    if let Some(batching) = access.batching {
        said.push(("store.etcd_batching", (batching == Switch::On).to_string()));
    }
    if access.strict_etcd {
        said.push(("store.etcd_strict", "true".to_owned()));
    }
    // A flag of its own comes before the same setting by its key; of two by key the last one counts.
    let by_key = words
        .set
        .iter()
        .map(|(key, value)| (key.as_str(), value.clone()));
    let mut all = Document::default();
    for (key, value) in by_key.chain(said) {
        let one = Document::word(key, &value).map_err(|error| {
            let DocumentError::Named { name, message } = &error else {
                return Failure::usage(error.to_string());
            };
            Failure::usage(format!("--set {name}: {message}"))
        })?;
        all = one.over(all);
    }
    Ok(all)
}

fn settings(document: Document) -> Result<Settings, Failure> {
    let unless_said = StoreChoice::Embedded {
        path: default_file(),
    };
    document
        .settings(unless_said)
        .map_err(|error| wrong(&error))
}

/// Where a service manager wants state to be, else here.
fn default_file() -> PathBuf {
    // systemd lists several directories with colons between them; the first is ours.
    let directory = env::var_os("STATE_DIRECTORY").unwrap_or_default();
    env::split_paths(&directory)
        .next()
        .unwrap_or_default()
        .join(FILE_NAME)
}

fn wrong(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Kind::Config, error.to_string())
}
