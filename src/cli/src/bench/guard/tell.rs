//! What was measured, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::load::Sample;
use super::memory::{self, THREADS};
use super::seals::Seals;
use super::writer::{Fencing, Variant};
use crate::args::{BenchOutput, GuardBenchArgs};
use crate::bench::report::{CPU_OPERATIONS, count, median, microseconds, percentile, rounded};
use crate::failure::Failure;
use crate::output;
use crate::table::Table;

/// What tells a row from the others, in the order in which they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Which {
    store: &'static str,
    concurrency: u32,
    /// Transactions of more statements first; seals have none.
    statements: std::cmp::Reverse<u32>,
    place: usize,
    variant: &'static str,
    base: Option<&'static str>,
}

/// All that the rounds have shown.
#[derive(Debug, Default)]
pub(super) struct Findings {
    samples: BTreeMap<Which, Vec<Sample>>,
    dead_tuples: BTreeMap<&'static str, u64>,
    multixacts: BTreeMap<&'static str, u64>,
    server: Option<(String, String)>,
}

/// One variant with so many connections: medians over its rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Row {
    bench: &'static str,
    store: &'static str,
    variant: &'static str,
    /// Updates in a transaction; 0 for a seal.
    statements: u32,
    concurrency: u32,
    ops_per_s: f64,
    p50_us: u64,
    p99_us: u64,
    cpu_s_per_100k: Cpu,
    /// One operation, where that is a fraction of a microsecond.
    #[serde(skip_serializing_if = "Option::is_none")]
    ns_per_op: Option<f64>,
    #[serde(skip)]
    base: Option<&'static str>,
}

/// CPU time in seconds; `null` where it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Cpu {
    load: Option<f64>,
    server: Option<f64>,
}

/// One row over the unguarded one of its shape, with as many connections.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Ratio {
    store: &'static str,
    variant: &'static str,
    concurrency: u32,
    ops_per_s: Option<f64>,
    p50: Option<f64>,
    p99: Option<f64>,
    load_cpu: Option<f64>,
    server_cpu: Option<f64>,
}

/// The last line of the bench.
#[derive(Debug, Serialize)]
struct Verdict<'a> {
    bench: &'static str,
    /// Guarded transactions of four statements a second over unguarded ones, with the most connections; SQLite's
    /// where PostgreSQL is not measured.
    ratio: Option<f64>,
    ratios: Vec<Ratio>,
    /// By how much the 99th percentile of a seal is longer under writers of the resource than under writers of
    /// another.
    seal_p99_more_us: Option<i64>,
    /// Old versions of fences that all writes of the bench have left.
    dead_tuples: &'a BTreeMap<&'static str, u64>,
    /// Multixacts that all writes of the bench have made.
    multixacts: &'a BTreeMap<&'static str, u64>,
    postgres: Option<&'a str>,
    synchronous_commit: Option<&'a str>,
}

impl Findings {
    pub(super) fn postgres(&mut self, variant: Variant, concurrency: u32, sample: Sample) {
        let base = Variant {
            fencing: Fencing::Unguarded,
            ..variant
        };
        let which = Which {
            store: "postgres",
            concurrency,
            statements: std::cmp::Reverse(variant.statements()),
            place: Variant::ALL
                .iter()
                .position(|other| *other == variant)
                .unwrap_or_default(),
            variant: variant.name(),
            base: (base != variant).then(|| base.name()),
        };
        self.samples.entry(which).or_default().push(sample);
    }

    pub(super) fn sqlite(&mut self, variant: &'static str, statements: u32, sample: Sample) {
        let which = Which {
            store: "sqlite",
            concurrency: 1,
            statements: std::cmp::Reverse(statements),
            place: usize::from(variant.starts_with("guarded")),
            variant,
            base: match variant {
                "guarded-4" => Some("unguarded-4"),
                "guarded" => Some("unguarded"),
                _ => None,
            },
        };
        self.samples.entry(which).or_default().push(sample);
    }

    pub(super) fn memory(&mut self, variant: &'static str, sample: Sample) {
        let which = Which {
            store: "memory",
            concurrency: THREADS,
            statements: std::cmp::Reverse(1),
            place: 0,
            variant,
            base: None,
        };
        self.samples.entry(which).or_default().push(sample);
    }

