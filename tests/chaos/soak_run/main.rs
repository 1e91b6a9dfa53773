//! The soak: an hour of churn with faults, after which everything must be where it began (I13).
//!
//! `soak --minutes N` is the conductor: it starts etcd (three members), two coordinators, PostgreSQL with the guard and
//! three worker processes, breaks them in turn, samples what could leak, and judges. `soak worker …` is one worker. The
//! command is `tests/chaos/soak`, which says how it is called.
#![allow(
    clippy::unwrap_used,
    reason = "a soak that meets an unforeseen error has failed"
)]

mod crew;
mod faults;
mod judge;
mod report;
mod rig;
mod sample;
mod tally;
mod work;
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use palisade_client::{Clock as _, Moment, SystemClock};

use self::report::Verdict;
use self::worker::{Order, Plant};

type Failed = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "\
soak [--minutes N] [--plant session|handle|memory|task|rows] [--samples FILE]
soak --judge FILE
  --minutes N     how long workers churn while things are broken; 60 unless told otherwise
  --plant DEFECT  make a worker leak on purpose: the soak must fail
  --samples FILE  where every sample goes, a line of JSON each; tests/logs/soak.jsonl unless told otherwise
  --judge FILE    start nothing: judge the samples of a soak once more
The coordinator's program is $PALISADE_BIN, else the one beside this program.";

/// What the conductor is told to do.
#[derive(Debug)]
struct Plan {
    churn: Duration,
    plant: Plant,
    samples: String,
}

impl Plan {
    fn parse(args: &[String]) -> Result<Self, String> {
        let mut plan = Self {
            churn: Duration::from_secs(60 * 60),
            plant: Plant::None,
            samples: concat!(env!("CARGO_MANIFEST_DIR"), "/logs/soak.jsonl").to_owned(),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
            match arg.as_str() {
                "--minutes" => match value.parse() {
                    Ok(minutes @ 1..=1440_u64) => plan.churn = Duration::from_secs(minutes * 60),
                    _ => return Err(format!("--minutes is {value:?}; allowed is 1 to 1440")),
                },
                "--plant" => plan.plant = value.parse()?,
                "--samples" => plan.samples.clone_from(value),
                _ => return Err(format!("there is no argument {arg}")),
            }
        }
        Ok(plan)
    }
}

fn now() -> Moment {
    SystemClock.now()
}

async fn sleep(time: Duration) {
    SystemClock.sleep(time).await;
}

#[tokio::main]
#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program prints"
)]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.first().map(String::as_str) {
        Some("worker") => match Order::parse(&args[1..]) {
            Ok(order) => worker::run(order).await.map(|()| ExitCode::SUCCESS),
            Err(error) => Err(error),
        },
        Some("--judge") if args.len() == 2 => report::judges_again(&args[1]),
        Some("--help" | "-h") => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => match Plan::parse(&args) {
            Ok(plan) => Box::pin(conduct(plan)).await,
            Err(wrong) => {
                eprintln!("soak: {wrong}\n{USAGE}");
                return ExitCode::from(2);
            }
        },
    };
    result.unwrap_or_else(|error| {
        eprintln!("soak: {error:?}");
        ExitCode::FAILURE
    })
}

/// Warm, rest, churn with faults, rest: then what is left is compared with the first rest.
async fn conduct(plan: Plan) -> Result<ExitCode, Failed> {
    let mut rig = rig::Rig::start(&plan).await?;
    report::says("warming up");
    rig.warm_up(faults::warm_up(plan.churn)).await?;
    rig.rest().await?;
    let first = rig.baseline().await?;
    report::says("churning");
    let churn = rig.churn(plan.churn).await?;
    report::says("settling");
    let work = rig.rest().await?;
    let last = rig.settle(&first).await?;
    let verdict = Verdict {
        minutes: plan.churn.as_secs() / 60,
        first,
        churn: churn.samples,
        last,
        faults: churn.faults,
        work,
    };
    Ok(verdict.tell())
}
