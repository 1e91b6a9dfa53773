//! One report out of what all parts of `tests/chaos/run` have left in its directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::workload::Failed;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where the parts have left their figures: `parts.tsv`, `*.json` and `*.jsonl`.
    #[arg(long)]
    dir: PathBuf,
    /// Also writes the report to a file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A part of the run.
struct Part {
    name: String,
    result: String,
    seconds: u64,
    /// What it said of itself, in a line.
    said: String,
}

/// What the lines of one fault come to.
#[derive(Default)]
struct Fault {
    tests: Vec<String>,
    operations: u64,
    unknown: u64,
    violations: u64,
    recovery_ms: Vec<u64>,
}

#[derive(Default)]
struct Totals {
    faults: u64,
    operations: u64,
    unknown: u64,
    violations: u64,
}

/// Returns whether no part has failed and nothing was violated.
pub(crate) fn run(options: &Options) -> Result<bool, Failed> {
    let parts = parts(&options.dir)?;
    let lines = lines(&options.dir)?;
    let comparisons = document(&options.dir, &["lock-set.json", "effects.json"])?;
    let recovery = document(&options.dir, &["recovery.json"])?;
    let simulated = simulated(&options.dir)?;
    let faults = by_fault(&lines);
    let mut totals = totals(&faults, &comparisons, &recovery);
    simulated.iter().for_each(|line| totals.add_simulated(line));
    print_parts(&parts);
    if !simulated.is_empty() {
        println!("\nsimulation");
        simulated.iter().for_each(|line| println!("  {line}"));
    }
    print_comparisons(&comparisons);
    print_faults(&faults);
    recovery.iter().for_each(print_recovery);
    println!("\nin all");
    println!("  faults made                {:>12}", totals.faults);
    println!("  operations under fault     {:>12}", totals.operations);
    println!("  unknown outcomes           {:>12}", totals.unknown);
    println!("  violations                 {:>12}", totals.violations);
    let failed = parts.iter().filter(|part| part.result == "failed").count();
    let holds = failed == 0 && totals.violations == 0;
    match holds {
        true => println!("  => nothing was violated"),
        false => println!(
            "  => FAILED: {failed} parts, {} violations",
            totals.violations
        ),
    }
    if let Some(file) = &options.json {
        let part = |part: &Part| json!({"part": part.name, "result": part.result, "seconds": part.seconds, "said": part.said});
        let report = json!({
            "holds": holds,
            "parts": parts.iter().map(part).collect::<Vec<_>>(),
            "faults": totals.faults,
            "operations": totals.operations,
            "unknown": totals.unknown,
            "violations": totals.violations,
            "simulation": simulated,
            "real_server_faults": lines,
            "comparisons": comparisons,
            "recovery": recovery,
        });
        fs::write(file, format!("{report:#}\n"))?;
    }
    Ok(holds)
}

impl Totals {
    /// A line of the simulation: `NAME: 40 histories, 0 violations, …`.
    fn add_simulated(&mut self, line: &str) {
        let counts = line.split_once(": ").map_or("", |(_name, counts)| counts);
        for count in counts.split(", ") {
            let (number, word) = count.split_once(' ').unwrap_or_default();
            let number: u64 = number.parse().unwrap_or_default();
            match word {
                "faults" => self.faults += number,
                "calls" => self.operations += number,
                "unknown" => self.unknown += number,
                "violations" => self.violations += number,
                _ => {}
            }
        }
    }
}

/// What the simulation says of each configuration, a line each.
fn simulated(dir: &Path) -> Result<Vec<String>, Failed> {
    let file = dir.join("simulation.txt");
    if !file.exists() {
        return Ok(Vec::new());
    }
    Ok(fs::read_to_string(file)?
        .lines()
        .map(str::to_owned)
        .collect())
}

fn parts(dir: &Path) -> Result<Vec<Part>, Failed> {
    let table = fs::read_to_string(dir.join("parts.tsv"))?;
    let part = |line: &str| {
        let mut cells = line.splitn(4, '\t').map(str::to_owned);
        let mut next = || cells.next().ok_or("a line of parts.tsv is too short");
        Ok(Part {
            name: next()?,
            result: next()?,
            seconds: next()?.parse()?,
            said: next()?,
        })
    };
    table.lines().map(part).collect()
}

