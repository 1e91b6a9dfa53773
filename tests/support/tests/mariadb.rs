//! MariaDB is started, killed, frozen and started again, and keeps what it acknowledged.

use std::time::Duration;

use palisade_test_support::{Error, MariaDb, within};

#[tokio::test]
async fn keeps_committed_rows_over_a_kill_and_a_stop() {
    let mut server = MariaDb::start().await.unwrap();
    let url = server.create_database("orders").await.unwrap();
    assert_eq!(url, server.url_for("orders"));
    server
        .sql(
            "orders",
            "CREATE TABLE orders (id int); INSERT INTO orders VALUES (1)",
        )
        .await
        .unwrap();
    server.kill().unwrap();
    assert!(
        server.sql("orders", "SELECT 1").await.is_err(),
        "a killed server answered"
    );
    server.start_again().await.unwrap();
    let count = "SELECT count(*) FROM orders";
    assert_eq!(server.sql("orders", count).await.unwrap(), "1\n");
    server.stop().await.unwrap();
    server.start_again().await.unwrap();
    assert_eq!(server.sql("orders", count).await.unwrap(), "1\n");
    assert_eq!(server.url_for("orders"), url);
}

#[tokio::test]
async fn answers_nothing_while_paused_and_goes_on_when_resumed() {
    let mut server = MariaDb::builder()
        .setting("innodb_lock_wait_timeout", "7")
        .start()
        .await
        .unwrap();
    let setting = "SELECT @@innodb_lock_wait_timeout";
    assert_eq!(server.sql("mysql", setting).await.unwrap(), "7\n");
    server.pause().unwrap();
    let question = server.sql("mysql", "SELECT 1");
    let answer = within("an answer", Duration::from_millis(500), question).await;
    assert!(matches!(answer, Err(Error::TimedOut { .. })), "{answer:?}");
    server.resume().unwrap();
    assert_eq!(server.sql("mysql", "SELECT 1").await.unwrap(), "1\n");
}

#[tokio::test]
async fn a_setting_that_the_server_refuses_is_told_with_its_log() {
    let error = MariaDb::builder()
        .setting("no_such_setting", "1")
        .start()
        .await
        .unwrap_err();
    assert!(
        format!("{error:?}").contains("unknown variable 'no_such_setting=1'"),
        "{error:?}"
    );
}
