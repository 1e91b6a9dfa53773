//! The comparison: the same work under the same faults, with the guard and without.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::Misused;
use crate::field::{self, Plan, TTL};
use crate::schedule::Fault;
use crate::stage::{self, Stage};
use crate::tally::Tally;
use crate::workload::{Failed, Workload};

/// A row needs one who holds it and one who takes it over.
const LEAST_PER_ROW: usize = 2;
/// The machine's processes and the database's connections are not without end.
const MOST_WORKERS: usize = 60;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long each of the two runs gives out work and makes faults; it ends with the last takeover.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Worker processes of each workload.
    #[arg(long, default_value_t = 12)]
    workers: usize,
    /// Rows of each workload; at most half as many as workers.
    #[arg(long, default_value_t = 4)]
    rows: usize,
    /// What decides which holder meets which fault.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only the payments named by keys.
    #[arg(long, conflicts_with = "lock_set")]
    effects: bool,
    /// Only the sets.
    #[arg(long)]
    lock_set: bool,
    /// Plants a bug in the guarded side: sets are committed without the guard's check, payments without their key.
    /// It must be found, and the exit code be 1.
    #[arg(long)]
    plant: bool,
    /// Also writes the figures to a file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Both runs of one workload.
struct Comparison {
    workload: Workload,
    with: Tally,
    without: Tally,
}

/// Returns whether the guard lost nothing and its absence lost something.
pub(crate) async fn run(options: Options) -> Result<bool, Failed> {
    if options.rows == 0 || options.workers < options.rows * LEAST_PER_ROW {
        let bound = format!("--workers must be at least {LEAST_PER_ROW} for each of --rows");
        return Err(Misused(bound).into());
    }
    if options.workers > MOST_WORKERS {
        return Err(Misused(format!("--workers may be at most {MOST_WORKERS}")).into());
    }
    let workloads = match (options.lock_set, options.effects) {
        (true, _) => vec![Workload::LockSet],
        (_, true) => vec![Workload::Effects],
        _ => vec![Workload::LockSet, Workload::Effects],
    };
    println!(
        "{} worker processes on {} rows, {} s a run, TTL {} s, seed {}{}",
        options.workers,
        options.rows,
        options.seconds,
        TTL.as_secs(),
        options.seed,
        if workloads.len() > 1 {
            ", for each of two workloads at once"
        } else {
            ""
        },
    );
    let mut stage = Stage::set().await?;
    println!("run 1 of 2: with the guard");
    let with = side(&mut stage, &workloads, &options, true).await?;
    println!("run 2 of 2: the same under the lease alone");
    let without = side(&mut stage, &workloads, &options, false).await?;
    let comparisons: Vec<Comparison> = workloads
        .into_iter()
        .zip(with.into_iter().zip(without))
        .map(|(workload, (with, without))| Comparison {
            workload,
            with,
            without,
        })
        .collect();
    comparisons.iter().for_each(Comparison::print);
    if let Some(file) = &options.json {
        let parts: Vec<Value> = comparisons
            .iter()
            .map(|comparison| comparison.to_json(&options))
            .collect();
        fs::write(file, format!("{:#}\n", Value::Array(parts)))?;
    }
    Ok(comparisons.iter().all(Comparison::holds))
}

/// One run of all workloads at once, on the same servers.
async fn side(
    stage: &mut Stage,
    workloads: &[Workload],
    options: &Options,
    guarded: bool,
) -> Result<Vec<Tally>, Failed> {
    let time = Duration::from_secs(options.seconds);
    let mut arms = Vec::new();
    for workload in workloads {
        let plan = Plan {
            workload: *workload,
            workers: options.workers,
            rows: options.rows,
            seed: options.seed,
            time,
            plant: options.plant,
        };
        arms.push((plan.clone(), stage.arm(&plan, guarded).await?));
    }
    let runs = try_join_all(arms.iter().map(|(plan, arm)| field::run(plan, arm)));
    let strike = stage::strike(&mut stage.coordinators, options.seed, time / 2);
    let (tallies, _struck) = tokio::try_join!(runs, strike)?;
    for (_, arm) in arms {
        arm.pool.close().await;
    }
    Ok(tallies)
}

