//! `palisade top`.

use std::fs;

use palisade_test_support::{Coordinator, eventually};
use rustix::process::Signal;

use super::{
    LIMIT, WIDE, acquire, cells, has_ended, line, pid, shows, signal, starts, terminal, with_pid,
};
use crate::program::run;

#[tokio::test]
async fn it_shows_what_is_held_who_waits_and_what_happens() {
    let coordinator = Coordinator::builder().start().await.unwrap();
    let terminal = terminal().await;
    starts(&terminal, &line(&coordinator, "top")).await;
    shows(
        &terminal,
        &["nothing is held", "  live", " ready  ", "none yet"],
    )
    .await;
    assert_eq!(terminal.modes().await.unwrap(), (true, false));

    let mut first = acquire(&coordinator, &["orders/eu-1", "--label", "import-7"]);
    let token = first.line();
    shows(&terminal, &["granted  orders/eu-1", "1 lease, 0 waiting"]).await;
    let mut second = acquire(
        &coordinator,
        &["orders/eu-1", "--label", "next", "--wait", "60s"],
    );
    let counted = |screen: &str| {
        let cells = cells(screen, "orders/eu-1");
        cells.len() == 7 && cells[1] == "import-7" && cells[2] == token && cells[5] == "1"
    };
    terminal
        .until("a waiter in the row", LIMIT, counted)
        .await
        .unwrap();

    terminal.presses("Enter").await.unwrap();
    shows(
        &terminal,
        &[
            "details of orders/eu-1",
            "queue: 1 waits",
            "   1. next  session ",
        ],
    )
    .await;
    first.signal(Signal::TERM);
    let second_token = second.line();
    let handed_over = |screen: &str| cells(screen, "orders/eu-1").get(2) == Some(&&*second_token);
    terminal
        .until("the next holder", LIMIT, handed_over)
        .await
        .unwrap();
    let before = format!("before: released, token {token}, import-7");
    shows(
        &terminal,
        &["released orders/eu-1", &before, "queue: nobody waits"],
    )
    .await;
    drop(second);
    shows(
        &terminal,
        &["nothing is held", "details of orders/eu-1", "vacant"],
    )
    .await;
    shows(
        &terminal,
        &[&format!("before: released, token {second_token}")],
    )
    .await;

    terminal.presses("q").await.unwrap();
    has_ended(&terminal, 0).await;
}

#[tokio::test]
async fn it_is_steered_by_keys_and_fits_its_terminal() {
    let coordinator = Coordinator::builder().start().await.unwrap();
    let held = ["a/1", "a/2", "b/1"].map(|resource| acquire(&coordinator, &[resource]));
    let terminal = terminal().await;
    starts(&terminal, &line(&coordinator, "top a/")).await;
    let both = |screen: &str| {
        ["a/1", "a/2"]
            .iter()
            .all(|name| cells(screen, name).len() >= 5)
            && !screen.contains("b/1")
    };
    terminal
        .until("what begins with a/", LIMIT, both)
        .await
        .unwrap();

    terminal.types("/a/2").await.unwrap();
    shows(
        &terminal,
        &["2 leases, 0 waiting, 1 shown", "/a/2   Enter keeps it"],
    )
    .await;
    terminal.presses("Escape").await.unwrap();
    let both_again = |screen: &str| both(screen) && screen.contains("q quit");
    terminal
        .until("no filter", LIMIT, both_again)
        .await
        .unwrap();
    terminal.types("s").await.unwrap();
    shows(&terminal, &["by time held"]).await;
    terminal.types("?").await.unwrap();
    shows(&terminal, &["PgUp, PgDn"]).await;
    terminal.presses("Escape").await.unwrap();
    terminal.presses("Down").await.unwrap();
    terminal.presses("Enter").await.unwrap();
    shows(&terminal, &["details of a/"]).await;
    terminal.types("p").await.unwrap();
    shows(&terminal, &["PAUSED, 0 events since"]).await;
    let more = acquire(&coordinator, &["a/3"]);
    shows(&terminal, &["PAUSED, 1 event since"]).await;
    assert!(cells(&terminal.screen().await.unwrap(), "a/3").is_empty());
    terminal.types("p").await.unwrap();
    shows(&terminal, &["\na/3 "]).await;

    for (columns, rows, text) in [
        (39, 30, "too small: 40x8"),
        (20, 3, "too small"),
        (40, 8, "\na/3 "),
    ] {
        terminal.resize(columns, rows).await.unwrap();
        shows(&terminal, &[text]).await;
    }
    terminal.resize(WIDE.0, WIDE.1).await.unwrap();
    shows(&terminal, &["details of a/", "WAITERS  SESSION"]).await;
    terminal.presses("Escape").await.unwrap();
    terminal.presses("Escape").await.unwrap();
    has_ended(&terminal, 0).await;
    drop((held, more));
}

