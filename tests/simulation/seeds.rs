//! Runs histories from seeds, and has every one looked at. A seed that fails is printed with the one command that runs
//! it again.
//!
//! `PALISADE_SEED=N` runs that one alone, `PALISADE_SEEDS=N` so many from the first on (from `PALISADE_FIRST_SEED` on, if
//! that is given), instead of the usual few. `PALISADE_FIGURES` names a file that each configuration's figures are
//! appended to, `PALISADE_SHOWN=N` prints more of what led to a violation.

use std::fmt;
use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::configs;
use crate::history::{At, History, Outcome, What};
use crate::invariants::{report, undecided, violations};
use crate::planted::Honest;
use crate::world::{Config, run};

/// How many histories of each configuration are run unless told otherwise.
const USUAL: u64 = 12;
/// After so many failures no more seeds are tried: what is wrong shows in these.
const ENOUGH: usize = 5;
/// So often the same seed is run again, and must give the same history.
const AGAIN_EVERY: u64 = 20;

fn honest(seed: u64, config: &Config) -> History {
    run(seed, config, Arc::new(Honest))
}

/// How much of a history is printed before what shows a violation.
fn shown() -> usize {
    from_env("PALISADE_SHOWN").map_or(60, |shown| usize::try_from(shown).unwrap_or(usize::MAX))
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeds() -> Range<u64> {
    if let Some(seed) = from_env("PALISADE_SEED") {
        return seed..seed + 1;
    }
    let first = from_env("PALISADE_FIRST_SEED").unwrap_or_default();
    first..first + from_env("PALISADE_SEEDS").unwrap_or(USUAL)
}

/// What histories came to, all in all.
#[derive(Debug, Default)]
struct Figures {
    histories: u64,
    entries: u64,
    calls: u64,
    unknown: u64,
    faults: u64,
    grants: u64,
    writes: u64,
    restores: u64,
    undecided: u64,
    simulated: Duration,
    failed: Vec<u64>,
}

impl Figures {
    fn count(&mut self, history: &History) {
        use crate::history::{Decision, Guarded};
        self.histories += 1;
        self.entries += u64::try_from(history.entries.len()).unwrap();
        for entry in &history.entries {
            match &entry.what {
                What::Asked(_) => self.calls += 1,
                What::Told {
                    outcome: Outcome::Unknown,
                    ..
                } => self.unknown += 1,
                What::Fault(_) => self.faults += 1,
                What::Log {
                    decision: Decision::Granted(_),
                    ..
                } => self.grants += 1,
                What::Log {
                    decision: Decision::Restored(_),
                    ..
                } => self.restores += 1,
                What::Guarded {
                    what: Guarded::Wrote { .. },
                    ..
                } => self.writes += 1,
                _ => {}
            }
        }
        let last = history
            .entries
            .last()
            .map_or_else(At::default, |entry| entry.at);
        self.simulated += At::default().until(last);
        self.undecided += u64::try_from(undecided(history)).unwrap();
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} histories, {} violations, {} h simulated, {} entries, {} calls, {} unknown, {} faults, {} restores, \
             {} grants, {} writes, {} searches given up",
            self.histories,
            self.failed.len(),
            self.simulated.as_secs() / 3600,
            self.entries,
            self.calls,
            self.unknown,
            self.faults,
            self.restores,
            self.grants,
            self.writes,
            self.undecided
        )
    }
}

fn publish(config: &Config, figures: &Figures) {
    let line = format!("{}: {figures}", config.name);
    println!("{line}");
    if let Some(path) = std::env::var_os("PALISADE_FIGURES") {
        let file = std::fs::File::options()
            .append(true)
            .create(true)
            .open(path);
        writeln!(file.unwrap(), "{line}").unwrap();
    }
}

/// Runs the seeds of a configuration: nothing may be wrong with any.
fn all_seeds(config: &Config) {
    let mut figures = Figures::default();
    let mut reports = Vec::new();
    for seed in seeds() {
        let history = honest(seed, config);
        figures.count(&history);
        if seed % AGAIN_EVERY == 1 {
            assert_same(&history, &honest(seed, config));
        }
        let wrong = violations(&history);
        if !wrong.is_empty() {
            figures.failed.push(seed);
            let told = wrong
                .iter()
                .map(|violation| report(&history, violation, shown()));
            let told = told.collect::<Vec<_>>().join("\n");
            // At once: a long run may be ended by hand.
            println!("{told}");
            reports.push(told);
        }
        if figures.failed.len() >= ENOUGH {
            break;
        }
    }
    publish(config, &figures);
    assert!(
        reports.is_empty(),
        "seeds {:?} of {} are wrong:\n{}",
        figures.failed,
        config.name,
        reports.join("\n")
    );
    let calls = figures.calls;
    assert!(
        calls > 20 * figures.histories && figures.grants > 5 * figures.histories,
        "{figures}: that little shows nothing"
    );
}

fn assert_same(one: &History, other: &History) {
    for (left, right) in one.entries.iter().zip(&other.entries) {
        assert_eq!(
            left, right,
            "seed {} is not the same twice",
            one.setting.seed
        );
    }
    assert_eq!(one.entries.len(), other.entries.len());
}

/// What tells histories apart, whatever process they come from.
fn digest(histories: impl Iterator<Item = History>) -> String {
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    for history in histories {
        for byte in format!("{:?}", history.entries).bytes() {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{digest:016x}")
}

/// Set for the process that only prints what its histories are.
const ONLY_PRINTS: &str = "PALISADE_PRINT_DIGEST";
const DIGEST: &str = "digest of the same seeds: ";

/// Maps are ordered otherwise in each process, and so is whatever else chance decides that no seed does.
#[test]
fn another_process_gives_the_same_histories() {
    let all = [configs::network(), configs::crashes(), configs::restores()];
    let histories = all.iter().map(|config| honest(1_000_003, config));
    let ours = digest(histories);
    println!("{DIGEST}{ours}");
    if std::env::var_os(ONLY_PRINTS).is_some() {
        return;
    }
    let name = "seeds::another_process_gives_the_same_histories";
    let other = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ONLY_PRINTS, "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&other.stdout).into_owned();
    assert!(
        told.contains(&format!("{DIGEST}{ours}")),
        "{ours} here; there: {told}"
    );
}

#[test]
fn calm() {
    all_seeds(&configs::calm());
}

#[test]
fn network() {
    all_seeds(&configs::network());
}

/// One that was wrong once.
fn is_well_now(seed: u64, config: &Config) {
    let history = honest(seed, config);
    let told = violations(&history);
    let told = told.iter().map(|wrong| report(&history, wrong, shown()));
    let told: String = told.collect();
    assert!(told.is_empty(), "{told}");
}

/// A request was queued once more after its outcome was unknown; then news came of its first grant, which had been
/// revoked meanwhile. It was told, and the place was left to a ghost (I4).
#[test]
fn old_news_of_a_request_that_was_asked_for_again() {
    is_well_now(106, &configs::network());
}

/// A restore brought a revoked lease back, and it was to be revoked again; then news came of how it had ended before
/// the restore. That was told, and it went on being held (I10).
#[test]
fn old_news_of_a_lease_that_a_restore_brought_back() {
    is_well_now(344, &configs::restores());
}

#[test]
fn crashes() {
    all_seeds(&configs::crashes());
}

#[test]
fn restores() {
    all_seeds(&configs::restores());
}
