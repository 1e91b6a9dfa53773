//! Tells whoever waits at a terminal that something goes on, on stderr and once it has taken a second.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::clock;
use crate::output;

/// What is over before needs no word.
const PATIENCE: Duration = Duration::from_secs(1);
/// What most commands do.
pub(crate) const ASKING: &str = "asking the coordinator";

const TICK: Duration = Duration::from_millis(120);
const LOOK: &str = "{spinner} {msg} ({elapsed})";
/// The last is never shown: it is that of a bar that has ended.
const SPINNER: &str = "|/-\\ ";

/// What is on the terminal now, so that lines are printed beside it and not through it.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Something that may take its time. Its clones tell of the same.
#[derive(Debug, Clone)]
pub(crate) struct Progress(ProgressBar);

/// What is being done, told once `work` has taken a second.
pub(crate) fn during<T>(doing: &str, work: impl Future<Output = T>) -> impl Future<Output = T> {
    let progress = Progress::new(doing);
    let mut work = Box::pin(work);
    async move { progress.during(&mut work).await }
}

impl Progress {
    pub(crate) fn new(doing: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        // Without the style there would be the crate's own, which says as much.
        if let Ok(style) = ProgressStyle::with_template(LOOK) {
            bar.set_style(style.tick_chars(SPINNER));
        }
        bar.set_message(doing.to_owned());
        Self(bar)
    }

    /// What is being done now.
    pub(crate) fn say(&self, doing: &str) {
        self.0.set_message(doing.to_owned());
    }

    /// A step worth a line where no terminal shows it in place.
    pub(crate) fn step(&self, doing: &str) {
        if is_watched() {
            self.say(doing);
        } else {
            output::note(doing);
        }
    }

    /// Shown while `work` goes on, from its second second.
    pub(crate) fn during<T>(&self, work: impl Future<Output = T>) -> impl Future<Output = T> {
        let mut work = Box::pin(work);
        async move {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = clock::pause(PATIENCE) => {}
            }
            let _shown = is_watched().then(|| Shown::show(self.0.clone()));
            work.await
        }
    }
}

/// On the terminal until it is dropped.
struct Shown(ProgressBar);

impl Shown {
    fn show(bar: ProgressBar) -> Self {
        bar.set_draw_target(ProgressDrawTarget::stderr());
        bar.enable_steady_tick(TICK);
        *shown() = Some(bar.clone());
        Self(bar)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        *shown() = None;
        self.0.finish_and_clear();
    }
}

/// Prints while nothing of this is on the terminal.
pub(crate) fn aside<T>(print: impl FnOnce() -> T) -> T {
    let bar = shown().clone();
    match bar {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

/// Whether there is somebody to tell, and a cursor to move.
pub(crate) fn is_watched() -> bool {
    io::stderr().is_terminal() && !output::is_dumb()
}

fn shown() -> MutexGuard<'static, Option<ProgressBar>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}
