//! What becomes of a cluster while it runs: members come, go and lose each other; and its data is put aside.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::EtcdCluster;
use super::member::Member;
use crate::{Error, eventually};

/// etcd changes its members only once all of them have been connected to each other for five seconds; on a busy machine
/// later.
const CHANGE_LIMIT: Duration = Duration::from_secs(30);

impl EtcdCluster {
    /// Parts a member from all others, which go on reaching each other: nothing gets through either way, and
    /// nothing is ended. Clients reach it as before. Only with [`EtcdBuilder::peer_links`](super::EtcdBuilder::peer_links),
    /// and on Linux.
    ///
    /// # Errors
    ///
    /// [`Error::Unexpected`] without links between members.
    pub fn part(&mut self, member: usize) -> Result<(), Error> {
        let process = self.members[member].process()?.id();
        for (index, other) in self.members.iter().enumerate() {
            match index == member {
                true => other.link()?.blackhole(),
                false => other.link()?.bar(process),
            }
        }
        Ok(())
    }

    /// Lets all members reach each other again.
    ///
    /// # Errors
    ///
    /// As [`EtcdCluster::part`].
    pub async fn rejoin(&self) -> Result<(), Error> {
        for member in &self.members {
            member.link()?.heal().await?;
        }
        Ok(())
    }

    /// Adds a member, a learner or one that votes, and starts it; returns its index when it serves.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when etcd refuses it, else as [`EtcdCluster::start_again`].
    pub async fn add(&mut self, learner: bool) -> Result<usize, Error> {
        let index = self.members.len();
        // No name is used twice: m3, m4 and so on, whoever has gone.
        let number = |member: &Member| member.name().trim_start_matches('m').parse().unwrap_or(0);
        let next = self.members.iter().map(number).max().unwrap_or(0_usize) + 1;
        let mut member = Member::new(format!("m{next}"), None, self.plan.tls.is_some())?;
        if self.plan.peer_links {
            member.link_peers().await?;
        }
        let url = format!("--peer-urls={}", member.peer_url());
        let mut args = vec!["member", "add", member.name(), &url];
        args.extend(learner.then_some("--learner"));
        self.change(&args).await?;
        member.set_learner(learner);
        self.members.push(member);
        let entries = self.entries();
        let existing = ["--initial-cluster-state", "existing"];
        self.members[index].launch(&self.plan, &entries, &existing)?;
        self.members[index].ready().await?;
        Ok(index)
    }

    /// Lets a learner vote. It must have caught up.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when it has not, or is no learner.
    pub async fn promote(&mut self, member: usize) -> Result<(), Error> {
        let id = self.id(member).await?;
        self.etcdctl(&["member", "promote", &id]).await?;
        self.members[member].set_learner(false);
        Ok(())
    }

    /// Removes a member for good, running or not, and kills it. The index of each one after it is one less then.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when etcd refuses it.
    pub async fn remove(&mut self, member: usize) -> Result<(), Error> {
        let id = self.id(member).await?;
        self.change(&["member", "remove", &id]).await?;
        self.members[member].kill()?;
        self.members.remove(member);
        Ok(())
    }

    /// Copies the data of the members, none of which may run, to a new directory, and returns it: another etcd
    /// can be started on it ([`EtcdBuilder::data_dir`](super::EtcdBuilder::data_dir)), which then has their history.
    /// Of use for a cluster of one.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be copied.
    pub fn copy_data(&self, name: &str) -> Result<PathBuf, Error> {
        let copy = self.home.path().join(name);
        for member in &self.members {
            copy_dir(member.data(), &copy.join(member.name()))
                .map_err(Error::io("copy the data of an etcd"))?;
        }
        Ok(copy)
    }

    async fn change(&self, args: &[&str]) -> Result<(), Error> {
        let mut refused = None;
        let is_done = async || match self.etcdctl(args).await {
            Ok(_) => true,
            Err(error) => {
                refused = Some(error);
                false
            }
        };
        let done = eventually("etcd changes its members", CHANGE_LIMIT, is_done).await;
        done.map_err(|late| refused.unwrap_or(late))
    }

    async fn id(&self, member: usize) -> Result<String, Error> {
        let name = self.members[member].name();
        let list = self.etcdctl(&["member", "list"]).await?;
        let id = list.lines().find_map(|line| {
            let mut fields = line.split(", ");
            let id = fields.next()?;
            (fields.nth(1)? == name).then(|| id.to_owned())
        });
        id.ok_or_else(|| Error::Unexpected(format!("{name} is no member: {list}")))
    }
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
