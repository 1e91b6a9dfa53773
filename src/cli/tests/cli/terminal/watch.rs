//! `palisade watch` and `palisade list --watch`.

use palisade_test_support::Coordinator;
use rustix::process::Signal;

use super::{WIDE, acquire, has_ended, line, shows, signal, starts, terminal, with_pid};

#[tokio::test]
async fn what_happens_is_told_line_by_line_until_it_is_enough() {
    let mut coordinator = Coordinator::builder().start().await.unwrap();
    let terminal = terminal().await;
    starts(
        &terminal,
        &format!("clear; {}", line(&coordinator, "watch a/")),
    )
    .await;
    shows(&terminal, &["0 held at revision "]).await;
    let mut held = acquire(&coordinator, &["a/1", "--label", "import-7"]);
    let token = held.line();
    let granted = format!("granted   a/1  token {token}  label import-7");
    shows(&terminal, &[&granted]).await;
    drop(acquire(&coordinator, &["b/1"]));
    drop(held);
    shows(&terminal, &[&format!("released  a/1  token {token}")]).await;
    assert!(!terminal.screen().await.unwrap().contains("b/1"));

    coordinator.kill().unwrap();
    shows(&terminal, &["it is tried again until one does"]).await;
    coordinator.start_again().await.unwrap();
    shows(&terminal, &["palisade: going on"]).await;
    let mut held = acquire(&coordinator, &["a/2"]);
    shows(
        &terminal,
        &[&format!("granted   a/2  token {}", held.line())],
    )
    .await;
    terminal.presses("C-c").await.unwrap();
    has_ended(&terminal, 0).await;
}

#[tokio::test]
async fn a_list_that_goes_on_is_as_it_is_now_and_gives_the_terminal_back() {
    let mut coordinator = Coordinator::builder().start().await.unwrap();
    let terminal = terminal().await;
    let list = with_pid(&line(&coordinator, "list a/ --watch"));
    starts(&terminal, &list).await;
    shows(&terminal, &["a/: 0 held"]).await;
    assert_eq!(terminal.modes().await.unwrap(), (true, false));
    let mut held = acquire(&coordinator, &["a/1", "--label", "import-7"]);
    let token = held.line();
    shows(&terminal, &["a/: 1 held", &token, "import-7"]).await;
    let mut second = acquire(&coordinator, &["a/2"]);
    shows(&terminal, &["a/: 2 held", &second.line()]).await;
    for (columns, rows) in [(20, 3), WIDE] {
        terminal.resize(columns, rows).await.unwrap();
        shows(&terminal, &["a/: 2 held"]).await;
    }
    shows(&terminal, &["import-7"]).await;
    drop(held);
    shows(&terminal, &["a/: 1 held"]).await;

    coordinator.kill().unwrap();
    shows(&terminal, &["GROWS OLD"]).await;
    coordinator.start_again().await.unwrap();
    shows(&terminal, &["  revision "]).await;
    terminal.presses("C-c").await.unwrap();
    has_ended(&terminal, 0).await;
    starts(&terminal, &list).await;
    shows(&terminal, &["a/: 1 held"]).await;
    signal(&terminal, Signal::TERM);
    has_ended(&terminal, 0).await;
    drop(second);
}
