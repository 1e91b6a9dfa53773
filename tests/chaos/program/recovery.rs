//! How long it takes from a kill -9 until work goes on, beside etcd's own lock under the same kills.

mod etcd_lock;
mod figures;
mod palisade;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use fastrand::Rng;
use palisade_test_support::{Coordinator, Error, EtcdCluster};
use palisade_token::ResourceName;

use crate::clock;
use crate::field::TTL;
use crate::workload::Failed;
use figures::{Figures, Kill, Probe, System};

const MEMBERS: usize = 3;
const COORDINATORS: usize = 3;
/// Many times what the slowest of them takes; who takes longer has not recovered.
const LIMIT: Duration = Duration::from_secs(60);
/// An answer that was on its way before the kill is no recovery.
const ON_ITS_WAY: Duration = Duration::from_millis(20);
/// Restarted servers on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each kill is made.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// What decides at which moment between two renewals a kill strikes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also writes the figures to a file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Three etcd members and three coordinators, for all rounds.
struct Site {
    etcd: EtcdCluster,
    coordinators: Vec<Coordinator>,
}

/// When each thing that was waited for came, if it did.
#[derive(Debug, Default, Clone, Copy)]
struct Times {
    next_grant: Option<Duration>,
    new_acquire: Option<Duration>,
    holder_renewed: Option<Duration>,
}

/// Returns whether Palisade recovered each time, and never gave a lower token.
pub(crate) async fn run(options: Options) -> Result<bool, Failed> {
    println!(
        "recovery from kill -9: {} rounds, TTL {} s, {MEMBERS} etcd members, {COORDINATORS} coordinators, \
         seed {}",
        options.rounds,
        TTL.as_secs(),
        options.seed
    );
    let mut site = Site::set().await?;
    let mut rng = Rng::with_seed(options.seed);
    let mut figures = Figures::default();
    for round in 0..options.rounds {
        for kill in Kill::ALL {
            // Anywhere between two renewals.
            let phase = rng.u64(0..u64::try_from(TTL.as_millis() / 3)?);
            let phase = Duration::from_millis(phase);
            match kill {
                Kill::Holder => Box::pin(site.holder(round, phase, &mut figures)).await?,
                Kill::Coordinator => Box::pin(site.coordinator(round, phase, &mut figures)).await?,
                Kill::Follower | Kill::Leader => {
                    Box::pin(site.member(kill, round, phase, &mut figures)).await?;
                }
            }
            site.settle().await?;
        }
        println!("round {} of {}", round + 1, options.rounds);
    }
    figures.print();
    if let Some(file) = &options.json {
        fs::write(
            file,
            format!("{:#}\n", figures.to_json(options.rounds, options.seed)),
        )?;
    }
    Ok(figures.holds())
}

impl Site {
    async fn set() -> Result<Self, Failed> {
        let etcd = EtcdCluster::start(MEMBERS).await?;
        let mut coordinators = Vec::new();
        for _ in 0..COORDINATORS {
            let builder = Coordinator::builder().etcd(&etcd.endpoints());
            coordinators.push(builder.start().await?);
        }
        Ok(Self { etcd, coordinators })
    }

    fn addresses(&self) -> Vec<String> {
        self.coordinators.iter().map(Coordinator::addr).collect()
    }

    /// Both holders die at once; their leases run out.
    async fn holder(
        &self,
        round: u32,
        phase: Duration,
        figures: &mut Figures,
    ) -> Result<(), Failed> {
        let name = resource(Kill::Holder, round)?;
        let mut ours = palisade::Abandoned::set(&self.addresses(), &name).await?;
        let mut theirs = etcd_lock::Scene::set(&self.etcd, &name).await?;
        clock::pause(phase).await;
        let killed = clock::now();
        ours.kill_holder().await?;
        theirs.kill_holder().await?;
        let (ours, theirs) = tokio::join!(ours.next_grant(killed), theirs.next_grant(killed));
        figures.add(Kill::Holder, System::Palisade, Probe::NextGrant, ours?);
        figures.add(Kill::Holder, System::EtcdLock, Probe::NextGrant, theirs?);
        Ok(())
    }

    /// The coordinator that the holder is attached to; etcd's lock has no such thing.
    async fn coordinator(
        &mut self,
        round: u32,
        phase: Duration,
        figures: &mut Figures,
    ) -> Result<(), Failed> {
        let name = resource(Kill::Coordinator, round)?;
        let scene = palisade::Scene::set(&self.addresses(), &name).await?;
        clock::pause(phase).await;
        let serving = scene.served_by;
        let killed = clock::now();
        self.coordinators[serving].kill()?;
        let times = scene.times(killed, &name).await?;
        figures.add_all(Kill::Coordinator, System::Palisade, times);
        Ok(self.coordinators[serving].start_again().await?)
    }

    /// A member of etcd, under both at once.
    async fn member(
        &mut self,
        kill: Kill,
        round: u32,
        phase: Duration,
        figures: &mut Figures,
    ) -> Result<(), Failed> {
        let name = resource(kill, round)?;
        let ours = palisade::Scene::set(&self.addresses(), &name).await?;
        let theirs = etcd_lock::Scene::set(&self.etcd, &name).await?;
        clock::pause(phase).await;
        let leader = self.etcd.leader().await?;
        let member = match kill {
            Kill::Leader => leader,
            _ => (leader + 1) % MEMBERS,
        };
        let killed = clock::now();
        self.etcd.kill(member)?;
        let (ours, theirs) = tokio::join!(
            ours.times(killed, &name),
            theirs.times(&self.etcd, killed, &name)
        );
        figures.add_all(kill, System::Palisade, ours?);
        figures.add_all(kill, System::EtcdLock, theirs?);
        Ok(self.etcd.start_again(member).await?)
    }

    /// All of it is there again before the next round.
    async fn settle(&mut self) -> Result<(), Error> {
        self.etcd.leader().await?;
        for coordinator in &mut self.coordinators {
            coordinator.ready(READY_LIMIT).await?;
        }
        Ok(())
    }
}

fn resource(kill: Kill, round: u32) -> Result<ResourceName, Failed> {
    Ok(ResourceName::new(format!(
        "recovery/{}/{round}",
        kill.word()
    ))?)
}

/// The same, for what nobody holds yet.
fn free(name: &ResourceName) -> Result<ResourceName, Failed> {
    Ok(ResourceName::new(format!("{name}/free"))?)
}

fn since(killed: Instant) -> Duration {
    clock::now().saturating_duration_since(killed)
}
