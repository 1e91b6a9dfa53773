//! A screen of its own on the terminal, which leaves that as it was.

use std::io::{self, IsTerminal};

use ratatui::crossterm::Command;
use ratatui::crossterm::cursor::{Hide, MoveTo, Show};
use ratatui::crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, DisableLineWrap, EnableLineWrap,
    EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen, size,
};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

use crate::failure::Failure;
use crate::output;

/// Where the terminal does not say how high it is.
const HEIGHT: u16 = 24;

/// The screen. When it is dropped the terminal is as it was.
#[derive(Debug)]
pub(super) struct Screen {
    /// How the terminal took keys before.
    before: Option<Termios>,
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        let screen = Self { before: quiet()? };
        put(|text| {
            write(text, EnterAlternateScreen);
            write(text, DisableLineWrap);
            write(text, Hide);
        });
        Ok(screen)
    }

    /// Draws what `lines` gives for so many lines, over what was there: no line is empty in between.
    pub(super) fn draw(&mut self, lines: impl FnOnce(usize) -> Vec<String>) -> Result<(), Failure> {
        let height = size().map_or(HEIGHT, |(_, height)| height).max(1);
        let height = usize::from(height);
        let mut frame = String::new();
        write(&mut frame, BeginSynchronizedUpdate);
        write(&mut frame, MoveTo(0, 0));
        let lines = lines(height);
        for (index, line) in lines.iter().take(height).enumerate() {
            if index > 0 {
                frame.push_str("\r\n");
            }
            frame.push_str(line);
            write(&mut frame, Clear(ClearType::UntilNewLine));
        }
        write(&mut frame, Clear(ClearType::FromCursorDown));
        write(&mut frame, EndSynchronizedUpdate);
        output::bytes(frame.as_bytes())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        put(|text| {
            write(text, Show);
            write(text, EnableLineWrap);
            write(text, LeaveAlternateScreen);
        });
        if let Some(before) = &self.before {
            // What was typed meanwhile is not for the shell.
            if let Err(error) = tcsetattr(io::stdin(), OptionalActions::Flush, before) {
                tracing::debug!(%error, "the terminal takes keys as it did for the screen");
            }
        }
    }
}

/// Keys that are typed would show, and Ctrl-Z would leave the screen to the shell. Ctrl-C stays.
fn quiet() -> io::Result<Option<Termios>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Ok(None);
    }
    let before = tcgetattr(&stdin)?;
    let mut quiet = before.clone();
    quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON;
    // As POSIX has it on Linux: no key.
    quiet.special_codes[SpecialCodeIndex::VSUSP] = 0;
    tcsetattr(&stdin, OptionalActions::Now, &quiet)?;
    Ok(Some(before))
}

fn write(text: &mut String, command: impl Command) {
    command
        .write_ansi(text)
        .expect("a text takes whatever is written to it");
}

fn put(commands: impl FnOnce(&mut String)) {
    let mut text = String::new();
    commands(&mut text);
    if let Err(failure) = output::bytes(text.as_bytes()) {
        tracing::debug!(%failure, "the terminal took nothing");
    }
}
