//! A coordinator is started as users start it, and killed, frozen and started again on its ports.
//! `tests/run` builds the program first; so does `cargo build -p palisade`.

use std::path::Path;
use std::time::Duration;

use palisade_test_support::{Coordinator, Error, Etcd, within};

#[tokio::test]
async fn is_ready_again_after_a_kill() {
    let mut coordinator = Coordinator::builder().start().await.unwrap();
    let addresses = (coordinator.addr(), coordinator.http_addr());
    assert!(coordinator.is_ready().await);
    coordinator.kill().unwrap();
    assert!(!coordinator.is_ready().await);
    coordinator.start_again().await.unwrap();
    assert_eq!((coordinator.addr(), coordinator.http_addr()), addresses);

    let status = coordinator.terminate().await.unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn answers_nothing_while_paused() {
    let etcd = Etcd::start().await.unwrap();
    let mut coordinator = Coordinator::builder()
        .etcd(&etcd.endpoints())
        .start()
        .await
        .unwrap();
    coordinator.pause().unwrap();
    let answer = within(
        "an answer",
        Duration::from_millis(300),
        coordinator.is_ready(),
    )
    .await;
    assert!(matches!(answer, Err(Error::TimedOut { .. })), "{answer:?}");
    coordinator.resume().unwrap();
    assert!(coordinator.is_ready().await);
}

#[tokio::test]
async fn two_find_ports_of_their_own_on_one_etcd() {
    let etcd = Etcd::start().await.unwrap();
    let one = Coordinator::builder()
        .etcd(&etcd.endpoints())
        .start()
        .await
        .unwrap();
    let two = Coordinator::builder()
        .etcd(&etcd.endpoints())
        .start()
        .await
        .unwrap();
    assert_ne!(one.addr(), two.addr());
    assert!(one.is_ready().await && two.is_ready().await);
}

#[tokio::test]
async fn what_it_says_when_it_refuses_its_settings_is_told() {
    let error = Coordinator::builder()
        .arg("--no-such-setting")
        .start()
        .await
        .unwrap_err();
    assert!(
        format!("{error:?}").contains("--no-such-setting"),
        "{error:?}"
    );
    let absent = Coordinator::builder()
        .program(Path::new("/no/such/palisade"))
        .start()
        .await;
    assert!(
        matches!(absent, Err(Error::Exited { .. } | Error::Io { .. })),
        "{absent:?}"
    );
}
