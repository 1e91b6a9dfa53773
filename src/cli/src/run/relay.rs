//! Signals that this process gets and that others are to hear of.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

use crate::failure::Failure;
use crate::signals::is_ignored;

/// What the command is to hear of, too, and what stops and continues it.
const PASSED_ON: [Signal; 9] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
    Signal::TSTP,
    Signal::CONT,
];

/// What would end or stop a guardian, which ends with its group.
const SURVIVED: [Signal; 10] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
    Signal::TSTP,
    Signal::TTIN,
    Signal::TTOU,
];

/// Those signals, which from its making on do nothing to this process by themselves. Ones that it was started
/// with ignored (under `nohup`, or in the background of a script) are left so, for the command, too.
#[derive(Debug)]
pub(crate) struct Relay(Vec<(Signal, unix::Signal)>);

impl Relay {
    pub(crate) fn to_pass_on() -> Result<Self, Failure> {
        Self::of(&PASSED_ON)
    }

    pub(crate) fn to_survive() -> Result<Self, Failure> {
        Self::of(&SURVIVED)
    }

    fn of(signals: &[Signal]) -> Result<Self, Failure> {
        let listen = |which: &Signal| -> io::Result<Option<(Signal, unix::Signal)>> {
            let kind = SignalKind::from_raw(which.as_raw());
            if is_ignored(kind) {
                return Ok(None);
            }
            Ok(Some((*which, signal(kind)?)))
        };
        let listening: io::Result<Vec<_>> = signals
            .iter()
            .filter_map(|s| listen(s).transpose())
            .collect();
        listening
            .map(Self)
            .map_err(Failure::io("listen for signals"))
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            let mut came = self.0.iter_mut();
            let came = came
                .find_map(|(which, signal)| signal.poll_recv(context).is_ready().then_some(*which));
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The next one that asks a program to end.
    pub(crate) async fn next_end(&mut self) -> Signal {
        loop {
            let signal = self.next().await;
            if asks_to_end(signal) {
                return signal;
            }
            if signal == Signal::TSTP {
                stop_this_process();
            }
        }
    }
}

/// Whether programs that get it end, unless they think otherwise.
pub(crate) fn asks_to_end(signal: Signal) -> bool {
    [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT].contains(&signal)
}

/// Stops it as SIGTSTP would have; returns once it is continued.
pub(crate) fn stop_this_process() {
    let me = rustix::process::getpid();
    if let Err(error) = rustix::process::kill_process(me, Signal::STOP) {
        tracing::debug!(%error, "not stopped");
    }
}
