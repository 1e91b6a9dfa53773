//! A lease clock that a test moves.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use palisade_client::{Clock, Moment};
use tokio::sync::oneshot;

#[derive(Debug, Default)]
pub(crate) struct ManualClock(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    now: Moment,
    sleepers: Vec<(Moment, oneshot::Sender<()>)>,
}

impl ManualClock {
    /// Not at zero: nothing may take the origin for something special.
    pub(crate) fn shared() -> Arc<Self> {
        let clock = Self::default();
        clock.jump(Duration::from_secs(1000));
        Arc::new(clock)
    }

    /// Time passes and timers do not fire, as in a machine that just woke from suspend.
    pub(crate) fn jump(&self, by: Duration) {
        let mut state = self.0.lock().unwrap();
        state.now = state.now.after(by);
    }

    /// How long it is to the next timer, if somebody waits for one.
    pub(crate) fn next_timer(&self) -> Option<Duration> {
        let mut state = self.0.lock().unwrap();
        state.sleepers.retain(|(_, sleeper)| !sleeper.is_closed());
        let now = state.now;
        let ends = state.sleepers.iter().map(|(end, _)| now.until(*end));
        ends.min()
    }

    /// Time passes, and timers that are due fire.
    pub(crate) fn advance(&self, by: Duration) {
        self.jump(by);
        let mut state = self.0.lock().unwrap();
        let now = state.now;
        let (due, later) = std::mem::take(&mut state.sleepers)
            .into_iter()
            .partition(|(end, _)| *end <= now);
        state.sleepers = later;
        for (_, sleeper) in due {
            let _gone: Result<(), ()> = sleeper.send(());
        }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        self.0.lock().unwrap().now
    }

    fn sleep(&self, while_: Duration) -> BoxFuture<'static, ()> {
        let (wake, woken) = oneshot::channel();
        let mut state = self.0.lock().unwrap();
        let end = state.now.after(while_);
        if end > state.now {
            state.sleepers.retain(|(_, sleeper)| !sleeper.is_closed());
            state.sleepers.push((end, wake));
        }
        Box::pin(async move {
            // A clock that is gone wakes nobody early: the sender lives as long as it.
            let _woken: Result<(), _> = woken.await;
        })
    }
}
