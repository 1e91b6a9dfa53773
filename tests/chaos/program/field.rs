//! The field: worker processes on rows, and what befalls those that hold one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;
use futures::future::try_join_all;
use palisade_test_support::{Proxy, eventually, within};
use tokio::sync::watch;

use crate::clock;
use crate::hand::Hand;
use crate::schedule::{Fault, Schedule};
use crate::stage::Arm;
use crate::tally::Tally;
use crate::workload::{Failed, Told, Workload};

/// What each session asks for: the least that a coordinator on etcd gives.
pub(crate) const TTL: Duration = Duration::from_secs(5);
/// By then a frozen holder's lease has expired, and its successor waits for the fence.
const PAST_TTL: Duration = Duration::from_secs(7);
/// A takeover is due within the TTL and a second; beyond this nobody is coming.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(30);
/// How long a run goes on beyond its time until each row was taken over from a holder that lives.
const OVERTAKEN_LIMIT: Duration = Duration::from_secs(90);
/// After its time a run ends with the last fault's takeover.
const DRAIN_LIMIT: Duration = Duration::from_secs(210);
/// For the commit to reach the database, and its answer to get lost.
const REPLY_LOST_FOR: Duration = Duration::from_millis(400);
/// For a commit to be on its way when its worker is killed, or not yet: both happen.
const INTO_COMMIT_MICROS: u64 = 3000;
/// A worker's work between read and write, so that the field tries takeovers and not the processor.
const THINKING_MILLIS: std::ops::Range<u64> = 10..50;
/// Of a hundred payments that were acknowledged, how many are delivered again all the same.
const REDELIVERED: u32 = 25;

/// What a run of the field is made of.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) workload: Workload,
    pub(crate) workers: usize,
    pub(crate) rows: usize,
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    /// Whether the guarded side has a planted bug, which must be found.
    pub(crate) plant: bool,
}

/// A row, its jobs and its faults.
struct Row {
    number: usize,
    schedule: RefCell<Schedule>,
    rng: RefCell<Rng>,
    /// Faults under way that last until another holder has written.
    struck: Cell<u32>,
    /// How often a holder that lives was overtaken by another.
    overtaken: Cell<u64>,
    /// How many writes of it were committed, as far as the field has heard.
    written: watch::Sender<u64>,
    next: Cell<i64>,
    again: RefCell<VecDeque<i64>>,
}

struct Field<'a> {
    plan: &'a Plan,
    arm: &'a Arm,
    rows: Vec<Row>,
    ended: Cell<bool>,
    tally: RefCell<Tally>,
    told: RefCell<Told>,
}

/// A worker's place: its links, its row, and the process that stands there now.
struct Post<'a> {
    field: &'a Field<'a>,
    row: &'a Row,
    args: Vec<String>,
    coordinators: Vec<Proxy>,
    postgres: Proxy,
    hand: Hand,
    /// The job at hand.
    job: i64,
    /// Whether it was never given out before.
    fresh: bool,
    /// What befalls it at its commit or after.
    fault: Option<Fault>,
}

/// How far a worker had come when it was killed.
enum Killed {
    BeforeWrite,
    InCommit,
    BeforeAck,
}

/// Runs one workload on one arm, and compares what was told with what the tables hold.
pub(crate) async fn run(plan: &Plan, arm: &Arm) -> Result<Tally, Failed> {
    let rows = (0..plan.rows).map(|number| Row::new(plan, number));
    let field = Field {
        plan,
        arm,
        rows: rows.collect(),
        ended: Cell::new(false),
        tally: RefCell::default(),
        told: RefCell::default(),
    };
    let end = async {
        clock::pause(plan.time).await;
        // Without a takeover nothing is shown; on a busy machine it comes later.
        let overtaken = async || field.rows.iter().all(|row| row.overtaken.get() > 0);
        drop(eventually("a takeover of each row", OVERTAKEN_LIMIT, overtaken).await);
        field.ended.set(true);
        Ok::<_, Failed>(())
    };
    let workers = try_join_all((0..plan.workers).map(|worker| field.work(worker)));
    let limit = plan.time + DRAIN_LIMIT;
    within("the end of the run", limit, async {
        tokio::try_join!(end, workers)
    })
    .await??;
    let mut tally = field.tally.into_inner();
    tally.found = plan
        .workload
        .check(&arm.pool, &field.told.into_inner())
        .await?;
    Ok(tally)
}

