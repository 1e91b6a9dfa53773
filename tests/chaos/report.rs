//! What a test has seen under a fault, as one line of JSON in a file that collects them.

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use serde_json::json;

/// Names the file that lines are appended to; without it they are only printed.
const REPORT: &str = "PALISADE_CHAOS_REPORT";

/// One fault in one test.
#[derive(Debug, Clone)]
pub(crate) struct Row<'a> {
    /// Its number in FAULTS.md, `F7`, or a word where it has none.
    pub(crate) fault: &'a str,
    pub(crate) test: &'a str,
    /// What clients asked for while it lasted, and until things went on.
    pub(crate) operations: u64,
    /// Of those, how many may or may not have happened, as far as their clients were told.
    pub(crate) unknown: u64,
    /// Always none where the test has passed: it is written before the test fails.
    pub(crate) violations: u64,
    /// From the end of the fault to the next grant, for each time that it was tried.
    pub(crate) recovery: Vec<Duration>,
}

impl Row<'_> {
    /// Appends the line; prints it, too.
    #[allow(clippy::print_stderr, reason = "figures are shown beside the test")]
    pub(crate) fn write(&self) {
        let recovery_ms: Vec<_> = self.recovery.iter().map(Duration::as_millis).collect();
        let recovery_ms: Vec<_> = recovery_ms
            .into_iter()
            .map(|ms| u64::try_from(ms).unwrap_or(u64::MAX))
            .collect();
        let line = json!({
            "fault": self.fault,
            "test": self.test,
            "operations": self.operations,
            "unknown": self.unknown,
            "violations": self.violations,
            "recovery_ms": recovery_ms,
        });
        eprintln!("{line}");
        let Some(path) = env::var_os(REPORT) else {
            return;
        };
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        // In one piece: other tests write, too.
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}
