//! Many sessions at once, kept alive for a while.

mod life;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::processes::{Cpu, resident_bytes};
use super::report::{self, Row};
use super::rig::Rig;
use crate::args::{BenchOutput, SessionVariant, SessionsArgs};
use crate::clock::{self, Stopwatch};
use crate::failure::Failure;
use crate::output;
use crate::progress::Progress;
use crate::table::{Table, plain};
use life::{Fate, Life, Session, Times, live};

/// Opened or ended at once: enough to keep etcd busy.
const AT_ONCE: usize = 64;

/// The last line of the bench.
#[derive(Debug, Serialize)]
struct Verdict {
    bench: &'static str,
    /// The share of the sessions that lived to the end.
    ratio: f64,
    sessions: u32,
    false_expiries: usize,
    streams_cut: usize,
    /// The coordinator's memory with all sessions less that without any, over their number.
    rss_bytes_per_session: Option<u64>,
    rss_bytes_before: Option<u64>,
    rss_bytes_after: Option<u64>,
    etcd: String,
}

/// What was measured between two points of the sessions' clock.
struct Period {
    from: Duration,
    to: Duration,
    cpu: Cpu,
    /// The coordinator's memory before any session was open, and at its most.
    memory: (Option<u64>, Option<u64>),
}

/// `palisade bench sessions`, once a coordinator runs.
pub(super) async fn run(
    rig: &Rig,
    args: &SessionsArgs,
    progress: &Progress,
) -> Result<(), Failure> {
    progress.say(&format!("opening {} sessions", args.sessions));
    let times = Arc::new(Times {
        clock: Stopwatch::start(),
        ttl: args.ttl,
        stop: CancellationToken::new(),
        gate: Semaphore::new(AT_ONCE),
    });
    let memory = || rig.watched().coordinator.and_then(resident_bytes);
    let before = memory();
    let mut lives = open_all(rig, args, &times).await?;
    let (from, cpu_before, all_open) = (times.clock.elapsed(), rig.watched().cpu(), memory());
    progress.step(&format!(
        "{} sessions are open after {:.1} s; renewing them for {} s",
        args.sessions,
        from.as_secs_f64(),
        args.period.as_secs_f64()
    ));
    clock::pause(args.period).await;
    let cpu_after = rig.watched().cpu();
    let period = Period {
        from,
        to: times.clock.elapsed(),
        cpu: cpu_after.zip(cpu_before, |after, before| after - before),
        memory: (before, memory().max(all_open)),
    };
    times.stop.cancel();
    let mut ended = Vec::new();
    while let Some(life) = lives.join_next().await {
        let life = life.map_err(|error| Failure::other(format!("a task failed: {error}")))?;
        // Those that were not opened have told so.
        ended.extend(life);
    }
    tell(rig, args, &period, &ended)
}

/// Opens all sessions; each is renewed from its own opening on.
async fn open_all(
    rig: &Rig,
    args: &SessionsArgs,
    times: &Arc<Times>,
) -> Result<JoinSet<Option<Life>>, Failure> {
    let (opened, mut told) = mpsc::channel(AT_ONCE);
    let mut lives = JoinSet::new();
    let mut caller = rig.caller().await?;
    for index in 0..args.sessions {
        if index > 0 && index.is_multiple_of(args.per_connection) {
            caller = rig.caller().await?;
        }
        let (caller, times, opened) = (caller.clone(), Arc::clone(times), opened.clone());
        let (variant, ttl) = (args.variant, args.ttl);
        lives.spawn(async move {
            let turn = times.turn().await;
            let session = Session::open(caller, variant, ttl).await;
            drop(turn);
            let (session, result) = match session {
                Ok(session) => (Some(session), Ok(())),
                Err(failure) => (None, Err(failure)),
            };
            // Whoever counts has failed, if nobody does any more.
            drop(opened.send(result).await);
            drop(opened);
            Some(live(session?, index, &times).await)
        });
    }
    drop(opened);
    let mut failed = None;
    while let Some(opened) = told.recv().await {
        if let Err(failure) = opened {
            failed = Some(failure);
            break;
        }
    }
    failed.map_or(Ok(lives), Err)
}

