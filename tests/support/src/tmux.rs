use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::clock::{self, Wait};
use crate::home::Home;
use crate::{Error, Process, program};

/// A server that has nothing to do is there at once.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A terminal with a shell in it, as a person would sit before: keys go in, and what the screen shows can be
/// read.
///
/// It is the only one of a tmux server of its own, without anybody's settings. The shell's prompt is `ready> `.
///
/// # Example
///
/// ```no_run
/// # async fn test() -> Result<(), palisade_test_support::Error> {
/// use std::time::Duration;
/// use palisade_test_support::Tmux;
/// let terminal = Tmux::start(80, 24).await?;
/// terminal.types("vi\n").await?;
/// terminal.shows("VIM - Vi IMproved", Duration::from_secs(10)).await?;
/// terminal.types(":q\n").await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Tmux {
    // Before its directory: it is ended first.
    _server: Process,
    program: PathBuf,
    home: Home,
}

impl Tmux {
    /// Starts a terminal with this many columns and rows.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] without tmux, [`Error::TimedOut`] when its shell shows no prompt.
    pub async fn start(columns: u16, rows: u16) -> Result<Self, Error> {
        let program = program::on_path("tmux").ok_or_else(|| Error::Missing {
            program: "tmux".to_owned(),
            advice: "install it (`apt-get install tmux`, which tests/run does)".to_owned(),
        })?;
        let home = Home::new("tmux")?;
        let mut serve = Command::new(&program);
        serve
            .arg("-S")
            .arg(home.path().join("socket"))
            // In the foreground, so that it can be ended as every other server.
            .args(["-f", "/dev/null", "-u", "-D"])
            .current_dir(home.path())
            .env("SHELL", "/bin/sh")
            .env("LC_ALL", "C.UTF-8");
        for (name, _) in env::vars_os() {
            let bytes = name.as_encoded_bytes();
            let is_ours = bytes.starts_with(b"PALISADE_") || bytes.starts_with(b"CLICOLOR");
            if is_ours || matches!(bytes, b"TMUX" | b"NO_COLOR" | b"ENV") {
                serve.env_remove(name);
            }
        }
        let server = Process::spawn("tmux", &serve, &home.path().join("tmux.log"))?;
        let mut terminal = Self {
            _server: server,
            program,
            home,
        };
        terminal.open(columns, rows).await?;
        Ok(terminal)
    }

    async fn open(&mut self, columns: u16, rows: u16) -> Result<(), Error> {
        let wait = Wait::new("tmux listening", START_LIMIT);
        while !self.home.path().join("socket").exists() {
            wait.tick().await?;
        }
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let place = self.home.path().display().to_string();
        let session = [
            ["new-session", "-d", "-c", &place],
            ["-x", &columns, "-y", &rows],
        ];
        let session = [&session.concat()[..], &["exec sh -i"]].concat();
        let no_status_line = ["set-option", "-g", "status", "off", ";"];
        self.tell(&[&no_status_line[..], &session].concat()).await?;
        // A shell of root's takes no prompt from the environment. What is typed does not show it, either.
        self.types("PS1='ready''> '\n").await?;
        let is_ready = |screen: &str| screen.lines().any(|line| line.ends_with("ready>"));
        self.until("a prompt", START_LIMIT, is_ready)
            .await
            .map(drop)
    }

    /// The directory that the shell is in, thrown away at the end.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.home.path()
    }

    /// Types these characters; `\n` is the return key.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when the terminal is gone.
    pub async fn types(&self, text: &str) -> Result<(), Error> {
        for line in text.split_inclusive('\n') {
            let characters = line.trim_end_matches('\n');
            if !characters.is_empty() {
                self.tell(&["send-keys", "-l", "--", characters]).await?;
            }
            if line.ends_with('\n') {
                self.presses("Enter").await?;
            }
        }
        Ok(())
    }

    /// Presses a key, by the name that tmux has for it: `Up`, `Escape`, `C-c`, `PageDown`.
    ///
    /// # Errors
    ///
    /// As [`Tmux::types`].
    pub async fn presses(&self, key: &str) -> Result<(), Error> {
        self.tell(&["send-keys", key]).await.map(drop)
    }

    /// What the screen shows, line by line, without the blanks at their ends.
    ///
    /// # Errors
    ///
    /// As [`Tmux::types`].
    pub async fn screen(&self) -> Result<String, Error> {
        self.tell(&["capture-pane", "-p"]).await
    }

    /// What the screen shows with its colours, as escape sequences.
    ///
    /// # Errors
    ///
    /// As [`Tmux::types`].
    pub async fn painted_screen(&self) -> Result<String, Error> {
        self.tell(&["capture-pane", "-p", "-e"]).await
    }

    /// Gives it another size.
    ///
    /// # Errors
    ///
    /// As [`Tmux::types`].
    pub async fn resize(&self, columns: u16, rows: u16) -> Result<(), Error> {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tell(&["resize-window", "-x", &columns, "-y", &rows])
            .await
            .map(drop)
    }

    /// Goes away, as a connection does that is cut: nothing can be read from it or written to it any more.
    ///
    /// # Errors
    ///
    /// As [`Tmux::types`].
    pub async fn hangs_up(&self) -> Result<(), Error> {
        self.tell(&["kill-session"]).await.map(drop)
    }

    /// Whether a program has taken the whole screen, and whether the cursor can be seen.
    ///
    /// # Errors
    ///
    /// As [`Tmux::types`].
    pub async fn modes(&self) -> Result<(bool, bool), Error> {
        let format = "#{alternate_on} #{cursor_flag}";
        let modes = self.tell(&["display-message", "-p", format]).await?;
        let (alternate, cursor) = modes.trim().split_once(' ').unwrap_or_default();
        Ok((alternate == "1", cursor == "1"))
    }

    /// Waits until the screen shows this.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`], with what it shows instead.
    pub async fn shows(&self, text: &str, limit: Duration) -> Result<(), Error> {
        self.until(&format!("{text:?} on the screen"), limit, |screen| {
            screen.contains(text)
        })
        .await
        .map(drop)
    }

    /// Waits until the screen is as wanted, and returns it.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`], with what it shows instead.
    pub async fn until(
        &self,
        what: &str,
        limit: Duration,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<String, Error> {
        let wait = Wait::new(what, limit);
        loop {
            let screen = clock::within("a screen", limit, self.screen()).await??;
            if is_wanted(&screen) {
                return Ok(screen);
            }
            if wait.tick().await.is_err() {
                let what = format!("{what}; it shows:\n{}", screen.trim_end());
                return Err(Error::TimedOut { what, limit });
            }
        }
    }

    async fn tell(&self, arguments: &[&str]) -> Result<String, Error> {
        let mut tmux = Command::new(&self.program);
        tmux.arg("-S")
            .arg(self.home.path().join("socket"))
            .args(arguments);
        program::run(tmux).await
    }
}
