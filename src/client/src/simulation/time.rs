//! True time, and what the clocks here and there make of it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::dice::Dice;
use crate::clock::{Clock, Moment};

pub(super) const SECOND: u64 = 1_000_000;
/// What a timer sleeps at most before it looks at the clock again.
const SLICE: u64 = 250_000;

/// A clock by true time, in microseconds: its rate changes each second.
#[derive(Debug, Clone)]
pub(super) struct Skew {
    origin: u64,
    /// Of its own microseconds in each true second, over and over.
    rates: Vec<u64>,
    sum: u64,
}

impl Skew {
    pub(super) fn new(origin: u64, rates: Vec<u64>) -> Self {
        let sum = rates.iter().sum();
        Self { origin, rates, sum }
    }

    /// What it shows at a true time.
    pub(super) fn at(&self, real: u64) -> u64 {
        let rounds = u64::try_from(self.rates.len()).unwrap();
        let (whole, rest) = (real / SECOND, real % SECOND);
        let index = usize::try_from(whole % rounds).unwrap();
        let begun: u64 = self.rates[..index].iter().sum();
        self.origin + (whole / rounds) * self.sum + begun + rest * self.rates[index] / SECOND
    }

    /// The first true time, not before this one, at which it shows as much.
    pub(super) fn when(&self, from: u64, shown: u64) -> u64 {
        let (mut low, mut high) = (
            from,
            from + 2 * shown.saturating_sub(self.at(from)) + SECOND,
        );
        while low < high {
            let middle = low + (high - low) / 2;
            if self.at(middle) >= shown {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }
}

/// The client's clock.
#[derive(Debug)]
pub(super) struct Time(Mutex<State>);

#[derive(Debug)]
struct State {
    real: u64,
    skew: Skew,
    /// Timers that were set before a suspend fire no earlier.
    timers_from: u64,
    /// The clock stands still while suspended, as a wrong one would.
    stands_still: bool,
    stood_still: u64,
    sleepers: Vec<(Moment, oneshot::Sender<()>)>,
}

impl State {
    fn now(&self) -> Moment {
        Moment(Duration::from_micros(
            self.skew.at(self.real) - self.stood_still,
        ))
    }

    fn shown(&self, moment: Moment) -> u64 {
        u64::try_from(moment.0.as_nanos().div_ceil(1000)).unwrap() + self.stood_still
    }
}

impl Time {
    pub(super) fn new(skew: Skew, stands_still: bool) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            real: 0,
            skew,
            timers_from: 0,
            stands_still,
            stood_still: 0,
            sleepers: Vec::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn real(&self) -> u64 {
        self.state().real
    }

    /// The true time at which the next timer fires.
    pub(super) fn next_timer(&self) -> Option<u64> {
        let mut state = self.state();
        state.sleepers.retain(|(_, sleeper)| !sleeper.is_closed());
        let next = state.sleepers.iter().map(|(due, _)| *due).min()?;
        let due = state.skew.when(state.real, state.shown(next));
        Some(due.max(state.timers_from))
    }

    /// It is this true time, and timers that are due fire.
    pub(super) fn reach(&self, real: u64) {
        let mut state = self.state();
        state.real = state.real.max(real);
        if state.real < state.timers_from {
            return;
        }
        let now = state.now();
        let all = std::mem::take(&mut state.sleepers).into_iter();
        let (due, later) = all.partition(|(due, _)| *due <= now);
        state.sleepers = later;
        for (_, sleeper) in due {
            let _gone: Result<(), ()> = sleeper.send(());
        }
    }

    /// The machine wakes from a suspend at this true time: timers come late.
    pub(super) fn wake(&self, real: u64, dice: &mut Dice) {
        let mut state = self.state();
        if state.stands_still {
            state.stood_still += state.skew.at(real) - state.skew.at(state.real);
        }
        state.real = real;
        state.timers_from = real + dice.below(SLICE);
    }
}

impl Clock for Time {
    fn now(&self) -> Moment {
        self.state().now()
    }

    fn sleep(&self, while_: Duration) -> BoxFuture<'static, ()> {
        let (wake, woken) = oneshot::channel();
        let mut state = self.state();
        let due = state.now().after(while_);
        if !while_.is_zero() {
            state.sleepers.push((due, wake));
        }
        Box::pin(async move {
            let _woken: Result<(), _> = woken.await;
        })
    }
}
