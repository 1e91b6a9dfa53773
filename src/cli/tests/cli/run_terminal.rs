//! `palisade run` on a terminal: the command has it, and keys do what they do elsewhere.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use palisade_test_support::eventually;

use crate::groups::SOON;
use crate::program::Dev;

const CTRL_C: &str = "\x03";
const CTRL_Z: &str = "\x1a";

/// A terminal with a program on it (util-linux's `script`), and what it has shown.
struct Screen {
    script: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Screen {
    fn with(dev: &Dev, line: &str) -> Self {
        let mut command = Command::new("script");
        command.args(["-qec", line, "/dev/null"]);
        command
            .env("PALISADE_ADDR", &dev.addr)
            .env("SHELL", "/bin/sh");
        command.env("PALISADE", env!("CARGO_BIN_EXE_palisade"));
        let mut script = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("util-linux's `script` shows programs a terminal: install it");
        let keys = script.stdin.take().unwrap();
        let mut output = script.stdout.take().unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&shown);
        thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                to.lock().unwrap().extend_from_slice(&bytes[..read]);
            }
        });
        Self {
            script,
            keys,
            shown,
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    async fn shows(&self, text: &str) {
        let shown = eventually(text, SOON, async || self.text().contains(text)).await;
        assert!(shown.is_ok(), "{text} was not shown: {}", self.text());
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    async fn code(mut self) -> Option<i32> {
        let ended = async || matches!(self.script.try_wait(), Ok(Some(_)));
        eventually("its end", SOON, ended).await.unwrap();
        self.script.wait().unwrap().code()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        drop(self.script.kill());
        drop(self.script.wait());
    }
}

#[tokio::test]
async fn the_command_reads_what_is_typed() {
    let dev = Dev::start();
    let line = "$PALISADE run a -- sh -c 'echo ready; read x; echo got $x; exit 3'";
    let mut screen = Screen::with(&dev, line);
    screen.shows("ready").await;
    screen.press("typed\n");
    screen.shows("got typed").await;
    assert_eq!(screen.code().await, Some(3));
}

#[tokio::test]
async fn ctrl_c_reaches_the_command_alone() {
    let dev = Dev::start();
    // The terminal is lent to a command that runs already: the key counts once its group is in the foreground.
    let line = "$PALISADE run a -- sh -c 'trap \"echo heard; exit 9\" INT; \
                until read -r _ _ _ _ group _ _ front _ </proc/$$/stat; [ \"$group\" = \"$front\" ]; \
                do sleep 0.01; done; echo ready; while :; do sleep 0.1; done'";
    let mut screen = Screen::with(&dev, line);
    screen.shows("ready").await;
    screen.press(CTRL_C);
    screen.shows("heard").await;
    assert_eq!(screen.code().await, Some(9));
}

/// The key is not this program's to hear: it is seen by how the command ended.
#[tokio::test]
async fn what_ctrl_c_ends_is_not_started_again() {
    let dev = Dev::start();
    let line = "$PALISADE run a --restart -- sh -c 'echo ready; exec sleep 600'";
    let mut screen = Screen::with(&dev, line);
    screen.shows("ready").await;
    screen.press(CTRL_C);
    assert_eq!(screen.code().await, Some(130));
}

#[tokio::test]
async fn ctrl_z_gives_the_terminal_back_to_the_shell_and_fg_continues() {
    let dev = Dev::start();
    let mut screen = Screen::with(&dev, "bash --norc -i");
    let line = "$PALISADE run a --ttl 60s -- sh -c 'echo ready$((40+2)); read x; echo got $x'\n";
    screen.press(line);
    screen.shows("ready42").await;
    screen.press(CTRL_Z);
    screen.shows("Stopped").await;
    screen.press("echo shell$((40+2))\n");
    screen.shows("shell42").await;
    screen.press("fg\n");
    screen.press("typed\n");
    screen.shows("got typed").await;
    screen.press("echo code$?\n");
    screen.shows("code0").await;
    screen.press("exit\n");
    assert_eq!(screen.code().await, Some(0));
}

/// In a pipeline the terminal is not taken away from others; who asks for it gets it.
#[tokio::test]
async fn in_a_pipeline_a_command_that_reads_the_terminal_gets_it() {
    let dev = Dev::start();
    let line =
        "$PALISADE run a -- sh -c 'echo ready >/dev/tty; read x </dev/tty; echo got $x' | cat";
    let mut screen = Screen::with(&dev, line);
    screen.shows("ready").await;
    screen.press("typed\n");
    screen.shows("got typed").await;
    assert_eq!(screen.code().await, Some(0));
}