impl Row {
    fn new(plan: &Plan, number: usize) -> Self {
        let salt = u64::try_from(number).unwrap_or(0);
        Self {
            number,
            schedule: RefCell::new(Schedule::new(plan.seed, number)),
            rng: RefCell::new(Rng::with_seed(!plan.seed ^ salt)),
            struck: Cell::new(0),
            overtaken: Cell::new(0),
            written: watch::Sender::new(0),
            next: Cell::new(0),
            again: RefCell::default(),
        }
    }

    /// A job of its own, never asked for before.
    fn new_job(&self) -> i64 {
        let job = self.next.get();
        self.next.set(job + 1);
        i64::try_from(self.number).unwrap_or(0) * 1_000_000 + job
    }
}

impl Field<'_> {
    async fn work(&self, worker: usize) -> Result<(), Failed> {
        let row = &self.rows[worker % self.rows.len()];
        let mut post = Post::take(self, row).await?;
        loop {
            let Some(word) = post.hand.hear().await? else {
                return Err("a worker has ended by itself; its message is above".into());
            };
            if word == "idle" {
                match self.next_job(row) {
                    Some(job) => post.give(job).await?,
                    None => break,
                }
            } else {
                post.hear(&word).await?;
            }
        }
        post.hand.tell("stop").await?;
        post.hand.end().await
    }

    fn next_job(&self, row: &Row) -> Option<i64> {
        if let Some(again) = row.again.borrow_mut().pop_front() {
            self.tally.borrow_mut().delivered_again += 1;
            return Some(again);
        }
        // A frozen holder waits for another one to write.
        let wanted = !self.ended.get() || row.struck.get() > 0;
        wanted.then(|| row.new_job())
    }
}

impl<'a> Post<'a> {
    async fn take(field: &'a Field<'a>, row: &'a Row) -> Result<Self, Failed> {
        let mut coordinators = Vec::new();
        for coordinator in &field.arm.coordinators {
            coordinators.push(Proxy::start(coordinator).await?);
        }
        let postgres = Proxy::start(&field.arm.postgres).await?;
        let links: Vec<String> = coordinators.iter().map(Proxy::url).collect();
        let database = field.arm.postgres_through(&postgres.host_port());
        let mut args = vec![
            "worker".to_owned(),
            format!("--coordinators={}", links.join(",")),
            format!("--postgres={database}"),
            format!("--workload={}", field.plan.workload),
            format!("--prefix={}", field.arm.prefix),
            format!("--row={}", row.number),
            format!("--ttl-s={}", TTL.as_secs()),
        ];
        if field.arm.guarded {
            args.push("--guarded".to_owned());
            args.extend(field.plan.plant.then(|| "--plant".to_owned()));
        }
        Ok(Self {
            field,
            row,
            hand: Hand::start(&args)?,
            args,
            coordinators,
            postgres,
            job: 0,
            fresh: false,
            fault: None,
        })
    }

    async fn give(&mut self, job: i64) -> Result<(), Failed> {
        self.job = job;
        self.field.tally.borrow_mut().attempts += 1;
        self.fresh = self.field.told.borrow_mut().asked.insert(job);
        self.hand.tell(&format!("job {job}")).await
    }

    async fn hear(&mut self, word: &str) -> Result<(), Failed> {
        let (word, rest) = word.split_once(' ').unwrap_or((word, ""));
        match word {
            "ready" => self.ready().await,
            "committing" => self.committing().await,
            "committed" => self.committed(rest.parse()?).await,
            "unknown" => {
                self.unknown();
                Ok(())
            }
            "stale" | "lost" | "failed" => {
                let mut tally = self.field.tally.borrow_mut();
                match word {
                    "stale" => tally.stale += 1,
                    "lost" => tally.lease_lost += 1,
                    _ => tally.failure(rest),
                }
                drop(tally);
                self.deliver_again();
                Ok(())
            }
            _ => Err(format!("a worker says {word:?}").into()),
        }
    }

