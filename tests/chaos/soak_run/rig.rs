//! The servers and the workers, and the phases that they go through.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use palisade_guard::postgres::Guard;
use palisade_test_support::{Coordinator, EtcdCluster, Postgres, Process, Proxy, eventually};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::faults::{Fault, Faults};
use crate::judge::Sample;
use crate::sample::Recorder;
use crate::work::{DELAYED, name};
use crate::worker::{Order, Phase, Plant, Status};
use crate::{Failed, Plan, judge, now, report, sleep};

/// How often it is looked at what there is.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// For workers to end what they do, and for what they left to run out: TTLs, lock-delays, an election in between.
const REST_LIMIT: Duration = Duration::from_secs(180);
/// How long threads, connections and tasks that are done with may stay: the runtime keeps idle threads for 10 s, etcd's
/// keepalive streams and our own pages are closed within their own limits.
const SETTLE_LIMIT: Duration = Duration::from_secs(90);
/// The worker of this number lives as long as the soak; the others are killed and frozen.
pub(crate) const STEADY: usize = 0;
const WORKERS: usize = 3;

/// Everything that the soak started.
pub(crate) struct Rig {
    pub(crate) etcd: EtcdCluster,
    /// Before each member of etcd, as the coordinators see it.
    pub(crate) etcd_links: Vec<Proxy>,
    /// Lives as long as the soak.
    pub(crate) steady: Coordinator,
    /// Is killed, drained and started again.
    pub(crate) mortal: Coordinator,
    /// Before each coordinator, as clients see it.
    pub(crate) doors: [Proxy; 2],
    pub(crate) admin: PgPool,
    pub(crate) workers: Vec<Worker>,
    pub(crate) postgres: Postgres,
    dir: tempfile::TempDir,
    recorder: Recorder,
    /// What killed workers had done, and failed to do.
    pub(crate) done_by_the_dead: Vec<Status>,
}

/// A worker process and how to start it again.
pub(crate) struct Worker {
    pub(crate) process: Process,
    order: Order,
}

impl Worker {
    fn start(order: Order) -> Result<Self, Failed> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(order.args());
        let log = order.dir.join(format!("{}.log", order.name));
        let process = Process::spawn(&order.name, &command, &log)?;
        Ok(Self { process, order })
    }

    pub(crate) fn status(&self) -> Option<Status> {
        Status::read(&self.order.status_file())
    }
}

/// What was seen while things were broken.
pub(crate) struct Churned {
    pub(crate) samples: Vec<Sample>,
    pub(crate) faults: Faults,
}

/// What all workers have done.
pub(crate) struct Work {
    pub(crate) counts: std::collections::BTreeMap<String, u64>,
    pub(crate) failures: u64,
}

impl Rig {
    pub(crate) async fn start(plan: &Plan) -> Result<Self, Failed> {
        report::says("starting etcd, PostgreSQL and coordinators");
        // Killed processes lose nothing that the kernel has; a disk that others use is spared.
        let etcd = palisade_test_support::Etcd::builder()
            .arg("--unsafe-no-fsync")
            .arg("--auto-compaction-mode=revision")
            .arg("--auto-compaction-retention=2000")
            .start_cluster(3)
            .await?;
        let mut etcd_links = Vec::new();
        for member in 0..etcd.size() {
            etcd_links.push(Proxy::start(&etcd.host_port(member)).await?);
        }
        let urls: Vec<_> = etcd_links.iter().map(Proxy::url).collect();
        let coordinator = || {
            Coordinator::builder()
                .etcd(&urls)
                .env("PALISADE_LOG", "warn")
        };
        let (steady, mortal) = (coordinator().start().await?, coordinator().start().await?);
        let doors = [
            Proxy::start(&steady.addr()).await?,
            Proxy::start(&mortal.addr()).await?,
        ];
        let postgres = Postgres::builder()
            .fsync(false)
            .setting("autovacuum_naptime", "15s")
            .start()
            .await?;
        let admin = PgPoolOptions::new().max_connections(1).min_connections(1);
        let admin = admin.connect(&postgres.url()).await?;
        protect(&admin).await?;
        let dir = tempfile::tempdir()?;
        let mut rig = Self {
            etcd,
            etcd_links,
            steady,
            mortal,
            doors,
            admin,
            workers: Vec::new(),
            postgres,
            dir,
            recorder: Recorder::create(&plan.samples)?,
            done_by_the_dead: Vec::new(),
        };
        for number in 0..WORKERS {
            let order = rig.order(number, plan.plant);
            rig.workers.push(Worker::start(order)?);
        }
        Ok(rig)
    }

    fn order(&self, number: usize, plant: Plant) -> Order {
        let (first, second) = (number % 2, (number + 1) % 2);
        Order {
            name: format!("worker-{number}"),
            dir: PathBuf::from(self.dir.path()),
            coordinators: vec![self.doors[first].url(), self.doors[second].url()],
            postgres: self.postgres.url(),
            plant,
        }
    }

    /// Starts a worker again; what the one before had done is remembered.
    pub(crate) fn replace(&mut self, number: usize) -> Result<(), Failed> {
        let worker = &mut self.workers[number];
        worker.process.kill()?;
        let order = worker.order.clone();
        self.done_by_the_dead.extend(worker.status());
        drop(std::fs::remove_file(order.status_file()));
        self.workers[number] = Worker::start(order)?;
        Ok(())
    }

