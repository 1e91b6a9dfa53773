//! The terminal: taken, given back whatever happens, and kept in order when the program is suspended.

use std::io::{self, IsTerminal, Stdout, stdout};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};
use rustix::process::{Signal, kill_current_process_group};
use tokio::signal::unix::{self, SignalKind};

use crate::clock;
use crate::failure::Failure;
use crate::output;

#[cfg(test)]
mod tests;

/// How long a stop may take to come after it was asked for. Without job control none does.
const STOP_LIMIT: Duration = Duration::from_millis(300);

/// The terminal, drawn on. Gives it back when it is dropped, and before a panic is told.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    resized: unix::Signal,
    resumed: unix::Signal,
}

/// What happened to the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happened {
    Resized,
    /// The program was stopped and goes on: others have used the terminal.
    Resumed,
}

/// Refuses where there is nothing to draw on.
pub(super) fn check() -> Result<(), Failure> {
    let instead = "use `palisade list` for what is held and `palisade watch` for what happens";
    let has_terminal = stdout().is_terminal() && io::stdin().is_terminal();
    match (has_terminal, output::is_dumb()) {
        (true, false) => Ok(()),
        (true, true) => Err(Failure::usage(format!(
            "this terminal (TERM=dumb) cannot be drawn on; {instead}"
        ))),
        (false, _) => Err(Failure::usage(format!(
            "`palisade top` needs a terminal for its keys and its picture; {instead}"
        ))),
    }
}

impl Screen {
    pub(super) fn take() -> Result<Self, Failure> {
        let fails = || Failure::io("use the terminal");
        let listen = |kind| unix::signal(kind).map_err(Failure::io("listen for signals"));
        let resumed = SignalKind::from_raw(Signal::CONT.as_raw());
        give_back_before_a_panic_is_told();
        // Made first: it gives back what of the rest was done.
        let screen = Self {
            terminal: Terminal::new(CrosstermBackend::new(stdout())).map_err(fails())?,
            resized: listen(SignalKind::window_change())?,
            resumed: listen(resumed)?,
        };
        enter().map_err(fails())?;
        Ok(screen)
    }

    /// Shows a picture, at the size that the terminal has now.
    pub(super) fn draw(&mut self, picture: impl FnOnce(&mut Frame<'_>)) -> Result<(), Failure> {
        let drawn = self.terminal.draw(picture);
        drawn.map(drop).map_err(Failure::io("draw on the terminal"))
    }

    /// How many columns and rows there are.
    pub(super) fn size(&self) -> (u16, u16) {
        let size = self.terminal.size().unwrap_or_default();
        (size.width, size.height)
    }

    /// Waits until something happens to the terminal.
    pub(super) async fn happens(&mut self) -> Happened {
        tokio::select! {
            _ = self.resized.recv() => Happened::Resized,
            _ = self.resumed.recv() => Happened::Resumed,
        }
    }

    /// Draws everything at the next picture, whatever is there.
    pub(super) fn forget(&mut self) -> Result<(), Failure> {
        let (width, height) = self.size();
        let whole = ratatui::layout::Rect::new(0, 0, width, height);
        self.terminal
            .resize(whole)
            .map_err(Failure::io("draw on the terminal"))
    }

    /// Takes the terminal anew, after others have used it.
    pub(super) fn take_again(&mut self) -> Result<(), Failure> {
        // What is given back is what was there at first, not what others have left.
        disable_raw_mode()
            .and_then(|()| enter())
            .map_err(Failure::io("use the terminal"))?;
        self.forget()
    }

    /// Stops as Ctrl-Z does to others: with all of the shell's job, and with the terminal as it was. Returns
    /// when it goes on, or at once where there is no job control.
    pub(super) async fn suspend(&mut self) -> Result<(), Failure> {
        give_back().map_err(Failure::io("give back the terminal"))?;
        kill_current_process_group(Signal::TSTP)
            .map_err(|error| Failure::io("suspend")(error.into()))?;
        clock::within(STOP_LIMIT, self.resumed.recv()).await;
        self.take_again()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody can be told: the terminal is what failed.
        drop(give_back());
    }
}

/// Whether there is something to give back. Twice would be once too often: the cursor goes back to where it was
/// before, over what was written since.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

fn enter() -> io::Result<()> {
    IS_TAKEN.store(true, Ordering::SeqCst);
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen)
}

/// Does all of it, whatever fails.
fn give_back() -> io::Result<()> {
    if !IS_TAKEN.swap(false, Ordering::SeqCst) {
        return Ok(());
    }
    let left = execute!(stdout(), LeaveAlternateScreen, Show);
    disable_raw_mode().and(left)
}

/// A panic's message would be lost on the other screen.
fn give_back_before_a_panic_is_told() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            drop(give_back());
            tell(info);
        }));
    });
}
