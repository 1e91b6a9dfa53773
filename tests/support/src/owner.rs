use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use crate::{Error, program};

/// Whom a server runs as that refuses to run as root: nobody else, unless root runs the tests.
#[derive(Debug, Clone)]
pub(crate) struct Owner(Option<(u32, u32)>);

impl Owner {
    /// The first of `users` that exists, where root runs the tests.
    pub(crate) async fn find(server: &str, users: &[&str]) -> Result<Self, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self(None));
        }
        for user in users {
            if let (Ok(uid), Ok(gid)) = (id("-u", user).await, id("-g", user).await) {
                return Ok(Self(Some((uid, gid))));
            }
        }
        Err(Error::Missing {
            program: format!("a user to run {server} as"),
            advice: format!(
                "{server} does not run as root: create the user `{}`",
                users.join("` or `")
            ),
        })
    }

    /// A program that runs as this user, started with these options of `setpriv` where the user changes.
    pub(crate) fn command(&self, program: &Path, setpriv_options: &[&str]) -> Command {
        let Some((user, group)) = self.0 else {
            return Command::new(program);
        };
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={user}"))
            .arg(format!("--regid={group}"))
            .arg("--clear-groups")
            .args(setpriv_options)
            .arg("--")
            .arg(program);
        command
    }

    /// Makes this user the owner of `directory`.
    pub(crate) fn give(&self, directory: &Path) -> Result<(), Error> {
        let Some((user, group)) = self.0 else {
            return Ok(());
        };
        chown(directory, Some(user), Some(group)).map_err(Error::io("give away the data directory"))
    }
}

async fn id(which: &str, user: &str) -> Result<u32, Error> {
    let mut id = Command::new("id");
    id.args([which, user]);
    let text = program::run(id).await?;
    text.trim()
        .parse()
        .map_err(|_| Error::Unexpected(format!("id {which} {user} said {text:?}")))
}
