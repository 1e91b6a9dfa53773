//! A coordinator's settings: flags over the environment over a file over the defaults.

use std::path::{Path, PathBuf};
use std::{env, fs};

use palisade_coordinator::config::{Document, Settings, StoreChoice};
use palisade_coordinator::serve::check_files;

use crate::args::{CheckArgs, ConfigCommand, DumpArgs, DumpFormat, SettingsArgs};
use crate::failure::{Failure, Kind, with_cause};
use crate::output;
use origins::Origins;

mod origins;
mod words;

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
    let beneath = beneath(args.config.as_deref(), &mut Origins::default())?;
    let settings = settings(beneath)?;
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
    let said = Said::by(&args.settings)?;
    let settings = said.settings()?;
    let document = Document::of(&settings);
    match args.output {
        DumpFormat::Toml => {
            let text = document.to_toml().map_err(|error| wrong(&error))?;
            output::data(said.origins.annotate(&text)?)
        }
        DumpFormat::Json => output::pretty_json(&said.origins.list(&document)?),
    }
}

/// The settings that `serve` runs with.
pub(crate) fn of(args: &SettingsArgs) -> Result<Settings, Failure> {
    Said::by(args)?.settings()
}

/// All that was said, and where.
struct Said {
    document: Document,
    /// Not only by flags.
    is_told: bool,
    origins: Origins,
}

impl Said {
    fn by(args: &SettingsArgs) -> Result<Self, Failure> {
        let mut origins = Origins::default();
        let beneath = beneath(args.config.as_deref(), &mut origins)?;
        let is_told = beneath != Document::default();
        let document = words::of(&args.words, &mut origins)?.over(beneath);
        Ok(Self {
            document,
            is_told,
            origins,
        })
    }

    fn settings(&self) -> Result<Settings, Failure> {
        let settings = settings(self.document.clone())?;
        settings.validate().map_err(|error| {
            // Where only flags say anything, it is they that are wrong.
            let kind = if self.is_told {
                Kind::Config
            } else {
                Kind::Usage
            };
            Failure::new(kind, Failure::from(error).to_string())
        })?;
        Ok(settings)
    }
}

/// The environment over the file.
fn beneath(config: Option<&Path>, origins: &mut Origins) -> Result<Document, Failure> {
    let variables = env::vars_os().filter_map(|(name, value)| {
        // What is no text is no setting of ours.
        Some((name.into_string().ok()?, value.into_string().ok()?))
    });
    let variables: Vec<(String, String)> = variables.collect();
    for (name, value) in &variables {
        if let (Some(key), false) = (Document::key_of_variable(name), value.is_empty()) {
            origins.environment(key, name);
        }
    }
    let environment = Document::from_variables(variables).map_err(|error| wrong(&error))?;
    let Some(path) = config else {
        return Ok(environment);
    };
    let said = |error: &dyn std::fmt::Display| {
        Failure::new(Kind::Config, format!("{}: {error}", path.display()))
    };
    let text = fs::read_to_string(path).map_err(|error| said(&error))?;
    let file = Document::parse(&text).map_err(|error| said(&error))?;
    for (key, line) in Document::lines(&text).map_err(|error| said(&error))? {
        origins.file(key, path, line);
    }
    Ok(environment.over(file))
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