    /// It holds the row and has read it.
    async fn ready(&mut self) -> Result<(), Failed> {
        let thinking = self.row.rng.borrow_mut().u64(THINKING_MILLIS);
        clock::pause(Duration::from_millis(thinking)).await;
        self.fault = None;
        // What may have been done before is found and not done again: nothing would come of a fault.
        if !self.field.ended.get() && self.fresh {
            self.fault = self.row.schedule.borrow_mut().next_holder();
        }
        match self.fault {
            Some(Fault::Pause) => {
                self.strikes(Fault::Pause);
                self.hand.freeze()?;
                self.hand.tell("go").await?;
                self.overtaken().await;
                self.hand.thaw()
            }
            Some(Fault::Cut) => {
                self.strikes(Fault::Cut);
                self.coordinators.iter().for_each(Proxy::blackhole);
                self.overtaken().await;
                for link in &self.coordinators {
                    link.heal().await?;
                }
                self.hand.tell("go").await
            }
            Some(Fault::Kill) => {
                self.strikes(Fault::Kill);
                self.kill(Killed::BeforeWrite).await
            }
            // The others strike later.
            _ => self.hand.tell("go").await,
        }
    }

    /// It has written, and is about to commit.
    async fn committing(&mut self) -> Result<(), Failed> {
        match self.fault {
            Some(Fault::PauseInCommit) => {
                self.strikes(Fault::PauseInCommit);
                self.hand.freeze()?;
                self.hand.tell("go").await?;
                clock::pause(PAST_TTL).await;
                self.hand.thaw()?;
            }
            Some(Fault::KillInCommit) => {
                self.strikes(Fault::KillInCommit);
                let micros = self.row.rng.borrow_mut().u64(0..INTO_COMMIT_MICROS);
                self.hand.tell("go").await?;
                clock::pause(Duration::from_micros(micros)).await;
                self.kill(Killed::InCommit).await?;
            }
            Some(Fault::LostReply) => {
                self.strikes(Fault::LostReply);
                self.postgres.drop_replies();
                self.hand.tell("go").await?;
                clock::pause(REPLY_LOST_FOR).await;
                self.postgres.heal().await?;
            }
            _ => self.hand.tell("go").await?,
        }
        Ok(())
    }

    async fn committed(&mut self, receipt: i64) -> Result<(), Failed> {
        if self.fault == Some(Fault::KillBeforeAck) {
            self.strikes(Fault::KillBeforeAck);
            return self.kill(Killed::BeforeAck).await;
        }
        self.field.tally.borrow_mut().acknowledged += 1;
        self.field.told.borrow_mut().acknowledge(self.job, receipt);
        self.row.written.send_modify(|written| *written += 1);
        let effects = self.field.plan.workload == Workload::Effects;
        if effects && self.row.rng.borrow_mut().u32(0..100) < REDELIVERED {
            self.row.again.borrow_mut().push_back(self.job);
        }
        self.hand.tell("go").await
    }

    fn strikes(&self, fault: Fault) {
        self.field.tally.borrow_mut().fault(fault);
    }

    fn is_acknowledged(&self) -> bool {
        self.field
            .told
            .borrow()
            .acknowledged
            .contains_key(&self.job)
    }

    /// Waits until another holder has written: for a payment, this very one, which is delivered again because a
    /// queue does not wait for an acknowledgement for ever.
    async fn overtaken(&self) {
        let effects = self.field.plan.workload == Workload::Effects;
        if effects {
            self.row.again.borrow_mut().push_front(self.job);
        }
        self.row.struck.set(self.row.struck.get() + 1);
        let overtaken = async {
            let mut written = self.row.written.subscribe();
            loop {
                if written.changed().await.is_err() || !effects || self.is_acknowledged() {
                    break;
                }
            }
        };
        if within("a takeover", TAKEOVER_LIMIT, overtaken)
            .await
            .is_ok()
        {
            self.field.tally.borrow_mut().overtaken += 1;
            self.row.overtaken.set(self.row.overtaken.get() + 1);
        }
        self.row.struck.set(self.row.struck.get() - 1);
    }

    fn unknown(&self) {
        self.field.tally.borrow_mut().unknown += 1;
        self.field.told.borrow_mut().unknown.insert(self.job);
        self.deliver_again();
    }

    fn deliver_again(&self) {
        if self.field.plan.workload == Workload::Effects {
            self.row.again.borrow_mut().push_back(self.job);
        }
    }

    /// The process dies; another one takes its post.
    async fn kill(&mut self, when: Killed) -> Result<(), Failed> {
        self.hand.kill().await?;
        match when {
            Killed::BeforeWrite => {
                self.field.tally.borrow_mut().killed += 1;
                self.deliver_again();
            }
            Killed::InCommit | Killed::BeforeAck => self.unknown(),
        }
        self.fault = None;
        self.hand = Hand::start(&self.args)?;
        Ok(())
    }
}
