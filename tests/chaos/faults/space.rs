//! etcd without space: its quota used up, its disk full (I2, I5, I7, I9).

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use palisade_client::{AcquireOptions, Client, ClientError, SessionOptions};
use palisade_test_support::{Etcd, eventually};
use palisade_token::ResourceName;
use tempfile::TempDir;

use super::stage::{HEALED, Plan, Stage};
use crate::common::{LIMIT, rounds};

/// The least that holds what the load needs, and is used up soon.
const QUOTA: u64 = 2 * 1024 * 1024;

/// F14: sessions are renewed and leases released all the while, nothing is granted, and it goes on once there is
/// space.
#[tokio::test(flavor = "multi_thread")]
async fn etcds_space_is_used_up() {
    let name = "faults::space::etcds_space_is_used_up";
    let etcd = Etcd::builder().quota_bytes(QUOTA).start_cluster(1);
    let mut stage = Stage::start(name, etcd.await.unwrap(), Plan::default()).await;
    let client = Client::connect(stage.coordinators[0].addr()).unwrap();
    for _ in 0..rounds(1, 5) {
        let session = client
            .open_session(SessionOptions::default())
            .await
            .unwrap();
        let kept = ResourceName::new("space/kept").unwrap();
        let kept = session.acquire(&kept, AcquireOptions::default()).await;
        let kept = kept.unwrap();
        stage
            .suffers("F14", async |stage| {
                fill(&stage.etcd).await;
                let wanted = ResourceName::new("space/wanted").unwrap();
                let refused = async || {
                    matches!(
                        session.acquire(&wanted, AcquireOptions::default()).await,
                        Err(ClientError::LimitReached { .. })
                    )
                };
                eventually("an acquire is refused", LIMIT, refused)
                    .await
                    .unwrap();
                let before = session.deadline();
                let renewed = async || session.deadline() > before;
                eventually("a renewal", LIMIT, renewed).await.unwrap();
                // Where it is not known what became of an acquire, the mark has to be raised first: that takes space.
                let released = kept.release().await;
                assert!(
                    released
                        .as_ref()
                        .is_ok_and(|done| done.ended_before.is_none())
                        || released.is_err_and(|error| error.may_have_happened())
                );
                free(&stage.etcd).await;
                let name = ResourceName::new("space/kept").unwrap();
                let released = async || {
                    let seen = client.get_lease(&name, 0).await;
                    seen.is_ok_and(|seen| seen.lease.is_none())
                };
                eventually("it is released", LIMIT, released).await.unwrap();
            })
            .await;
        session.close().await.unwrap();
    }
    stage.ends().await;
}

/// Until etcd has raised its alarm.
async fn fill(etcd: &palisade_test_support::EtcdCluster) {
    let junk = "x".repeat(64 * 1024);
    let raised = async || {
        // Refused once it is full.
        let _put = etcd.etcdctl(&["put", "junk", &junk]).await;
        let alarms = etcd.etcdctl(&["alarm", "list"]).await.unwrap();
        alarms.contains("NOSPACE")
    };
    eventually("etcd is full", LIMIT, raised).await.unwrap();
}

/// As etcd's documentation tells operators to.
async fn free(etcd: &palisade_test_support::EtcdCluster) {
    etcd.etcdctl(&["del", "junk"]).await.unwrap();
    let now = etcd.revision().await.unwrap();
    // Not what the test has yet to read of the log: what filled it is far behind.
    etcd.etcdctl(&["compact", &now.to_string()]).await.unwrap();
    etcd.etcdctl(&["defrag"]).await.unwrap();
    etcd.etcdctl(&["alarm", "disarm"]).await.unwrap();
}

/// A file system in memory, small enough to be filled.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// etcd takes two files of 64 MB for its log before it writes anything.
    const SIZE: &str = "size=150m";

    fn mount() -> Self {
        let dir = TempDir::new().unwrap();
        let args = ["-t", "tmpfs", "-o", Self::SIZE, "palisade-small-disk"];
        as_root("mount", &args, dir.path());
        as_root("chmod", &["777"], dir.path());
        Self { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves no byte.
    fn fill(&self) {
        let block = vec![1; 64 * 1024];
        let mut file = fs::File::create(self.path().join("filler")).unwrap();
        for size in [block.len(), 4096, 512] {
            while std::io::Write::write_all(&mut file, &block[..size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        as_root("umount", &["-l"], self.dir.path());
    }
}

/// Mounting takes root.
fn as_root(program: &str, args: &[&str], path: &Path) {
    let is_root = rustix::process::getuid().is_root();
    let mut command = Command::new(if is_root { program } else { "sudo" });
    if !is_root {
        command.args(["-n", program]);
    }
    let output = command.args(args).arg(path).output().unwrap();
    assert!(
        output.status.success(),
        "a small disk needs root, or sudo: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// F15: etcd stops, or goes on, as it likes. Whatever it has acknowledged is there afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn etcds_disk_is_full() {
    let name = "faults::space::etcds_disk_is_full";
    let disk = SmallDisk::mount();
    // Many small snapshots and log files would hide it.
    let etcd = Etcd::builder().data_dir(disk.path()).start_cluster(1);
    let mut stage = Stage::start(name, etcd.await.unwrap(), Plan::default()).await;
    for _ in 0..rounds(1, 4) {
        stage
            .suffers("F15", async |stage| {
                disk.fill();
                // Its database must grow for this, and cannot.
                let junk = "x".repeat(512 * 1024);
                for number in 0..8 {
                    let key = format!("junk/{number}");
                    if stage.etcd.etcdctl(&["put", &key, &junk]).await.is_err() {
                        break;
                    }
                }
                Stage::lasts(Duration::from_secs(2)).await;
                disk.free();
                stage.etcd.start_again(0).await.unwrap();
                stage
                    .etcd
                    .etcdctl(&["del", "junk/", "--prefix"])
                    .await
                    .unwrap();
            })
            .await;
    }
    stage.load.all_get_on(HEALED).await;
    stage.ends().await;
    drop(disk);
}
