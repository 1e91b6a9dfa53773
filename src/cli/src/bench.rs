//! `palisade bench`: a coordinator against etcd's own lock service, in turns, on the same etcd; and what the
//! guard costs.

mod failure;
mod guard;
mod lock;
mod opening;
mod party;
mod processes;
mod report;
mod rig;
mod round;
mod sessions;
mod stream;
mod unary;

use std::thread;

use crate::args::{
    BenchArgs, BenchCommand, BenchOutput, CoordinatorBench, Rounds, SessionsArgs, Target,
};
use crate::failure::{Failure, Kind};
use crate::output;
use crate::progress::Progress;
use crate::signals::Stop;
use party::Setting;
use report::Samples;
use rig::Rig;

/// How long an acquire of the bench waits. With all clients at one resource everybody's turn comes well before.
const WAIT_MS: u64 = 60_000;

/// `palisade bench`. Whatever happens, it leaves neither processes nor keys behind.
pub(crate) async fn run(args: BenchArgs) -> Result<(), Failure> {
    let stop = Stop::listen()?;
    match &args.command {
        BenchCommand::Coordinator(command) => coordinator(command, stop).await,
        BenchCommand::Guard(args) => guard::run(args, stop).await,
    }
}

async fn coordinator(command: &CoordinatorBench, mut stop: Stop) -> Result<(), Failure> {
    let mut rig = Rig::build(command.target())?;
    let measured = tokio::select! {
        measured = Box::pin(measure(&mut rig, command)) => measured,
        signal = stop.asked() => Err(signal.failure("the bench was stopped")),
    };
    // Where the kind says what is wrong, the log says nothing better.
    if measured
        .as_ref()
        .is_err_and(|failure| failure.kind == Kind::Other)
    {
        rig.tell_log();
    }
    // Those who are impatient by now leave what remains.
    let struck = tokio::select! {
        struck = rig.strike() => struck,
        signal = stop.asked() => Err(signal.failure("the bench was stopped; some of its keys may remain")),
    };
    measured.and(struck)
}

impl CoordinatorBench {
    fn target(&self) -> &Target {
        match self {
            Self::Lease(args) => &args.target,
            Self::Handoff(args) => &args.target,
            Self::Sessions(args) => &args.target,
        }
    }
}

async fn measure(rig: &mut Rig, command: &CoordinatorBench) -> Result<(), Failure> {
    let progress = Progress::new("starting a coordinator");
    progress.during(run_all(rig, command, &progress)).await
}

async fn run_all(
    rig: &mut Rig,
    command: &CoordinatorBench,
    progress: &Progress,
) -> Result<(), Failure> {
    rig.open(&command.target().coordinator_arg).await?;
    let rig = &*rig;
    match command {
        CoordinatorBench::Lease(args) => {
            let bench = Bench {
                name: "lease",
                setting: Setting::Apart,
                tasks: &args.concurrency,
                rounds: &args.rounds,
            };
            take_turns(rig, &bench, args.target.output, progress).await
        }
        CoordinatorBench::Handoff(args) => {
            let bench = Bench {
                name: "handoff",
                setting: Setting::Together,
                tasks: &args.concurrency,
                rounds: &args.rounds,
            };
            take_turns(rig, &bench, args.target.output, progress).await
        }
        CoordinatorBench::Sessions(args) => keep_alive(rig, args, progress).await,
    }
}

/// What takes turns.
struct Bench<'a> {
    name: &'static str,
    setting: Setting,
    tasks: &'a [u32],
    rounds: &'a Rounds,
}

async fn take_turns(
    rig: &Rig,
    bench: &Bench<'_>,
    output: BenchOutput,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut samples = Samples::new();
    let Rounds {
        variants,
        rounds,
        round: length,
    } = bench.rounds;
    for number in 1..=*rounds {
        progress.step(&format!("round {number} of {rounds}"));
        for tasks in bench.tasks {
            for variant in variants {
                let size = usize::try_from(*tasks).unwrap_or(usize::MAX);
                let sample = round::run(rig, *variant, bench.setting, size, *length).await?;
                samples.entry((*tasks, *variant)).or_default().push(sample);
            }
        }
    }
    if output == BenchOutput::Table {
        output::data(format_args!(
            "{}; {rounds} rounds of {} s each, medians; CPU in seconds per 100,000 {}",
            place(rig),
            length.as_secs_f64(),
            match bench.setting {
                Setting::Apart => "cycles of acquire and release",
                Setting::Together => "hand-overs",
            }
        ))?;
    }
    report::tell(bench.name, rig.etcd_version(), &samples, output)
}

async fn keep_alive(rig: &Rig, args: &SessionsArgs, progress: &Progress) -> Result<(), Failure> {
    if args.target.output == BenchOutput::Table {
        output::data(place(rig))?;
    }
    sessions::run(rig, args, progress).await
}

fn place(rig: &Rig) -> String {
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    format!(
        "etcd {} at {}; this machine has {cpus} CPUs",
        rig.etcd_version(),
        rig.etcd_urls()
    )
}
