//! The same with etcd's own lock, as `etcdctl lock` has it: the Go client's session and mutex, which etcd's Lock RPC
//! is made of, too.

use std::process::Stdio;
use std::time::{Duration, Instant};

use palisade_test_support::{EtcdCluster, eventually, within};
use palisade_token::ResourceName;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use super::{LIMIT, ON_ITS_WAY, Times, free, since};
use crate::field::TTL;
use crate::hand::mortal;
use crate::workload::Failed;

/// An `etcdctl` that runs on.
struct Tool {
    child: Child,
    words: Lines<BufReader<ChildStdout>>,
}

impl Tool {
    fn start(etcd: &EtcdCluster, args: &[&str]) -> Result<Self, Failed> {
        let mut child = mortal(&etcd.etcdctl_command(args))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let words = child.stdout.take().ok_or("etcdctl without stdout")?;
        Ok(Self {
            child,
            words: BufReader::new(words).lines(),
        })
    }

    /// The next line that is not empty; nothing once it has ended.
    async fn hear(&mut self) -> Result<Option<String>, Failed> {
        loop {
            match self.words.next_line().await? {
                Some(line) if line.is_empty() => {}
                line => return Ok(line),
            }
        }
    }
}

/// A holder and the next in the queue, each a process, and a lease that is kept alive by another.
pub(super) struct Scene {
    holder: Tool,
    /// The holder's key: deleting it is the release.
    key: String,
    waiter: Tool,
    keeper: Tool,
}

impl Scene {
    pub(super) async fn set(etcd: &EtcdCluster, name: &ResourceName) -> Result<Self, Failed> {
        let name = format!("/{name}");
        let ttl = format!("--ttl={}", TTL.as_secs());
        let mut holder = Tool::start(etcd, &["lock", &name, &ttl])?;
        let key = within("etcd's lock", LIMIT, holder.hear()).await??;
        let key = key.ok_or("etcdctl lock has ended")?;
        let waiter = Tool::start(etcd, &["lock", &name, &ttl])?;
        let prefix = format!("{name}/");
        let queued = async || {
            let keys = etcd
                .etcdctl(&["get", "--prefix", "--keys-only", &prefix])
                .await;
            keys.is_ok_and(|keys| keys.lines().filter(|line| !line.is_empty()).count() == 2)
        };
        eventually("a place in the queue of etcd's lock", LIMIT, queued).await?;
        let granted = etcd
            .etcdctl(&["lease", "grant", &TTL.as_secs().to_string()])
            .await?;
        let lease = granted
            .split_whitespace()
            .nth(1)
            .ok_or("no lease granted")?;
        let mut keeper = Tool::start(etcd, &["lease", "keep-alive", lease])?;
        within("a renewal", LIMIT, keeper.hear()).await??;
        Ok(Self {
            holder,
            key,
            waiter,
            keeper,
        })
    }

    pub(super) async fn kill_holder(&mut self) -> Result<(), Failed> {
        Ok(self.holder.child.kill().await?)
    }

    pub(super) async fn next_grant(mut self, killed: Instant) -> Result<Option<Duration>, Failed> {
        granted(&mut self.waiter, killed).await
    }

    /// From the kill on the lock is released, another client takes a free one, and the keeper renews.
    pub(super) async fn times(
        mut self,
        etcd: &EtcdCluster,
        killed: Instant,
        name: &ResourceName,
    ) -> Result<Times, Failed> {
        let release = async {
            // Tried again until it is done, as Palisade's client does by itself.
            let released = async || {
                let args = ["--command-timeout=2s", "del", &self.key];
                etcd.etcdctl(&args).await.is_ok()
            };
            // Where that never is, the waiter tells.
            drop(eventually("a release of etcd's lock", LIMIT, released).await);
            Ok::<_, Failed>(())
        };
        let next = async {
            let (_, time) = tokio::try_join!(release, granted(&mut self.waiter, killed))?;
            Ok::<_, Failed>(time)
        };
        let free = format!("/{}", free(name)?);
        let newcomer = acquire_anew(etcd, &free, killed);
        let (next_grant, new_acquire, holder_renewed) =
            tokio::try_join!(next, newcomer, renewed(&mut self.keeper, killed))?;
        Ok(Times {
            next_grant,
            new_acquire,
            holder_renewed,
        })
    }
}

async fn granted(waiter: &mut Tool, killed: Instant) -> Result<Option<Duration>, Failed> {
    match within("a grant of etcd's lock", LIMIT, waiter.hear()).await {
        Ok(line) => Ok(line?.map(|_key| since(killed))),
        Err(_late) => Ok(None),
    }
}

/// Tries until it has it.
async fn acquire_anew(
    etcd: &EtcdCluster,
    name: &str,
    killed: Instant,
) -> Result<Option<Duration>, Failed> {
    let ttl = format!("--ttl={}", TTL.as_secs());
    let acquired = async {
        loop {
            let mut tool = Tool::start(etcd, &["lock", name, &ttl])?;
            if tool.hear().await?.is_some() {
                let time = since(killed);
                tool.child.kill().await?;
                return Ok::<_, Failed>(time);
            }
        }
    };
    match within("an acquire of etcd's lock", LIMIT, acquired).await {
        Ok(time) => time.map(Some),
        Err(_late) => Ok(None),
    }
}

/// Until the keeper hears of a renewal again; never, if it gives up.
async fn renewed(keeper: &mut Tool, killed: Instant) -> Result<Option<Duration>, Failed> {
    let heard = async {
        loop {
            let said = keeper.hear().await?;
            let lives = said.is_some_and(|line| line.contains("keepalived with TTL"));
            match since(killed) {
                _ if !lives => return Ok::<_, Failed>(None),
                time if time > ON_ITS_WAY => return Ok(Some(time)),
                _ => {}
            }
        }
    };
    match within("a renewal", LIMIT, heard).await {
        Ok(time) => time,
        Err(_late) => Ok(None),
    }
}
