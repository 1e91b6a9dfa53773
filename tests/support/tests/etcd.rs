//! etcd, one node and three: killed, frozen, wiped and restored from an old snapshot.

use std::time::Duration;

use palisade_test_support::{Error, Etcd, EtcdCluster, EtcdVersion, within};

/// Writes one key a few times and returns the revision after.
async fn write(etcd: &Etcd, times: usize) -> i64 {
    for _ in 0..times {
        etcd.etcdctl(&["put", "key", "value"])
            .await
            .expect("etcd takes a write");
    }
    etcd.revision().await.expect("etcd serves reads")
}

#[tokio::test]
async fn keeps_its_data_over_a_kill() {
    let mut etcd = Etcd::start().await.unwrap();
    let (url, before) = (etcd.url(), write(&etcd, 2).await);
    etcd.kill().unwrap();
    etcd.start_again().await.unwrap();
    assert_eq!((etcd.url(), etcd.revision().await.unwrap()), (url, before));
    etcd.stop().await.unwrap();
    etcd.start_again().await.unwrap();
    assert_eq!(etcd.revision().await.unwrap(), before);
}

async fn goes_back_with_a_snapshot(version: EtcdVersion) {
    let mut etcd = Etcd::builder()
        .version(version)
        .start()
        .await
        .expect("etcd starts");
    let saved_at = write(&etcd, 2).await;
    let snapshot = etcd
        .snapshot_save("early")
        .await
        .expect("a snapshot is saved");
    assert!(write(&etcd, 5).await > saved_at);
    etcd.restore_from(&snapshot)
        .await
        .expect("the snapshot is restored");
    assert_eq!(
        etcd.revision().await.expect("etcd serves"),
        saved_at,
        "the revision went back"
    );
    etcd.wipe().await.expect("etcd starts with no data");
    assert_eq!(
        etcd.revision().await.expect("etcd serves"),
        1,
        "nothing is left"
    );
}

#[tokio::test]
async fn goes_back_with_a_snapshot_3_4() {
    goes_back_with_a_snapshot(EtcdVersion::V3_4).await;
}

#[tokio::test]
async fn goes_back_with_a_snapshot_3_5() {
    goes_back_with_a_snapshot(EtcdVersion::V3_5).await;
}

#[tokio::test]
async fn goes_on_above_with_a_bumped_snapshot() {
    let mut etcd = Etcd::start().await.unwrap();
    let saved_at = write(&etcd, 2).await;
    let snapshot = etcd.snapshot_save("early").await.unwrap();
    etcd.restore_bumped(&snapshot, 1_000).await.unwrap();
    assert!(etcd.revision().await.unwrap() >= saved_at + 1_000);
}

#[tokio::test]
async fn answers_nothing_while_paused() {
    let mut etcd = Etcd::builder().quota_bytes(16 << 20).start().await.unwrap();
    etcd.pause().unwrap();
    let answer = within("an answer", Duration::from_millis(500), etcd.revision()).await;
    assert!(matches!(answer, Err(Error::TimedOut { .. })), "{answer:?}");
    etcd.resume().unwrap();
    assert_eq!(etcd.revision().await.unwrap(), 1);
}

#[tokio::test]
async fn a_cluster_survives_its_leader() {
    let mut etcd = EtcdCluster::start(3).await.unwrap();
    etcd.etcdctl(&["put", "key", "value"]).await.unwrap();
    let first = etcd.leader().await.unwrap();
    etcd.pause(first).unwrap();
    let second = etcd.leader().await.unwrap();
    assert_ne!(first, second);
    etcd.resume(first).unwrap();
    etcd.kill(second).unwrap();
    assert_ne!(etcd.leader().await.unwrap(), second);
    assert!(
        etcd.etcdctl(&["get", "key"])
            .await
            .unwrap()
            .contains("value")
    );
    etcd.start_again(second).await.unwrap();

    let snapshot = etcd.snapshot_save("all").await.unwrap();
    let saved_at = etcd.revision().await.unwrap();
    etcd.etcdctl(&["put", "key", "later"]).await.unwrap();
    etcd.restore_from(&snapshot).await.unwrap();
    assert_eq!(etcd.revision().await.unwrap(), saved_at);
}

#[tokio::test]
async fn one_member_goes_on_alone_when_forced() {
    let mut etcd = EtcdCluster::start(3).await.unwrap();
    // The forced member drops what it does not know to be committed: at most the last of these.
    for value in ["first", "second"] {
        etcd.etcdctl(&["put", "key", value]).await.unwrap();
    }
    etcd.force_new_cluster(1).await.unwrap();
    assert_eq!(etcd.leader().await.unwrap(), 1);
    assert!(
        etcd.etcdctl(&["get", "key"])
            .await
            .unwrap()
            .starts_with("key")
    );
    etcd.etcdctl(&["put", "key", "third"]).await.unwrap();
}

#[tokio::test]
async fn a_full_database_refuses_writes_and_still_starts() {
    let mut etcd = Etcd::builder().quota_bytes(1 << 20).start().await.unwrap();
    let value = "v".repeat(100_000);
    let mut written = 0;
    while etcd
        .etcdctl(&["put", &format!("key{written}"), &value])
        .await
        .is_ok()
    {
        written += 1;
        assert!(written < 100, "10 MB fit into a quota of 1 MiB");
    }
    etcd.start_again().await.unwrap();
    assert!(
        etcd.etcdctl(&["put", "key", &value]).await.is_err(),
        "the alarm is gone"
    );
    etcd.etcdctl(&["get", "key0"]).await.unwrap();
}