    /// Everything is loaded, connected and allocated before it is first looked at: every coordinator serves every client
    /// for a while, and every link to etcd is made anew.
    pub(crate) async fn warm_up(&mut self, time: Duration) -> Result<(), Failed> {
        Phase::Work.write(self.dir.path())?;
        self.works_for(time / 4).await?;
        for door in 0..self.doors.len() {
            self.doors[door].cut().await?;
            self.works_for(time / 4).await?;
            self.doors[door].heal().await?;
        }
        for link in 0..self.etcd_links.len() {
            self.etcd_links[link].cut().await?;
            sleep(SAMPLE_EVERY / 5).await;
            self.etcd_links[link].heal().await?;
            self.works_for(time / 12).await?;
        }
        Ok(())
    }

    async fn works_for(&mut self, time: Duration) -> Result<(), Failed> {
        let end = now().after(time);
        while now() < end {
            sleep(SAMPLE_EVERY.min(now().until(end))).await;
            let sample = Sample::take(self).await;
            self.recorder.keep("warm", &sample)?;
        }
        Ok(())
    }

    /// All work ends, in every worker; returns when nothing is left of it in the store.
    pub(crate) async fn rest(&mut self) -> Result<Work, Failed> {
        Phase::Rest.write(self.dir.path())?;
        let resting = async || {
            let is_resting = |worker: &Worker| worker.status().is_some_and(|one| one.is_resting);
            self.workers.iter().all(is_resting)
        };
        eventually("all workers rest", REST_LIMIT, resting).await?;
        let mut work = Work {
            counts: std::collections::BTreeMap::new(),
            failures: 0,
        };
        let statuses = self
            .workers
            .iter()
            .filter_map(Worker::status)
            .collect::<Vec<_>>();
        for status in statuses.iter().chain(&self.done_by_the_dead) {
            work.failures += status.failures;
            for (kind, count) in &status.work {
                *work.counts.entry(kind.clone()).or_default() += count.as_u64().unwrap_or(0);
            }
        }
        self.clear_delayed().await?;
        Ok(work)
    }

    /// What an unclean end leaves of a lease with a lock-delay stays until the resource is released the next time: that
    /// is documented, and done here.
    async fn clear_delayed(&self) -> Result<(), Failed> {
        let client = palisade_client::Client::builder()
            .endpoints([self.steady.addr()])
            .connect()?;
        let session = client
            .open_session(palisade_client::SessionOptions::default())
            .await?;
        for number in 0..DELAYED {
            let options = palisade_client::AcquireOptions::default().wait(REST_LIMIT);
            let options = options.lock_delay(Duration::from_millis(1));
            let lease = session
                .acquire(&name(&format!("delayed/{number}")), options)
                .await?;
            let _released = lease.release().await?;
        }
        session.close().await?;
        if !client.settled(REST_LIMIT).await {
            return Err("the conductor's own session does not end".into());
        }
        Ok(())
    }

    /// How things stand when nothing is under way: what all is compared with.
    pub(crate) async fn baseline(&mut self) -> Result<Sample, Failed> {
        self.rest_until(|sample| judge::left_in_stores(sample).is_empty())
            .await
    }

    /// Waits until all is as it was at `first`, as long as that may take; tells how it stands then.
    pub(crate) async fn settle(&mut self, first: &Sample) -> Result<Sample, Failed> {
        self.rest_until(|sample| judge::leaks(first, sample).is_empty())
            .await
    }

    async fn rest_until(&mut self, is_so: impl Fn(&Sample) -> bool) -> Result<Sample, Failed> {
        let (start, mut seen) = (now(), 0);
        loop {
            self.purge().await?;
            let sample = Sample::take(self).await;
            self.recorder.keep("rest", &sample)?;
            // Idle threads and connections have their time to go, before anything is taken for a baseline.
            let (is_so, waited) = (is_so(&sample), start.until(now()));
            seen += u32::from(is_so);
            if (is_so && seen >= 4 && waited >= SAMPLE_EVERY * 4) || waited >= SETTLE_LIMIT {
                return Ok(sample);
            }
            sleep(SAMPLE_EVERY).await;
        }
    }

    async fn purge(&self) -> Result<(), Failed> {
        if self
            .workers
            .iter()
            .all(|worker| worker.order.plant != Plant::Rows)
        {
            Guard::new().purge_effects(&self.admin, 100_000).await?;
        }
        Ok(())
    }

    /// Work and faults, one at a time, for so long.
    pub(crate) async fn churn(&mut self, time: Duration) -> Result<Churned, Failed> {
        Phase::Work.write(self.dir.path())?;
        let end = now().after(time);
        let mut faults = Faults::new(time);
        let (mut samples, mut sampled) = (Vec::new(), now());
        let mut next_fault = now().after(faults.every);
        while now() < end {
            sleep(Duration::from_millis(250)).await;
            if now() >= next_fault {
                let fault: Fault = faults.next();
                report::says(&format!(
                    "{} of {} s: {fault:?}",
                    time.as_secs() - now().until(end).as_secs(),
                    time.as_secs()
                ));
                Box::pin(faults.strike(self, fault)).await?;
                next_fault = now().after(faults.every);
            }
            if sampled.until(now()) >= SAMPLE_EVERY {
                sampled = now();
                let sample = Sample::take(self).await;
                self.recorder.keep("churn", &sample)?;
                samples.push(sample);
            }
        }
        Ok(Churned { samples, faults })
    }
}

async fn protect(admin: &PgPool) -> Result<(), Failed> {
    let guard = Guard::new();
    guard.install(admin).await?;
    for statement in [
        "CREATE TABLE soak (id integer PRIMARY KEY, value bigint NOT NULL)",
        "INSERT INTO soak VALUES (0, 0), (1, 0)",
    ] {
        sqlx::query(statement).execute(admin).await?;
    }
    guard
        .protect_rows(admin, "soak", Some(&name("led")), &["id"])
        .await?;
    Ok(())
}
