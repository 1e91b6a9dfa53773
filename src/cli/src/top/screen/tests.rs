//! What a panic leaves behind: a terminal as it was, with the panic's message on it.

use std::env;
use std::time::Duration;

use palisade_test_support::Tmux;

use super::Screen;

/// Set where the test below is to panic: in a process, and on a terminal, of its own.
const PANIC: &str = "PALISADE_TEST_PANIC_ON_SCREEN";
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn one_that_panics() {
    if env::var_os(PANIC).is_some() {
        let mut screen = Screen::take().unwrap();
        let text = ratatui::text::Line::raw("the other screen");
        screen
            .draw(|frame| frame.render_widget(text, frame.area()))
            .unwrap();
        // Read by the one that looks, before it is gone.
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        panic!("on purpose");
    }
}

#[tokio::test]
async fn a_panic_is_told_on_a_terminal_that_is_as_it_was() {
    let terminal = Tmux::start(100, 30).await.unwrap();
    let program = env::current_exe().unwrap();
    let test = concat!(module_path!(), "::one_that_panics");
    let test = test.split_once("::").unwrap().1;
    let line = format!(
        "m=$(stty -g); RUST_BACKTRACE=0 {PANIC}=1 {} --exact {test} --nocapture; \
         [ \"$m\" = \"$(stty -g)\" ] && echo modes:$((1 + 1))\n",
        program.display()
    );
    terminal.types(&line).await.unwrap();
    terminal.shows("the other screen", LIMIT).await.unwrap();
    assert_eq!(terminal.modes().await.unwrap(), (true, false));
    // Without translation of carriage returns, so that is what ends a line.
    terminal.presses("C-j").await.unwrap();
    terminal.shows("modes:2\n", LIMIT).await.unwrap();
    terminal.shows("on purpose", LIMIT).await.unwrap();
    assert_eq!(terminal.modes().await.unwrap(), (false, true));
}
