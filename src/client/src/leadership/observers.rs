//! Who is told of leaderships, and how a panic of theirs is kept from doing harm.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use palisade_token::Grant;
use tracing::error;

use super::{LeadershipEnd, Stopped, Trouble};

/// Of what a panic said, so much is kept.
const MESSAGE_CHARS: usize = 256;

type Observer<T> = Arc<dyn Fn(&T) + Send + Sync>;

#[derive(Clone, Default)]
pub(crate) struct Observers {
    pub(super) started: Option<Observer<Grant>>,
    pub(super) stopped: Option<Observer<Stopped>>,
    pub(super) trouble: Option<Observer<Trouble>>,
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observers").finish_non_exhaustive()
    }
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    said.unwrap_or("a panic")
        .chars()
        .take(MESSAGE_CHARS)
        .collect()
}

fn tell<T>(observer: Option<&Observer<T>>, what: &T) -> Result<(), String> {
    let Some(observer) = observer else {
        return Ok(());
    };
    catch_unwind(AssertUnwindSafe(|| observer(what)))
        .map_err(|panic| message(panic.as_ref()))
        .inspect_err(|message| error!(%message, "a callback panicked"))
}

impl Observers {
    pub(super) fn started(&self, grant: &Grant) -> Result<(), String> {
        tell(self.started.as_ref(), grant)
    }

    pub(super) fn trouble(&self, trouble: &Trouble) {
        drop(tell(self.trouble.as_ref(), trouble));
    }
}

/// Sees to it that the end of a leadership is told once, whatever becomes of its task.
#[derive(Debug)]
pub(super) struct Notice {
    observers: Observers,
    untold: Option<Grant>,
}

impl Notice {
    pub(super) fn due(observers: &Observers, grant: &Grant) -> Self {
        Self {
            observers: observers.clone(),
            untold: Some(grant.clone()),
        }
    }

    /// Says what the panic of whom was told said.
    pub(super) fn tell(&mut self, stopped: &Stopped) -> Result<(), String> {
        match self.untold.take() {
            Some(_grant) => tell(self.observers.stopped.as_ref(), stopped),
            None => Ok(()),
        }
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        if let Some(grant) = self.untold.clone() {
            let stopped = Stopped {
                grant,
                end: LeadershipEnd::Abandoned,
                overran: false,
            };
            drop(self.tell(&stopped));
        }
    }
}
