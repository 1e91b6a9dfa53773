//! What the soak says, to people and to `tests/chaos/run`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::ExitCode;

use serde_json::json;

use crate::faults::Faults;
use crate::judge;
use crate::judge::Sample;
use crate::rig::Work;
use crate::{Failed, sample};

/// Names the file that the line of JSON is appended to.
const REPORT: &str = "PALISADE_CHAOS_REPORT";

#[allow(clippy::print_stderr, reason = "how far it is")]
pub(crate) fn says(what: &str) {
    eprintln!("soak: {what}");
}

/// Judges what was recorded, by the rule as it is now.
#[allow(clippy::print_stdout, reason = "the report is what the program is for")]
pub(crate) fn judges_again(path: &str) -> Result<ExitCode, Failed> {
    let (first, churn, last) = sample::read(path)?;
    Verdict::table(&first, &churn, &last);
    let mut leaks = judge::leaks(&first, &last);
    leaks.extend(judge::trends(&churn));
    Ok(says_whether(&leaks))
}

#[allow(clippy::print_stdout, reason = "the report is what the program is for")]
fn says_whether(leaks: &[String]) -> ExitCode {
    for leak in leaks {
        println!("LEAK: {leak}");
    }
    if leaks.is_empty() {
        println!("nothing leaked");
        return ExitCode::SUCCESS;
    }
    println!("it leaks");
    ExitCode::FAILURE
}

/// All that there is to judge by.
pub(crate) struct Verdict {
    pub(crate) minutes: u64,
    pub(crate) first: Sample,
    pub(crate) churn: Vec<Sample>,
    pub(crate) last: Sample,
    pub(crate) faults: Faults,
    pub(crate) work: Work,
}

impl Verdict {
    /// Prints the report, and says by the exit code whether something has leaked.
    #[allow(clippy::print_stdout, reason = "the report is what the program is for")]
    pub(crate) fn tell(&self) -> ExitCode {
        let leaks = self.leaks();
        let faults: u64 = self.faults.struck.values().sum();
        println!("soak: {} min of churn, {faults} faults", self.minutes);
        for (fault, times) in &self.faults.struck {
            println!("  {fault:22} {times:>6}");
        }
        println!("what workers did");
        for (kind, count) in &self.work.counts {
            println!("  {kind:30} {count:>8}");
        }
        Self::table(&self.first, &self.churn, &self.last);
        let code = says_whether(&leaks);
        self.write_line(&leaks);
        code
    }

    fn leaks(&self) -> Vec<String> {
        let mut leaks = judge::leaks(&self.first, &self.last);
        leaks.extend(judge::trends(&self.churn));
        if self.work.failures > 0 {
            let failures = self.work.failures;
            leaks.push(format!(
                "{failures} tasks of workers have panicked or not ended"
            ));
        }
        let done = |kind: &str| self.work.counts.get(kind).is_some_and(|count| *count > 0);
        for kind in [
            "churn ok",
            "abandon ok",
            "watch ok",
            "look ok",
            "revoke ok",
            "delay ok",
            "write ok",
        ] {
            if !done(kind) {
                leaks.push(format!("there was no {kind}: it was no soak"));
            }
        }
        leaks
    }

    #[allow(clippy::print_stdout, reason = "the report is what the program is for")]
    fn table(first: &Sample, churn: &[Sample], last: &Sample) {
        println!(
            "{:22} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "at", "first", "median", "most", "trend", "last"
        );
        let names = first.values.keys().chain(last.values.keys());
        let names: std::collections::BTreeSet<_> = names.collect();
        for name in names {
            let shown = |value: Option<u64>| {
                value.map_or_else(|| "-".to_owned(), |value| value.to_string())
            };
            let points = judge::points(churn, name);
            let values: Vec<_> = points.iter().map(|(_, value)| *value).collect();
            let most = values.iter().copied().fold(0.0, f64::max);
            let half = judge::points(&churn[churn.len() / 2..], name);
            let (growth, _allowed) = judge::growth(name, &half);
            println!(
                "{name:22} {:>9} {:>9} {most:>9} {growth:>+9.0} {:>9}",
                shown(first.get(name)),
                judge::median(values),
                shown(last.get(name)),
            );
        }
        println!("(trend: over the second half of the churn)");
    }

    #[allow(clippy::print_stdout, reason = "the report is what the program is for")]
    fn write_line(&self, leaks: &[String]) {
        let counts = &self.work.counts;
        let unknown = counts.iter().filter(|(kind, _)| kind.ends_with(" unknown"));
        let line = json!({
            "fault": "soak",
            "test": "soak",
            "minutes": self.minutes,
            "faults": self.faults.struck,
            "operations": counts.values().sum::<u64>(),
            "unknown": unknown.map(|(_, count)| count).sum::<u64>(),
            "violations": leaks.len(),
            "leaks": leaks,
            "recovery_ms": [],
        });
        println!("{line}");
        if let Some(path) = std::env::var_os(REPORT) {
            let file = OpenOptions::new().create(true).append(true).open(path);
            // In one piece: others write, too.
            file.unwrap()
                .write_all(format!("{line}\n").as_bytes())
                .unwrap();
        }
    }
}
