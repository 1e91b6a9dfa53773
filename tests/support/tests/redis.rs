//! Redis is started, killed, frozen and started again, and keeps what it acknowledged.

use std::time::Duration;

use palisade_test_support::{Error, Redis, within};

#[tokio::test]
async fn keeps_acknowledged_keys_over_a_kill_and_a_stop() {
    let mut server = Redis::start().await.unwrap();
    server.cli(&["SET", "greeting", "hello"]).await.unwrap();
    let url = server.url();
    server.kill().unwrap();
    assert!(
        server.cli(&["PING"]).await.is_err(),
        "a killed server answered"
    );
    server.start_again().await.unwrap();
    let get = ["GET", "greeting"];
    assert_eq!(server.cli(&get).await.unwrap(), "hello\n");
    server.stop().await.unwrap();
    server.start_again().await.unwrap();
    assert_eq!(server.cli(&get).await.unwrap(), "hello\n");
    assert_eq!(server.url(), url);
}

#[tokio::test]
async fn answers_nothing_while_paused_and_goes_on_when_resumed() {
    let mut server = Redis::builder()
        .setting("maxmemory-policy", "allkeys-lru")
        .start()
        .await
        .unwrap();
    let policy = server.cli(&["CONFIG", "GET", "maxmemory-policy"]).await;
    assert_eq!(policy.unwrap(), "maxmemory-policy\nallkeys-lru\n");
    server.pause().unwrap();
    let question = server.cli(&["PING"]);
    let answer = within("an answer", Duration::from_millis(500), question).await;
    assert!(matches!(answer, Err(Error::TimedOut { .. })), "{answer:?}");
    server.resume().unwrap();
    assert_eq!(server.cli(&["PING"]).await.unwrap(), "PONG\n");
    let wrong = server.cli(&["NOSUCHCOMMAND"]).await;
    assert!(matches!(wrong, Err(Error::Command { .. })), "{wrong:?}");
}

#[tokio::test]
async fn a_setting_that_the_server_refuses_is_told_with_its_log() {
    let error = Redis::builder()
        .setting("maxmemory-policy", "none of them")
        .start()
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Exited { .. }), "{error:?}");
}