/// The lines of all `*.jsonl`: one fault in one test each.
fn lines(dir: &Path) -> Result<Vec<Value>, Failed> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "jsonl")
    });
    files.sort();
    let mut lines = Vec::new();
    for file in files {
        for line in fs::read_to_string(file)?.lines() {
            lines.push(serde_json::from_str(line)?);
        }
    }
    Ok(lines)
}

/// Those of the files that are there; a list counts as its items.
fn document(dir: &Path, names: &[&str]) -> Result<Vec<Value>, Failed> {
    let mut items = Vec::new();
    for name in names {
        let path = dir.join(name);
        if path.exists() {
            match serde_json::from_str(&fs::read_to_string(path)?)? {
                Value::Array(list) => items.extend(list),
                one => items.push(one),
            }
        }
    }
    Ok(items)
}

fn number(value: &Value, path: &str) -> u64 {
    value
        .pointer(path)
        .and_then(Value::as_u64)
        .unwrap_or_default()
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or("-")
}

fn by_fault(lines: &[Value]) -> BTreeMap<String, Fault> {
    let mut faults: BTreeMap<String, Fault> = BTreeMap::new();
    for line in lines {
        let name = text(line, "/fault");
        // F2 before F10.
        let key = match name.strip_prefix('F').map(str::parse::<u32>) {
            Some(Ok(row)) => format!("F{row:02}"),
            _ => name.to_owned(),
        };
        let fault = faults.entry(key).or_default();
        fault.tests.push(text(line, "/test").to_owned());
        fault.operations += number(line, "/operations");
        fault.unknown += number(line, "/unknown");
        fault.violations += number(line, "/violations");
        let times = line.pointer("/recovery_ms").and_then(Value::as_array);
        let times = times.into_iter().flatten().filter_map(Value::as_u64);
        fault.recovery_ms.extend(times);
    }
    for fault in faults.values_mut() {
        fault.recovery_ms.sort_unstable();
    }
    faults
}

const ARMS: [&str; 2] = ["/with_guard", "/lease_alone"];

fn faults_of(arm: Option<&Value>) -> u64 {
    let faults = arm
        .and_then(|arm| arm.pointer("/faults"))
        .and_then(Value::as_object);
    faults
        .into_iter()
        .flatten()
        .filter_map(|(_, count)| count.as_u64())
        .sum()
}

fn totals(faults: &BTreeMap<String, Fault>, comparisons: &[Value], recovery: &[Value]) -> Totals {
    let mut totals = Totals::default();
    for fault in faults.values() {
        totals.faults += u64::try_from(fault.tests.len()).unwrap_or_default();
        totals.operations += fault.operations;
        totals.unknown += fault.unknown;
        totals.violations += fault.violations;
    }
    for comparison in comparisons {
        // What the lease alone loses is what it is there to show, and no violation.
        totals.violations += number(comparison, "/violations");
        for arm in ARMS {
            totals.faults += faults_of(comparison.pointer(arm));
            totals.operations += number(comparison, &format!("{arm}/attempts"));
            totals.unknown += number(comparison, &format!("{arm}/unknown"));
        }
    }
    for figures in recovery {
        // Four kills a round; each row is an operation of one system.
        totals.faults += 4 * number(figures, "/rounds");
        let rows = figures.pointer("/rows").and_then(Value::as_array);
        for row in rows.into_iter().flatten() {
            if text(row, "/system") == "palisade" {
                totals.operations += number(figures, "/rounds");
                totals.violations += number(row, "/missing");
            }
        }
    }
    totals
}

fn print_parts(parts: &[Part]) {
    println!("parts");
    for part in parts {
        println!(
            "  {:<14}{:<9}{:>6} s  {}",
            part.name, part.result, part.seconds, part.said
        );
    }
}

fn print_comparisons(comparisons: &[Value]) {
    if comparisons.is_empty() {
        return;
    }
    println!("\nwith the guard, and under the lease alone");
    println!(
        "  {:<12}{:<14}{:>10}{:>13}{:>9}{:>9}{:>7}{:>7}{:>7}",
        "", "", "attempts", "acknowledged", "unknown", "refused", "faults", "lost", "twice"
    );
    for comparison in comparisons {
        for (arm, words) in ARMS.into_iter().zip(["with guard", "lease alone"]) {
            let figure = |name: &str| number(comparison, &format!("{arm}/{name}"));
            println!(
                "  {:<12}{words:<14}{:>10}{:>13}{:>9}{:>9}{:>7}{:>7}{:>7}",
                text(comparison, "/part"),
                figure("attempts"),
                figure("acknowledged"),
                figure("unknown"),
                figure("refused_as_stale"),
                faults_of(comparison.pointer(arm)),
                figure("lost"),
                figure("applied_twice"),
            );
        }
    }
}