fn tell(rig: &Rig, args: &SessionsArgs, period: &Period, ended: &[Life]) -> Result<(), Failure> {
    let row = row(args, period, ended);
    let count = |is: fn(&Fate) -> bool| ended.iter().filter(|life| is(&life.fate)).count();
    let lived = count(|fate| matches!(fate, Fate::Lived));
    let (before, after) = period.memory;
    let grown = before.zip(after);
    let per_session = grown.and_then(|(before, after)| {
        let bytes = after.saturating_sub(before);
        bytes.checked_div(u64::from(args.sessions))
    });
    let verdict = Verdict {
        bench: row.bench,
        ratio: report::rounded(report::count(lived) / f64::from(args.sessions), 6),
        sessions: args.sessions,
        false_expiries: count(|fate| matches!(fate, Fate::Expired)),
        streams_cut: count(|fate| matches!(fate, Fate::Cut(_))),
        rss_bytes_per_session: per_session,
        rss_bytes_before: before,
        rss_bytes_after: after,
        etcd: rig.etcd_version().to_owned(),
    };
    let cut = ended.iter().find_map(|life| match &life.fate {
        Fate::Cut(status) => Some(status),
        Fate::Lived | Fate::Expired => None,
    });
    if let Some(status) = cut {
        output::note(format_args!(
            "a stream was cut: {}",
            plain(&status.to_string())
        ));
    }
    match args.target.output {
        BenchOutput::Jsonl => {
            output::json(&row)?;
            output::json(&verdict)
        }
        BenchOutput::Table => output::data(table(&row, &verdict)),
    }
}

fn row(args: &SessionsArgs, period: &Period, ended: &[Life]) -> Row {
    let renewals = ended.iter().flat_map(|life| &life.renewals);
    let mut took: Vec<Duration> = renewals
        .filter(|renewal| (period.from..period.to).contains(&renewal.at))
        .map(|renewal| renewal.took)
        .collect();
    took.sort_unstable();
    let renewals = report::count(took.len());
    let time = period.to.saturating_sub(period.from).as_secs_f64();
    let percentile = |permille| {
        let time = report::percentile(&took, permille).unwrap_or_default();
        report::microseconds(time)
    };
    let cpu = period
        .cpu
        .map(|seconds| report::rounded(seconds * report::CPU_OPERATIONS / renewals.max(1.0), 3));
    Row {
        bench: "sessions",
        variant: match args.variant {
            SessionVariant::Stream => "stream",
            SessionVariant::Unary => "unary",
        },
        concurrency: args.sessions,
        ops_per_s: report::rounded(renewals / time, 1),
        p50_us: percentile(500),
        p99_us: percentile(990),
        cpu_s_per_100k: cpu,
    }
}

fn table(row: &Row, verdict: &Verdict) -> Table {
    let mut table = Table::default();
    let mut line = |name: &str, value: String| table.row([name.to_owned(), value]);
    let known =
        |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let seconds =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    let cpu = row.cpu_s_per_100k;
    line("sessions", verdict.sessions.to_string());
    line("false expiries", verdict.false_expiries.to_string());
    line("streams cut", verdict.streams_cut.to_string());
    line("renewals/s", format!("{:.0}", row.ops_per_s));
    line("renewal p50", format!("{} us", row.p50_us));
    line("renewal p99", format!("{} us", row.p99_us));
    line(
        "coordinator's bytes per session",
        known(verdict.rss_bytes_per_session),
    );
    line("CPU s per 100k renewals: load", seconds(cpu.load));
    line(
        "CPU s per 100k renewals: coordinator",
        seconds(cpu.coordinator),
    );
    line("CPU s per 100k renewals: etcd", seconds(cpu.etcd));
    table
}
