use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Failure, Kind};

/// The signals that ask a command to end in good order: SIGINT and SIGTERM. From its making on they no
/// longer end the process by themselves.
#[derive(Debug)]
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

/// Which signal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped(SignalKind);

impl Stop {
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = || -> io::Result<Self> {
            Ok(Self {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
            })
        };
        listen().map_err(Failure::io("listen for signals"))
    }

    /// Waits for the next one.
    pub(crate) async fn asked(&mut self) -> Stopped {
        tokio::select! {
            _ = self.interrupt.recv() => Stopped(SignalKind::interrupt()),
            _ = self.terminate.recv() => Stopped(SignalKind::terminate()),
        }
    }
}

impl Stopped {
    /// The failure of a command that a signal kept from its end.
    pub(crate) fn failure(self, message: &str) -> Failure {
        let number = u8::try_from(self.0.as_raw_value()).unwrap_or_default();
        Failure::new(Kind::Signal(number), message)
    }
}
