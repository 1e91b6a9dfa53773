use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::Error;

/// A server's temporary directory. Its `*.log` files outlive it when the test fails.
#[derive(Debug)]
pub(crate) struct Home {
    name: String,
    dir: TempDir,
}

impl Home {
    pub(crate) fn new(name: &str) -> Result<Self, Error> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("palisade-{name}-"))
            .tempdir()
            .map_err(Error::io("create a temporary directory"))?;
        Ok(Self {
            name: name.to_owned(),
            dir,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Copies the logs to where they last; nothing comes back if there are none.
    fn keep_logs(&self) -> io::Result<Option<PathBuf>> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut logs: Vec<_> = fs::read_dir(self.path())?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        if logs.is_empty() {
            return Ok(None);
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("{}-{}-{count}", self.name, std::process::id());
        let target = workspace().join("tests/logs").join(folder);
        fs::create_dir_all(&target)?;
        for log in logs {
            fs::copy(&log, target.join(log.file_name().unwrap_or_default()))?;
        }
        Ok(Some(target))
    }
}

impl Drop for Home {
    #[allow(
        clippy::print_stderr,
        reason = "the test runner shows it beside the failure"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() || env::var_os("PALISADE_TEST_KEEP_LOGS").is_some() {
            match self.keep_logs() {
                Ok(Some(place)) => eprintln!("logs of {}: {}", self.name, place.display()),
                Ok(None) => {}
                Err(error) => eprintln!("logs of {} could not be kept: {error}", self.name),
            }
        }
    }
}

/// The root of the checkout that this crate was built in.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .unwrap_or_default()
}
