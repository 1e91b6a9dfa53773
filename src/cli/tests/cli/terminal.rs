//! What people see who sit before a terminal.

mod top;
mod watch;

use std::fs;
use std::time::Duration;

use palisade_test_support::{Coordinator, Tmux};
use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Running, palisade};

/// For what takes a moment, on a machine that is busy with something else.
const LIMIT: Duration = Duration::from_secs(60);
const WIDE: (u16, u16) = (110, 30);

async fn terminal() -> Tmux {
    Tmux::start(WIDE.0, WIDE.1).await.unwrap()
}

/// `palisade` with these arguments and this coordinator, as a line for a shell.
fn line(coordinator: &Coordinator, arguments: &str) -> String {
    let program = env!("CARGO_BIN_EXE_palisade");
    format!("PALISADE_ADDR={} {program} {arguments}", coordinator.addr())
}

/// Runs it, says how it ended, and whether the terminal is in the modes in which it was before.
async fn starts(terminal: &Tmux, line: &str) {
    let line = format!(
        "m=$(stty -g); {line}; echo code:$?; [ \"$m\" = \"$(stty -g)\" ] && echo modes:$((1 + 1))\n"
    );
    terminal.types(&line).await.unwrap();
}

/// It ends with this code, and the terminal is as it was.
async fn has_ended(terminal: &Tmux, code: u8) {
    terminal
        .shows(&format!("code:{code}\n"), LIMIT)
        .await
        .unwrap();
    terminal.shows("modes:2\n", LIMIT).await.unwrap();
    // The screen of before, and a cursor.
    assert_eq!(terminal.modes().await.unwrap(), (false, true));
}

/// `palisade acquire`, which holds or waits until it is ended.
fn acquire(coordinator: &Coordinator, arguments: &[&str]) -> Running {
    let arguments = [&["acquire", "--ttl", "60s", "--timeout", "60s"], arguments].concat();
    let mut command = palisade(&arguments);
    command.env("PALISADE_ADDR", coordinator.addr());
    Running::start(command)
}

/// The cells of the row of a resource, as far as they are not empty.
fn cells<'a>(screen: &'a str, resource: &str) -> Vec<&'a str> {
    let mut lines = screen.lines();
    let line = lines.find(|line| line.starts_with(resource));
    line.unwrap_or_default().split_whitespace().collect()
}

async fn shows(terminal: &Tmux, texts: &[&str]) {
    for text in texts {
        terminal.shows(text, LIMIT).await.unwrap();
    }
}

/// The same line, in a process whose id [`signal`] finds.
fn with_pid(line: &str) -> String {
    format!("clear; sh -c 'echo $$ > pid; exec \"$@\"' sh env {line}")
}

fn pid(terminal: &Tmux) -> Pid {
    let pid = fs::read_to_string(terminal.directory().join("pid")).unwrap();
    Pid::from_raw(pid.trim().parse().unwrap()).unwrap()
}

fn signal(terminal: &Tmux, signal: Signal) {
    kill_process(pid(terminal), signal).unwrap();
}
