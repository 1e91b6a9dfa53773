use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::owner::Owner;
use crate::{Error, program};

/// PostgreSQL's programs, and whom they run as.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    bin: PathBuf,
    owner: Owner,
}

impl Programs {
    pub(super) async fn find() -> Result<Self, Error> {
        let named = env::var_os("PALISADE_TEST_POSTGRES_BIN").map(PathBuf::from);
        let bin = match named.or_else(newest_of_debian) {
            Some(bin) => bin,
            None => PathBuf::from(
                program::run({
                    let mut config = Command::new("pg_config");
                    config.arg("--bindir");
                    config
                })
                .await
                .unwrap_or_default()
                .trim(),
            ),
        };
        if !bin.join("initdb").is_file() || !bin.join("postgres").is_file() {
            return Err(Error::Missing {
                program: "PostgreSQL's server (initdb, postgres)".to_owned(),
                advice:
                    "run tests/run, which installs it, or set PALISADE_TEST_POSTGRES_BIN to the \
                         directory of its programs"
                        .to_owned(),
            });
        }
        let owner = Owner::find("PostgreSQL", &["postgres", "nobody"]).await?;
        Ok(Self { bin, owner })
    }

    /// Where a program lies.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// A program that runs as the server's user, with none of the caller's PostgreSQL environment.
    pub(super) fn command(&self, name: &str) -> Command {
        self.command_with(&[], name)
    }

    /// The server. The kernel forgets at a change of user which signal a process gets when its parent
    /// ends, so it is told again after that: an immediate shutdown.
    pub(super) fn server(&self) -> Command {
        self.command_with(&["--pdeathsig", "QUIT"], "postgres")
    }

    fn command_with(&self, setpriv_options: &[&str], name: &str) -> Command {
        let mut command = self.owner.command(&self.bin.join(name), setpriv_options);
        for (name, _) in
            env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG"))
        {
            command.env_remove(name);
        }
        command
    }

    /// Makes the server's user the owner of `directory`.
    pub(super) fn give(&self, directory: &Path) -> Result<(), Error> {
        self.owner.give(directory)
    }
}

/// The newest `/usr/lib/postgresql/*/bin` with a server in it.
fn newest_of_debian() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    versions
        .flatten()
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            bin.join("postgres").is_file().then_some((version, bin))
        })
        .max()
        .map(|(_, bin)| bin)
}
