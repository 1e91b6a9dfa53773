//! What was acknowledged is there after kill -9 (I7).

use std::path::Path;

use palisade_test_support::{Coordinator, eventually};

use crate::setup::{LIMIT, acquired, client_of, name, open, waiting};

async fn embedded(file: &Path) -> Coordinator {
    Coordinator::builder().embedded(file).start().await.unwrap()
}

#[tokio::test]
async fn an_embedded_coordinator_that_is_killed_forgets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut coordinator = embedded(&folder.path().join("palisade.db")).await;
    let client = client_of(&[&coordinator]);
    let session = open(&client).await;
    let kept = session
        .acquire(&name("kept"), waiting(LIMIT))
        .await
        .unwrap();
    let given_back = session
        .acquire(&name("given-back"), waiting(LIMIT))
        .await
        .unwrap();
    let last = given_back.token();
    given_back.release().await.unwrap();

    coordinator.kill().unwrap();
    coordinator.start_again().await.unwrap();

    let seen = client.get_lease(&name("kept"), 0).await.unwrap();
    assert_eq!(
        seen.lease.map(|lease| lease.grant.token),
        Some(kept.token())
    );
    assert!(
        client
            .get_lease(&name("given-back"), 0)
            .await
            .unwrap()
            .lease
            .is_none()
    );
    assert!(acquired(&client, "given-back").await.unwrap().token() > last);
    kept.release().await.unwrap();
}

#[tokio::test]
async fn a_file_in_use_is_refused_to_a_second_coordinator() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("palisade.db");
    let _first = embedded(&file).await;
    let second = Coordinator::builder()
        .embedded(&file)
        .without_waiting()
        .start()
        .await;
    let mut second = second.unwrap();
    let ended = second.process().unwrap().wait(LIMIT).await.unwrap();
    assert!(!ended.success());
}

#[tokio::test]
async fn a_dead_holders_resource_is_granted_again() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = embedded(&folder.path().join("palisade.db")).await;
    let client = client_of(&[&coordinator]);
    let session = open(&client).await;
    let lease = session.acquire(&name("r"), waiting(LIMIT)).await.unwrap();
    let token = lease.token();
    // Its process is gone as far as the coordinator can tell: nobody renews and nobody releases.
    let _credentials = session.detach().unwrap();
    assert!(acquired(&client, "r").await.unwrap().token() > token);
    eventually("the local deadline", LIMIT, async || lease.grant().is_err())
        .await
        .unwrap();
}
