//! F26: etcd's users, whose tokens end at any time (I1–I5, I8).

use std::time::Duration;

use palisade_test_support::{Etcd, EtcdCluster};

use super::stage::{HEALED, Plan, Stage};
use crate::common::rounds;

const ROOT: &str = "--user=root:of a test";
/// Five seconds are few on a busy machine.
const SLOW: &str = "--command-timeout=30s";

/// Users, of whom one may use the keys of coordinators and nothing else.
async fn has_users(etcd: &EtcdCluster) {
    let prefix = "/palisade/v1/";
    let grant = [
        "role",
        "grant-permission",
        "coordinators",
        "readwrite",
        prefix,
        "--prefix=true",
    ];
    let commands: [&[&str]; 7] = [
        &["user", "add", "root:of a test"],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "coordinators"],
        &grant,
        &["user", "add", "palisade:pass word"],
        &["user", "grant-role", "palisade", "coordinators"],
        &["auth", "enable"],
    ];
    for command in commands {
        etcd.etcdctl(command).await.unwrap();
    }
}

/// Tokens of 2 s, changes of users and roles that make those on their way out of date, and an etcd that was started
/// again and knows of no token.
#[tokio::test(flavor = "multi_thread")]
async fn etcds_tokens_end_and_its_users_change() {
    let name = "faults::credentials::etcds_tokens_end_and_its_users_change";
    // Passwords that cost little to check: else a busy machine checks them all the while.
    let etcd = Etcd::builder()
        .arg("--bcrypt-cost=4")
        .arg("--auth-token-ttl=2");
    let etcd = etcd.start_cluster(1).await.unwrap();
    has_users(&etcd).await;
    let home = tempfile::tempdir().unwrap();
    let password = home.path().join("password");
    std::fs::write(&password, "pass word\n").unwrap();
    let file = format!("--etcd-password-file={}", password.display());
    let args = vec!["--etcd-user=palisade".to_owned(), file];
    let plan = Plan {
        args: vec![args.clone(), args],
        user: Some(("root".to_owned(), "of a test".to_owned())),
        ..Plan::default()
    };
    let mut stage = Stage::start(name, etcd, plan).await;
    for round in 0..rounds(1, 6) {
        stage
            .suffers("F26 users", async |stage| {
                for number in 0..rounds(3, 20) {
                    let user = format!("other-{round}-{number}:x");
                    let role = format!("role-{round}-{number}");
                    for added in [["user", "add", &user], ["role", "add", &role]] {
                        let args = [&[ROOT, SLOW][..], &added].concat();
                        stage.etcd.etcdctl(&args).await.unwrap();
                    }
                }
            })
            .await;
        stage
            .suffers("F26 tokens", async |stage| {
                stage
                    .etcd
                    .etcdctl(&[ROOT, "auth", "disable"])
                    .await
                    .unwrap();
                stage.etcd.etcdctl(&["auth", "enable"]).await.unwrap();
                // Longer than an idle token lasts.
                Stage::lasts(Duration::from_secs(3)).await;
                stage.load.all_get_on(HEALED).await;
            })
            .await;
        stage
            .suffers("F26 restart", async |stage| {
                stage.etcd.kill(0).unwrap();
                stage.etcd.start_again(0).await.unwrap();
            })
            .await;
    }
    stage.ends().await;
}
