use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::member::{Member, Plan};
use super::programs::Programs;
use super::{EtcdBuilder, EtcdVersion};
use crate::clock::Wait;
use crate::home::Home;
use crate::{Error, program};

/// A clash needs another program on a port that was free a moment ago: twice is no coincidence.
const START_ATTEMPTS: usize = 3;

/// Elections take about a second, after one missed heartbeat period.
const LEADER_LIMIT: Duration = Duration::from_secs(30);

/// Several etcd servers that form one cluster; members are named by index, from 0.
///
/// # Example
///
/// ```no_run
/// # async fn test() -> Result<(), palisade_test_support::Error> {
/// use palisade_test_support::EtcdCluster;
/// let mut etcd = EtcdCluster::start(3).await?;
/// let leader = etcd.leader().await?;
/// etcd.pause(leader)?;
/// assert_ne!(etcd.leader().await?, leader);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct EtcdCluster {
    pub(super) members: Vec<Member>,
    pub(super) plan: Plan,
    version: EtcdVersion,
    /// For what belongs to no member: snapshots.
    pub(super) home: Home,
}

impl EtcdCluster {
    /// Starts `size` servers of etcd 3.5.
    ///
    /// # Errors
    ///
    /// As [`EtcdBuilder::start`].
    pub async fn start(size: usize) -> Result<Self, Error> {
        EtcdBuilder::default().start_cluster(size).await
    }

    pub(super) async fn start_with(builder: EtcdBuilder, size: usize) -> Result<Self, Error> {
        let home = Home::new("etcd")?;
        let programs = Programs::find(builder.version).await?;
        let token = home
            .path()
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let members = (0..size)
            .map(|index| {
                let name = format!("m{index}");
                let data = builder.data_dir.as_ref().map(|dir| dir.join(&name));
                Member::new(name, data, builder.tls.is_some())
            })
            .collect::<Result<_, _>>()?;
        let plan = Plan {
            programs,
            args: builder.args,
            token,
            tls: builder.tls,
            peer_links: builder.peer_links,
        };
        let mut cluster = Self {
            members,
            plan,
            version: builder.version,
            home,
        };
        cluster.link_peers().await?;
        for _ in 1..START_ATTEMPTS {
            match cluster.start_all_again().await {
                Err(error) if error.is_port_clash() => {
                    cluster.move_away()?;
                    cluster.link_peers().await?;
                }
                result => return result.map(|()| cluster),
            }
        }
        cluster.start_all_again().await.map(|()| cluster)
    }

    /// How many members it has, running or not.
    #[must_use]
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// Which etcd this is.
    #[must_use]
    pub fn version(&self) -> EtcdVersion {
        self.version
    }