    pub(super) fn seals(
        &mut self,
        seals: Seals,
        concurrency: u32,
        mut times: Vec<Duration>,
        length: Duration,
    ) {
        times.sort_unstable();
        let which = Which {
            store: "postgres",
            concurrency,
            statements: std::cmp::Reverse(0),
            place: Variant::ALL.len(),
            variant: seals.name(),
            base: (seals != Seals::Idle).then_some(Seals::Idle.name()),
        };
        let sample = Sample {
            operations: times.len(),
            time: length,
            latencies: times,
            ..Sample::default()
        };
        self.samples.entry(which).or_default().push(sample);
    }

    pub(super) fn multixacts(&mut self, fencing: Fencing, made: u64) {
        *self.multixacts.entry(fencing.name()).or_default() += made;
    }

    pub(super) fn dead_tuples(&mut self, fencing: Fencing, dead: u64) {
        self.dead_tuples.insert(fencing.name(), dead);
    }

    pub(super) fn server(&mut self, version: String, synchronous_commit: String) {
        self.server = Some((version, synchronous_commit));
    }

    pub(super) fn tell(&self, args: &GuardBenchArgs) -> Result<(), Failure> {
        let rows: Vec<Row> = self
            .samples
            .iter()
            .map(|(which, rounds)| row(*which, rounds))
            .collect();
        let ratios = ratios(&rows);
        match args.output {
            BenchOutput::Jsonl => {
                rows.iter().try_for_each(output::json)?;
                output::json(&self.verdict(&rows, ratios))
            }
            BenchOutput::Table => {
                output::data(format_args!(
                    "{}{} rounds of {} s each, medians; CPU in seconds per 100,000 operations",
                    self.server
                        .as_ref()
                        .map_or_else(String::new, |(version, commit)| format!(
                            "PostgreSQL {version}, synchronous_commit {commit}; "
                        )),
                    args.rounds,
                    args.round.as_secs_f64()
                ))?;
                output::data(table(&rows, &ratios))?;
                self.tell_traces()
            }
        }
    }

    fn tell_traces(&self) -> Result<(), Failure> {
        if self.samples.keys().any(|which| which.store == "memory") {
            output::data(memory::LEGEND)?;
        }
        for (what, counts) in [
            ("dead versions of fences", &self.dead_tuples),
            ("multixacts", &self.multixacts),
        ] {
            let counts: Vec<String> = counts
                .iter()
                .map(|(name, number)| format!("{name} {number}"))
                .collect();
            if !counts.is_empty() {
                output::data(format_args!("{what}: {}", counts.join(", ")))?;
            }
        }
        Ok(())
    }

    fn verdict(&self, rows: &[Row], ratios: Vec<Ratio>) -> Verdict<'_> {
        let seal = |seals: Seals| {
            let row = rows.iter().find(|row| row.variant == seals.name())?;
            i64::try_from(row.p99_us).ok()
        };
        let main = ratios
            .iter()
            .filter(|ratio| ratio.variant == "guarded-4")
            .max_by_key(|ratio| ratio.concurrency);
        Verdict {
            bench: "guard",
            ratio: main.and_then(|ratio| ratio.ops_per_s),
            seal_p99_more_us: seal(Seals::Busy)
                .zip(seal(Seals::Idle))
                .map(|(busy, idle)| busy - idle),
            ratios,
            dead_tuples: &self.dead_tuples,
            multixacts: &self.multixacts,
            postgres: self.server.as_ref().map(|(version, _)| version.as_str()),
            synchronous_commit: self.server.as_ref().map(|(_, commit)| commit.as_str()),
        }
    }
}