impl Comparison {
    fn holds(&self) -> bool {
        self.with.found.violations() == 0
            && self.with.overtaken > 0
            && self.without.found.damage() > 0
    }

    fn print(&self) {
        let what = match self.workload {
            Workload::LockSet => "each worker adds elements to a set that it has read",
            Workload::Effects => "payments named by keys, delivered until acknowledged",
        };
        println!("\n{}: {what}", self.workload);
        println!("  {:<46}{:>14}{:>14}", "", "with guard", "lease alone");
        let line = |what: &str, figure: fn(&Tally) -> u64| {
            let (with, without) = (figure(&self.with), figure(&self.without));
            println!("  {what:<46}{with:>14}{without:>14}");
        };
        line("attempts", |tally| tally.attempts);
        line("acknowledged", |tally| tally.acknowledged);
        line("unknown (may have happened)", |tally| tally.unknown);
        line("refused as stale", |tally| tally.stale);
        line("lease seen lost before the write", |tally| tally.lease_lost);
        line("not done for another reason", |tally| tally.failed);
        line("killed before the write", |tally| tally.killed);
        if self.workload == Workload::Effects {
            line("delivered again", |tally| tally.delivered_again);
        }
        println!("  faults");
        line("  SIGSTOP between read and write", |tally| {
            tally.count_of(Fault::Pause)
        });
        line("  SIGSTOP between write and commit", |tally| {
            tally.count_of(Fault::PauseInCommit)
        });
        line("  kill -9 between read and write", |tally| {
            tally.count_of(Fault::Kill)
        });
        line("  kill -9 during the commit", |tally| {
            tally.count_of(Fault::KillInCommit)
        });
        line("  kill -9 before the acknowledgement", |tally| {
            tally.count_of(Fault::KillBeforeAck)
        });
        line("  links to the coordinators silent", |tally| {
            tally.count_of(Fault::Cut)
        });
        line("  answer to the commit lost", |tally| {
            tally.count_of(Fault::LostReply)
        });
        line("  kill -9 of a coordinator", |_| 1);
        line("  pauses and silences overtaken by another", |tally| {
            tally.overtaken
        });
        println!("  found at the end");
        line("  LOST: acknowledged and not there", |tally| {
            tally.found.lost
        });
        line("  TWICE: there more than once", |tally| tally.found.twice);
        line("  there though told that it was not", |tally| {
            tally.found.unfounded
        });
        line("  writes let in below an earlier token", |tally| {
            tally.found.stale
        });
        if self.workload == Workload::Effects {
            line("  acknowledged with several receipts", |tally| {
                tally.found.contradicted
            });
        }
        for (side, tally) in [("with guard", &self.with), ("lease alone", &self.without)] {
            for reason in &tally.reasons {
                println!("  not done ({side}): {reason}");
            }
        }
        println!("  => {}", self.verdict());
    }

    fn verdict(&self) -> String {
        let (with, without) = (&self.with.found, &self.without.found);
        if with.violations() > 0 {
            format!("VIOLATION: with the guard {} went wrong", with.violations())
        } else if self.with.overtaken == 0 {
            "NOTHING SHOWN: with the guard nobody was overtaken in this run; give it more --seconds"
                .to_owned()
        } else if without.damage() == 0 {
            "NOTHING SHOWN: the lease alone lost nothing in this run; give it more --seconds"
                .to_owned()
        } else {
            format!(
                "held: nothing went wrong with the guard; the lease alone lost {} and doubled {}",
                without.lost, without.twice
            )
        }
    }

    fn to_json(&self, options: &Options) -> Value {
        json!({
            "part": self.workload.to_string(),
            "seed": options.seed,
            "seconds": options.seconds,
            "workers": options.workers,
            "rows": options.rows,
            "ttl_s": TTL.as_secs(),
            "holds": self.holds(),
            "violations": self.with.found.violations(),
            "with_guard": self.with.to_json(),
            "lease_alone": self.without.to_json(),
        })
    }
}
