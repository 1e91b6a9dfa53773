//! Texts on the command line and in tables: durations, addresses, points of time.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::ValueEnum;
use jiff::Timestamp;

use crate::clock;

/// Reads a time such as `500ms`, `5s`, `2m` or `1h`: a whole number and its unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = || "write a whole number and its unit: 500ms, 5s, 2m or 1h".to_owned();
    let unit_at = text
        .find(|digit: char| !digit.is_ascii_digit())
        .ok_or_else(refuse)?;
    let (number, unit) = text.split_at(unit_at);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(refuse()),
    };
    let number: u64 = number.parse().map_err(|_| refuse())?;
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .ok_or_else(refuse)
}

/// A time as [`parse_duration`] reads it, in the largest unit that is exact.
pub(crate) fn show_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    units
        .into_iter()
        .find(|(_, unit)| milliseconds > 0 && milliseconds.is_multiple_of(*unit))
        .map_or_else(
            || format!("{milliseconds}ms"),
            |(name, unit)| format!("{}{name}", milliseconds / unit),
        )
}

/// Reads a coordinator's address; without a scheme it is plain HTTP/2.
pub(crate) fn parse_address(text: &str) -> Result<String, String> {
    let url = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let uri: http::Uri = url
        .parse()
        .map_err(|_| "write http://HOST:PORT or https://HOST:PORT".to_owned())?;
    match (uri.scheme_str(), uri.port_u16()) {
        (Some("http" | "https"), Some(_)) => Ok(url),
        (Some("https"), None) => Ok(url),
        (Some("http"), None) => Err("the port is missing: write http://HOST:PORT".to_owned()),
        _ => Err("write http://HOST:PORT or https://HOST:PORT".to_owned()),
    }
}

/// How points of time are shown to people. JSON has them in milliseconds since 1970 UTC, whatever this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TimeStyle {
    /// How long ago by this machine's clock: 12s ago
    Relative,
    /// ISO 8601 in UTC: 2026-11-21T15:04:05Z
    Iso,
}

/// Shows points of time in one style.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times(TimeStyle);

impl Times {
    /// In the style asked for; else relative where a person looks at it, and ISO 8601 where it is kept.
    pub(crate) fn new(asked: Option<TimeStyle>) -> Self {
        Self(asked.unwrap_or_else(|| match io::stdout().is_terminal() {
            true => TimeStyle::Relative,
            false => TimeStyle::Iso,
        }))
    }

    /// A point of time, in milliseconds since 1970 UTC.
    pub(crate) fn show(self, unix_ms: i64) -> String {
        self.show_at(unix_ms, clock::unix_ms())
    }

    fn show_at(self, unix_ms: i64, now: i64) -> String {
        match self.0 {
            TimeStyle::Relative => relative(now.saturating_sub(unix_ms)),
            TimeStyle::Iso => show_unix_ms(unix_ms),
        }
    }
}

/// A point of time as ISO 8601 has it, in UTC and whole seconds.
pub(crate) fn show_unix_ms(unix_ms: i64) -> String {
    Timestamp::from_second(unix_ms.div_euclid(1_000)).map_or_else(
        // Beyond the year 9999: nobody's time.
        |_| format!("{unix_ms}ms since 1970"),
        |time| time.to_string(),
    )
}

/// How long ago something was. What is ahead of this machine's clock is told as such.
fn relative(ago_ms: i64) -> String {
    match ago_ms {
        -999..1_000 => "now".to_owned(),
        1_000.. => format!("{} ago", rough(ago_ms.unsigned_abs())),
        _ => format!("in {}", rough(ago_ms.unsigned_abs())),
    }
}

/// A time in whole units of the two largest that it has, such as 2h 3m: for people.
pub(crate) fn show_roughly(time: Duration) -> String {
    rough(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn rough(milliseconds: u64) -> String {
    const UNITS: [(&str, u64); 5] = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let largest = UNITS.iter().position(|(_, unit)| milliseconds >= *unit);
    let (name, unit) = UNITS[largest.unwrap_or(UNITS.len() - 1)];
    let whole = milliseconds / unit;
    // Seconds and below are told alone: who reads them looks at the number, not at its remainder.
    let next = largest
        .and_then(|index| UNITS.get(index + 1))
        .filter(|_| unit > 1_000);
    match next.map(|(name, next)| (milliseconds % unit / next, name)) {
        Some((rest, lesser)) if rest > 0 => format!("{whole}{name} {rest}{lesser}"),
        _ => format!("{whole}{name}"),
    }
}

#[cfg(test)]
mod tests;
