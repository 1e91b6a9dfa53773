//! The file in which the command can look how its lease stands.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use std::{env, fs, io};

use palisade_client::{Clock, Moment, SystemClock};
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};
use serde::Serialize;
use tempfile::TempDir;

use crate::clock;
use crate::failure::Failure;

/// How the lease stands, for the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Held,
    /// The last renewal failed; start nothing long.
    Suspect,
    /// The command was told to end.
    Stopping,
    Lost,
}

#[derive(Debug, Serialize)]
struct Status<'a> {
    state: State,
    deadline_unix_ms: u64,
    resource: &'a ResourceName,
    token: FencingToken,
    holder: HolderId,
    grant: String,
    session: &'a str,
    ttl_ms: u128,
}

/// In a directory of its own, so that it can be replaced in one step; removed when dropped.
#[derive(Debug)]
pub(crate) struct StatusFile {
    home: TempDir,
    grant: Grant,
    session: String,
    ttl: Duration,
    told: Option<(State, Moment)>,
}

impl StatusFile {
    /// Is there, and says that the lease is held, before anything is started that may look.
    pub(crate) fn new(
        grant: Grant,
        session: &str,
        ttl: Duration,
        deadline: Moment,
    ) -> Result<Self, Failure> {
        let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let place = runtime
            .filter(|dir| dir.is_dir())
            .unwrap_or_else(env::temp_dir);
        let home = tempfile::Builder::new()
            .prefix("palisade-run-")
            .tempdir_in(&place);
        let doing = format!("make the status file in {}", place.display());
        let mut status = Self {
            home: home.map_err(Failure::io(doing.clone()))?,
            grant,
            session: session.to_owned(),
            ttl,
            told: None,
        };
        status
            .write(State::Held, deadline)
            .map_err(Failure::io(doing))?;
        status.told = Some((State::Held, deadline));
        Ok(status)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.home.path().join("status.json")
    }

    /// What is to be removed with it.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Tells how it stands, if that is new. That it cannot be told is no reason to stop.
    pub(crate) fn tell(&mut self, state: State, deadline: Moment) {
        if self.told == Some((state, deadline)) {
            return;
        }
        match self.write(state, deadline) {
            Ok(()) => self.told = Some((state, deadline)),
            Err(error) => tracing::warn!(%error, "the status file was not written"),
        }
    }

    fn write(&self, state: State, deadline: Moment) -> io::Result<()> {
        let status = Status {
            state,
            deadline_unix_ms: unix_ms(deadline),
            resource: &self.grant.resource,
            token: self.grant.token,
            holder: self.grant.holder,
            grant: self.grant.to_string(),
            session: &self.session,
            ttl_ms: self.ttl.as_millis(),
        };
        let mut line = serde_json::to_vec(&status)?;
        line.push(b'\n');
        let next = self.home.path().join("next");
        fs::write(&next, line)?;
        fs::rename(next, self.path())
    }
}

/// A moment of the lease clock as the wall clock has it now, in milliseconds since 1970.
pub(crate) fn unix_ms(moment: Moment) -> u64 {
    let now = SystemClock.now();
    let wall = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = wall
        .saturating_add(now.until(moment))
        .saturating_sub(moment.until(now));
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use palisade_client::{Clock, SystemClock};
    use palisade_token::Grant;
    use serde_json::Value;

    use super::{State, StatusFile, unix_ms};

    fn read(status: &StatusFile) -> Value {
        serde_json::from_slice(&fs::read(status.path()).unwrap()).unwrap()
    }

    #[test]
    fn it_is_there_from_the_start_and_is_removed_at_the_end() {
        let grant: Grant = "a#7#000102030405060708090a0b0c0d0e0f".parse().unwrap();
        let deadline = SystemClock.now().after(Duration::from_secs(9));
        let mut status = StatusFile::new(grant, "s", Duration::from_secs(15), deadline).unwrap();
        let first = read(&status);
        assert_eq!(
            (&first["state"], &first["token"]),
            (&"held".into(), &7.into())
        );
        let apart = unix_ms(deadline).abs_diff(first["deadline_unix_ms"].as_u64().unwrap());
        assert!(apart < 60_000, "{first}");
        status.tell(State::Lost, deadline);
        assert_eq!(read(&status)["state"], "lost");
        let home = status.home().to_owned();
        drop(status);
        assert!(!home.exists());
    }
}
