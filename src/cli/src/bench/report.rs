//! What was measured, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::processes::Cpu;
use super::round::Sample;
use crate::args::{BenchOutput, Variant};
use crate::failure::Failure;
use crate::output;
use crate::table::Table;

/// CPU time is told for so many operations.
pub(crate) const CPU_OPERATIONS: f64 = 100_000.0;

/// One variant with so many tasks: medians over its rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) bench: &'static str,
    pub(crate) variant: &'static str,
    pub(crate) concurrency: u32,
    pub(crate) ops_per_s: f64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) cpu_s_per_100k: Cpu,
}

/// One row over v3lock's with as many tasks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Ratio {
    variant: &'static str,
    concurrency: u32,
    ops_per_s: Option<f64>,
    p50: Option<f64>,
    p99: Option<f64>,
}

/// The last line of a bench.
#[derive(Debug, Serialize)]
struct Verdict {
    bench: &'static str,
    /// Operations a second of the coordinator's first variant over v3lock's, with the most tasks.
    ratio: Option<f64>,
    ratios: Vec<Ratio>,
    etcd: String,
}

/// The rounds of each variant with so many tasks.
pub(crate) type Samples = BTreeMap<(u32, Variant), Vec<Sample>>;

/// Prints what the rounds have shown.
pub(crate) fn tell(
    bench: &'static str,
    etcd: &str,
    samples: &Samples,
    output: BenchOutput,
) -> Result<(), Failure> {
    let rows: Vec<Row> = samples
        .iter()
        .map(|((concurrency, variant), rounds)| row(bench, *variant, *concurrency, rounds))
        .collect();
    let ratios = ratios(&rows);
    match output {
        BenchOutput::Jsonl => {
            rows.iter().try_for_each(output::json)?;
            output::json(&Verdict {
                bench,
                ratio: main_ratio(&ratios),
                ratios,
                etcd: etcd.to_owned(),
            })
        }
        BenchOutput::Table => output::data(table(&rows, &ratios)),
    }
}

fn row(bench: &'static str, variant: Variant, concurrency: u32, rounds: &[Sample]) -> Row {
    let of = |figure: fn(&Sample) -> Option<f64>| median(rounds.iter().filter_map(figure));
    let percentile = |permille: usize| {
        let of_rounds = rounds
            .iter()
            .filter_map(|round| percentile(&round.latencies, permille));
        let middle = median(of_rounds.map(|time| time.as_secs_f64()));
        microseconds(Duration::from_secs_f64(middle.unwrap_or_default()))
    };
    Row {
        bench,
        variant: variant.name(),
        concurrency,
        ops_per_s: rounded(of(|round| Some(rate(round))).unwrap_or_default(), 1),
        p50_us: percentile(500),
        p99_us: percentile(990),
        cpu_s_per_100k: Cpu {
            load: of(|round| per_100k(round.cpu.load, round)),
            coordinator: of(|round| per_100k(round.cpu.coordinator, round)),
            etcd: of(|round| per_100k(round.cpu.etcd, round)),
        }
        .map(|seconds| rounded(seconds, 3)),
    }
}

fn rate(sample: &Sample) -> f64 {
    count(sample.operations) / sample.time.as_secs_f64()
}

fn per_100k(seconds: Option<f64>, sample: &Sample) -> Option<f64> {
    (sample.operations > 0)
        .then(|| seconds.map(|seconds| seconds * CPU_OPERATIONS / count(sample.operations)))
        .flatten()
}

/// Every other row over v3lock's with as many tasks.
fn ratios(rows: &[Row]) -> Vec<Ratio> {
    let lock = Variant::V3lock.name();
    let against = |row: &Row| {
        rows.iter()
            .find(|other| other.variant == lock && other.concurrency == row.concurrency)
            .copied()
    };
    let time = |microseconds: u64| Duration::from_micros(microseconds).as_secs_f64();
    let others = rows.iter().filter(|row| row.variant != lock);
    others
        .filter_map(|row| {
            let base = against(row)?;
            Some(Ratio {
                variant: row.variant,
                concurrency: row.concurrency,
                ops_per_s: over(row.ops_per_s, base.ops_per_s),
                p50: over(time(row.p50_us), time(base.p50_us)),
                p99: over(time(row.p99_us), time(base.p99_us)),
            })
        })
        .collect()
}

/// That of the stream, or else of what else there is, with the most tasks.
fn main_ratio(ratios: &[Ratio]) -> Option<f64> {
    let most = ratios.iter().map(|ratio| ratio.concurrency).max()?;
    let mut with_most = ratios.iter().filter(|ratio| ratio.concurrency == most);
    with_most.next()?.ops_per_s
}

fn over(one: f64, other: f64) -> Option<f64> {
    (other > 0.0).then(|| rounded(one / other, 3))
}

fn table(rows: &[Row], ratios: &[Ratio]) -> Table {
    let mut table = Table::with_header([
        "VARIANT",
        "TASKS",
        "OPS/S",
        "P50",
        "P99",
        "CPU LOAD",
        "COORDINATOR",
        "ETCD",
        "OPS/S : V3LOCK",
        "P99 : V3LOCK",
    ]);
    for row in rows {
        let ratio = ratios
            .iter()
            .find(|ratio| ratio.variant == row.variant && ratio.concurrency == row.concurrency);
        let cpu = row.cpu_s_per_100k;
        let times = |value: Option<f64>| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
        };
        table.row([
            row.variant.to_owned(),
            row.concurrency.to_string(),
            format!("{:.0}", row.ops_per_s),
            format!("{} us", row.p50_us),
            format!("{} us", row.p99_us),
            times(cpu.load),
            times(cpu.coordinator),
            times(cpu.etcd),
            times(ratio.and_then(|ratio| ratio.ops_per_s)),
            times(ratio.and_then(|ratio| ratio.p99)),
        ]);
    }
    table
}

/// The value in the middle, or between the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = values.get(middle.checked_sub(1)?)?;
    Some(f64::midpoint(*lower, upper))
}

/// The least time that so many of a thousand are not above; `ascending` is sorted.
pub(crate) fn percentile(ascending: &[Duration], permille: usize) -> Option<Duration> {
    let place = (ascending.len() * permille).div_ceil(1_000).max(1) - 1;
    ascending.get(place).copied()
}

pub(crate) fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Exact: nothing that is counted here comes near 2^32.
pub(crate) fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

pub(crate) fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests;
