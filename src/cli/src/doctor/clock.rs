//! This machine's clock, and how far tokens are from it.

use std::time::Duration;

use palisade_coordinator::domain::WallClock;

use super::report::Check;
use crate::clock;
use crate::units::{show_roughly, show_unix_ms};

const CLOCK: &str = "clock";
const SUBJECT: &str = "clock";
/// What clocks that are kept by NTP never differ by.
const APART: u64 = 60_000_000;

/// `highest` is the highest token that can have been issued so far, where that is known.
pub(super) fn checks(highest: Option<u64>) -> Vec<Check> {
    at(u64::try_from(clock::unix_ms()).unwrap_or_default(), highest)
}

fn at(unix_ms: u64, highest: Option<u64>) -> Vec<Check> {
    let now = unix_ms.saturating_mul(1_000);
    let shown = iso(unix_ms);
    let mut checks = Vec::new();
    let plausible = WallClock::BUILT.0..=WallClock::LATEST.0;
    if plausible.contains(&now) {
        let found = format!("this machine's clock shows {shown}");
        checks.push(Check::ok(CLOCK, SUBJECT, found));
    } else {
        let (least, most) = (iso(plausible.start() / 1_000), iso(plausible.end() / 1_000));
        let found = format!(
            "this machine's clock shows {shown}; a coordinator here takes {least} to {most}"
        );
        let advice = "set the clock, and keep it by NTP: a coordinator here would grant nothing";
        checks.push(Check::fail(CLOCK, SUBJECT, found, advice));
    }
    if let Some(highest) = highest {
        checks.push(ahead(now, highest));
    }
    checks
        .into_iter()
        .map(|check| check.value("unix_ms", unix_ms))
        .collect()
}

/// Tokens grow more slowly than microseconds pass, so none is above the clock unless something pushed it there.
fn ahead(now: u64, highest: u64) -> Check {
    let by = Duration::from_micros(highest.saturating_sub(now));
    let check = match highest.saturating_sub(now) {
        0..APART => Check::ok(
            CLOCK,
            "tokens",
            "they are not ahead of this machine's clock",
        ),
        _ => {
            let found = format!(
                "they are {} ahead of this machine's clock, until {}",
                show_roughly(by),
                iso(highest / 1_000)
            );
            let advice = "correct this clock if it is behind. Else they were pushed, by an operator, a guard, or a clock \
                 that was ahead: it is safe, but until the clock is there, restore no older snapshot of etcd \
                 without palisade generation advance";
            Check::warn(CLOCK, "tokens", found, advice)
        }
    };
    check.value("highest_token", highest).value(
        "ahead_ms",
        u64::try_from(by.as_millis()).unwrap_or(u64::MAX),
    )
}

fn iso(unix_ms: u64) -> String {
    let unix_ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    show_unix_ms(unix_ms)
}

#[cfg(test)]
mod tests {
    use palisade_coordinator::domain::WallClock;
    use serde_json::{Value, json};

    use super::at;

    const NOW: u64 = WallClock::BUILT.0 + WallClock::DAY_MICROS;

    fn verdicts(now: u64, highest: Option<u64>) -> Vec<Value> {
        let checks = at(now / 1_000, highest);
        let verdict = |check| serde_json::to_value(check).unwrap()["verdict"].clone();
        checks.iter().map(verdict).collect()
    }

    #[test]
    fn a_clock_that_makes_no_generation_is_wrong() {
        for now in [0, WallClock::BUILT.0 - 1_000, WallClock::LATEST.0 + 1_000] {
            assert_eq!(verdicts(now, None), [json!("fail")], "{now}");
        }
        for now in [WallClock::BUILT.0, NOW, WallClock::LATEST.0] {
            assert_eq!(verdicts(now, None), [json!("ok")], "{now}");
        }
    }

    #[test]
    fn tokens_ahead_of_the_clock_are_warned_of() {
        for (ahead, verdict) in [
            (0, "ok"),
            (59_999_999, "ok"),
            (60_000_000, "warn"),
            (WallClock::DAY_MICROS * 3, "warn"),
        ] {
            let found = verdicts(NOW, Some(NOW + ahead));
            assert_eq!(found, [json!("ok"), json!(verdict)], "{ahead}");
        }
        assert_eq!(verdicts(NOW, Some(1)), [json!("ok"), json!("ok")]);
    }
}
