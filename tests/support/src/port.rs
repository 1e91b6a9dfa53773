use std::env;
use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::ops::Range;
use std::sync::Mutex;

use crate::Error;

/// Below the range from which Linux and macOS take source ports of outgoing connections, so that no
/// client can sit on a server's port while that server is down.
const RANGE: Range<u16> = 15_000..30_000;

/// A loopback TCP port that no other test process takes while this value lives, also while nobody
/// listens on it: a server can be stopped and started again in the same place.
#[derive(Debug)]
pub struct Port {
    number: u16,
    // The lock goes with the file: also when the process is killed.
    _lock: File,
}

impl Port {
    /// Reserves a port on which nothing listens.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the lock files in the temporary directory cannot be written,
    /// [`Error::Unexpected`] when every port is taken.
    pub fn reserve() -> Result<Self, Error> {
        let user = rustix::process::getuid().as_raw();
        let locks = env::temp_dir().join(format!("palisade-test-ports-{user}"));
        fs::create_dir_all(&locks).map_err(Error::io("create the directory of port locks"))?;
        let length = u32::from(RANGE.end - RANGE.start);
        // Processes start looking far from each other (a stride prime to the length), only for speed.
        let first = std::process::id().wrapping_mul(7_919) % length;
        for step in 0..length {
            let offset = u16::try_from((first + step) % length).unwrap_or_default();
            let number = RANGE.start + offset;
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(locks.join(number.to_string()))
                .map_err(Error::io("open a port lock"))?;
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Ok(Self {
                    number,
                    _lock: lock,
                });
            }
        }
        Err(Error::Unexpected(format!(
            "every port in {RANGE:?} is taken"
        )))
    }

    /// The port's number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// A free loopback port, reserved until this process ends.
///
/// # Errors
///
/// As [`Port::reserve`].
pub fn free_port() -> Result<u16, Error> {
    static KEPT: Mutex<Vec<Port>> = Mutex::new(Vec::new());
    let port = Port::reserve()?;
    let number = port.number();
    KEPT.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .push(port);
    Ok(number)
}
