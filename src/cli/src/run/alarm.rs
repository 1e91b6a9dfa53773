//! Wakes at a moment of the lease clock, also one that passed while the machine was suspended.

use std::io;
use std::os::fd::OwnedFd;

use palisade_client::Moment;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

/// A timer of the kernel's on `CLOCK_BOOTTIME`.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: OwnedFd,
    /// The same; not a pipe, but read like one, and the runtime has no safe way to wait for anything else.
    rings: Receiver,
}

impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        let rings = Receiver::from_owned_fd_unchecked(timer.try_clone()?)?;
        Ok(Self { timer, rings })
    }

    /// Returns at this moment, at once if it has passed.
    pub(crate) async fn at(&self, moment: Moment) -> io::Result<()> {
        // At zero it would never ring.
        let at = moment.0.max(std::time::Duration::from_nanos(1));
        let time = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: at.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: at.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &time)?;
        let mut count = [0_u8; 8];
        loop {
            self.rings.readable().await?;
            match self.rings.try_read(&mut count) {
                // That was of the time before it was set anew.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                rung => return rung.map(|_| ()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use palisade_client::{Clock, SystemClock};

    use super::Alarm;

    #[tokio::test]
    async fn it_rings_at_each_moment_and_not_before() {
        let alarm = Alarm::new().unwrap();
        for _ in 0..3 {
            let moment = SystemClock.now().after(Duration::from_millis(5));
            alarm.at(moment).await.unwrap();
            assert!(SystemClock.now() >= moment);
            alarm.at(moment).await.unwrap();
        }
    }
}