fn row(which: Which, rounds: &[Sample]) -> Row {
    let of = |figure: &dyn Fn(&Sample) -> Option<f64>| median(rounds.iter().filter_map(figure));
    let time = |permille: usize| {
        let middle =
            of(&|round| percentile(&round.latencies, permille).map(|time| time.as_secs_f64()));
        microseconds(Duration::from_secs_f64(middle.unwrap_or_default()))
    };
    let per_100k = |seconds: Option<f64>, round: &Sample| {
        let operations = count(round.operations);
        (round.operations > 0)
            .then(|| seconds.map(|seconds| rounded(seconds * CPU_OPERATIONS / operations, 3)))?
    };
    let nanoseconds = of(&|round| round.nanoseconds);
    let rate = |round: &Sample| match round.nanoseconds {
        Some(nanoseconds) => Some(f64::from(THREADS) * 1e9 / nanoseconds),
        None => Some(count(round.operations) / round.time.as_secs_f64()),
    };
    // Seals are few: the slowest of one round says little.
    let (p50_us, p99_us) = match which.statements.0 {
        0 => pooled(rounds),
        _ => (time(500), time(990)),
    };
    Row {
        bench: "guard",
        store: which.store,
        variant: which.variant,
        statements: which.statements.0,
        concurrency: which.concurrency,
        ops_per_s: rounded(of(&rate).unwrap_or_default(), 1),
        p50_us,
        p99_us,
        cpu_s_per_100k: Cpu {
            load: of(&|round| per_100k(round.load, round)),
            server: of(&|round| per_100k(round.server, round)),
        },
        ns_per_op: nanoseconds.map(|nanoseconds| rounded(nanoseconds, 1)),
        base: which.base,
    }
}

/// The median and the 99th percentile of all rounds together.
fn pooled(rounds: &[Sample]) -> (u64, u64) {
    let mut times: Vec<Duration> = rounds
        .iter()
        .flat_map(|round| round.latencies.iter().copied())
        .collect();
    times.sort_unstable();
    let of = |permille| microseconds(percentile(&times, permille).unwrap_or_default());
    (of(500), of(990))
}

fn ratios(rows: &[Row]) -> Vec<Ratio> {
    let over = |one: f64, other: f64| (other > 0.0).then(|| rounded(one / other, 3));
    let time = |one: u64, other: u64| {
        let seconds = |time| Duration::from_micros(time).as_secs_f64();
        over(seconds(one), seconds(other))
    };
    let with_base = rows.iter().filter_map(|row| {
        let base = rows.iter().find(|base| {
            Some(base.variant) == row.base
                && (base.store, base.concurrency) == (row.store, row.concurrency)
        });
        Some((row, base?))
    });
    with_base
        .map(|(row, base)| Ratio {
            store: row.store,
            variant: row.variant,
            concurrency: row.concurrency,
            ops_per_s: over(row.ops_per_s, base.ops_per_s),
            p50: time(row.p50_us, base.p50_us),
            p99: time(row.p99_us, base.p99_us),
            load_cpu: row
                .cpu_s_per_100k
                .load
                .zip(base.cpu_s_per_100k.load)
                .and_then(|(one, other)| over(one, other)),
            server_cpu: row
                .cpu_s_per_100k
                .server
                .zip(base.cpu_s_per_100k.server)
                .and_then(|(one, other)| over(one, other)),
        })
        .collect()
}

fn table(rows: &[Row], ratios: &[Ratio]) -> Table {
    let mut table = Table::with_header([
        "STORE",
        "VARIANT",
        "CONNECTIONS",
        "OPS/S",
        "P50",
        "P99",
        "CPU LOAD",
        "SERVER",
        "OPS/S : BASE",
        "SERVER : BASE",
    ]);
    for row in rows {
        let ratio = ratios.iter().find(|ratio| {
            (ratio.store, ratio.variant, ratio.concurrency)
                == (row.store, row.variant, row.concurrency)
        });
        let number = |value: Option<f64>| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
        };
        table.row([
            row.store.to_owned(),
            row.variant.to_owned(),
            row.concurrency.to_string(),
            format!("{:.0}", row.ops_per_s),
            row.ns_per_op
                .map_or_else(|| format!("{} us", row.p50_us), |each| format!("{each} ns")),
            format!("{} us", row.p99_us),
            number(row.cpu_s_per_100k.load),
            number(row.cpu_s_per_100k.server),
            number(ratio.and_then(|ratio| ratio.ops_per_s)),
            number(ratio.and_then(|ratio| ratio.server_cpu)),
        ]);
    }
    table
}
