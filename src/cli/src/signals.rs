use std::future;
use std::{fs, io};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Failure, Kind};

/// The signals that ask a command to end in good order: SIGINT, SIGTERM, and SIGHUP of a terminal that goes
/// away. From its making on they no longer end the process by themselves.
#[derive(Debug)]
pub(crate) struct Stop {
    /// None under `nohup`.
    hangup: Option<Signal>,
    interrupt: Signal,
    terminate: Signal,
}

/// Which signal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped(SignalKind);

impl Stop {
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = || -> io::Result<Self> {
            let hangup = SignalKind::hangup();
            Ok(Self {
                hangup: (!is_ignored(hangup)).then(|| signal(hangup)).transpose()?,
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
            })
        };
        listen().map_err(Failure::io("listen for signals"))
    }

    /// Waits for the next one.
    pub(crate) async fn asked(&mut self) -> Stopped {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            _ = hangup => Stopped(SignalKind::hangup()),
            _ = self.interrupt.recv() => Stopped(SignalKind::interrupt()),
            _ = self.terminate.recv() => Stopped(SignalKind::terminate()),
        }
    }
}

/// Whether this process was started with the signal ignored: whoever did that wants it to go on. Where the
/// kernel does not tell, the signal is left as it was found, too.
pub(crate) fn is_ignored(kind: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let bit = u32::try_from(kind.as_raw_value() - 1).ok();
    match (ignored, bit.and_then(|bit| 1_u64.checked_shl(bit))) {
        (Some(ignored), Some(mask)) => ignored & mask != 0,
        _ => true,
    }
}

impl Stopped {
    pub(crate) fn is_hangup(self) -> bool {
        self.0 == SignalKind::hangup()
    }

    /// The failure of a command that a signal kept from its end.
    pub(crate) fn failure(self, message: &str) -> Failure {
        let number = u8::try_from(self.0.as_raw_value()).unwrap_or_default();
        Failure::new(Kind::Signal(number), message)
    }
}