fn print_faults(faults: &BTreeMap<String, Fault>) {
    if faults.is_empty() {
        return;
    }
    println!("\nfaults on real servers (tests/chaos/FAULTS.md)");
    println!(
        "  {:<14}{:>6}{:>12}{:>9}{:>12}{:>24}",
        "", "tries", "operations", "unknown", "violations", "recovery median/worst s"
    );
    for (name, fault) in faults {
        let times = &fault.recovery_ms;
        let seconds = |ms: u64| std::time::Duration::from_millis(ms).as_secs_f64();
        let recovery = match (times.get(times.len() / 2), times.last()) {
            (Some(median), Some(worst)) => {
                format!("{:.2} / {:.2}", seconds(*median), seconds(*worst))
            }
            _ => "-".to_owned(),
        };
        println!(
            "  {name:<14}{:>6}{:>12}{:>9}{:>12}{recovery:>24}",
            fault.tests.len(),
            fault.operations,
            fault.unknown,
            fault.violations,
        );
    }
}

fn print_recovery(figures: &Value) {
    println!(
        "\nrecovery from kill -9, {} rounds",
        number(figures, "/rounds")
    );
    println!(
        "  {:<14}{:<32}{:<11}{:>10}{:>10}",
        "kill -9 of", "until", "", "median s", "worst s"
    );
    let rows = figures.pointer("/rows").and_then(Value::as_array);
    for row in rows.into_iter().flatten() {
        let seconds = |path: &str| match row.pointer(path).and_then(Value::as_u64) {
            Some(ms) => format!("{:.2}", std::time::Duration::from_millis(ms).as_secs_f64()),
            None => "never".to_owned(),
        };
        println!(
            "  {:<14}{:<32}{:<11}{:>10}{:>10}",
            text(row, "/kill"),
            text(row, "/until"),
            text(row, "/system"),
            seconds("/median_ms"),
            seconds("/worst_ms"),
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Totals, by_fault, totals};

    #[test]
    fn lines_of_one_fault_are_added_up_in_the_order_of_the_rows() {
        let line = |fault: &str, violations: u64| {
            json!({"fault": fault, "test": "t", "operations": 10, "unknown": 1,
                "violations": violations, "recovery_ms": [30, 10]})
        };
        let faults = by_fault(&[line("F10", 0), line("F2", 0), line("F2", 1)]);
        assert_eq!(faults.keys().collect::<Vec<_>>(), ["F02", "F10"]);
        assert_eq!(faults["F02"].recovery_ms, [10, 10, 30, 30]);
        let totals = totals(&faults, &[], &[]);
        assert_eq!(
            (totals.faults, totals.operations, totals.unknown),
            (3, 30, 3)
        );
        assert_eq!(totals.violations, 1);
    }

    #[test]
    fn what_the_lease_alone_loses_is_no_violation() {
        let arm = json!({"attempts": 5, "unknown": 1, "lost": 3, "faults": {"kill": 2}});
        let comparison = json!({"violations": 0, "with_guard": arm, "lease_alone": arm});
        let totals = totals(&by_fault(&[]), &[comparison], &[]);
        assert_eq!(
            (totals.violations, totals.operations, totals.faults),
            (0, 10, 4)
        );
    }

    #[test]
    fn the_simulation_counts() {
        let mut totals = Totals::default();
        totals.add_simulated(
            "network: 40 histories, 1 violations, 2 h simulated, 300 calls, 7 unknown, 9 faults",
        );
        assert_eq!((totals.faults, totals.operations), (9, 300));
        assert_eq!((totals.unknown, totals.violations), (7, 1));
    }

    #[test]
    fn a_recovery_that_never_came_is_a_violation() {
        let rows =
            json!([{"system": "palisade", "missing": 1}, {"system": "etcd-lock", "missing": 1}]);
        let totals = totals(&by_fault(&[]), &[], &[json!({"rounds": 5, "rows": rows})]);
        assert_eq!((totals.violations, totals.faults), (1, 20));
    }
}