#[tokio::test]
async fn it_goes_on_when_its_coordinator_is_back() {
    let mut coordinator = Coordinator::builder().start().await.unwrap();
    let mut held = acquire(&coordinator, &["a/1"]);
    let token = held.line();
    let terminal = terminal().await;
    starts(&terminal, &line(&coordinator, "top")).await;
    shows(&terminal, &["  live", &token]).await;
    coordinator.kill().unwrap();
    shows(&terminal, &["reconnecting for ", "(was ready "]).await;
    assert!(
        terminal.screen().await.unwrap().contains(&token),
        "what was known is shown"
    );
    coordinator.start_again().await.unwrap();
    shows(&terminal, &["  live", &token]).await;
    let other = acquire(&coordinator, &["a/2"]);
    shows(&terminal, &["granted  a/2"]).await;
    drop(other);
    drop(held);
    coordinator.kill().unwrap();
    shows(&terminal, &["reconnecting for "]).await;
    terminal.presses("C-c").await.unwrap();
    has_ended(&terminal, 0).await;
}

#[tokio::test]
async fn it_gives_the_terminal_back_when_signals_end_it() {
    let coordinator = Coordinator::builder().start().await.unwrap();
    let terminal = terminal().await;
    let top = with_pid(&line(&coordinator, "top"));
    for number in [Signal::TERM, Signal::HUP, Signal::INT] {
        starts(&terminal, &top).await;
        shows(&terminal, &["  live"]).await;
        signal(&terminal, number);
        has_ended(&terminal, 0).await;
    }
}

#[tokio::test]
async fn it_ends_with_its_terminal_where_it_is_told_nothing_of_it() {
    let coordinator = Coordinator::builder().start().await.unwrap();
    let terminal = terminal().await;
    terminal.types("trap '' HUP\n").await.unwrap();
    starts(&terminal, &with_pid(&line(&coordinator, "top"))).await;
    shows(&terminal, &["  live"]).await;
    let place = format!("/proc/{}/cmdline", pid(&terminal).as_raw_nonzero());
    assert_ne!(fs::read(&place).unwrap(), b"");
    terminal.hangs_up().await.unwrap();
    // One that has ended has no command line, whether anybody has seen its end or not.
    let has_ended = async || fs::read(&place).unwrap_or_default().is_empty();
    eventually("its end", LIMIT, has_ended).await.unwrap();
}

#[tokio::test]
async fn it_is_suspended_and_goes_on_as_other_programs() {
    let coordinator = Coordinator::builder().start().await.unwrap();
    let terminal = terminal().await;
    let top = line(&coordinator, "top");
    terminal
        .types(&format!("m=$(stty -g)\n{top}\n"))
        .await
        .unwrap();
    for _ in 0..2 {
        shows(&terminal, &["  live"]).await;
        terminal.presses("C-z").await.unwrap();
        shows(&terminal, &["Stopped"]).await;
        assert_eq!(terminal.modes().await.unwrap(), (false, true));
        let compare = "clear; [ \"$m\" = \"$(stty -g)\" ] && echo modes:$((1 + 1))\n";
        terminal.types(compare).await.unwrap();
        shows(&terminal, &["modes:2\n"]).await;
        terminal.types("fg\n").await.unwrap();
        shows(&terminal, &["  live"]).await;
        assert_eq!(terminal.modes().await.unwrap(), (true, false));
    }
    terminal.types("q").await.unwrap();
    // What is typed before the program has ended is for the program.
    let is_prompt = |screen: &str| screen.trim_end().ends_with("ready>");
    terminal.until("a prompt", LIMIT, is_prompt).await.unwrap();
    terminal
        .types("echo code:$?; [ \"$m\" = \"$(stty -g)\" ] && echo modes:$((1 + 1))\n")
        .await
        .unwrap();
    has_ended(&terminal, 0).await;
}

#[tokio::test]
async fn it_has_colours_where_they_are_wanted_and_refuses_what_it_cannot_draw_on() {
    let coordinator = Coordinator::builder().start().await.unwrap();
    let terminal = terminal().await;
    for (variable, is_coloured) in [("X=", true), ("NO_COLOR=1", false)] {
        starts(
            &terminal,
            &format!("clear; env {variable} {}", line(&coordinator, "top")),
        )
        .await;
        shows(&terminal, &["  live", " ready "]).await;
        let screen = terminal.painted_screen().await.unwrap();
        // One of the sixteen, or of the many.
        let colours = (30..38).map(|colour| format!("[{colour}m"));
        let colours = colours
            .chain(["[38;5;".to_owned()])
            .any(|colour| screen.contains(&colour));
        assert_eq!(colours, is_coloured, "{screen:?}");
        terminal.types("q").await.unwrap();
        has_ended(&terminal, 0).await;
    }
    starts(
        &terminal,
        &format!("clear; TERM=dumb {}", line(&coordinator, "top")),
    )
    .await;
    has_ended(&terminal, 2).await;
    shows(&terminal, &["TERM=dumb", "`palisade list`"]).await;

    let piped = run(&["top", "--addr", &coordinator.addr()]);
    assert_eq!(
        (piped.code, piped.stdout.as_str()),
        (Some(2), ""),
        "{piped:?}"
    );
    for text in ["needs a terminal", "`palisade list`", "`palisade watch`"] {
        assert!(piped.stderr.contains(text), "{piped:?}");
    }
}

#[tokio::test]
async fn it_says_what_cannot_work_before_it_takes_the_screen() {
    let terminal = terminal().await;
    let program = env!("CARGO_BIN_EXE_palisade");
    let nowhere = palisade_test_support::free_port().unwrap();
    let top = format!("{program} top --addr 127.0.0.1:{nowhere} --timeout 1s");
    starts(&terminal, &top).await;
    has_ended(&terminal, 69).await;
    shows(&terminal, &["no coordinator can be reached"]).await;
}