    /// The client URLs of all members, in order.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::url).collect()
    }

    /// The client URL of a member, the same over restarts.
    ///
    /// # Panics
    ///
    /// When there is no such member; so do all functions that take one.
    #[must_use]
    pub fn url(&self, member: usize) -> String {
        self.members[member].url()
    }

    /// The client address of a member, to put a proxy before.
    #[must_use]
    pub fn host_port(&self, member: usize) -> String {
        self.members[member].host_port()
    }

    /// Kills a member with SIGKILL.
    ///
    /// # Errors
    ///
    /// As [`Process::kill`](crate::Process::kill).
    pub fn kill(&mut self, member: usize) -> Result<(), Error> {
        self.members[member].kill()
    }

    /// Kills every member.
    ///
    /// # Errors
    ///
    /// As [`Process::kill`](crate::Process::kill).
    pub fn kill_all(&mut self) -> Result<(), Error> {
        self.members.iter_mut().try_for_each(Member::kill)
    }

    /// Stops a member by SIGTERM.
    ///
    /// # Errors
    ///
    /// As [`Process::kill`](crate::Process::kill).
    pub async fn stop(&mut self, member: usize) -> Result<(), Error> {
        self.members[member].stop().await
    }

    /// Freezes a member with SIGSTOP.
    ///
    /// # Errors
    ///
    /// As [`Process::pause`](crate::Process::pause).
    pub fn pause(&mut self, member: usize) -> Result<(), Error> {
        self.members[member].process()?.pause()
    }

    /// Lets a member run on.
    ///
    /// # Errors
    ///
    /// As [`Process::pause`](crate::Process::pause).
    pub fn resume(&mut self, member: usize) -> Result<(), Error> {
        self.members[member].process()?.resume()
    }

    /// Starts a member again on the same data and ports; returns when it serves linearizable reads, so
    /// there must be a quorum. One that still runs is killed.
    ///
    /// # Errors
    ///
    /// [`Error::Exited`] or [`Error::TimedOut`] when it does not come up.
    pub async fn start_again(&mut self, member: usize) -> Result<(), Error> {
        let entries = self.entries();
        self.members[member].launch(&self.plan, &entries, &[])?;
        self.members[member].ready().await
    }

    /// [`EtcdCluster::start_again`] for every member at once.
    ///
    /// # Errors
    ///
    /// As [`EtcdCluster::start_again`].
    pub async fn start_all_again(&mut self) -> Result<(), Error> {
        let entries = self.entries();
        for member in &mut self.members {
            member.launch(&self.plan, &entries, &[])?;
        }
        for member in &mut self.members {
            member.ready().await?;
        }
        Ok(())
    }

    /// The member that leads: waits until exactly one of those that answer says so.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when nobody leads, for want of a quorum say.
    pub async fn leader(&self) -> Result<usize, Error> {
        let wait = Wait::new("a leader", LEADER_LIMIT);
        loop {
            let mut leaders = Vec::new();
            for (index, member) in self.members.iter().enumerate() {
                if member.says_it_leads().await == Some(true) {
                    leaders.push(index);
                }
            }
            if let [leader] = leaders[..] {
                return Ok(leader);
            }
            wait.tick().await?;
        }
    }

    /// Saves a snapshot, taken from the first member that is there, to a new file; returns its path.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when no member serves, or the name is taken.
    pub async fn snapshot_save(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.home.path().join(format!("{name}.snapshot"));
        if path.exists() {
            return Err(Error::Unexpected(format!(
                "there is a snapshot {name} already"
            )));
        }
        // It takes exactly one endpoint.
        let mut last = Err(Error::Unexpected("the cluster has no members".to_owned()));
        for member in &self.members {
            let mut etcdctl = self.plan.etcdctl();
            etcdctl
                .args(["--endpoints", &member.url(), "snapshot", "save"])
                .arg(&path);
            last = program::run(etcdctl).await;
            if last.is_ok() {
                break;
            }
        }
        last.map(|_said| path)
    }

    /// Kills all members, replaces their data by the snapshot's under the same names, URLs and token (so
    /// the same cluster id), and starts them again: revisions go back, released leases revive.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when the file is no snapshot, else as [`EtcdCluster::start_again`].
    pub async fn restore_from(&mut self, snapshot: &Path) -> Result<(), Error> {
        self.restore(snapshot, &[]).await
    }

    /// [`EtcdCluster::restore_from`] with revisions raised by `bump` (`--bump-revision`).
    ///
    /// # Errors
    ///
    /// [`Error::Command`] also where this etcd cannot (before 3.4.27 and 3.5.10).
    pub async fn restore_bumped(&mut self, snapshot: &Path, bump: u64) -> Result<(), Error> {
        let args = [
            "--bump-revision".to_owned(),
            bump.to_string(),
            "--mark-compacted".to_owned(),
        ];
        self.restore(snapshot, &args).await
    }

    async fn restore(&mut self, snapshot: &Path, args: &[String]) -> Result<(), Error> {
        let entries = self.entries();
        self.kill_all()?;
        for member in &self.members {
            member.restore(&self.plan, &entries, snapshot, args).await?;
        }
        self.start_all_again().await
    }

    /// Kills all members and starts them again with no data, under the same names, URLs and token.
    ///
    /// # Errors
    ///
    /// As [`EtcdCluster::start_again`].
    pub async fn wipe(&mut self) -> Result<(), Error> {
        self.kill_all()?;
        self.members.iter().try_for_each(Member::wipe)?;
        self.start_all_again().await
    }

    /// Kills all members and starts one again, alone on its data, with `--force-new-cluster`.
    ///
    /// # Errors
    ///
    /// As [`EtcdCluster::start_again`].
    pub async fn force_new_cluster(&mut self, member: usize) -> Result<(), Error> {
        let entries = self.entries();
        self.kill_all()?;
        self.members[member].launch(&self.plan, &entries, &["--force-new-cluster"])?;
        self.members[member].ready().await
    }

    /// Runs `etcdctl` with all members as endpoints and returns what it prints.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] with its message.
    pub async fn etcdctl(&self, args: &[&str]) -> Result<String, Error> {
        program::run(self.etcdctl_command(args)).await
    }

    /// The command that [`EtcdCluster::etcdctl`] runs, for what is to run on: `lock`, `lease keep-alive`.
    #[must_use]
    pub fn etcdctl_command(&self, args: &[&str]) -> Command {
        // A learner serves hardly anything.
        let voters = self.members.iter().filter(|member| !member.is_learner());
        let voters: Vec<_> = voters.map(Member::url).collect();
        let mut etcdctl = self.plan.etcdctl();
        etcdctl.args(["--endpoints", &voters.join(",")]).args(args);
        etcdctl
    }

    /// The store's revision, by a linearizable read.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when there is no quorum.
    pub async fn revision(&self) -> Result<i64, Error> {
        let answer = self.etcdctl(&["get", "any-key", "-w", "json"]).await?;
        let digits = answer
            .split(r#""revision":"#)
            .nth(1)
            .and_then(|rest| rest.split([',', '}']).next());
        digits
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| Error::Unexpected(format!("no revision in {answer:?}")))
    }

    async fn link_peers(&mut self) -> Result<(), Error> {
        if self.plan.peer_links {
            for member in &mut self.members {
                member.link_peers().await?;
            }
        }
        Ok(())
    }

    pub(super) fn entries(&self) -> String {
        let entries: Vec<_> = self.members.iter().map(Member::peer_entry).collect();
        entries.join(",")
    }

    fn move_away(&mut self) -> Result<(), Error> {
        self.kill_all()?;
        self.members.iter_mut().try_for_each(Member::move_away)
    }
}
