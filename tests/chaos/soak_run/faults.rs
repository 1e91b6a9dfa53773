//! What is broken, one thing at a time, each mended before the next.

use std::collections::BTreeMap;
use std::time::Duration;

use palisade_test_support::within;

use crate::rig::{Rig, STEADY};
use crate::{Failed, sleep};

/// Longer than the shortest TTL.
const LONG: Duration = Duration::from_secs(8);
const SHORT: Duration = Duration::from_secs(3);
/// For a member or a coordinator to be back; longer than an election on a busy machine.
const BACK: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// kill -9, started again.
    CoordinatorKilled,
    /// SIGTERM, started again.
    CoordinatorDrained,
    /// SIGSTOP, of the one that is never killed.
    CoordinatorFrozen,
    /// kill -9, started again.
    EtcdLeaderKilled,
    EtcdLeaderFrozen,
    EtcdFollowerKilled,
    /// Connections reset, new ones refused.
    EtcdLinkCut,
    /// Nothing gets through, and nothing ends.
    EtcdLinkSilent,
    EtcdRepliesLost,
    ClientLinkCut,
    ClientLinkSilent,
    ClientRepliesLost,
    WorkerKilled,
    /// For longer than its sessions' TTL.
    WorkerFrozen,
    /// PostgreSQL ends the sessions of all writers.
    WritersEnded,
}

/// In turn: what is hard on the same part is apart.
const TURN: [Fault; 15] = [
    Fault::CoordinatorKilled,
    Fault::EtcdLinkCut,
    Fault::WorkerKilled,
    Fault::EtcdLeaderKilled,
    Fault::ClientLinkCut,
    Fault::WritersEnded,
    Fault::EtcdLinkSilent,
    Fault::WorkerFrozen,
    Fault::CoordinatorDrained,
    Fault::EtcdFollowerKilled,
    Fault::ClientRepliesLost,
    Fault::CoordinatorFrozen,
    Fault::EtcdRepliesLost,
    Fault::EtcdLeaderFrozen,
    Fault::ClientLinkSilent,
];

/// How long the work goes on before the first look: what is made once is made then.
pub(crate) fn warm_up(churn: Duration) -> Duration {
    (churn / 20).clamp(Duration::from_secs(20), Duration::from_secs(90))
}

/// Which fault comes next, and which have come.
#[derive(Debug)]
pub(crate) struct Faults {
    /// From the end of one to the next.
    pub(crate) every: Duration,
    pub(crate) struck: BTreeMap<String, u64>,
    next: usize,
}

impl Faults {
    pub(crate) fn new(churn: Duration) -> Self {
        let every = (churn / 60).clamp(Duration::from_secs(2), Duration::from_secs(12));
        Self {
            every,
            struck: BTreeMap::new(),
            next: 0,
        }
    }

    pub(crate) fn next(&mut self) -> Fault {
        let fault = TURN[self.next % TURN.len()];
        self.next += 1;
        *self.struck.entry(format!("{fault:?}")).or_default() += 1;
        fault
    }

    /// Breaks, waits, mends.
    pub(crate) async fn strike(&self, rig: &mut Rig, fault: Fault) -> Result<(), Failed> {
        // A different member, link, worker at every turn.
        let turn = self.next / TURN.len();
        match fault {
            Fault::CoordinatorKilled => {
                rig.mortal.kill()?;
                sleep(SHORT).await;
                rig.mortal.start_again().await?;
            }
            Fault::CoordinatorDrained => {
                let _status = rig.mortal.terminate().await?;
                rig.mortal.start_again().await?;
            }
            Fault::CoordinatorFrozen => {
                rig.steady.pause()?;
                sleep(if turn.is_multiple_of(4) { LONG } else { SHORT }).await;
                rig.steady.resume()?;
            }
            Fault::EtcdLeaderKilled | Fault::EtcdLeaderFrozen | Fault::EtcdFollowerKilled => {
                in_etcd(rig, fault).await?;
            }
            Fault::EtcdLinkCut | Fault::EtcdLinkSilent | Fault::EtcdRepliesLost => {
                let link = &rig.etcd_links[turn % rig.etcd_links.len()];
                break_link(link, fault).await?;
            }
            Fault::ClientLinkCut | Fault::ClientLinkSilent | Fault::ClientRepliesLost => {
                break_link(&rig.doors[turn % 2], fault).await?;
            }
            Fault::WorkerKilled => {
                let mortals = rig.workers.len() - 1;
                rig.replace(STEADY + 1 + turn % mortals)?;
            }
            Fault::WorkerFrozen => {
                let number = turn % rig.workers.len();
                rig.workers[number].process.pause()?;
                sleep(LONG).await;
                rig.workers[number].process.resume()?;
            }
            Fault::WritersEnded => {
                let text = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
                sqlx::query(text).execute(&rig.admin).await?;
            }
        }
        Ok(())
    }
}

async fn in_etcd(rig: &mut Rig, fault: Fault) -> Result<(), Failed> {
    let leader = rig.etcd.leader().await?;
    match fault {
        Fault::EtcdLeaderFrozen => {
            rig.etcd.pause(leader)?;
            sleep(SHORT).await;
            rig.etcd.resume(leader)?;
        }
        _ => {
            let follower = (leader + 1) % rig.etcd.size();
            let is_leader = fault == Fault::EtcdLeaderKilled;
            let member = if is_leader { leader } else { follower };
            rig.etcd.kill(member)?;
            sleep(SHORT).await;
            within(
                "a member of etcd is back",
                BACK,
                rig.etcd.start_again(member),
            )
            .await??;
        }
    }
    Ok(())
}

async fn break_link(link: &palisade_test_support::Proxy, fault: Fault) -> Result<(), Failed> {
    match fault {
        Fault::EtcdLinkSilent | Fault::ClientLinkSilent => link.blackhole(),
        Fault::EtcdRepliesLost | Fault::ClientRepliesLost => link.drop_replies(),
        _ => link.cut().await?,
    }
    sleep(SHORT).await;
    link.heal().await?;
    Ok(())
}
