//! What keys do.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::Model;

/// The longest filter: as long as the longest name of a resource.
const LONGEST_FILTER: usize = 256;

/// What a key asks of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    Quit,
    /// Stop, as other programs do, until the shell lets it go on.
    Suspend,
    /// Draw everything anew: something else has written to the terminal.
    Redraw,
}

/// Each key and what it does, for the help.
pub(super) const HELP: [(&str, &str); 11] = [
    ("up, down, k, j", "select a lease"),
    ("PgUp, PgDn", "a screen up or down"),
    ("Home, End, g, G", "the first, the last"),
    (
        "Enter",
        "details of the selected lease: its queue, and how the one before ended",
    ),
    (
        "/",
        "show only leases with this in resource, label, session or token",
    ),
    (
        "s, S",
        "sort by resource, time held, waiters, label; turn the order around",
    ),
    (
        "p",
        "pause: the picture stands still, and goes on where things are then",
    ),
    ("?", "this help"),
    ("Ctrl-L", "draw everything anew"),
    ("Ctrl-Z", "suspend"),
    ("q, Esc, Ctrl-C", "quit (Esc: first what is open is closed)"),
];

impl Model {
    pub(super) fn key(&mut self, key: KeyEvent) -> Asked {
        if key.kind == KeyEventKind::Release {
            return Asked::Nothing;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Asked::Quit,
                KeyCode::Char('z') => Asked::Suspend,
                KeyCode::Char('l') => Asked::Redraw,
                KeyCode::Char('u') if self.filter_before.is_some() => {
                    self.filter_by(String::new());
                    Asked::Nothing
                }
                _ => Asked::Nothing,
            };
        }
        if self.filter_before.is_some() {
            self.write_filter(key.code);
            return Asked::Nothing;
        }
        if self.shows_help {
            return self.key_in_help(key.code);
        }
        self.key_in_list(key.code)
    }

    fn write_filter(&mut self, key: KeyCode) {
        let mut filter = std::mem::take(&mut self.filter);
        match key {
            KeyCode::Enter => self.filter_before = None,
            KeyCode::Esc => filter = self.filter_before.take().unwrap_or_default(),
            KeyCode::Backspace => {
                filter.pop();
            }
            KeyCode::Char(character) if filter.len() < LONGEST_FILTER => filter.push(character),
            KeyCode::Up => return self.keep_filter(filter, -1),
            KeyCode::Down => return self.keep_filter(filter, 1),
            _ => {}
        }
        self.filter_by(filter);
    }

    fn keep_filter(&mut self, filter: String, by: isize) {
        self.filter = filter;
        self.go(by);
    }

    fn key_in_help(&mut self, key: KeyCode) -> Asked {
        match key {
            KeyCode::Char('q') => return Asked::Quit,
            KeyCode::Char('?') | KeyCode::Esc | KeyCode::Enter => self.shows_help = false,
            _ => {}
        }
        Asked::Nothing
    }

    fn key_in_list(&mut self, key: KeyCode) -> Asked {
        let page = isize::try_from(self.page_height()).unwrap_or(isize::MAX);
        match key {
            KeyCode::Char('q') => return Asked::Quit,
            KeyCode::Esc if self.shows_details => self.open_details(false),
            KeyCode::Esc if !self.filter.is_empty() => self.filter_by(String::new()),
            KeyCode::Esc => return Asked::Quit,
            KeyCode::Up | KeyCode::Char('k') => self.go(-1),
            KeyCode::Down | KeyCode::Char('j') => self.go(1),
            KeyCode::PageUp => self.go(-page),
            KeyCode::PageDown => self.go(page),
            KeyCode::Home | KeyCode::Char('g') => self.go(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.go(isize::MAX),
            KeyCode::Enter => self.open_details(!self.shows_details),
            KeyCode::Char('/') => self.filter_before = Some(self.filter.clone()),
            KeyCode::Char('s') => self.sort_by(self.sort.next(), self.is_reversed),
            KeyCode::Char('S') => self.sort_by(self.sort, !self.is_reversed),
            KeyCode::Char('p') => self.toggle_pause(),
            KeyCode::Char('?') => self.shows_help = true,
            _ => {}
        }
        Asked::Nothing
    }

    fn open_details(&mut self, shows: bool) {
        // What is looked at stays so, whatever comes before it in the list.
        self.go(0);
        self.shows_details = shows;
        self.looked = None;
    }
}
